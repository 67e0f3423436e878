//! Attention on bfloat16, for training: the same walk over blocks, with all five products on pairs.
//!
//! Scores, probabilities and sums are `f32`; probabilities and their gradients are rounded where they are a factor.
//! A task is one head of one sequence: it packs the head's keys and values once, for all of its queries.

use std::cell::RefCell;

use super::{
    AttentionShape, Block, Head, KEYS, QUERIES, Running, absorb, backward_rows, dot, finish, head_of,
};
use crate::bf16::{bf16, narrow_into, widen_into};
use crate::gemm::pair_strips::{pack_transposed, panels_len, product};
use crate::gemm::tiles::{Tile, with_pair_tile};
use crate::gemm::{Causal, Mat, Out};
use crate::isa::{self, Isa};
use crate::pool::{self, Shared};
use crate::random::Dropout;
use crate::timing;

/// What a task needs besides its inputs and outputs.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,    // (QUERIES, KEYS), then probabilities
    dscores: Vec<f32>,   // (QUERIES, KEYS)
    probs: Vec<bf16>,    // scores, rounded
    dprobs: Vec<bf16>,   // dscores, rounded
    rows: Vec<f32>,      // (QUERIES, D): outputs, or gradients of queries
    by_key: Vec<u32>,    // B = kᵀ: panels of keys, for all keys
    values: Vec<u32>,    // B = vᵀ, the same
    of_keys: Vec<u32>,   // B = k (or v in the forward pass): panels for one block of keys after the other
    queries: Vec<u32>,   // B = q, for one block of queries
    douts: Vec<u32>,     // B = dout, the same
    dk: Vec<f32>,        // (T, D)
    dv: Vec<f32>,        // (T, D)
    wide: [Vec<f32>; 2], // two rows, widened
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Runs a task, whose products all have the same tile.
fn in_tiles(isa: Isa, task: impl FnOnce(&mut Scratch)) {
    SCRATCH.with_borrow_mut(|scratch| with_pair_tile!(isa, |tile| tile.held(|| task(scratch))));
}

fn room<T: Copy + Default>(values: &mut Vec<T>, len: usize) -> &mut [T] {
    if values.len() < len {
        values.resize(len, T::default());
    }
    &mut values[..len]
}

/// Packs every row of `rows` (T, D) as a column of a B.
fn pack_columns(isa: Isa, panels: &mut Vec<u32>, rows: Mat<bf16>) {
    pack_transposed(isa, room(panels, panels_len(rows.cols, rows.rows)), rows);
}

/// Packs blocks of `KEYS` rows of `rows` (T, D), each as a B of its own.
fn pack_blocks(isa: Isa, panels: &mut Vec<u32>, rows: Mat<bf16>) {
    let size = panels_len(KEYS, rows.cols);
    let panels = room(panels, rows.rows.div_ceil(KEYS) * size);
    for (block, panels) in panels.chunks_exact_mut(size).enumerate() {
        let n = KEYS.min(rows.rows - block * KEYS);
        pack_transposed(isa, &mut panels[..panels_len(n, rows.cols)], rows.part(block * KEYS, n).t());
    }
}

/// The panels of the block of keys from `key` on: within those of [`pack_columns`] and of [`pack_blocks`].
fn columns_of(panels: &[u32], key: usize, d: usize) -> &[u32] {
    &panels[panels_len(d, key)..]
}
fn block_of(panels: &[u32], key: usize, d: usize) -> &[u32] {
    &panels[key / KEYS * panels_len(KEYS, d)..]
}

/// A block of probabilities as a factor: an even number of keys, since what is beyond them is zero.
fn factor<'a>(values: &'a [bf16], block: &Block) -> Mat<'a, bf16> {
    Mat::strided(values, block.queries, block.keys.next_multiple_of(2), KEYS)
}

