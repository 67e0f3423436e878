//! The layers GPT-2 is made of: weights with their forward pass, under the checkpoint's names.

use tensor::random::Dropout;
use tensor::{Activation, Precision, Tensor};

use crate::Result;

/// A linear layer; `weight` is (in, out), as the checkpoints store it.
#[derive(Clone, Debug)]
pub struct Linear {
    /// (in, out)
    pub weight: Tensor,
    /// (out)
    pub bias: Tensor,
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
    /// `x · weight + bias`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.linear(&self.weight, Some(&self.bias))?)
    }

    /// `activation(x · weight + bias)`.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        Ok(x.linear_activated(activation, &self.weight, &self.bias)?)
    }

    /// `residual + dropout(x · weight + bias)`.
    pub fn forward_add(&self, x: &Tensor, dropout: Option<Dropout>, residual: &Tensor) -> Result<Tensor> {
        Ok(x.linear_dropout_add(&self.weight, &self.bias, dropout, residual)?)
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
        })
    }

    pub fn layer_norm(&mut self, name: &str) -> Result<LayerNorm> {
        let Linear { weight, bias } = self.linear(name)?;
        Ok(LayerNorm { weight, bias, eps: self.eps })
    }
}
