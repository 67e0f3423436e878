//! Pairs of bfloat16 with AVX2, which has no instruction for them: each half becomes an `f32`, and joins the chain by a fused
//! multiply-add, the lower half of a pair first.
//!
//! A is widened some steps at a time. For a few rows B is widened on its way from the cache; for more it is widened into the
//! cache, too, and the tile of `f32` does the rest. The chains are the same.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::{A, Ahead, B, C, Lines, Operand, PairPanels, Tile};
use crate::gemm::FEW;
use crate::isa::{Avx2, Isa};

/// Columns of a vector.
const LANES: usize = 8;
/// Rows of a tile: several of the tile of `f32`, which share a widened B.
const ROWS: usize = 24;
/// Columns of a tile.
const COLS: usize = 4 * LANES;
/// Steps that are widened at once. With them, the rows of A and of B fit the first-level cache.
const STEPS: usize = 48;

/// Proof that this CPU has AVX2 and FMA, for products of pairs.
#[derive(Clone, Copy)]
pub struct Avx2Pairs(Avx2);

impl Avx2Pairs {
    /// Asks the CPU.
    pub fn detect() -> Option<Avx2Pairs> {
        Avx2::detect().map(Avx2Pairs)
    }
}

/// Memory to ask for while some steps are computed.
#[derive(Clone, Copy)]
struct Asks {
    /// Steps before the first.
    first: usize,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Nothing,
    /// So many lines at each step.
    Lines(Lines, usize),
    One(Ahead),
    Two(Ahead),
}

impl Tile for Avx2Pairs {
    const MR: usize = ROWS;
    const NR: usize = COLS;
    pairs!(3072, (56, 128));

    #[inline(always)]
    fn width(cols: usize) -> usize {
        cols.div_ceil(LANES).next_power_of_two() * LANES
    }

    fn wide_cols(rows: usize) -> usize {
        if rows == 1 { 2 * COLS } else { COLS }
    }

    unsafe fn wide(self, rows: usize, cols: usize, ahead: Lines, c: C, a: A<u32>, b: B<u32>, depth: usize) {
        let asks = match ahead.at.is_null() {
            true => What::Nothing,
            false => What::Lines(ahead, (4 * cols).div_ceil(64)),
        };
        // SAFETY: `self` exists, so `detect` has found these features; the rest is the caller's promise.
        unsafe { tile(self.0, rows, cols, c, a, b, depth, asks) };
    }

    unsafe fn whole<const LINES: usize>(
        self,
        rows: usize,
        width: usize,
        c: C,
        a: A<u32>,
        b: B<u32>,
        depth: usize,
        ahead: Ahead,
    ) {
        let asks = match LINES {
            0 => What::Nothing,
            1 => What::One(ahead),
            _ => What::Two(ahead),
        };
        // SAFETY: `self` exists, so `detect` has found these features; the rest is the caller's promise.
        unsafe { tile(self.0, rows, width, c, a, b, depth, asks) };
    }
}

/// Room for widened values. The last vector may go beyond what is wanted.
type Wide<const LEN: usize> = [MaybeUninit<f32>; LEN];

/// A tile, some steps at a time.
///
/// # Safety
/// As for [`Tile::whole`].
#[target_feature(enable = "avx2,fma")]
#[allow(clippy::too_many_arguments)]
unsafe fn tile(
    floats: Avx2,
    rows: usize,
    width: usize,
    mut c: C,
    mut a: A<u32>,
    mut b: B<u32>,
    depth: usize,
    asks: What,
) {
    let mut a_wide: Wide<{ ROWS * 2 * STEPS }> = [const { MaybeUninit::uninit() }; _];
    let mut b_wide: Wide<{ COLS * 2 * STEPS }> = [const { MaybeUninit::uninit() }; _];
    // Once at least, since C is to be written.
    for first in (0..depth.max(1)).step_by(STEPS) {
        let (steps, asks) = (STEPS.min(depth - first), Asks { first, what: asks });
        // SAFETY: the caller's promise, for these steps.
        unsafe {
            let a = widen_a(&mut a_wide, rows, a, steps);
            if rows <= FEW {
                few(rows, width, c, a, b, steps, asks);
            } else {
                let b = widen_b(&mut b_wide, width, b, steps, asks);
                let height = rows.div_ceil(rows.div_ceil(Avx2::MR));
                for i in (0..rows).step_by(height) {
                    for j in (0..width).step_by(Avx2::NR) {
                        let c = C { at: c.at.wrapping_add(i * c.row + j), ..c };
                        let a = A { at: a.at.wrapping_add(i * a.row), ..a };
                        let b = B { at: b.at.wrapping_add(j), ..b };
                        let (rows, width) = (height.min(rows - i), Avx2::NR.min(width - j));
                        floats.whole::<0>(rows, width, c, a, b, 2 * steps, Ahead::none());
                    }
                }
            }
        }
        // Wrapping, since after the last step these point past the end.
        a.at = a.at.wrapping_add(steps * a.step);
        b.at = b.at.wrapping_add(steps * b.step);
        c.from_c = true;
    }
}

