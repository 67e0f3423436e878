//! A linear layer that writes to the residual stream: `out = residual + dropout(x w + b)`.
//!
//! out, residual: (rows, N), `f32`; x: (rows, K); w: (K, N); b: (N). Backward: `dresidual += dout`, and the linear
//! layer's gradients from `dropout(dout)`, with the same elements dropped.

use super::linear::{Operands, added, input_and_weight, shape_of};
use super::low_rank::LowRank;
use super::{is_wanted, tape_of};
use crate::memory::Buffer;
use crate::storage::{Precision, Storage};
use crate::{Result, Tensor};
use kernels::random::Dropout;

impl Tensor {
    /// `residual + dropout(self · w + b)`, where a product of low rank may stand beside b; drops nothing for `None`.
    pub fn linear_dropout_add(
        &self,
        w: &Tensor,
        b: &Tensor,
        low_rank: Option<LowRank>,
        dropout: Option<Dropout>,
        residual: &Tensor,
    ) -> Result<Tensor> {
        let shape = shape_of(self, w, Some(b))?;
        residual.expect("residual", &shape)?;
        let mut out = Buffer::scratch(residual.len());
        let (x, weight) = (self.matrix(), w.factor(false));
        let factors = low_rank.map(|low_rank| low_rank.factors(self, w.cols())).transpose()?;
        let added = added(Some(b), factors.as_ref());
        kernels::linear::linear_dropout_add(&mut out, x, weight, added, dropout, residual.data());
        let out = Tensor::from_buffer(&shape, out);
        let Some(tape) = tape_of(&[self, w, residual]) else { return Ok(out) };
        let (operands, target, precision) =
            (Operands::of(self, w, Some(b), factors), residual.target(), self.precision());
        if !operands.is_wanted() && !is_wanted(&[target]) {
            return Ok(out.beside(tape));
        }
        Ok(tape.record(out, move |dout, back| {
            let len = dout.len();
            let mut db = operands.b.and_then(|b| back.take(b, operands.n));
            let as_it_is = dropout.is_none() && precision == Precision::F32;
            if as_it_is {
                if let Some(db) = &mut db {
                    kernels::rows::sum_rows(db, dout.values());
                }
                back.put(db);
                input_and_weight(operands, &dout, back);
            } else {
                let mut dlinear = Storage::scratch(precision, len);
                let out = dlinear.values_mut();
                match &mut db {
                    Some(db) => kernels::rows::dropout_bias_backward(out, db, dout.f32(), dropout),
                    None => kernels::rows::dropout_values(out, dout.values(), dropout),
                }
                back.put(db);
                input_and_weight(operands, &dlinear, back);
            }
            back.add(target, dout);
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::Dropout;
    use crate::gradcheck::{check, random};
    use kernels::random::Stream;

    #[test]
    fn gradient() {
        let inputs = [random(&[2, 3, 7], 1), random(&[7, 5], 2), random(&[5], 3), random(&[2, 3, 5], 4)];
        let dropout = Dropout { p: 0.4, stream: Stream::new(1, 2, 3) };
        for dropout in [None, Some(dropout)] {
            check(&inputs, |x| x[0].linear_dropout_add(&x[1], &x[2], None, dropout, &x[3]));
        }
    }

    #[test]
    fn shapes_must_agree() {
        let [x, w, b] = [random(&[3, 7], 1), random(&[7, 5], 2), random(&[5], 3)];
        let error = x.linear_dropout_add(&w, &b, None, None, &random(&[5, 3], 4)).unwrap_err();
        assert_eq!(error.to_string(), "residual: got shape [5, 3], but [3, 5] is needed");
    }
}
