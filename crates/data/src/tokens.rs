//! A stream of tokens, in memory or in shard files.

use std::ops::Range;
use std::sync::Arc;

use crate::shards::Shard;
use crate::{DataError, Result};

/// Tokens in order. Cloning and slicing share them.
#[derive(Clone, Debug)]
pub struct Tokens {
    store: Arc<Store>,
    range: Range<usize>,
}

#[derive(Debug)]
enum Store {
    /// A vocabulary of at most 65,536 tokens needs two bytes for each.
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
    Shards {
        shards: Vec<Shard>,
        vocab_size: usize,
    },
}

impl Tokens {
    /// Tokens in memory.
    pub fn new(ids: Vec<u32>) -> Tokens {
        let range = 0..ids.len();
        let store = match ids.iter().all(|&id| id <= u32::from(u16::MAX)) {
            true => Store::Narrow(ids.into_iter().map(|id| id as u16).collect()),
            false => Store::Wide(ids),
        };
        Tokens { store: Arc::new(store), range }
    }

    /// Tokens in shards, one after the other. Ids are checked against `vocab_size` as they are read.
    pub fn from_shards(shards: Vec<Shard>, vocab_size: usize) -> Tokens {
        let len = shards.iter().map(Shard::len).sum();
        Tokens { store: Arc::new(Store::Shards { shards, vocab_size }), range: 0..len }
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// A part of these tokens.
    ///
    /// # Panics
    /// If the part does not lie within.
    pub fn slice(&self, part: Range<usize>) -> Tokens {
        assert!(part.start <= part.end && part.end <= self.len(), "{part:?} of {} tokens", self.len());
        let start = self.range.start;
        Tokens { store: self.store.clone(), range: start + part.start..start + part.end }
    }

    /// Splits off the last `fraction`.
    pub fn split_end(&self, fraction: f64) -> (Tokens, Tokens) {
        let kept = self.len() - (self.len() as f64 * fraction).round() as usize;
        (self.slice(0..kept), self.slice(kept..self.len()))
    }

    /// Reads a part.
    pub fn read(&self, part: Range<usize>) -> Result<Vec<u32>> {
        let part = self.slice(part).range;
        match &*self.store {
            Store::Narrow(ids) => Ok(ids[part].iter().map(|&id| u32::from(id)).collect()),
            Store::Wide(ids) => Ok(ids[part].to_vec()),
            Store::Shards { shards, vocab_size } => {
                let ids = read_shards(shards, part.clone())?;
                match ids.iter().position(|&id| id as usize >= *vocab_size) {
                    None => Ok(ids),
                    Some(i) => {
                        let (position, vocab_size) = (part.start + i, *vocab_size);
                        Err(DataError::IdOutOfRange { id: ids[i], position, vocab_size })
                    }
                }
            }
        }
    }

    /// Reads all.
    pub fn to_vec(&self) -> Result<Vec<u32>> {
        self.read(0..self.len())
    }
}

fn read_shards(shards: &[Shard], part: Range<usize>) -> Result<Vec<u32>> {
    let mut ids = Vec::with_capacity(part.len());
    let mut first = 0;
    for shard in shards {
        let end = first + shard.len();
        let (from, to) = (part.start.max(first), part.end.min(end));
        if from < to {
            shard.read(from - first..to - first, &mut ids)?;
        }
        first = end;
    }
    Ok(ids)
}
