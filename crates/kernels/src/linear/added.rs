//! What is added to a product in its last step: a bias, and a product of low rank, such as an adapter's (Hu et al., 2021).

use super::MOST;
use crate::isa::fma;
use crate::math::map_pairs;
use crate::random::Dropout;

/// What is added to a product's rows while they are in the cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct Added<'a> {
    /// The same for all rows, (N).
    pub bias: Option<&'a [f32]>,
    /// A product of low rank.
    pub low_rank: Option<LowRank<'a>>,
}

/// `dropout(u v)`, in `f32`: each element is one chain of multiply-adds over ascending R, which goes on where the large
/// product and the bias ended, unless something is dropped. Made for ranks well below those of the large product.
#[derive(Clone, Copy, Debug)]
pub struct LowRank<'a> {
    /// (rows, R)
    pub u: &'a [f32],
    /// (R, N)
    pub v: &'a [f32],
    /// R
    pub rank: usize,
    /// Drops elements of the product; element (i, j) has index `i N + j`.
    pub dropout: Option<Dropout>,
}

impl<'a> From<Option<&'a [f32]>> for Added<'a> {
    fn from(bias: Option<&'a [f32]>) -> Added<'a> {
        Added { bias, low_rank: None }
    }
}

impl Added<'_> {
    pub(super) fn is_nothing(&self) -> bool {
        self.bias.is_none() && self.low_rank.is_none()
    }

    pub(super) fn check(&self, rows: usize, n: usize) {
        assert!(self.bias.is_none_or(|bias| bias.len() == n), "one value a column");
        if let Some(LowRank { u, v, rank, .. }) = self.low_rank {
            assert!(u.len() == rows * rank && v.len() == rank * n, "factors of ({rows}, {n}), rank {rank}");
        }
    }

    /// Adds to the values of `row` from column `col` on, of N columns.
    #[inline(always)]
    pub(super) fn add<const FMA: bool>(&self, values: &mut [f32], row: usize, col: usize, n: usize) {
        if let Some(bias) = self.bias {
            map_pairs(values, &bias[col..col + values.len()], |x, b| x + b);
        }
        match &self.low_rank {
            None => {}
            Some(low @ LowRank { dropout: None, .. }) => low.add::<FMA>(values, row, col, n),
            Some(low @ LowRank { dropout: Some(dropout), .. }) => {
                let (mut sum, mut factors) = ([0.0; MOST], [0.0; MOST]);
                for (c, values) in values.chunks_mut(MOST).enumerate() {
                    let (sum, factors) = (&mut sum[..values.len()], &mut factors[..values.len()]);
                    let col = col + c * MOST;
                    sum.fill(0.0);
                    low.add::<FMA>(sum, row, col, n);
                    dropout.factors((row * n + col) as u64, factors);
                    map_pairs(sum, factors, |x, factor| x * factor);
                    map_pairs(values, sum, |x, sum| x + sum);
                }
            }
        }
    }
}

impl LowRank<'_> {
    /// Four steps of the chain are taken while an element is in a register.
    #[inline(always)]
    fn add<const FMA: bool>(&self, values: &mut [f32], row: usize, col: usize, n: usize) {
        const STEPS: usize = 4;
        let u = &self.u[row * self.rank..(row + 1) * self.rank];
        let cols = values.len();
        let v = |r: usize| &self.v[r * n + col..r * n + col + cols];
        let (groups, tail) = u.as_chunks::<STEPS>();
        for (g, u) in groups.iter().enumerate() {
            let [v0, v1, v2, v3] = [0, 1, 2, 3].map(|r| v(STEPS * g + r));
            for (x, (((v0, v1), v2), v3)) in values.iter_mut().zip(v0.iter().zip(v1).zip(v2).zip(v3)) {
                let two = fma::<FMA>(u[1], *v1, fma::<FMA>(u[0], *v0, *x));
                *x = fma::<FMA>(u[3], *v3, fma::<FMA>(u[2], *v2, two));
            }
        }
        for (r, &u) in tail.iter().enumerate() {
            map_pairs(values, v(STEPS * groups.len() + r), |x, v| fma::<FMA>(u, v, x));
        }
    }
}
