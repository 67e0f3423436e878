//! Fused causal attention: `out = softmax(scale · q kᵀ + mask) v` without a (T × T) matrix (Dao et al., 2022).
//!
//! A task is one head of one sequence. It takes `QUERIES` rows of q at a time and walks the keys in blocks of
//! `KEYS` from key 0. Each row keeps the largest score so far, the sum of exponentials, and its output, and
//! rescales them when a larger score comes. A masked score counts as an exact zero, so a row's bits do not
//! depend on the rows computed with it: cached decoding, in any portions, gives what the whole sequence gives.
//!
//! The backward pass computes the probabilities again from the kept log-sum-exp. Memory is linear in T.

pub mod cached;
mod pairs;

use std::cell::RefCell;

use crate::gemm::{Causal, Mat, Out, product_inside};
use crate::isa::{self, Isa, fma, vectorised};
use crate::math::{exp, map, max, sum, sum_pairs};
use crate::pool::{self, Shared};
use crate::random::{Dropout, GROUP};
use crate::timing;
pub use pairs::{attention_backward_bf16, attention_bf16};

/// Rows of q computed together.
const QUERIES: usize = 64;
/// Keys of a block: part of the result, so it never changes.
const KEYS: usize = 64;

/// The sizes of a batch of sequences, and the scale of scores.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Sequences (B).
    pub batch: usize,
    /// Tokens of each, or of the longest (T).
    pub time: usize,
    /// Heads (H).
    pub n_head: usize,
    /// Width of a head (D); the model's width C is H · D.
    pub head_dim: usize,
    /// What scores are multiplied by, a positive number: most often [`default_scale`].
    pub scale: f32,
}

/// `1 / √D`, by which scores keep the spread of a single product (Vaswani et al., 2017).
pub fn default_scale(head_dim: usize) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}

impl AttentionShape {
    fn width(&self) -> usize {
        self.n_head * self.head_dim
    }

    /// For [`timing`]: operations, with `per_pair` for each column of a query and a key that it sees, and bytes.
    fn work(&self, name: &str, per_pair: f64) -> (String, f64, f64) {
        let (batch, time, width) = (self.batch as f64, self.time as f64, self.width() as f64);
        let name = format!("{name} {} × {} × {} × {}", self.batch, self.time, self.n_head, self.head_dim);
        (name, per_pair * batch * width * time * (time + 1.0) / 2.0, 4.0 * per_pair * batch * time * width)
    }

    /// Where each sequence starts, in rows, and where the last one ends: they lie one after the other. Checks the
    /// lengths of what has C and 3C columns, and of the log-sum-exps.
    fn starts(&self, lens: Option<&[usize]>, [out, qkv, lse]: [usize; 3]) -> Vec<usize> {
        assert!(lens.is_none_or(|lens| lens.len() == self.batch && lens.iter().all(|&len| len <= self.time)));
        let len = |b: usize| lens.map_or(self.time, |lens| lens[b]);
        let mut starts = vec![0];
        starts.extend((0..self.batch).scan(0, |end, b| {
            *end += len(b);
            Some(*end)
        }));
        let rows = starts[self.batch];
        assert!(out == rows * self.width() && qkv == 3 * out && lse == rows * self.n_head, "{self:?}");
        starts
    }
}

/// One head of one sequence: where its rows are, and how long it is.
struct Head<'a, T = f32> {
    isa: Isa,
    q: Mat<'a, T>, // (queries, D)
    k: Mat<'a, T>, // (keys, D)
    v: Mat<'a, T>, // (keys, D)
    scale: f32,
    /// Keys before the first query's own.
    past: usize,
    dropout: Option<(Dropout, u64)>, // with the index of element (0, 0)
    row_step: u64,                   // elements of dropout a row
}

/// What a task needs besides its inputs and outputs.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,  // (QUERIES, KEYS), then probabilities
    dscores: Vec<f32>, // (QUERIES, KEYS)
    out: Vec<f32>,     // (QUERIES, D)
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The softmax of one row, as far as its keys have been seen.
#[derive(Clone, Copy)]
struct Running {
    most: f32,
    sum: f32,
}

/// A block of scores, (queries, KEYS): query `i` sees `visible(i)` of its keys.
#[derive(Clone, Copy)]
struct Block {
    queries: usize,
    keys: usize,
    /// The last key of the block that query 0 sees; negative where it sees none.
    first: isize,
    scale: f32,
    /// Dropout, with the index of element (0, 0) and the number of elements of a row.
    dropout: Option<(Dropout, u64, u64)>,
}

