//! The bytes of every token, and the way back from bytes to id.

use std::hash::Hasher;
use std::ops::Range;

use rustc_hash::FxHasher;

const EMPTY: u32 = u32::MAX;

/// Tokens by id, in one piece of memory, with an index by their bytes.
///
/// The index is a table of twice as many places as tokens or more, searched from the place that the hash names.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    bytes: Vec<u8>,
    /// Where each token ends in `bytes`.
    ends: Vec<usize>,
    /// Part of the hash, and the id.
    table: Vec<(u32, u32)>,
    n_indexed: usize,
}

impl Tokens {
    /// No tokens yet, but room for `n`.
    pub fn with_capacity(n: usize) -> Tokens {
        let table = vec![(0, EMPTY); table_size(n)];
        Tokens { bytes: Vec::with_capacity(8 * n), ends: Vec::with_capacity(n), table, n_indexed: 0 }
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of a token.
    #[inline]
    pub fn get(&self, id: u32) -> Option<&[u8]> {
        self.range(id).map(|range| &self.bytes[range])
    }

    #[inline]
    fn range(&self, id: u32) -> Option<Range<usize>> {
        let id = id as usize;
        let end = *self.ends.get(id)?;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        Some(start..end)
    }

    /// All tokens in order of id.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len() as u32).filter_map(|id| self.get(id))
    }

    /// Adds a token that [`Self::find`] finds, unless an earlier one has the same bytes; returns its id.
    pub fn push(&mut self, token: &[u8]) -> u32 {
        let known = self.find(token).is_some();
        let id = self.push_hidden(token);
        if !known {
            self.index(id);
        }
        id
    }

    /// Adds a token that [`Self::find`] finds, unless an earlier one has the same bytes; says whether it did.
    pub(crate) fn push_new(&mut self, token: &[u8]) -> bool {
        let is_new = self.find(token).is_none();
        if is_new {
            let id = self.push_hidden(token);
            self.index(id);
        }
        is_new
    }

    /// Adds a token that [`Self::find`] never finds, such as one that stands for no text; returns its id.
    pub fn push_hidden(&mut self, token: &[u8]) -> u32 {
        self.bytes.extend_from_slice(token);
        self.ends.push(self.bytes.len());
        self.len() as u32 - 1
    }

    /// The token that `left` and `right` make together, added if it is not there yet.
    pub fn join(&mut self, left: u32, right: u32) -> u32 {
        let start = self.bytes.len();
        self.bytes.extend_from_within(self.range(left).unwrap_or_default());
        self.bytes.extend_from_within(self.range(right).unwrap_or_default());
        if let Some(id) = self.find(&self.bytes[start..]) {
            self.bytes.truncate(start);
            return id;
        }
        let id = self.len() as u32;
        self.ends.push(self.bytes.len());
        self.index(id);
        id
    }

    /// The token that is exactly these bytes.
    #[inline]
    pub fn find(&self, bytes: &[u8]) -> Option<u32> {
        let hash = hash(bytes);
        let mask = self.table.len().checked_sub(1)?;
        let mut place = hash as usize & mask;
        loop {
            let (tag, id) = self.table[place];
            if id == EMPTY {
                return None;
            }
            if tag == tag_of(hash) && self.get(id) == Some(bytes) {
                return Some(id);
            }
            place = (place + 1) & mask;
        }
    }

    /// Makes a token one that [`Self::find`] finds.
    fn index(&mut self, id: u32) {
        self.n_indexed += 1;
        if 2 * self.n_indexed > self.table.len() {
            self.grow();
        }
        self.put(id);
    }

    fn put(&mut self, id: u32) {
        let hash = hash(self.get(id).unwrap_or_default());
        let mask = self.table.len() - 1;
        let mut place = hash as usize & mask;
        while self.table[place].1 != EMPTY {
            place = (place + 1) & mask;
        }
        self.table[place] = (tag_of(hash), id);
    }

    fn grow(&mut self) {
        let larger = vec![(0, EMPTY); table_size(2 * self.n_indexed)];
        let smaller = std::mem::replace(&mut self.table, larger);
        smaller.into_iter().filter(|place| place.1 != EMPTY).for_each(|(_, id)| self.put(id));
    }
}

fn table_size(n: usize) -> usize {
    (2 * n).next_power_of_two().max(16)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_bytes_lead_to_each_other() {
        let mut tokens = Tokens::default();
        let names: Vec<String> = (0..1000).map(|n| format!("{:x}", n * n)).collect();
        for (id, name) in names.iter().enumerate() {
            assert_eq!(tokens.push(name.as_bytes()), id as u32);
        }
        for (id, name) in names.iter().enumerate() {
            assert_eq!(tokens.get(id as u32), Some(name.as_bytes()));
            assert_eq!(tokens.find(name.as_bytes()), Some(id as u32), "{name}");
        }
        assert_eq!((tokens.find(b"absent"), tokens.get(1000)), (None, None));
    }

    #[test]
    fn hidden_and_repeated_tokens() {
        let mut tokens = Tokens::with_capacity(4);
        assert_eq!(
            (tokens.push(b""), tokens.push(b"a"), tokens.push_hidden(b"b"), tokens.push(b"a")),
            (0, 1, 2, 3)
        );
        assert_eq!((tokens.find(b""), tokens.find(b"a"), tokens.find(b"b")), (Some(0), Some(1), None));
        assert_eq!((tokens.join(1, 2), tokens.join(1, 2)), (4, 4));
        assert_eq!((tokens.find(b"ab"), tokens.iter().last()), (Some(4), Some(&b"ab"[..])));
        assert_eq!(Tokens::default().find(b"a"), None);
    }
}
