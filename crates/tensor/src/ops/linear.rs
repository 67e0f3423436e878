//! A linear layer: `out = x w + b`.
//!
//! out: (rows, N); x: (rows, K); w: (K, N), the way GPT-2's checkpoints store it (`Conv1D`); b: (N). Where x is
//! bfloat16, so are the products, `out` and `dx`; weights and their gradients are `f32`.
//! Backward: `dx += dout wᵀ`, `dw += xᵀ dout`, `db += Σ_rows dout`. A product of low rank may be added: see [`LowRank`].

use std::sync::Arc;

use kernels::gemm::multiply;
use kernels::linear::Added;

use super::low_rank::{Factors, LowRank};
use super::{is_wanted, tape_of};
use crate::storage::{Precision, Storage};
use crate::tape::{Backward, Target};
use crate::{Result, Tensor, TensorError};

impl Tensor {
    /// `self · w + b`, and a product of low rank, if there is one.
    pub fn linear(&self, w: &Tensor, b: Option<&Tensor>, low_rank: Option<LowRank>) -> Result<Tensor> {
        let shape = shape_of(self, w, b)?;
        let mut out = Storage::scratch(self.precision(), self.rows() * w.cols());
        let factors = low_rank.map(|low_rank| low_rank.factors(self, w.cols())).transpose()?;
        let added = added(b, factors.as_ref());
        kernels::linear::linear(out.values_mut(), self.matrix(), w.factor(false), added);
        let out = Tensor::from_buffer(&shape, out);
        let Some(tape) = tape_of(&[self, w]) else { return Ok(out) };
        let operands = Operands::of(self, w, b, factors);
        if !operands.is_wanted() {
            return Ok(out.beside(tape));
        }
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

/// What a layer's product gets in its last step.
pub(super) fn added<'a>(b: Option<&'a Tensor>, factors: Option<&'a Factors>) -> Added<'a> {
    Added { bias: b.map(Tensor::data), low_rank: factors.map(Factors::product) }
}

/// What the way back through a linear layer needs.
pub(super) struct Operands {
    /// Kept where a weight that x is multiplied by is trained.
    x: Option<Arc<Storage>>,
    to_x: Target,
    w: (Arc<Storage>, Target),
    pub b: Option<Target>,
    low_rank: Option<Factors>,
    precision: Precision,
    rows: usize,
    k: usize,
    pub n: usize,
}

impl Operands {
    pub fn of(x: &Tensor, w: &Tensor, b: Option<&Tensor>, low_rank: Option<Factors>) -> Operands {
        let is_kept = is_wanted(&[w.target()]) || low_rank.as_ref().is_some_and(Factors::is_trained);
        Operands {
            x: is_kept.then(|| x.shared()),
            to_x: x.target(),
            w: (w.shared(), w.target()),
            b: b.map(Tensor::target).filter(|&b| is_wanted(&[b])),
            low_rank,
            precision: x.precision(),
            rows: x.rows(),
            k: x.cols(),
            n: w.cols(),
        }
    }

    /// The product of low rank.
    pub fn low_rank(&self) -> Option<&Factors> {
        self.low_rank.as_ref()
    }

    /// Whether any gradient is.
    pub fn is_wanted(&self) -> bool {
        is_wanted(&[self.to_x, self.w.1])
            || self.b.is_some()
            || self.low_rank.as_ref().is_some_and(Factors::is_trained)
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
    let Operands { x, to_x, w: (w, to_w), low_rank, precision, rows, k, n, .. } = operands;
    let mut dw = back.take_for_overwrite(to_w, k * n);
    if let (Some(dw), Some(x)) = (&mut dw, &x) {
        multiply(x.matrix(rows, k).t(), dout.matrix(rows, n), dw.output());
    }
    back.put(dw);
    let low_rank = low_rank.map(|factors| factors.backward(x.as_deref(), dout, back));
    if to_x == Target::Nowhere {
        return;
    }
    let pre = back.pre(to_x);
    drop(x); // it is not needed any more, and its memory is
    let mut dx = Storage::scratch(precision, rows * k);
    let pre = pre.as_ref().map(|pre| (pre.activation, pre.values.values()));
    let added = low_rank.as_ref().map_or(Added::default(), |rest| rest.added());
    let (dout, w) = (dout.matrix(rows, n), w.matrix(k, n));
    kernels::linear::linear_backward_input(dx.values_mut(), dout, w, added, pre);
    back.add(to_x, dx);
}

#[cfg(test)]
mod tests {
    use crate::gradcheck::{check, random};

    #[test]
    fn gradient() {
        let inputs = [random(&[2, 3, 7], 1), random(&[7, 5], 2), random(&[5], 3)];
        check(&inputs, |x| x[0].linear(&x[1], Some(&x[2]), None));
        check(&inputs[..2], |x| x[0].linear(&x[1], None, None));
    }

    #[test]
    fn a_weight_of_another_width_is_refused() {
        let error = random(&[2, 3], 1).linear(&random(&[4, 5], 2), None, None).unwrap_err();
        assert_eq!(error.to_string(), "linear weight: got shape [4, 5], but [3, 5] is needed");
    }
}
