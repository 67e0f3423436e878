//! Row by row and element by element: norms, activations, softmax, cross-entropy, dropout, embeddings.
//!
//! Plain loops, compiled for each instruction set. `rows × cols` matrices are row-major; gradients are added to.

use std::cell::RefCell;

use crate::isa::{self, Isa, fma, vectorised};
use crate::math::{LANES, combine, exp, max, sum};
use crate::pool::{self, Shared};
use crate::random::Dropout;
use crate::timing;

/// Elements of one task of an element-wise loop.
const CHUNK: usize = 1 << 14;
/// Rows of one task of a loop that sums over rows: part of the result, so it never changes.
const ROW_BLOCK: usize = 32;

thread_local! {
    /// The partial sums of the call that this thread makes.
    static PARTIAL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` zeros.
fn with_zeros(len: usize, f: impl FnOnce(&mut [f32])) {
    // Taken out, not borrowed: a task that runs here may itself sum rows.
    let mut partial = PARTIAL.take();
    partial.clear();
    partial.resize(len, 0.0);
    f(&mut partial);
    PARTIAL.set(partial);
}

/// Rows of `cols` values for one task.
fn task_rows(cols: usize) -> usize {
    (CHUNK / cols.max(1)).max(1)
}

vectorised! {
    fn layer_norm_rows(out: &mut [f32], mean: &mut [f32], rstd: &mut [f32], x: &[f32], w: &[f32], b: &[f32], eps: f32) {
        let c = w.len();
        let rows = out.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(mean.iter_mut().zip(rstd));
        for ((out, x), (mean, rstd)) in rows {
            let m = sum(x, |x| x) / c as f32;
            let var = sum(x, |x| (x - m) * (x - m)) / c as f32;
            let r = 1.0 / (var + eps).sqrt();
            (*mean, *rstd) = (m, r);
            for (out, (x, (w, b))) in out.iter_mut().zip(x.iter().zip(w.iter().zip(b))) {
                *out = fma::<FMA>((x - m) * r, *w, *b);
            }
        }
    }
}

/// `out = (x - mean) · rstd · w + b` for rows of `w.len()` values; keeps each row's `mean` and `rstd`.
pub fn layer_norm(
    out: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    w: &[f32],
    b: &[f32],
    eps: f32,
) {
    let _span = timing::values("layer_norm", 2 * x.len());
    layer_norm_on(isa::current(), out, mean, rstd, x, w, b, eps);
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn layer_norm_on(
    isa: Isa,
    out: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    w: &[f32],
    b: &[f32],
    eps: f32,
) {
    let (c, rows) = (w.len(), mean.len());
    assert!(out.len() == rows * c && x.len() == rows * c && rstd.len() == rows && b.len() == c);
    let step = task_rows(c);
    let (mean, rstd) = (Shared::new(mean), Shared::new(rstd));
    pool::for_each_chunk_mut(out, step * c, |i, out| {
        let (start, end) = (i * step, i * step + out.len() / c);
        // SAFETY: `mean` and `rstd` are borrowed by this function, and chunks of rows do not overlap.
        let (mean, rstd) = unsafe { (mean.part(start, end), rstd.part(start, end)) };
        layer_norm_rows(isa, out, mean, rstd, &x[start * c..end * c], w, b, eps);
    });
}

/// The means of `g = dout · w` and of `g · (x - mean) · rstd` over a row.
#[inline(always)]
fn gradient_means<const FMA: bool>(dout: &[f32], x: &[f32], w: &[f32], mean: f32, rstd: f32) -> (f32, f32) {
    let [mut sum_g, mut sum_gn] = [[0.0f32; LANES]; 2];
    let mut add = |dout: &[f32], x: &[f32], w: &[f32]| {
        for (lane, (&dout, (&x, &w))) in dout.iter().zip(x.iter().zip(w)).enumerate() {
            let g = dout * w;
            sum_g[lane] += g;
            sum_gn[lane] = fma::<FMA>(g, (x - mean) * rstd, sum_gn[lane]);
        }
    };
    let ((d, d_tail), (y, y_tail), (v, v_tail)) = (dout.as_chunks::<LANES>(), x.as_chunks(), w.as_chunks());
    for (d, (y, v)) in d.iter().zip(y.iter().zip(v)) {
        add(d, y as &[f32; LANES], v as &[f32; LANES]);
    }
    add(d_tail, y_tail, v_tail);
    let n = dout.len() as f32;
    (combine(sum_g) / n, combine(sum_gn) / n)
}

vectorised! {
    fn layer_norm_backward_rows(
        dx: &mut [f32], dw: &mut [f32], db: &mut [f32], dout: &[f32], x: &[f32], w: &[f32], mean: &[f32], rstd: &[f32]
    ) {
        let c = w.len();
        for (row, (&m, &r)) in mean.iter().zip(rstd).enumerate() {
            let at = row * c..(row + 1) * c;
            let (dx, dout, x) = (&mut dx[at.clone()], &dout[at.clone()], &x[at]);
            let (w, dw, db) = (&w[..c], &mut dw[..c], &mut db[..c]);
            let (mean_g, mean_gn) = gradient_means::<FMA>(dout, x, w, m, r);
            for i in 0..c {
                let normed = (x[i] - m) * r;
                dx[i] += r * (dout[i] * w[i] - mean_g - normed * mean_gn);
                dw[i] += dout[i] * normed;
                db[i] += dout[i];
            }
        }
    }
}

/// Adds to `dx` (rows, C), `dw` (C) and `db` (C).
#[allow(clippy::too_many_arguments)]
pub fn layer_norm_backward(
    dx: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
    dout: &[f32],
    x: &[f32],
    w: &[f32],
    mean: &[f32],
    rstd: &[f32],
) {
    let _span = timing::values("layer_norm backward", 4 * x.len());
    layer_norm_backward_on(isa::current(), dx, dw, db, dout, x, w, mean, rstd);
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn layer_norm_backward_on(
    isa: Isa,
    dx: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
    dout: &[f32],
    x: &[f32],
    w: &[f32],
    mean: &[f32],
    rstd: &[f32],
) {
    let (c, rows) = (w.len(), mean.len());
    assert!(dx.len() == rows * c && dout.len() == rows * c && x.len() == rows * c && rstd.len() == rows);
    let blocks = rows.div_ceil(ROW_BLOCK);
    let dx = Shared::new(dx);
    with_zeros(blocks * 2 * c, |partial| {
        pool::for_each_chunk_mut(partial, 2 * c, |i, partial| {
            let (start, end) = (i * ROW_BLOCK, rows.min((i + 1) * ROW_BLOCK));
            let (at, mean, rstd) = (start * c..end * c, &mean[start..end], &rstd[start..end]);
            // SAFETY: `dx` is borrowed by this function, and blocks of rows do not overlap.
            let dx = unsafe { dx.part(at.start, at.end) };
            let (dw, db) = partial.split_at_mut(c);
            layer_norm_backward_rows(isa, dx, dw, db, &dout[at.clone()], &x[at], w, mean, rstd);
        });
        for partial in partial.chunks_exact(2 * c) {
            add_into(isa, dw, &partial[..c]);
            add_into(isa, db, &partial[c..]);
        }
    });
}

vectorised! {
    fn add_into(x: &mut [f32], y: &[f32]) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    }
}

/// √(2/π), GPT-2's constant in GELU.
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// `1 / (1 + e^(-2u))` for GELU's u: then `0.5 (1 + tanh u)`.
#[inline(always)]
fn gate<const FMA: bool>(x: f32) -> f32 {
    let minus_2u = x * fma::<FMA>(-2.0 * SQRT_2_OVER_PI * CUBIC * x, x, -2.0 * SQRT_2_OVER_PI);
    1.0 / (1.0 + exp::<FMA>(minus_2u))
}

vectorised! {
    pub(crate) fn gelu_on(out: &mut [f32], x: &[f32]) {
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = x * gate::<FMA>(x));
    }
}

vectorised! {
    pub(crate) fn gelu_backward_on(dx: &mut [f32], dout: &[f32], x: &[f32]) {
        for (dx, (&dout, &x)) in dx.iter_mut().zip(dout.iter().zip(x)) {
            let g = gate::<FMA>(x);
            let du = SQRT_2_OVER_PI * fma::<FMA>(3.0 * CUBIC * x, x, 1.0);
            *dx = fma::<FMA>(dout, g + x * g * (1.0 - g) * 2.0 * du, *dx);
        }
    }
}

/// `out = 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
pub fn gelu(out: &mut [f32], x: &[f32]) {
    let _span = timing::values("gelu", 2 * x.len());
    assert_eq!(out.len(), x.len());
    let isa = isa::current();
    pool::for_each_chunk_mut(out, CHUNK, |i, out| gelu_on(isa, out, &x[i * CHUNK..][..out.len()]));
}

/// Adds `dout · gelu'(x)` to `dx`.
pub fn gelu_backward(dx: &mut [f32], dout: &[f32], x: &[f32]) {
    let _span = timing::values("gelu backward", 4 * x.len());
    assert!(dx.len() == x.len() && dout.len() == x.len());
    let isa = isa::current();
    pool::for_each_chunk_mut(dx, CHUNK, |i, dx| {
        let at = i * CHUNK..i * CHUNK + dx.len();
        gelu_backward_on(isa, dx, &dout[at.clone()], &x[at]);
    });
}

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

/// Each row of `cols` values becomes `e^x / Σ e^x`.
pub fn softmax(x: &mut [f32], cols: usize) {
    let _span = timing::values("softmax", 2 * x.len());
    softmax_on(isa::current(), x, cols);
}

pub(crate) fn softmax_on(isa: Isa, x: &mut [f32], cols: usize) {
    assert!(cols > 0 && x.len().is_multiple_of(cols));
    pool::for_each_chunk_mut(x, task_rows(cols) * cols, |_, rows| {
        for row in rows.chunks_exact_mut(cols) {
            let (sum, _) = exponentials(isa, row);
            scale_row(isa, row, 1.0 / sum);
        }
    });
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

vectorised! {
    fn add_chunk(out: &mut [f32], a: &[f32], b: &[f32]) {
        out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = a + b);
    }
}

/// `out = a + b`.
pub fn add(out: &mut [f32], a: &[f32], b: &[f32]) {
    let _span = timing::values("add", 3 * out.len());
    assert!(out.len() == a.len() && out.len() == b.len());
    let isa = isa::current();
    pool::for_each_chunk_mut(out, CHUNK, |i, out| {
        let at = i * CHUNK..i * CHUNK + out.len();
        add_chunk(isa, out, &a[at.clone()], &b[at]);
    });
}

/// `x += y`.
pub fn add_assign(x: &mut [f32], y: &[f32]) {
    let _span = timing::values("add_assign", 3 * x.len());
    assert_eq!(x.len(), y.len());
    let isa = isa::current();
    pool::for_each_chunk_mut(x, CHUNK, |i, x| add_into(isa, x, &y[i * CHUNK..][..x.len()]));
}

/// `x *= factor`.
pub fn scale(x: &mut [f32], factor: f32) {
    let isa = isa::current();
    pool::for_each_chunk_mut(x, CHUNK, |_, x| scale_row(isa, x, factor));
}

vectorised! {
    /// `out += x · factor` or `out = x · factor`, with the dropout factors of the elements from `first` on.
    fn drop_chunk(out: &mut [f32], x: &[f32], dropout: &Dropout, first: u64, add: bool) {
        let mut factors = [0.0; 256];
        let mut first = first;
        for (out, x) in out.chunks_mut(256).zip(x.chunks(256)) {
            let factors = &mut factors[..out.len()];
            dropout.factors(first, factors);
            first += out.len() as u64;
            if add {
                out.iter_mut().zip(x.iter().zip(factors)).for_each(|(out, (x, f))| *out += *x * *f);
            } else {
                out.iter_mut().zip(x.iter().zip(factors)).for_each(|(out, (x, f))| *out = *x * *f);
            }
        }
    }
}

/// `out = x · keep / (1 - p)`.
pub fn dropout(out: &mut [f32], x: &[f32], dropout: Dropout) {
    let _span = timing::values("dropout", 2 * x.len());
    assert_eq!(out.len(), x.len());
    let isa = isa::current();
    pool::for_each_chunk_mut(out, CHUNK, |i, out| {
        drop_chunk(isa, out, &x[i * CHUNK..][..out.len()], &dropout, (i * CHUNK) as u64, false);
    });
}

/// `dx += dout · keep / (1 - p)`.
pub fn dropout_backward(dx: &mut [f32], dout: &[f32], dropout: Dropout) {
    let _span = timing::values("dropout backward", 3 * dx.len());
    assert_eq!(dx.len(), dout.len());
    let isa = isa::current();
    pool::for_each_chunk_mut(dx, CHUNK, |i, dx| {
        drop_chunk(isa, dx, &dout[i * CHUNK..][..dx.len()], &dropout, (i * CHUNK) as u64, true);
    });
}

/// Adds each column's sum over the rows of `dout` to `db`.
pub fn sum_rows(db: &mut [f32], dout: &[f32]) {
    let _span = timing::values("sum_rows", dout.len());
    let (isa, c) = (isa::current(), db.len());
    assert!(c > 0 && dout.len().is_multiple_of(c));
    let rows = dout.len() / c;
    with_zeros(rows.div_ceil(ROW_BLOCK) * c, |partial| {
        pool::for_each_chunk_mut(partial, c, |i, partial| {
            let rows = &dout[i * ROW_BLOCK * c..(rows * c).min((i + 1) * ROW_BLOCK * c)];
            rows.chunks_exact(c).for_each(|row| add_into(isa, partial, row));
        });
        partial.chunks_exact(c).for_each(|partial| add_into(isa, db, partial));
    });
}

/// `out[i] = table[ids[i]]`, rows of `out.len() / ids.len()` values.
pub fn embedding(out: &mut [f32], table: &[f32], ids: &[u32]) {
    let _span = timing::values("embedding", 2 * out.len());
    if ids.is_empty() {
        return;
    }
    let c = out.len() / ids.len();
    assert_eq!(out.len(), ids.len() * c);
    let step = task_rows(c);
    pool::for_each_chunk_mut(out, step * c, |i, rows| {
        for (row, &id) in rows.chunks_exact_mut(c).zip(&ids[i * step..]) {
            row.copy_from_slice(&table[id as usize * c..][..c]);
        }
    });
}

/// `dtable[ids[i]] += dout[i]`, in the order of `ids`; tasks share the columns.
pub fn embedding_backward(dtable: &mut [f32], dout: &[f32], ids: &[u32]) {
    let _span = timing::values("embedding backward", 3 * dout.len());
    if ids.is_empty() {
        return;
    }
    let (isa, c) = (isa::current(), dout.len() / ids.len());
    assert!(dout.len() == ids.len() * c && dtable.len().is_multiple_of(c));
    const COLS: usize = 64;
    let table = Shared::new(dtable);
    pool::for_each(c.div_ceil(COLS), |task| {
        let (start, end) = (task * COLS, c.min((task + 1) * COLS));
        for (&id, dout) in ids.iter().zip(dout.chunks_exact(c)) {
            let row = id as usize * c;
            // SAFETY: `dtable` is borrowed by this function, and only this task has these columns.
            let dtable = unsafe { table.part(row + start, row + end) };
            add_into(isa, dtable, &dout[start..end]);
        }
    });
}

#[cfg(test)]
mod tests;
