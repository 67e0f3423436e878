//! Tiles of one vector type each, whose products are one instruction: AVX2 and AVX-512 for `f32`, AVX-512 for pairs.

use super::{A, Ahead, B, C, Lines, Operand, PairPanels, Tile, along, packing, prefetch};
use crate::isa::{Avx2, Avx512, Avx512Bf16, Isa};

/// Writes the tile of one vector type: all heights and widths (in vectors) of a list, of which the largest is named first; `low` is
/// the list of heights for a B that is read as it lies. `room` is how many registers may hold sums. `near` is for how many steps ahead
/// packed vectors of B are asked for in the first-level cache; their tasks go along rows.
macro_rules! simd_tile {
    (
        $isa:ty, $common:ident($($sizes:tt)*), $unit:ty, $features:literal, $(lying $lying:expr,)? $(packing $packing:ident, along $along:literal,)? $(strips to $most_of_strips:expr,)? $(strip $strip:expr,)? $(near $near:literal,)? lanes $lanes:literal, room $room:literal,
        vectors $vectors:literal: [$($v:literal)*], rows $most:literal: [$($rows:literal)*], low $low:literal: [$($few:literal)*],
        $load:ident, $store:ident, $zero:ident, $load_b:ident, $splat:ident, $fma:ident
    ) => {
        impl Tile for $isa {
            const MR: usize = $most;
            const NR: usize = $vectors * $lanes;
            $common!($($sizes)*);

            #[inline(always)]
            fn width(cols: usize) -> usize {
                cols.div_ceil($lanes).next_power_of_two() * $lanes
            }

            $(fn lying_steps(rows: usize) -> Option<usize> {
                $lying(rows)
            })?

            $(
                const ALONG: Option<(usize, usize)> = Some(($along, along::COLS));

                unsafe fn along(self, rows: usize, c: C, a: A, b: *const f32, row: usize, depth: usize) {
                    // SAFETY: `self` exists, so the CPU has AVX2, too; the rest is the caller's promise.
                    unsafe { along::tile(rows, c, a, b, row, depth) };
                }

                const PACKS: bool = true;

                unsafe fn packing<const LINES: usize>(
                    self,
                    rows: usize,
                    c: C,
                    a: A,
                    b: B,
                    panel: *mut f32,
                    depth: usize,
                    ahead: Ahead,
                ) {
                    // SAFETY: `self` exists, so `detect` has found these features; the rest is the caller's promise.
                    unsafe { packing::$packing::<LINES>(rows, c, a, b, panel, depth, ahead) };
                }
            )?

            $(const MOST_ROWS_OF_STRIPS: (usize, usize) = $most_of_strips;)?

            $(fn strip(rows: usize) -> (usize, usize) {
                $strip(rows)
            })?

            $(const ALONG_ROWS: bool = $near > 0;)?

            const LOW: usize = $low;

            fn wide_cols(rows: usize) -> usize {
                match $room / rows.max(1) {
                    0..4 => 2 * $lanes,
                    4..8 => 4 * $lanes,
                    _ => 8 * $lanes,
                }
            }

            unsafe fn wide(
                self,
                rows: usize,
                cols: usize,
                ahead: Lines,
                c: C,
                a: A<$unit>,
                b: B<$unit>,
                depth: usize,
            ) {
                #[allow(unused_imports)]
                use std::arch::x86_64::*;

                /// # Safety
                /// As for [`Tile::whole`], with `R` rows and `V` vectors.
                #[target_feature(enable = $features)]
                unsafe fn kernel<const R: usize, const V: usize>(
                    c: C,
                    a: A<$unit>,
                    b: B<$unit>,
                    depth: usize,
                    ahead: Lines,
                ) {
                    let mut acc = [[$zero(); V]; R];
                    if c.from_c {
                        for i in 0..R {
                            for v in 0..V {
                                // SAFETY: row i of C has `V` vectors.
                                acc[i][v] = unsafe { $load(c.at.add(i * c.row + v * $lanes)) };
                            }
                        }
                    }
                    let (mut a_at, mut b_at) = (a.at, b.at);
                    for step in 0..depth {
                        ahead.ask(step, V * $lanes * size_of::<$unit>() / 64);
                        let mut scalars = [$splat(Default::default()); R];
                        for (i, scalar) in scalars.iter_mut().enumerate() {
                            // SAFETY: A has `R` rows at each of `depth` steps.
                            *scalar = $splat(unsafe { a_at.add(i * a.row).read_unaligned() });
                        }
                        for v in 0..V {
                            // SAFETY: B has `V` vectors at each of `depth` steps.
                            let value = unsafe { $load_b(b_at.add(v * $lanes)) };
                            for i in 0..R {
                                acc[i][v] = $fma(scalars[i], value, acc[i][v]);
                            }
                        }
                        // Wrapping, since after the last step these point past the end.
                        (a_at, b_at) = (a_at.wrapping_add(a.step), b_at.wrapping_add(b.step));
                    }
                    for i in 0..R {
                        for v in 0..V {
                            // SAFETY: row i of C has `V` vectors, which are ours.
                            unsafe { $store(c.at.add(i * c.row + v * $lanes), acc[i][v]) };
                        }
                    }
                }

                // To ask for what is being read costs little, and the loop need not decide.
                let ahead = if ahead.at.is_null() { Lines::below(b.at, b) } else { ahead };
                // SAFETY: `self` exists, so `detect` has found these features; the rest is the caller's promise.
                unsafe {
                    match rows {
                        $($few if cols == 8 * $lanes => kernel::<{ if $room / $few < 8 { 1 } else { $few } }, 8>(c, a, b, depth, ahead),
                        $few if cols == 4 * $lanes => kernel::<{ if $room / $few < 4 { 1 } else { $few } }, 4>(c, a, b, depth, ahead),
                        $few => kernel::<$few, 2>(c, a, b, depth, ahead),)*
                        _ => unreachable!("a tile of {rows} rows"),
                    }
                }
            }

            #[inline(always)]
            unsafe fn whole<const LINES: usize>(
                self,
                rows: usize,
                width: usize,
                c: C,
                a: A<$unit>,
                b: B<$unit>,
                depth: usize,
                ahead: Ahead,
            ) {
                #[allow(unused_imports)]
                use std::arch::x86_64::*;

                /// `R` rows and `V` vectors. Where A's rows lie side by side, as in a `PANEL`, their places are constants.
                ///
                /// # Safety
                /// As for [`Tile::whole`].
                #[target_feature(enable = $features)]
                #[inline]
                unsafe fn kernel<const R: usize, const V: usize, const LINES: usize, const PANEL: bool>(
                    c: C,
                    a: A<$unit>,
                    b: B<$unit>,
                    depth: usize,
                    ahead: Ahead,
                ) {
                    let row = if PANEL { 1 } else { a.row };
                    let mut acc = [[$zero(); V]; R];
                    if c.from_c {
                        for i in 0..R {
                            for v in 0..V {
                                // SAFETY: row i of C has `V` vectors.
                                acc[i][v] = unsafe { $load(c.at.add(i * c.row + v * $lanes)) };
                            }
                        }
                    }
                    let (mut a_at, mut b_at) = (a.at, b.at);
                    for step in 0..depth {
                        ahead.ask::<LINES>(step);
                        $(if LINES == 0 {
                            (0..V).for_each(|v| prefetch(b_at.wrapping_add($near * b.step + v * $lanes).cast()));
                        })?
                        // SAFETY: B has `V` vectors at each of `depth` steps.
                        let values: [_; V] = std::array::from_fn(|v| unsafe { $load_b(b_at.add(v * $lanes)) });
                        for i in 0..R {
                            // SAFETY: A has `R` rows at each of `depth` steps.
                            let a = $splat(unsafe { a_at.add(i * row).read_unaligned() });
                            for v in 0..V {
                                acc[i][v] = $fma(a, values[v], acc[i][v]);
                            }
                        }
                        // Wrapping, since after the last step these point past the end.
                        (a_at, b_at) = (a_at.wrapping_add(a.step), b_at.wrapping_add(b.step));
                    }
                    for i in 0..R {
                        for v in 0..V {
                            // SAFETY: row i of C has `V` vectors, which are ours.
                            unsafe { $store(c.at.add(i * c.row + v * $lanes), acc[i][v]) };
                        }
                    }
                }

                /// A tile of `V` vectors.
                ///
                /// # Safety
                /// As for [`Tile::whole`].
                #[target_feature(enable = $features)]
                #[inline]
                unsafe fn of_width<const V: usize, const LINES: usize>(
                    rows: usize,
                    c: C,
                    a: A<$unit>,
                    b: B<$unit>,
                    depth: usize,
                    ahead: Ahead,
                ) {
                    // SAFETY: the caller's promise.
                    unsafe {
                        match (rows, a.row == 1) {
                            $(($rows, false) => kernel::<$rows, V, LINES, false>(c, a, b, depth, ahead),
                            ($rows, true) => kernel::<$rows, V, LINES, true>(c, a, b, depth, ahead),)*
                            _ => unreachable!("a tile of {rows} rows"),
                        }
                    }
                }

                // SAFETY: `self` exists, so `detect` has found these features; the rest is the caller's promise.
                unsafe {
                    match width / $lanes {
                        $($v => of_width::<$v, LINES>(rows, c, a, b, depth, ahead),)*
                        _ => unreachable!("a tile of {width} columns"),
                    }
                }
            }
        }
    };
}

