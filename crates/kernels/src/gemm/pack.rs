//! Packing: a panel holds `width` rows of a matrix side by side, one step of K after the other.

use std::cell::RefCell;

use super::pair_strips::WIDTH;
use super::tiles::prefetch_near;
use super::{Mat, PairPanels};
use crate::bf16::Element;
#[cfg(target_arch = "x86_64")]
use crate::isa::{Avx2, Avx512};
use crate::isa::{Isa, vectorised};

/// How many rows ahead a source is asked for.
const ROWS_AHEAD: usize = 4;

/// Makes room for at least `len` values; the caller overwrites them.
pub fn reserve(panels: &mut Vec<f32>, len: usize) {
    if panels.len() < len {
        panels.resize(len, 0.0);
    }
}

/// Packs as many panels as there are, one after the other.
pub fn panels(isa: Isa, panels: &mut [f32], width: usize, matrix: Mat, first: usize, [k0, kc]: [usize; 2]) {
    let size = width * kc;
    let mut done = 0;
    if matrix.row_stride == 1 {
        // Lanes lie side by side in memory: goes along them through all whole panels, so as to read in order.
        done = ((matrix.rows - first) / width).min(panels.len() / size);
        let source = &matrix.data[first + k0 * matrix.col_stride..];
        if ![4, 6, 8, 14, 16, 32, 64].contains(&width) {
            done = 0;
        } else if done > 0 {
            side_by_side(isa, &mut panels[..done * size], width, kc, source, matrix.col_stride);
        }
    }
    for (i, panel) in panels.chunks_exact_mut(size).enumerate().skip(done) {
        rows(isa, panel, width, matrix, first + i * width, [k0, kc]);
    }
}

