//! A tile with the 8-bit dot products of AVX-512: 32 columns in two vectors, a register for the dot products of each row.
//!
//! The numbers of the panel are unpacked in registers, and used for all rows before the next are read.

use std::arch::x86_64::*;

use super::tiles::{Ahead, Kernel, Task};
use super::x_rows::{self, Row, XBlock};
use super::{BLOCK, BlockFormat, PLANE, SCALES};
use crate::isa::Avx512Vnni;

/// Rows up to which the sums of a tile are kept in registers, beside the dot products.
const HELD: usize = 6;

impl Kernel for Avx512Vnni {
    fn round(self, row: Row, x: &[f32]) {
        // SAFETY: `self` exists, so `detect` has found these features on this CPU.
        unsafe { round(row, x) }
    }

    fn run(self, sums: &mut [f32], task: Task) {
        task.check::<Self>(sums);
        // SAFETY: `self` exists, so `detect` has found these features on this CPU; and the task is checked.
        unsafe {
            match task.format {
                BlockFormat::Q8 => of_format::<8>(sums, task),
                BlockFormat::Q6 => of_format::<6>(sums, task),
                BlockFormat::Q4 => of_format::<4>(sums, task),
            }
        }
    }
}

/// # Safety
/// The CPU has AVX-512 with VNNI, the task is checked, and its format has `BITS`.
unsafe fn of_format<const BITS: usize>(sums: &mut [f32], task: Task) {
    macro_rules! rows {
        ($($rows:literal)*) => {
            match task.rows {
                // SAFETY: the caller's promise.
                $($rows => unsafe { tile::<$rows, BITS>(sums, task) },)*
                rows => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    rows!(1 2 3 4 5 6 7 8 9 10 11 12)
}

/// # Safety
/// The task is checked, has `R` rows, and its format has `BITS`.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn tile<const R: usize, const BITS: usize>(sums: &mut [f32], task: Task) {
    let Task { panel, x, stride, .. } = task;
    let bytes = const { SCALES + PLANE * BITS };
    // SAFETY: row r of the sums has 32 values, which are ours.
    let load =
        |sums: &[f32], r: usize, v: usize| unsafe { _mm512_loadu_ps(sums.as_ptr().add(r * stride + 16 * v)) };
    // SAFETY: as above.
    let store = |sums: &mut [f32], r: usize, v: usize, x: __m512| unsafe {
        _mm512_storeu_ps(sums.as_mut_ptr().add(r * stride + 16 * v), x)
    };
    let mut held = [[_mm512_setzero_ps(); 2]; R];
    if R <= HELD {
        held = std::array::from_fn(|r| [load(sums, r, 0), load(sums, r, 1)]);
    }
    for (chunk, x) in panel.chunks_exact(bytes).zip(x.as_chunks::<R>().0) {
        let mut dots = [[_mm512_setzero_si512(); 2]; R];
        for r in 0..R {
            dots[r] = [_mm512_set1_epi32(x[r].start); 2];
        }
        // SAFETY: a chunk has its scales and 1024 numbers of `BITS`.
        let scales = unsafe {
            fetch(chunk.as_ptr(), task.ahead);
            dots_of_chunk::<R, BITS>(&mut dots, chunk.as_ptr().add(SCALES), x, task.ahead);
            [0, 1].map(|v| _mm512_cvtph_ps(_mm256_loadu_si256(chunk.as_ptr().add(32 * v).cast())))
        };
        for r in 0..R {
            for v in 0..2 {
                let scale = _mm512_mul_ps(scales[v], _mm512_set1_ps(x[r].scale));
                let dot = _mm512_cvtepi32_ps(dots[r][v]);
                if R <= HELD {
                    held[r][v] = _mm512_fmadd_ps(dot, scale, held[r][v]);
                } else {
                    store(sums, r, v, _mm512_fmadd_ps(dot, scale, load(sums, r, v)));
                }
            }
        }
    }
    if R <= HELD {
        for (r, held) in held.into_iter().enumerate() {
            store(sums, r, 0, held[0]);
            store(sums, r, 1, held[1]);
        }
    }
}

/// Adds the products of all groups, and fetches what `ahead` says for each vector.
///
/// # Safety
/// `data` has 1024 numbers of `BITS`.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[inline]
unsafe fn dots_of_chunk<const R: usize, const BITS: usize>(
    dots: &mut [[__m512i; 2]; R],
    data: *const u8,
    x: &[XBlock; R],
    ahead: Ahead,
) {
    let plane = |i: usize| {
        [0, 1].map(|v| {
            let at = data.wrapping_add(PLANE * i + 64 * v);
            fetch(at, ahead);
            // SAFETY: a chunk has `BITS` planes of two vectors.
            unsafe { _mm512_loadu_si512(at.cast()) }
        })
    };
    match BITS {
        8 => (0..8).for_each(|g| add_group(dots, plane(g), x, g)),
        4 => {
            for i in 0..4 {
                let [low, high] = nibbles(plane(i));
                add_group(dots, low, x, 2 * i);
                add_group(dots, high, x, 2 * i + 1);
            }
        }
        _ => {
            for half in 0..2 {
                let pairs = plane(3 * half);
                for i in 0..2 {
                    let [low, high] = nibbles(plane(3 * half + 1 + i));
                    let [a, b] = pairs_of(pairs, i == 1);
                    add_group(dots, with_pairs(low, a), x, 4 * half + 2 * i);
                    add_group(dots, with_pairs(high, b), x, 4 * half + 2 * i + 1);
                }
            }
        }
    }
}

/// Brings the line that `ahead` names for an address into the second-level cache: the first has no room for what is needed
/// that late.
#[target_feature(enable = "avx512f")]
#[inline]
pub fn fetch(at: *const u8, ahead: Ahead) {
    _mm_prefetch::<_MM_HINT_T1>(ahead.of(at).cast());
}

/// The low four bits of each byte, and the high four.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub fn nibbles(both: [__m512i; 2]) -> [[__m512i; 2]; 2] {
    let mask = _mm512_set1_epi8(15);
    let low = both.map(|x| _mm512_and_si512(x, mask));
    [low, both.map(|x| _mm512_and_si512(_mm512_srli_epi16::<4>(x), mask))]
}

/// The high bits of two groups of a half, the first two or the last, where bits 4 and 5 are.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub fn pairs_of(pairs: [__m512i; 2], last: bool) -> [[__m512i; 2]; 2] {
    if last {
        [pairs, pairs.map(|x| _mm512_srli_epi16::<2>(x))]
    } else {
        [pairs.map(|x| _mm512_slli_epi16::<4>(x)), pairs.map(|x| _mm512_slli_epi16::<2>(x))]
    }
}

