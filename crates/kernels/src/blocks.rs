//! Weight matrices in blocks of few bits: 8, 6 or 4 a weight, and a scale for each block.
//!
//! A weight matrix w is (K, N), and a product is `x w`. A **block** is 32 weights, one after the other along K, of one
//! column: 32 whole numbers and one scale. A weight is its number times its scale. In memory, numbers are unsigned:
//! what is stored is the number plus the format's offset.
//!
//! | format | numbers | offset | bytes of 32 blocks | bits a weight |
//! |---|---|---|---|---|
//! | Q8 | -127 to 127 | 128 | 1088 | 8.5 |
//! | Q6 | -32 to 31 | 32 | 832 | 6.5 |
//! | Q4 | -8 to 7 | 8 | 576 | 4.5 |
//!
//! # The layout, in memory and in files
//! K is padded to a multiple of 32 with zeros, N to a multiple of 32 with columns whose scales are zero. The matrix is
//! **panels** of 32 columns, in order. A panel is a row of chunks, one for each 32 of K, in order. A chunk has the blocks
//! of the panel's 32 columns:
//!
//! - bytes 0 to 63: the scales of the columns 0 to 31, each an IEEE 754 half in little-endian order. They are finite;
//!   they may be negative, but there is no negative zero.
//! - From byte 64 on, the numbers. Four weights that follow each other along K are a **group**: a chunk has 8 groups for
//!   each column, and number j of group g, of column c, belongs to row `4 g + j` of the chunk. A **plane** is 128 bytes, in
//!   which byte `4 c + j` holds bits of number j of column c of some groups:
//!   - Q8: 8 planes. Plane g is group g.
//!   - Q4: 4 planes. Plane i has group `2 i` in the low four bits and group `2 i + 1` in the high four.
//!   - Q6: 6 planes, three for each half h of the chunk. Plane `3 h` has the high two bits of the groups `4 h` to
//!     `4 h + 3`, the first in its lowest bits. Plane `3 h + 1` has the low four bits of the groups `4 h` and `4 h + 1`, as
//!     in Q4, and plane `3 h + 2` those of `4 h + 2` and `4 h + 3`.
//!
//! So a vector of 64 bytes holds, once unpacked, a group for 16 columns, 32 bits each, which is what the 8-bit dot products
//! of AVX-512 take; and a kernel reads memory in order. The kernels are fastest where the data starts at a multiple of 64 bytes.
//!
//! # What a product computes
//! A row of x is cut along K into blocks of 32, too, and rounded: with `m = max |x|` of the block, to the whole numbers
//! `q = x · (127 / m)`, ties to even, with the scale `m / 127`. (A block whose m is less than 1e-36 counts as zeros;
//! with an infinity or NaN in it, its scale is NaN, and so is the row's product.) The dot product of two blocks is exact,
//! in whole numbers; an element of the product is the chain `sum = dot · (w's scale · x's scale) + sum` over the blocks
//! in order, with fused multiply-adds where the instruction set has them. It has the same bits for any number of rows
//! and threads, and on all instruction sets from AVX2 on; only the portable level, which cannot fuse, differs in the
//! last places.
//!
//! Start at [`quantise`], which makes such a matrix, [`BlockMatrix`], which views one, and [`multiply`].

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod product;
mod quantise;
mod tiles;
#[cfg(target_arch = "x86_64")]
mod vnni;
mod x_rows;

pub use half::f16;
use thiserror::Error;

pub use product::{multiply, multiply_on};
pub use quantise::{assemble, quantise, quantise_block};

/// Weights in a block, along K.
pub const BLOCK: usize = 32;
/// Columns in a panel.
pub const PANEL: usize = 32;
/// Bytes of a chunk's scales.
const SCALES: usize = 2 * PANEL;
/// Weights in a chunk.
const CHUNK: usize = BLOCK * PANEL;
/// Bytes of a plane.
const PLANE: usize = 4 * PANEL;

/// How many bits a weight has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockFormat {
    /// 8 bits.
    Q8,
    /// 6 bits.
    Q6,
    /// 4 bits.
    Q4,
}