thread_local! {
    /// Values widened on their way into a panel.
    static WIDE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// [`panels`] from values of 16 bits, which are widened.
pub fn widened<T: Element>(
    isa: Isa,
    panels: &mut [f32],
    width: usize,
    matrix: Mat<T>,
    first: usize,
    [k0, kc]: [usize; 2],
) {
    let Mat { data, rows, row_stride, col_stride, .. } = matrix;
    WIDE.with_borrow_mut(|wide| {
        reserve(wide, width * kc);
        let wide = &mut wide[..width * kc];
        for (p, panel) in panels.chunks_exact_mut(width * kc).enumerate() {
            let first = first + p * width;
            let there = width.min(rows - first);
            if row_stride == 1 {
                for (k, lanes) in panel.chunks_exact_mut(width).enumerate() {
                    let start = first + (k0 + k) * col_stride;
                    T::widen_into(isa, &mut lanes[..there], &data[start..start + there]);
                    lanes[there..].fill(0.0);
                }
                continue;
            }
            for (r, row) in wide.chunks_exact_mut(kc).enumerate().take(there) {
                let start = (first + r) * row_stride + k0 * col_stride;
                if col_stride == 1 {
                    T::widen_into(isa, row, &data[start..start + kc]);
                } else {
                    row.iter_mut().enumerate().for_each(|(k, x)| *x = data[start + k * col_stride].f32());
                }
            }
            self::rows(isa, panel, width, Mat::new(&wide[..there * kc], there, kc), 0, [0, kc]);
        }
    });
}

/// Panels of `width` columns, a divisor or a multiple of 32, from panels of pairs.
pub fn unwoven(
    isa: Isa,
    panels: &mut [f32],
    width: usize,
    pairs: &PairPanels,
    first: usize,
    [k0, kc]: [usize; 2],
) {
    assert!(k0.is_multiple_of(2) && kc.is_multiple_of(2), "whole pairs");
    for (p, panel) in panels.chunks_exact_mut(width * kc).enumerate() {
        for part in (0..width).step_by(WIDTH) {
            let column = first + p * width + part;
            if column >= pairs.n {
                panel.chunks_exact_mut(width).for_each(|lanes| lanes[part..].fill(0.0));
                break;
            }
            let whole = &pairs.data[column / WIDTH * PairPanels::len_for(pairs.k, 1)..];
            let units = &whole[k0 / 2 * WIDTH..][..kc / 2 * WIDTH];
            #[cfg(target_arch = "x86_64")]
            if isa >= Isa::Avx512 && Avx512::detect().is_some() && width.is_multiple_of(WIDTH) {
                // SAFETY: `detect` has found AVX-512 on this CPU.
                unsafe { unweave_avx512(panel, width, part, units) };
                continue;
            }
            unweave(isa, panel, width, units, column % WIDTH);
        }
    }
}

vectorised! {
    fn unweave(panel: &mut [f32], width: usize, units: &[u32], first: usize) {
        // The widths of the tiles are constants to the loops.
        match width {
            8 => unweave_lanes::<8>(panel, units, first),
            16 => unweave_lanes::<16>(panel, units, first),
            32 => unweave_lanes::<32>(panel, units, first),
            _ => unreachable!("no tile is {width} wide"),
        }
    }
}

#[inline(always)]
fn unweave_lanes<const LANES: usize>(panel: &mut [f32], units: &[u32], first: usize) {
    let steps = panel.as_chunks_mut::<LANES>().0.as_chunks_mut::<2>().0;
    for ([low, high], units) in steps.iter_mut().zip(units.as_chunks::<WIDTH>().0) {
        let units = &units[first..first + LANES];
        for lane in 0..LANES {
            low[lane] = f32::from_bits(units[lane] << 16);
            high[lane] = f32::from_bits(units[lane] & 0xffff_0000);
        }
    }
}

/// The same for all lanes of a panel of pairs, which become those from `part` on. (The compiler would go along K, with gathers.)
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn unweave_avx512(panel: &mut [f32], width: usize, part: usize, units: &[u32]) {
    use std::arch::x86_64::*;
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    for (both, units) in panel.chunks_exact_mut(2 * width).zip(units.as_chunks::<WIDTH>().0) {
        let (low, high) = both.split_at_mut(width);
        let (low, high) = (&mut low[part..][..WIDTH], &mut high[part..][..WIDTH]);
        for lane in (0..WIDTH).step_by(16) {
            // SAFETY: each of the three has the sixteen values from `lane` on.
            unsafe {
                let pairs = _mm512_loadu_si512(units.as_ptr().add(lane).cast());
                _mm512_storeu_si512(low.as_mut_ptr().add(lane).cast(), _mm512_slli_epi32::<16>(pairs));
                _mm512_storeu_si512(high.as_mut_ptr().add(lane).cast(), _mm512_and_si512(pairs, upper));
            }
        }
    }
}

vectorised! {
    /// Copies `width` values of each of `kc` steps to each panel; steps are `stride` apart.
    fn side_by_side(panels: &mut [f32], width: usize, kc: usize, source: &[f32], stride: usize) {
        // The widths of the tiles are constants to the loops, so that lanes are moved by whole vectors.
        match width {
            4 => lanes_side_by_side::<4>(panels, kc, source, stride),
            6 => lanes_side_by_side::<6>(panels, kc, source, stride),
            8 => lanes_side_by_side::<8>(panels, kc, source, stride),
            14 => lanes_side_by_side::<14>(panels, kc, source, stride),
            16 => lanes_side_by_side::<16>(panels, kc, source, stride),
            32 => lanes_side_by_side::<32>(panels, kc, source, stride),
            64 => lanes_side_by_side::<64>(panels, kc, source, stride),
            _ => unreachable!("no tile is {width} wide"),
        }
    }
}

#[inline(always)]
fn lanes_side_by_side<const LANES: usize>(panels: &mut [f32], kc: usize, source: &[f32], stride: usize) {
    let panels = panels.as_chunks_mut::<LANES>().0;
    let width = panels.len() / kc * LANES;
    for k in 0..kc {
        // The rows are far from each other, and short for the CPU to see what will be wanted.
        prefetch_near(source.as_ptr().wrapping_add((k + ROWS_AHEAD) * stride), width);
        for (p, lanes) in source[k * stride..][..width].as_chunks::<LANES>().0.iter().enumerate() {
            panels[p * kc + k] = *lanes;
        }
    }
}

/// `panel[k * width + r] = matrix[first + r][k0 + k]` for `kc` steps; rows past the matrix's end are zeros.
pub fn rows(isa: Isa, panel: &mut [f32], width: usize, matrix: Mat, first: usize, [k0, kc]: [usize; 2]) {
    let Mat { data, rows, row_stride, col_stride, .. } = matrix;
    let there = width.min(rows - first);
    let panel = &mut panel[..width * kc];
    if row_stride == 1 {
        // Lanes lie side by side in memory: copy them.
        for (k, lanes) in panel.chunks_exact_mut(width).enumerate() {
            let start = first + (k0 + k) * col_stride;
            lanes[..there].copy_from_slice(&data[start..start + there]);
            lanes[there..].fill(0.0);
        }
    } else if col_stride == 1 {
        let source = &data[first * row_stride + k0..];
        transpose(isa, panel, width, source, [there, row_stride, kc]);
    } else {
        for (k, lanes) in panel.chunks_exact_mut(width).enumerate() {
            for (r, lane) in lanes.iter_mut().enumerate() {
                *lane = if r < there { data[(first + r) * row_stride + (k0 + k) * col_stride] } else { 0.0 };
            }
        }
    }
}

/// Lanes are rows in memory, `stride` apart, `there` of them, each with `kc` values.
fn transpose(isa: Isa, panel: &mut [f32], width: usize, source: &[f32], [there, stride, kc]: [usize; 3]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 && Avx512::detect().is_some() && width.is_multiple_of(16) {
        // SAFETY: `detect` has found AVX-512 on this CPU.
        done = unsafe { transpose_avx512(panel, width, source, [there, stride, kc]) };
    }
    if there < width {
        panel[done * width..].chunks_exact_mut(width).for_each(|lanes| lanes[there..].fill(0.0));
    }
    #[cfg(target_arch = "x86_64")]
    if done == 0 && isa >= Isa::Avx2 && Avx2::detect().is_some() {
        // SAFETY: `detect` has found AVX2 on this CPU.
        done = unsafe { transpose_avx2(panel, width, source, [there, stride, kc]) };
    }
    let _ = isa;
    for r in 0..there {
        for (k, &value) in source[r * stride..][..kc].iter().enumerate().skip(done) {
            panel[k * width + r] = value;
        }
    }
}

/// Does the steps of K that come in eights, for all rows, and returns their number.
///
/// Groups of fewer than eight rows are written as eight lanes, of which the last spill over into the next step's
/// first; so the last group is done first, and each step before the next. The very last step is left out if it
/// would spill over the panel's end.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn transpose_avx2(panel: &mut [f32], width: usize, source: &[f32], [there, stride, kc]: [usize; 3]) -> usize {
    use std::arch::x86_64::*;
    let spill = there.next_multiple_of(8).saturating_sub(width);
    if there == 0 || spill > 0 && there < width || kc < 9 {
        return 0;
    }
    let mut steps = if spill > 0 { (kc - 1) / 8 * 8 } else { kc / 8 * 8 };
    // Few rows spill over several steps.
    while steps > 0 && (steps - 1) * width + there.next_multiple_of(8) > panel.len() {
        steps -= 8;
    }
    if steps == 0 {
        return 0;
    }
    assert!((there - 1) * stride + steps <= source.len(), "the rows lie in the source");
    assert!((steps - 1) * width + there.next_multiple_of(8) <= panel.len(), "the steps lie in the panel");
    let more = source.len() >= (2 * there - 1) * stride + steps; // another panel
    for r0 in (0..there).step_by(8).rev() {
        let n = (there - r0).min(8);
        for k in (0..steps).step_by(8) {
            for r in 0..if more && k % 16 == 0 { n } else { 0 } {
                // The next panel's rows, most likely.
                let next = source.as_ptr().wrapping_add((r0 + r + there) * stride + k);
                _mm_prefetch::<_MM_HINT_T0>(next.cast());
            }
            let row = |r: usize| {
                if r >= n {
                    return _mm256_setzero_ps();
                }
                // SAFETY: row r0 + r is one of those `there`, and k + 8 of its values lie in the source.
                unsafe { _mm256_loadu_ps(source.as_ptr().add((r0 + r) * stride + k)) }
            };
            let lanes = transpose_8x8([row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)]);
            for (i, lanes) in lanes.into_iter().enumerate() {
                // SAFETY: the last step's eight lanes lie in the panel, by the second assertion.
                unsafe { _mm256_storeu_ps(panel.as_mut_ptr().add((k + i) * width + r0), lanes) };
            }
        }
    }
    steps
}

