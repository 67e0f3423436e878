//! Conversations: their turns, and how a template turns them into text and tokens.
//!
//! A template is Jinja, as `tokenizer_config.json` keeps it, and is rendered as transformers' `apply_chat_template`
//! renders it. Models without one get ChatML where their vocabulary has its tokens, or else lines of `User: …` and
//! `Assistant: …`, of which each answer ends with the token that ends a text:
//!
//! ```
//! use tokenizer::chat::{ChatTemplate, Message};
//! let turns = [Message::new("user", "Hi"), Message::new("assistant", "Hello!"), Message::new("user", "Bye")];
//! let text = ChatTemplate::plain().render(&turns, true)?;
//! assert_eq!(text, "User: Hi\nAssistant: Hello!<|endoftext|>\nUser: Bye\nAssistant:");
//! # Ok::<(), tokenizer::chat::TemplateError>(())
//! ```
//!
//! Special tokens are what the template itself wrote. Their names in messages are text like any other, whoever wrote them.

mod engine;
mod error;
mod guard;
mod json;
mod marks;
mod pay;
mod python;
mod tokens;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use error::TemplateError;

use crate::{END_OF_TEXT, Tokenizer};
use engine::{Given, Jinja};

/// The tokens of ChatML: what starts a turn, and what ends it.
pub const CHATML_TOKENS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

const CHATML: &str = include_str!("../data/chatml.jinja");
const PLAIN: &str = include_str!("../data/plain.jinja");

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of this role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// Where a template is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The tokenizer's files.
    Own,
    /// ChatML: `<|im_start|>role`, a new line, the words, `<|im_end|>`.
    ChatMl,
    /// `User: …` and `Assistant: …`, a line each.
    Plain,
}

/// How a conversation is written for a model.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: Arc<str>,
    kind: Kind,
    jinja: Jinja,
    /// Names of special tokens by role, such as `eos_token`.
    names: Vec<(String, String)>,
    stop: Vec<String>,
    is_assumed: bool,
}

impl ChatTemplate {
    /// The tokenizer's own template; without one ChatML, where it has the [`CHATML_TOKENS`], or else the plain one.
    pub fn of(tokenizer: &Tokenizer) -> Result<ChatTemplate, TemplateError> {
        let names = tokenizer.special_names();
        let before: String = tokenizer.prefix().iter().map(|&id| tokenizer.name_of(id)).collect();
        if let Some(own) = tokenizer.chat_template() {
            let kind = match own.strip_prefix(&before).unwrap_or(own) {
                CHATML => Kind::ChatMl,
                PLAIN => Kind::Plain,
                _ => Kind::Own,
            };
            return ChatTemplate::new(own, kind, names);
        }
        let has_chatml = CHATML_TOKENS.iter().all(|name| tokenizer.special_id(name).is_some());
        let (kind, text) = if has_chatml { (Kind::ChatMl, CHATML) } else { (Kind::Plain, PLAIN) };
        let template = ChatTemplate::new(&(before + text), kind, names)?;
        Ok(ChatTemplate { is_assumed: !has_chatml, ..template })
    }

    /// Whether the tokenizer brings nothing for conversations, neither a template nor the tokens of one: then lines of `User: …`
    /// and `Assistant: …` are all there is.
    pub fn is_assumed(&self) -> bool {
        self.is_assumed
    }

    /// ChatML, for a vocabulary whose texts end with `<|endoftext|>`.
    pub fn chatml() -> ChatTemplate {
        ChatTemplate::new(CHATML, Kind::ChatMl, default_names()).expect("it is Jinja")
    }

    /// Lines of `User: …` and `Assistant: …`, for a vocabulary whose texts end with `<|endoftext|>`.
    pub fn plain() -> ChatTemplate {
        ChatTemplate::new(PLAIN, Kind::Plain, default_names()).expect("it is Jinja")
    }

    /// A template from its Jinja text, for a vocabulary whose texts end with `<|endoftext|>`.
    pub fn from_jinja(source: &str) -> Result<ChatTemplate, TemplateError> {
        ChatTemplate::new(source, Kind::Own, default_names())
    }

    fn new(source: &str, kind: Kind, names: Vec<(String, String)>) -> Result<ChatTemplate, TemplateError> {
        let jinja = Jinja::new(source)?;
        let mut template =
            ChatTemplate { source: source.into(), kind, jinja, names, stop: Vec::new(), is_assumed: false };
        template.stop = template.find_stop_strings();
        Ok(template)
    }

    /// Where it is from.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its Jinja text, to be saved with [`Tokenizer::with_chat_template`].
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation. With `add_generation_prompt` it ends where the assistant is to speak.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TemplateError> {
        let given = Given { tokens: &self.names, add_generation_prompt, marks: None };
        self.jinja.render(messages, &given)
    }

    /// The strings after which the assistant's turn is over, where a model writes on: what stands after an answer, such
    /// as the line that the user's turn starts with.
    pub fn stop_strings(&self) -> Vec<String> {
        self.stop.clone()
    }
}

/// Those of GPT-2.
fn default_names() -> Vec<(String, String)> {
    ["bos_token", "eos_token", "unk_token"].map(|role| (role.to_owned(), END_OF_TEXT.to_owned())).into()
}
