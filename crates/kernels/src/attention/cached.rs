//! Attention of new positions over all before them, whose keys and values are kept in blocks of 64 positions.
//!
//! A block holds one layer's keys and values: for each head its keys, then for each head its values, (64, D padded to
//! 32). In bfloat16 a unit of 32 bits is a pair: two columns of a key, or the values of two positions. Values lie as
//! products read them. Keys lie as (64, D) while a block fills, since to write a turned key would touch a line of the
//! cache for each of its columns, and are turned to (D, 64) once it is full: see [`turn`]. The bits are those of
//! [`super::attention`] over the whole sequence; a position that is not yet filled must hold finite numbers, since the
//! other half of its pair may be read with it; they count for nothing.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::ops::Range;

use bytemuck::{Pod, cast_slice, cast_slice_mut};

use super::{Block, KEYS, QUERIES, Running, absorb, finish};
use crate::bf16::{bf16, narrow_into};
use crate::gemm::tiles::{A, B, C, Lines, Tile, with_pair_tile, with_tile};
use crate::gemm::{Mat, pack};
use crate::isa::{self, Isa};
use crate::pool::{self, Shared};
use crate::timing;

/// Positions of a block of keys and values.
pub const BLOCK: usize = KEYS;
/// What a row of values is padded to, so that a whole tile can be read.
const PAD: usize = 32;

/// Sizes of the heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Heads (H).
    pub n_head: usize,
    /// Width of a head (D).
    pub head_dim: usize,
}

/// A type that keys and values are kept in.
pub trait Kept: Copy + Default + Send + Sync + 'static {
    /// What a block is made of.
    type Unit: Pod + Default + Send + Sync;
    /// Values in a unit.
    const DEEP: usize;
    /// Replaces part `which` of each unit.
    fn put(units: &mut [Self::Unit], which: usize, values: &[Self]);
    /// Values side by side in units.
    fn side_by_side(units: &mut [Self::Unit], values: &[Self]);
    /// Attention with the tile of this type.
    fn run(isa: Isa, work: &Work<Self>);
    /// Probabilities as units of a factor; `rounded` is scratch.
    fn factor<'a>(isa: Isa, probs: &'a [f32], rounded: &'a mut Vec<bf16>) -> &'a [Self::Unit];
    /// Stores rows.
    fn store(isa: Isa, out: &mut [Self], rows: &[f32]);
}

impl Kept for f32 {
    type Unit = f32;
    const DEEP: usize = 1;
    fn put(units: &mut [f32], _which: usize, values: &[f32]) {
        units.copy_from_slice(values);
    }
    fn side_by_side(units: &mut [f32], values: &[f32]) {
        units.copy_from_slice(values);
    }
    fn run(isa: Isa, work: &Work<f32>) {
        with_tile!(isa, |tile| work.run(isa, tile));
    }
    fn factor<'a>(_: Isa, probs: &'a [f32], _: &'a mut Vec<bf16>) -> &'a [f32] {
        probs
    }
    fn store(_: Isa, out: &mut [f32], rows: &[f32]) {
        out.copy_from_slice(rows);
    }
}

impl Kept for bf16 {
    type Unit = u32;
    const DEEP: usize = 2;
    fn put(units: &mut [u32], which: usize, values: &[bf16]) {
        let both = units.iter_mut().zip(values);
        if which == 0 {
            both.for_each(|(unit, value)| *unit = *unit & 0xffff_0000 | u32::from(value.to_bits()));
        } else {
            both.for_each(|(unit, value)| *unit = *unit & 0xffff | u32::from(value.to_bits()) << 16);
        }
    }
    fn side_by_side(units: &mut [u32], values: &[bf16]) {
        let (pairs, last) = values.as_chunks::<2>();
        for (unit, [low, high]) in units.iter_mut().zip(pairs) {
            *unit = u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16;
        }
        if let [last] = last {
            units[pairs.len()] = u32::from(last.to_bits());
        }
    }
    fn run(isa: Isa, work: &Work<bf16>) {
        with_pair_tile!(isa, |tile| work.run(isa, tile));
    }
    fn factor<'a>(isa: Isa, probs: &'a [f32], rounded: &'a mut Vec<bf16>) -> &'a [u32] {
        rounded.resize(probs.len(), bf16::ZERO);
        narrow_into(isa, rounded, probs);
        cast_slice(rounded) // the allocator aligns to more than 4 bytes
    }
    fn store(isa: Isa, out: &mut [bf16], rows: &[f32]) {
        narrow_into(isa, out, rows);
    }
}

