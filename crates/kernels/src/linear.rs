//! A linear layer with what follows it: bias, a product of low rank, activation, dropout and the residual sum ride in the
//! product's last step, while its values are still in the first-level cache.
//!
//! x: (rows, K); w: (K, N), in any form of [`Weight`]; b: (N), `f32`; out: (rows, N). Results are `f32` or bfloat16, as the caller's slices
//! are; where x is bfloat16, so is the product, with sums in `f32`.

mod added;

pub use added::{Added, LowRank};

use crate::activation::Activation;
use crate::bf16::{SharedValues, Values, ValuesMut, bf16, widen};
use crate::gemm::tiles::prefetch_near;
use crate::gemm::{Operand, Output, Sink, Weight, multiply_on};
use crate::isa::{self, Isa, vectorised};
use crate::math::map_pairs;
use crate::pool::Shared;
use crate::random::Dropout;

/// Columns that are handed over together at most.
const MOST: usize = 256;
/// How many rows ahead memory is asked for, that it is there when it is written.
const ROWS_AHEAD: usize = 8;

fn check(x: &Operand, w: &Weight, added: &Added, out: usize) {
    assert!(out == x.rows() * w.cols(), "one value a row and column");
    added.check(x.rows(), w.cols());
}

/// `out = x w + b`, where b is whatever is added.
pub fn linear<'a>(out: ValuesMut, x: Operand, w: impl Into<Weight<'a>>, b: impl Into<Added<'a>>) {
    linear_on(isa::current(), out, x, w.into(), b.into());
}

pub(crate) fn linear_on(isa: Isa, out: ValuesMut, x: Operand, w: Weight, added: Added) {
    check(&x, &w, &added, out.len());
    match out {
        ValuesMut::F32(out) if added.is_nothing() => multiply_on(isa, x, w, Output::Set(out)),
        mut out => {
            let sink = Store { out: out.shared(), n: w.cols(), added };
            multiply_on(isa, x, w, Output::To(&sink));
        }
    }
}

/// `out = x w` in bfloat16, in rows of `stride` values, of which the first N are written.
pub fn linear_strided(out: &mut [bf16], stride: usize, x: Operand, w: Operand) {
    assert!(out.len() == x.rows() * stride && w.cols() <= stride);
    let sink = Store { out: SharedValues::Bf16(Shared::new(out)), n: stride, added: Added::default() };
    multiply_on(isa::current(), x, w, Output::To(&sink));
}

struct Store<'a> {
    out: SharedValues,
    n: usize,
    added: Added<'a>,
}

impl Sink for Store<'_> {
    fn put(&self, isa: Isa, at: (usize, usize), values: &mut [f32], stride: usize, cols: usize) {
        store(isa, self, at, values, stride, cols);
    }
}

vectorised! {
    fn store(sink: &Store, at: (usize, usize), values: &mut [f32], stride: usize, cols: usize) {
        let (row, col) = at;
        for (i, values) in values.chunks_mut(stride).enumerate() {
            let values = &mut values[..cols];
            sink.out.ask((row + i + ROWS_AHEAD) * sink.n + col, cols);
            sink.added.add::<FMA>(values, row + i, col, sink.n);
            // SAFETY: the caller of the product borrows `out`, and each element is handed over once.
            unsafe { sink.out.write((row + i) * sink.n + col, values) };
        }
    }
}

/// `pre = x w + b`, kept if wanted, and `out = activation(pre)`.
pub fn linear_activated<'a>(
    activation: Activation,
    pre: Option<ValuesMut>,
    out: ValuesMut,
    x: Operand,
    w: impl Into<Weight<'a>>,
    b: impl Into<Added<'a>>,
) {
    linear_activated_on(isa::current(), activation, pre, out, x, w.into(), b.into());
}

