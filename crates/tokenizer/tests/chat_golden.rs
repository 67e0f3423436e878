//! Chat templates, rendered as transformers renders them. The file was made by `tests/golden/chat.py`.
#![forbid(unsafe_code)]

use serde::Deserialize;
use tokenizer::chat::{ChatTemplate, Message, TemplateError};

#[derive(Deserialize)]
struct Golden {
    conversations: Vec<Conversation>,
    templates: Vec<Template>,
    snippets: Vec<Snippet>,
}

#[derive(Deserialize)]
struct Conversation {
    name: String,
    messages: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Template {
    name: String,
    template: String,
    /// For each conversation without and with the prompt for an answer.
    results: Vec<Answer>,
}

#[derive(Deserialize)]
struct Snippet {
    template: String,
    result: Answer,
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Text(String),
    /// What `raise_exception` said, or `error`.
    Error(String),
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/chat.json")).unwrap()
}

fn messages(conversation: &Conversation) -> Vec<Message> {
    conversation.messages.iter().map(|(role, content)| Message::new(role, content)).collect()
}

fn render(template: &str, messages: &[Message], add_generation_prompt: bool) -> Answer {
    let text = ChatTemplate::from_jinja(template)
        .and_then(|template| template.render(messages, add_generation_prompt));
    match text {
        Ok(text) => Answer::Text(text),
        Err(TemplateError::Refused { message }) => Answer::Error(message),
        Err(_) => Answer::Error("error".to_owned()),
    }
}

#[test]
fn templates_of_many_styles() {
    let golden = golden();
    for Template { name, template, results } in &golden.templates {
        let mut results = results.iter();
        for conversation in &golden.conversations {
            for prompt in [false, true] {
                let got = render(template, &messages(conversation), prompt);
                assert_eq!(&got, results.next().unwrap(), "{name}, {}, {prompt}", conversation.name);
            }
        }
        assert!(results.next().is_none());
    }
}

#[test]
fn parts_of_jinja_and_python() {
    let golden = golden();
    let system = golden.conversations.iter().find(|conversation| conversation.name == "system").unwrap();
    let mut wrong = Vec::new();
    for Snippet { template, result } in &golden.snippets {
        let got = render(template, &messages(system), false);
        if got != *result {
            wrong.push(format!("{template:?}\n  ours:   {got:?}\n  theirs: {result:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), golden.snippets.len(), wrong.join("\n"));
}