impl Heads {
    fn width(&self) -> usize {
        self.n_head * self.head_dim
    }

    fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(PAD)
    }

    /// Units of a head's keys in a block.
    fn keys_len<T: Kept>(&self) -> usize {
        self.head_dim.div_ceil(T::DEEP) * BLOCK
    }

    /// Units of a head's values in a block.
    fn values_len<T: Kept>(&self) -> usize {
        BLOCK / T::DEEP * self.padded()
    }

    /// Units of a block of one layer.
    pub fn block_len<T: Kept>(&self) -> usize {
        self.n_head * (self.keys_len::<T>() + self.values_len::<T>())
    }
}

/// About how many tasks of attention there are for each thread, where rows are few.
const TASKS: usize = 3;
/// Columns that every tile can compute together, if its own are more.
const NARROW: usize = 32;
/// Rows whose products take less time than reading keys and values.
const FEW: usize = 4;

/// A sequence that goes on, and its blocks.
#[derive(Debug)]
pub struct Sequence<'a, U> {
    /// Positions before the first new one.
    pub past: usize,
    /// How many of the batch's rows are its own: they follow those of the sequences before it.
    pub rows: usize,
    /// A layer's part of each full block, whose keys are turned.
    pub full: Vec<&'a [U]>,
    /// The same of the others, which the new rows go to. Their keys are not turned.
    pub open: Vec<&'a mut [U]>,
}

/// Turns the keys of a layer's part of a block, from (64, D) to (D, 64), or back.
pub fn turn<T: Kept>(block: &mut [T::Unit], heads: Heads, back: bool) {
    assert_eq!(block.len(), heads.block_len::<T>());
    let (deep, len) = (heads.head_dim.div_ceil(T::DEEP), heads.keys_len::<T>());
    let mut turned = vec![T::Unit::default(); len];
    for keys in block[..heads.n_head * len].chunks_exact_mut(len) {
        let (width, height) = if back { (BLOCK, deep) } else { (deep, BLOCK) };
        for (j, out) in turned.chunks_exact_mut(height).enumerate() {
            out.iter_mut().zip(keys[j..].iter().step_by(width)).for_each(|(out, &unit)| *out = unit);
        }
        keys.copy_from_slice(&turned);
    }
}

/// Attention of the new rows of some sequences, with scores multiplied by `scale`. `out` is (rows, C), `qkv` (rows, 3C); the
/// keys and values of these rows are stored in the sequences' open blocks.
pub fn attention_cached<T: Kept>(
    out: &mut [T],
    qkv: &[T],
    sequences: Vec<Sequence<T::Unit>>,
    heads: Heads,
    scale: f32,
) {
    attention_cached_on(isa::current(), out, qkv, sequences, heads, scale);
}

pub(crate) fn attention_cached_on<T: Kept>(
    isa: Isa,
    out: &mut [T],
    qkv: &[T],
    sequences: Vec<Sequence<T::Unit>>,
    heads: Heads,
    scale: f32,
) {
    let (c, mut next) = (heads.width(), 0);
    let sequences: Vec<_> = sequences
        .into_iter()
        .map(|Sequence { past, rows, full, open }| {
            let lens = full.iter().map(|block| block.len()).chain(open.iter().map(|block| block.len()));
            assert!({ lens }.all(|len| len == heads.block_len::<T>()), "blocks of these heads");
            let there = rows == 0 || past + rows <= (full.len() + open.len()) * BLOCK;
            assert!(there && full.len() == past / BLOCK, "a sequence's blocks hold its positions");
            let first = next;
            next += rows;
            Place { past, rows: (first, rows), full, open: open.into_iter().map(Shared::new).collect() }
        })
        .filter(|s| s.rows.1 > 0)
        .collect();
    assert!(out.len() == next * c && qkv.len() == 3 * out.len(), "every row is a sequence's");
    let tasks = tasks(&sequences, heads.n_head);
    let work = Work { out: Shared::new(out), qkv, tasks, sequences, heads, scale };
    // Few rows are stored by the task that has the head: see [`Work::task`].
    let many: Vec<_> = work.sequences.iter().filter(|s| s.rows.1 > FEW).collect();
    if !many.is_empty() {
        let rows: usize = many.iter().map(|s| s.rows.1).sum();
        let _span = timing::values(&format!("keys and values kept {rows} rows"), 4 * rows * c);
        pool::for_each(many.len() * heads.n_head, |task| {
            // SAFETY: only this task has this head of this sequence, and nobody reads it yet.
            unsafe { work.store(many[task / heads.n_head], task % heads.n_head) };
        });
    }
    let _span = timing::start(|| {
        let pairs: usize = work.sequences.iter().map(|s| s.rows.1 * (s.past + s.rows.1)).sum();
        let blocks: usize = work.sequences.iter().map(Place::blocks).sum();
        let bytes = blocks * heads.block_len::<T>() * size_of::<T::Unit>();
        (format!("attention cached {next} rows"), 4.0 * (pairs * c) as f64, bytes as f64)
    });
    T::run(isa, &work);
}