pub(crate) fn linear_activated_on(
    isa: Isa,
    activation: Activation,
    mut pre: Option<ValuesMut>,
    mut out: ValuesMut,
    x: Operand,
    w: Weight,
    added: Added,
) {
    check(&x, &w, &added, out.len());
    assert!(pre.as_ref().is_none_or(|pre| pre.len() == out.len()));
    let pre = pre.as_mut().map(ValuesMut::shared);
    let sink = Activated { activation, pre, out: out.shared(), n: w.cols(), added };
    multiply_on(isa, x, w, Output::To(&sink));
}

struct Activated<'a> {
    activation: Activation,
    pre: Option<SharedValues>,
    out: SharedValues,
    n: usize,
    added: Added<'a>,
}

impl Sink for Activated<'_> {
    fn put(&self, isa: Isa, at: (usize, usize), values: &mut [f32], stride: usize, cols: usize) {
        store_activated(isa, self, at, values, stride, cols);
    }
}

vectorised! {
    fn store_activated(sink: &Activated, at: (usize, usize), values: &mut [f32], stride: usize, cols: usize) {
        let (row, col) = at;
        for (i, values) in values.chunks_mut(stride).enumerate() {
            let values = &mut values[..cols];
            sink.added.add::<FMA>(values, row + i, col, sink.n);
            let start = (row + i) * sink.n + col;
            let ahead = start + ROWS_AHEAD * sink.n;
            sink.out.ask(ahead, cols);
            if let Some(pre) = &sink.pre {
                pre.ask(ahead, cols);
                // SAFETY: the caller of the product borrows `pre`, and each element is handed over once.
                unsafe { pre.write(start, values) };
            }
            sink.activation.apply::<FMA>(values);
            // SAFETY: the same for `out`.
            unsafe { sink.out.write(start, values) };
        }
    }
}

/// `out = residual + dropout(x w + b)`; the dropout of element (i, j) has index `i N + j`.
pub fn linear_dropout_add<'a>(
    out: &mut [f32],
    x: Operand,
    w: impl Into<Weight<'a>>,
    b: impl Into<Added<'a>>,
    dropout: Option<Dropout>,
    residual: &[f32],
) {
    linear_dropout_add_on(isa::current(), out, x, w.into(), b.into(), dropout, residual);
}

pub(crate) fn linear_dropout_add_on(
    isa: Isa,
    out: &mut [f32],
    x: Operand,
    w: Weight,
    added: Added,
    dropout: Option<Dropout>,
    residual: &[f32],
) {
    check(&x, &w, &added, out.len());
    assert_eq!(residual.len(), out.len());
    let sink = DropoutAdd { out: Shared::new(out), residual, n: w.cols(), added, dropout };
    multiply_on(isa, x, w, Output::To(&sink));
}

struct DropoutAdd<'a> {
    out: Shared<f32>,
    residual: &'a [f32],
    n: usize,
    added: Added<'a>,
    dropout: Option<Dropout>,
}

impl Sink for DropoutAdd<'_> {
    fn put(&self, isa: Isa, at: (usize, usize), values: &mut [f32], stride: usize, cols: usize) {
        drop_and_add(isa, self, at, values, stride, cols);
    }
}

vectorised! {
    fn drop_and_add(sink: &DropoutAdd, at: (usize, usize), values: &mut [f32], stride: usize, cols: usize) {
        let (row, col) = at;
        let mut factors = [0.0; MOST];
        for (i, values) in values.chunks_mut(stride).enumerate() {
            let values = &mut values[..cols];
            sink.added.add::<FMA>(values, row + i, col, sink.n);
            let start = (row + i) * sink.n + col;
            if let Some(dropout) = &sink.dropout {
                for (c, values) in values.chunks_mut(MOST).enumerate() {
                    let factors = &mut factors[..values.len()];
                    dropout.factors((start + c * MOST) as u64, factors);
                    map_pairs(values, factors, |x, factor| x * factor);
                }
            }
            let ahead = start + ROWS_AHEAD * sink.n;
            prefetch_near(sink.residual.as_ptr().wrapping_add(ahead), cols);
            prefetch_near(sink.out.first().wrapping_add(ahead), cols);
            let residual = &sink.residual[start..start + cols];
            // SAFETY: the caller of the product borrows `out`, and each element is handed over once.
            let out = unsafe { sink.out.part(start, start + cols) };
            map_pairs(values, residual, |x, residual| residual + x);
            out.copy_from_slice(values);
        }
    }
}

