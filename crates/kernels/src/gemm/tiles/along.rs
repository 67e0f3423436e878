//! Eight columns of a B whose rows lie along K, as those of the output layer do, for few rows of A. B is read once, in long runs, and
//! four steps of K at a time are turned in registers, where packing would write and read them again.

use std::arch::x86_64::*;

use super::{A, C, prefetch_far};

/// The columns of a tile.
pub const COLS: usize = 8;
/// Steps of K that are turned together.
const STEPS: usize = 4;

/// A tile of `rows` (1 to 8) and [`COLS`] columns, whose element (k, j) of B is `b[j * row + k]`.
///
/// # Safety
/// The CPU has AVX2 and FMA. A can be read for `rows` and `depth`, and B for `depth` and as many columns; C can be written for as
/// many rows and columns, and read too if `from_c`, and no one else uses these values.
pub unsafe fn tile(rows: usize, c: C, a: A, b: *const f32, row: usize, depth: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match rows {
            1 => of_rows::<1>(c, a, b, row, depth),
            2 => of_rows::<2>(c, a, b, row, depth),
            3 => of_rows::<3>(c, a, b, row, depth),
            4 => of_rows::<4>(c, a, b, row, depth),
            5 => of_rows::<5>(c, a, b, row, depth),
            6 => of_rows::<6>(c, a, b, row, depth),
            7 => of_rows::<7>(c, a, b, row, depth),
            8 => of_rows::<8>(c, a, b, row, depth),
            _ => unreachable!("a tile of {rows} rows"),
        }
    }
}

/// # Safety
/// As for [`tile`], with `R` rows.
#[target_feature(enable = "avx2,fma")]
unsafe fn of_rows<const R: usize>(c: C, a: A, b: *const f32, row: usize, depth: usize) {
    let mut acc = [_mm256_setzero_ps(); R];
    if c.from_c {
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: row i of C has eight values.
            *acc = unsafe { _mm256_loadu_ps(c.at.add(i * c.row)) };
        }
    }
    let whole = depth / STEPS * STEPS;
    let mut a_at = a.at;
    for k in (0..whole).step_by(STEPS) {
        // The next tile's lines, two at a time: as many as are read here.
        for j in [0, 1].map(|j| COLS + 2 * (k / STEPS % 4) + j) {
            prefetch_far(b.wrapping_add(j * row + k / 16 * 16).cast());
        }
        // SAFETY: B has eight columns of `depth` steps.
        for values in unsafe { turned(b.add(k), row) } {
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: A has `R` rows at each of `depth` steps.
                let a = _mm256_set1_ps(unsafe { a_at.add(i * a.row).read() });
                *acc = _mm256_fmadd_ps(a, values, *acc);
            }
            // Wrapping, since after the last step this points past the end.
            a_at = a_at.wrapping_add(a.step);
        }
    }
    for k in whole..depth {
        // SAFETY: as above.
        let values = unsafe {
            let at = |j: usize| b.add(j * row + k).read();
            _mm256_setr_ps(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7))
        };
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: as above.
            let a = _mm256_set1_ps(unsafe { a_at.add(i * a.row).read() });
            *acc = _mm256_fmadd_ps(a, values, *acc);
        }
        a_at = a_at.wrapping_add(a.step);
    }
    for (i, acc) in acc.into_iter().enumerate() {
        // SAFETY: row i of C has eight values, which are ours.
        unsafe { _mm256_storeu_ps(c.at.add(i * c.row), acc) };
    }
}

/// Four steps of K of eight columns: a vector for each step.
///
/// # Safety
/// From `at` on lie four values, and seven times more, `row` values apart.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn turned(at: *const f32, row: usize) -> [__m256; STEPS] {
    // Columns j and j + 4 in the halves of a vector: what follows works within halves.
    let [x0, x1, x2, x3] = [0, 1, 2, 3].map(|j| {
        // SAFETY: the caller's promise.
        let (low, high) = unsafe { (_mm_loadu_ps(at.add(j * row)), _mm_loadu_ps(at.add((j + 4) * row))) };
        _mm256_set_m128(high, low)
    });
    let [low, high] = [(x0, x1), (x2, x3)].map(|(x, y)| (_mm256_unpacklo_ps(x, y), _mm256_unpackhi_ps(x, y)));
    let both = |x: __m256, y: __m256| {
        let (x, y) = (_mm256_castps_pd(x), _mm256_castps_pd(y));
        [_mm256_unpacklo_pd(x, y), _mm256_unpackhi_pd(x, y)].map(|z| _mm256_castpd_ps(z))
    };
    let ([k0, k1], [k2, k3]) = (both(low.0, high.0), both(low.1, high.1));
    [k0, k1, k2, k3]
}