/// A [`Sequence`] as the tasks share it.
struct Place<'a, U> {
    past: usize,
    /// The first new row, and how many.
    rows: (usize, usize),
    full: Vec<&'a [U]>,
    open: Vec<Shared<U>>,
}

impl<U> Place<'_, U> {
    fn blocks(&self) -> usize {
        self.full.len() + self.open.len()
    }
}

/// Rows of a sequence's queries, which are computed together, and heads.
struct Task {
    sequence: usize,
    /// The first of the sequence's new rows, and how many.
    rows: (usize, usize),
    heads: Range<usize>,
}

/// The work in tasks. A few rows take the time that reading their keys takes, so several heads go together, whose keys lie one
/// after the other, as long as there are some tasks for each thread, in the order of memory; many rows have heads of their own,
/// and the longest come first.
fn tasks<U>(sequences: &[Place<U>], n_head: usize) -> Vec<Task> {
    let blocks: usize = sequences.iter().map(Place::blocks).sum();
    let mut tasks = Vec::new();
    for (sequence, s) in sequences.iter().enumerate() {
        let parts = (TASKS * pool::threads() * s.blocks()).div_ceil(blocks).min(n_head);
        for first in (0..s.rows.1).step_by(QUERIES) {
            let n = QUERIES.min(s.rows.1 - first);
            let parts = if n <= FEW { parts } else { n_head };
            let heads = |part: usize| part * n_head / parts..(part + 1) * n_head / parts;
            tasks.extend((0..parts).map(|part| Task { sequence, rows: (first, n), heads: heads(part) }));
        }
    }
    let work = |task: &Task| {
        let (first, n) = task.rows;
        n * task.heads.len() * (sequences[task.sequence].past + first + n)
    };
    if sequences.iter().any(|s| s.rows.1 > FEW) {
        tasks.sort_by_key(|task| Reverse(work(task)));
    }
    tasks
}

/// What the tasks know.
pub struct Work<'a, T: Kept> {
    out: Shared<T>,
    qkv: &'a [T],
    sequences: Vec<Place<'a, T::Unit>>,
    tasks: Vec<Task>,
    heads: Heads,
    scale: f32,
}

