//! What is wrong with a constraint, and what to do about it.

use thiserror::Error;

/// Why a text cannot be held to a constraint.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConstraintError {
    /// Tokens whose bytes depend on what stands before them.
    #[error(
        "texts of this vocabulary ({kind}) cannot be held to a schema or a grammar: which bytes a token adds depends on \
         the text before it; take a model with byte-level BPE, such as GPT-2's own"
    )]
    Vocabulary {
        /// What kind of vocabulary it is.
        kind: &'static str,
    },
    /// Nothing but blanks.
    #[error("the {what} is empty; give it content, or leave it out")]
    Empty {
        /// A schema, a grammar, a regular expression.
        what: &'static str,
    },
    /// More than is looked at.
    #[error("the {what} has {bytes} bytes, but at most {most} are read; give a smaller one")]
    Size {
        /// A schema, a grammar, a regular expression.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// Brackets in brackets, too deep to be compiled.
    #[error(
        "the {what} has brackets {depth} deep, but at most {most} are read; use rules that refer to each other"
    )]
    Depth {
        /// A grammar, a regular expression.
        what: &'static str,
        /// How deep.
        depth: usize,
        /// The limit.
        most: usize,
    },
    /// No JSON.
    #[error("the schema is not JSON: {reason}")]
    Json {
        /// What is wrong where.
        reason: String,
    },
    /// JSON, but no schema.
    #[error("the schema is {got}, but a JSON schema is an object, true or false")]
    SchemaType {
        /// What it is.
        got: &'static str,
    },
    /// A setting of the compiler inside a schema.
    #[error("the schema holds `x-guidance`, which is no keyword of JSON schemas; leave it out")]
    Guidance,
    /// What the compiler refuses: an unknown rule, a keyword that cannot be held to, a limit that is met.
    #[error("the {what} cannot be followed: {reason}")]
    Refused {
        /// A schema, a grammar, a regular expression.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A part of a grammar that has no meaning here.
    #[error("the grammar uses `{attribute}=`, which is not for a grammar to say here; {instead}")]
    Attribute {
        /// Its name.
        attribute: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// No text was found that fulfils it.
    #[error(
        "no text was found that fulfils the {what}: there is none, only long ones, or none that this vocabulary can \
         write; loosen it"
    )]
    NoText {
        /// A schema, a grammar, a regular expression.
        what: &'static str,
    },
    /// Too few tokens to fulfil it.
    #[error(
        "a text that fulfils the constraint needs about {need} tokens, but no more than {most} can be written; ask for \
         at least {need}, or loosen it"
    )]
    TooShort {
        /// Tokens of the shortest text that was found.
        need: usize,
        /// Tokens that may be written.
        most: usize,
    },
    /// Without an end, a text may never be whole.
    #[error("a text with a constraint in a sliding context needs a limit; give max-tokens")]
    NoLimit,
    /// The matching failed on the way.
    #[error("the constraint could not be matched any further: {reason}")]
    Matching {
        /// What was met.
        reason: String,
    },
}

impl ConstraintError {
    /// A failure while matching.
    pub(super) fn broken(reason: &str) -> ConstraintError {
        ConstraintError::Matching { reason: one_line(reason) }
    }
}

/// The first line of a message of the compiler, without what it adds for its makers.
pub(super) fn one_line(reason: &str) -> String {
    let lines = reason.lines().map(str::trim).take_while(|line| !line.starts_with("<"));
    let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    text.strip_prefix("panic: ").unwrap_or(&text).to_owned()
}
