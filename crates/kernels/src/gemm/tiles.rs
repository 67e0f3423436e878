//! The innermost loops: a tile of C in registers, one multiply-add per element and step of K.
//!
//! A step is a unit of K: one `f32`, or a pair of bfloat16, whose two products join the chain together (the first in
//! the lower half). A unit of A is broadcast for each row of the tile; B gives a few vectors for each step. There is code for
//! every number of rows up to `MR`, so that nothing is read or computed below the last row of C. At the right
//! edge the tile is computed in a buffer, and the columns that C has are copied.

use super::{Operand, pack, pairs};
use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::isa::{Avx2, Avx512, Avx512Bf16};

/// Unit (i, k) of A's part is `at[i * row + k * step]`.
#[derive(Clone, Copy)]
pub struct A<U = f32> {
    /// Unit (0, 0).
    pub at: *const U,
    /// Distance between rows.
    pub row: usize,
    /// Distance between steps of K.
    pub step: usize,
}

/// Unit (k, j) of B's part is `at[k * step + j]`.
#[derive(Clone, Copy)]
pub struct B<U = f32> {
    /// Unit (0, 0).
    pub at: *const U,
    /// Distance between steps of K.
    pub step: usize,
}

/// Element (i, j) of C's part is `at[i * row + j]`.
#[derive(Clone, Copy)]
pub struct C {
    /// Element (0, 0).
    pub at: *mut f32,
    /// Distance between rows.
    pub row: usize,
    /// Whether the chains continue from C's values, or start at zero.
    pub from_c: bool,
}

impl C {
    /// Asks for the rows of a tile that will be wanted soon. Any address may be given.
    #[inline(always)]
    pub fn prefetch(self, rows: usize) {
        (0..rows).for_each(|i| prefetch(self.at.wrapping_add(i * self.row).cast()));
    }
}

/// Asks for a line of memory that will be wanted later, in the second-level cache. Any address may be given.
#[inline(always)]
pub fn prefetch_far(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch is a hint, and reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    let _ = at;
}

/// Asks for a line of memory that will be wanted soon. Any address may be given.
#[inline(always)]
pub fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint, and reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    let _ = at;
}

/// The largest tile.
const MOST: usize = 14 * 32;

/// A micro-kernel.
pub trait Tile: Copy + Sync {
    /// What a panel is made of.
    type Unit: Copy + Default + Send + Sync + 'static;
    /// Elements of K in a unit.
    const DEEP: usize;
    /// The most rows.
    const MR: usize;
    /// The most columns.
    const NR: usize;
    /// Elements of K in a block. Many, so that C is read and written few times: A's panels come from the first-level
    /// cache or the second, and B's from the second, which keeps up.
    const KC: usize;
    /// The largest task's rows and columns.
    const TASK: (usize, usize);

    /// Panels `width` wide of rows `first..` of the matrix, for `kc` elements of K from `k0` on; zeros past its end.
    fn pack(isa: Isa, panels: &mut [Self::Unit], width: usize, matrix: &Operand, first: usize, k: [usize; 2]);

    /// Rows of A from `first` on, steps from element `k0` on, where they can be read as they lie.
    fn as_it_lies(a: &Operand, first: usize, k: [usize; 2], n: usize) -> Option<A<Self::Unit>>;

    /// All rows of A, where they can be read as they lie, however slowly.
    fn rows(a: &Operand) -> Option<A<Self::Unit>>;

    /// B from step `k` and column `j` on, where its columns can be read as they lie.
    fn columns(b: &Operand, k: usize, j: usize) -> Option<B<Self::Unit>>;

    /// The columns that are computed, and read from B, where `cols` are wanted: `NR`, or less if few are wanted.
    fn width(cols: usize) -> usize;

    /// A tile of `rows` (1 to `MR`) and `width` columns, a value of [`Tile::width`]. Asks for `LINES` lines of memory
    /// at each step, from `ahead` on: any address will do.
    ///
    /// # Safety
    /// `a` can be read for `rows` and `depth`, and `b` for `depth` and `width`. `c` can be written for `rows` and
    /// `width`, and read too if `from_c`, and no one else uses these values.
    #[allow(clippy::too_many_arguments)]
    unsafe fn whole<const LINES: usize>(
        self,
        rows: usize,
        width: usize,
        c: C,
        a: A<Self::Unit>,
        b: B<Self::Unit>,
        depth: usize,
        ahead: *const u8,
    );