/// Bytes that are not a matrix in blocks.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum BlockError {
    /// Not as long as the shape asks for.
    #[error(
        "a {k} × {n} matrix in {} takes {} bytes, but there are {len}; the file is damaged, or its shape is another's",
        format.name(),
        format.bytes_for(*k, *n)
    )]
    Length {
        /// The format that was asked for.
        format: BlockFormat,
        /// Rows.
        k: usize,
        /// Columns.
        n: usize,
        /// Bytes that are there.
        len: usize,
    },
    /// Larger than memory can be.
    #[error("a {k} × {n} matrix is larger than any memory; the file is damaged")]
    TooLarge {
        /// Rows.
        k: usize,
        /// Columns.
        n: usize,
    },
    /// A scale that no weight can have.
    #[error(
        "the scale of block {block} of column {column} is {scale:?}; the file is damaged, or its weights were not finite"
    )]
    Scale {
        /// Which block along K.
        block: usize,
        /// Which column.
        column: usize,
        /// What is there.
        scale: f32,
    },
}

impl BlockFormat {
    /// All, the finest first.
    pub const ALL: [BlockFormat; 3] = [BlockFormat::Q8, BlockFormat::Q6, BlockFormat::Q4];

    /// The name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            BlockFormat::Q8 => "q8",
            BlockFormat::Q6 => "q6",
            BlockFormat::Q4 => "q4",
        }
    }

    /// The format of a name.
    pub fn from_name(name: &str) -> Option<BlockFormat> {
        BlockFormat::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Bits of a number; the scale is half a bit more.
    pub const fn bits(self) -> usize {
        match self {
            BlockFormat::Q8 => 8,
            BlockFormat::Q6 => 6,
            BlockFormat::Q4 => 4,
        }
    }

    /// The smallest and the largest number.
    pub const fn range(self) -> (i32, i32) {
        match self {
            BlockFormat::Q8 => (-127, 127),
            BlockFormat::Q6 => (-32, 31),
            BlockFormat::Q4 => (-8, 7),
        }
    }

    /// What is added to a number where it is stored.
    pub const fn offset(self) -> i32 {
        1 << (self.bits() - 1)
    }

    /// Bytes of a chunk: the blocks of a panel's columns for the same 32 of K.
    pub const fn block_bytes(self) -> usize {
        SCALES + CHUNK * self.bits() / 8
    }

    /// Bytes of a panel of a matrix with `k` rows.
    pub const fn panel_bytes(self, k: usize) -> usize {
        k.div_ceil(BLOCK) * self.block_bytes()
    }

    /// Bytes of a (k, n) matrix.
    pub const fn bytes_for(self, k: usize, n: usize) -> usize {
        n.div_ceil(PANEL) * self.panel_bytes(k)
    }

    /// [`BlockFormat::bytes_for`] where the shape comes from a file.
    fn checked_bytes_for(self, k: usize, n: usize) -> Option<usize> {
        let panel = k.div_ceil(BLOCK).checked_mul(self.block_bytes())?;
        n.div_ceil(PANEL).checked_mul(panel)
    }

    /// The stored form of the number nearest to a weight: what the scale should give the weight back with.
    pub fn level(self, weight: f32, scale: f16) -> u8 {
        let scale = scale.to_f32();
        quantise::level(self, weight, quantise::inverse(scale))
    }

    /// The weight that a stored number stands for.
    pub fn weight(self, level: u8, scale: f16) -> f32 {
        (i32::from(level) - self.offset()) as f32 * scale.to_f32()
    }

    /// Writes a block: that of column `column` of a panel, number `block` along K. `levels` are as stored.
    pub fn store(self, panel: &mut [u8], block: usize, column: usize, scale: f16, levels: &[u8; BLOCK]) {
        assert!(column < PANEL, "column {column} of a panel");
        let chunk = &mut panel[block * self.block_bytes()..][..self.block_bytes()];
        let (scales, data) = chunk.split_at_mut(SCALES);
        scales[2 * column..][..2].copy_from_slice(&scale.to_le_bytes());
        for (k, &level) in levels.iter().enumerate() {
            for Bits { byte, shift, bits, from } in self.places(column, k) {
                let mask = ((1u32 << bits) - 1) as u8;
                let byte = &mut data[byte];
                *byte = *byte & !(mask << shift) | (level >> from & mask) << shift;
            }
        }
    }

    /// Where the bits of a number lie in a chunk's data.
    fn places(self, column: usize, k: usize) -> impl Iterator<Item = Bits> {
        let (g, in_plane) = (k / 4, 4 * column + k % 4);
        let nibble =
            |plane: usize| Bits { byte: 128 * plane + in_plane, shift: 4 * (g % 2), bits: 4, from: 0 };
        let (half, i) = (g / 4, g % 4);
        let pair = Bits { byte: 128 * 3 * half + in_plane, shift: 2 * i, bits: 2, from: 4 };
        match self {
            BlockFormat::Q8 => [Some(Bits { byte: 128 * g + in_plane, shift: 0, bits: 8, from: 0 }), None],
            BlockFormat::Q6 => [Some(nibble(3 * half + 1 + i / 2)), Some(pair)],
            BlockFormat::Q4 => [Some(nibble(g / 2)), None],
        }
        .into_iter()
        .flatten()
    }
}

