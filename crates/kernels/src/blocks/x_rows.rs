//! The other factor: rows of x, rounded to 8 bits a block at a time.

use super::tiles::Kernel;
use super::{BLOCK, BlockFormat};
use crate::bf16::widen;
use crate::gemm::{Mat, Operand};
use crate::isa::{Isa, vectorised};
use crate::pool::{self, Shared};

/// A block of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct XBlock {
    /// What a number is multiplied by.
    pub scale: f32,
    /// Where dot products start: minus the sum of the numbers times the format's offset.
    pub start: i32,
    /// The 32 numbers, -127 to 127, four in each: the first is in the lowest byte.
    pub quads: [i32; BLOCK / 4],
}

/// Rows are kept in tiles of some rows, so that what a kernel reads lies in order: tile after tile, the blocks of a tile
/// in the order of K, and of each the rows.
#[derive(Clone, Copy, Debug)]
pub struct Tiles {
    /// Number of rows.
    pub rows: usize,
    /// Rows of each tile; the last may have fewer.
    pub height: usize,
    /// Blocks of a row.
    pub blocks: usize,
}

/// Values below which they are rounded by the calling thread: it takes no longer than waking another.
const FEW: usize = 1 << 14;

impl Tiles {
    /// Tiles of at most `most` rows, all of about the same height.
    pub fn new(rows: usize, k: usize, most: usize) -> Tiles {
        let tiles = rows.div_ceil(most);
        Tiles { rows, height: rows.div_ceil(tiles), blocks: k.div_ceil(BLOCK) }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.rows.div_ceil(self.height)
    }

    /// Rows of a tile.
    pub fn rows_of(&self, tile: usize) -> usize {
        self.height.min(self.rows - tile * self.height)
    }

    /// Where a tile's blocks lie.
    pub fn range(&self, tile: usize) -> std::ops::Range<usize> {
        let start = tile * self.height * self.blocks;
        start..start + self.rows_of(tile) * self.blocks
    }

    /// Rounds all rows of x into `blocks`, which becomes as long as needed.
    pub fn fill<K: Kernel>(&self, kernel: K, x: &Operand, format: BlockFormat, blocks: &mut Vec<XBlock>) {
        let len = self.rows * self.blocks;
        if blocks.len() < len {
            blocks.resize(len, XBlock::default());
        }
        if len == 0 {
            return;
        }
        let all = Shared::new(blocks);
        let fill = |tile: usize| {
            let range = self.range(tile);
            // SAFETY: `blocks` is borrowed here, and each tile is written once.
            let blocks = unsafe { all.part(range.start, range.end) };
            let (first, rows) = (tile * self.height, self.rows_of(tile));
            for r in 0..rows {
                let row = Row { blocks: &mut blocks[r..], step: rows, offset: format.offset() };
                match *x {
                    Operand::F32(x) if x.col_stride == 1 => {
                        kernel.round(row, &x.data[(first + r) * x.row_stride..][..x.cols]);
                    }
                    Operand::F32(x) => gather(kernel, row, x.part(first + r, 1), |x| x),
                    Operand::Bf16(x) => gather(kernel, row, x.part(first + r, 1), widen),
                    Operand::F16(x) => gather(kernel, row, x.part(first + r, 1), |x| x.to_f32()),
                }
            }
        };
        if self.rows * self.blocks * BLOCK <= FEW {
            (0..self.len()).for_each(fill);
        } else {
            pool::for_each(self.len(), fill);
        }
    }
}

/// Where a rounded row goes: block i to `blocks[i * step]`.
pub struct Row<'a> {
    /// From the row's first block on.
    pub blocks: &'a mut [XBlock],
    /// Rows of the tile.
    pub step: usize,
    /// The format's.
    pub offset: i32,
}

/// Rounds a row that is not `f32` side by side, some blocks at a time.
fn gather<K: Kernel, T: Copy>(kernel: K, row: Row, x: Mat<T>, value: impl Fn(T) -> f32) {
    const AT_ONCE: usize = 16 * BLOCK;
    let mut values = [0.0; AT_ONCE];
    for first in (0..x.cols).step_by(AT_ONCE) {
        let values = &mut values[..AT_ONCE.min(x.cols - first)];
        if x.col_stride == 1 {
            values.iter_mut().zip(&x.data[first..]).for_each(|(out, &x)| *out = value(x));
        } else {
            let data = x.data[first * x.col_stride..].iter().step_by(x.col_stride);
            values.iter_mut().zip(data).for_each(|(out, &x)| *out = value(x));
        }
        let blocks = &mut row.blocks[first / BLOCK * row.step..];
        kernel.round(Row { blocks, ..row }, values);
    }
}

vectorised! {
    fn round_plain(row: Row, x: &[f32]) {
        let (whole, rest) = x.as_chunks::<BLOCK>();
        let mut blocks = row.blocks.iter_mut().step_by(row.step);
        for (x, block) in whole.iter().zip(&mut blocks) {
            *block = round_block(x, row.offset);
        }
        if let (false, Some(block)) = (rest.is_empty(), blocks.next()) {
            let mut last = [0.0; BLOCK];
            last[..rest.len()].copy_from_slice(rest);
            *block = round_block(&last, row.offset);
        }
    }
}

/// Rounds a row, in plain Rust. With vectors of 512 bits the compiler does worse than with those of 256.
pub fn round(isa: Isa, row: Row, x: &[f32]) {
    round_plain(isa.min(Isa::Avx2), row, x);
}

/// The scale of a block whose largest size has these bits, and what its values are multiplied by. Sizes compare as whole
/// numbers do, and those of infinity and NaN are the largest.
#[inline(always)]
pub fn scale(size: u32) -> (f32, f32) {
    /// Blocks with no larger value count as zeros: 127 divided by less would be infinite.
    const LEAST: f32 = 1e-36;
    let most = f32::from_bits(size);
    if !most.is_finite() {
        (f32::NAN, 0.0)
    } else if most < LEAST {
        (0.0, 0.0)
    } else {
        (most / 127.0, 127.0 / most)
    }
}

#[inline(always)]
fn round_block(values: &[f32; BLOCK], offset: i32) -> XBlock {
    let size = values.iter().fold(0, |most, x| (x.to_bits() & 0x7fff_ffff).max(most));
    let (scale, inverse) = scale(size);
    if scale.is_nan() {
        return XBlock { scale, ..XBlock::default() };
    }
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds, and leaves the number in the last bits
    let mut bytes = [0i8; BLOCK];
    for (byte, x) in bytes.iter_mut().zip(values) {
        *byte = (x * inverse + ROUND).to_bits() as i8;
    }
    let mut sum = 0;
    bytes.iter().for_each(|&byte| sum += i32::from(byte));
    let (quads, _) = bytes.as_chunks::<4>();
    let quad = |i: usize| i32::from_le_bytes(quads[i].map(|byte| byte as u8));
    XBlock { scale, start: -offset * sum, quads: std::array::from_fn(quad) }
}
