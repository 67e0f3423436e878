//! Tensors, the tape that remembers how they were made, and the operations of a language model.
//!
//! Start at [`Tensor`], then [`tape`], then any file of [`ops`]: each holds one operation, its formula, its
//! forward, its backward and its gradient check. Numeric loops are in `kernels`; this crate decides what to
//! call and what to keep for the way back.
#![forbid(unsafe_code)]

pub mod gradcheck;
pub mod memory;
pub mod ops;
mod storage;
pub mod tape;
mod tensor;
pub mod weights;

pub use kernels::activation::Activation;
pub use kernels::attention::cached;
pub use kernels::bf16::{bf16, f16};
pub use kernels::blocks;
pub use kernels::mapped::Bytes;
pub use kernels::memory::LargePages;
pub use kernels::{draws, isa, muon, optim, peak, pool, random, rows, timing};
pub use storage::{Precision, Storage};
pub use tape::{Grads, Tape};
pub use tensor::{Tensor, TensorError};

/// The result of an operation on tensors.
pub type Result<T> = std::result::Result<T, TensorError>;
