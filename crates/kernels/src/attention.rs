//! Fused causal attention: `out = softmax(q kᵀ / √D + mask) v` without a (T × T) matrix (Dao et al., 2022).
//!
//! A task is one head of one sequence. It takes `QUERIES` rows of q at a time and walks the keys in blocks of
//! `KEYS` from key 0. Each row keeps the largest score so far, the sum of exponentials, and its output, and
//! rescales them when a larger score comes. A masked score counts as an exact zero, so a row's bits do not
//! depend on the rows computed with it: cached decoding, in any portions, gives what the whole sequence gives.
//!
//! The backward pass computes the probabilities again from the kept log-sum-exp. Memory is linear in T.

use std::cell::RefCell;

use crate::gemm::{Mat, Out, gemm_serial};
use crate::isa::{self, Isa, vectorised};
use crate::math::{exp, max, sum};
use crate::pool::{self, Shared};
use crate::random::Dropout;

/// Rows of q computed together.
const QUERIES: usize = 64;
/// Keys of a block: part of the result, so it never changes.
const KEYS: usize = 64;

/// The sizes of a batch of sequences.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Sequences (B).
    pub batch: usize,
    /// Tokens of each (T).
    pub time: usize,
    /// Heads (H).
    pub n_head: usize,
    /// Width of a head (D); the model's width C is H · D.
    pub head_dim: usize,
}

impl AttentionShape {
    fn width(&self) -> usize {
        self.n_head * self.head_dim
    }

    /// Checks the lengths of what has C and 3C columns, and of the log-sum-exps.
    fn check(&self, out: usize, qkv: usize, lse: usize) {
        let rows = self.batch * self.time;
        assert!(out == rows * self.width() && qkv == 3 * out && lse == rows * self.n_head, "{self:?}");
    }
}

/// One head of one sequence: where its rows are, and how long it is.
struct Head<'a> {
    isa: Isa,
    q: Mat<'a>, // (queries, D)
    k: Mat<'a>, // (keys, D)
    v: Mat<'a>, // (keys, D)
    /// Keys before the first query's own.
    past: usize,
    dropout: Option<(Dropout, u64)>, // with the index of element (0, 0)
    row_step: u64,                   // elements of dropout a row
}

/// `rows` rows of `cols` values from row `first` of a matrix.
fn rows_of<'a>(m: &Mat<'a>, first: usize, rows: usize) -> Mat<'a> {
    Mat::strided(&m.data[first * m.row_stride..], rows, m.cols, m.row_stride)
}

#[derive(Default)]
struct Scratch {
    scores: Vec<f32>, // (QUERIES, KEYS)
    dscores: Vec<f32>,
    factors: Vec<f32>,
    out: Vec<f32>, // (QUERIES, D)
    delta: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A running softmax of one row.
#[derive(Clone, Copy)]
struct Running {
    most: f32,
    sum: f32,
}

vectorised! {
    /// Takes in a block of scores, of which the first `visible` count: they become exponentials, the others 0.
    /// Returns the factor by which what was summed before shrinks.
    fn absorb(running: &mut Running, scores: &mut [f32], visible: usize, scale: f32) -> f32 {
        scores.iter_mut().for_each(|s| *s *= scale);
        scores[visible..].fill(f32::NEG_INFINITY);
        let block = max(scores);
        let most = if block > running.most { block } else { running.most };
        for s in scores.iter_mut() {
            *s = exp::<FMA>(*s - most);
        }
        scores[visible..].fill(0.0);
        let shrink = exp::<FMA>(running.most - most);
        running.sum = running.sum * shrink + sum(scores.len(), |i| scores[i]);
        running.most = most;
        shrink
    }
}

vectorised! {
    fn scale_row(row: &mut [f32], factor: f32) {
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

vectorised! {
    fn multiply(x: &mut [f32], y: &[f32]) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x *= y);
    }
}

vectorised! {
    /// The dropout factors of a row of a block.
    fn dropout_factors(out: &mut [f32], dropout: &Dropout, first: u64) {
        dropout.factors(first, out);
    }
}

vectorised! {
    /// `probs = e^(scale · probs - lse)` where visible, else 0.
    fn probabilities(scores: &mut [f32], visible: usize, scale: f32, lse: f32) {
        scores.iter_mut().for_each(|s| *s = exp::<FMA>(*s * scale - lse));
        scores[visible..].fill(0.0);
    }
}

vectorised! {
    /// `dscores = scale · probs · (dscores - delta)`
    fn softmax_backward(dscores: &mut [f32], probs: &[f32], delta: f32, scale: f32) {
        dscores.iter_mut().zip(probs).for_each(|(ds, p)| *ds = scale * p * (*ds - delta));
    }
}

vectorised! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        sum(a.len(), |i| a[i] * b[i])
    }
}

