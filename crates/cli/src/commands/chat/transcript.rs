//! Conversations in files: `messages`, as other programs and `gpt2 finetune` read them.
//!
//! `.json` is an array of one conversation for people to read, all else one conversation on a line (JSON lines):
//! `{"messages": [{"role": "user", "content": "…"}, …]}`. An answer that was interrupted has `"interrupted": true`, too.

use std::path::Path;

use anyhow::{Context, Result, bail};
use generate::Finish;
use generate::apps::chat::Conversation;
use serde_json::{Value, json};
use tokenizer::chat::Message;

use crate::{input, output};

/// Writes a conversation, whole or not at all.
pub fn save(conversation: &Conversation, path: &Path) -> Result<()> {
    let text = to_text(conversation, path.extension().is_some_and(|end| end == "json"))?;
    output::save(path, text.as_bytes())
}

fn to_text(conversation: &Conversation, for_people: bool) -> Result<String> {
    let system = conversation.system().map(|system| json!({ "role": "system", "content": system }));
    let turns = conversation.turns().iter().flat_map(|turn| {
        let mut answer = json!({ "role": "assistant", "content": turn.answer });
        if turn.finish == Finish::Cancelled {
            answer["interrupted"] = json!(true);
        }
        [json!({ "role": "user", "content": turn.user }), answer]
    });
    let messages: Vec<Value> = system.into_iter().chain(turns).collect();
    let one = json!({ "messages": messages });
    let text =
        if for_people { serde_json::to_string_pretty(&json!([one])) } else { serde_json::to_string(&one) };
    Ok(text? + "\n")
}

/// Reads a conversation, and the user's last message where it has no answer.
pub fn load(path: &Path) -> Result<(Conversation, Option<String>)> {
    let text = input::read_text(path)?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

fn parse(text: &str) -> Result<(Conversation, Option<String>)> {
    let values = values(text)?;
    let is_message = |value: &Value| value.get("role").is_some();
    let messages = match &values[..] {
        [] => bail!("there is nothing in it; {FORM}"),
        messages if messages.iter().all(is_message) => messages.to_vec(),
        [one] => match one.get("messages") {
            Some(Value::Array(messages)) => messages.clone(),
            _ => bail!("there are no messages; {FORM}"),
        },
        several if several.iter().all(|value| value.get("messages").is_some()) => {
            bail!("there are {} conversations; keep one in the file", several.len())
        }
        _ => bail!("there are no messages; {FORM}"),
    };
    let mut read = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let field = |name: &str| {
            let text = message.get(name).and_then(Value::as_str);
            text.with_context(|| format!("message {}: `{name}` is not there, or is no text; {FORM}", i + 1))
        };
        read.push(Message::new(field("role")?, field("content")?));
    }
    let (mut conversation, asked) = Conversation::from_messages(&read)?;
    let answers = messages.iter().filter(|message| message["role"] == "assistant");
    for (turn, answer) in conversation.turns_mut().iter_mut().zip(answers) {
        if answer["interrupted"] == true {
            turn.finish = Finish::Cancelled;
        }
    }
    Ok((conversation, asked))
}

const FORM: &str = "a conversation is {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}, …]}";

/// The elements of a JSON array, or the value of each line.
fn values(text: &str) -> Result<Vec<Value>> {
    let text = text.trim_start_matches('\u{feff}');
    match serde_json::from_str(text) {
        Ok(Value::Array(values)) => return Ok(values),
        Ok(value) => return Ok(vec![value]),
        // What is cut off is told as such, not as a bad first line.
        Err(error) if text.trim_start().starts_with('[') => return Err(error.into()),
        Err(_) => {}
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| serde_json::from_str(line).with_context(|| format!("line {} is not JSON", i + 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use generate::apps::chat::Turn;

    fn conversation() -> Conversation {
        let mut conversation = Conversation::new(Some("Be \"brief\".\n".into()));
        let turn =
            |user: &str, answer: &str, finish| Turn { user: user.into(), answer: answer.into(), finish };
        conversation.turns_mut().push(turn("你好", "你好！\n\n1. 一", Finish::Eot));
        conversation.turns_mut().push(turn("/etc?", "A fold", Finish::Cancelled));
        conversation.turns_mut().push(turn("…", "", Finish::Eot));
        conversation
    }

    #[test]
    fn what_is_saved_comes_back() {
        for for_people in [false, true] {
            let text = to_text(&conversation(), for_people).unwrap();
            assert_eq!(text.lines().count() == 1, !for_people, "{text}");
            let (back, asked) = parse(&format!("\u{feff}{text}\n")).unwrap();
            assert_eq!((back, asked), (conversation(), None));
        }
    }

    #[test]
    fn messages_a_line_and_arrays_of_them_are_read_too() {
        let lines = "{\"role\":\"user\",\"content\":\"a\"}\n\n{\"role\":\"assistant\",\"content\":\"b\"}\n";
        let (back, asked) = parse(lines).unwrap();
        assert_eq!((back.turns()[0].user.as_str(), back.turns()[0].answer.as_str(), asked), ("a", "b", None));
        let array = r#"[{"role":"system","content":"s"},{"role":"user","content":"a","extra":1}]"#;
        let (back, asked) = parse(array).unwrap();
        assert_eq!((back.system(), back.turns().len(), asked.as_deref()), (Some("s"), 0, Some("a")));
    }

    #[test]
    fn what_is_no_conversation_says_why() {
        let user = r#"{"role":"user","content":"a"}"#;
        let assistant = r#"{"role":"assistant","content":"b"}"#;
        for (text, part) in [
            (String::new(), "nothing in it"),
            ("[]".into(), "nothing in it"),
            ("hello".into(), "line 1 is not JSON"),
            (format!("{user}\n{{"), "line 2 is not JSON"),
            (format!("[{user},"), "EOF"),
            ("{}".into(), "no messages"),
            ("[1, 2]".into(), "no messages"),
            ("{\"messages\":3}".into(), "no messages"),
            ("{\"messages\":[]}".into(), "no messages"),
            ("{\"messages\":[3]}".into(), "message 1: `role`"),
            (r#"[{"role":"user"}]"#.into(), "message 1: `content`"),
            (r#"[{"role":"user","content":null}]"#.into(), "message 1: `content`"),
            (format!("{{\"messages\":[{user}]}}\n{{\"messages\":[{user}]}}"), "2 conversations"),
            (format!("[{user},{user}]"), "message 2 has the role `user` where `assistant`"),
            (format!("[{assistant}]"), "message 1 has the role `assistant` where `user`"),
            (r#"[{"role":"tool","content":"x"}]"#.into(), "`tool`"),
            (r#"[{"role":"user","content":" \n"}]"#.into(), "message 1 (user) is empty"),
            (r#"[{"role":"system","content":"x"}]"#.into(), "there are no messages"),
        ] {
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(format!("{:#}", parse(&deep).unwrap_err()).contains("recursion"));
    }
}