impl Head<'_, bf16> {
    fn forward(&self, s: &mut Scratch, lse: &mut [f32], out: &mut dyn FnMut(usize, &[f32])) {
        let (isa, d, t) = (self.isa, self.q.cols, self.q.rows);
        pack_columns(isa, &mut s.by_key, self.k);
        pack_blocks(isa, &mut s.of_keys, self.v);
        for i0 in (0..t).step_by(QUERIES) {
            let n = QUERIES.min(t - i0);
            let queries = self.q.part(i0, n);
            let scores = room(&mut s.scores, n * KEYS);
            let probs = room(&mut s.probs, n * KEYS);
            let rows = room(&mut s.rows, n * d);
            rows.fill(0.0);
            let mut running = [Running { most: f32::NEG_INFINITY, sum: 0.0 }; QUERIES];
            for key in (0..i0 + n).step_by(KEYS) {
                let block = self.block(i0, n, key);
                let first = block.first;
                let keys = (columns_of(&s.by_key, key, d), block.keys);
                product(isa, scores, KEYS, queries, keys, Out::Set, Causal::Scores { first });
                absorb(isa, &block, &mut running, scores, rows);
                narrow_into(isa, probs, scores);
                let values = (block_of(&s.of_keys, key, d), d);
                product(isa, rows, d, factor(probs, &block), values, Out::Add, Causal::Probs { first });
            }
            finish(isa, &running[..n], rows, &mut lse[i0..i0 + n]);
            out(i0, rows);
        }
    }

    /// Gives the gradients by q, k and v, row by row: which of the three, the row, and its values.
    fn backward(
        &self,
        s: &mut Scratch,
        dout: Mat<bf16>,
        out: Mat<bf16>,
        lse: &[f32],
        give: &mut dyn FnMut(usize, usize, &[f32]),
    ) {
        let (isa, d, t) = (self.isa, self.q.cols, self.q.rows);
        pack_columns(isa, &mut s.by_key, self.k);
        pack_columns(isa, &mut s.values, self.v);
        pack_blocks(isa, &mut s.of_keys, self.k);
        room(&mut s.dk, t * d).fill(0.0);
        room(&mut s.dv, t * d).fill(0.0);
        for i0 in (0..t).step_by(QUERIES) {
            let n = QUERIES.min(t - i0);
            let (queries, douts, outs) = (self.q.part(i0, n), dout.part(i0, n), out.part(i0, n));
            let delta = deltas(isa, &mut s.wide, douts, outs);
            pack_transposed(isa, room(&mut s.queries, panels_len(n, d)), queries.t());
            pack_transposed(isa, room(&mut s.douts, panels_len(n, d)), douts.t());
            let rows = room(&mut s.rows, n * d);
            rows.fill(0.0);
            for key in (0..i0 + n).step_by(KEYS) {
                let block = self.block(i0, n, key);
                let (first, keys) = (block.first, block.keys);
                let scores = room(&mut s.scores, n * KEYS);
                let dscores = room(&mut s.dscores, n * KEYS);
                let [by_key, values] =
                    [&s.by_key, &s.values].map(|panels| (columns_of(panels, key, d), keys));
                product(isa, scores, KEYS, queries, by_key, Out::Set, Causal::Scores { first });
                product(isa, dscores, KEYS, douts, values, Out::Set, Causal::Scores { first });
                backward_rows(isa, &block, scores, dscores, &lse[i0..i0 + n], &delta);
                let (probs, dprobs) = (room(&mut s.probs, n * KEYS), room(&mut s.dprobs, n * KEYS));
                narrow_into(isa, probs, scores);
                narrow_into(isa, dprobs, dscores);
                let turned = |values| Mat::strided(values, n, keys, KEYS).t();
                let of_keys = (block_of(&s.of_keys, key, d), d);
                let seen = Causal::ProbsTransposed { first };
                let at = key * d..(key + keys) * d;
                product(isa, &mut s.dv[at.clone()], d, turned(probs), (&s.douts, d), Out::Add, seen);
                product(isa, &mut s.dk[at], d, turned(dprobs), (&s.queries, d), Out::Add, seen);
                product(isa, rows, d, factor(dprobs, &block), of_keys, Out::Add, Causal::Probs { first });
            }
            rows.chunks_exact(d).enumerate().for_each(|(i, row)| give(0, i0 + i, row));
        }
        for (which, values) in [(1, &s.dk), (2, &s.dv)] {
            values[..t * d].chunks_exact(d).enumerate().for_each(|(i, row)| give(which, i, row));
        }
    }
}

