//! A conversation as the page sends it, and the bounds that it keeps.

use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// Messages of a conversation, at most.
pub const MOST_MESSAGES: usize = 5000;
/// Characters of a title, a model's name, a date, at most.
const MOST_TITLE: usize = 200;

/// A conversation with branches. Each message names its parent, which stands before it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Chat {
    /// Its number; the address has it, too.
    #[serde(default, skip_serializing)]
    id: Option<String>,
    /// What the list shows.
    pub title: String,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    system: Option<String>,
    created: String,
    /// When it was gone on with, as JavaScript writes dates in UTC.
    pub updated: String,
    /// The end of the branch that is shown.
    leaf: Option<usize>,
    messages: Vec<Message>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Message {
    parent: Option<usize>,
    role: Role,
    content: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finish: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    User,
    Assistant,
}

impl Chat {
    /// Whether it is as it must be, under this number.
    pub fn check(&self, id: &str) -> Result<(), ApiError> {
        let wrong = |param: String, what: &str| Err(ApiError::invalid(param, what));
        if self.id.as_deref().is_some_and(|own| own != id) {
            return wrong("chat.id".into(), "`chat.id` is not the number in the address");
        }
        if self.messages.len() > MOST_MESSAGES {
            let what = format!("the conversation has more than {MOST_MESSAGES} messages; begin another one");
            return wrong("chat.messages".into(), &what);
        }
        let texts = [("title", Some(&self.title)), ("model", self.model.as_ref())];
        let texts =
            texts.into_iter().chain([("created", Some(&self.created)), ("updated", Some(&self.updated))]);
        for (name, text) in texts {
            if text.is_some_and(|text| text.chars().count() > MOST_TITLE) {
                return wrong(
                    format!("chat.{name}"),
                    &format!("`chat.{name}` has more than {MOST_TITLE} characters"),
                );
            }
        }
        if !is_date(&self.updated) {
            return wrong(
                "chat.updated".into(),
                "`chat.updated` is no date such as 2026-01-31T12:00:00.000Z",
            );
        }
        for (at, message) in self.messages.iter().enumerate() {
            if message.parent.is_some_and(|parent| parent >= at) {
                let param = format!("chat.messages[{at}].parent");
                return wrong(param, "a message's parent stands before it");
            }
        }
        if self.leaf.is_some_and(|leaf| leaf >= self.messages.len()) {
            return wrong("chat.leaf".into(), "`chat.leaf` is no message");
        }
        Ok(())
    }
}

/// Whether it is a date as JavaScript writes them, which sort as they follow each other.
fn is_date(text: &str) -> bool {
    const FORM: &str = "0000-00-00T00:00:00.000Z";
    let fits = |(c, form): (char, char)| if form == '0' { c.is_ascii_digit() } else { c == form };
    text.len() == FORM.len() && text.chars().zip(FORM.chars()).all(fits)
}

/// Whether it is a conversation's number: 32 hexadecimal digits, as the page draws them.
pub fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
