//! The turns of a conversation: read, and held to their order.

use serde_json::Value;
use tokenizer::chat::Message;

use super::roles::{Role, Roles};
use super::shapes::said;
use super::{Conversation, Reason, Record, RecordError};

/// Names of who speaks in a turn, and of what is said.
const SPEAKERS: [&str; 5] = ["role", "from", "speaker", "sender", "author"];
const CONTENTS: [&str; 5] = ["content", "value", "text", "utterance", "message"];

type Result<T> = std::result::Result<T, RecordError>;

/// A list of turns: objects that say who speaks, objects or texts that do not. In the latter the speakers alternate, and
/// the user begins.
pub fn turns(field: &str, value: &Value, roles: &Roles) -> Result<Vec<Message>> {
    let Value::Array(list) = value else {
        return Err(RecordError::NotTurns { field: field.to_owned(), found: said(value) });
    };
    let read: Vec<(Option<&str>, String)> =
        list.iter().enumerate().map(|(i, turn)| read_turn(i + 1, turn)).collect::<Result<_>>()?;
    let names: Vec<&str> = read.iter().filter_map(|(name, _)| *name).collect();
    let roles = match names.len() {
        0 => [Role::User, Role::Assistant].into_iter().cycle().take(read.len()).collect(),
        n if n == read.len() => roles.of(&names)?,
        _ => {
            let nameless = read.iter().position(|(name, _)| name.is_none()).unwrap_or(0);
            return Err(RecordError::NoRole { turn: nameless + 1 });
        }
    };
    Ok(roles.into_iter().zip(read).map(|(role, (_, text))| Message::new(role.name(), text)).collect())
}

fn read_turn(number: usize, turn: &Value) -> Result<(Option<&str>, String)> {
    let Value::Object(fields) = turn else {
        return match turn {
            Value::String(text) => Ok((None, trimmed(text))),
            _ => Err(RecordError::Turn { turn: number }),
        };
    };
    let name = SPEAKERS.iter().find_map(|name| fields.get(*name)?.as_str());
    let content = CONTENTS.iter().find_map(|name| fields.get(*name));
    let text = content.and_then(text).ok_or(RecordError::Turn { turn: number })?;
    Ok((name, text))
}

/// The text of a value: a string, a number, or parts of which each has text. White space around it goes.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(trimmed(text)),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(parts) if !parts.is_empty() => {
            let texts: Option<Vec<&str>> = parts.iter().map(|part| part.get("text")?.as_str()).collect();
            texts.map(|texts| trimmed(&texts.concat()))
        }
        _ => None,
    }
}

/// Without the white space around it, and with Unix line ends.
fn trimmed(text: &str) -> String {
    text.trim().replace("\r\n", "\n")
}

/// A record that can be learnt from: `system` says what the system does where the record does not. Also whether the
/// user's last turn was left off.
pub fn checked(record: Record, system: Option<&str>) -> std::result::Result<(Record, bool), Reason> {
    match record {
        Record::Conversation(mut conversation) => {
            let left_off = check(&mut conversation, system)?;
            Ok((Record::Conversation(conversation), left_off))
        }
        Record::Choice(both) => {
            let mut both = both.map(|messages| Conversation { messages, document: None });
            for conversation in &mut both {
                if check(conversation, system)? {
                    return Err(Reason::EmptyAnswer);
                }
            }
            if both[0] == both[1] {
                return Err(Reason::SameAnswers);
            }
            Ok((Record::Choice(both.map(|conversation| conversation.messages)), false))
        }
    }
}

/// Checks that turns alternate and say something. The assistant may begin, as with a greeting.
fn check(conversation: &mut Conversation, system: Option<&str>) -> std::result::Result<bool, Reason> {
    let Conversation { messages, document } = conversation;
    let is = |message: &Message, role: Role| message.role == role.name();
    let leads = messages.first().is_some_and(|first| is(first, Role::System));
    if !messages.iter().any(|message| is(message, Role::Assistant)) {
        return Err(Reason::NoAssistant);
    }
    let left_off = messages.pop_if(|last| is(last, Role::User)).is_some();
    let turns = &messages[usize::from(leads)..];
    let alternate = turns.windows(2).all(|pair| pair[0].role != pair[1].role);
    if !alternate || turns.iter().any(|turn| is(turn, Role::System)) {
        return Err(Reason::RolesOutOfOrder);
    }
    if let Some(empty) = messages.iter().find(|message| message.content.is_empty()) {
        return Err(if is(empty, Role::Assistant) { Reason::EmptyAnswer } else { Reason::EmptyMessage });
    }
    if let Some(system) = system.filter(|_| !leads) {
        messages.insert(0, Message::new(Role::System.name(), system));
        document.iter_mut().for_each(|document| document.turn += 1);
    }
    Ok(left_off)
}
