//! The keys and values of the tokens so far, so that each new token is computed once.
//!
//! They are kept in blocks of [`BLOCK`] positions, which come from a [`KvPool`] with a budget. Full blocks never change,
//! so sequences that begin alike share them; a block that is shared is copied before it is written to.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tensor::cached::{Heads, Sequence, turn};
use tensor::ops::CachedSequences;
use tensor::pool::for_each_chunk_mut;
use tensor::{Precision, bf16};

use crate::{Gpt2Config, ModelError, Result};

pub use tensor::cached::BLOCK;

/// Where sequences get their blocks from. Cloning gives another handle on the same pool.
#[derive(Clone, Debug)]
pub struct KvPool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    n_layer: usize,
    heads: Heads,
    precision: Precision,
    budget: usize,
    used: AtomicUsize,
    idle: Mutex<Vec<Units>>,
}

/// A block's keys and values, layer by layer.
#[derive(Clone, Debug)]
enum Units {
    F32(Vec<f32>),
    Bf16(Vec<u32>),
}

impl Units {
    /// The contents of another block of the pool, in the memory that is here.
    fn copy_from(&mut self, other: &Units) {
        match (self, other) {
            (Units::F32(units), Units::F32(others)) => units.copy_from_slice(others),
            (Units::Bf16(units), Units::Bf16(others)) => units.copy_from_slice(others),
            _ => unreachable!("blocks of a pool are of one type"),
        }
    }
}

#[derive(Debug)]
struct Block {
    units: Units,
    /// Whether the keys are turned, as they are in full blocks.
    turned: bool,
    pool: Arc<Shared>,
}

impl Block {
    /// Turns the keys of all layers, or turns them back.
    fn turn(&mut self, turned: bool) {
        if self.turned == turned {
            return;
        }
        self.turned = turned;
        let (heads, len) = (self.pool.heads, self.pool.layer_len());
        match &mut self.units {
            Units::F32(units) => for_each_chunk_mut(units, len, |_, part| turn::<f32>(part, heads, !turned)),
            Units::Bf16(units) => {
                for_each_chunk_mut(units, len, |_, part| turn::<bf16>(part, heads, !turned))
            }
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(1, Ordering::Relaxed);
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The next sequence finds its memory warm; what may be used at once bounds what lies idle.
        idle.push(std::mem::replace(&mut self.units, Units::F32(Vec::new())));
    }
}

impl KvPool {
    /// A pool for models of this shape that compute in this precision, of at most `budget` blocks.
    pub fn new(config: &Gpt2Config, precision: Precision, budget: usize) -> KvPool {
        let heads = Heads { n_head: config.n_head, head_dim: config.n_embd / config.n_head };
        let (used, idle) = (AtomicUsize::new(0), Mutex::default());
        KvPool(Arc::new(Shared { n_layer: config.n_layer, heads, precision, budget, used, idle }))
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        4 * self.0.len()
    }

    /// Blocks in use.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Blocks that there may be.
    pub fn budget(&self) -> usize {
        self.0.budget
    }

    /// Blocks for this many tokens.
    pub fn blocks_for(tokens: usize) -> usize {
        tokens.div_ceil(BLOCK)
    }
}

impl Shared {
    /// Units of a layer's part of a block.
    fn layer_len(&self) -> usize {
        match self.precision {
            Precision::F32 => self.heads.block_len::<f32>(),
            Precision::Bf16 => self.heads.block_len::<bf16>(),
        }
    }

    fn len(&self) -> usize {
        self.n_layer * self.layer_len()
    }
}

/// A new block: of zeros, or with the contents of another.
fn block(pool: &Arc<Shared>, like: Option<&Block>) -> Result<Arc<Block>> {
    if pool.used.fetch_add(1, Ordering::Relaxed) >= pool.budget {
        pool.used.fetch_sub(1, Ordering::Relaxed);
        return Err(ModelError::CacheFull { budget: pool.budget });
    }
    let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let units = match (idle, like, pool.precision) {
        (Some(mut units), Some(like), _) => {
            units.copy_from(&like.units);
            units
        }
        (Some(Units::F32(mut units)), None, _) => {
            units.fill(0.0);
            Units::F32(units)
        }
        (Some(Units::Bf16(mut units)), None, _) => {
            units.fill(0);
            Units::Bf16(units)
        }
        (None, Some(like), _) => like.units.clone(),
        (None, None, Precision::F32) => Units::F32(vec![0.0; pool.len()]),
        (None, None, Precision::Bf16) => Units::Bf16(vec![0; pool.len()]),
    };
    Ok(Arc::new(Block { units, turned: like.is_some_and(|like| like.turned), pool: pool.clone() }))
}

/// One sequence's keys and values. Owned by whoever decodes.
#[derive(Debug)]
pub struct KvCache {
    pool: Arc<Shared>,
    blocks: Vec<Arc<Block>>,
    len: usize,
}

impl KvCache {
    /// An empty cache for a model that computes in `f32`. Memory is taken as the sequence grows.
    pub fn new(config: &Gpt2Config) -> KvCache {
        KvCache::of(&KvPool::new(config, Precision::F32, usize::MAX))
    }

