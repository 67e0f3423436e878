//! Softmax and cross-entropy of rows of logits, and their largest values.

use super::task_rows;
use crate::bf16::{bf16, narrow, widen};
use crate::isa::{self, Isa, vectorised};
use crate::math::{exp, max, sum};
use crate::pool::{self, Shared};
use crate::timing;

vectorised! {
    /// `row = e^(row - max)`; the sum and the largest value.
    fn exponentials(row: &mut [f32]) -> (f32, f32) {
        let most = max(row);
        row.iter_mut().for_each(|x| *x = exp::<FMA>(*x - most));
        (sum(row, |x| x), most)
    }
}

vectorised! {
    /// `Σ e^(row - max)` and the largest value.
    fn exponential_sum(row: &[f32]) -> (f32, f32) {
        let most = max(row);
        (sum(row, |x| exp::<FMA>(x - most)), most)
    }
}

vectorised! {
    fn scale_row(row: &mut [f32], factor: f32) {
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Turns each row of `logits` into `weight · (softmax - onehot(target))`, and writes the row's unweighted loss
/// `-ln softmax[target]`. A row with a NaN, or with an infinite logit, has the loss NaN.
pub fn cross_entropy(logits: &mut [f32], loss: &mut [f32], targets: &[u32], weights: &[f32]) {
    let _span = timing::values("cross_entropy", 2 * logits.len());
    cross_entropy_on(isa::current(), logits, loss, targets, weights);
}

pub(crate) fn cross_entropy_on(
    isa: Isa,
    logits: &mut [f32],
    loss: &mut [f32],
    targets: &[u32],
    weights: &[f32],
) {
    let rows = targets.len();
    assert!(rows > 0 && logits.len().is_multiple_of(rows) && loss.len() == rows && weights.len() == rows);
    let cols = logits.len() / rows;
    let step = task_rows(cols);
    let loss = Shared::new(loss);
    pool::for_each_chunk_mut(logits, step * cols, |i, logits| {
        let start = i * step;
        // SAFETY: `loss` is borrowed by this function, and chunks of rows do not overlap.
        let loss = unsafe { loss.part(start, start + logits.len() / cols) };
        for (r, (row, loss)) in logits.chunks_exact_mut(cols).zip(loss).enumerate() {
            let (target, weight) = (targets[start + r] as usize, weights[start + r]);
            let logit = row[target];
            let (sum, most) = exponentials(isa, row);
            *loss = sum.ln() + most - logit;
            scale_row(isa, row, weight / sum);
            row[target] -= weight;
        }
    });
}

vectorised! {
    /// The largest value and `Σ e^(x - max)`.
    fn half_sum(row: &[bf16]) -> (f32, f32) {
        let mut wide = [0.0; HALF_CHUNK];
        let mut most = f32::NEG_INFINITY;
        for x in row.chunks(HALF_CHUNK) {
            let wide = &mut wide[..x.len()];
            wide.iter_mut().zip(x).for_each(|(wide, &x)| *wide = widen(x));
            let here = max(wide);
            most = if here > most { here } else { most };
        }
        let mut total = 0.0;
        for x in row.chunks(HALF_CHUNK) {
            let wide = &mut wide[..x.len()];
            wide.iter_mut().zip(x).for_each(|(wide, &x)| *wide = widen(x));
            total += sum(wide, |x| exp::<FMA>(x - most));
        }
        (most, total)
    }
}

vectorised! {
    /// `row = e^(row - most) · factor`
    fn half_probs(row: &mut [bf16], most: f32, factor: f32) {
        row.iter_mut().for_each(|x| *x = narrow(exp::<FMA>(widen(*x) - most) * factor));
    }
}

/// Values of a row that are widened together: they stay in the first-level cache.
const HALF_CHUNK: usize = 1024;

/// [`cross_entropy`] for bfloat16 logits, in rows of `stride` values, of which the first `cols` count. Losses and sums
/// are computed in `f32`.
pub fn cross_entropy_bf16(
    logits: &mut [bf16],
    stride: usize,
    cols: usize,
    loss: &mut [f32],
    targets: &[u32],
    weights: &[f32],
) {
    let _span = timing::values("cross_entropy", logits.len());
    let (isa, rows) = (isa::current(), targets.len());
    assert!(logits.len() == rows * stride && cols <= stride && loss.len() == rows && weights.len() == rows);
    let loss = Shared::new(loss);
    pool::for_each_chunk_mut(logits, stride, |r, row| {
        let (row, target) = (&mut row[..cols], targets[r] as usize);
        let logit = widen(row[target]);
        let (most, sum) = half_sum(isa, row);
        // SAFETY: `loss` is borrowed by this function, and each row has one.
        let loss = unsafe { loss.part(r, r + 1) };
        loss[0] = sum.ln() + most - logit;
        half_probs(isa, row, most, weights[r] / sum);
        let p = (logit - most).exp() * (weights[r] / sum);
        row[target] = narrow(p - weights[r]);
    });
}

/// Writes each row's loss `-ln softmax[target]`, and leaves `logits` alone.
pub fn cross_entropy_loss(loss: &mut [f32], logits: &[f32], targets: &[u32]) {
    let _span = timing::values("cross_entropy_loss", logits.len());
    let (isa, rows) = (isa::current(), targets.len());
    assert!(rows > 0 && logits.len().is_multiple_of(rows) && loss.len() == rows);
    let cols = logits.len() / rows;
    let step = task_rows(cols);
    pool::for_each_chunk_mut(loss, step, |i, loss| {
        for (r, loss) in loss.iter_mut().enumerate() {
            let row = &logits[(i * step + r) * cols..][..cols];
            let (sum, most) = exponential_sum(isa, row);
            *loss = sum.ln() + most - row[targets[i * step + r] as usize];
        }
    });
}

/// The index of the largest value, the first among equals. NaN is never the largest.
pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, &x) in row.iter().enumerate() {
        if x > row[best] || (row[best].is_nan() && !x.is_nan()) {
            best = i;
        }
    }
    best
}
