//! What a text is written from: a prompt to continue, or messages to answer in the form of the model's chat template.

use anyhow::{Context, Result, bail, ensure};
use generate::Request;
use generate::apps::chat::Conversation;
use serde_json::json;
use tokenizer::Tokenizer;
use tokenizer::chat::{ChatTemplate, Message};

use super::Args;
use crate::input;
use crate::output::note;

/// What is asked.
#[derive(Debug, PartialEq)]
pub enum Asked {
    /// A text to continue.
    Prompt(String),
    /// Turns of a conversation, the last one the user's.
    Messages(Vec<Message>),
}

impl Asked {
    /// A text to continue, or with `chat` a user's message to answer.
    pub fn text(text: String, chat: bool) -> Result<Asked> {
        if chat { Asked::messages(vec![Message::new("user", text)]) } else { Ok(Asked::Prompt(text)) }
    }

    /// Turns of a conversation, which must be those before an answer.
    pub fn messages(messages: Vec<Message>) -> Result<Asked> {
        let (_, asked) = Conversation::from_messages(&messages)?;
        ensure!(
            asked.is_some(),
            "the last message is the assistant's; add the user's that is to be answered"
        );
        Ok(Asked::Messages(messages))
    }

    pub fn is_chat(&self) -> bool {
        matches!(self, Asked::Messages(_))
    }

    /// What stands before the text where it is shown.
    pub fn shown(&self) -> &str {
        match self {
            Asked::Prompt(prompt) => prompt,
            Asked::Messages(_) => "",
        }
    }

    /// How a line begins that tells of the text.
    pub fn head(&self, index: usize) -> String {
        match self {
            Asked::Prompt(prompt) => format!("{{\"index\":{index},\"prompt\":{},", json!(prompt)),
            Asked::Messages(messages) => format!("{{\"index\":{index},\"messages\":{},", json!(messages)),
        }
    }

    /// What the model reads of it.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Asked::Prompt(prompt) => vec![prompt],
            Asked::Messages(messages) => messages.iter().map(|message| message.content.as_str()).collect(),
        }
    }
}

/// The model's chat template, if there are messages.
pub fn template<'a>(
    tokenizer: &Tokenizer,
    mut asked: impl Iterator<Item = &'a Asked>,
) -> Result<Option<ChatTemplate>> {
    if !asked.any(Asked::is_chat) {
        return Ok(None);
    }
    let template = ChatTemplate::of(tokenizer).context("cannot use the model's chat template")?;
    if template.is_assumed() {
        note!(
            "note: the model has no chat template, so that messages are written as `User: …` and `Assistant: …`; `gpt2 \
             finetune` makes a base model an assistant"
        );
    }
    Ok(Some(template))
}

impl Args {
    /// The request for what is asked.
    pub fn ask(
        &self,
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        asked: &Asked,
        seed: u64,
    ) -> Result<Request> {
        let messages = match asked {
            Asked::Prompt(prompt) => return self.request(tokenizer, prompt, seed),
            Asked::Messages(messages) => messages,
        };
        let Some(template) = template else { bail!("there is no chat template for the messages") };
        let mut request = self.request(tokenizer, "", seed)?;
        request.prompt = template.prompt(tokenizer, messages)?;
        request.stop.extend(template.stop_strings());
        request.sampling.processors.stop_tokens.extend(template.end_tokens(tokenizer));
        Ok(request)
    }
}

/// Says what of a text to be read the vocabulary has no tokens for.
pub fn note_unknown(tokenizer: &Tokenizer, asked: &Asked) {
    let what = if asked.is_chat() { "the message" } else { "the prompt" };
    asked.texts().into_iter().for_each(|text| input::note_unknown(tokenizer, text, what));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_tell_what_was_asked() {
        let prompt = Asked::text("\"你好\"\n".into(), false).unwrap();
        assert_eq!(prompt.head(3), r#"{"index":3,"prompt":"\"你好\"\n","#);
        let chat = Asked::text("你好".into(), true).unwrap();
        assert_eq!(chat.head(0), r#"{"index":0,"messages":[{"role":"user","content":"你好"}],"#);
    }

    #[test]
    fn messages_end_with_the_user() {
        let of = |turns: &[(&str, &str)]| {
            Asked::messages(turns.iter().map(|&(role, content)| Message::new(role, content)).collect())
        };
        assert!(of(&[("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c")]).is_ok());
        for (turns, part) in [
            (&[][..], "no messages"),
            (&[("user", "a"), ("assistant", "b")], "the last message is the assistant's"),
            (&[("user", " ")], "message 1 (user) is empty"),
            (&[("user", "a"), ("user", "b")], "message 2 has the role `user`"),
            (&[("boss", "a")], "`boss`"),
        ] {
            let error = of(turns).unwrap_err().to_string();
            assert!(error.contains(part), "{turns:?}: {error}");
        }
    }
}