/// The gradient by the input, `dx = dout wᵀ`, and what is added to it; where the input was `activation(pre)`, that by `pre`.
pub fn linear_backward_input<'a>(
    dx: ValuesMut,
    dout: Operand,
    w: Operand,
    b: impl Into<Added<'a>>,
    pre: Option<(Activation, Values)>,
) {
    linear_backward_input_on(isa::current(), dx, dout, w, b.into(), pre);
}

pub(crate) fn linear_backward_input_on(
    isa: Isa,
    mut dx: ValuesMut,
    dout: Operand,
    w: Operand,
    added: Added,
    pre: Option<(Activation, Values)>,
) {
    let Some((activation, pre)) = pre else { return linear_on(isa, dx, dout, w.t().into(), added) };
    assert!(dx.len() == dout.rows() * w.rows() && pre.len() == dx.len());
    added.check(dout.rows(), w.rows());
    let sink = Slope { activation, out: dx.shared(), pre, n: w.rows(), added };
    multiply_on(isa, dout, w.t(), Output::To(&sink));
}

struct Slope<'a> {
    activation: Activation,
    out: SharedValues,
    pre: Values<'a>,
    n: usize,
    added: Added<'a>,
}

impl Sink for Slope<'_> {
    fn put(&self, isa: Isa, at: (usize, usize), values: &mut [f32], stride: usize, cols: usize) {
        multiply_slope(isa, self, at, values, stride, cols);
    }
}

