//! What a tokenizer or its files can refuse.

use std::path::PathBuf;

use thiserror::Error;

/// Why text cannot be encoded, ids cannot be decoded, or a tokenizer cannot be made, read or written.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No tokenizer at this place.
    #[error("{} holds no tokenizer: neither tokenizer.json, nor vocab.json with merges.txt, nor vocab.txt", .path.display())]
    NotFound {
        /// The directory or file.
        path: PathBuf,
    },
    /// A file that is not readable as what its name says.
    #[error("{}: {reason}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A part of tokenizer.json whose work cannot be reproduced exactly.
    #[error("{}: {part} is not supported", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The part.
        part: String,
    },
    /// A vocabulary that is too small for what it must hold.
    #[error("a vocabulary of {asked} tokens is too small: {reason}; ask for at least {least}")]
    TooSmall {
        /// The size asked for.
        asked: usize,
        /// The smallest size.
        least: usize,
        /// What it must hold.
        reason: &'static str,
    },
    /// A special token that cannot be added.
    #[error("the special token {name:?} cannot be added: {reason}")]
    SpecialToken {
        /// Its name.
        name: String,
        /// What is wrong with it, and what to do.
        reason: &'static str,
    },
    /// Nothing to learn from.
    #[error("there is no text to make a vocabulary from")]
    NoText,
    /// A character that the vocabulary does not have.
    #[error("the vocabulary has no token for {char:?} (U+{:04X}) at byte {offset}; use a vocabulary made from such text, or bpe:N", *.char as u32)]
    UnknownChar {
        /// The character.
        char: char,
        /// Where it stands in the text.
        offset: usize,
    },
    /// A text that the library which runs the vocabulary refuses.
    #[error("this text cannot be encoded: {reason}")]
    Refused {
        /// What the library said.
        reason: String,
    },
    /// Bytes that are no text, for a vocabulary that has no bytes.
    #[error(
        "byte {byte:#04x} at offset {offset} is not UTF-8; use a byte-level vocabulary (bpe:N or gpt2), or convert the text"
    )]
    NotUtf8 {
        /// The byte.
        byte: u8,
        /// Where it stands.
        offset: usize,
    },
    /// An id beyond the vocabulary.
    #[error("token id {id} at position {position} is out of range: the vocabulary has {size} tokens (ids 0 to {})", .size.saturating_sub(1))]
    IdOutOfRange {
        /// The id.
        id: u32,
        /// Its index in the input.
        position: usize,
        /// Tokens in the vocabulary.
        size: usize,
    },
}

impl TokenizerError {
    /// The same error in a text of which the `done` bytes before were left out.
    pub(crate) fn after(self, done: usize) -> TokenizerError {
        match self {
            TokenizerError::UnknownChar { char, offset } => {
                TokenizerError::UnknownChar { char, offset: offset + done }
            }
            other => other,
        }
    }

    /// For `map_err` at a file operation.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> TokenizerError + '_ {
        move |source| TokenizerError::Io { path: path.to_owned(), source }
    }
}
