//! Tiles in plain Rust, for any processor.

use super::{A, Ahead, B, C, Operand, PairPanels, Tile};
use crate::isa::Isa;

/// Plain Rust: the compiler vectorises the inner loop as far as the target allows. 4 × 8 suits 16 registers of 4 lanes.
#[derive(Clone, Copy)]
pub struct Plain<const MR: usize, const NR: usize>;

impl<const MR: usize, const NR: usize> Tile for Plain<MR, NR> {
    const MR: usize = MR;
    const NR: usize = NR;
    floats!(1536, (48, 128));

    fn lying_steps(_rows: usize) -> Option<usize> {
        Some(16)
    }

    unsafe fn whole<const LINES: usize>(
        self,
        rows: usize,
        _width: usize,
        c: C,
        a: A,
        b: B,
        depth: usize,
        _ahead: Ahead,
    ) {
        if rows == MR {
            // SAFETY: the caller's promise.
            return unsafe { plain::<MR, NR>(c, a, b, depth) };
        }
        for i in 0..rows {
            // SAFETY: row i is one of the rows that the caller speaks of.
            unsafe {
                let (c, a) = (C { at: c.at.add(i * c.row), ..c }, A { at: a.at.add(i * a.row), ..a });
                plain::<1, NR>(c, a, b, depth);
            }
        }
    }
}

/// # Safety
/// As for [`Tile::whole`], with `R` rows and `NR` columns.
unsafe fn plain<const R: usize, const NR: usize>(c: C, a: A, b: B, depth: usize) {
    let mut acc = [[0.0f32; NR]; R];
    if c.from_c {
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: row i of C has `NR` values.
            *acc = unsafe { c.at.add(i * c.row).cast::<[f32; NR]>().read() };
        }
    }
    for k in 0..depth {
        // SAFETY: B can be read for `depth` steps of `NR` values.
        let b = unsafe { b.at.add(k * b.step).cast::<[f32; NR]>().read() };
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: A can be read for `R` rows and `depth` steps.
            let a = unsafe { a.at.add(i * a.row + k * a.step).read() };
            for (acc, b) in acc.iter_mut().zip(b) {
                *acc += a * b;
            }
        }
    }
    for (i, acc) in acc.into_iter().enumerate() {
        // SAFETY: row i of C has `NR` values, which are ours.
        unsafe { c.at.add(i * c.row).cast::<[f32; NR]>().write(acc) };
    }
}

/// Pairs of bfloat16 in plain Rust, the lower half first, as the tiles of `f32` do. AVX-512's instruction adds the upper
/// half first, and takes subnormal numbers for zeros.
#[derive(Clone, Copy)]
pub struct PlainPairs<const MR: usize, const NR: usize>;

impl<const MR: usize, const NR: usize> Tile for PlainPairs<MR, NR> {
    const MR: usize = MR;
    const NR: usize = NR;
    pairs!(3072, (56, 128));

    unsafe fn whole<const LINES: usize>(
        self,
        rows: usize,
        _width: usize,
        c: C,
        a: A<u32>,
        b: B<u32>,
        depth: usize,
        _ahead: Ahead,
    ) {
        let [low, high] =
            [|pair: u32| f32::from_bits(pair << 16), |pair: u32| f32::from_bits(pair & 0xffff_0000)];
        for i in 0..rows {
            // SAFETY: row i of C has `NR` values, which are ours.
            let c_row = unsafe { &mut *c.at.add(i * c.row).cast::<[f32; NR]>() };
            let mut acc = if c.from_c { *c_row } else { [0.0; NR] };
            for k in 0..depth {
                // SAFETY: A and B can be read for `depth` steps; a row of A may start at an odd element.
                let (a, b) = unsafe {
                    let a = a.at.add(i * a.row + k * a.step).read_unaligned();
                    (a, b.at.add(k * b.step).cast::<[u32; NR]>().read())
                };
                for (acc, b) in acc.iter_mut().zip(b) {
                    *acc += low(a) * low(b);
                    *acc += high(a) * high(b);
                }
            }
            *c_row = acc;
        }
    }
}
