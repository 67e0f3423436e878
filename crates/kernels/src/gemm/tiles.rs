//! The innermost loops: a tile of C in registers, one multiply-add per element and step of K.
//!
//! A step is a unit of K: one `f32`, or a pair of bfloat16, whose two products join the chain together (the first in
//! the lower half). A unit of A is broadcast for each row of the tile; B gives a few vectors for each step. There is code for
//! every number of rows up to `MR`, so that nothing is read or computed below the last row of C. At the right
//! edge the tile is computed in a buffer, and the columns that C has are copied. Where there is no instruction for pairs, their
//! tile is made of those of `f32`; where there is one for whole tiles, it takes 32 elements of K a step (`amx.rs`).

use super::{Operand, PairPanels};
use crate::isa::Isa;

/// Unit (i, k) of A's part is `at[i * row + k * step]`; or what [`Tile::panel`] makes of it.
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

/// The largest tile.
const MOST: usize = 32 * 32;

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

    /// Whether a large product goes along the rows of C where B's panels do not fit the first-level cache.
    const ALONG_ROWS: bool = false;

    /// The most rows of products whose B is packed in strips; and the most where the rows of A lie side by side besides, so that nothing
    /// is packed before.
    const MOST_ROWS_OF_STRIPS: (usize, usize) = (192, 512);

    /// For products of some rows: the columns of a strip of B, and its steps of K. It is asked for into the second-level cache, and
    /// packed a panel at a time into the first.
    fn strip(_rows: usize) -> (usize, usize) {
        (128, 64)
    }

    /// Panels `width` wide of rows `first..` of the matrix, for `kc` elements of K from `k0` on; zeros past its end.
    fn pack(isa: Isa, panels: &mut [Self::Unit], width: usize, matrix: &Operand, first: usize, k: [usize; 2]);

    /// Steps that go together, in a panel of A and in a chain: where K is cut, it is at a multiple of them.
    const GRAIN: usize = 1;

    /// Units in a row of a panel of A, where `depth` count.
    fn room(depth: usize) -> usize {
        depth.next_multiple_of(Self::GRAIN)
    }

    /// Panels of `height` rows of A, each as [`Tile::panel`] reads them, with [`Tile::room`] units a row; what lies past A's
    /// last row is not looked at.
    fn pack_rows(
        isa: Isa,
        panels: &mut [Self::Unit],
        height: usize,
        a: &Operand,
        first: usize,
        k: [usize; 2],
    ) {
        Self::pack(isa, panels, height, a, first, k);
    }

    /// A packed panel of `height` rows.
    fn panel(at: *const Self::Unit, height: usize) -> A<Self::Unit> {
        A { at, row: 1, step: height }
    }

    /// Panels of [`Tile::NR`] columns from column `first` on, a multiple of it, and `kc` steps of K from `k0` on, which is
    /// even as `kc` is, from panels of pairs. For tiles of `f32`.
    fn widen(isa: Isa, panels: &mut [Self::Unit], pairs: &PairPanels, first: usize, k: [usize; 2]);

    /// Rows of A from `first` on, steps from element `k0` on, where they can be read as they lie.
    fn as_it_lies(a: &Operand, first: usize, k: [usize; 2], n: usize) -> Option<A<Self::Unit>>;

    /// All rows of A, where they can be read as they lie, however slowly.
    fn rows(a: &Operand) -> Option<A<Self::Unit>>;

    /// B from step `k` and column `j` on, where its columns can be read as they lie.
    fn columns(b: &Operand, k: usize, j: usize) -> Option<B<Self::Unit>>;

    /// In a product of so few rows, the steps of K of a B that is read as it lies, before the next columns. None if tiles
    /// would read it too often, so that it is better packed.
    fn lying_steps(_rows: usize) -> Option<usize> {
        None
    }

    /// The columns that are computed, and read from B, where `cols` are wanted: `NR`, or less if few are wanted.
    fn width(_cols: usize) -> usize {
        Self::NR
    }

    /// Runs code that computes several tiles, which may go faster together.
    fn held<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }

    /// A tile of `rows` (1 to `MR`) and `width` columns, a value of [`Tile::width`]. Asks for `LINES` lines of `ahead`
    /// at each step.
    ///
    /// # Safety
    /// `a` can be read for `rows` and `depth`, and its rows or its steps lie side by side if it is of pairs, or it is a [`Tile::panel`] where steps go together ([`Tile::GRAIN`]); and `b` for `depth` and `width`. `c` can be written for `rows` and
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
        ahead: Ahead,
    );

    /// The most rows of [`Tile::wide`].
    const LOW: usize = Self::MR;

    /// The columns that [`Tile::wide`] computes together for this many rows: as many as the registers hold.
    fn wide_cols(_rows: usize) -> usize {
        Self::NR
    }

    /// A tile of `rows` (1 to `LOW`) and `cols` columns of a B that is read as it lies, where `cols` is [`Tile::wide_cols`] of as many
    /// rows or more. Asks for as many lines as it reads.
    ///
    /// # Safety
    /// As for [`Tile::whole`].
    #[allow(clippy::too_many_arguments)]
    unsafe fn wide(
        self,
        rows: usize,
        cols: usize,
        _ahead: Lines,
        c: C,
        a: A<Self::Unit>,
        b: B<Self::Unit>,
        depth: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe { self.whole::<0>(rows, cols, c, a, b, depth, Ahead::none()) };
    }

    /// The most rows of [`Tile::along`], and its columns. None where B's rows must be packed.
    const ALONG: Option<(usize, usize)> = None;

    /// A tile of few rows and the columns of [`Tile::ALONG`] of a B whose rows are read as they lie, along K: element (k, j) is
    /// `b[j * row + k]`.
    ///
    /// # Safety
    /// As for [`Tile::whole`].
    unsafe fn along(
        self,
        _rows: usize,
        _c: C,
        _a: A<Self::Unit>,
        _b: *const Self::Unit,
        _row: usize,
        _depth: usize,
    ) {
        unreachable!("a tile that packs B's rows")
    }

    /// Whether there is [`Tile::packing`].
    const PACKS: bool = false;

    /// A tile of `rows` (1 to `MR`) and `NR` columns of a B that is read as it lies, and stored to `panel` on the way. A's rows
    /// lie side by side. Asks for memory as [`Tile::whole`] does.
    ///
    /// # Safety
    /// As for [`Tile::whole`]; and `panel` can be written for `depth` and `NR`.
    #[allow(clippy::too_many_arguments)]
    unsafe fn packing<const LINES: usize>(
        self,
        _rows: usize,
        _c: C,
        _a: A<Self::Unit>,
        _b: B<Self::Unit>,
        _panel: *mut Self::Unit,
        _depth: usize,
        _ahead: Ahead,
    ) {
        unreachable!("a tile whose B is packed before")
    }

    /// A tile of `rows` (1 to `MR`) and `cols` (1 to `NR`) of C.
    ///
    /// # Safety
    /// As for [`Tile::whole`]; but `c` need only have `cols` columns.
    #[inline(always)]
    unsafe fn run(self, rows: usize, cols: usize, c: C, a: A<Self::Unit>, b: B<Self::Unit>, depth: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.run_ahead::<0>(rows, cols, c, a, b, depth, Ahead::none()) };
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
        ahead: Ahead,
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

