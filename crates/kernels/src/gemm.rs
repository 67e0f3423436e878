//! Matrix products `C = A B`, for any layout of A and B.
//!
//! Each element of C is one chain of multiply-adds over ascending K: the tiles hold outputs in their lanes and
//! never split a sum (but where the CPU multiplies whole tiles, a link of the chain is the sum of 32 products). So a result does not depend on the number of threads, on the other rows, or on how the
//! work was cut. Three ways lead to the same bits:
//!
//! - large products (`blocked.rs`): panels of A and B are packed so that a tile reads both in order (Goto and van
//!   de Geijn, 2008), blocks of K and of columns of B at a time, in tasks of some tiles for the pool;
//! - few rows (`few.rs`): B is read once, piece by piece, and each is used for all rows;
//! - products inside a task (`strips.rs`): B is packed a strip of columns at a time.

mod blocked;
mod few;
mod matrix;
pub(crate) mod pack;
pub(crate) mod pair_strips;
mod pairs;
mod strips;
pub(crate) mod tiles;

use crate::blocks;
use crate::isa::{self, Isa};
use crate::pool::Shared;
use crate::timing;
pub use matrix::{Mat, Operand, PairPanels, Weight};
pub(crate) use strips::{Causal, product as product_inside};
use tiles::{Tile, with_pair_tile, with_tile};

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

/// Multiply-adds below which a product is not worth waking a thread.
const TINY: usize = 1 << 16;
/// The rows beyond which it pays to widen pairs into the cache.
const FEW: usize = 4;
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
        (Out::Add, _) => multiply_on(isa, a.into(), Operand::from(b), Output::Add(c)),
        (Out::Set, None) => multiply_on(isa, a.into(), Operand::from(b), Output::Set(c)),
        (Out::Set, Some(bias)) => {
            let sink = Biased { c: Shared::new(c), bias };
            multiply_on(isa, a.into(), Operand::from(b), Output::To(&sink));
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
pub fn multiply<'b>(a: Operand, b: impl Into<Weight<'b>>, output: Output) {
    multiply_on(isa::current(), a, b, output);
}

/// [`multiply`] with a given instruction set.
pub fn multiply_on<'b>(isa: Isa, a: Operand, b: impl Into<Weight<'b>>, mut output: Output) {
    let b = b.into();
    let (m, k, n) = (a.rows(), a.cols(), b.cols());
    assert_eq!(b.rows(), k, "A is {m} × {k}, B has {} rows", b.rows());
    let whole = if let Weight::Dense(b) = &b { b.is_whole() } else { true };
    assert!(a.is_whole() && whole, "A and B are as large as they say");
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
    // Without an instruction for pairs it pays to widen both factors for more than a few rows: the chains are the same.
    let widens = !has_pairs(isa) && k.is_multiple_of(2) && m > FEW;
    match b {
        Weight::Blocks(b) => blocks::multiply_on(isa, a, &b, output),
        Weight::Pairs(b) if widens && matches!(a, Operand::Bf16(_)) => {
            with_tile!(isa, |tile| product(isa, tile, a, Source::Widened(b), output));
        }
        Weight::Pairs(PairPanels { data, k, n }) => {
            with_pair_tile!(isa, |tile| product(isa, tile, a, Source::Panels { data, k, n }, output));
        }
        Weight::Dense(b) => {
            let half = matches!(a, Operand::F16(_)) || matches!(b, Operand::F16(_));
            let widens = widens && matches!((a, b), (Operand::Bf16(_), Operand::Bf16(_)));
            if half || widens || matches!((a, b), (Operand::F32(_), Operand::F32(_))) {
                with_tile!(isa, |tile| product(isa, tile, a, Source::Matrix(b), output));
            } else {
                with_pair_tile!(isa, |tile| product(isa, tile, a, Source::Matrix(b), output));
            }
        }
    }
}

/// The product with a tile, the one way or the other.
fn product<T: Tile>(isa: Isa, tile: T, a: Operand, b: Source<T::Unit>, output: Output) {
    if few::suits::<T>(&a, &b) {
        few::product(isa, tile, a, b, output);
    } else {
        blocked::product(isa, tile, a, b, output);
    }
}

/// Whether there is an instruction for pairs of bfloat16.
fn has_pairs(isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    return isa >= Isa::Avx512Bf16 && isa::Avx512Bf16::detect().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = isa;
        false
    }
}

/// Where a product's B comes from.
#[derive(Clone, Copy)]
enum Source<'a, U> {
    /// A matrix, to be packed.
    Matrix(Operand<'a>),
    /// Panels of pairs, to be packed as `f32`.
    Widened(PairPanels<'a>),
    /// Panels of all of K.
    Panels { data: &'a [U], k: usize, n: usize },
}

impl<U> Source<'_, U> {
    fn n(&self) -> usize {
        match self {
            Source::Matrix(b) => b.cols(),
            Source::Widened(panels) => panels.n,
            Source::Panels { n, .. } => *n,
        }
    }
}

#[cfg(test)]
mod tests;