    /// An empty cache that takes its blocks from a pool.
    pub fn of(pool: &KvPool) -> KvCache {
        KvCache { pool: pool.0.clone(), blocks: Vec::new(), len: 0 }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all tokens from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.blocks.truncate(KvPool::blocks_for(self.len));
    }

    /// A sequence that begins with the first `len` tokens of this one, whose blocks it shares.
    pub fn fork(&self, len: usize) -> KvCache {
        let len = len.min(self.len);
        KvCache { pool: self.pool.clone(), blocks: self.blocks[..KvPool::blocks_for(len)].to_vec(), len }
    }

    /// Blocks that this sequence must still take to hold `n` more tokens.
    pub fn missing(&self, n: usize) -> usize {
        let more = KvPool::blocks_for(self.len + n).saturating_sub(self.blocks.len());
        let copy = n > 0
            && !self.len.is_multiple_of(BLOCK)
            && self.blocks.last().is_some_and(|b| Arc::strong_count(b) > 1);
        more + usize::from(copy)
    }

    /// Takes blocks for `n` more tokens.
    pub(crate) fn reserve(&mut self, n: usize) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let held = self.len / BLOCK; // whole blocks, which stay as they are
        if let Some(last) = self.blocks.get_mut(held) {
            if Arc::get_mut(last).is_none() {
                *last = block(&self.pool, Some(last))?;
            }
            // It was full, and is so no more.
            Arc::get_mut(last).expect("this sequence's own").turn(false);
        }
        while self.blocks.len() < KvPool::blocks_for(self.len + n) {
            self.blocks.push(block(&self.pool, None)?);
        }
        Ok(())
    }

    /// Counts `n` tokens as held, once every layer has them.
    pub(crate) fn advance(&mut self, n: usize) {
        let full = self.len / BLOCK..(self.len + n) / BLOCK;
        self.len += n;
        for block in &mut self.blocks[full] {
            Arc::get_mut(block).expect("reserve has made it this sequence's own").turn(true);
        }
    }
}

/// A sequence's part of a batch: `tokens` of it are new.
#[derive(Debug)]
pub struct Run<'a> {
    /// What came before, and where the new keys and values go.
    pub cache: &'a mut KvCache,
    /// How many tokens of the batch, in turn, belong to it.
    pub tokens: usize,
}

/// The sequences of a batch as a layer's attention takes them.
pub(crate) fn sequences<'a>(runs: &'a mut [Run], layer: usize) -> CachedSequences<'a> {
    let Some(pool) = runs.first().map(|run| run.cache.pool.clone()) else {
        return CachedSequences::F32(Vec::new());
    };
    let len = pool.layer_len();
    let place = layer * len..(layer + 1) * len;
    match pool.precision {
        Precision::F32 => CachedSequences::F32(views(runs, place, Units::f32, Units::f32_mut)),
        Precision::Bf16 => CachedSequences::Bf16(views(runs, place, Units::pairs, Units::pairs_mut)),
    }
}

/// A layer's part (`place`) of all blocks that a batch needs.
fn views<'a, U>(
    runs: &'a mut [Run],
    place: Range<usize>,
    held: impl Fn(&Units) -> &[U],
    own: impl Fn(&mut Units) -> &mut [U],
) -> Vec<Sequence<'a, U>> {
    let view = |run: &'a mut Run| {
        let (past, rows) = (run.cache.len, run.tokens);
        let (full, open) = run.cache.blocks.split_at_mut(past / BLOCK);
        let full = full.iter().map(|block| {
            debug_assert!(block.turned, "full blocks are turned");
            &held(&block.units)[place.clone()]
        });
        // Where nothing is new, the last block may be shared.
        let open = open.iter_mut().filter(|_| rows > 0).map(|block| {
            let block = Arc::get_mut(block).expect("reserve has made it this sequence's own");
            debug_assert!(!block.turned, "reserve has turned it back");
            &mut own(&mut block.units)[place.clone()]
        });
        Sequence { past, rows, full: full.collect(), open: open.collect() }
    };
    runs.iter_mut().map(view).collect()
}

const OTHER: &str = "a cache has the precision of its model";

impl Units {
    fn f32(&self) -> &[f32] {
        if let Units::F32(units) = self { units } else { unreachable!("{OTHER}") }
    }

    fn f32_mut(&mut self) -> &mut [f32] {
        if let Units::F32(units) = self { units } else { unreachable!("{OTHER}") }
    }

    fn pairs(&self) -> &[u32] {
        if let Units::Bf16(units) = self { units } else { unreachable!("{OTHER}") }
    }

    fn pairs_mut(&mut self) -> &mut [u32] {
        if let Units::Bf16(units) = self { units } else { unreachable!("{OTHER}") }
    }
}
