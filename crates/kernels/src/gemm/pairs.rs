//! Packing in pairs: a panel holds `width` rows of a matrix side by side, two elements of K after the other in each unit.
//!
//! The source may be `f32`, which is rounded on the way. Zeros stand past the last row, and after an odd K.

use std::cell::RefCell;

use super::{Mat, Operand, pack};
use crate::bf16::{Element, bf16};
#[cfg(target_arch = "x86_64")]
use crate::isa::Avx512Bf16;
use crate::isa::{Isa, vectorised};

/// Units in a panel's lane for `kc` elements of K.
pub fn units(kc: usize) -> usize {
    kc.div_ceil(2)
}

/// Packs as many panels as there are, one after the other.
pub fn panels(isa: Isa, panels: &mut [u32], width: usize, matrix: &Operand, first: usize, k: [usize; 2]) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512Bf16 && Avx512Bf16::detect().is_some() {
        match matrix {
            // SAFETY: `detect` has found the features.
            Operand::F32(matrix) if matrix.row_stride == 1 || matrix.col_stride == 1 => unsafe {
                return simd::floats(panels, width, *matrix, first, k);
            },
            // SAFETY: as above.
            Operand::Bf16(matrix) if matrix.row_stride == 1 || matrix.col_stride == 1 => unsafe {
                return simd::halves(panels, width, *matrix, first, k);
            },
            _ => {}
        }
    }
    match matrix {
        Operand::F32(matrix) => plain(isa, panels, width, *matrix, first, k),
        Operand::Bf16(matrix) => plain(isa, panels, width, *matrix, first, k),
        Operand::F16(matrix) => plain(isa, panels, width, *matrix, first, k),
    }
}