    /// The columns that [`Tile::wide`] computes together for this many rows: as many as the registers hold.
    fn wide_cols(rows: usize) -> usize;

    /// A tile of `rows` and `cols` columns of a B that is read as it lies, where `cols` is [`Tile::wide_cols`] of as many
    /// rows or more. Asks for as many bytes as it
    /// reads, from `ahead` on in steps of B's, if that is not null.
    ///
    /// # Safety
    /// As for [`Tile::whole`].
    #[allow(clippy::too_many_arguments)]
    unsafe fn wide(
        self,
        rows: usize,
        cols: usize,
        ahead: *const Self::Unit,
        c: C,
        a: A<Self::Unit>,
        b: B<Self::Unit>,
        depth: usize,
    );

    /// A tile of `rows` (1 to `MR`) and `cols` (1 to `NR`) of C.
    ///
    /// # Safety
    /// As for [`Tile::whole`]; but `c` need only have `cols` columns.
    #[inline(always)]
    unsafe fn run(self, rows: usize, cols: usize, c: C, a: A<Self::Unit>, b: B<Self::Unit>, depth: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.run_ahead::<0>(rows, cols, c, a, b, depth, std::ptr::null()) };
    }

    /// [`Tile::run`], asking for memory as [`Tile::whole`] does.
    ///
    /// # Safety
    /// As for [`Tile::run`].
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn run_ahead<const LINES: usize>(
        self,
        rows: usize,
        cols: usize,
        c: C,
        a: A<Self::Unit>,
        b: B<Self::Unit>,
        depth: usize,
        ahead: *const u8,
    ) {
        let width = Self::width(cols);
        if width == cols {
            // SAFETY: the caller's promise.
            return unsafe { self.whole::<LINES>(rows, width, c, a, b, depth, ahead) };
        }
        let mut buffer = [0.0f32; MOST];
        assert!(rows * width <= MOST && cols <= width, "a tile fits the buffer");
        if c.from_c {
            for i in 0..rows {
                // SAFETY: row i of C has `cols` values, and row i of the buffer `width`, which is more.
                unsafe {
                    buffer.as_mut_ptr().add(i * width).copy_from_nonoverlapping(c.at.add(i * c.row), cols)
                };
            }
        }
        let inside = C { at: buffer.as_mut_ptr(), row: width, from_c: c.from_c };
        // SAFETY: the buffer holds `rows` rows of `width`; the rest is the caller's promise.
        unsafe { self.whole::<LINES>(rows, width, inside, a, b, depth, ahead) };
        for i in 0..rows {
            // SAFETY: as above.
            unsafe { c.at.add(i * c.row).copy_from_nonoverlapping(buffer.as_ptr().add(i * width), cols) };
        }
    }
}

/// Plain Rust: the compiler vectorises the inner loop as far as the target allows. 4 × 8 suits 16 registers of 4 lanes.
#[derive(Clone, Copy)]
pub struct Plain<const MR: usize, const NR: usize>;

/// What the tiles of `f32` have in common.
macro_rules! floats {
    () => {
        type Unit = f32;
        const DEEP: usize = 1;
        const KC: usize = 1536;
        const TASK: (usize, usize) = (48, 128);

        fn pack(isa: Isa, panels: &mut [f32], width: usize, matrix: &Operand, first: usize, k: [usize; 2]) {
            match matrix {
                Operand::F32(matrix) => pack::panels(isa, panels, width, *matrix, first, k),
                Operand::F16(matrix) => pack::widened(isa, panels, width, *matrix, first, k),
                Operand::Bf16(matrix) => pack::widened(isa, panels, width, *matrix, first, k),
            }
        }

        fn rows(a: &Operand) -> Option<A> {
            let Operand::F32(a) = a else { return None };
            Some(A { at: a.at(0, 0), row: a.row_stride, step: a.col_stride })
        }

        fn columns(b: &Operand, k: usize, j: usize) -> Option<B> {
            let Operand::F32(b) = b else { return None };
            (b.col_stride == 1).then(|| B { at: b.at(k, j), step: b.row_stride })
        }

        fn as_it_lies(a: &Operand, first: usize, [k0, _]: [usize; 2], n: usize) -> Option<A> {
            let Operand::F32(a) = a else { return None };
            let pays = a.col_stride == 1 && n <= super::FEW_COLS;
            pays.then(|| A { at: a.at(first, k0), row: a.row_stride, step: 1 })
        }
    };
}

