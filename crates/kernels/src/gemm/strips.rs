//! Products on the calling thread, which pack B a strip of columns at a time and read A as it lies.
//!
//! Attention is made of them. A row-major B is not packed either, except for the last columns. Where one matrix
//! is half empty because attention is causal, [`Causal`] says so, and most of the empty half is left out.

use std::cell::RefCell;
use std::ops::Range;

use super::tiles::{A, B, C, Tile, with_tile};
use super::{Mat, Out, pack};
use crate::isa::Isa;
use crate::pool::Shared;

/// Which part of a product is wanted. Row r of the (queries, keys) matrix sees keys up to `first + r`.
#[derive(Clone, Copy, Debug)]
pub enum Causal {
    /// C is (queries, keys): what a query does not see need not be computed.
    Scores {
        /// The last key that query 0 sees.
        first: isize,
    },
    /// A is (queries, keys), with zeros where a query does not see a key.
    Probs {
        /// The last key that query 0 sees.
        first: isize,
    },
    /// A is (keys, queries), with zeros where a query does not see a key.
    ProbsTransposed {
        /// The last key that query 0 sees.
        first: isize,
    },
}

impl Causal {
    /// The steps of K that matter for rows `i..i + rows` and columns from `j` on.
    #[inline(always)]
    pub(super) fn steps(self, i: usize, rows: usize, j: usize, k: Range<usize>) -> Range<usize> {
        let seen = |first: isize| (first + 1).saturating_add_unsigned(i + rows).max(1) as usize - 1;
        match self {
            Causal::Scores { first } => {
                if j < seen(first) {
                    k
                } else {
                    k.end..k.end
                }
            }
            Causal::Probs { first } => k.start..seen(first).clamp(k.start, k.end),
            Causal::ProbsTransposed { first } => {
                let start = (i as isize - first).max(0) as usize;
                start.clamp(k.start, k.end)..k.end
            }
        }
    }
}

/// Steps of K that are packed at once: long runs along B's columns, since memory likes them.
const STEPS: usize = 1024;

thread_local! {
    /// A packed strip of B.
    static STRIP: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// `C = A B` or `C += A B`, where C starts at element `start` of a slice and its rows are `ldc` apart.
///
/// # Safety
/// No other living borrow covers the elements of C.
pub unsafe fn product(isa: Isa, c: (&Shared<f32>, usize, usize), a: Mat, b: Mat, out: Out, causal: Causal) {
    assert!(a.cols == b.rows && a.is_whole() && b.is_whole(), "A and B are as large as they say");
    if a.rows > 0 && b.cols > 0 {
        STRIP.with_borrow_mut(|strip| {
            // SAFETY: the caller's promise.
            with_tile!(isa, |tile| unsafe { strips(isa, tile, c, a, b, out, causal, strip) });
        });
    }
}

/// # Safety
/// As for [`product`]; A and B are whole, and C is not empty.
#[allow(clippy::too_many_arguments)]
unsafe fn strips<T: Tile<Unit = f32>>(
    isa: Isa,
    tile: T,
    (c, start, ldc): (&Shared<f32>, usize, usize),
    a: Mat,
    b: Mat,
    out: Out,
    causal: Causal,
    strip: &mut Vec<f32>,
) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let c = c.pointer(start, (m - 1) * ldc + n);
    for j in (0..n).step_by(T::NR) {
        let cols = T::NR.min(n - j);
        for k0 in (0..k).step_by(STEPS) {
            let kc = STEPS.min(k - k0);
            if causal.steps(0, m, j, k0..k0 + kc).is_empty() {
                continue;
            }
            let b = if b.col_stride == 1 && T::width(cols) == cols {
                B { at: b.at(k0, j), step: b.row_stride }
            } else {
                pack::reserve(strip, T::NR * kc);
                pack::rows(isa, strip, T::NR, b.t(), j, [k0, kc]);
                B { at: strip.as_ptr(), step: T::NR }
            };
            for i in (0..m).step_by(T::MR) {
                let rows = T::MR.min(m - i);
                let steps = causal.steps(i, rows, j, k0..k0 + kc);
                if steps.is_empty() {
                    continue;
                }
                let from_c = out == Out::Add || k0 > 0;
                let c = C { at: c.wrapping_add(i * ldc + j), row: ldc, from_c };
                let a = A { at: a.at(i, steps.start), row: a.row_stride, step: a.col_stride };
                let b = B { at: b.at.wrapping_add((steps.start - k0) * b.step), ..b };
                // SAFETY: A is whole, and so has these rows and steps; B is whole too, and here has `width` columns,
                // or the strip holds `kc` steps of `NR`. The tile lies in C, and is ours by the caller's promise.
                unsafe { tile.run(rows, cols, c, a, b, steps.len()) };
            }
        }
    }
}