simd_tile!(
    Avx2, floats(1536, (48, 128)), f32, "avx2,fma", lying |rows| match rows { 0..3 => Some(8), 3..9 => Some(16), _ => None }, packing avx2, along 8, strips to (47, 47), lanes 8, room 12,
    vectors 2: [1 2], rows 6: [1 2 3 4 5 6], low 6: [1 2 3 4 5 6],
    _mm256_loadu_ps, _mm256_storeu_ps, _mm256_setzero_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps
);
simd_tile!(
    Avx512, floats(768, (384, 128)), f32, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", lying |rows| match rows { 0..3 => Some(8), 3..9 => Some(32), _ => None }, packing avx512, along 4,
    strip |rows| match rows { 0..41 => (512, 64), _ => (512, 128) }, near 16, lanes 16, room 28,
    vectors 4: [1 2 4], rows 6: [1 2 3 4 5 6], low 8: [1 2 3 4 5 6 7 8],
    _mm512_loadu_ps, _mm512_storeu_ps, _mm512_setzero_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fmadd_ps
);
simd_tile!(
    Avx512Bf16, pairs(3072, (56, 128)), u32, "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", lanes 16, room 28,
    vectors 2: [1 2], rows 14: [1 2 3 4 5 6 7 8 9 10 11 12 13 14], low 14: [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
    _mm512_loadu_ps, _mm512_storeu_ps, _mm512_setzero_ps, load_pairs, splat_pair, multiply_pairs
);

/// Sixteen pairs.
///
/// # Safety
/// They can be read.
#[target_feature(enable = "avx512bf16,avx512f")]
#[inline]
unsafe fn load_pairs(at: *const u32) -> std::arch::x86_64::__m512bh {
    use std::arch::x86_64::*;
    // SAFETY: the caller's promise; and both types are 64 bytes of anything.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(at.cast())) }
}

/// A pair in every lane.
#[target_feature(enable = "avx512bf16,avx512f")]
#[inline]
fn splat_pair(pair: u32) -> std::arch::x86_64::__m512bh {
    use std::arch::x86_64::*;
    // SAFETY: both types are 64 bytes of anything.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair as i32)) }
}

/// The products of a lane's pair, added to the lane.
#[target_feature(enable = "avx512bf16,avx512f")]
#[inline]
fn multiply_pairs(
    a: std::arch::x86_64::__m512bh,
    b: std::arch::x86_64::__m512bh,
    acc: std::arch::x86_64::__m512,
) -> std::arch::x86_64::__m512 {
    std::arch::x86_64::_mm512_dpbf16_ps(acc, a, b)
}
