//! From weights to blocks: for each block, the scale is searched for that gives the weights back best.
//!
//! The error of a block is the sum of the squares of what rounding changes, each times the importance of its row. Scales
//! are tried that put the largest weight of the block on a number somewhat inside or outside the range, of either sign
//! (the range of Q4 and Q6 has one number more below zero than above); each is then replaced by the scale that suits
//! the numbers found with it best, `Σ w q / Σ q²`, and the weights are rounded anew. Scales are halves before weights are
//! rounded by them, so that the error is that of the stored matrix. The lanes of the loops are columns.

use super::{BLOCK, BlockFormat, CHUNK, PANEL, PLANE, SCALES, f16, pack, widen};
use crate::gemm::Mat;
use crate::isa::{self, Isa, vectorised};
use crate::pool;

/// What half the range is multiplied by before the largest weight is divided by it, to give the scales to try.
fn tried(format: BlockFormat) -> impl Iterator<Item = f32> {
    let (first, step, signs): (f32, f32, &[f32]) = match format {
        BlockFormat::Q8 => (0.98, 0.004, &[1.0]),
        BlockFormat::Q6 => (0.9, 0.02, &[1.0, -1.0]),
        BlockFormat::Q4 => (0.8, 0.06, &[1.0, -1.0]),
    };
    signs.iter().flat_map(move |sign| (0..11).map(move |i| sign * (first + step * i as f32)))
}

/// Blocks of `L` columns side by side, along K.
type Weights<const L: usize> = [[f32; L]; BLOCK];

/// A scale's inverse, by which weights are multiplied; of a scale of zero, zero.
#[inline(always)]
pub(super) fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The number nearest to a weight.
#[inline(always)]
fn nearest(weight: f32, inverse: f32, (low, high): (f32, f32)) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding and subtracting it rounds
    let x = weight * inverse;
    let x = if x > low { x } else { low }; // this takes NaN, too
    let x = if x < high { x } else { high };
    (x + ROUND) - ROUND
}

#[inline(always)]
fn range(format: BlockFormat) -> (f32, f32) {
    let (low, high) = format.range();
    (low as f32, high as f32)
}

/// The stored form of the number nearest to a weight.
#[inline(always)]
pub(super) fn level(format: BlockFormat, weight: f32, inverse: f32) -> u8 {
    (nearest(weight, inverse, range(format)) as i32 + format.offset()) as u8
}