impl Head<'_> {
    fn scale(&self) -> f32 {
        1.0 / (self.q.cols as f32).sqrt()
    }

    /// How many keys of the block from `key` on query `i` sees.
    fn visible(&self, i: usize, key: usize, n: usize) -> usize {
        (self.past + i + 1).saturating_sub(key).min(n)
    }

    /// Multiplies the rows of `x` (queries from `i0`, keys from `key`, `n` of them) by their dropout factors.
    fn drop(&self, x: &mut [f32], factors: &mut Vec<f32>, i0: usize, key: usize, n: usize) {
        let Some((dropout, base)) = &self.dropout else { return };
        factors.resize(n, 0.0);
        for (i, row) in x.chunks_exact_mut(n).enumerate() {
            dropout_factors(self.isa, factors, dropout, base + (i0 + i) as u64 * self.row_step + key as u64);
            multiply(self.isa, row, factors);
        }
    }

    /// Output rows of the `n` queries from `i0` on, into `s.out` (n, D), and their log-sum-exps.
    fn forward_block(&self, s: &mut Scratch, lse: &mut [f32], i0: usize, n: usize) {
        let d = self.q.cols;
        let queries = rows_of(&self.q, i0, n);
        s.out.clear();
        s.out.resize(n * d, 0.0);
        let mut running = [Running { most: f32::NEG_INFINITY, sum: 0.0 }; QUERIES];
        for key in (0..self.past + i0 + n).step_by(KEYS) {
            let n_keys = KEYS.min(self.k.rows - key);
            s.scores.resize(n * n_keys, 0.0);
            gemm_serial(
                self.isa,
                &mut s.scores,
                n_keys,
                queries,
                rows_of(&self.k, key, n_keys).t(),
                Out::Set,
            );
            for (i, row) in s.scores.chunks_exact_mut(n_keys).enumerate() {
                let visible = self.visible(i0 + i, key, n_keys);
                if visible == 0 {
                    row.fill(0.0);
                    continue;
                }
                let shrink = absorb(self.isa, &mut running[i], row, visible, self.scale());
                scale_row(self.isa, &mut s.out[i * d..(i + 1) * d], shrink);
            }
            self.drop(&mut s.scores, &mut s.factors, i0, key, n_keys);
            let probs = Mat::new(&s.scores, n, n_keys);
            gemm_serial(self.isa, &mut s.out, d, probs, rows_of(&self.v, key, n_keys), Out::Add);
        }
        for (i, row) in s.out.chunks_exact_mut(d).enumerate() {
            scale_row(self.isa, row, 1.0 / running[i].sum);
            lse[i] = running[i].most + running[i].sum.ln();
        }
    }

    /// Adds the gradients by q, k and v, each (T, D) and contiguous.
    fn backward(&self, s: &mut Scratch, [dq, dk, dv]: [&mut [f32]; 3], dout: Mat, out: Mat, lse: &[f32]) {
        let (d, t) = (self.q.cols, self.q.rows);
        for i0 in (0..t).step_by(QUERIES) {
            let n = QUERIES.min(t - i0);
            let (queries, dout) = (rows_of(&self.q, i0, n), rows_of(&dout, i0, n));
            s.delta.clear();
            s.delta.extend((0..n).map(|i| {
                let (dout, out) =
                    (&dout.data[i * dout.row_stride..][..d], &out.data[(i0 + i) * out.row_stride..][..d]);
                dot(self.isa, dout, out)
            }));
            for key in (0..i0 + n).step_by(KEYS) {
                let n_keys = KEYS.min(t - key);
                let (keys, values) = (rows_of(&self.k, key, n_keys), rows_of(&self.v, key, n_keys));
                s.scores.resize(n * n_keys, 0.0);
                s.dscores.resize(n * n_keys, 0.0);
                gemm_serial(self.isa, &mut s.scores, n_keys, queries, keys.t(), Out::Set);
                for (i, row) in s.scores.chunks_exact_mut(n_keys).enumerate() {
                    let visible = self.visible(i0 + i, key, n_keys);
                    probabilities(self.isa, row, visible, self.scale(), lse[i0 + i]);
                }
                gemm_serial(self.isa, &mut s.dscores, n_keys, dout, values.t(), Out::Set);
                self.drop(&mut s.dscores, &mut s.factors, i0, key, n_keys);
                for (i, row) in s.dscores.chunks_exact_mut(n_keys).enumerate() {
                    let probs = &s.scores[i * n_keys..(i + 1) * n_keys];
                    softmax_backward(self.isa, row, probs, s.delta[i], self.scale());
                }
                self.drop(&mut s.scores, &mut s.factors, i0, key, n_keys);
                let (probs, dscores) = (Mat::new(&s.scores, n, n_keys), Mat::new(&s.dscores, n, n_keys));
                let at = key * d..(key + n_keys) * d;
                gemm_serial(self.isa, &mut dv[at.clone()], d, probs.t(), dout, Out::Add);
                gemm_serial(self.isa, &mut dk[at], d, dscores.t(), queries, Out::Add);
                gemm_serial(self.isa, &mut dq[i0 * d..(i0 + n) * d], d, dscores, keys, Out::Add);
            }
        }
    }
}

