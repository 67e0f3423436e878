//! A tile with AVX2: 32 columns in four vectors, two rows at a time.
//!
//! There are two ways to multiply bytes. One instruction takes them as they are, and keeps the sum of two products in
//! 16 bits. Products of Q4 are at most 15 · 127, so that sixteen of them fit; of those of Q6, at most 63 · 127, four do.
//! Those of Q8 do not even fit by two; its numbers are spread to 16 bits first.

use std::arch::x86_64::*;

use super::tiles::{Kernel, Task, add, split};
use super::x_rows::{self, Row, XBlock};
use super::{BlockFormat, CHUNK, Levels, PANEL, PLANE, unpack};
use crate::isa::{Avx2, Isa};

/// Vectors of a row: 8 columns each.
const VECTORS: usize = PANEL / 8;

impl Kernel for Avx2 {
    fn round(self, row: Row, x: &[f32]) {
        x_rows::round(Isa::Avx2, row, x);
    }

    fn run(self, sums: &mut [f32], task: Task) {
        task.check(sums);
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

#[target_feature(enable = "avx2,fma")]
fn tile<const BITS: usize>(sums: &mut [f32], task: Task) {
    let Task { format, panel, rows, x, stride, .. } = task;
    let mut unpacked = [0; CHUNK];
    for (chunk, x) in panel.chunks_exact(format.block_bytes()).zip(x.chunks_exact(rows)) {
        let (scales, data) = split(chunk);
        let levels = match data.try_into() {
            Ok(levels) if BITS == 8 => levels,
            _ => {
                unpack(format, data, &mut unpacked);
                &unpacked
            }
        };
        for (x, sums) in x.chunks(2).zip(sums.chunks_mut(2 * stride)) {
            match x {
                [a, b] => {
                    let [dots_a, dots_b] = dots::<2, BITS>(levels, [a, b]);
                    let (sums_a, sums_b) = sums.split_at_mut(stride);
                    add::<true>(&mut sums_a[..PANEL], &dots_a, &scales, a.scale);
                    add::<true>(&mut sums_b[..PANEL], &dots_b, &scales, b.scale);
                }
                x => {
                    let [dots] = dots::<1, BITS>(levels, [&x[0]]);
                    add::<true>(&mut sums[..PANEL], &dots, &scales, x[0].scale);
                }
            }
        }
    }
}

/// The dot products of some rows' blocks with those of 32 columns.
///
/// The loops count to constants: the compiler keeps the sums in registers only where it unrolls all of them.
#[target_feature(enable = "avx2,fma")]
#[inline]
#[allow(clippy::needless_range_loop)]
fn dots<const R: usize, const BITS: usize>(levels: &Levels, x: [&XBlock; R]) -> [[f32; PANEL]; R] {
    // Products whose sum fits 16 bits, in groups.
    let at_once = match BITS {
        6 => 2,
        _ => 8,
    };
    let mut dots = [[_mm256_setzero_si256(); VECTORS]; R];
    for r in 0..R {
        dots[r] = [_mm256_set1_epi32(x[r].start); VECTORS];
    }
    for (first, groups) in levels.as_chunks::<PLANE>().0.chunks_exact(at_once).enumerate() {
        let mut sums = [[_mm256_setzero_si256(); VECTORS]; R];
        for (g, group) in groups.iter().enumerate() {
            let mut quads = [_mm256_setzero_si256(); R];
            for r in 0..R {
                quads[r] = _mm256_set1_epi32(x[r].quads[first * at_once + g]);
            }
            for v in 0..VECTORS {
                // SAFETY: the group has four vectors of 32 bytes, and no alignment is needed.
                let levels = unsafe { _mm256_loadu_si256(group.as_ptr().cast::<__m256i>().add(v)) };
                for r in 0..R {
                    sums[r][v] = if BITS == 8 {
                        _mm256_add_epi32(sums[r][v], wide_products(levels, quads[r]))
                    } else {
                        _mm256_add_epi16(sums[r][v], _mm256_maddubs_epi16(levels, quads[r]))
                    };
                }
            }
        }
        for r in 0..R {
            for v in 0..VECTORS {
                let ones = _mm256_set1_epi16(1);
                let wide = if BITS == 8 { sums[r][v] } else { _mm256_madd_epi16(sums[r][v], ones) };
                dots[r][v] = _mm256_add_epi32(dots[r][v], wide);
            }
        }
    }
    let mut floats = [[0.0; PANEL]; R];
    for r in 0..R {
        for v in 0..VECTORS {
            // SAFETY: a row has four vectors of 8 floats, and no alignment is needed.
            unsafe { _mm256_storeu_ps(floats[r].as_mut_ptr().add(8 * v), _mm256_cvtepi32_ps(dots[r][v])) };
        }
    }
    floats
}

/// The sum of the four products of each group: of its numbers 0 and 2, and of 1 and 3, as numbers of 16 bits.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn wide_products(levels: __m256i, quad: __m256i) -> __m256i {
    let even = _mm256_and_si256(levels, _mm256_set1_epi16(255));
    let odd = _mm256_srli_epi16::<8>(levels);
    let x_even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(quad));
    let x_odd = _mm256_srai_epi16::<8>(quad);
    _mm256_add_epi32(_mm256_madd_epi16(even, x_even), _mm256_madd_epi16(odd, x_odd))
}
