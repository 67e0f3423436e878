//! A tile with AVX2: two to six rows at a time by two vectors of 8 columns, whose sums stay in registers.
//!
//! There are two ways to multiply bytes. One instruction takes them as they are, and keeps the sum of two products in
//! 16 bits. Products of Q4 are at most 15 · 127, so that sixteen of them fit; of those of Q6, at most 63 · 127, four do.
//! Those of Q8 do not even fit by two; its numbers, and those of x, are spread to 16 bits first.

use std::arch::x86_64::*;

use super::tiles::{Kernel, Task, split};
use super::x_rows::{self, Row, XBlock};
use super::{BLOCK, BlockFormat, CHUNK, Levels, PANEL, PLANE, unpack};
use crate::gemm::tiles::prefetch_far;
use crate::isa::{Avx2, Isa};

/// Columns of a vector.
const LANES: usize = 8;
/// Groups of a block: of four numbers each.
const GROUPS: usize = BLOCK / 4;

/// A number that the compiler does not know: it would unroll a loop that counts to it, and then keep so much in registers
/// that sums are moved to memory.
#[inline(always)]
fn unknown(n: usize) -> usize {
    std::hint::black_box(n)
}

impl Kernel for Avx2 {
    fn round(self, row: Row, x: &[f32]) {
        x_rows::round(Isa::Avx2, row, x);
    }

    fn run(self, sums: &mut [f32], task: Task) {
        task.check::<Self>(sums);
        // SAFETY: `self` exists, so `detect` has found AVX2 and FMA on this CPU.
        unsafe {
            match task.format {
                BlockFormat::Q8 => tile::<8>(sums, task),
                BlockFormat::Q6 => tile::<6>(sums, task),
                BlockFormat::Q4 => tile::<4>(sums, task),
            }
        }
    }
}

/// A row's block, spread to 16 bits: for each group its numbers 0 and 2, then for each its numbers 1 and 3.
type Spread = [[i32; GROUPS]; 2];

#[target_feature(enable = "avx2,fma")]
fn tile<const BITS: usize>(sums: &mut [f32], task: Task) {
    let Task { format, panel, rows, x, stride, ahead } = task;
    let mut unpacked = [0; CHUNK];
    let mut spread: [Spread; Avx2::ROWS] = [[[0; GROUPS]; 2]; Avx2::ROWS];
    for (chunk, x) in panel.chunks_exact(format.block_bytes()).zip(x.chunks_exact(rows)) {
        if ahead.behind > 0 {
            (0..chunk.len())
                .step_by(64)
                .for_each(|at| prefetch_far(ahead.of(chunk.as_ptr().wrapping_add(at))));
        }
        let (scales, data) = split(chunk);
        let levels = match data.try_into() {
            Ok(levels) if BITS == 8 => levels,
            _ => {
                unpack(format, data, &mut unpacked);
                &unpacked
            }
        };
        if BITS == 8 {
            spread.iter_mut().zip(x).for_each(|(spread, x)| *spread = spread_block(x));
        }
        // As many rows as there are registers for; Q6 has sums of 16 bits beside those of 32.
        let most = match BITS {
            6 => 2,
            8 => 4,
            _ => 6,
        };
        for first in (0..rows).step_by(most) {
            let (x, spread, sums) = (&x[first..], &spread[first..], &mut sums[first * stride..]);
            match x.len().min(most) {
                1 => add_rows::<1, BITS>(sums, stride, levels, x, spread, &scales),
                2 => add_rows::<2, BITS>(sums, stride, levels, x, spread, &scales),
                3 => add_rows::<3, BITS>(sums, stride, levels, x, spread, &scales),
                4 => add_rows::<4, BITS>(sums, stride, levels, x, spread, &scales),
                5 => add_rows::<5, BITS>(sums, stride, levels, x, spread, &scales),
                _ => add_rows::<6, BITS>(sums, stride, levels, x, spread, &scales),
            }
        }
    }
}

/// The next link of the chains of `R` rows and 32 columns.
#[target_feature(enable = "avx2,fma")]
#[allow(clippy::needless_range_loop)] // counted to constants, so that sums stay in registers
fn add_rows<const R: usize, const BITS: usize>(
    sums: &mut [f32],
    stride: usize,
    levels: &Levels,
    x: &[XBlock],
    spread: &[Spread],
    scales: &[f32; PANEL],
) {
    let (x, spread): (&[XBlock; R], &[Spread; R]) = match (x.first_chunk(), spread.first_chunk()) {
        (Some(x), Some(spread)) => (x, spread),
        _ => unreachable!("there are {R} rows"),
    };
    assert!((R - 1) * stride + PANEL <= sums.len(), "room for the sums");
    for first in (0..PANEL).step_by(2 * LANES) {
        // SAFETY: there are 32 columns.
        let dots = unsafe {
            if BITS == 8 { wide_dots(levels, first, x, spread) } else { dots::<R, BITS>(levels, first, x) }
        };
        // SAFETY: as above.
        let scales = [0, 1].map(|v| unsafe { _mm256_loadu_ps(scales.as_ptr().add(first + v * LANES)) });
        for r in 0..R {
            for v in 0..2 {
                let column = first + v * LANES;
                // SAFETY: row r of the sums has 32 values, which are ours, and so have the scales.
                unsafe {
                    let sums = sums.as_mut_ptr().add(r * stride + column);
                    let scale = _mm256_mul_ps(scales[v], _mm256_set1_ps(x[r].scale));
                    let sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r][v]), scale, _mm256_loadu_ps(sums));
                    _mm256_storeu_ps(sums, sum);
                }
            }
        }
    }
}

