//! The subcommands, one a file: its `Args`, whose comments are the help, and `run`, short enough to be the summary.

pub mod bench;
pub mod chat;
pub mod convert;
pub mod eval;
pub mod finetune;
pub mod generate;
pub mod key;
pub mod ls;
pub mod merge;
pub mod prepare;
pub mod pull;
pub mod quantize;
pub mod quickstart;
pub mod rm;
pub mod serve;
pub mod show;
pub mod summarize;
pub mod tokenizer;
pub mod train;
pub mod write;

pub use crate::output::json as print_json;
