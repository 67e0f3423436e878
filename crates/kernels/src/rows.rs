//! Row by row and element by element: norms, cross-entropy, dropout, embeddings.
//!
//! Plain loops, compiled for each instruction set. `rows × cols` matrices are row-major; gradients are added to.

use std::cell::RefCell;

use crate::bf16::{SharedValues, Values, ValuesMut, bf16, narrow, widen};
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

thread_local! {
    /// A row on its way between the types.
    static ROW: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends a row of arbitrary values.
fn with_row<R>(cols: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    ROW.with_borrow_mut(|row| {
        row.resize(row.len().max(cols), 0.0);
        f(&mut row[..cols])
    })
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
    out: ValuesMut,
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
    mut out: ValuesMut,
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
    let (mean, rstd, out) = (Shared::new(mean), Shared::new(rstd), out.shared());
    pool::for_each(rows.div_ceil(step), |i| {
        let (start, end) = (i * step, rows.min((i + 1) * step));
        // SAFETY: `mean` and `rstd` are borrowed by this function, and chunks of rows do not overlap.
        let (mean, rstd) = unsafe { (mean.part(start, end), rstd.part(start, end)) };
        let x = &x[start * c..end * c];
        match &out {
            SharedValues::F32(out) => {
                // SAFETY: as above.
                let out = unsafe { out.part(start * c, end * c) };
                layer_norm_rows(isa, out, mean, rstd, x, w, b, eps);
            }
            SharedValues::Bf16(_) => with_row(c, |wide| {
                for (r, x) in x.chunks_exact(c).enumerate() {
                    layer_norm_rows(isa, wide, &mut mean[r..r + 1], &mut rstd[r..r + 1], x, w, b, eps);
                    // SAFETY: as above.
                    unsafe { write_row(isa, &out, (start + r) * c, wide) };
                }
            }),
        }
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
    dout: Values,
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
    dout: Values,
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
            let (dw, db) = partial.split_at_mut(c);
            with_row(c, |wide| {
                for row in start..end {
                    let at = row * c..(row + 1) * c;
                    // SAFETY: `dx` is borrowed by this function, and blocks of rows do not overlap.
                    let dx = unsafe { dx.part(at.start, at.end) };
                    let dout = dout.wide(isa, at.clone(), wide);
                    let (mean, rstd) = (&mean[row..=row], &rstd[row..=row]);
                    layer_norm_backward_rows(isa, dx, dw, db, dout, &x[at], w, mean, rstd);
                }
            });
        });
        for partial in partial.chunks_exact(2 * c) {
            add_into(isa, dw, &partial[..c]);
            add_into(isa, db, &partial[c..]);
        }
    });
}

vectorised! {
    fn layer_norm_backward_row(dx: &mut [f32], dout: &[f32], x: &[f32], w: &[f32], mean: f32, rstd: f32) {
        let (mean_g, mean_gn) = gradient_means::<FMA>(dout, x, w, mean, rstd);
        for (dx, ((&dout, &w), &x)) in dx.iter_mut().zip(dout.iter().zip(w).zip(x)) {
            *dx += rstd * (dout * w - mean_g - (x - mean) * rstd * mean_gn);
        }
    }
}

/// [`layer_norm_backward`] for a `w` and a `b` that are not trained: adds to `dx` alone, the same.
pub fn layer_norm_backward_input(
    dx: &mut [f32],
    dout: Values,
    x: &[f32],
    w: &[f32],
    mean: &[f32],
    rstd: &[f32],
) {
    let _span = timing::values("layer_norm backward", 4 * x.len());
    layer_norm_backward_input_on(isa::current(), dx, dout, x, w, mean, rstd);
}

pub(crate) fn layer_norm_backward_input_on(
    isa: Isa,
    dx: &mut [f32],
    dout: Values,
    x: &[f32],
    w: &[f32],
    mean: &[f32],
    rstd: &[f32],
) {
    let (c, rows) = (w.len(), mean.len());
    assert!(dx.len() == rows * c && dout.len() == rows * c && x.len() == rows * c && rstd.len() == rows);
    let step = task_rows(c);
    pool::for_each_chunk_mut(dx, step * c, |i, dx| {
        with_row(c, |wide| {
            for (dx, row) in dx.chunks_exact_mut(c).zip(i * step..) {
                let at = row * c..(row + 1) * c;
                let dout = dout.wide(isa, at.clone(), wide);
                layer_norm_backward_row(isa, dx, dout, &x[at], w, mean[row], rstd[row]);
            }
        });
    });
}

