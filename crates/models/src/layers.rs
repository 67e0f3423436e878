//! The layers GPT-2 is made of: weights with their forward pass, under the checkpoint's names.

use tensor::ops::LowRank;
use tensor::random::Dropout;
use tensor::{Activation, Precision, Tensor};

use crate::{Pass, Result};

/// A linear layer; `weight` is (in, out), as the checkpoints store it.
#[derive(Clone, Debug)]
pub struct Linear {
    /// (in, out)
    pub weight: Tensor,
    /// (out)
    pub bias: Tensor,
    /// What is learnt beside a frozen weight: see [`crate::lora`].
    pub adapter: Option<Adapter>,
}

/// A low-rank adapter: `scale · dropout(x) aᵀ v` is added to what its layer gives.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// (rank, in), PEFT's `lora_A`
    pub a: Tensor,
    /// (rank, out), PEFT's `lora_B` turned
    pub v: Tensor,
    /// What `scale` is made from: see [`crate::LoraConfig::scale`].
    pub alpha: f32,
    /// What the product is multiplied by.
    pub scale: f32,
    /// Probability with which an element of x is dropped in training.
    pub dropout: f32,
}

/// Layer normalisation over the last dimension.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// (C)
    pub weight: Tensor,
    /// (C)
    pub bias: Tensor,
    eps: f32,
}

impl Linear {
    /// `x · weight + bias`, and what the adapter adds.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        Ok(x.linear(&self.weight, Some(&self.bias), self.low_rank(pass))?)
    }

    /// `activation` of what [`Linear::forward`] gives.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation, pass: &mut Pass) -> Result<Tensor> {
        Ok(x.linear_activated(activation, &self.weight, &self.bias, self.low_rank(pass))?)
    }

    /// `residual + dropout(y)`, with y what [`Linear::forward`] gives.
    pub fn forward_add(
        &self,
        x: &Tensor,
        dropout: Option<Dropout>,
        residual: &Tensor,
        pass: &mut Pass,
    ) -> Result<Tensor> {
        Ok(x.linear_dropout_add(&self.weight, &self.bias, self.low_rank(pass), dropout, residual)?)
    }

    fn low_rank(&self, pass: &mut Pass) -> Option<LowRank<'_>> {
        let Adapter { a, v, scale, dropout, .. } = self.adapter.as_ref()?;
        Some(LowRank { a, v, scale: *scale, dropout: pass.dropout(*dropout) })
    }
}

impl LayerNorm {
    /// Rows of mean 0 and variance 1, scaled by `weight` and shifted by `bias`, for products of this precision.
    pub fn forward(&self, x: &Tensor, precision: Precision) -> Result<Tensor> {
        Ok(x.layer_norm(&self.weight, &self.bias, self.eps, precision)?)
    }
}

/// Hands out the weights by name while a model is built.
pub(crate) struct Weights<'a> {
    pub source: &'a mut dyn FnMut(&str) -> Result<Tensor>,
    pub eps: f32,
}

impl Weights<'_> {
    pub fn tensor(&mut self, name: &str) -> Result<Tensor> {
        (self.source)(name)
    }

    pub fn linear(&mut self, name: &str) -> Result<Linear> {
        Ok(Linear {
            weight: self.tensor(&format!("{name}.weight"))?,
            bias: self.tensor(&format!("{name}.bias"))?,
            adapter: None,
        })
    }

    pub fn layer_norm(&mut self, name: &str) -> Result<LayerNorm> {
        let Linear { weight, bias, .. } = self.linear(name)?;
        Ok(LayerNorm { weight, bias, eps: self.eps })
    }
}
