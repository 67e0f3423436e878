//! Text to token ids and back.
//!
//! Start at [`Tokenizer`], which is what a model directory asks for. [`bpe`] is the byte-level byte-pair encoder of
//! GPT-2 (Radford et al., 2019), [`split`] cuts text into the pieces it works on, and [`train`] makes new
//! vocabularies from text. [`sentences`] finds where sentences end. [`words`] holds simpler ones: a token for each character or word. What else GPT-2s come
//! with (WordPiece, Unigram, other BPE) is run by Hugging Face's crate. [`tokens`] leads from ids to bytes and back for
//! all of them.
//!
//! ```
//! let gpt2 = tokenizer::Tokenizer::gpt2();
//! let ids = gpt2.encode("Hello world")?;
//! assert_eq!(ids, [15496, 995]);
//! assert_eq!(gpt2.decode(&ids)?, "Hello world");
//! # Ok::<(), tokenizer::TokenizerError>(())
//! ```
#![forbid(unsafe_code)]

pub mod bpe;
pub mod chat;
mod decode;
mod error;
mod files;
mod language;
mod pipeline;
pub mod sentences;
mod special;
pub mod split;
mod stats;
mod stream;
mod tokenizer;
pub mod tokens;
pub mod train;
pub mod words;

pub use decode::Decoding;
pub use error::TokenizerError;
pub use files::{DEFINING_FILES, FILES, Parts, Role};
pub use language::{Lang, is_chinese};
pub use stats::{Counter, Stats};
pub use stream::Utf8Stream;
pub use tokenizer::Tokenizer;

/// The token that starts and ends a text.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// The result of working with a tokenizer.
pub type Result<T> = std::result::Result<T, TokenizerError>;