vectorised! {
    fn multiply_slope(sink: &Slope, at: (usize, usize), values: &mut [f32], stride: usize, cols: usize) {
        let (row, col) = at;
        for (i, values) in values.chunks_mut(stride).enumerate() {
            let values = &mut values[..cols];
            sink.added.add::<FMA>(values, row + i, col, sink.n);
            let start = (row + i) * sink.n + col;
            let ahead = start + ROWS_AHEAD * sink.n;
            sink.out.ask(ahead, cols);
            match sink.pre {
                Values::F32(pre) => {
                    prefetch_near(pre.as_ptr().wrapping_add(ahead), cols);
                    sink.activation.multiply_slope::<FMA, f32>(values, &pre[start..start + cols], |x| x);
                }
                Values::Bf16(pre) => {
                    prefetch_near(pre.as_ptr().wrapping_add(ahead), cols);
                    sink.activation.multiply_slope::<FMA, bf16>(values, &pre[start..start + cols], widen);
                }
            }
            // SAFETY: the caller of the product borrows `dx`, and each element is handed over once.
            unsafe { sink.out.write(start, values) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::Mat;
    use crate::random::Stream;
    use crate::{reference, rows};

    fn random(len: usize, seed: u64) -> Vec<f32> {
        let stream = Stream::new(seed, 0, 0);
        // Multiples of 1/16 that bfloat16 holds exactly, so that both types compute with the same numbers.
        (0..len as u64).map(|i| (stream.normal(i) * 16.0).round() / 16.0).collect()
    }

    /// Sizes at which tiles end, and one whose K takes several blocks of `f32`.
    /// The last two are handed over by tasks, in the rows of a tile or all together.
    const SIZES: [[usize; 3]; 6] =
        [[1, 3, 5], [17, 40, 35], [61, 1600, 70], [9, 33, 300], [200, 300, 150], [230, 60, 130]];

    /// Runs a case for both types and all instruction sets; results must be near `want`, bfloat16 ones less so.
    fn hold(want: &[f32], case: &str, run: impl Fn(Isa, ValuesMut, bool)) {
        for isa in isa::tested() {
            let mut wide = vec![f32::NAN; want.len()];
            run(isa, ValuesMut::F32(&mut wide), false);
            let mut half = vec![bf16::NAN; want.len()];
            run(isa, ValuesMut::Bf16(&mut half), true);
            for (i, &want) in want.iter().enumerate() {
                let (got, near) = (wide[i], half[i].to_f32());
                assert!(
                    (got - want).abs() <= 1e-3 * (1.0 + want.abs()),
                    "{case} {isa:?} [{i}]: {got}, not {want}"
                );
                assert!(
                    (near - want).abs() <= 1e-2 * (1.0 + want.abs()),
                    "{case} {isa:?} bf16 [{i}]: {near}, not {want}"
                );
            }
        }
    }

    #[test]
    fn each_agrees_with_the_plain_steps() {
        for [m, k, n] in SIZES {
            let (x, w, b) = (random(m * k, 1), random(k * n, 2), random(n, 3));
            let (residual, dout, pre) = (random(m * n, 4), random(m * n, 5), random(m * k, 6));
            let half = |x: &[f32]| x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>();
            let (half_x, half_dout, half_pre) = (half(&x), half(&dout), half(&pre));
            let x_of = |is_half| -> Operand {
                if is_half { Mat::new(&half_x, m, k).into() } else { Mat::new(&x, m, k).into() }
            };
            let w_of = || Operand::from(Mat::new(&w, k, n));
            let case = format!("{m} × {k} × {n}");

            let mut plain = vec![0.0; m * n];
            reference::gemm(&mut plain, &x, &w, [m, k, n]);
            plain.iter_mut().enumerate().for_each(|(i, y)| *y += b[i % n]);
            hold(&plain, &case, |isa, out, h| {
                linear_on(isa, out, x_of(h), w_of().into(), Some(&b[..]).into())
            });

            for activation in Activation::ALL {
                let value = |&x: &f32| reference::activation(activation, f64::from(x)).0 as f32;
                let want: Vec<f32> = plain.iter().map(value).collect();
                hold(&want, &format!("{case} {activation:?}"), |isa, out, h| {
                    let mut kept = vec![0.0; m * n];
                    let pre = Some(ValuesMut::F32(&mut kept));
                    linear_activated_on(
                        isa,
                        activation,
                        pre,
                        out,
                        x_of(h),
                        w_of().into(),
                        Some(&b[..]).into(),
                    );
                    assert!(
                        kept.iter().zip(&plain).all(|(x, y)| (x - y).abs() <= 1e-3 * (1.0 + y.abs())),
                        "{case}"
                    );
                });
            }

            let dropout = Dropout { p: 0.3, stream: Stream::new(7, 8, 9) };
            let mut sum = vec![0.0; m * n];
            rows::dropout(&mut sum, &plain, dropout);
            sum.iter_mut().zip(&residual).for_each(|(x, r)| *x += r);
            hold(&sum, &case, |isa, mut out, h| {
                let mut wide = vec![0.0; m * n];
                linear_dropout_add_on(
                    isa,
                    &mut wide,
                    x_of(h),
                    w_of().into(),
                    Some(&b[..]).into(),
                    Some(dropout),
                    &residual,
                );
                // SAFETY: `out` is ours.
                unsafe { out.shared().write(0, &wide) };
            });

            let (mut wt, mut dx) = (vec![0.0; n * k], vec![0.0; m * k]);
            (0..n * k).for_each(|i| wt[i] = w[i % k * n + i / k]);
            reference::gemm(&mut dx, &dout, &wt, [m, n, k]);
            let dout_of = |is_half| -> Operand {
                if is_half { Mat::new(&half_dout, m, n).into() } else { Mat::new(&dout, m, n).into() }
            };
            hold(&dx, &case, |isa, out, h| {
                linear_backward_input_on(isa, out, dout_of(h), w_of(), Added::default(), None)
            });
            for activation in Activation::ALL {
                let slope = |x: f32| reference::activation(activation, f64::from(x)).1 as f32;
                let want: Vec<f32> = dx.iter().zip(&pre).map(|(dx, &pre)| dx * slope(pre)).collect();
                hold(&want, &format!("{case} slope of {activation:?}"), |isa, out, h| {
                    let pre = if h { Values::Bf16(&half_pre) } else { Values::F32(&pre) };
                    linear_backward_input_on(
                        isa,
                        out,
                        dout_of(h),
                        w_of(),
                        Added::default(),
                        Some((activation, pre)),
                    );
                });
            }
        }
    }

    /// Products of low rank against the plain ones, with ranks at which groups of steps end, and columns past a part.
    #[test]
    fn low_ranks_are_added() {
        for ([m, k, n], rank) in SIZES.into_iter().zip([1, 4, 7, 8, 3, 2]) {
            let (x, w, b) = (random(m * k, 1), random(k * n, 2), random(n, 3));
            let (u, v, residual) = (random(m * rank, 4), random(rank * n, 5), random(m * n, 6));
            let [mut plain, mut low, mut dropped] = [0, 1, 2].map(|_| vec![0.0; m * n]);
            reference::gemm(&mut plain, &x, &w, [m, k, n]);
            reference::gemm(&mut low, &u, &v, [m, rank, n]);
            let (case, dropout) =
                (format!("{m} × {k} × {n}, rank {rank}"), Dropout { p: 0.3, stream: Stream::new(7, 8, 9) });
            rows::dropout(&mut dropped, &low, dropout);
            for (dropout, low) in [(None, &low), (Some(dropout), &dropped)] {
                let low_rank = Some(LowRank { u: &u, v: &v, rank, dropout });
                let added = Added { bias: Some(&b), low_rank };
                let want: Vec<f32> = (0..m * n).map(|i| plain[i] + b[i % n] + low[i]).collect();
                let (x, w) = (|| Mat::new(&x, m, k).into(), || Operand::from(Mat::new(&w, k, n)));
                let mut wt = vec![0.0; n * k];
                (0..n * k).for_each(|i| wt[i] = w_at(&w(), i % k, i / k));
                hold(&want, &case, |isa, out, _| linear_on(isa, out, x(), w().into(), added));
                hold(&want, &case, |isa, out, _| {
                    let turned = Mat::new(&wt, n, k).into();
                    linear_backward_input_on(isa, out, x(), turned, added, None);
                });
                let active: Vec<f32> = want
                    .iter()
                    .map(|&x| reference::activation(Activation::Silu, f64::from(x)).0 as f32)
                    .collect();
                hold(&active, &case, |isa, out, _| {
                    linear_activated_on(isa, Activation::Silu, None, out, x(), w().into(), added);
                });
                let slope = |&pre: &f32| reference::activation(Activation::Silu, f64::from(pre)).1 as f32;
                let sloped: Vec<f32> = want.iter().zip(&residual).map(|(&x, pre)| x * slope(pre)).collect();
                hold(&sloped, &case, |isa, out, _| {
                    let (turned, pre) =
                        (Mat::new(&wt, n, k).into(), Some((Activation::Silu, Values::F32(&residual))));
                    linear_backward_input_on(isa, out, x(), turned, added, pre);
                });
                let sum: Vec<f32> = want.iter().zip(&residual).map(|(x, r)| x + r).collect();
                hold(&sum, &case, |isa, mut out, _| {
                    let mut wide = vec![0.0; m * n];
                    linear_dropout_add_on(isa, &mut wide, x(), w().into(), added, None, &residual);
                    // SAFETY: `out` is ours.
                    unsafe { out.shared().write(0, &wide) };
                });
            }
        }
    }

    fn w_at(w: &Operand, i: usize, j: usize) -> f32 {
        let Operand::F32(w) = w else { unreachable!("it was made so") };
        w.data[i * w.row_stride + j * w.col_stride]
    }
}
