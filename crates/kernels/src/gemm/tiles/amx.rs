//! Tiles of pairs in the registers that hold a whole tile (AMX): one instruction multiplies 16 rows by 16 columns for 32
//! elements of K.
//!
//! A register is 16 rows of 64 bytes: of C, 16 sums; of A, 16 pairs along K; of B, one step's pairs for 16 columns.
//! The instruction sums the 16 products of the pairs' lower halves from zero, and those of the upper ones, and adds the sum of both
//! to C. So the chain of an element has a link for every 32 elements of K, counted from K = 0; zeros stand past K's end.
//!
//! A's panels are made for this: 16 units of each row after the other, then the next 16. The same steps, `row` and
//! `step`, describe an A that lies in rows: chunk c of row i is at `i * row + c * 16 * step`.

use std::arch::x86_64::*;

use super::{A, Ahead, B, C, Lines, Operand, PairPanels, Tile};
use crate::amx::{self, SIDE, Shapes, tiles};
use crate::bf16::bf16;
use crate::gemm::Mat;
use crate::gemm::pairs::simd::{self, transpose};
use crate::isa::{Amx, Isa};

impl Tile for Amx {
    const MR: usize = 2 * SIDE;
    const NR: usize = 2 * SIDE;
    const GRAIN: usize = SIDE;
    pairs!(1024, (256, 256));

    fn pack_rows(isa: Isa, panels: &mut [u32], height: usize, a: &Operand, first: usize, k: [usize; 2]) {
        pack(isa, panels, height, a, first, k);
    }

    fn panel(at: *const u32, height: usize) -> A<u32> {
        A { at, row: SIDE, step: height }
    }

    fn width(cols: usize) -> usize {
        cols.next_multiple_of(SIDE)
    }

    fn wide_cols(rows: usize) -> usize {
        if rows <= SIDE { 4 * SIDE } else { 2 * SIDE }
    }

    fn held<R>(self, f: impl FnOnce() -> R) -> R {
        amx::held(self, f)
    }

    #[inline(always)]
    unsafe fn whole<const LINES: usize>(
        self,
        rows: usize,
        width: usize,
        c: C,
        a: A<u32>,
        b: B<u32>,
        depth: usize,
        ahead: Ahead,
    ) {
        let ask = |chunk: usize| {
            (chunk * SIDE..(chunk + 1) * SIDE).for_each(|step| ahead.ask::<LINES>(step));
        };
        // SAFETY: the caller's promise.
        unsafe { product(rows, width, c, a, b, depth, ask) };
    }

    #[inline(always)]
    unsafe fn wide(self, rows: usize, cols: usize, ahead: Lines, c: C, a: A<u32>, b: B<u32>, depth: usize) {
        let ask = |chunk: usize| {
            (chunk * SIDE..(chunk + 1) * SIDE).for_each(|step| ahead.ask(step, cols / SIDE));
        };
        // SAFETY: the caller's promise.
        unsafe {
            if ahead.at.is_null() {
                product(rows, cols, c, a, b, depth, |_| ())
            } else {
                product(rows, cols, c, a, b, depth, ask)
            }
        };
    }
}

/// `rows` rows and `cols` columns of C, whole registers wide: two registers of rows and two of columns, or one of rows and four of
/// columns, at most. Calls `ask` for each chunk of K.
///
/// # Safety
/// As for [`Tile::whole`].
#[inline(always)]
unsafe fn product(rows: usize, cols: usize, c: C, a: A<u32>, b: B<u32>, depth: usize, ask: impl Fn(usize)) {
    // SAFETY: the caller's promise; the CPU has these instructions, since an `Amx` exists.
    unsafe {
        match (rows > SIDE, cols / SIDE) {
            (false, 1) => registers::<1, 1>(rows, c, a, b, depth, ask),
            (false, 2) => registers::<1, 2>(rows, c, a, b, depth, ask),
            (false, 3) => registers::<1, 3>(rows, c, a, b, depth, ask),
            (false, 4) => registers::<1, 4>(rows, c, a, b, depth, ask),
            (true, 1) => registers::<2, 1>(rows, c, a, b, depth, ask),
            (true, 2) => registers::<2, 2>(rows, c, a, b, depth, ask),
            _ => unreachable!("a tile of {rows} × {cols}"),
        }
    }
}

/// An instruction for each register of C, of `$r` by `$v` parts, with the corner of its part: `$before` and `$after` stand around its name.
macro_rules! each_sum {
    ($r:expr, $v:expr, $before:literal, $after:literal, $corner:expr, $row:expr) => {
        each_sum!(true, "tmm0", 0, 0, $before, $after, $corner, $row);
        each_sum!($r > 1, "tmm1", 1, 0, $before, $after, $corner, $row);
        each_sum!($v > 1, "tmm2", 0, 1, $before, $after, $corner, $row);
        each_sum!($r > 1 && $v > 1, "tmm3", 1, 1, $before, $after, $corner, $row);
        each_sum!($v > 2, "tmm1", 0, 2, $before, $after, $corner, $row);
        each_sum!($v > 3, "tmm3", 0, 3, $before, $after, $corner, $row);
    };
    ($there:expr, $name:literal, $i:literal, $j:literal, $before:literal, $after:literal, $corner:expr, $row:expr) => {
        if $there {
            tiles!(concat!($before, $name, $after); at = $corner($i, $j); row = $row);
        }
    };
}

