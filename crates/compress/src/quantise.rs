//! Brings a model into another type.

use models::{Dtype, Gpt2, Result};

/// The same model with its matrices in another type, for running.
pub fn quantise(model: &Gpt2, dtype: Dtype) -> Result<Gpt2> {
    model.to_dtype(dtype)
}