/// Some bits of a number: `bits` from bit `from` on lie in byte `byte`, from bit `shift` on.
struct Bits {
    byte: usize,
    shift: usize,
    bits: usize,
    from: usize,
}

/// Numbers of one chunk, a byte each, at the places of Q8.
type Levels = [u8; CHUNK];

/// Spreads a chunk's data to a byte for each number.
#[inline(always)]
fn unpack(format: BlockFormat, data: &[u8], levels: &mut Levels) {
    let (planes, _) = data.as_chunks::<PLANE>();
    let (groups, _) = levels.as_chunks_mut::<PLANE>();
    match format {
        BlockFormat::Q8 => groups.copy_from_slice(planes),
        BlockFormat::Q4 => {
            for (groups, plane) in groups.chunks_exact_mut(2).zip(planes) {
                for (i, group) in groups.iter_mut().enumerate() {
                    group.iter_mut().zip(plane).for_each(|(level, x)| *level = x >> (4 * i) & 15);
                }
            }
        }
        BlockFormat::Q6 => {
            for (groups, planes) in groups.chunks_exact_mut(4).zip(planes.chunks_exact(3)) {
                for (i, group) in groups.iter_mut().enumerate() {
                    for (level, (x, y)) in group.iter_mut().zip(planes[1 + i / 2].iter().zip(&planes[0])) {
                        *level = x >> (4 * (i % 2)) & 15 | (y >> (2 * i) & 3) << 4;
                    }
                }
            }
        }
    }
}

/// The reverse of [`unpack`].
#[inline(always)]
fn pack(format: BlockFormat, levels: &Levels, data: &mut [u8]) {
    let (planes, _) = data.as_chunks_mut::<PLANE>();
    let (groups, _) = levels.as_chunks::<PLANE>();
    match format {
        BlockFormat::Q8 => planes.copy_from_slice(groups),
        BlockFormat::Q4 => {
            for (plane, groups) in planes.iter_mut().zip(groups.chunks_exact(2)) {
                let (low, high) = (&groups[0], &groups[1]);
                plane.iter_mut().zip(low.iter().zip(high)).for_each(|(x, (low, high))| *x = low | high << 4);
            }
        }
        BlockFormat::Q6 => {
            for (planes, groups) in planes.chunks_exact_mut(3).zip(groups.chunks_exact(4)) {
                for at in 0..PLANE {
                    let [a, b, c, d] = [0, 1, 2, 3].map(|i| groups[i][at]);
                    planes[0][at] = a >> 4 | b >> 4 << 2 | c >> 4 << 4 | d >> 4 << 6;
                    planes[1][at] = a & 15 | b << 4;
                    planes[2][at] = c & 15 | d << 4;
                }
            }
        }
    }
}

