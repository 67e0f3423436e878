//! How good a model is. One task a file: [`perplexity`], the loss on a text and what follows from it, [`answers`], the loss on
//! the answers of examples, [`per_token`], a table of every prediction, [`rouge`], summaries held to references, with
//! [`baselines`] beside them, and [`overlap`], what they copy.
#![forbid(unsafe_code)]

pub mod answers;
pub mod baselines;
mod measure;
pub mod overlap;
pub mod per_token;
pub mod perplexity;
pub mod rouge;

pub use answers::{AnswerReport, PairReport};
pub use measure::Measure;
pub use per_token::PerToken;
pub use perplexity::{EvalError, Options, Report, TokenScore, evaluate};