/// Four bits of each byte, and bits 4 and 5 from elsewhere.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub fn with_pairs(low: [__m512i; 2], pairs: [__m512i; 2]) -> [__m512i; 2] {
    const A_AND_B_OR_C: i32 = 0xea;
    let mask = _mm512_set1_epi8(0x30);
    [0, 1].map(|v| _mm512_ternarylogic_epi32::<A_AND_B_OR_C>(pairs[v], mask, low[v]))
}

/// Adds the products of one group for all rows and columns.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[inline]
fn add_group<const R: usize>(dots: &mut [[__m512i; 2]; R], levels: [__m512i; 2], x: &[XBlock; R], g: usize) {
    for r in 0..R {
        let quad = _mm512_set1_epi32(x[r].quads[g]);
        dots[r] = [0, 1].map(|v| _mm512_dpbusd_epi32(dots[r][v], levels[v], quad));
    }
}

/// Rounds a row of x: what [`x_rows::round`] does.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn round(row: Row, x: &[f32]) {
    for (x, block) in x.chunks(BLOCK).zip(row.blocks.iter_mut().step_by(row.step)) {
        let there = u32::MAX >> (BLOCK - x.len());
        // SAFETY: the mask has a bit for each value that is there.
        let values = [0, 1].map(|v| unsafe {
            _mm512_maskz_loadu_ps((there >> (16 * v)) as u16, x.as_ptr().wrapping_add(16 * v))
        });
        let [a, b] = values.map(|x| _mm512_castps_si512(_mm512_abs_ps(x)));
        let (scale, inverse) = x_rows::scale(_mm512_reduce_max_epu32(_mm512_max_epu32(a, b)));
        if scale.is_nan() {
            *block = XBlock { scale, ..XBlock::default() };
            continue;
        }
        let numbers = values.map(|x| _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(inverse))));
        let sum = _mm512_reduce_add_epi32(_mm512_add_epi32(numbers[0], numbers[1]));
        // SAFETY: both types are 32 bytes of anything.
        let quads = unsafe {
            std::mem::transmute::<[__m128i; 2], [i32; BLOCK / 4]>(numbers.map(|x| _mm512_cvtepi32_epi8(x)))
        };
        *block = XBlock { scale, start: -row.offset * sum, quads };
    }
}
