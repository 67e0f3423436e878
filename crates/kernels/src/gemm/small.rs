//! Products of a few rows with a row-major B: B is read once, in order, and not packed.
//!
//! The chains are those of the tiles: one multiply-add after the other over ascending K.

use super::{Mat, Out};
use crate::isa::{Isa, fma, vectorised};
use crate::pool::{self, Shared};

/// The most rows for which this is used.
pub const MOST_ROWS: usize = 4;
/// Columns of a task: a piece of C's row that stays in the first-level cache.
const COLS: usize = 512;

/// `C = A B` or `C += A B` for a row-major B.
pub fn product(isa: Isa, c: &mut [f32], a: Mat, b: Mat, out: Out) {
    let n = b.cols;
    if out == Out::Set {
        c.fill(0.0);
    }
    let c = Shared::new(c);
    pool::for_each(n.div_ceil(COLS), |task| {
        let (start, end) = (task * COLS, n.min((task + 1) * COLS));
        for i in 0..a.rows {
            // SAFETY: C is borrowed by `product`, and only this task has these columns.
            let c = unsafe { c.part(i * n + start, i * n + end) };
            row(isa, c, &a.data[i * a.row_stride..], a.col_stride, &b.data[start..], b.row_stride, b.rows);
        }
    });
}

vectorised! {
    /// `c[j] += Σ_k a[k · a_step] · b[k · b_step + j]`
    fn row(c: &mut [f32], a: &[f32], a_step: usize, b: &[f32], b_step: usize, depth: usize) {
        let n = c.len();
        let mut k = 0;
        while k + 4 <= depth {
            let [a0, a1, a2, a3] = [0, 1, 2, 3].map(|i| a[(k + i) * a_step]);
            let [b0, b1, b2, b3] = [0, 1, 2, 3].map(|i| &b[(k + i) * b_step..][..n]);
            for j in 0..n {
                let sum = fma::<FMA>(a1, b1[j], fma::<FMA>(a0, b0[j], c[j]));
                c[j] = fma::<FMA>(a3, b3[j], fma::<FMA>(a2, b2[j], sum));
            }
            k += 4;
        }
        while k < depth {
            let (a, b) = (a[k * a_step], &b[k * b_step..][..n]);
            for j in 0..n {
                c[j] = fma::<FMA>(a, b[j], c[j]);
            }
            k += 1;
        }
    }
}