/// Does the steps of K that come in sixteens, for `width` rows, a multiple of 16, and returns their number. The source has the first
/// `there` rows; the others are zeros.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn transpose_avx512(
    panel: &mut [f32],
    width: usize,
    source: &[f32],
    [there, stride, kc]: [usize; 3],
) -> usize {
    use std::arch::x86_64::*;
    let steps = kc / 16 * 16;
    if steps == 0 || there == 0 {
        return 0;
    }
    assert!(there <= width && (there - 1) * stride + steps <= source.len(), "the rows lie in the source");
    assert!(steps * width <= panel.len(), "the steps lie in the panel");
    let more = source.len() >= (width + there - 1) * stride + steps; // another panel
    for k in (0..steps).step_by(16) {
        for r0 in (0..width).step_by(16) {
            let mut rows = [_mm512_setzero_si512(); 16];
            for (r, row) in rows.iter_mut().enumerate().take(there.saturating_sub(r0)) {
                let at = source.as_ptr().wrapping_add((r0 + r) * stride + k);
                if more {
                    _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(width * stride).cast()); // the next panel's row, most likely
                }
                // SAFETY: row r0 + r is one of those `there`, and k + 16 of its values lie in the source.
                *row = unsafe { _mm512_loadu_si512(at.cast()) };
            }
            for (i, lanes) in super::pairs::simd::transpose(rows).into_iter().enumerate() {
                // SAFETY: step k + i has `width` lanes in the panel.
                unsafe { _mm512_storeu_si512(panel.as_mut_ptr().add((k + i) * width + r0).cast(), lanes) };
            }
        }
    }
    steps
}

