//! What a chat template can refuse.

use thiserror::Error;

use crate::TokenizerError;

/// Why a conversation cannot be turned into text or tokens.
#[derive(Debug, Error)]
pub enum TemplateError {
    /// A template that is no Jinja.
    #[error("the chat template has a mistake in line {line}: {reason}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A template that is longer than any.
    #[error("the chat template has {bytes} bytes; no more than {most} are read")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest.
        most: usize,
    },
    /// The template's own `raise_exception`.
    #[error("the chat template refuses this conversation: {message}")]
    Refused {
        /// What it says.
        message: String,
    },
    /// The template does what cannot be done.
    #[error("the chat template fails in line {line}: {reason}")]
    Failed {
        /// The line, from 1.
        line: usize,
        /// What cannot be done.
        reason: String,
    },
    /// The template asks for a file.
    #[error(
        "the chat template asks for another template in line {line}; it has to stand alone, and no file is read for it"
    )]
    OtherTemplate {
        /// The line, from 1.
        line: usize,
    },
    /// The template does not come to an end, or writes without end.
    #[error(
        "the chat template was stopped: it takes far more work than {messages} messages need; it may loop without end"
    )]
    TooMuch {
        /// Messages of the conversation.
        messages: usize,
    },
    /// A conversation without turns.
    #[error("the conversation has no messages; give it at least one")]
    NoMessages,
    /// A role that could become part of a special token.
    #[error(
        "the role {role:?} of message {number} is no name; use letters, digits, `_`, `-`, such as `user`"
    )]
    Role {
        /// The role.
        role: String,
        /// The message, from 1.
        number: usize,
    },
    /// The text before an answer is not what the model would be given to answer.
    #[error(
        "the chat template writes the conversation up to message {number} in two ways: as a prompt it is not the beginning of \
         the whole, so the answer cannot be told from it; mark answers in the template with {{% generation %}}"
    )]
    Prefix {
        /// The message, from 1.
        number: usize,
    },
    /// Too many messages for a template that must be rendered for each answer.
    #[error(
        "the conversation of {messages} messages is too long for finding its answers in what the chat template writes; shorten \
         it, or mark answers in the template with {{% generation %}}"
    )]
    TooMany {
        /// How many.
        messages: usize,
    },
    /// The end of an answer cannot be found.
    #[error(
        "the chat template changes the answer in message {number}, so that it cannot be found in the text; mark answers in \
         the template with {{% generation %}}"
    )]
    Answer {
        /// The message, from 1.
        number: usize,
    },
    /// The name of a special token in a message changes what the template does.
    #[error(
        "a message holds the name of a special token, and the chat template looks at such names; take it out of the message"
    )]
    SpecialName,
    /// The tokenizer refused the text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
