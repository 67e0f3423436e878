//! GPT-2 as released: config, layers, KV cache, initialisation, adapters, checkpoint formats.
//!
//! Start at [`gpt2`], the model on a few screens. It runs in three ways (training, evaluation, cached decoding),
//! and what differs between them comes in with the [`Pass`].
#![forbid(unsafe_code)]

mod activation;
pub mod checkpoint;
mod config;
mod dtype;
mod equalise;
mod error;
pub mod gpt2;
mod init;
mod kv_cache;
mod layers;
pub mod lora;
mod pass;

pub use config::{Dropouts, Gpt2Config, PRESETS};
pub use dtype::Dtype;
pub use error::ModelError;
pub use gpt2::{Batch, Gpt2, Scores};
pub use init::Init;
pub use kv_cache::{BLOCK, KvCache, KvPool, Run};
pub use lora::LoraConfig;
pub use pass::{Pass, Tap};
pub use tensor::Activation;

/// The result of working with a model.
pub type Result<T> = std::result::Result<T, ModelError>;
