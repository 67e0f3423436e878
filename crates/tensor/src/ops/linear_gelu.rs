//! A linear layer and the activation after it: `out = gelu(x w + b)`.
//!
//! `gelu(y) = 0.5 y (1 + tanh(√(2/π) (y + 0.044715 y³)))`, GPT-2's approximation (Hendrycks and Gimpel, 2016).
//! out: (rows, N); x: (rows, K); w: (K, N); b: (N). Backward: the linear layer that uses `out` computes its gradient
//! and multiplies it by the activation's slope at once; what arrives here is the gradient by `x w + b`.

use super::linear::{Operands, backward, shape_of};
use super::tape_of;
use crate::storage::Storage;
use crate::{Result, Tensor};
use std::sync::Arc;

impl Tensor {
    /// `gelu(self · w + b)`, for other linear layers to use.
    pub fn linear_gelu(&self, w: &Tensor, b: &Tensor) -> Result<Tensor> {
        let shape = shape_of(self, w, Some(b))?;
        let len = self.rows() * w.cols();
        let tape = tape_of(&[self, w]);
        let mut out = Storage::scratch(self.precision(), len);
        let mut pre = tape.is_some().then(|| Storage::scratch(self.precision(), len));
        let (x, weight) = (self.matrix(), w.factor(false));
        let kept = pre.as_mut().map(Storage::values_mut);
        kernels::linear::linear_gelu(kept, out.values_mut(), x, weight, Some(b.data()));
        let out = Tensor::from_buffer(&shape, out);
        let (Some(tape), Some(pre)) = (tape, pre) else { return Ok(out) };
        let operands = Operands::of(self, w, Some(b));
        Ok(tape.record_activated(out, Some(Arc::new(pre)), move |dpre, back| backward(operands, &dpre, back)))
    }
}

#[cfg(test)]
mod tests {
    use crate::gradcheck::{check, random};

    #[test]
    fn gradient() {
        let inputs = [random(&[4, 6], 1), random(&[6, 33], 2), random(&[33], 3), random(&[33, 5], 4)];
        check(&inputs, |x| x[0].linear_gelu(&x[1], &x[2])?.linear(&x[3], None));
    }
}