impl Block {
    #[inline(always)]
    fn visible(&self, i: usize) -> usize {
        (self.first + 1).saturating_add_unsigned(i).clamp(0, self.keys as isize) as usize
    }

    /// The dropout factors of the first `n` keys of row `i`, where there is dropout.
    #[inline(always)]
    fn factors(&self, i: usize, n: usize) -> Option<[f32; KEYS]> {
        let (dropout, first, row_step) = self.dropout.as_ref()?;
        let mut factors = [0.0; KEYS];
        // Whole groups, which are computed together; what is beyond `n` is not used.
        dropout.factors(first + i as u64 * row_step, &mut factors[..n.next_multiple_of(GROUP).min(KEYS)]);
        Some(factors)
    }
}

/// A row's values, those that are not visible set. Always a whole row, whose length the compiler knows.
#[inline(always)]
fn padded(row: &mut [f32], visible: usize, value: f32) -> &mut [f32; KEYS] {
    row[visible..].fill(value);
    row.try_into().expect("a row has as many scores as a block has keys")
}

vectorised! {
    /// Takes in a block of scores: they become exponentials, 0 where not visible. What was summed before, in
    /// `running` and in the rows of `out` (D values each), shrinks when a larger score comes.
    fn absorb(block: &Block, running: &mut [Running], scores: &mut [f32], out: &mut [f32]) {
        let d = out.len() / block.queries;
        for (i, row) in scores.chunks_exact_mut(KEYS).enumerate() {
            let (running, visible) = (&mut running[i], block.visible(i));
            if visible == 0 {
                row.fill(0.0);
                continue;
            }
            let row = padded(row, visible, f32::NEG_INFINITY);
            // The scale is positive, so that the largest score is the largest scaled one.
            let most = max(row) * block.scale;
            let most = if most > running.most { most } else { running.most };
            row.iter_mut().for_each(|s| *s = exp::<FMA>(fma::<FMA>(*s, block.scale, -most)));
            let shrink = exp::<FMA>(running.most - most);
            running.sum = fma::<FMA>(running.sum, shrink, sum(row, |x| x));
            if most > running.most {
                map(&mut out[i * d..(i + 1) * d], |x| x * shrink);
            }
            running.most = most;
            if let Some(factors) = block.factors(i, visible) {
                row.iter_mut().zip(&factors).for_each(|(x, factor)| *x *= factor);
            }
        }
    }
}

vectorised! {
    /// Ends the softmax of each row: divides `out` by the sums, and gives the log-sum-exps.
    fn finish(running: &[Running], out: &mut [f32], lse: &mut [f32]) {
        let d = out.len() / running.len();
        for (i, (row, running)) in out.chunks_exact_mut(d).zip(running).enumerate() {
            let factor = 1.0 / running.sum;
            map(row, |x| x * factor);
            lse[i] = running.most + running.sum.ln();
        }
    }
}

vectorised! {
    /// Scores become probabilities, with dropout; `dscores` (the gradient by those) becomes that by the scores.
    fn backward_rows(block: &Block, scores: &mut [f32], dscores: &mut [f32], lse: &[f32], delta: &[f32]) {
        let rows = scores.chunks_exact_mut(KEYS).zip(dscores.chunks_exact_mut(KEYS));
        for (i, (probs, dscores)) in rows.enumerate() {
            let visible = block.visible(i);
            if visible == 0 {
                probs.fill(0.0);
                dscores.fill(0.0);
                continue;
            }
            let (probs, dscores) = (padded(probs, visible, f32::NEG_INFINITY), padded(dscores, visible, 0.0));
            probs.iter_mut().for_each(|s| *s = exp::<FMA>(fma::<FMA>(*s, block.scale, -lse[i])));
            let factors = block.factors(i, visible);
            if let Some(factors) = &factors {
                dscores.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor);
            }
            dscores.iter_mut().zip(&*probs).for_each(|(ds, p)| *ds = block.scale * p * (*ds - delta[i]));
            if let Some(factors) = &factors {
                probs.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor);
            }
        }
    }
}

vectorised! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        sum_pairs(a, b, |a, b| a * b)
    }
}

/// `C = A B` or `C += A B` where C is all of `c`, with rows of `ldc`.
fn multiply(isa: Isa, c: &mut [f32], ldc: usize, a: Mat, b: Mat, out: Out, causal: Causal) {
    // SAFETY: `c` is borrowed for this call alone.
    unsafe { product_inside(isa, (&Shared::new(c), 0, ldc), a, b, out, causal) }
}