/// What the tiles of pairs have in common.
macro_rules! pairs {
    () => {
        type Unit = u32;
        const DEEP: usize = 2;
        const KC: usize = 3072;
        const TASK: (usize, usize) = (56, 128);

        fn pack(isa: Isa, panels: &mut [u32], width: usize, matrix: &Operand, first: usize, k: [usize; 2]) {
            pairs::panels(isa, panels, width, matrix, first, k);
        }

        fn as_it_lies(a: &Operand, first: usize, [k0, kc]: [usize; 2], _n: usize) -> Option<A<u32>> {
            let Operand::Bf16(a) = a else { return None };
            // Whole pairs, and rows that do not all fall into the same sets of the cache.
            let whole = a.row_stride.is_multiple_of(2) && kc.is_multiple_of(2) && k0.is_multiple_of(2);
            let pays = a.col_stride == 1 && whole && !a.row_stride.is_multiple_of(512);
            pays.then(|| A { at: a.at(first, k0).cast(), row: a.row_stride / 2, step: 1 })
        }

        fn rows(a: &Operand) -> Option<A<u32>> {
            let Operand::Bf16(a) = a else { return None };
            let whole = a.cols.is_multiple_of(2) && (a.row_stride.is_multiple_of(2) || a.rows == 1);
            (a.col_stride == 1 && whole).then(|| A { at: a.at(0, 0).cast(), row: a.row_stride / 2, step: 1 })
        }

        fn columns(_b: &Operand, _k: usize, _j: usize) -> Option<B<u32>> {
            None // the elements of a pair do not lie side by side
        }
    };
}

impl<const MR: usize, const NR: usize> Tile for Plain<MR, NR> {
    const MR: usize = MR;
    const NR: usize = NR;
    floats!();

    fn wide_cols(_rows: usize) -> usize {
        NR
    }

    unsafe fn wide(
        self,
        rows: usize,
        _cols: usize,
        _ahead: *const Self::Unit,
        c: C,
        a: A<Self::Unit>,
        b: B<Self::Unit>,
        depth: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe { self.whole::<0>(rows, NR, c, a, b, depth, std::ptr::null()) };
    }

    fn width(_cols: usize) -> usize {
        NR
    }

    unsafe fn whole<const LINES: usize>(
        self,
        rows: usize,
        _width: usize,
        c: C,
        a: A,
        b: B,
        depth: usize,
        _ahead: *const u8,
    ) {
        if rows == MR {
            // SAFETY: the caller's promise.
            return unsafe { plain::<MR, NR>(c, a, b, depth) };
        }
        for i in 0..rows {
            // SAFETY: row i is one of the rows that the caller speaks of.
            unsafe {
                let (c, a) = (C { at: c.at.add(i * c.row), ..c }, A { at: a.at.add(i * a.row), ..a });
                plain::<1, NR>(c, a, b, depth);
            }
        }
    }
}

/// # Safety
/// As for [`Tile::whole`], with `R` rows and `NR` columns.
unsafe fn plain<const R: usize, const NR: usize>(c: C, a: A, b: B, depth: usize) {
    let mut acc = [[0.0f32; NR]; R];
    if c.from_c {
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: row i of C has `NR` values.
            *acc = unsafe { c.at.add(i * c.row).cast::<[f32; NR]>().read() };
        }
    }
    for k in 0..depth {
        // SAFETY: B can be read for `depth` steps of `NR` values.
        let b = unsafe { b.at.add(k * b.step).cast::<[f32; NR]>().read() };
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: A can be read for `R` rows and `depth` steps.
            let a = unsafe { a.at.add(i * a.row + k * a.step).read() };
            for (acc, b) in acc.iter_mut().zip(b) {
                *acc += a * b;
            }
        }
    }
    for (i, acc) in acc.into_iter().enumerate() {
        // SAFETY: row i of C has `NR` values, which are ours.
        unsafe { c.at.add(i * c.row).cast::<[f32; NR]>().write(acc) };
    }
}

/// Pairs of bfloat16 in plain Rust: what the instruction does, to the last bit or nearly.
#[derive(Clone, Copy)]
pub struct PlainPairs<const MR: usize, const NR: usize>;

impl<const MR: usize, const NR: usize> Tile for PlainPairs<MR, NR> {
    const MR: usize = MR;
    const NR: usize = NR;
    pairs!();

    fn wide_cols(_rows: usize) -> usize {
        NR
    }

