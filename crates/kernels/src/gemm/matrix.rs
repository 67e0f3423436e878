//! The factors of a product: matrices seen through strides, of each type of values, and weights in all their forms.

use std::ops::Range;

use super::tiles::{Ahead, prefetch_run};
use super::{pair_strips, pairs};
use crate::bf16::{Values, bf16, f16};
use crate::blocks::BlockMatrix;
use crate::{isa, pool};

/// A matrix seen through strides: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, T = f32> {
    /// The values.
    pub data: &'a [T],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Distance from a row to the next.
    pub row_stride: usize,
    /// Distance from a column to the next.
    pub col_stride: usize,
}

/// A factor of a product. If one of the two factors is bfloat16, the other is rounded to it, too; but where one is
/// half precision, the product is computed in `f32`.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// 32 bits a value.
    F32(Mat<'a>),
    /// 16 bits a value.
    Bf16(Mat<'a, bf16>),
    /// 16 bits a value, of them 10 behind the point. For weights only.
    F16(Mat<'a, f16>),
}

impl<'a> From<Mat<'a>> for Operand<'a> {
    fn from(mat: Mat<'a>) -> Operand<'a> {
        Operand::F32(mat)
    }
}

impl<'a> From<Mat<'a, f16>> for Operand<'a> {
    fn from(mat: Mat<'a, f16>) -> Operand<'a> {
        Operand::F16(mat)
    }
}

impl<'a> From<Mat<'a, bf16>> for Operand<'a> {
    fn from(mat: Mat<'a, bf16>) -> Operand<'a> {
        Operand::Bf16(mat)
    }
}

/// The right factor of a product, as it is kept.
#[derive(Clone, Copy, Debug)]
pub enum Weight<'a> {
    /// A matrix of any layout.
    Dense(Operand<'a>),
    /// bfloat16 in panels.
    Pairs(PairPanels<'a>),
    /// Few bits a value, in blocks; the other factor is rounded to 8 bits.
    Blocks(BlockMatrix<'a>),
}

/// A bfloat16 matrix (K, N) that lies as products read it: panels of 32 columns; in a panel, pairs of two steps of K (the
/// first in the lower half), for each pair of steps 32 units of 32 bits. Zeros stand past the last row and column.
#[derive(Clone, Copy, Debug)]
pub struct PairPanels<'a> {
    pub(super) data: &'a [u32],
    pub(super) k: usize,
    pub(super) n: usize,
}

impl<'a> PairPanels<'a> {
    /// Units that a matrix takes.
    pub fn len_for(k: usize, n: usize) -> usize {
        pair_strips::panels_len(k, n)
    }

    /// A view of packed values.
    pub fn new(data: &'a [u32], k: usize, n: usize) -> PairPanels<'a> {
        assert_eq!(data.len(), PairPanels::len_for(k, n), "panels of a {k} × {n} matrix");
        PairPanels { data, k, n }
    }

    /// Packs a matrix (K, N), on all threads; values of other types are rounded.
    pub fn pack(data: &mut [u32], matrix: Operand) {
        let (k, isa) = (matrix.rows(), isa::current());
        assert_eq!(data.len(), PairPanels::len_for(k, matrix.cols()));
        let size = PairPanels::len_for(k, 1);
        pool::for_each_chunk_mut(data, size, |panel, units| {
            pairs::panels(isa, units, pair_strips::WIDTH, &matrix.t(), panel * pair_strips::WIDTH, [0, k]);
        });
    }

    /// A column's values.
    pub fn column(&self, n: usize, out: &mut [f32]) {
        assert!(n < self.n && out.len() == self.k, "column {n} of {}, {} values", self.n, self.k);
        let panel = &self.data[n / pair_strips::WIDTH * PairPanels::len_for(self.k, 1)..];
        for (k, out) in out.iter_mut().enumerate() {
            let pair = panel[k / 2 * pair_strips::WIDTH + n % pair_strips::WIDTH];
            *out = f32::from_bits(if k % 2 == 0 { pair << 16 } else { pair & 0xffff_0000 });
        }
    }
}

impl<'a> From<Operand<'a>> for Weight<'a> {
    fn from(operand: Operand<'a>) -> Weight<'a> {
        Weight::Dense(operand)
    }
}

impl<'a> From<PairPanels<'a>> for Weight<'a> {
    fn from(panels: PairPanels<'a>) -> Weight<'a> {
        Weight::Pairs(panels)
    }
}

impl<'a> From<BlockMatrix<'a>> for Weight<'a> {
    fn from(blocks: BlockMatrix<'a>) -> Weight<'a> {
        Weight::Blocks(blocks)
    }
}

impl Weight<'_> {
    /// Number of rows (K).
    pub fn rows(&self) -> usize {
        match self {
            Weight::Dense(operand) => operand.rows(),
            Weight::Pairs(panels) => panels.k,
            Weight::Blocks(blocks) => blocks.rows(),
        }
    }

    /// Number of columns (N).
    pub fn cols(&self) -> usize {
        match self {
            Weight::Dense(operand) => operand.cols(),
            Weight::Pairs(panels) => panels.n,
            Weight::Blocks(blocks) => blocks.cols(),
        }
    }

    pub(super) fn letters(&self) -> String {
        match self {
            Weight::Dense(operand) => operand.letters(),
            Weight::Pairs(_) => "P".into(),
            Weight::Blocks(blocks) => blocks.format().name().into(),
        }
    }

    pub(super) fn bytes(&self) -> f64 {
        match self {
            Weight::Dense(operand) => operand.bytes(),
            Weight::Pairs(panels) => 4.0 * panels.data.len() as f64,
            Weight::Blocks(blocks) => blocks.data().len() as f64,
        }
    }
}

/// Evaluates an expression with the matrix inside an operand.
macro_rules! with_matrix {
    ($operand:expr, |$mat:ident| $body:expr) => {
        match $operand {
            Operand::F32($mat) => $body,
            Operand::Bf16($mat) => $body,
            Operand::F16($mat) => $body,
        }
    };
}

impl<'a> Operand<'a> {
    /// Row-major, without gaps.
    pub fn new(values: Values<'a>, rows: usize, cols: usize) -> Operand<'a> {
        match values {
            Values::F32(values) => Mat::new(values, rows, cols).into(),
            Values::Bf16(values) => Mat::new(values, rows, cols).into(),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        with_matrix!(self, |mat| mat.rows)
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        with_matrix!(self, |mat| mat.cols)
    }

    /// The transposed view.
    pub fn t(self) -> Operand<'a> {
        with_matrix!(self, |mat| mat.t().into())
    }

    /// The first rows only, where there are more.
    pub(super) fn above(self, rows: usize) -> Operand<'a> {
        with_matrix!(self, |mat| mat.above(rows).into())
    }

    pub(crate) fn is_whole(&self) -> bool {
        with_matrix!(self, |mat| mat.is_whole())
    }

    /// For [`timing`]: the layout, and the type.
    pub(super) fn letters(&self) -> String {
        let layout = with_matrix!(self, |mat| if mat.col_stride == 1 { 'N' } else { 'T' });
        format!("{layout}{}", if matches!(self, Operand::F32(_)) { "" } else { "h" })
    }

    /// Whether the elements of a row lie side by side.
    pub(super) fn side_by_side(&self) -> bool {
        with_matrix!(self, |mat| mat.col_stride == 1)
    }

    /// Where an element lies, for asking ahead.
    pub(super) fn address(&self, row: usize, col: usize) -> *const u8 {
        with_matrix!(self, |mat| mat.at(row, col).cast())
    }

    /// Memory from an element on: `len` elements of its row and of the rows below, where a row's elements lie side by side, else of its
    /// column and of the next columns. Of each 64 bytes, the line that they end in: the line that they begin in was wanted before, if
    /// it is another.
    pub(super) fn ahead(&self, row: usize, col: usize, len: usize) -> Ahead {
        let jump = with_matrix!(self, |mat| mat.row_stride.max(mat.col_stride) * self.size());
        Ahead::rows(self.address(row, col).wrapping_add(63), jump, self.lines(len))
    }

    /// Memory from a column on, whose elements lie side by side: `cols` columns.
    pub(super) fn ahead_of_columns(&self, col: usize, cols: usize) -> Ahead {
        if with_matrix!(self, |mat| mat.col_stride == mat.rows) {
            return Ahead::in_order(self.address(0, col), cols * self.lines(self.rows()));
        }
        self.ahead(0, col, self.rows())
    }

    /// Lines of the cache that so many elements take.
    pub(super) fn lines(&self, len: usize) -> usize {
        (len * self.size()).div_ceil(64)
    }

    /// Bytes of an element.
    pub(super) fn size(&self) -> usize {
        if matches!(self, Operand::F32(_)) { 4 } else { 2 }
    }

    /// Asks for the first rows of some columns whose elements lie side by side. Any part may be named, there or not.
    #[inline(always)]
    pub(super) fn prefetch(&self, rows: usize, cols: Range<usize>) {
        with_matrix!(self, |mat| cols.for_each(|col| prefetch_run(mat.at(0, col), rows)));
    }

    pub(crate) fn bytes(&self) -> f64 {
        (self.size() * self.rows() * self.cols()) as f64
    }
}

impl<'a, T> Mat<'a, T> {
    /// Row-major, without gaps.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Mat<'a, T> {
        assert_eq!(Some(data.len()), rows.checked_mul(cols), "a {rows} × {cols} matrix");
        Mat { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Rows of `cols` values that start `row_stride` apart.
    pub fn strided(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Mat<'a, T> {
        let mat = Mat { data, rows, cols, row_stride, col_stride: 1 };
        assert!(mat.is_whole(), "{rows} rows of {cols}, {row_stride} apart");
        mat
    }

    /// `rows` rows from row `first` on.
    pub(crate) fn part(self, first: usize, rows: usize) -> Mat<'a, T> {
        assert!(first <= self.rows && rows <= self.rows - first, "{rows} rows from {first} of {}", self.rows);
        let data = if rows == 0 { &[] } else { &self.data[first * self.row_stride..] };
        Mat { data, rows, ..self }
    }

    /// Whether each element lies in `data`.
    pub(crate) fn is_whole(&self) -> bool {
        self.rows == 0 || self.cols == 0 || self.last(self.rows).is_some_and(|last| last < self.data.len())
    }

    /// Where the last element of the first `rows` rows would lie, if there is such a place at all.
    pub(super) fn last(&self, rows: usize) -> Option<usize> {
        let down = rows.saturating_sub(1).checked_mul(self.row_stride)?;
        down.checked_add(self.cols.saturating_sub(1).checked_mul(self.col_stride)?)
    }

    /// Where element (i, j) lies.
    pub(super) fn at(&self, i: usize, j: usize) -> *const T {
        self.data.as_ptr().wrapping_add(i * self.row_stride + j * self.col_stride)
    }

    /// The first rows only, where there are more.
    pub(super) fn above(self, rows: usize) -> Mat<'a, T> {
        let rows = rows.min(self.rows);
        let end = self.last(rows).map_or(usize::MAX, |last| last.saturating_add(1));
        Mat { data: &self.data[..self.data.len().min(end)], rows, ..self }
    }

    /// The transposed view.
    pub fn t(self) -> Mat<'a, T> {
        let Mat { data, rows, cols, row_stride, col_stride } = self;
        Mat { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}
