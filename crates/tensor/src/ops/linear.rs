//! A linear layer: `out = x w + b`.
//!
//! out: (rows, N); x: (rows, K); w: (K, N), the way GPT-2's checkpoints store it (`Conv1D`); b: (N). Where x is
//! bfloat16, so are the products, `out` and `dx`; weights and their gradients are `f32`.
//! Backward: `dx += dout wᵀ`, `dw += xᵀ dout`, `db += Σ_rows dout`.

use std::sync::Arc;

use kernels::gemm::{Output, multiply};

use super::tape_of;
use crate::storage::Storage;
use crate::tape::{Backward, Target};
use crate::{Result, Tensor, TensorError};

impl Tensor {
    /// `self · w + b`.
    pub fn linear(&self, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
        let shape = shape_of(self, w, b)?;
        let mut out = Storage::scratch(self.precision(), self.rows() * w.cols());
        kernels::linear::linear(out.values_mut(), self.matrix(), w.factor(false), b.map(Tensor::data));
        let out = Tensor::from_buffer(&shape, out);
        let Some(tape) = tape_of(&[self, w]) else { return Ok(out) };
        let operands = Operands::of(self, w, b);
        Ok(tape.record(out, move |dout, back| backward(operands, &dout, back)))
    }
}

/// The shape of `x w + b`, if these fit together.
pub(super) fn shape_of(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Vec<usize>> {
    let &[_, n] = w.shape() else {
        let (op, got) = ("linear weight", w.shape().to_vec());
        return Err(TensorError::Shape { op, got, want: "(in, out)".into() });
    };
    w.expect("linear weight", &[x.cols(), n])?;
    if let Some(b) = b {
        b.expect("linear bias", &[n])?;
    }
    let mut shape = x.shape().to_vec();
    *shape.last_mut().expect("a tensor with rows") = n;
    Ok(shape)
}

/// What the way back through a linear layer needs.
pub(super) struct Operands {
    x: (Arc<Storage>, Target),
    w: (Arc<Storage>, Target),
    pub b: Option<Target>,
    rows: usize,
    k: usize,
    pub n: usize,
}

impl Operands {
    pub fn of(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Operands {
        let (x_values, w_values) = ((x.shared(), x.target()), (w.shared(), w.target()));
        let b = b.map(Tensor::target);
        Operands { x: x_values, w: w_values, b, rows: x.rows(), k: x.cols(), n: w.cols() }
    }
}

/// Adds to `dx`, `dw` and `db`.
pub(super) fn backward(operands: Operands, dout: &Storage, back: &mut Backward) {
    let mut db = operands.b.and_then(|b| back.take(b, operands.n));
    if let Some(db) = &mut db {
        kernels::rows::sum_rows(db, dout.values());
    }
    back.put(db);
    input_and_weight(operands, dout, back);
}

/// Adds to `dx` and `dw`; where x was an activation, `dx` is the gradient by what it was made from.
pub(super) fn input_and_weight(operands: Operands, dout: &Storage, back: &mut Backward) {
    let Operands { x: (x, to_x), w: (w, to_w), rows, k, n, .. } = operands;
    let dout = dout.matrix(rows, n);
    let mut dw = back.take_for_overwrite(to_w, k * n);
    if let Some(dw) = &mut dw {
        let output = if dw.fresh { Output::Set(dw) } else { Output::Add(dw) };
        multiply(x.matrix(rows, k).t(), dout, output);
    }
    back.put(dw);
    if to_x == Target::Nowhere {
        return;
    }
    let pre = back.pre(to_x);
    let mut dx = Storage::scratch(x.precision(), rows * k);
    drop(x); // it is not needed any more, and its memory is
    let pre = pre.as_ref().map(|pre| (pre.activation, pre.values.values()));
    kernels::linear::linear_backward_input(dx.values_mut(), dout, w.matrix(k, n), pre);
    back.add(to_x, dx);
}

#[cfg(test)]
mod tests {
    use crate::gradcheck::{check, random};

    #[test]
    fn gradient() {
        let inputs = [random(&[2, 3, 7], 1), random(&[7, 5], 2), random(&[5], 3)];
        check(&inputs, |x| x[0].linear(&x[1], Some(&x[2])));
        check(&inputs[..2], |x| x[0].linear(&x[1], None));
    }

    #[test]
    fn a_weight_of_another_width_is_refused() {
        let error = random(&[2, 3], 1).linear(&random(&[4, 5], 2), None).unwrap_err();
        assert_eq!(error.to_string(), "linear weight: got shape [4, 5], but [3, 5] is needed");
    }
}