/// Rows become columns.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline]
fn transpose_8x8(r: [std::arch::x86_64::__m256; 8]) -> [std::arch::x86_64::__m256; 8] {
    use std::arch::x86_64::*;
    let low = |a, b| _mm256_unpacklo_ps(a, b);
    let high = |a, b| _mm256_unpackhi_ps(a, b);
    let pairs = [
        [low(r[0], r[1]), low(r[2], r[3]), low(r[4], r[5]), low(r[6], r[7])],
        [high(r[0], r[1]), high(r[2], r[3]), high(r[4], r[5]), high(r[6], r[7])],
    ];
    let firsts = |a, b| _mm256_shuffle_ps::<0x44>(a, b);
    let lasts = |a, b| _mm256_shuffle_ps::<0xee>(a, b);
    let upper = pairs.map(|p| [firsts(p[0], p[1]), lasts(p[0], p[1])]);
    let lower = pairs.map(|p| [firsts(p[2], p[3]), lasts(p[2], p[3])]);
    let (u, l) = (
        [upper[0][0], upper[0][1], upper[1][0], upper[1][1]],
        [lower[0][0], lower[0][1], lower[1][0], lower[1][1]],
    );
    [
        _mm256_permute2f128_ps::<0x20>(u[0], l[0]),
        _mm256_permute2f128_ps::<0x20>(u[1], l[1]),
        _mm256_permute2f128_ps::<0x20>(u[2], l[2]),
        _mm256_permute2f128_ps::<0x20>(u[3], l[3]),
        _mm256_permute2f128_ps::<0x31>(u[0], l[0]),
        _mm256_permute2f128_ps::<0x31>(u[1], l[1]),
        _mm256_permute2f128_ps::<0x31>(u[2], l[2]),
        _mm256_permute2f128_ps::<0x31>(u[3], l[3]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa;

    #[test]
    fn panels_of_every_width_and_layout() {
        for (rows_there, kc) in
            [(1, 1), (3, 8), (6, 9), (8, 12), (8, 16), (14, 17), (16, 40), (31, 33), (40, 44), (40, 64)]
        {
            let (k0, first) = (2, 1);
            let (m, k) = (rows_there + first, kc + k0 + 3);
            let data: Vec<f32> = (0..m * k).map(|i| i as f32 + 1.0).collect();
            let transposed: Vec<f32> = (0..m * k).map(|i| data[i % m * k + i / m]).collect();
            let layouts = [Mat::new(&data, m, k), Mat::new(&transposed, k, m).t()];
            for (isa, width) in isa::tested()
                .into_iter()
                .flat_map(|isa| [1, 2, 3, 4, 5, 6, 8, 13, 14, 16, 24, 32, 64].map(|w| (isa, w)))
            {
                for matrix in layouts {
                    let mut panel = vec![f32::NAN; width * kc];
                    rows(isa, &mut panel, width, matrix, first, [k0, kc]);
                    for (at, &got) in panel.iter().enumerate() {
                        let (r, step) = (at % width, at / width);
                        let want = if r < rows_there { data[(first + r) * k + k0 + step] } else { 0.0 };
                        assert_eq!(
                            got, want,
                            "{isa:?} width {width}, {rows_there} × {kc}: lane {r}, step {step}"
                        );
                    }
                }
            }
        }
    }
}