/// The head `h` of sequence `b`, as long as its true length.
fn head_of<'a>(
    isa: Isa,
    qkv: &'a [f32],
    shape: &AttentionShape,
    (b, h): (usize, usize),
    lens: Option<&[usize]>,
    dropout: Option<Dropout>,
) -> Head<'a> {
    let &AttentionShape { time, n_head, head_dim: d, .. } = shape;
    let (c, t) = (shape.width(), lens.map_or(time, |lens| lens[b]));
    let part = |which: usize| {
        let start = b * time * 3 * c + which * c + h * d;
        Mat::strided(if t == 0 { &[] } else { &qkv[start..] }, t, d, 3 * c)
    };
    let first = ((b * n_head + h) * time * time) as u64;
    let dropout = dropout.map(|dropout| (dropout, first));
    Head { isa, q: part(0), k: part(1), v: part(2), past: 0, dropout, row_step: time as u64 }
}

/// Attention of each sequence over itself. `out` is (B, T, C), `lse` (B, H, T), `qkv` (B, T, 3C). Rows at or past a
/// sequence's length in `lens` are 0. Element (b, h, i, j) of the dropout has index `((b H + h) T + i) T + j`.
pub fn attention(
    out: &mut [f32],
    lse: &mut [f32],
    qkv: &[f32],
    shape: &AttentionShape,
    lens: Option<&[usize]>,
    dropout: Option<Dropout>,
) {
    attention_on(isa::current(), out, lse, qkv, shape, lens, dropout);
}

pub(crate) fn attention_on(
    isa: Isa,
    out: &mut [f32],
    lse: &mut [f32],
    qkv: &[f32],
    shape: &AttentionShape,
    lens: Option<&[usize]>,
    dropout: Option<Dropout>,
) {
    shape.check(out.len(), qkv.len(), lse.len());
    let &AttentionShape { batch, time, n_head, head_dim: d } = shape;
    let c = shape.width();
    let blocks = time.div_ceil(QUERIES);
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    pool::for_each(batch * n_head * blocks, |task| {
        // Later blocks see more keys: they go first, so that the last task is a short one.
        let (block, pair) = (blocks - 1 - task / (batch * n_head), task % (batch * n_head));
        let (b, h) = (pair / n_head, pair % n_head);
        let head = head_of(isa, qkv, shape, (b, h), lens, dropout);
        let (i0, end) = (block * QUERIES, time.min((block + 1) * QUERIES));
        // SAFETY: `lse` is borrowed by this function, and only this task has these rows of this head.
        let lse = unsafe { lse.part(pair * time + i0, pair * time + end) };
        lse.fill(0.0);
        let n = end.min(head.q.rows).saturating_sub(i0);
        SCRATCH.with_borrow_mut(|s| {
            if n > 0 {
                head.forward_block(s, lse, i0, n);
            }
            for i in 0..end - i0 {
                let start = (b * time + i0 + i) * c + h * d;
                // SAFETY: `out` is borrowed by this function, and only this task has this head of these rows.
                let row = unsafe { out.part(start, start + d) };
                if i < n { row.copy_from_slice(&s.out[i * d..(i + 1) * d]) } else { row.fill(0.0) }
            }
        });
    });
}