/// The nearest half, ties to even, in steps that the compiler vectorises. What is too large becomes the largest half.
#[inline(always)]
fn narrow(x: f32) -> u16 {
    const LARGEST: f32 = 65504.0;
    const LEAST: f32 = 6.103_515_6e-5; // below it, halves are multiples of 2⁻²⁴
    let size = x.abs();
    let size = if size < LARGEST { size } else { LARGEST };
    let bits = size.to_bits();
    let small = (size + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let large = ((bits + 0xfff + (bits >> 13 & 1)) >> 13).wrapping_sub((127 - 15) << 10);
    let half = if size < LEAST { small } else { large };
    // No negative zero.
    let sign = if half == 0 { 0 } else { x.to_bits() >> 16 & 0x8000 };
    (half | sign) as u16
}

/// The best scale of each lane, as bits of a half; NaN where a weight is not finite.
#[inline(always)]
fn search<const L: usize>(format: BlockFormat, w: &Weights<L>, importance: &[f32; BLOCK]) -> [u16; L] {
    let range = range(format);
    let (mut largest, mut finite) = ([0.0f32; L], [0.0f32; L]);
    for w in w {
        for l in 0..L {
            largest[l] = if w[l].abs() > largest[l].abs() { w[l] } else { largest[l] };
            finite[l] += w[l] * 0.0;
        }
    }
    // To begin with, the scale that just takes the largest weight.
    let mut best = largest.map(|largest| narrow(largest / range.1));
    let mut least = error(w, importance, &best, range);
    for part in tried(format) {
        let mut scales = [0; L];
        for l in 0..L {
            scales[l] = narrow(largest[l] / (part * -range.0));
        }
        let scales = refit(w, importance, &scales, range);
        let errors = error(w, importance, &scales, range);
        for l in 0..L {
            let better = errors[l] < least[l];
            best[l] = if better { scales[l] } else { best[l] };
            least[l] = if better { errors[l] } else { least[l] };
        }
    }
    for l in 0..L {
        best[l] = if finite[l] == 0.0 { best[l] } else { f16::NAN.to_bits() };
    }
    best
}

/// For each lane, the scale that suits the numbers found with another scale best.
#[inline(always)]
fn refit<const L: usize>(
    w: &Weights<L>,
    importance: &[f32; BLOCK],
    scales: &[u16; L],
    range: (f32, f32),
) -> [u16; L] {
    let inverses = scales.map(|scale| inverse(widen(scale)));
    let (mut products, mut squares) = ([0.0f32; L], [0.0f32; L]);
    for (w, importance) in w.iter().zip(importance) {
        for l in 0..L {
            let q = nearest(w[l], inverses[l], range);
            products[l] += importance * w[l] * q;
            squares[l] += importance * q * q;
        }
    }
    let mut better = [0; L];
    for l in 0..L {
        better[l] = if squares[l] > 0.0 { narrow(products[l] / squares[l]) } else { scales[l] };
    }
    better
}

/// The error of each lane.
#[inline(always)]
fn error<const L: usize>(
    w: &Weights<L>,
    importance: &[f32; BLOCK],
    scales: &[u16; L],
    range: (f32, f32),
) -> [f32; L] {
    let scales = scales.map(widen);
    let inverses = scales.map(inverse);
    let mut sums = [0.0; L];
    for (w, importance) in w.iter().zip(importance) {
        for l in 0..L {
            let change = w[l] - scales[l] * nearest(w[l], inverses[l], range);
            sums[l] += importance * change * change;
        }
    }
    sums
}

/// A block by itself: its scale and its numbers, as stored. `importance` has the weight of each row in the error.
pub fn quantise_block(
    format: BlockFormat,
    w: &[f32; BLOCK],
    importance: Option<&[f32; BLOCK]>,
) -> (f16, [u8; BLOCK]) {
    let importance = importance.unwrap_or(&[1.0; BLOCK]);
    let [scale] = search(format, &w.map(|w| [w]), importance);
    let scale = f16::from_bits(scale);
    let inverse = inverse(scale.to_f32());
    (scale, w.map(|w| level(format, w, inverse)))
}

/// A (K, N) matrix in blocks, made on all threads. `importance` says how much an error in each row of w matters: the mean
/// square of what it is multiplied by. A weight that is not finite makes a scale that [`check`] finds.
///
/// [`check`]: super::BlockMatrix::check
pub fn quantise(format: BlockFormat, w: Mat, importance: Option<&[f32]>) -> Vec<u8> {
    quantise_on(isa::current(), format, w, importance)
}

pub(super) fn quantise_on(isa: Isa, format: BlockFormat, w: Mat, importance: Option<&[f32]>) -> Vec<u8> {
    assert!(w.is_whole() && importance.is_none_or(|importance| importance.len() == w.rows), "one a row");
    let mut all = vec![0; format.bytes_for(w.rows, w.cols)];
    pool::for_each_chunk_mut(&mut all, format.panel_bytes(w.rows), |p, panel| {
        let first = p * PANEL;
        let there = PANEL.min(w.cols - first);
        for (block, chunk) in panel.chunks_exact_mut(format.block_bytes()).enumerate() {
            let rows = BLOCK.min(w.rows - block * BLOCK);
            let mut weights = [[0.0; PANEL]; BLOCK];
            for (k, weights) in weights[..rows].iter_mut().enumerate() {
                let row = (block * BLOCK + k) * w.row_stride;
                for (c, weight) in weights[..there].iter_mut().enumerate() {
                    *weight = w.data[row + (first + c) * w.col_stride];
                }
            }
            let mut of_rows = [1.0; BLOCK];
            if let Some(importance) = importance {
                of_rows[..rows].copy_from_slice(&importance[block * BLOCK..][..rows]);
            }
            fill_chunk(isa, format, chunk, &weights, &of_rows);
        }
    });
    all
}

/// A (k, n) matrix of blocks that are there already, put into our order on all threads. For block number `i` along K of a
/// column, `block(column, i, numbers)` gives the scale and writes the numbers, as stored. Scales are for [`check`] to judge.
///
/// [`check`]: super::BlockMatrix::check
pub fn assemble(
    format: BlockFormat,
    k: usize,
    n: usize,
    block: impl Fn(usize, usize, &mut [u8; BLOCK]) -> f16 + Sync,
) -> Vec<u8> {
    let mut all = vec![0; format.bytes_for(k, n)];
    pool::for_each_chunk_mut(&mut all, format.panel_bytes(k), |p, panel| {
        for (i, chunk) in panel.chunks_exact_mut(format.block_bytes()).enumerate() {
            let (scales, data) = chunk.split_at_mut(SCALES);
            let mut levels = [format.offset() as u8; CHUNK];
            for column in 0..PANEL.min(n - p * PANEL) {
                let mut numbers = [0; BLOCK];
                let scale = block(p * PANEL + column, i, &mut numbers);
                scales[2 * column..][..2].copy_from_slice(&scale.to_le_bytes());
                for (group, numbers) in numbers.as_chunks::<4>().0.iter().enumerate() {
                    levels[PLANE * group + 4 * column..][..4].copy_from_slice(numbers);
                }
            }
            pack(format, &levels, data);
        }
    });
    all
}

vectorised! {
    /// The blocks of 32 columns.
    fn fill_chunk(format: BlockFormat, chunk: &mut [u8], w: &Weights<PANEL>, importance: &[f32; BLOCK]) {
        let found = search(format, w, importance);
        let inverses = found.map(|scale| inverse(widen(scale)));
        let mut levels = [0; CHUNK];
        for (w, group) in w.chunks_exact(4).zip(levels.as_chunks_mut::<PLANE>().0) {
            for (c, levels) in group.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *levels = std::array::from_fn(|j| level(format, w[j][c], inverses[c]));
            }
        }
        let (scales, data) = chunk.split_at_mut(SCALES);
        for (scale, found) in scales.as_chunks_mut::<2>().0.iter_mut().zip(found) {
            *scale = found.to_le_bytes();
        }
        pack(format, &levels, data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_and_widened_as_by_the_library() {
        for bits in (0..u32::MAX).step_by(977) {
            let x = f32::from_bits(bits);
            if x.abs() < 65504.0 {
                let (got, want) = (narrow(x), f16::from_f32(x));
                assert!(f16::from_bits(got) == want, "{x:e} is {want:?}, not {:?}", f16::from_bits(got));
                assert!(got != f16::NEG_ZERO.to_bits(), "{x:e}");
                assert_eq!(widen(got), want.to_f32(), "{x:e}");
            }
        }
        assert_eq!(narrow(f32::INFINITY), f16::MAX.to_bits());
    }
}
