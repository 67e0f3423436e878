//! Brings a model into another type.

use models::{Dtype, Gpt2, Result};
use tensor::Bytes;
use tensor::weights::{Form, Weights};

use crate::calibration::{Calibration, layer_of};
use crate::feedback::{self, Factors};

/// The same model with its matrices in another type, for running. With a text to calibrate on, blocks are rounded so that
/// what a layer gives out changes least; without, so that its weights do.
pub fn quantise(model: &Gpt2, dtype: Dtype, calibration: Option<&mut Calibration>) -> Result<Gpt2> {
    let Some(calibration) = calibration.filter(|_| dtype.is_blocks()) else { return model.to_dtype(dtype) };
    let model = model.equalised()?;
    let mut hessians =
        |name: &str| layer_of(name).map(|layer| calibration.take(&model, layer, name)).transpose();
    // The inputs of a layer are those of the model as it was, so that all can be had before the first is rounded.
    let mut failed = None;
    let quantised = model.encoded(dtype, &mut |name, tensor| {
        let (k, n) = (tensor.rows(), tensor.cols());
        let hessian = hessians(name).unwrap_or_else(|error| {
            failed.get_or_insert(error);
            None
        });
        match (hessian, dtype.form(name)) {
            (Some(hessian), Form::Blocks(format)) => {
                let blocks = feedback::quantise(format, &tensor.decoded(), n, &Factors::new(hessian, k));
                let bytes = Bytes::of_memory(blocks.len(), |bytes| bytes.copy_from_slice(&blocks));
                Weights::new(Form::Blocks(format), k, n, false, bytes)
            }
            (_, form) => Weights::encode(form, &tensor.decoded(), (k, n), true, None),
        }
    });
    failed.map_or(quantised, Err)
}