/// Adds to `dqkv` (B, T, 3C) the gradient by `qkv`, given what the forward pass took and gave.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward(
    dqkv: &mut [f32],
    dout: &[f32],
    out: &[f32],
    lse: &[f32],
    qkv: &[f32],
    shape: &AttentionShape,
    lens: Option<&[usize]>,
    dropout: Option<Dropout>,
) {
    attention_backward_on(isa::current(), dqkv, dout, out, lse, qkv, shape, lens, dropout);
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn attention_backward_on(
    isa: Isa,
    dqkv: &mut [f32],
    dout: &[f32],
    out: &[f32],
    lse: &[f32],
    qkv: &[f32],
    shape: &AttentionShape,
    lens: Option<&[usize]>,
    dropout: Option<Dropout>,
) {
    shape.check(out.len(), qkv.len(), lse.len());
    assert!(dqkv.len() == qkv.len() && dout.len() == out.len());
    let &AttentionShape { batch, time, n_head, head_dim: d } = shape;
    let c = shape.width();
    let dqkv = Shared::new(dqkv);
    pool::for_each(batch * n_head, |pair| {
        let (b, h) = (pair / n_head, pair % n_head);
        let head = head_of(isa, qkv, shape, (b, h), lens, dropout);
        let t = head.q.rows;
        if t == 0 {
            return;
        }
        let rows = |x| Mat::strided(&(x as &[f32])[b * time * c + h * d..], t, d, c);
        let mut grads = vec![0.0; 3 * t * d];
        let (dq, rest) = grads.split_at_mut(t * d);
        let (dk, dv) = rest.split_at_mut(t * d);
        SCRATCH.with_borrow_mut(|s| {
            head.backward(s, [dq, dk, dv], rows(dout), rows(out), &lse[pair * time..][..t]);
        });
        for (which, grad) in grads.chunks_exact(t * d).enumerate() {
            for (i, grad) in grad.chunks_exact(d).enumerate() {
                let start = (b * time + i) * 3 * c + which * c + h * d;
                // SAFETY: `dqkv` is borrowed by this function, and only this task has this head of this sequence.
                let row = unsafe { dqkv.part(start, start + d) };
                row.iter_mut().zip(grad).for_each(|(row, grad)| *row += grad);
            }
        }
    });
}

/// Attention of the newest n positions of a sequence. `out` is (n, C); `qkv` (n, 3C), of which the queries are
/// used; `keys` and `values` are (past + n, C), the newest included. The bits are those of [`attention`].
pub fn attention_cached(
    out: &mut [f32],
    qkv: &[f32],
    keys: &[f32],
    values: &[f32],
    past: usize,
    n_head: usize,
    head_dim: usize,
) {
    let (isa, d, c) = (isa::current(), head_dim, n_head * head_dim);
    let n = out.len() / c;
    let held = past + n;
    assert!(
        out.len() == n * c && qkv.len() == 3 * n * c && keys.len() == held * c && values.len() == held * c
    );
    let blocks = n.div_ceil(QUERIES);
    let out = Shared::new(out);
    pool::for_each(n_head * blocks, |task| {
        let (h, i0) = (task % n_head, task / n_head * QUERIES);
        let (k, v) = (Mat::strided(&keys[h * d..], held, d, c), Mat::strided(&values[h * d..], held, d, c));
        let q = Mat::strided(&qkv[h * d..], n, d, 3 * c);
        let head = Head { isa, q, k, v, past, dropout: None, row_step: 0 };
        let rows = QUERIES.min(n - i0);
        SCRATCH.with_borrow_mut(|s| {
            head.forward_block(s, &mut [0.0; QUERIES], i0, rows);
            for (i, computed) in s.out.chunks_exact(d).enumerate() {
                let start = (i0 + i) * c + h * d;
                // SAFETY: `out` is borrowed by this function, and only this task has this head of these rows.
                unsafe { out.part(start, start + d) }.copy_from_slice(computed);
            }
        });
    });
}

#[cfg(test)]
mod tests;
