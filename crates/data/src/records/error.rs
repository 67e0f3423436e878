//! What a row can be wrong in.

use thiserror::Error;

/// Why a row is not a record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Not JSON.
    #[error("not JSON: {reason}")]
    Json {
        /// What the parser said.
        reason: String,
    },
    /// A row of a table that has more or fewer cells than others.
    #[error("{reason}")]
    Table {
        /// What the parser said.
        reason: String,
    },
    /// JSON, but not an object.
    #[error("{found}; an object with fields is needed, such as {{\"prompt\": \"…\", \"completion\": \"…\"}}")]
    NotAnObject {
        /// What it is.
        found: String,
    },
    /// Text without a question and an answer.
    #[error(
        "there is only `text`, nothing that it should answer; to train on plain text use `gpt2 train`, \
         or name the fields, as in --columns prompt=…,completion=text"
    )]
    OnlyText,
    /// A preferred answer without the other one, or the other way round.
    #[error("`{has}` is there, but not `{lacks}`; a preference needs both")]
    HalfPair {
        /// The field that is there.
        has: &'static str,
        /// The field that is not.
        lacks: &'static str,
    },
    /// Preferences that answer nothing.
    #[error(
        "`chosen` and `rejected` are texts, but there is no `prompt` (or `instruction`) that they answer"
    )]
    NoPrompt,
    /// Fields that tell no shape.
    #[error(
        "the fields {found} are none of: messages, conversations or turns; prompt, completion; instruction, input, output; text, summary; \
         title, text; prompt, chosen, rejected. Name them, as in --columns prompt=question,completion=answer"
    )]
    Shape {
        /// The fields that are there.
        found: String,
    },
    /// Fields that `--columns` names, and that are not there.
    #[error("--columns asks for {missing}, but the fields are {found}")]
    Columns {
        /// The fields that are missing.
        missing: String,
        /// The fields that are there.
        found: String,
    },
    /// A field that is not text.
    #[error("`{field}` is {found}, not text")]
    NotText {
        /// Its name.
        field: String,
        /// What it is.
        found: &'static str,
    },
    /// A field that is not a list of turns.
    #[error("`{field}` is {found}, not a list of turns")]
    NotTurns {
        /// Its name.
        field: String,
        /// What it is.
        found: &'static str,
    },
    /// A turn that is neither text nor an object with text.
    #[error(
        "turn {turn} has no text; a turn is text, or an object with a `role` and `content` (or `from` and `value`)"
    )]
    Turn {
        /// Which, from 1.
        turn: usize,
    },
    /// Turns of which some say who speaks, and some do not.
    #[error("turn {turn} does not say who speaks, as other turns do")]
    NoRole {
        /// Which, from 1.
        turn: usize,
    },
    /// A name that is no known role.
    #[error(
        "turn {turn} is by `{name}`; say who that is, as in --roles {name}=user or --roles {name}=assistant"
    )]
    Role {
        /// Which, from 1.
        turn: usize,
        /// The name.
        name: String,
    },
}
