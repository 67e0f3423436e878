//! Matrix products `C = A B`, for any layout of A and B.
//!
//! Each element of C is one chain of multiply-adds over ascending K: the tiles hold outputs in their lanes and
//! never split a sum. So a result does not depend on the number of threads, on the other rows, or on how the
//! work was cut. Three ways lead to the same bits:
//!
//! - large products (`blocked.rs`): panels of A and B are packed so that a tile reads both in order (Goto and van
//!   de Geijn, 2008), blocks of K and of columns of B at a time, in tasks of some tiles for the pool;
//! - few rows and a row-major B (`small.rs`): B is read once, as it lies;
//! - few rows and any other B, and products inside a task (`strips.rs`): B is packed a strip of columns at a time.

mod blocked;
mod pack;
pub(crate) mod pair_strips;
mod pairs;
mod small;
mod strips;
mod tiles;

use crate::bf16::{Values, bf16};
use crate::isa::{self, Isa};
use crate::pool::{self, Shared};
use crate::timing;
pub(crate) use strips::{Causal, product as product_inside};
use tiles::{with_pair_tile, with_tile};

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

/// A factor of a product, of either type. If one of the two factors is bfloat16, the other is rounded to it, too.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// 32 bits a value.
    F32(Mat<'a>),
    /// 16 bits a value.
    Bf16(Mat<'a, bf16>),
}

impl<'a> From<Mat<'a>> for Operand<'a> {
    fn from(mat: Mat<'a>) -> Operand<'a> {
        Operand::F32(mat)
    }
}

impl<'a> From<Mat<'a, bf16>> for Operand<'a> {
    fn from(mat: Mat<'a, bf16>) -> Operand<'a> {
        Operand::Bf16(mat)
    }
}

/// Evaluates an expression with the matrix inside an operand.
macro_rules! with_matrix {
    ($operand:expr, |$mat:ident| $body:expr) => {
        match $operand {
            Operand::F32($mat) => $body,
            Operand::Bf16($mat) => $body,
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

    pub(crate) fn is_whole(&self) -> bool {
        with_matrix!(self, |mat| mat.is_whole())
    }

    /// For [`timing`]: the layout, and the type.
    fn letters(&self) -> String {
        let layout = with_matrix!(self, |mat| if mat.col_stride == 1 { 'N' } else { 'T' });
        format!("{layout}{}", if matches!(self, Operand::F32(_)) { "" } else { "h" })
    }

    pub(crate) fn bytes(&self) -> f64 {
        let size = if matches!(self, Operand::F32(_)) { 4.0 } else { 2.0 };
        size * self.rows() as f64 * self.cols() as f64
    }
}

/// Takes the finished values of a product, whatever it does with them.
pub trait Sink: Sync {
    /// `values` holds rows of `stride` values, of which `cols` are elements of C, from row `row` and column `col` on.
    /// Each element is handed over once. The values may be used as scratch.
    fn put(&self, isa: Isa, at: (usize, usize), values: &mut [f32], stride: usize, cols: usize);
}

/// Where a product goes.
pub enum Output<'a> {
    /// `C = A B`
    Set(&'a mut [f32]),
    /// `C += A B`: the chain starts from the old value.
    Add(&'a mut [f32]),
    /// Each finished element goes there; C is not stored.
    To(&'a dyn Sink),
}

/// What happens to C's old values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// `C = A B`
    Set,
    /// `C += A B`: the chain starts from the old value.
    Add,
}

impl<'a, T> Mat<'a, T> {
    /// Row-major, without gaps.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Mat<'a, T> {
        assert_eq!(data.len(), rows * cols, "a {rows} × {cols} matrix");
        Mat { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Rows of `cols` values that start `row_stride` apart.
    pub fn strided(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Mat<'a, T> {
        assert!(
            rows == 0 || (rows - 1) * row_stride + cols <= data.len(),
            "{rows} rows of {cols}, {row_stride} apart"
        );
        Mat { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// `rows` rows from row `first` on.
    pub(crate) fn part(self, first: usize, rows: usize) -> Mat<'a, T> {
        assert!(first + rows <= self.rows, "rows {first}..{} of {}", first + rows, self.rows);
        let data = if rows == 0 { &[] } else { &self.data[first * self.row_stride..] };
        Mat { data, rows, ..self }
    }

    /// `cols` columns from column `first` on.
    pub(crate) fn columns(self, first: usize, cols: usize) -> Mat<'a, T> {
        self.t().part(first, cols).t()
    }

    /// Whether each element lies in `data`.
    pub(crate) fn is_whole(&self) -> bool {
        let last =
            self.rows.saturating_sub(1) * self.row_stride + self.cols.saturating_sub(1) * self.col_stride;
        self.rows == 0 || self.cols == 0 || last < self.data.len()
    }

    /// Where element (i, j) lies.
    fn at(&self, i: usize, j: usize) -> *const T {
        self.data.as_ptr().wrapping_add(i * self.row_stride + j * self.col_stride)
    }

    /// The transposed view.
    pub fn t(self) -> Mat<'a, T> {
        let Mat { data, rows, cols, row_stride, col_stride } = self;
        Mat { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}

/// Multiply-adds below which a product is not worth waking a thread.
const TINY: usize = 1 << 16;
/// The most rows for which a B that is not row-major is packed strip by strip.
const FEW_ROWS: usize = 48;
/// The most columns for which a row-major A is read as it lies: each panel would be used a few times only.
const FEW_COLS: usize = 256;

/// `C = A B + bias` or `C += A B` in `f32`, on all threads. `c` is (a.rows, b.cols), row-major; `bias` (b.cols) is added
/// to every row after the chain, and only with [`Out::Set`].
pub fn gemm(c: &mut [f32], a: Mat, b: Mat, out: Out, bias: Option<&[f32]>) {
    gemm_on(isa::current(), c, a, b, out, bias);
}

/// [`gemm`] with a given instruction set.
pub fn gemm_on(isa: Isa, c: &mut [f32], a: Mat, b: Mat, out: Out, bias: Option<&[f32]>) {
    let (m, n) = (a.rows, b.cols);
    assert_eq!(c.len(), m * n, "C is {m} × {n}");
    assert!(bias.is_none_or(|bias| bias.len() == n && out == Out::Set), "a bias has one value a column");
    match (out, bias) {
        (Out::Add, _) => multiply_on(isa, a.into(), b.into(), Output::Add(c)),
        (Out::Set, None) => multiply_on(isa, a.into(), b.into(), Output::Set(c)),
        (Out::Set, Some(bias)) => {
            let sink = Biased { c: Shared::new(c), bias };
            multiply_on(isa, a.into(), b.into(), Output::To(&sink));
        }
    }
}

/// Stores the product with a bias added to every row.
struct Biased<'a> {
    c: Shared<f32>,
    bias: &'a [f32],
}

impl Sink for Biased<'_> {
    fn put(&self, isa: Isa, at: (usize, usize), values: &mut [f32], stride: usize, cols: usize) {
        store_biased(isa, self, at, values, stride, cols);
    }
}

isa::vectorised! {
    fn store_biased(sink: &Biased, at: (usize, usize), values: &mut [f32], stride: usize, cols: usize) {
        let (n, bias) = (sink.bias.len(), &sink.bias[at.1..at.1 + cols]);
        for (i, values) in values.chunks(stride).enumerate() {
            let start = (at.0 + i) * n + at.1;
            // SAFETY: C is borrowed by `gemm_on`, and each element is handed over once.
            let c = unsafe { sink.c.part(start, start + cols) };
            c.iter_mut().zip(values.iter().zip(bias)).for_each(|(c, (x, b))| *c = x + b);
        }
    }
}

/// The product of two matrices, on all threads: in `f32` if both are, else in bfloat16 with sums in `f32`.
pub fn multiply(a: Operand, b: Operand, output: Output) {
    multiply_on(isa::current(), a, b, output);
}

/// [`multiply`] with a given instruction set.
pub fn multiply_on(isa: Isa, a: Operand, b: Operand, mut output: Output) {
    let (m, k, n) = (a.rows(), a.cols(), b.cols());
    assert_eq!(b.rows(), k, "A is {m} × {k}, B has {} rows", b.rows());
    assert!(a.is_whole() && b.is_whole(), "A and B are as large as they say");
    if let Output::Set(c) | Output::Add(c) = &output {
        assert_eq!(c.len(), m * n, "C is {m} × {n}");
    }
    if m == 0 || n == 0 {
        return;
    }
    let _span = timing::start(|| {
        let (flops, bytes) = (2.0 * m as f64 * k as f64 * n as f64, 4.0 * m as f64 * n as f64);
        let name = format!("gemm {}{} {m} × {k} × {n}", a.letters(), b.letters());
        (name, flops, a.bytes() + b.bytes() + bytes)
    });
    if k == 0 {
        if let Output::Set(c) = &mut output {
            c.fill(0.0);
        }
        if let Output::To(sink) = &output {
            sink.put(isa, (0, 0), &mut vec![0.0; m * n], n, n);
        }
        return;
    }
    if let (Operand::F32(a), Operand::F32(b)) = (a, b) {
        let few = m <= small::MOST_ROWS && b.col_stride == 1;
        let strips = (m <= FEW_ROWS && b.col_stride != 1) || m * n * k <= TINY;
        if few || strips {
            return few_rows(isa, few, a, b, output);
        }
        with_tile!(isa, |tile| blocked::product(isa, tile, a.into(), b.into(), output));
    } else {
        with_pair_tile!(isa, |tile| blocked::product(isa, tile, a, b, output));
    }
}

/// Products of few rows, or tiny ones: tasks share the columns.
fn few_rows(isa: Isa, as_it_lies: bool, a: Mat, b: Mat, output: Output) {
    let mut whole;
    let (c, out, sink) = match output {
        Output::Set(c) => (c, Out::Set, None),
        Output::Add(c) => (c, Out::Add, None),
        Output::To(sink) => {
            whole = vec![0.0; a.rows * b.cols];
            (&mut whole[..], Out::Set, Some(sink))
        }
    };
    if as_it_lies {
        small::product(isa, c, a, b, out);
    } else {
        in_strips(isa, c, a, b, out);
    }
    if let Some(sink) = sink {
        sink.put(isa, (0, 0), c, b.cols, b.cols);
    }
}

fn in_strips(isa: Isa, c: &mut [f32], a: Mat, b: Mat, out: Out) {
    let (m, n) = (a.rows, b.cols);
    let cols = if m * n * a.cols <= TINY {
        n
    } else {
        n.div_ceil(4 * pool::threads()).next_multiple_of(32).min(512)
    };
    let c = Shared::new(c);
    pool::for_each(n.div_ceil(cols), |task| {
        let (start, end) = (task * cols, n.min((task + 1) * cols));
        // SAFETY: C is borrowed by this function, and only this task has these columns.
        unsafe { product_inside(isa, (&c, start, n), a, b.columns(start, end - start), out, Causal::No) };
    });
}

#[cfg(test)]
mod tests;
