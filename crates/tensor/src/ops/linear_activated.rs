//! A linear layer and the activation after it: `out = f(x w + b)`, with f one of [`Activation`].
//!
//! out: (rows, N); x: (rows, K); w: (K, N); b: (N). Backward: the linear layer that uses `out` computes its gradient
//! and multiplies it by the activation's slope at once; what arrives here is the gradient by `x w + b`.

use std::sync::Arc;

use kernels::activation::Activation;

use super::linear::{Operands, backward, shape_of};
use super::tape_of;
use crate::storage::Storage;
use crate::tape::Pre;
use crate::{Result, Tensor};

impl Tensor {
    /// `activation(self · w + b)`, for other linear layers to use.
    pub fn linear_activated(&self, activation: Activation, w: &Tensor, b: &Tensor) -> Result<Tensor> {
        let shape = shape_of(self, w, Some(b))?;
        let len = self.rows() * w.cols();
        let tape = tape_of(&[self, w]);
        let mut out = Storage::scratch(self.precision(), len);
        let mut pre = tape.is_some().then(|| Storage::scratch(self.precision(), len));
        let (x, weight) = (self.matrix(), w.factor(false));
        let kept = pre.as_mut().map(Storage::values_mut);
        kernels::linear::linear_activated(activation, kept, out.values_mut(), x, weight, Some(b.data()));
        let out = Tensor::from_buffer(&shape, out);
        let (Some(tape), Some(pre)) = (tape, pre) else { return Ok(out) };
        let operands = Operands::of(self, w, Some(b));
        let pre = Pre { activation, values: Arc::new(pre) };
        Ok(tape.record_activated(out, Some(pre), move |dpre, back| backward(operands, &dpre, back)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{check, random};

    /// The biases are far from 0 and the products small, so that no difference steps across a corner.
    #[test]
    fn gradient() {
        let mut inputs = [random(&[4, 6], 1), random(&[6, 33], 2), random(&[33], 3), random(&[33, 5], 4)];
        inputs[0].data_mut().iter_mut().for_each(|x| *x *= 0.05);
        inputs[2].data_mut().iter_mut().for_each(|b| *b += b.signum());
        for activation in Activation::ALL {
            check(&inputs, |x| x[0].linear_activated(activation, &x[1], &x[2])?.linear(&x[3], None));
        }
    }
}
