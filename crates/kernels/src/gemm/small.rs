//! Products of a few rows with a row-major B: B is read once, in order, and not packed.
//!
//! The chains are those of the tiles: one multiply-add after the other over ascending K.

use super::{Mat, Out};
use crate::isa::{Isa, fma, vectorised};
use crate::pool::{self, Shared};

/// The most rows for which this is used.
pub const MOST_ROWS: usize = 8;
/// The most columns of a task: pieces of C's rows that stay in the first-level cache.
const COLS: usize = 512;

/// `C = A B` or `C += A B` for a row-major B.
pub fn product(isa: Isa, c: &mut [f32], a: Mat, b: Mat, out: Out) {
    let n = b.cols;
    let cols = n.div_ceil(2 * pool::threads()).next_multiple_of(64).min(COLS);
    let cols = if a.rows * a.cols * n <= super::TINY { n } else { cols };
    let c = Shared::new(c);
    pool::for_each(n.div_ceil(cols), |task| {
        let (start, end) = (task * cols, n.min((task + 1) * cols));
        // SAFETY: C is borrowed by `product`, and only this task has these columns.
        let row = |i: usize| unsafe { c.part(i * n + start, i * n + end) };
        if out == Out::Set {
            (0..a.rows).for_each(|i| row(i).fill(0.0));
        }
        // Four steps of K for all rows while their part of B is in the first-level cache.
        for k in (0..a.cols).step_by(4) {
            let steps = 4.min(a.cols - k);
            for i in 0..a.rows {
                let mut values = [0.0; 4];
                (0..steps).for_each(|s| values[s] = a.data[i * a.row_stride + (k + s) * a.col_stride]);
                add_steps(isa, row(i), &values[..steps], &b.data[k * b.row_stride + start..], b.row_stride);
            }
        }
    });
}

vectorised! {
    /// `c[j] += Σ_s a[s] · b[s · b_step + j]`, one step after the other.
    fn add_steps(c: &mut [f32], a: &[f32], b: &[f32], b_step: usize) {
        let n = c.len();
        if let &[a0, a1, a2, a3] = a {
            let [b0, b1, b2, b3] = [0, 1, 2, 3].map(|s| &b[s * b_step..][..n]);
            for j in 0..n {
                let sum = fma::<FMA>(a1, b1[j], fma::<FMA>(a0, b0[j], c[j]));
                c[j] = fma::<FMA>(a3, b3[j], fma::<FMA>(a2, b2[j], sum));
            }
            return;
        }
        for (s, &a) in a.iter().enumerate() {
            let b = &b[s * b_step..][..n];
            for j in 0..n {
                c[j] = fma::<FMA>(a, b[j], c[j]);
            }
        }
    }
}