impl<T> Head<'_, T> {
    /// The scores of `queries` rows from `i0` on with the block of keys from `key` on.
    fn block(&self, i0: usize, queries: usize, key: usize) -> Block {
        let keys = KEYS.min(self.past + i0 + queries - key);
        let dropout = self
            .dropout
            .map(|(dropout, first)| (dropout, first + i0 as u64 * self.row_step + key as u64, self.row_step));
        let first = (self.past + i0) as isize - key as isize;
        Block { queries, keys, first, scale: self.scale, dropout }
    }
}

impl Head<'_> {
    /// Output rows of the `n` queries from `i0` on, into `s.out` (n, D), and their log-sum-exps.
    fn forward_block(&self, s: &mut Scratch, lse: &mut [f32], i0: usize, n: usize) {
        let (isa, d, queries) = (self.isa, self.q.cols, self.q.part(i0, n));
        s.out.clear();
        s.out.resize(n * d, 0.0);
        s.scores.resize(QUERIES * KEYS, 0.0);
        let scores = &mut s.scores[..n * KEYS];
        let mut running = [Running { most: f32::NEG_INFINITY, sum: 0.0 }; QUERIES];
        for key in (0..self.past + i0 + n).step_by(KEYS) {
            let block = self.block(i0, n, key);
            let (keys, values) = (self.k.part(key, block.keys), self.v.part(key, block.keys));
            multiply(isa, scores, KEYS, queries, keys.t(), Out::Set, Causal::Scores { first: block.first });
            absorb(isa, &block, &mut running, scores, &mut s.out);
            let probs = Mat::strided(scores, n, block.keys, KEYS);
            multiply(isa, &mut s.out, d, probs, values, Out::Add, Causal::Probs { first: block.first });
        }
        finish(isa, &running[..n], &mut s.out, lse);
    }

    /// Adds the gradients by q, k and v: matrices (T, D) of `dqkv` that start at the three elements given.
    ///
    /// # Safety
    /// No other living borrow covers these matrices.
    unsafe fn backward(
        &self,
        s: &mut Scratch,
        dqkv: &Shared<f32>,
        starts: [usize; 3],
        dout: Mat,
        out: Mat,
        lse: &[f32],
    ) {
        let (isa, d, t, ld) = (self.isa, self.q.cols, self.q.rows, self.q.row_stride);
        let [dq, dk, dv] = starts;
        s.scores.resize(QUERIES * KEYS, 0.0);
        s.dscores.resize(QUERIES * KEYS, 0.0);
        for i0 in (0..t).step_by(QUERIES) {
            let n = QUERIES.min(t - i0);
            let (queries, dout, out) = (self.q.part(i0, n), dout.part(i0, n), out.part(i0, n));
            let mut delta = [0.0; QUERIES];
            for (i, delta) in delta.iter_mut().enumerate().take(n) {
                *delta =
                    dot(isa, &dout.data[i * dout.row_stride..][..d], &out.data[i * out.row_stride..][..d]);
            }
            let (scores, dscores) = (&mut s.scores[..n * KEYS], &mut s.dscores[..n * KEYS]);
            for key in (0..i0 + n).step_by(KEYS) {
                let block = self.block(i0, n, key);
                let first = block.first;
                let (keys, values) = (self.k.part(key, block.keys), self.v.part(key, block.keys));
                multiply(isa, scores, KEYS, queries, keys.t(), Out::Set, Causal::Scores { first });
                multiply(isa, dscores, KEYS, dout, values.t(), Out::Set, Causal::Scores { first });
                backward_rows(isa, &block, scores, dscores, &lse[i0..i0 + n], &delta);
                let probs = Mat::strided(scores, n, block.keys, KEYS);
                let dscores = Mat::strided(dscores, n, block.keys, KEYS);
                let (to_keys, transposed) = (key * ld, Causal::ProbsTransposed { first });
                // SAFETY: rows of the three matrices, which are ours by the caller's promise.
                unsafe {
                    product_inside(isa, (dqkv, dv + to_keys, ld), probs.t(), dout, Out::Add, transposed);
                    product_inside(isa, (dqkv, dk + to_keys, ld), dscores.t(), queries, Out::Add, transposed);
                    product_inside(
                        isa,
                        (dqkv, dq + i0 * ld, ld),
                        dscores,
                        keys,
                        Out::Add,
                        Causal::Probs { first },
                    );
                }
            }
        }
    }
}

