//! How good a model is. One task a file; so far [`perplexity`], the loss on a text and what follows from it.
#![forbid(unsafe_code)]

pub mod perplexity;

pub use perplexity::{EvalError, Options, Report, TokenScore, evaluate};