/// `dout · out` of each row.
fn deltas(isa: Isa, wide: &mut [Vec<f32>; 2], dout: Mat<bf16>, out: Mat<bf16>) -> [f32; QUERIES] {
    let (mut delta, d) = ([0.0; QUERIES], out.cols);
    let [wide_dout, wide_out] = wide;
    let (wide_dout, wide_out) = (room(wide_dout, d), room(wide_out, d));
    for (i, delta) in delta.iter_mut().enumerate().take(out.rows) {
        widen_into(isa, wide_dout, &dout.data[i * dout.row_stride..][..d]);
        widen_into(isa, wide_out, &out.data[i * out.row_stride..][..d]);
        *delta = dot(isa, wide_dout, wide_out);
    }
    delta
}

/// [`super::attention`] on bfloat16.
pub fn attention_bf16(
    out: &mut [bf16],
    lse: &mut [f32],
    qkv: &[bf16],
    shape: &AttentionShape,
    lens: Option<&[usize]>,
    dropout: Option<Dropout>,
) {
    let _span = timing::start(|| shape.work("attention", 4.0));
    attention_bf16_on(isa::current(), out, lse, qkv, shape, lens, dropout);
}

pub(crate) fn attention_bf16_on(
    isa: Isa,
    out: &mut [bf16],
    lse: &mut [f32],
    qkv: &[bf16],
    shape: &AttentionShape,
    lens: Option<&[usize]>,
    dropout: Option<Dropout>,
) {
    let starts = shape.starts(lens, [out.len(), qkv.len(), lse.len()]);
    let &AttentionShape { batch, n_head, head_dim: d, .. } = shape;
    let c = shape.width();
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    pool::for_each(batch * n_head, |pair| {
        let (b, h) = (pair / n_head, pair % n_head);
        let (first, t) = (starts[b], starts[b + 1] - starts[b]);
        let head = head_of(isa, qkv, shape, (b, h), (first, first + t), dropout);
        let lse_start = first * n_head + h * t;
        // SAFETY: `lse` is borrowed by this function, and only this task has this head of this sequence.
        let lse = unsafe { lse.part(lse_start, lse_start + t) };
        in_tiles(isa, |s| {
            head.forward(s, lse, &mut |i0, rows| {
                for (i, row) in rows.chunks_exact(d).enumerate() {
                    let start = (first + i0 + i) * c + h * d;
                    // SAFETY: `out` is borrowed by this function, and only this task has this head of these rows.
                    narrow_into(isa, unsafe { out.part(start, start + d) }, row);
                }
            });
        });
    });
}

/// The gradient by `qkv`, given what the forward pass took and gave.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward_bf16(
    dqkv: &mut [bf16],
    dout: &[bf16],
    out: &[bf16],
    lse: &[f32],
    qkv: &[bf16],
    shape: &AttentionShape,
    lens: Option<&[usize]>,
    dropout: Option<Dropout>,
) {
    let _span = timing::start(|| shape.work("attention backward", 10.0));
    attention_backward_bf16_on(isa::current(), dqkv, dout, out, lse, qkv, shape, lens, dropout);
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn attention_backward_bf16_on(
    isa: Isa,
    dqkv: &mut [bf16],
    dout: &[bf16],
    out: &[bf16],
    lse: &[f32],
    qkv: &[bf16],
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
        let rows = |x| Mat::strided(&(x as &[bf16])[first * c + h * d..], t, d, c);
        in_tiles(isa, |s| {
            let lse = &lse[first * n_head + h * t..][..t];
            head.backward(s, rows(dout), rows(out), lse, &mut |which, row, values| {
                let start = (first + row) * 3 * c + which * c + h * d;
                // SAFETY: `dqkv` is borrowed by this function, and only this task has this head of this sequence.
                narrow_into(isa, unsafe { dqkv.part(start, start + d) }, values);
            });
        });
    });
}
