//! The innermost loops of a product: some rows of x by a panel.
//!
//! Every version adds to `sums`, rows of [`PANEL`] values, the same chain for each element; they differ in how they come by
//! the dot products, which are exact. The version in plain Rust is here; `avx2.rs`, `vnni.rs` and `amx.rs` have the others.

use super::x_rows::{self, Row, XBlock};
use super::{BLOCK, BlockFormat, CHUNK, Levels, PANEL, PLANE, SCALES, unpack, widen};
use crate::isa::Isa;

/// The most rows of a tile of any kernel.
pub const MOST_ROWS: usize = 32;

/// What a tile is made of.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The panel's format.
    pub format: BlockFormat,
    /// The panel.
    pub panel: &'a [u8],
    /// Rows of x, at most the kernel's [`Kernel::ROWS`].
    pub rows: usize,
    /// Their blocks: as many times `rows` as the panel has chunks.
    pub x: &'a [XBlock],
    /// Distance of the rows of sums.
    pub stride: usize,
    /// What should be fetched into the cache meanwhile.
    pub ahead: Ahead,
}

/// Where what will be wanted lies, as seen from what is being read.
#[derive(Clone, Copy)]
pub struct Ahead {
    /// How many bytes further on; zero if there is nothing to fetch.
    pub behind: usize,
    /// Whether it is fetched from eight pages in turn, since memory gives more to those who read several at once.
    pub pages: bool,
}

impl Ahead {
    /// Bytes of eight pages.
    pub const PAGES: usize = 8 << 12;

    /// The line to fetch when the one at an address is read. From eight pages, runs of 256 bytes in turn: the page's number comes from
    /// the lowest bits of the run's.
    #[inline(always)]
    pub fn of(self, at: *const u8) -> *const u8 {
        if !self.pages {
            return at.wrapping_add(self.behind);
        }
        let within = at.addr() % Ahead::PAGES;
        let run = within / 256;
        at.wrapping_sub(within).wrapping_add(self.behind + run % 8 * 4096 + run / 8 * 256 + within % 256)
    }
}

impl Task<'_> {
    /// The conditions that the kernels rely on.
    pub fn check<K: Kernel>(&self, sums: &[f32]) {
        let chunks = self.panel.len() / self.format.block_bytes();
        assert!(self.panel.len().is_multiple_of(self.format.block_bytes()), "whole chunks");
        assert!((1..=K::ROWS).contains(&self.rows) && self.x.len() == self.rows * chunks, "rows of x");
        assert!((self.rows - 1) * self.stride + PANEL <= sums.len(), "room for the sums");
    }
}

/// A way to compute a tile.
pub trait Kernel: Copy + Sync {
    /// The most rows of a tile.
    const ROWS: usize = 12;

    /// Whether memory gives more if a single tile asks for several pages at once.
    const PAGES: bool = false;

    /// Rounds a row of x.
    fn round(self, row: Row, x: &[f32]);

    /// Runs code that computes several tiles, which may go faster together.
    fn held<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }

    /// Adds the products to `sums`.
    fn run(self, sums: &mut [f32], task: Task);
}

/// Plain Rust. Dot products are computed with floats, which hold them exactly: none of their sums is larger than
/// 32 · 255 · 127, and that is less than 2²⁴.
#[derive(Clone, Copy)]
pub struct Plain;

impl Kernel for Plain {
    fn round(self, row: Row, x: &[f32]) {
        x_rows::round(Isa::Portable, row, x);
    }

    fn run(self, sums: &mut [f32], task: Task) {
        task.check::<Self>(sums);
        let Task { format, panel, rows, x, stride, .. } = task;
        let (mut levels, mut floats) = ([0; CHUNK], [[0.0; PANEL]; BLOCK]);
        for (chunk, x) in panel.chunks_exact(format.block_bytes()).zip(x.chunks_exact(rows)) {
            let (scales, data) = split(chunk);
            unpack(format, data, &mut levels);
            to_floats(&levels, &mut floats);
            for (x, sums) in x.iter().zip(sums.chunks_mut(stride)) {
                add(&mut sums[..PANEL], &dots(&floats, x), &scales, x.scale);
            }
        }
    }
}

/// Numbers as floats, row after row.
fn to_floats(levels: &Levels, floats: &mut [[f32; PANEL]; BLOCK]) {
    for (rows, group) in floats.chunks_exact_mut(4).zip(levels.as_chunks::<PLANE>().0) {
        for (j, row) in rows.iter_mut().enumerate() {
            for (out, &levels) in row.iter_mut().zip(group.as_chunks::<4>().0) {
                *out = (u32::from_le_bytes(levels) >> (8 * j) & 255) as i32 as f32;
            }
        }
    }
}

/// The dot products of a row's block with those of 32 columns.
fn dots(floats: &[[f32; PANEL]; BLOCK], x: &XBlock) -> [f32; PANEL] {
    let mut dots = [x.start as f32; PANEL];
    for (rows, quad) in floats.chunks_exact(4).zip(x.quads) {
        for (row, x) in rows.iter().zip(quad.to_le_bytes()) {
            let x = f32::from(x as i8);
            dots.iter_mut().zip(row).for_each(|(dot, w)| *dot += w * x);
        }
    }
    dots
}

/// A chunk's scales, and its numbers.
#[inline(always)]
pub fn split(chunk: &[u8]) -> ([f32; PANEL], &[u8]) {
    let (halves, data) = chunk.split_at(SCALES);
    let mut scales = [0.0; PANEL];
    for (scale, &half) in scales.iter_mut().zip(halves.as_chunks::<2>().0) {
        *scale = widen(u16::from_le_bytes(half));
    }
    (scales, data)
}

/// The next link of the chains of 32 columns.
#[inline(always)]
fn add(sums: &mut [f32], dots: &[f32; PANEL], scales: &[f32; PANEL], x_scale: f32) {
    for (sum, (dot, scale)) in sums.iter_mut().zip(dots.iter().zip(scales)) {
        *sum += dot * (scale * x_scale);
    }
}

/// Evaluates an expression with the kernel of an instruction set.
macro_rules! with_kernel {
    ($isa:expr, |$kernel:ident| $body:expr) => {{
        #[cfg(target_arch = "x86_64")]
        match ($crate::isa::Amx::detect(), $crate::isa::Avx512Vnni::detect(), $crate::isa::Avx2::detect()) {
            (Some($kernel), ..) if $isa >= $crate::isa::Isa::Amx => $body,
            (_, Some($kernel), _) if $isa >= $crate::isa::Isa::Avx512Vnni => $body,
            (.., Some($kernel)) if $isa >= $crate::isa::Isa::Avx2 => $body,
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