/// What the tiles of `f32` have in common, with their steps of K and their task.
macro_rules! floats {
    ($kc:literal, $task:expr) => {
        type Unit = f32;
        const DEEP: usize = 1;
        const KC: usize = $kc;
        const TASK: (usize, usize) = $task;

        fn pack(isa: Isa, panels: &mut [f32], width: usize, matrix: &Operand, first: usize, k: [usize; 2]) {
            match matrix {
                Operand::F32(matrix) => crate::gemm::pack::panels(isa, panels, width, *matrix, first, k),
                Operand::F16(matrix) => crate::gemm::pack::widened(isa, panels, width, *matrix, first, k),
                Operand::Bf16(matrix) => crate::gemm::pack::widened(isa, panels, width, *matrix, first, k),
            }
        }

        fn widen(isa: Isa, panels: &mut [f32], pairs: &PairPanels, first: usize, k: [usize; 2]) {
            crate::gemm::pack::unwoven(isa, panels, Self::NR, pairs, first, k);
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
            let pays = a.col_stride == 1 && n <= crate::gemm::FEW_COLS;
            pays.then(|| A { at: a.at(first, k0), row: a.row_stride, step: 1 })
        }
    };
}

/// What the tiles of pairs have in common, with their steps of K and their task.
macro_rules! pairs {
    ($kc:literal, $task:expr) => {
        type Unit = u32;
        const DEEP: usize = 2;
        const KC: usize = $kc;
        const TASK: (usize, usize) = $task;

        fn pack(isa: Isa, panels: &mut [u32], width: usize, matrix: &Operand, first: usize, k: [usize; 2]) {
            crate::gemm::pairs::panels(isa, panels, width, matrix, first, k);
        }

        fn widen(_: Isa, _: &mut [u32], _: &PairPanels, _: usize, _: [usize; 2]) {
            unreachable!("a tile of pairs reads them as they are")
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

mod ahead;
#[cfg(target_arch = "x86_64")]
mod along;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2_pairs;
#[cfg(target_arch = "x86_64")]
mod packing;
mod plain;
#[cfg(target_arch = "x86_64")]
mod simd;

pub use ahead::{Ahead, Lines, prefetch, prefetch_far, prefetch_near, prefetch_run};
#[cfg(target_arch = "x86_64")]
pub use avx2_pairs::Avx2Pairs;
pub use plain::{Plain, PlainPairs};

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
        match (
            $crate::isa::Amx::detect(),
            $crate::isa::Avx512Bf16::detect(),
            $crate::gemm::tiles::Avx2Pairs::detect(),
        ) {
            (Some($tile), ..) if $isa >= $crate::isa::Isa::Amx => $body,
            (_, Some($tile), _) if $isa >= $crate::isa::Isa::Avx512Bf16 => $body,
            (.., Some($tile)) if $isa >= $crate::isa::Isa::Avx2 => $body,
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