/// [`product`] with `R` registers of rows and `V` of columns.
///
/// # Safety
/// As for [`Tile::whole`].
unsafe fn registers<const R: usize, const V: usize>(
    rows: usize,
    c: C,
    a: A<u32>,
    b: B<u32>,
    depth: usize,
    ask: impl Fn(usize),
) {
    let c_row = 4 * c.row;
    let corner = |r: usize, v: usize| c.at.wrapping_add(SIDE * (r * c.row + v));
    // C in registers 0 to 3, A in 4 and 5, B in 6 and 7. What there is of a second half of rows lies in 1, 3 and 5.
    let shapes = || {
        let upper = (rows.min(SIDE), 64);
        let second = if R > 1 { (rows - SIDE, 64) } else { upper };
        Shapes::new([upper, second, upper, second, upper, second, (SIDE, 64), (SIDE, 64)])
    };
    // SAFETY: the caller's promise: C has these rows and columns.
    unsafe {
        amx::shape(rows, shapes);
        if c.from_c {
            each_sum!(R, V, "tileloadd ", ", [{at} + {row}]", corner, c_row);
        } else {
            tiles!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3");
        }
    }
    let chunk = |at: A<u32>, from: B<u32>| {
        let (a_row, b_step) = (4 * at.row, 4 * from.step);
        let columns = |v: usize| from.at.wrapping_add(v * SIDE);
        let below = at.at.wrapping_add(SIDE * at.row);
        // SAFETY: by the caller's promise A has these rows, and B these columns, for 16 units of K.
        unsafe {
            tiles!("tileloadd tmm4, [{at} + {row}]"; at = at.at; row = a_row);
            tiles!("tileloadd tmm6, [{at} + {row}]"; at = columns(0); row = b_step);
            tiles!("tdpbf16ps tmm0, tmm4, tmm6");
            if R > 1 {
                tiles!("tileloadd tmm5, [{at} + {row}]"; at = below; row = a_row);
                tiles!("tdpbf16ps tmm1, tmm5, tmm6");
            }
            if V > 1 {
                tiles!("tileloadd tmm7, [{at} + {row}]"; at = columns(1); row = b_step);
                tiles!("tdpbf16ps tmm2, tmm4, tmm7");
                if R > 1 {
                    tiles!("tdpbf16ps tmm3, tmm5, tmm7");
                }
            }
            if V > 2 {
                tiles!("tileloadd tmm6, [{at} + {row}]"; at = columns(2); row = b_step);
                tiles!("tdpbf16ps tmm1, tmm4, tmm6");
            }
            if V > 3 {
                tiles!("tileloadd tmm7, [{at} + {row}]"; at = columns(3); row = b_step);
                tiles!("tdpbf16ps tmm3, tmm4, tmm7");
            }
        }
    };
    let (whole, rest) = (depth / SIDE, depth % SIDE);
    for i in 0..whole {
        ask(i);
        let a_at = A { at: a.at.wrapping_add(i * SIDE * a.step), ..a };
        chunk(a_at, B { at: b.at.wrapping_add(i * SIDE * b.step), ..b });
    }
    if rest > 0 {
        // The last steps go through buffers, with zeros after them.
        ask(whole);
        let (mut a_rows, mut b_steps) = ([[0; SIDE]; 2 * SIDE], [[0; 4 * SIDE]; SIDE]);
        for (i, row) in a_rows.iter_mut().enumerate().take(rows) {
            let from = a.at.wrapping_add(whole * SIDE * a.step + i * a.row);
            // SAFETY: by the caller's promise these units of A can be read, side by side, at any address.
            unsafe { row.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from.cast(), 4 * rest) };
        }
        for (k, step) in b_steps.iter_mut().enumerate().take(rest) {
            let from = b.at.wrapping_add((whole * SIDE + k) * b.step);
            // SAFETY: by the caller's promise these units of B can be read.
            unsafe { step.as_mut_ptr().copy_from_nonoverlapping(from, V * SIDE) };
        }
        let (a_at, b_at) = (a_rows.as_ptr().cast(), b_steps.as_ptr().cast());
        chunk(A { at: a_at, row: SIDE, step: 1 }, B { at: b_at, step: 4 * SIDE });
    }
    // SAFETY: C has these rows and columns, which are ours.
    unsafe {
        each_sum!(R, V, "tilestored [{at} + {row}], ", "", corner, c_row);
    }
}