/// The value of a half, in steps that the compiler vectorises; infinity and NaN come out as large numbers.
#[inline(always)]
fn widen(bits: u16) -> f32 {
    const UP: f32 = 5.192_297e33; // 2¹¹²: the exponents of a half count from 15, those of a float from 127
    let size = f32::from_bits(u32::from(bits & 0x7fff) << 13) * UP;
    f32::from_bits(size.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// A matrix in blocks: a view of its bytes, whose number has been checked.
#[derive(Clone, Copy, Debug)]
pub struct BlockMatrix<'a> {
    format: BlockFormat,
    k: usize,
    n: usize,
    data: &'a [u8],
}

impl<'a> BlockMatrix<'a> {
    /// A (k, n) matrix. Bytes from a file need a [`BlockMatrix::check`], too.
    pub fn new(
        format: BlockFormat,
        k: usize,
        n: usize,
        data: &'a [u8],
    ) -> Result<BlockMatrix<'a>, BlockError> {
        let bytes = format.checked_bytes_for(k, n).ok_or(BlockError::TooLarge { k, n })?;
        if data.len() != bytes {
            return Err(BlockError::Length { format, k, n, len: data.len() });
        }
        Ok(BlockMatrix { format, k, n, data })
    }

    /// Its format.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Number of rows, K.
    pub fn rows(&self) -> usize {
        self.k
    }

    /// Number of columns, N.
    pub fn cols(&self) -> usize {
        self.n
    }

    /// Its bytes.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Looks for scales that are not finite, or zero with a sign; any number is possible.
    pub fn check(&self) -> Result<(), BlockError> {
        let (chunks, bytes) = (self.k.div_ceil(BLOCK), self.format.block_bytes());
        for (i, chunk) in self.data.chunks_exact(bytes).enumerate() {
            let (scales, _) = chunk[..SCALES].as_chunks::<2>();
            for (c, &scale) in scales.iter().enumerate() {
                let scale = f16::from_le_bytes(scale);
                if !scale.is_finite() || scale.to_bits() == f16::NEG_ZERO.to_bits() {
                    let (block, column) = (i % chunks, i / chunks * PANEL + c);
                    return Err(BlockError::Scale { block, column, scale: scale.to_f32() });
                }
            }
        }
        Ok(())
    }

    /// Panel number `i`: 32 columns.
    fn panel(&self, i: usize) -> &'a [u8] {
        let bytes = self.format.panel_bytes(self.k);
        &self.data[i * bytes..][..bytes]
    }

    /// A block's chunk, and the block's column in it.
    fn chunk(&self, block: usize, column: usize) -> (&'a [u8], usize) {
        let bytes = self.format.block_bytes();
        (&self.panel(column / PANEL)[block * bytes..][..bytes], column % PANEL)
    }

    /// The scale of a block of a column.
    pub fn scale(&self, block: usize, column: usize) -> f16 {
        let (chunk, column) = self.chunk(block, column);
        f16::from_le_bytes([chunk[2 * column], chunk[2 * column + 1]])
    }

    /// The number of row `k` (which may be padding) and a column: without its scale and the format's offset.
    pub fn number(&self, k: usize, column: usize) -> i32 {
        let (chunk, column) = self.chunk(k / BLOCK, column);
        let data = &chunk[SCALES..];
        let part =
            |Bits { byte, shift, bits, from }| (i32::from(data[byte]) >> shift & ((1 << bits) - 1)) << from;
        self.format.places(column, k % BLOCK).map(part).sum::<i32>() - self.format.offset()
    }

    /// A block: its scale and its numbers.
    pub fn block(&self, block: usize, column: usize) -> (f16, [i8; BLOCK]) {
        let numbers = std::array::from_fn(|k| self.number(block * BLOCK + k, column) as i8);
        (self.scale(block, column), numbers)
    }

    /// The weights of one column, of which `out` has K.
    pub fn dequantise_column(&self, column: usize, out: &mut [f32]) {
        assert!(column < self.n && out.len() == self.k, "column {column} of {}, {} values", self.n, self.k);
        for (block, out) in out.chunks_mut(BLOCK).enumerate() {
            let scale = self.scale(block, column).to_f32();
            for (k, out) in out.iter_mut().enumerate() {
                *out = self.number(block * BLOCK + k, column) as f32 * scale;
            }
        }
    }

    /// All weights, row-major.
    pub fn dequantise(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.k * self.n];
        let mut column = vec![0.0; self.k];
        for j in 0..self.n {
            self.dequantise_column(j, &mut column);
            column.iter().enumerate().for_each(|(i, &w)| all[i * self.n + j] = w);
        }
        all
    }
}

#[cfg(test)]
mod tests;
