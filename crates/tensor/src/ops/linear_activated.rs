//! A linear layer and the activation after it: `out = f(x w + b)`, with f one of [`Activation`].
//!
//! out: (rows, N); x: (rows, K); w: (K, N); b: (N). Backward: the linear layer that uses `out` computes its gradient
//! and multiplies it by the activation's slope at once; what arrives here is the gradient by `x w + b`.

use std::sync::Arc;

use kernels::activation::Activation;

use super::linear::{Operands, added, backward, shape_of};
use super::low_rank::LowRank;
use super::tape_of;
use crate::storage::Storage;
use crate::tape::Pre;
use crate::{Result, Tensor};

impl Tensor {
    /// `activation(self · w + b)`, for other linear layers to use; a product of low rank may go into the activation, too.
    pub fn linear_activated(
        &self,
        activation: Activation,
        w: &Tensor,
        b: &Tensor,
        low_rank: Option<LowRank>,
    ) -> Result<Tensor> {
        let shape = shape_of(self, w, Some(b))?;
        let len = self.rows() * w.cols();
        let factors = low_rank.map(|low_rank| low_rank.factors(self, w.cols())).transpose()?;
        let operands = Operands::of(self, w, Some(b), factors);
        let tape = tape_of(&[self, w]);
        let is_recorded = tape.is_some() && operands.is_wanted();
        let mut out = Storage::scratch(self.precision(), len);
        let mut pre = is_recorded.then(|| Storage::scratch(self.precision(), len));
        let (x, weight) = (self.matrix(), w.factor(false));
        let (kept, added) = (pre.as_mut().map(Storage::values_mut), added(Some(b), operands.low_rank()));
        kernels::linear::linear_activated(activation, kept, out.values_mut(), x, weight, added);
        let out = Tensor::from_buffer(&shape, out);
        let Some(tape) = tape else { return Ok(out) };
        let Some(pre) = pre else { return Ok(out.beside(tape)) };
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
            check(&inputs, |x| {
                x[0].linear_activated(activation, &x[1], &x[2], None)?.linear(&x[3], None, None)
            });
        }
    }
}
