//! The types of a model's weights: which it has, and the same model in another.

use tensor::weights::{Form, Weights};
use tensor::{Precision, Tensor};

use super::{Block, Gpt2};
use crate::dtype::{is_matrix, is_table};
use crate::layers::{LayerNorm, Linear};
use crate::{Dtype, ModelError, Result, equalise};

impl Gpt2 {
    pub(crate) fn set_dtype(&mut self, dtype: Dtype) {
        self.dtype = dtype;
    }

    /// The same model with its matrices in another type, for running only. Before blocks are made, channels are
    /// [equalised](Gpt2::equalised).
    pub fn to_dtype(&self, dtype: Dtype) -> Result<Gpt2> {
        let equal;
        let model = if dtype.is_blocks() {
            equal = self.equalised()?;
            &equal
        } else {
            self
        };
        model.encoded(dtype, &mut |name, tensor| {
            let shape = (tensor.rows(), tensor.cols());
            Weights::encode(dtype.form(name), &tensor.decoded(), shape, is_table(name), None)
        })
    }

    /// The same function, with no channel of a norm much larger than the others, as few bits need it; for running only.
    pub fn equalised(&self) -> Result<Gpt2> {
        let mut model = self.clone();
        for Block { ln_1, attn, ln_2, mlp } in &mut model.h {
            equalise(ln_1, &mut attn.c_attn)?;
            equalise(ln_2, &mut mlp.c_fc)?;
        }
        if model.dtype != Dtype::F32 {
            // What was read is decoded now.
            return model.encoded(Dtype::F32, &mut |_, tensor| {
                Weights::encode(Form::F32, &tensor.decoded(), (tensor.rows(), tensor.cols()), false, None)
            });
        }
        Ok(model)
    }

    /// The same model with its matrices in another type, each as `encode` makes it from its name and its values.
    pub fn encoded(
        &self,
        dtype: Dtype,
        encode: &mut dyn FnMut(&str, &Tensor) -> tensor::Result<Weights>,
    ) -> Result<Gpt2> {
        let mut tensors = self.parameters().into_iter();
        let mut model = Gpt2::build(self.config.clone(), &mut |name| {
            let (_, tensor) = tensors.next().expect("as many as there are");
            if !is_matrix(name, tensor.shape()) {
                return Ok(tensor.clone());
            }
            let (limit, values) = (dtype.overflow(), tensor.decoded());
            if let Some(&value) = values.iter().find(|x| x.is_finite() && x.abs() >= limit) {
                return Err(ModelError::TooLarge { name: name.to_owned(), value, dtype });
            }
            drop(values);
            let weights = encode(name, tensor).map_err(ModelError::weights(name))?;
            Ok(Tensor::from_weights(tensor.rows(), tensor.cols(), weights)?)
        })?;
        model.dtype = dtype;
        model.take_adapters_of(self);
        Ok(model)
    }

    /// The type of the weights.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The precision of activations, and of keys and values, where weights are of this type.
    pub fn precision(&self) -> Precision {
        if self.dtype == Dtype::F32 { Precision::F32 } else { Precision::Bf16 }
    }

    /// Bytes of the weights, as they are kept.
    pub fn weight_bytes(&self) -> usize {
        let bytes =
            |tensor: &Tensor| tensor.weights().map_or(4 * tensor.len(), |weights| weights.bytes().len());
        let adapters = self.adapter_tensors().into_iter().map(|(_, tensor)| 4 * tensor.len());
        self.parameters().into_iter().map(|(_, tensor)| bytes(tensor)).chain(adapters).sum()
    }
}

/// Divides the norm's channels, and multiplies the rows that read them, so that neither has much larger ones.
fn equalise(norm: &mut LayerNorm, linear: &mut Linear) -> Result<()> {
    let mut matrix = linear.weight.decoded().into_owned();
    let factors = equalise::factors(norm.weight.data(), norm.bias.data(), &matrix);
    if factors.iter().all(|&factor| factor == 1.0) {
        return Ok(());
    }
    for part in [&mut norm.weight, &mut norm.bias] {
        part.data_mut().iter_mut().zip(&factors).for_each(|(x, factor)| *x /= factor);
    }
    for (row, factor) in matrix.chunks_exact_mut(linear.weight.cols()).zip(&factors) {
        row.iter_mut().for_each(|w| *w *= factor);
    }
    linear.weight = Tensor::new(linear.weight.shape(), matrix)?;
    if let Some(adapter) = &mut linear.adapter {
        let rows = adapter.a.data_mut().chunks_exact_mut(factors.len());
        rows.for_each(|row| row.iter_mut().zip(&factors).for_each(|(a, factor)| *a *= factor));
    }
    Ok(())
}