/// What a task needs besides.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    rounded: Vec<bf16>,
    rows: Vec<f32>,
    running: Vec<Running>,
    lse: Vec<f32>,     // not wanted
    queries: Vec<u64>, // units of any type
    keys: Vec<u64>,    // a block's, turned
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl<T: Kept> Work<'_, T> {
    fn run<K: Tile<Unit = T::Unit>>(&self, isa: Isa, tile: K) {
        pool::for_each(self.tasks.len(), |i| {
            let task = &self.tasks[i];
            // This thread's next.
            let then = self.tasks.get(i + 1).unwrap_or(task);
            tile.held(|| SCRATCH.with_borrow_mut(|scratch| self.task(isa, tile, task, then, scratch)));
        });
    }

    /// Where a head's keys and values begin in a block.
    fn starts(&self, h: usize) -> [usize; 2] {
        let (keys_len, values_len) = (self.heads.keys_len::<T>(), self.heads.values_len::<T>());
        [h * keys_len, self.heads.n_head * keys_len + h * values_len]
    }

    /// A head's keys and values in block `number`.
    ///
    /// # Safety
    /// Nobody writes this head's keys and values while they are borrowed.
    unsafe fn of_head<'s>(&self, s: &'s Place<T::Unit>, number: usize, h: usize) -> [&'s [T::Unit]; 2] {
        let [keys, values] = self.starts(h);
        let part = |start: usize, len: usize| match s.full.get(number) {
            Some(block) => &block[start..start + len],
            None => {
                let part = s.open[number - s.full.len()].pointer(start, len);
                // SAFETY: it lies in a block that the caller of `attention_cached_on` borrows, and by the caller's
                // promise nobody writes it.
                unsafe { std::slice::from_raw_parts(part, len) }
            }
        };
        [part(keys, self.heads.keys_len::<T>()), part(values, self.heads.values_len::<T>())]
    }

    /// Where a head's keys in a block lie, for asking ahead.
    fn keys(&self, s: &Place<T::Unit>, number: usize, h: usize) -> *const T::Unit {
        let start = self.starts(h)[0];
        match s.full.get(number) {
            Some(block) => block[start..].as_ptr(),
            None => s.open[number - s.full.len()].pointer(start, 1),
        }
    }

    /// Stores the keys and values of a head's new rows.
    ///
    /// # Safety
    /// Nobody else uses this head's part of the sequence's open blocks meanwhile.
    unsafe fn store(&self, s: &Place<T::Unit>, h: usize) {
        let (c, d, padded) = (self.heads.width(), self.heads.head_dim, self.heads.padded());
        let (deep, [keys, values]) = (d.div_ceil(T::DEEP), self.starts(h));
        for i in 0..s.rows.1 {
            let row = &self.qkv[(s.rows.0 + i) * 3 * c..][..3 * c];
            let (block, at) = (&s.open[(s.past + i) / BLOCK - s.full.len()], (s.past + i) % BLOCK);
            let (key, value) = (keys + at * deep, values + at / T::DEEP * padded);
            // SAFETY: the blocks are borrowed by the caller of `attention_cached_on`; for the rest, the caller's promise.
            let (key, value) = unsafe { (block.part(key, key + deep), block.part(value, value + d)) };
            T::side_by_side(key, &row[c + h * d..][..d]);
            T::put(value, at % T::DEEP, &row[2 * c + h * d..][..d]);
        }
    }

    /// Walks the blocks of a sequence. In each, the scores of all heads come first, then their values, so that memory is read in
    /// the order in which it lies.
    fn task<K: Tile<Unit = T::Unit>>(
        &self,
        isa: Isa,
        tile: K,
        task: &Task,
        then: &Task,
        scratch: &mut Scratch,
    ) {
        let (sequence, (first, n)) = (&self.sequences[task.sequence], task.rows);
        let (c, d, padded) = (self.heads.width(), self.heads.head_dim, self.heads.padded());
        let (deep, heads) = (d.div_ceil(T::DEEP), task.heads.clone());
        let (row, past) = (sequence.rows.0 + first, sequence.past + first);
        let Scratch { scores, rounded, rows, running, lse, queries, keys: turned } = scratch;
        let n_rows = heads.len() * n;
        scores.resize(scores.len().max(n_rows * KEYS), 0.0);
        let scores = &mut scores[..n_rows * KEYS];
        rows.clear();
        rows.resize(n_rows * d, 0.0);
        running.clear();
        running.resize(n_rows, Running { most: f32::NEG_INFINITY, sum: 0.0 });
        lse.resize(lse.len().max(n_rows), 0.0);
        let lse = &mut lse[..n_rows];
        let turned = units::<T>(turned, KEYS * deep);
        let queries = units::<T>(queries, n_rows * deep);
        for (r, units) in queries.chunks_exact_mut(deep).enumerate() {
            let (h, i) = (heads.start + r / n, r % n);
            T::side_by_side(units, &self.qkv[(row + i) * 3 * c + h * d..][..d]);
        }
        if sequence.rows.1 <= FEW {
            // SAFETY: only this task has these heads of this sequence, and it has not read them yet.
            heads.clone().for_each(|h| unsafe { self.store(sequence, h) });
        }
        // SAFETY: these heads' rows are stored, and nobody changes them any more.
        let of_head = |s, number, h| unsafe { self.of_head(s, number, h) };
        let blocks = (past + n).div_ceil(KEYS);
        for number in 0..blocks {
            let keys = KEYS.min(past + n - number * KEYS);
            let first = past as isize - (number * KEYS) as isize;
            // While a head's keys are multiplied, the next head's are asked for; then the values; then the next block.
            let next_block = if number + 1 < blocks {
                self.keys(sequence, number + 1, heads.start)
            } else {
                self.keys(&self.sequences[then.sequence], 0, then.heads.start)
            };
            for (at, h) in heads.clone().enumerate() {
                let [key_units, _] = of_head(sequence, number, h);
                let next = match h + 1 < heads.end {
                    true => of_head(sequence, number, h + 1)[0],
                    false => of_head(sequence, number, heads.start)[1],
                };
                let a = A { at: queries[at * n * deep..].as_ptr(), row: deep, step: 1 };
                let scores = &mut scores[at * n * KEYS..][..n * KEYS];
                let c = (scores.as_mut_ptr(), KEYS, false);
                if number < sequence.full.len() {
                    let b = B { at: key_units.as_ptr(), step: KEYS };
                    // SAFETY: the queries are (n, deep), the keys (deep, KEYS), the scores (n, KEYS), borrowed here alone.
                    unsafe { product(tile, c, (a, n), (b, KEYS), deep, next.as_ptr()) };
                } else {
                    // Only panels with keys, and no wider than these need: scores of others are not looked at.
                    let width = K::width(keys.min(K::NR)).max(K::NR.min(NARROW));
                    let turned = &mut turned[..keys.div_ceil(width) * width * deep];
                    // Units of either type are 32 bits, which are only moved.
                    let (all, rows) = (cast_slice_mut(turned), cast_slice(&key_units[..keys * deep]));
                    pack::panels(isa, all, width, Mat::new(rows, keys, deep), 0, [0, deep]);
                    for (p, panel) in turned.chunks_exact(width * deep).enumerate() {
                        let c = (c.0.wrapping_add(p * width), KEYS, false);
                        let (b, next) = (
                            B { at: panel.as_ptr(), step: width },
                            next.as_ptr().wrapping_add(p * panel.len()),
                        );
                        // SAFETY: as above, with the panel (deep, width).
                        unsafe { product(tile, c, (a, n), (b, width), deep, next) };
                    }
                }
                let (running, rows) = (&mut running[at * n..][..n], &mut rows[at * n * d..][..n * d]);
                let block = Block { queries: n, keys, first, scale: self.scale, dropout: None };
                absorb(isa, &block, running, scores, rows);
            }
            let probs = T::factor(isa, scores, rounded);
            for (at, h) in heads.clone().enumerate() {
                let [_, value_units] = of_head(sequence, number, h);
                let next = match h + 1 < heads.end {
                    true => of_head(sequence, number, h + 1)[1].as_ptr(),
                    false => next_block,
                };
                let a = A { at: probs[at * n * KEYS / T::DEEP..].as_ptr(), row: KEYS / T::DEEP, step: 1 };
                let b = B { at: value_units.as_ptr(), step: padded };
                let c = (rows[at * n * d..][..n * d].as_mut_ptr(), d, true);
                // SAFETY: the probabilities are (n, KEYS), the values (KEYS, padded), and the rows (n, d), ours alone.
                unsafe { product(tile, c, (a, n), (b, d), keys.div_ceil(T::DEEP), next) };
            }
        }
        finish(isa, running, rows, lse);
        for (r, computed) in rows.chunks_exact(d).enumerate() {
            let start = (row + r % n) * c + (heads.start + r / n) * d;
            // SAFETY: `out` is borrowed by the caller, and only this task has these heads of these rows.
            T::store(isa, unsafe { self.out.part(start, start + d) }, computed);
        }
    }
}