/// Widens A's rows for some steps.
///
/// # Safety
/// A has them.
#[target_feature(enable = "avx2,fma")]
unsafe fn widen_a(out: &mut Wide<{ ROWS * 2 * STEPS }>, rows: usize, a: A<u32>, steps: usize) -> A {
    assert!(rows <= ROWS && steps <= STEPS, "they fit");
    let at: *mut f32 = out.as_mut_ptr().cast();
    if a.step == 1 {
        // A row is a run of numbers, in order.
        for i in 0..rows {
            let (row, from) = (at.wrapping_add(i * 2 * STEPS), a.at.wrapping_add(i * a.row).cast::<u16>());
            let mut k = 0;
            while k + LANES <= 2 * steps {
                // SAFETY: the row has these numbers, and there is room for `STEPS` pairs in each row.
                unsafe {
                    let numbers = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(k).cast()));
                    _mm256_storeu_ps(row.add(k), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(numbers)));
                }
                k += LANES;
            }
            for k in k..2 * steps {
                // SAFETY: as above; a row may start at an odd element.
                unsafe { row.add(k).write(f32::from_bits(u32::from(from.add(k).read_unaligned()) << 16)) };
            }
        }
        return A { at, row: 2 * STEPS, step: 1 };
    }
    assert!(a.row == 1, "else a panel's rows lie side by side");
    for i in (0..rows).step_by(LANES) {
        let lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
        let there = _mm256_cmpgt_epi32(_mm256_set1_epi32((rows - i) as i32), lane);
        for k in 0..steps {
            // SAFETY: the panel has those units at this step that the mask names, and there is room for `ROWS` of each half.
            unsafe {
                let pairs = _mm256_maskload_epi32(a.at.add(k * a.step + i).cast(), there);
                _mm256_storeu_ps(at.add(2 * k * ROWS + i), lower(pairs));
                _mm256_storeu_ps(at.add((2 * k + 1) * ROWS + i), upper(pairs));
            }
        }
    }
    A { at, row: 1, step: ROWS }
}

/// Widens B's columns for some steps.
///
/// # Safety
/// B has them, in whole vectors.
#[target_feature(enable = "avx2,fma")]
unsafe fn widen_b(
    out: &mut Wide<{ COLS * 2 * STEPS }>,
    width: usize,
    b: B<u32>,
    steps: usize,
    asks: Asks,
) -> B {
    assert!(width <= COLS && steps <= STEPS, "they fit");
    let at: *mut f32 = out.as_mut_ptr().cast();
    for k in 0..steps {
        asks.ask(k);
        for j in (0..width).step_by(LANES) {
            // SAFETY: the caller's promise; and there is room for `COLS` values of each half.
            unsafe {
                let pairs = _mm256_loadu_si256(b.at.add(k * b.step + j).cast());
                _mm256_storeu_ps(at.add(2 * k * COLS + j), lower(pairs));
                _mm256_storeu_ps(at.add((2 * k + 1) * COLS + j), upper(pairs));
            }
        }
    }
    B { at, step: COLS }
}