    unsafe fn wide(
        self,
        rows: usize,
        _cols: usize,
        _ahead: *const Self::Unit,
        c: C,
        a: A<Self::Unit>,
        b: B<Self::Unit>,
        depth: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe { self.whole::<0>(rows, NR, c, a, b, depth, std::ptr::null()) };
    }

    fn width(_cols: usize) -> usize {
        NR
    }

    unsafe fn whole<const LINES: usize>(
        self,
        rows: usize,
        _width: usize,
        c: C,
        a: A<u32>,
        b: B<u32>,
        depth: usize,
        _ahead: *const u8,
    ) {
        let [low, high] =
            [|pair: u32| f32::from_bits(pair << 16), |pair: u32| f32::from_bits(pair & 0xffff_0000)];
        for i in 0..rows {
            // SAFETY: row i of C has `NR` values, which are ours.
            let c_row = unsafe { &mut *c.at.add(i * c.row).cast::<[f32; NR]>() };
            let mut acc = if c.from_c { *c_row } else { [0.0; NR] };
            for k in 0..depth {
                // SAFETY: A and B can be read for `depth` steps; a row of A may start at an odd element.
                let (a, b) = unsafe {
                    let a = a.at.add(i * a.row + k * a.step).read_unaligned();
                    (a, b.at.add(k * b.step).cast::<[u32; NR]>().read())
                };
                for (acc, b) in acc.iter_mut().zip(b) {
                    *acc += high(a) * high(b);
                    *acc += low(a) * low(b);
                }
            }
            *c_row = acc;
        }
    }
}