/// `n` units in a buffer that serves every type.
fn units<T: Kept>(buffer: &mut Vec<u64>, n: usize) -> &mut [T::Unit] {
    buffer.resize(buffer.len().max((n * size_of::<T::Unit>()).div_ceil(8)), 0);
    &mut cast_slice_mut(buffer)[..n]
}

/// C (n, cols) from its corner, with rows `row` apart; B may be read in whole tiles. A few rows ask for memory `ahead`.
///
/// # Safety
/// A has `n` rows and B `depth` steps, of columns up to the next multiple of 32; C is ours.
unsafe fn product<K: Tile>(
    tile: K,
    (c, row, from_c): (*mut f32, usize, bool),
    (a, n): (A<K::Unit>, usize),
    (b, cols): (B<K::Unit>, usize),
    depth: usize,
    ahead: *const K::Unit,
) {
    if n <= K::MR && cols >= K::NR.min(NARROW) && cols.is_power_of_two() && cols <= K::wide_cols(n) {
        // A few queries: B's rows are read whole, in order.
        // SAFETY: the caller's promise.
        return unsafe {
            tile.wide(n, cols, Lines::parts(ahead, depth), C { at: c, row, from_c }, a, b, depth)
        };
    }
    for i in (0..n).step_by(K::MR) {
        let rows = K::MR.min(n - i);
        for j in (0..cols).step_by(K::NR) {
            let c = C { at: c.wrapping_add(i * row + j), row, from_c };
            let (a, b) = (A { at: a.at.wrapping_add(i * a.row), ..a }, B { at: b.at.wrapping_add(j), ..b });
            // SAFETY: the caller's promise; no tile is wider than what `cols` is padded to.
            unsafe { tile.run(rows, K::NR.min(cols - j), c, a, b, depth) };
        }
    }
}