impl Asks {
    /// Asks for the lines of a step.
    #[inline(always)]
    fn ask(self, k: usize) {
        let step = self.first + k;
        match self.what {
            What::Nothing => {}
            What::Lines(lines, n) => lines.ask(step, n),
            What::One(ahead) => ahead.ask::<1>(step),
            What::Two(ahead) => ahead.ask::<2>(step),
        }
    }
}

/// A few rows, as many columns together as registers hold.
///
/// # Safety
/// As for [`Tile::whole`], with a widened A.
#[target_feature(enable = "avx2,fma")]
unsafe fn few(rows: usize, width: usize, c: C, a: A, b: B<u32>, steps: usize, asks: Asks) {
    let mut j = 0;
    while j < width {
        let (c, b) = (C { at: c.at.wrapping_add(j), ..c }, B { at: b.at.wrapping_add(j), ..b });
        // The first columns ask for what all will want.
        let asks = Asks { what: if j == 0 { asks.what } else { What::Nothing }, ..asks };
        // SAFETY: the caller's promise, for these columns.
        let vectors = unsafe {
            match (rows, (width - j) / LANES) {
                (1, 8..) => kernel::<1, 8>(c, a, b, steps, asks),
                (1, 4..) => kernel::<1, 4>(c, a, b, steps, asks),
                (2, 4..) => kernel::<2, 4>(c, a, b, steps, asks),
                (1, 2..) => kernel::<1, 2>(c, a, b, steps, asks),
                (2, 2..) => kernel::<2, 2>(c, a, b, steps, asks),
                (3, 2..) => kernel::<3, 2>(c, a, b, steps, asks),
                (4, 2..) => kernel::<4, 2>(c, a, b, steps, asks),
                (1, _) => kernel::<1, 1>(c, a, b, steps, asks),
                (2, _) => kernel::<2, 1>(c, a, b, steps, asks),
                (3, _) => kernel::<3, 1>(c, a, b, steps, asks),
                (4, _) => kernel::<4, 1>(c, a, b, steps, asks),
                _ => unreachable!("{rows} rows"),
            }
        };
        j += vectors * LANES;
    }
}

/// `R` rows by `V` vectors; gives `V`.
///
/// # Safety
/// As for [`few`].
#[target_feature(enable = "avx2,fma")]
#[allow(clippy::needless_range_loop)] // counted to constants, so that sums stay in registers
#[inline(never)] // else the compiler mixes up the registers of all of them
unsafe fn kernel<const R: usize, const V: usize>(c: C, a: A, b: B<u32>, steps: usize, asks: Asks) -> usize {
    let mut acc = [[_mm256_setzero_ps(); V]; R];
    if c.from_c {
        for i in 0..R {
            for v in 0..V {
                // SAFETY: row i of C has `V` vectors.
                acc[i][v] = unsafe { _mm256_loadu_ps(c.at.add(i * c.row + v * LANES)) };
            }
        }
    }
    let (mut a_at, mut b_at) = (a.at, b.at);
    for k in 0..steps {
        asks.ask(k);
        // SAFETY: B has `V` vectors at each of these steps.
        let pairs: [_; V] =
            std::array::from_fn(|v| unsafe { _mm256_loadu_si256(b_at.add(v * LANES).cast()) });
        for half in 0..2 {
            for i in 0..R {
                // SAFETY: A has `R` rows, and two values of each at each of these steps.
                let scalar = unsafe { _mm256_set1_ps(*a_at.add(i * a.row + half * a.step)) };
                for v in 0..V {
                    let values = if half == 0 { lower(pairs[v]) } else { upper(pairs[v]) };
                    acc[i][v] = _mm256_fmadd_ps(scalar, values, acc[i][v]);
                }
            }
        }
        // Wrapping, since after the last step these point past the end.
        (a_at, b_at) = (a_at.wrapping_add(2 * a.step), b_at.wrapping_add(b.step));
    }
    for i in 0..R {
        for v in 0..V {
            // SAFETY: row i of C has `V` vectors, which are ours.
            unsafe { _mm256_storeu_ps(c.at.add(i * c.row + v * LANES), acc[i][v]) };
        }
    }
    V
}

/// The lower half of each pair.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn lower(pairs: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs))
}

/// The upper half of each pair.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn upper(pairs: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32)))
}
