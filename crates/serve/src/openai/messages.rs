//! Messages as OpenAI has them, and as templates take them.

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizer::chat::Message;

use super::fields::Others;
use crate::error::ApiError;

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ChatMessage {
    role: String,
    #[serde(default)]
    content: Option<Content>,
    #[serde(flatten)]
    others: Others,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a string or a list of parts such as {\"type\": \"text\", \"text\": …}")]
enum Content {
    Text(String),
    Parts(Vec<Map<String, Value>>),
}

/// What an answer of ours has beside its words, so that it can be sent back as it is.
const OF_ANSWERS: [&str; 6] =
    ["refusal", "annotations", "audio", "function_call", "tool_calls", "reasoning_content"];

/// The messages, each with its role and its words.
pub fn read(messages: Vec<ChatMessage>) -> Result<Vec<Message>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "`messages` is empty; give at least one"));
    }
    messages.into_iter().enumerate().map(|(at, message)| one(at, message)).collect()
}

fn one(at: usize, message: ChatMessage) -> Result<Message, ApiError> {
    let place = |name: &str| format!("messages[{at}].{name}");
    let refused = |name: &str, why: &str| {
        let place = place(name);
        Err(ApiError::invalid(&place, format!("`{place}` {why}")))
    };
    for (name, value) in &message.others {
        let is_nothing = value.is_null() || *value == Value::Array(Vec::new());
        if is_nothing && (name == "name" || OF_ANSWERS.contains(&&**name)) {
            continue;
        }
        return refused(name, "is not supported: a message is a role and what is said");
    }
    let role = match message.role.as_str() {
        "system" | "developer" => "system",
        role @ ("user" | "assistant") => role,
        "tool" | "function" => return refused("role", "is that of a tool, but tools are not offered"),
        _ => return refused("role", "is none; it is `system`, `developer`, `user` or `assistant`"),
    };
    let content = match message.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => {
            let texts = parts.iter().enumerate().map(|(part, fields)| words(&place("content"), part, fields));
            texts.collect::<Result<String, ApiError>>()?
        }
        None if role == "assistant" => String::new(),
        None => return refused("content", "is missing; say something"),
    };
    Ok(Message::new(role, content))
}

/// The words of a part.
fn words<'p>(place: &str, part: usize, fields: &'p Map<String, Value>) -> Result<&'p str, ApiError> {
    let place = format!("{place}[{part}]");
    let kind = fields.get("type").and_then(Value::as_str);
    match (kind, fields.get("text").and_then(Value::as_str)) {
        (Some("text"), Some(text)) if fields.len() == 2 => Ok(text),
        (Some("text"), _) => {
            let message = format!("`{place}` must be {{\"type\": \"text\", \"text\": …}}, with a string");
            Err(ApiError::invalid(place, message))
        }
        _ => {
            let message = format!("`{place}.type` must be \"text\": these models read nothing else");
            Err(ApiError::invalid(format!("{place}.type"), message))
        }
    }
}
