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
    /// Each `<unk>` and the bytes of text that it stands for, by place in the store; `None` where the text is not known.
    unknown: Option<Arc<Vec<(usize, u32)>>>,
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
        Tokens { store: Arc::new(store), range, unknown: None }
    }

    /// Tokens in memory of a text that is known: with the place of each `<unk>`, in order, and the bytes of text that
    /// it stands for.
    pub fn from_text(ids: Vec<u32>, unknown: Vec<(usize, u32)>) -> Tokens {
        Tokens { unknown: Some(Arc::new(unknown)), ..Tokens::new(ids) }
    }

    /// Several in one, in memory.
    pub fn concat(parts: &[Tokens]) -> Result<Tokens> {
        let (mut ids, mut unknown) = (Vec::new(), Some(Vec::new()));
        for part in parts {
            let first = ids.len();
            ids.extend(part.to_vec()?);
            match (&mut unknown, &part.unknown) {
                (Some(all), Some(some)) => {
                    let inside = some.iter().filter(|(at, _)| part.range.contains(at));
                    all.extend(inside.map(|&(at, bytes)| (first + at - part.range.start, bytes)));
                }
                _ => unknown = None,
            }
        }
        Ok(match unknown {
            Some(unknown) => Tokens::from_text(ids, unknown),
            None => Tokens::new(ids),
        })
    }

    /// The bytes of text behind the `<unk>` at this place; `None` where that is not known, as in shards.
    pub fn unknown_bytes(&self, position: usize) -> Option<usize> {
        let unknown = self.unknown.as_ref()?;
        let found = unknown.binary_search_by_key(&(self.range.start + position), |&(at, _)| at).ok()?;
        Some(unknown[found].1 as usize)
    }

    /// Bytes of memory that these tokens keep, with those they were sliced from.
    pub fn memory(&self) -> usize {
        let store = match &*self.store {
            Store::Narrow(ids) => 2 * ids.len(),
            Store::Wide(ids) => 4 * ids.len(),
            Store::Shards { .. } => 0,
        };
        store + self.unknown.as_ref().map_or(0, |unknown| size_of_val(&unknown[..]))
    }

    /// Tokens in shards, one after the other. Ids are checked against `vocab_size` as they are read.
    pub fn from_shards(shards: Vec<Shard>, vocab_size: usize) -> Tokens {
        let len = shards.iter().map(Shard::len).sum();
        Tokens { store: Arc::new(Store::Shards { shards, vocab_size }), range: 0..len, unknown: None }
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
        let range = start + part.start..start + part.end;
        Tokens { store: self.store.clone(), range, unknown: self.unknown.clone() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_unk_stands_for_survives_slices_and_joins() {
        let one = Tokens::from_text(vec![5, 0, 6, 0, 7], vec![(1, 4), (3, 9)]);
        let part = one.slice(2..5);
        assert_eq!((part.unknown_bytes(1), part.unknown_bytes(0)), (Some(9), None));
        let both = Tokens::concat(&[part.clone(), one.slice(0..2)]).unwrap();
        assert_eq!(both.to_vec().unwrap(), [6, 0, 7, 5, 0]);
        assert_eq!((both.unknown_bytes(1), both.unknown_bytes(4)), (Some(9), Some(4)));
        let with_others = Tokens::concat(&[part, Tokens::new(vec![0])]).unwrap();
        assert_eq!((with_others.len(), with_others.unknown_bytes(1)), (4, None));
        assert_eq!((one.slice(0..1).memory(), Tokens::new(vec![1 << 20]).memory()), (5 * 2 + 2 * 16, 4));
    }
}
