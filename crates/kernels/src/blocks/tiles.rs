//! The innermost loops of a product: some rows of x by a panel.
//!
//! Every version adds to `sums`, rows of [`PANEL`] values, the same chain for each element. The one in plain Rust is here,
//! and that for AVX2, which differs in its dot product; `vnni.rs` has that of AVX-512.

use super::x_rows::{self, Row, XBlock};
use super::{BLOCK, BlockFormat, Levels, PANEL, PLANE, SCALES, unpack, widen};
#[cfg(target_arch = "x86_64")]
use crate::isa::Avx2;
use crate::isa::{Isa, fma};

/// The most rows of a tile.
pub const MOST_ROWS: usize = 12;

/// What a tile is made of.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The panel's format.
    pub format: BlockFormat,
    /// The panel.
    pub panel: &'a [u8],
    /// Rows of x, at most [`MOST_ROWS`].
    pub rows: usize,
    /// Their blocks: as many times `rows` as the panel has chunks.
    pub x: &'a [XBlock],
    /// Distance of the rows of sums.
    pub stride: usize,
    /// How far behind what is read lies what should be fetched into the cache meanwhile.
    pub ahead: usize,
}

impl Task<'_> {
    /// The conditions that the kernels rely on.
    pub fn check(&self, sums: &[f32]) {
        let chunks = self.panel.len() / self.format.block_bytes();
        assert!(self.panel.len().is_multiple_of(self.format.block_bytes()), "whole chunks");
        assert!((1..=MOST_ROWS).contains(&self.rows) && self.x.len() == self.rows * chunks, "rows of x");
        assert!((self.rows - 1) * self.stride + PANEL <= sums.len(), "room for the sums");
    }
}

/// A way to compute a tile.
pub trait Kernel: Copy + Sync {
    /// Rounds a row of x.
    fn round(self, row: Row, x: &[f32]);

    /// Adds the products to `sums`.
    fn run(self, sums: &mut [f32], task: Task);
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct Plain;

impl Kernel for Plain {
    fn round(self, row: Row, x: &[f32]) {
        x_rows::round(Isa::Portable, row, x);
    }

    fn run(self, sums: &mut [f32], task: Task) {
        task.check(sums);
        each_chunk::<false>(sums, task, plain_dots);
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel for Avx2 {
    fn round(self, row: Row, x: &[f32]) {
        x_rows::round(Isa::Avx2, row, x);
    }

    fn run(self, sums: &mut [f32], task: Task) {
        #[target_feature(enable = "avx2,fma")]
        fn run(sums: &mut [f32], task: Task) {
            each_chunk::<true>(sums, task, |levels, x| avx2_dots(levels, x));
        }
        task.check(sums);
        // SAFETY: `self` exists, so `detect` has found AVX2 and FMA on this CPU.
        unsafe { run(sums, task) }
    }
}

/// Chunk after chunk: spreads its numbers, then does row after row.
#[inline(always)]
fn each_chunk<const FMA: bool>(
    sums: &mut [f32],
    task: Task,
    dots: impl Fn(&Levels, &XBlock) -> [i32; PANEL],
) {
    let Task { format, panel, rows, x, stride, .. } = task;
    let mut buffer = [0; BLOCK * PANEL];
    for (chunk, x) in panel.chunks_exact(format.block_bytes()).zip(x.chunks_exact(rows)) {
        let (halves, data) = chunk.split_at(SCALES);
        let mut scales = [0.0; PANEL];
        for (scale, &half) in scales.iter_mut().zip(halves.as_chunks::<2>().0) {
            *scale = widen(u16::from_le_bytes(half));
        }
        unpack(format, data, &mut buffer);
        for (x, sums) in x.iter().zip(sums.chunks_mut(stride)) {
            let dots = dots(&buffer, x);
            for (sum, (dot, scale)) in sums[..PANEL].iter_mut().zip(dots.iter().zip(&scales)) {
                *sum = fma::<FMA>(*dot as f32, scale * x.scale, *sum);
            }
        }
    }
}

/// The dot products of a row's block with those of 32 columns.
#[inline(always)]
fn plain_dots(levels: &Levels, x: &XBlock) -> [i32; PANEL] {
    let mut dots = [x.start; PANEL];
    for (group, quad) in levels.chunks_exact(PLANE).zip(x.quads) {
        let [x0, x1, x2, x3] = quad.to_le_bytes().map(|byte| i32::from(byte as i8));
        for (dot, &levels) in dots.iter_mut().zip(group.as_chunks::<4>().0) {
            let all = u32::from_le_bytes(levels);
            let level = |j: u32| (all >> (8 * j) & 255) as i32;
            *dot += level(0) * x0 + level(1) * x1 + level(2) * x2 + level(3) * x3;
        }
    }
    dots
}

/// [`plain_dots`] by products of 16-bit pairs: numbers 0 and 2 of a group, then 1 and 3. The instruction that takes
/// bytes would not do: it keeps sums of two products in 16 bits, and 2 · 255 · 127 is too large for that.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline]
fn avx2_dots(levels: &Levels, x: &XBlock) -> [i32; PANEL] {
    use std::arch::x86_64::*;
    let mut dots = [_mm256_set1_epi32(x.start); PANEL / 8];
    let low = _mm256_set1_epi16(255);
    for (group, quad) in levels.as_chunks::<PLANE>().0.iter().zip(x.quads) {
        let quad = _mm256_set1_epi32(quad);
        let (x02, x13) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(quad)), _mm256_srai_epi16::<8>(quad));
        for (dots, levels) in dots.iter_mut().zip(group.as_chunks::<32>().0) {
            // SAFETY: 32 bytes, and no alignment is needed.
            let levels = unsafe { _mm256_loadu_si256(levels.as_ptr().cast()) };
            let even = _mm256_madd_epi16(_mm256_and_si256(levels, low), x02);
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(levels), x13);
            *dots = _mm256_add_epi32(*dots, _mm256_add_epi32(even, odd));
        }
    }
    // SAFETY: both types are 128 bytes of anything.
    unsafe { std::mem::transmute::<[__m256i; PANEL / 8], [i32; PANEL]>(dots) }
}

/// Evaluates an expression with the kernel of an instruction set.
macro_rules! with_kernel {
    ($isa:expr, |$kernel:ident| $body:expr) => {{
        #[cfg(target_arch = "x86_64")]
        match ($crate::isa::Avx512Vnni::detect(), $crate::isa::Avx2::detect()) {
            (Some($kernel), _) if $isa >= $crate::isa::Isa::Avx512Vnni => $body,
            (_, Some($kernel)) if $isa >= $crate::isa::Isa::Avx2 => $body,
            _ => {
                let $kernel = $crate::blocks::tiles::Plain;
                $body
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let $kernel = $crate::blocks::tiles::Plain;
            $body
        }
    }};
}
pub(super) use with_kernel;