thread_local! {
    /// Rows in pairs, on their way into a panel.
    static ROWS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// For every instruction set: rows are rounded as they lie, and then turned or woven.
fn plain<T: Element>(
    isa: Isa,
    panels: &mut [u32],
    width: usize,
    matrix: Mat<T>,
    first: usize,
    [k0, kc]: [usize; 2],
) {
    let Mat { data, rows, row_stride, col_stride, .. } = matrix;
    let units = units(kc);
    ROWS.with_borrow_mut(|scratch| {
        scratch.resize(scratch.len().max(width * units), 0);
        for (p, panel) in panels.chunks_exact_mut(width * units).enumerate() {
            let first = first + p * width;
            let there = width.min(rows.saturating_sub(first));
            if row_stride == 1 {
                // Lanes lie side by side: a step of K is a run of them.
                let (low, high) =
                    bytemuck::cast_slice_mut::<u32, bf16>(&mut scratch[..width]).split_at_mut(width);
                for (u, lanes) in panel.chunks_exact_mut(width).enumerate() {
                    for (step, half) in [&mut *low, &mut *high].into_iter().enumerate() {
                        half.fill(bf16::ZERO);
                        let k = 2 * u + step;
                        if k < kc {
                            let start = first + (k0 + k) * col_stride;
                            T::narrow_into(isa, &mut half[..there], &data[start..start + there]);
                        }
                    }
                    weave(isa, lanes, low, high);
                }
                continue;
            }
            for (r, row) in scratch.chunks_exact_mut(units).enumerate().take(there) {
                // In memory, a pair is its lower half and then its upper one.
                let (row, rest) = bytemuck::cast_slice_mut::<u32, bf16>(row).split_at_mut(kc);
                rest.fill(bf16::ZERO);
                let start = (first + r) * row_stride + k0 * col_stride;
                if col_stride == 1 {
                    T::narrow_into(isa, row, &data[start..start + kc]);
                } else {
                    row.iter_mut().enumerate().for_each(|(k, x)| *x = data[start + k * col_stride].narrow());
                }
            }
            let rows = Mat::new(bytemuck::cast_slice(&scratch[..there * units]), there, units);
            pack::rows(isa, bytemuck::cast_slice_mut(panel), width, rows, 0, [0, units]);
        }
    });
}

vectorised! {
    fn weave(pairs: &mut [u32], low: &[bf16], high: &[bf16]) {
        for (pair, (low, high)) in pairs.iter_mut().zip(low.iter().zip(high)) {
            *pair = u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16;
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod simd {
    //! The same with the instructions that round 32 values at once.

    use std::arch::x86_64::*;

    use super::{Mat, bf16, units};

    /// How many rows ahead are asked for; a hint, which may point anywhere.
    const AHEAD: usize = 8;

    /// Writes the function that packs from one type.
    macro_rules! packer {
        ($name:ident, $element:ty, $along_k:ident, $two_rows:ident) => {
            #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl")]
            pub fn $name(
                panels: &mut [u32],
                width: usize,
                matrix: Mat<$element>,
                first: usize,
                [k0, kc]: [usize; 2],
            ) {
                assert!(
                    matrix.is_whole() && k0 + kc <= matrix.cols && width <= 32,
                    "the panels lie in the matrix"
                );
                let size = width * units(kc);
                let n = panels.len() / size;
                if matrix.row_stride == 1 {
                    // Lanes lie side by side: goes along them through all panels, so as to read in order.
                    for u in 0..units(kc) {
                        for p in 0..n {
                            let lane = first + p * width;
                            let there = width.min(matrix.rows.saturating_sub(lane));
                            for ahead in 0..2 {
                                // Rows to come: each is far from the one before, so the CPU does not guess them.
                                let next = matrix.at(lane, k0 + 2 * u + AHEAD + ahead);
                                _mm_prefetch::<_MM_HINT_T0>(next.cast());
                            }
                            let out = &mut panels[p * size + u * width..][..width];
                            for r in (0..width).step_by(16) {
                                let lanes = there.saturating_sub(r).min(16);
                                let low = matrix.at(lane + r, k0 + 2 * u);
                                let high = (2 * u + 1 < kc).then(|| matrix.at(lane + r, k0 + 2 * u + 1));
                                // SAFETY: both rows have these lanes, and `out` those up to `width`.
                                unsafe {
                                    let pairs = $two_rows(low, high, lanes);
                                    store(out.as_mut_ptr().add(r), pairs, width - r);
                                }
                            }
                        }
                    }
                    return;
                }
                for (p, panel) in panels.chunks_exact_mut(size).enumerate() {
                    let there = width.min(matrix.rows.saturating_sub(first + p * width));
                    for r in (0..width).step_by(16) {
                        for u in (0..units(kc)).step_by(16) {
                            let mut rows = [_mm512_setzero_si512(); 16];
                            for (i, row) in rows.iter_mut().enumerate().take(there.saturating_sub(r)) {
                                let at = matrix.at(first + p * width + r + i, k0 + 2 * u);
                                // SAFETY: the row has these elements.
                                *row = unsafe { $along_k(at, (kc - 2 * u).min(32)) };
                            }
                            let columns = transpose(rows);
                            for (i, pairs) in columns.into_iter().enumerate().take(units(kc) - u) {
                                let out = &mut panel[(u + i) * width..][..width];
                                // SAFETY: `out` has the lanes up to `width`.
                                unsafe { store(out.as_mut_ptr().add(r), pairs, width - r) };
                            }
                        }
                    }
                }
            }
        };
    }
    packer!(floats, f32, floats_along_k, floats_of_two_rows);
    packer!(halves, bf16, halves_along_k, halves_of_two_rows);

    /// # Safety
    /// `lanes` values (or 16, if that is less) can be written.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn store(out: *mut u32, pairs: __m512i, lanes: usize) {
        if lanes >= 16 {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_si512(out.cast(), pairs) }
        } else {
            // SAFETY: the caller's promise.
            unsafe { _mm512_mask_storeu_epi32(out.cast(), first_bits(lanes) as u16, pairs) }
        }
    }

    /// The lowest `n` bits set, n ≤ 32.
    #[inline(always)]
    fn first_bits(n: usize) -> u32 {
        if n >= 32 { u32::MAX } else { (1 << n) - 1 }
    }

    /// # Safety
    /// `n` ≤ 16 values can be read.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn load(at: *const f32, n: usize) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { if n >= 16 { _mm512_loadu_ps(at) } else { _mm512_maskz_loadu_ps(first_bits(n) as u16, at) } }
    }

    /// `n` ≤ 32 elements in a row, as pairs.
    ///
    /// # Safety
    /// They can be read.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw")]
    #[inline]
    pub unsafe fn floats_along_k(at: *const f32, n: usize) -> __m512i {
        // SAFETY: the caller's promise; and both types are 64 bytes of anything.
        unsafe {
            let (low, high) = (load(at, n.min(16)), load(at.wrapping_add(16), n.saturating_sub(16)));
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
        }
    }

    /// # Safety
    /// As for [`floats_along_k`].
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub unsafe fn halves_along_k(at: *const bf16, n: usize) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            if n >= 32 {
                _mm512_loadu_si512(at.cast())
            } else {
                _mm512_maskz_loadu_epi16(first_bits(n), at.cast())
            }
        }
    }

    /// From sixteen of one and sixteen of another to sixteen pairs.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn interleave(both: __m512i) -> __m512i {
        let order = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
            18, 2, 17, 1, 16, 0,
        );
        _mm512_permutexvar_epi16(order, both)
    }

    /// `n` ≤ 16 pairs of an element of `low` and one of `high`, or zero where there is none.
    ///
    /// # Safety
    /// They can be read.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw")]
    #[inline]
    pub unsafe fn floats_of_two_rows(low: *const f32, high: Option<*const f32>, n: usize) -> __m512i {
        // SAFETY: the caller's promise; and both types are 64 bytes of anything.
        unsafe {
            let high = high.map_or(_mm512_setzero_ps(), |high| load(high, n));
            interleave(std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, load(low, n))))
        }
    }

    /// # Safety
    /// As for [`floats_of_two_rows`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    pub unsafe fn halves_of_two_rows(low: *const bf16, high: Option<*const bf16>, n: usize) -> __m512i {
        let load = |at: *const bf16| {
            if n >= 16 {
                // SAFETY: the caller's promise.
                unsafe { _mm256_loadu_si256(at.cast()) }
            } else {
                // SAFETY: the caller's promise.
                unsafe { _mm256_maskz_loadu_epi16(first_bits(n) as u16, at.cast()) }
            }
        };
        let high = high.map_or(_mm256_setzero_si256(), load);
        interleave(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(load(low)), high))
    }

    /// Rows become columns.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
        let mut t = r;
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        let mut u = t;
        for i in 0..4 {
            let [a, b, c, d] = [0, 1, 2, 3].map(|j| t[4 * i + j]);
            u[4 * i] = _mm512_unpacklo_epi64(a, c);
            u[4 * i + 1] = _mm512_unpackhi_epi64(a, c);
            u[4 * i + 2] = _mm512_unpacklo_epi64(b, d);
            u[4 * i + 3] = _mm512_unpackhi_epi64(b, d);
        }
        // u[4 i + j] holds column 4 q + j of rows 4 i to 4 i + 3 in its quarter q.
        let mut out = u;
        for j in 0..4 {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| u[4 * i + j]);
            let (ab_even, ab_odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
            let (cd_even, cd_odd) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
            out[j] = _mm512_shuffle_i32x4::<0x88>(ab_even, cd_even);
            out[8 + j] = _mm512_shuffle_i32x4::<0xdd>(ab_even, cd_even);
            out[4 + j] = _mm512_shuffle_i32x4::<0x88>(ab_odd, cd_odd);
            out[12 + j] = _mm512_shuffle_i32x4::<0xdd>(ab_odd, cd_odd);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::narrow;
    use crate::isa;

    #[test]
    fn panels_of_every_width_and_layout() {
        for (m, kc) in [(1, 1), (3, 8), (14, 17), (16, 33), (31, 64), (40, 70), (100, 5)] {
            let (k0, first) = (2, 1);
            let (rows, k) = (m + first, kc + k0 + 3);
            let data: Vec<f32> = (0..rows * k).map(|i| (i % 251) as f32 - 99.0).collect();
            let turned: Vec<f32> = (0..rows * k).map(|i| data[i % rows * k + i / rows]).collect();
            let [half, half_turned] =
                [&data, &turned].map(|x| x.iter().map(|&x| narrow(x)).collect::<Vec<_>>());
            let layouts: [Operand; 4] = [
                Mat::new(&data, rows, k).into(),
                Mat::new(&turned, k, rows).t().into(),
                Mat::new(&half, rows, k).into(),
                Mat::new(&half_turned, k, rows).t().into(),
            ];
            for (isa, width) in
                isa::tested().into_iter().flat_map(|isa| [4, 5, 13, 14, 16, 24, 32].map(|w| (isa, w)))
            {
                for (l, matrix) in layouts.iter().enumerate() {
                    let n = m.div_ceil(width);
                    let mut got = vec![u32::MAX; n * width * units(kc)];
                    panels(isa, &mut got, width, matrix, first, [k0, kc]);
                    for (at, got) in got.iter().enumerate() {
                        let (p, in_panel) = (at / (width * units(kc)), at % (width * units(kc)));
                        let (unit, lane) = (in_panel / width, in_panel % width);
                        for (half, got) in [got << 16, got & 0xffff_0000].into_iter().enumerate() {
                            let (row, step) = (p * width + lane, 2 * unit + half);
                            let there = row < m && step < kc;
                            let want = if there { data[(first + row) * k + k0 + step] } else { 0.0 };
                            let case =
                                format!("{isa:?} width {width} {m} × {kc} layout {l} row {row} step {step}");
                            assert_eq!(f32::from_bits(got), want, "{case}");
                        }
                    }
                }
            }
        }
    }
}