/// The head `h` of sequence `b`, which has the rows `first..end`.
fn head_of<'a, T>(
    isa: Isa,
    qkv: &'a [T],
    shape: &AttentionShape,
    (b, h): (usize, usize),
    (first, end): (usize, usize),
    dropout: Option<Dropout>,
) -> Head<'a, T> {
    let &AttentionShape { time, n_head, head_dim: d, scale, .. } = shape;
    let (c, t) = (shape.width(), end - first);
    let part = |which: usize| {
        let start = first * 3 * c + which * c + h * d;
        Mat::strided(if t == 0 { &[] } else { &qkv[start..] }, t, d, 3 * c)
    };
    let first = ((b * n_head + h) * time * time) as u64;
    let dropout = dropout.map(|dropout| (dropout, first));
    Head { isa, q: part(0), k: part(1), v: part(2), scale, past: 0, dropout, row_step: time as u64 }
}

/// Attention of each sequence over itself. `out` is (rows, C), `qkv` (rows, 3C): the sequences lie one after the other,
/// `shape.time` rows each, or as many as `lens` says. `lse` is (H, t) for each sequence of t rows in turn. Element
/// (b, h, i, j) of the dropout has index `((b H + h) T + i) T + j`.
pub fn attention(
    out: &mut [f32],
    lse: &mut [f32],
    qkv: &[f32],
    shape: &AttentionShape,
    lens: Option<&[usize]>,
    dropout: Option<Dropout>,
) {
    let _span = timing::start(|| shape.work("attention", 4.0));
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
    let starts = shape.starts(lens, [out.len(), qkv.len(), lse.len()]);
    let &AttentionShape { batch, time, n_head, head_dim: d, .. } = shape;
    let c = shape.width();
    let blocks = time.div_ceil(QUERIES);
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    pool::for_each(batch * n_head * blocks, |task| {
        // Later blocks see more keys: they go first, so that the last task is a short one.
        let (block, pair) = (blocks - 1 - task / (batch * n_head), task % (batch * n_head));
        let (b, h) = (pair / n_head, pair % n_head);
        let (first, t) = (starts[b], starts[b + 1] - starts[b]);
        let (i0, end) = (block * QUERIES, t.min((block + 1) * QUERIES));
        if i0 >= end {
            return;
        }
        let head = head_of(isa, qkv, shape, (b, h), (first, first + t), dropout);
        let lse_start = first * n_head + h * t;
        // SAFETY: `lse` is borrowed by this function, and only this task has these rows of this head.
        let lse = unsafe { lse.part(lse_start + i0, lse_start + end) };
        SCRATCH.with_borrow_mut(|s| {
            head.forward_block(s, lse, i0, end - i0);
            for (i, computed) in s.out.chunks_exact(d).enumerate() {
                let start = (first + i0 + i) * c + h * d;
                // SAFETY: `out` is borrowed by this function, and only this task has this head of these rows.
                unsafe { out.part(start, start + d) }.copy_from_slice(computed);
            }
        });
    });
}

/// Adds to `dqkv` (rows, 3C) the gradient by `qkv`, given what the forward pass took and gave.
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
    let _span = timing::start(|| shape.work("attention backward", 10.0));
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
    let starts = shape.starts(lens, [out.len(), qkv.len(), lse.len()]);
    assert!(dqkv.len() == qkv.len() && dout.len() == out.len());
    let &AttentionShape { batch, n_head, head_dim: d, .. } = shape;
    let c = shape.width();
    let dqkv = Shared::new(dqkv);
    pool::for_each(batch * n_head, |pair| {
        let (b, h) = (pair / n_head, pair % n_head);
        let (first, t) = (starts[b], starts[b + 1] - starts[b]);
        if t == 0 {
            return;
        }
        let head = head_of(isa, qkv, shape, (b, h), (first, first + t), dropout);
        let rows = |x| Mat::strided(&(x as &[f32])[first * c + h * d..], t, d, c);
        let starts = [0, 1, 2].map(|which| first * 3 * c + which * c + h * d);
        SCRATCH.with_borrow_mut(|s| {
            let lse = &lse[first * n_head + h * t..][..t];
            // SAFETY: `dqkv` is borrowed by this function, and only this task has this head of this sequence.
            unsafe { head.backward(s, &dqkv, starts, rows(dout), rows(out), lse) };
        });
    });
}

#[cfg(test)]
mod tests;
