//! A product of low rank beside a linear layer's, an adapter (Hu et al., 2021): `out = x w + b + s · dropout(x) aᵀ v`.
//!
//! x: (rows, K); a: (R, K); v: (R, N); s: a number. With y = dropout(x) and u = s y aᵀ, both `f32` but where x is
//! bfloat16: then the factors of u are, too. The linear layer adds `u v` in its own last step, in `f32`.
//! Backward, with du = s dout vᵀ: `dv += uᵀ dout`, `da += duᵀ y`, `dx += dropout(du a)`. y is computed again.

use std::sync::Arc;

use kernels::bf16::Values;
use kernels::gemm::{Mat, Output, multiply};
use kernels::linear::{Added, LowRank as Product};
use kernels::random::Dropout;

use crate::memory::Buffer;
use crate::storage::Storage;
use crate::tape::{Backward, Target};
use crate::{Result, Tensor};

/// The factors of a product of low rank, and how it is added.
#[derive(Clone, Copy, Debug)]
pub struct LowRank<'a> {
    /// (R, K)
    pub a: &'a Tensor,
    /// (R, N)
    pub v: &'a Tensor,
    /// What the product is multiplied by.
    pub scale: f32,
    /// Drops elements of what goes in.
    pub dropout: Option<Dropout>,
}

/// One product, on its way forward; then what the way back needs.
pub(super) struct Factors {
    a: (Arc<Storage>, Target),
    v: (Arc<Storage>, Target),
    u: Buffer,
    shape: [usize; 4],
    scale: f32,
    dropout: Option<Dropout>,
}

impl LowRank<'_> {
    /// Computes u, if the shapes fit a layer from x's width to `n`.
    pub(super) fn factors(&self, x: &Tensor, n: usize) -> Result<Factors> {
        let (rows, k, rank) = (x.rows(), x.cols(), self.a.rows());
        self.a.expect("low-rank factor a", &[rank, k])?;
        self.v.expect("low-rank factor v", &[rank, n])?;
        let mut u: Buffer = Buffer::scratch(rows * rank);
        let y = self.dropout.map(|dropout| dropped(x.storage(), dropout));
        let y = y.as_ref().unwrap_or(x.storage());
        multiply(y.matrix(rows, k), self.a.matrix().t(), Output::Set(&mut u));
        u.iter_mut().for_each(|u| *u *= self.scale);
        let &LowRank { a, v, scale, dropout } = self;
        let [a, v] = [a, v].map(|factor| (factor.shared(), factor.target()));
        Ok(Factors { a, v, u, shape: [rows, k, rank, n], scale, dropout })
    }
}

impl Factors {
    /// What the layer adds in its last step.
    pub fn product(&self) -> Product<'_> {
        Product { u: &self.u, v: self.v.0.f32(), rank: self.shape[2], dropout: None }
    }

    /// Whether a factor is trained, which needs x again.
    pub fn is_trained(&self) -> bool {
        self.targets().iter().any(|&target| target != Target::Nowhere)
    }

    /// Where the factors' gradients go.
    pub fn targets(&self) -> [Target; 2] {
        [self.a.1, self.v.1]
    }

    /// Adds to `da` and `dv`; x must be there if a is trained. What is left is what `dx` needs.
    pub fn backward(self, x: Option<&Storage>, dout: &Storage, back: &mut Backward) -> Rest {
        let Factors { a: (a, to_a), v: (v, to_v), u, shape: [rows, k, rank, n], scale, dropout } = self;
        let dout = dout.matrix(rows, n);
        let mut dv = back.take_for_overwrite(to_v, rank * n);
        if let Some(dv) = &mut dv {
            multiply(Mat::new(&u, rows, rank).t().into(), dout, dv.output());
        }
        back.put(dv);
        let mut du = u; // of the same length, and not needed any more
        multiply(dout, v.matrix(rank, n).t(), Output::Set(&mut du));
        du.iter_mut().for_each(|du| *du *= scale);
        let mut da = back.take_for_overwrite(to_a, rank * k);
        if let Some(da) = &mut da {
            let x = x.expect("a trained factor keeps its input");
            let y = dropout.map(|dropout| dropped(x, dropout));
            let y = y.as_ref().unwrap_or(x).matrix(rows, k);
            multiply(Mat::new(&du, rows, rank).t().into(), y, da.output());
        }
        back.put(da);
        Rest { a, du, rank, dropout }
    }
}