vectorised! {
    fn add_into(x: &mut [f32], y: &[f32]) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    }
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

/// [`dropout`] for values of either type, rounded if need be; without dropout, a copy in the type of `out`.
pub fn dropout_values(mut out: ValuesMut, x: Values, dropout: Option<Dropout>) {
    let _span = timing::values("dropout", 2 * x.len());
    assert_eq!(out.len(), x.len());
    let (isa, len, out) = (isa::current(), x.len(), out.shared());
    pool::for_each(len.div_ceil(CHUNK), |i| {
        let at = i * CHUNK..len.min((i + 1) * CHUNK);
        with_row(2 * at.len(), |scratch| {
            let (wide, dropped) = scratch.split_at_mut(at.len());
            let mut values = x.wide(isa, at.clone(), wide);
            if let Some(dropout) = &dropout {
                drop_chunk(isa, dropped, values, dropout, at.start as u64, false);
                values = dropped;
            }
            // SAFETY: `out` is borrowed by this function, and each chunk is written once.
            unsafe { write_row(isa, &out, at.start, values) };
        });
    });
}

/// Adds each column's sum over the rows of `dout` to `db`.
pub fn sum_rows(db: &mut [f32], dout: Values) {
    let _span = timing::values("sum_rows", dout.len());
    let (isa, c) = (isa::current(), db.len());
    assert!(c > 0 && dout.len().is_multiple_of(c));
    by_row_blocks(isa, db, dout.len() / c, |partial, row| match dout {
        Values::F32(dout) => add_into(isa, partial, &dout[row * c..][..c]),
        Values::Bf16(dout) => add_half_into(isa, partial, &dout[row * c..][..c]),
    });
}

/// Sums over rows in blocks of fixed size: `add(partial, row)` adds a row, and the blocks are added to `sum` in order.
fn by_row_blocks(isa: Isa, sum: &mut [f32], rows: usize, add: impl Fn(&mut [f32], usize) + Sync) {
    let c = sum.len();
    with_zeros(rows.div_ceil(ROW_BLOCK) * c, |partial| {
        pool::for_each_chunk_mut(partial, c, |i, partial| {
            (i * ROW_BLOCK..rows.min((i + 1) * ROW_BLOCK)).for_each(|row| add(partial, row));
        });
        partial.chunks_exact(c).for_each(|partial| add_into(isa, sum, partial));
    });
}

vectorised! {
    fn add_half_into(x: &mut [f32], y: &[bf16]) {
        x.iter_mut().zip(y).for_each(|(x, &y)| *x += widen(y));
    }
}

/// The way back through dropout and a bias: `out = dout · keep / (1 - p)`, rounded if need be, and `db += Σ_rows out`.
pub fn dropout_bias_backward(mut out: ValuesMut, db: &mut [f32], dout: &[f32], dropout: Option<Dropout>) {
    let _span = timing::values("dropout and bias backward", 2 * dout.len());
    let (isa, c) = (isa::current(), db.len());
    assert!(out.len() == dout.len() && c > 0 && dout.len().is_multiple_of(c));
    let out = out.shared();
    by_row_blocks(isa, db, dout.len() / c, |partial, row| {
        let dout = &dout[row * c..][..c];
        let Some(dropout) = &dropout else {
            add_into(isa, partial, dout);
            // SAFETY: `out` is borrowed by this function, and each row is written once.
            return unsafe { write_row(isa, &out, row * c, dout) };
        };
        with_row(c, |dropped| {
            drop_chunk(isa, dropped, dout, dropout, (row * c) as u64, false);
            add_into(isa, partial, dropped);
            // SAFETY: as above.
            unsafe { write_row(isa, &out, row * c, dropped) };
        });
    });
}

/// [`SharedValues::write`] with the instruction set at hand.
///
/// # Safety
/// As there.
unsafe fn write_row(isa: Isa, out: &SharedValues, start: usize, x: &[f32]) {
    match out {
        // SAFETY: the caller's promise.
        SharedValues::F32(out) => unsafe { out.part(start, start + x.len()) }.copy_from_slice(x),
        SharedValues::Bf16(out) => {
            // SAFETY: the caller's promise.
            let out = unsafe { out.part(start, start + x.len()) };
            crate::bf16::narrow_into(isa, out, x);
        }
    }
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
