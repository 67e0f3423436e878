//! Products of bfloat16 on the calling thread, with a B that the caller has packed. Attention is made of them.

use std::cell::RefCell;

use super::strips::Causal;
use super::tiles::{A, B, C, Tile, with_pair_tile};
use super::{Mat, Out, pairs};
use crate::bf16::bf16;
use crate::isa::Isa;

/// Columns of a panel of B.
pub const WIDTH: usize = 32;

/// Units of the panels for a B of `n` columns and `k` rows.
pub fn panels_len(k: usize, n: usize) -> usize {
    n.div_ceil(WIDTH) * WIDTH * pairs::units(k)
}

/// Packs a B, given transposed: (n, k). `panels` has [`panels_len`] units.
pub fn pack_transposed(isa: Isa, panels: &mut [u32], bt: Mat<bf16>) {
    pairs::panels(isa, panels, WIDTH, &bt.into(), 0, [0, bt.cols]);
}

thread_local! {
    /// Packed rows of an A that cannot be read as it lies.
    static ROWS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// `C = A B` or `C += A B`: C is (a.rows, n) with rows `ldc` apart, `b` the panels of a B with a.cols rows.
pub fn product(
    isa: Isa,
    c: &mut [f32],
    ldc: usize,
    a: Mat<bf16>,
    (b, n): (&[u32], usize),
    out: Out,
    causal: Causal,
) {
    assert!(a.is_whole() && b.len() >= panels_len(a.cols, n), "A and B are as large as they say");
    assert!(a.rows == 0 || (a.rows - 1) * ldc + n <= c.len(), "C has these rows");
    ROWS.with_borrow_mut(|rows| {
        with_pair_tile!(isa, |tile| tile.held(|| run(isa, tile, c, ldc, a, (b, n), out, causal, rows)))
    });
}

#[allow(clippy::too_many_arguments)]
fn run<T: Tile<Unit = u32>>(
    isa: Isa,
    tile: T,
    c: &mut [f32],
    ldc: usize,
    a: Mat<bf16>,
    (b, n): (&[u32], usize),
    out: Out,
    causal: Causal,
    packed: &mut Vec<u32>,
) {
    let (m, k, depth) = (a.rows, a.cols, pairs::units(a.cols));
    let whole = [0, k];
    let lies = m == 0 || T::as_it_lies(&a.into(), 0, whole, n).is_some();
    let room = T::room(depth);
    if !lies {
        let len = m.div_ceil(T::MR) * T::MR * room;
        packed.resize(packed.len().max(len), 0);
        T::pack_rows(isa, &mut packed[..len], T::MR, &a.into(), 0, whole);
    }
    for i in (0..m).step_by(T::MR) {
        let rows = T::MR.min(m - i);
        let a_rows = match T::as_it_lies(&a.into(), i, whole, n) {
            Some(rows) => rows,
            None => T::panel(packed[i * room..].as_ptr(), T::MR),
        };
        for j in (0..n).step_by(T::NR) {
            let cols = T::NR.min(n - j);
            let steps = causal.steps(i, rows, j, 0..k);
            if steps.is_empty() {
                continue;
            }
            let (first, last) = (steps.start / 2 / T::GRAIN * T::GRAIN, steps.end.div_ceil(2));
            let c = C { at: c[i * ldc + j..].as_mut_ptr(), row: ldc, from_c: out == Out::Add };
            let a = A { at: a_rows.at.wrapping_add(first * a_rows.step), ..a_rows };
            let b = B { at: b[j * depth + first * WIDTH..].as_ptr(), step: WIDTH };
            // SAFETY: A has these rows and `depth` units, as it lies or packed; B's panel has `depth` steps of `WIDTH`,
            // which is the tile's `NR`; C has these rows and columns, by the assertion in `product`, and is ours.
            unsafe { tile.run(rows, cols, c, a, b, last - first) };
        }
    }
}