/// Packs as many panels of `height` rows as there are.
fn pack(isa: Isa, panels: &mut [u32], height: usize, a: &Operand, first: usize, k: [usize; 2]) {
    let (room, there) = (k[1].div_ceil(2).next_multiple_of(SIDE), Amx::detect().is_some());
    for (p, panel) in panels.chunks_exact_mut(height * room).enumerate() {
        let first = first + p * height;
        let rows = height.min(a.rows().saturating_sub(first));
        match a {
            // SAFETY: an `Amx` exists, which is on no CPU without AVX-512 and its bfloat16.
            Operand::F32(a) if there && (a.row_stride == 1 || a.col_stride == 1) => unsafe {
                floats(panel, height, *a, first, rows, k);
            },
            // SAFETY: as above.
            Operand::Bf16(a) if there && (a.row_stride == 1 || a.col_stride == 1) => unsafe {
                halves(panel, height, *a, first, rows, k);
            },
            _ => turned(isa, panel, height, a, first, k),
        }
    }
}

/// A panel of a matrix of any layout: a panel of B's kind, of which each chunk is turned.
fn turned(isa: Isa, panel: &mut [u32], height: usize, a: &Operand, first: usize, k: [usize; 2]) {
    let mut chunk = vec![0; height * SIDE];
    for (i, out) in panel.chunks_exact_mut(height * SIDE).enumerate() {
        let (k0, kc) = (k[0] + i * 2 * SIDE, (k[1] - i * 2 * SIDE).min(2 * SIDE));
        let units = kc.div_ceil(2);
        crate::gemm::pairs::panels(isa, &mut chunk[..height * units], height, a, first, [k0, kc]);
        for (r, row) in out.chunks_exact_mut(SIDE).enumerate() {
            row.iter_mut().enumerate().for_each(|(u, unit)| {
                *unit = if u < units { chunk[u * height + r] } else { 0 };
            });
        }
    }
}

/// Writes the function that packs a panel of one type.
macro_rules! packer {
    ($name:ident, $element:ty, $along_k:path, $two_rows:path) => {
        #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl")]
        fn $name(
            panel: &mut [u32],
            height: usize,
            a: Mat<$element>,
            first: usize,
            rows: usize,
            [k0, kc]: [usize; 2],
        ) {
            assert!(
                a.is_whole() && k0 + kc <= a.cols && first + rows <= a.rows.max(first),
                "A has these rows"
            );
            for (i, chunk) in panel.chunks_exact_mut(height * SIDE).enumerate() {
                let (k, steps) = (k0 + i * 2 * SIDE, (kc - i * 2 * SIDE).min(2 * SIDE));
                if a.col_stride == 1 {
                    for (r, out) in chunk.chunks_exact_mut(SIDE).enumerate().take(rows) {
                        // SAFETY: the row has these elements, and `out` 16 units.
                        unsafe {
                            let units = $along_k(a.at(first + r, k), steps);
                            _mm512_storeu_si512(out.as_mut_ptr().cast(), units);
                        }
                    }
                    continue;
                }
                for r in (0..rows).step_by(SIDE) {
                    let lanes = (rows - r).min(SIDE);
                    let mut units = [_mm512_setzero_si512(); SIDE];
                    for (u, units) in units.iter_mut().enumerate().take(steps.div_ceil(2)) {
                        let low = a.at(first + r, k + 2 * u);
                        let high = (2 * u + 1 < steps).then(|| a.at(first + r, k + 2 * u + 1));
                        // SAFETY: both columns have these rows.
                        *units = unsafe { $two_rows(low, high, lanes) };
                    }
                    let out = chunk[r * SIDE..].chunks_exact_mut(SIDE).take(lanes);
                    for (out, row) in out.zip(transpose(units)) {
                        // SAFETY: `out` has 16 units.
                        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), row) };
                    }
                }
            }
        }
    };
}
packer!(floats, f32, simd::floats_along_k, simd::floats_of_two_rows);
packer!(halves, bf16, simd::halves_along_k, simd::halves_of_two_rows);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::{Output, multiply_on};
    use crate::random::Stream;

    #[test]
    fn a_chain_has_a_link_for_every_32_of_k() {
        if Amx::detect().is_none() {
            eprintln!("SKIPPED: this CPU has no tiles");
            return;
        }
        let random = |len: usize, seed: u64| -> Vec<bf16> {
            let stream = Stream::new(seed, 0, 0);
            (0..len as u64).map(|i| bf16::from_f32(stream.normal(i))).collect()
        };
        for [m, k, n] in [[1, 32, 16], [40, 100, 50], [33, 1200, 70], [97, 1200, 70]] {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let mut c = vec![0.0; m * n];
            let views = [Mat::new(&a, m, k), Mat::new(&b, k, n)].map(Operand::from);
            multiply_on(Isa::Amx, views[0], views[1], Output::Set(&mut c));
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let mut want = 0.0f32;
                for chunk in (0..k).step_by(2 * SIDE) {
                    let mut halves = [0.0f32; 2];
                    for at in chunk..k.min(chunk + 2 * SIDE) {
                        let sum = &mut halves[at % 2];
                        *sum = a[i * k + at].to_f32().mul_add(b[at * n + j].to_f32(), *sum);
                    }
                    want += halves[0] + halves[1];
                }
                assert_eq!(c[i * n + j], want, "{m} × {k} × {n} ({i}, {j})");
            }
        }
    }
}
