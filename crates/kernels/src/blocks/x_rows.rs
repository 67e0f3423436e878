//! The other factor: rows of x, rounded to 8 bits a block at a time.

use super::{BLOCK, BlockFormat};
use crate::bf16::{bf16, widen};
use crate::gemm::{Mat, Operand};
use crate::isa::vectorised;
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
    pub fn fill(&self, isa: crate::isa::Isa, x: &Operand, format: BlockFormat, blocks: &mut Vec<XBlock>) {
        let len = self.rows * self.blocks;
        if blocks.len() < len {
            blocks.resize(len, XBlock::default());
        }
        let all = Shared::new(blocks);
        let fill = |tile: usize| {
            let range = self.range(tile);
            // SAFETY: `blocks` is borrowed here, and each tile is written once.
            let blocks = unsafe { all.part(range.start, range.end) };
            let (first, rows) = (tile * self.height, self.rows_of(tile));
            match *x {
                Operand::F32(x) => round_floats(isa, blocks, x.part(first, rows), format.offset()),
                Operand::Bf16(x) => round_halves(isa, blocks, x.part(first, rows), format.offset()),
            }
        };
        if self.rows * self.blocks * BLOCK <= FEW {
            (0..self.len()).for_each(fill);
        } else {
            pool::for_each(self.len(), fill);
        }
    }
}

vectorised! {
    fn round_floats(blocks: &mut [XBlock], x: Mat, offset: i32) {
        round_rows(blocks, x, offset, |x| x);
    }
}

vectorised! {
    fn round_halves(blocks: &mut [XBlock], x: Mat<bf16>, offset: i32) {
        round_rows(blocks, x, offset, widen);
    }
}

#[inline(always)]
fn round_rows<T: Copy>(blocks: &mut [XBlock], x: Mat<T>, offset: i32, value: impl Fn(T) -> f32) {
    for r in 0..x.rows {
        let row = &x.data[r * x.row_stride..];
        for (i, block) in blocks.iter_mut().skip(r).step_by(x.rows).enumerate() {
            let there = BLOCK.min(x.cols - i * BLOCK);
            let mut values = [0.0; BLOCK];
            if x.col_stride == 1 {
                let row = &row[i * BLOCK..][..there];
                values.iter_mut().zip(row).for_each(|(out, &x)| *out = value(x));
            } else {
                for (j, out) in values[..there].iter_mut().enumerate() {
                    *out = value(row[(i * BLOCK + j) * x.col_stride]);
                }
            }
            *block = round(&values, offset);
        }
    }
}

/// Blocks with no larger value count as zeros: 127 divided by less would be infinite.
const LEAST: f32 = 1e-36;

/// One block.
#[inline(always)]
pub fn round(values: &[f32; BLOCK], offset: i32) -> XBlock {
    // Sizes compare as whole numbers do, and those of infinity and NaN are the largest.
    let size = values.iter().fold(0, |most, x| (x.to_bits() & 0x7fff_ffff).max(most));
    let most = f32::from_bits(size);
    if !most.is_finite() {
        return XBlock { scale: f32::NAN, start: 0, quads: [0; BLOCK / 4] };
    }
    let (scale, inverse) = if most < LEAST { (0.0, 0.0) } else { (most / 127.0, 127.0 / most) };
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds, and leaves the number in the last bits
    let mut bytes = [0i8; BLOCK];
    let mut sum = 0;
    for (byte, x) in bytes.iter_mut().zip(values) {
        *byte = (x * inverse + ROUND).to_bits() as i8;
    }
    bytes.iter().for_each(|&byte| sum += i32::from(byte));
    let (quads, _) = bytes.as_chunks::<4>();
    let quad = |i: usize| i32::from_le_bytes(quads[i].map(|byte| byte as u8));
    XBlock { scale, start: -offset * sum, quads: std::array::from_fn(quad) }
}