/// What the gradient by the input takes from a product of low rank.
pub(super) struct Rest {
    a: Arc<Storage>,
    du: Buffer,
    rank: usize,
    dropout: Option<Dropout>,
}

impl Rest {
    /// What is added to `dout wᵀ`.
    pub fn added(&self) -> Added<'_> {
        let &Rest { ref a, ref du, rank, dropout } = self;
        Added { bias: None, low_rank: Some(Product { u: du, v: a.f32(), rank, dropout }) }
    }
}

/// `x` with elements dropped, in its own type.
fn dropped(x: &Storage, dropout: Dropout) -> Storage {
    let mut y = Storage::scratch(x.precision(), x.len());
    let values: Values = x.values();
    kernels::rows::dropout_values(y.values_mut(), values, Some(dropout));
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{check, random};
    use crate::{Activation, Grads, Tape};
    use kernels::random::Stream;

    fn inputs() -> Vec<Tensor> {
        // x, w, b, a, v, residual, and a second layer's w
        let shapes: [&[usize]; 7] = [&[2, 3, 7], &[7, 5], &[5], &[2, 7], &[2, 5], &[2, 3, 5], &[5, 3]];
        let mut all: Vec<_> = (1..).zip(shapes).map(|(seed, shape)| random(shape, seed)).collect();
        // Far from the corners of an activation.
        all[0].data_mut().iter_mut().for_each(|x| *x *= 0.1);
        all
    }

    fn low_rank(x: &[Tensor], p: f32) -> Option<LowRank<'_>> {
        let dropout = (p > 0.0).then(|| Dropout { p, stream: Stream::new(1, 2, 3) });
        Some(LowRank { a: &x[3], v: &x[4], scale: 0.5, dropout })
    }

    #[test]
    fn gradient() {
        for p in [0.0, 0.4] {
            check(&inputs()[..5], |x| x[0].linear(&x[1], Some(&x[2]), low_rank(x, p)));
            check(&inputs()[..6], |x| x[0].linear_dropout_add(&x[1], &x[2], low_rank(x, p), None, &x[5]));
            // The activation's slope goes into the gradient by the input of the layer after it, which is adapted, too.
            let second = [random(&[2, 5], 8), random(&[2, 3], 9)];
            check(&[inputs(), second.to_vec()].concat(), |x| {
                let out = x[0].linear_activated(Activation::GeluNew, &x[1], &x[2], low_rank(x, p))?;
                let dropout = low_rank(x, p).and_then(|low| low.dropout);
                out.linear(&x[6], None, Some(LowRank { a: &x[7], v: &x[8], scale: 2.0, dropout }))
            });
        }
    }

    /// With frozen weights the factors' gradients are the same, bit for bit, and nothing else is computed.
    #[test]
    fn frozen_weights_have_no_gradients() {
        let x = inputs();
        let gradients = |frozen: bool| {
            let lens = if frozen { vec![14, 10] } else { x.iter().map(Tensor::len).collect() };
            let tape = Tape::new(Grads::new(&lens));
            let given = |slot: usize, trained: usize| match frozen {
                true => x[slot].clone(),
                false => x[slot].clone().parameter(trained),
            };
            let input = if frozen { x[0].clone().beside(&tape) } else { tape.input(&given(0, 0)) };
            let (a, v) = if frozen { (0, 1) } else { (3, 4) };
            let (a_slot, v_slot) = (a, v);
            let (a, v) = (x[3].clone().parameter(a), x[4].clone().parameter(v));
            let low =
                LowRank { a: &a, v: &v, scale: 0.5, dropout: low_rank(&x, 0.4).and_then(|low| low.dropout) };
            let (w, b) = (given(1, 1), given(2, 2));
            let out = input.linear_dropout_add(&w, &b, Some(low), None, &given(5, 5)).unwrap();
            let grads = tape.backward(&out, random(&[30], 9).data().to_vec());
            (grads.slot(a_slot).to_vec(), grads.slot(v_slot).to_vec())
        };
        assert_eq!(gradients(true), gradients(false));
    }

    #[test]
    fn shapes_must_agree() {
        let x = inputs();
        let wrong = LowRank { a: &x[4], v: &x[4], scale: 1.0, dropout: None };
        let error = x[0].linear(&x[1], None, Some(wrong)).unwrap_err();
        assert_eq!(error.to_string(), "low-rank factor a: got shape [2, 5], but [2, 7] is needed");
    }
}