/// Where the dot products of rows start.
#[target_feature(enable = "avx2,fma")]
#[inline]
#[allow(clippy::needless_range_loop)] // counted to constants: `map` puts the sums of six rows into memory
fn starts<const R: usize>(x: &[XBlock; R]) -> [[__m256i; 2]; R] {
    let mut starts = [[_mm256_setzero_si256(); 2]; R];
    for r in 0..R {
        starts[r] = [_mm256_set1_epi32(x[r].start); 2];
    }
    starts
}

/// Numbers of a group, of 8 columns from column `first` on.
///
/// # Safety
/// There are such a group and columns.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn group(levels: &Levels, group: usize, first: usize) -> __m256i {
    // SAFETY: these are the 32 bytes of a vector, and no alignment is needed.
    unsafe { _mm256_loadu_si256(levels.as_ptr().add(group * PLANE + 4 * first).cast()) }
}

/// A number in all lanes.
///
/// # Safety
/// There is such a number.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn splat(numbers: &[i32; GROUPS], group: usize) -> __m256i {
    // SAFETY: the caller's promise.
    _mm256_set1_epi32(unsafe { *numbers.get_unchecked(group) })
}

/// The dot products of some rows' blocks with those of 16 columns from `first` on, for numbers of 8 bits.
///
/// # Safety
/// There are such columns.
#[target_feature(enable = "avx2,fma")]
#[inline]
#[allow(clippy::needless_range_loop)] // counted to constants, so that sums stay in registers
unsafe fn wide_dots<const R: usize>(
    levels: &Levels,
    first: usize,
    x: &[XBlock; R],
    spread: &[Spread; R],
) -> [[__m256i; 2]; R] {
    let mut dots = starts(x);
    for g in 0..unknown(GROUPS) {
        // SAFETY: the caller's promise, for each of the groups.
        let levels = unsafe { [group(levels, g, first), group(levels, g, first + LANES)] };
        for odd in 0..2 {
            let levels = levels.map(|levels| {
                if odd == 1 {
                    _mm256_srli_epi16::<8>(levels)
                } else {
                    _mm256_and_si256(levels, _mm256_set1_epi16(255))
                }
            });
            for r in 0..R {
                // SAFETY: there is such a group.
                let x = unsafe { splat(&spread[r][odd], g) };
                for v in 0..2 {
                    dots[r][v] = _mm256_add_epi32(dots[r][v], _mm256_madd_epi16(levels[v], x));
                }
            }
        }
    }
    dots
}

/// The same for numbers of fewer bits.
///
/// # Safety
/// As for [`wide_dots`].
#[target_feature(enable = "avx2,fma")]
#[inline]
#[allow(clippy::needless_range_loop)] // counted to constants, so that sums stay in registers
unsafe fn dots<const R: usize, const BITS: usize>(
    levels: &Levels,
    first: usize,
    x: &[XBlock; R],
) -> [[__m256i; 2]; R] {
    // Groups whose products fit 16 bits together.
    let at_once = if BITS == 6 { 2 } else { GROUPS };
    let mut dots = starts(x);
    for start in (0..unknown(GROUPS)).step_by(at_once) {
        let mut sums = [[_mm256_setzero_si256(); 2]; R];
        for g in start..start + if BITS == 6 { at_once } else { unknown(at_once) } {
            // SAFETY: the caller's promise, for each of the groups.
            let levels = unsafe { [group(levels, g, first), group(levels, g, first + LANES)] };
            for r in 0..R {
                // SAFETY: there is such a group.
                let quad = unsafe { splat(&x[r].quads, g) };
                for v in 0..2 {
                    sums[r][v] = _mm256_add_epi16(sums[r][v], _mm256_maddubs_epi16(levels[v], quad));
                }
            }
        }
        for r in 0..R {
            for v in 0..2 {
                let wide = _mm256_madd_epi16(sums[r][v], _mm256_set1_epi16(1));
                dots[r][v] = _mm256_add_epi32(dots[r][v], wide);
            }
        }
    }
    dots
}

/// Spreads a block to 16 bits.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn spread_block(x: &XBlock) -> Spread {
    let mut spread = [[0; GROUPS]; 2];
    // SAFETY: both sides are 32 bytes, and no alignment is needed.
    unsafe {
        let quads = _mm256_loadu_si256(x.quads.as_ptr().cast());
        let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(quads));
        _mm256_storeu_si256(spread[0].as_mut_ptr().cast(), even);
        _mm256_storeu_si256(spread[1].as_mut_ptr().cast(), _mm256_srai_epi16::<8>(quads));
    }
    spread
}