/// Writes the tile of one vector type: every height given, one or two vectors wide.
#[cfg(target_arch = "x86_64")]
macro_rules! simd_tile {
    (
        $isa:ty, $common:ident, $unit:ty, $features:literal, lanes $lanes:literal, rows $most:literal: [$($rows:literal)*],
        $load:ident, $store:ident, $zero:ident, $load_b:ident, $splat:ident, $fma:ident
    ) => {
        impl Tile for $isa {
            const MR: usize = $most;
            const NR: usize = 2 * $lanes;
            $common!();

            #[inline(always)]
            fn width(cols: usize) -> usize {
                if cols <= $lanes { $lanes } else { 2 * $lanes }
            }

            fn wide_cols(rows: usize) -> usize {
                match $most / rows.max(1) {
                    0..2 => 2 * $lanes,
                    2..4 => 4 * $lanes,
                    _ => 8 * $lanes,
                }
            }

            unsafe fn wide(
                self,
                rows: usize,
                cols: usize,
                ahead: *const $unit,
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
                    (mut ahead, lines): (*const $unit, usize),
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
                    for _ in 0..depth {
                        for line in 0..lines {
                            prefetch_far(ahead.cast::<u8>().wrapping_add(64 * line));
                        }
                        ahead = ahead.wrapping_add(b.step);
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

                let lines = if ahead.is_null() { 0 } else { (cols * size_of::<$unit>()).div_ceil(64) };
                let lines = (ahead, lines);
                // SAFETY: `self` exists, so `detect` has found these features; the rest is the caller's promise.
                unsafe {
                    match rows {
                        $($rows if cols == 8 * $lanes => kernel::<{ if $most / $rows < 4 { 1 } else { $rows } }, 8>(c, a, b, depth, lines),
                        $rows if cols == 4 * $lanes => kernel::<{ if $most / $rows < 2 { 1 } else { $rows } }, 4>(c, a, b, depth, lines),
                        $rows => kernel::<$rows, 2>(c, a, b, depth, lines),)*
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
                ahead: *const u8,
            ) {
                #[allow(unused_imports)]
                use std::arch::x86_64::*;

                /// # Safety
                /// As for [`Tile::whole`], with `R` rows and `V` vectors.
                #[target_feature(enable = $features)]
                #[inline]
                unsafe fn kernel<const R: usize, const V: usize, const LINES: usize>(
                    c: C,
                    a: A<$unit>,
                    b: B<$unit>,
                    depth: usize,
                    mut ahead: *const u8,
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
                    for _ in 0..depth {
                        (0..LINES).for_each(|line| prefetch(ahead.wrapping_add(64 * line)));
                        ahead = ahead.wrapping_add(64 * LINES);
                        // SAFETY: B has `V` vectors at each of `depth` steps.
                        let values: [_; V] = std::array::from_fn(|v| unsafe { $load_b(b_at.add(v * $lanes)) });
                        for i in 0..R {
                            // SAFETY: A has `R` rows at each of `depth` steps.
                            let a = $splat(unsafe { a_at.add(i * a.row).read_unaligned() });
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
                /// The same for panels whose `R` rows lie side by side, which is known to the compiler.
                ///
                /// # Safety
                /// As for [`Tile::whole`].
                #[target_feature(enable = $features)]
                unsafe fn packed<const V: usize>(c: C, a: A<$unit>, b: B<$unit>, depth: usize) {
                    let (a, b) = (A { row: 1, step: $most, ..a }, B { step: 2 * $lanes, ..b });
                    // SAFETY: the caller's promise.
                    unsafe { kernel::<$most, V, 0>(c, a, b, depth, std::ptr::null()) }
                }

                let is_packed = LINES == 0 && rows == $most && a.row == 1 && a.step == $most && b.step == 2 * $lanes;
                // SAFETY: `self` exists, so `detect` has found these features; the rest is the caller's promise.
                unsafe {
                    match (rows, width == $lanes) {
                        (_, false) if is_packed => packed::<2>(c, a, b, depth),
                        $(($rows, true) => kernel::<$rows, 1, LINES>(c, a, b, depth, ahead),)*
                        $(($rows, false) => kernel::<$rows, 2, LINES>(c, a, b, depth, ahead),)*
                        _ => unreachable!("a tile of {rows} rows"),
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
simd_tile!(
    Avx2, floats, f32, "avx2,fma", lanes 8, rows 6: [1 2 3 4 5 6],
    _mm256_loadu_ps, _mm256_storeu_ps, _mm256_setzero_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps
);
#[cfg(target_arch = "x86_64")]
simd_tile!(
    Avx512, floats, f32, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", lanes 16,
    rows 14: [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
    _mm512_loadu_ps, _mm512_storeu_ps, _mm512_setzero_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fmadd_ps
);
#[cfg(target_arch = "x86_64")]
simd_tile!(
    Avx512Bf16, pairs, u32, "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", lanes 16,
    rows 14: [1 2 3 4 5 6 7 8 9 10 11 12 13 14],
    _mm512_loadu_ps, _mm512_storeu_ps, _mm512_setzero_ps, load_pairs, splat_pair, multiply_pairs
);

/// Sixteen pairs.
///
/// # Safety
/// They can be read.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bf16,avx512f")]
#[inline]
unsafe fn load_pairs(at: *const u32) -> std::arch::x86_64::__m512bh {
    use std::arch::x86_64::*;
    // SAFETY: the caller's promise; and both types are 64 bytes of anything.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(at.cast())) }
}

/// A pair in every lane.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bf16,avx512f")]
#[inline]
fn splat_pair(pair: u32) -> std::arch::x86_64::__m512bh {
    use std::arch::x86_64::*;
    // SAFETY: both types are 64 bytes of anything.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair as i32)) }
}

/// The products of a lane's pair, added to the lane.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bf16,avx512f")]
#[inline]
fn multiply_pairs(
    a: std::arch::x86_64::__m512bh,
    b: std::arch::x86_64::__m512bh,
    acc: std::arch::x86_64::__m512,
) -> std::arch::x86_64::__m512 {
    std::arch::x86_64::_mm512_dpbf16_ps(acc, a, b)
}

/// Evaluates an expression with the tile of an instruction set.
macro_rules! with_tile {
    ($isa:expr, |$tile:ident| $body:expr) => {{
        #[cfg(target_arch = "x86_64")]
        match ($crate::isa::Avx512::detect(), $crate::isa::Avx2::detect()) {
            (Some($tile), _) if $isa >= $crate::isa::Isa::Avx512 => $body,
            (_, Some($tile)) if $isa >= $crate::isa::Isa::Avx2 => $body,
            _ => {
                let $tile = $crate::gemm::tiles::Plain::<4, 8>;
                $body
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let $tile = $crate::gemm::tiles::Plain::<4, 8>;
            $body
        }
    }};
}
pub(crate) use with_tile;

/// The same for pairs of bfloat16.
macro_rules! with_pair_tile {
    ($isa:expr, |$tile:ident| $body:expr) => {{
        #[cfg(target_arch = "x86_64")]
        match $crate::isa::Avx512Bf16::detect() {
            Some($tile) if $isa >= $crate::isa::Isa::Avx512Bf16 => $body,
            _ => {
                let $tile = $crate::gemm::tiles::PlainPairs::<4, 32>;
                $body
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let $tile = $crate::gemm::tiles::PlainPairs::<4, 32>;
            $body
        }
    }};
}
pub(crate) use with_pair_tile;
