//! Byte-level byte-pair encoding (Sennrich et al., 2016; Radford et al., 2019).
//!
//! A piece of text starts as its bytes, each a token. Then the pair of neighbours with the lowest rank is merged,
//! again and again, until no pair has a rank. Most pieces of ordinary text are tokens themselves: those are found
//! by one look-up, once it is known that merging gives the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU8, Ordering};

use rustc_hash::FxHashMap;

/// Longer pieces are merged with a heap, shorter ones by scanning.
const SCAN: usize = 40;
/// Longest piece whose result is remembered within one text.
const CACHED_LEN: usize = 40;
/// Pieces remembered within one text.
const CACHED: usize = 1 << 16;
const NO_RANK: u32 = u32::MAX;

/// A byte-level vocabulary and its merges.
#[derive(Debug)]
pub struct Bpe {
    tokens: Vec<Box<[u8]>>,
    by_bytes: FxHashMap<Box<[u8]>, u32>,
    byte_ids: [u32; 256],
    merges: Merges,
    /// Whether merging a token's bytes gives that token: not yet known, yes, or no.
    whole: Vec<AtomicU8>,
}

/// How two neighbours merge.
#[derive(Debug)]
enum Merges {
    /// Into the token of their joined bytes, whose id is the rank: the released GPT-2 vocabulary.
    ByBytes { first_merged: u32, end: u32 },
    /// By an explicit list: pair to (rank, merged token).
    ByPair(FxHashMap<(u32, u32), (u32, u32)>),
}

const UNKNOWN: u8 = 0;
const WHOLE: u8 = 1;
const SPLIT: u8 = 2;

/// Results of one text's pieces.
#[derive(Default)]
pub(crate) struct Cache {
    found: FxHashMap<Box<[u8]>, (u32, u32)>,
    ids: Vec<u32>,
}

impl Bpe {
    /// A vocabulary whose merges are given by the ids: tokens `0..256` are the bytes, `256..n` merges in order, and
    /// `extra` special tokens follow.
    pub fn from_ranks(tokens: Vec<Box<[u8]>>, extra: usize) -> Bpe {
        let end = (tokens.len() - extra) as u32;
        Bpe::new(tokens, Merges::ByBytes { first_merged: 256, end }, |id| id < end)
    }

    /// A vocabulary with merges in order of rank: left and right token, and what they become. `is_text` says which
    /// tokens may be the result of encoding text, as special tokens may not.
    pub fn from_merges(
        tokens: Vec<Box<[u8]>>,
        merges: &[(u32, u32, u32)],
        is_text: impl Fn(u32) -> bool,
    ) -> Bpe {
        let mut by_pair = FxHashMap::default();
        for (rank, &(left, right, merged)) in merges.iter().enumerate() {
            by_pair.entry((left, right)).or_insert((rank as u32, merged));
        }
        Bpe::new(tokens, Merges::ByPair(by_pair), is_text)
    }

    fn new(tokens: Vec<Box<[u8]>>, merges: Merges, is_text: impl Fn(u32) -> bool) -> Bpe {
        let mut by_bytes = FxHashMap::with_capacity_and_hasher(tokens.len(), Default::default());
        let mut byte_ids = [0; 256];
        for (id, token) in tokens.iter().enumerate().filter(|&(id, _)| is_text(id as u32)) {
            by_bytes.insert(token.clone(), id as u32);
            if let [byte] = **token {
                byte_ids[byte as usize] = id as u32;
            }
        }
        let whole = tokens.iter().map(|_| AtomicU8::new(UNKNOWN)).collect();
        Bpe { tokens, by_bytes, byte_ids, merges, whole }
    }

    /// The bytes of each token.
    pub fn tokens(&self) -> &[Box<[u8]>] {
        &self.tokens
    }

    /// The merges in order of rank: left, right, merged.
    pub fn merges(&self) -> Vec<(u32, u32, u32)> {
        match &self.merges {
            Merges::ByPair(pairs) => {
                let mut list: Vec<_> = pairs.iter().map(|(&(l, r), &(rank, merged))| (rank, l, r, merged)).collect();
                list.sort_unstable();
                list.into_iter().map(|(_, l, r, merged)| (l, r, merged)).collect()
            }
            &Merges::ByBytes { first_merged, end } => (first_merged..end).map(|id| self.parts_of(id)).collect(),
        }
    }

    /// The two tokens that become `id`: what its bytes merge to with lower ranks only.
    fn parts_of(&self, id: u32) -> (u32, u32, u32) {
        let mut parts = Vec::with_capacity(2);
        self.merge_below(&self.tokens[id as usize], id, &mut parts);
        match parts[..] {
            [left, right] => (left, right, id),
            _ => unreachable!("a token of a ranked vocabulary is made of two of lower rank"),
        }
    }

    /// The token that is exactly these bytes.
    pub fn token(&self, bytes: &[u8]) -> Option<u32> {
        self.by_bytes.get(bytes).copied()
    }

    /// The token of one byte.
    pub fn byte(&self, byte: u8) -> u32 {
        self.byte_ids[byte as usize]
    }

    /// Appends the tokens of one piece of text.
    #[inline]
    pub(crate) fn encode_piece(&self, piece: &[u8], ids: &mut Vec<u32>, cache: &mut Cache) {
        if let Some(&id) = self.by_bytes.get(piece)
            && self.is_whole(id, piece)
        {
            return ids.push(id);
        }
        if piece.len() > CACHED_LEN {
            return self.merge_below(piece, NO_RANK, ids);
        }
        if let Some(&(start, end)) = cache.found.get(piece) {
            return ids.extend_from_slice(&cache.ids[start as usize..end as usize]);
        }
        let first = ids.len();
        self.merge_below(piece, NO_RANK, ids);
        if cache.found.len() < CACHED {
            let start = cache.ids.len() as u32;
            cache.ids.extend_from_slice(&ids[first..]);
            cache.found.insert(piece.into(), (start, cache.ids.len() as u32));
        }
    }

    #[inline]
    fn is_whole(&self, id: u32, piece: &[u8]) -> bool {
        let state = &self.whole[id as usize];
        match state.load(Ordering::Relaxed) {
            WHOLE => true,
            SPLIT => false,
            _ => {
                let mut ids = Vec::new();
                self.merge_below(piece, NO_RANK, &mut ids);
                let whole = ids == [id];
                state.store(if whole { WHOLE } else { SPLIT }, Ordering::Relaxed);
                whole
            }
        }
    }

    /// Merges neighbours, lowest rank first, leftmost among equals, using ranks below `limit`.
    fn merge_below(&self, piece: &[u8], limit: u32, ids: &mut Vec<u32>) {
        if piece.len() <= SCAN { self.merge_scanning(piece, limit, ids) } else { self.merge_with_heap(piece, limit, ids) }
    }

    /// Rank and result of merging two neighbours whose joined bytes are `joined`.
    #[inline]
    fn rank(&self, left: u32, right: u32, joined: &[u8], limit: u32) -> (u32, u32) {
        let found = match &self.merges {
            Merges::ByBytes { first_merged, end } => self
                .by_bytes
                .get(joined)
                .filter(|id| (*first_merged..*end).contains(id))
                .map(|&id| (id, id)),
            Merges::ByPair(pairs) => pairs.get(&(left, right)).copied(),
        };
        found.filter(|&(rank, _)| rank < limit).unwrap_or((NO_RANK, 0))
    }

    fn merge_scanning(&self, piece: &[u8], limit: u32, ids: &mut Vec<u32>) {
        // Parallel to the parts: where each starts, its token, and rank and result of merging it with the next.
        let mut parts = [(0usize, 0u32, (NO_RANK, 0u32)); SCAN + 1];
        let mut n = piece.len();
        for (i, &byte) in piece.iter().enumerate() {
            parts[i] = (i, self.byte(byte), (NO_RANK, 0));
        }
        parts[n].0 = n;
        let rank_at = |parts: &[(usize, u32, (u32, u32))], i: usize, n: usize| {
            if i + 1 >= n {
                return (NO_RANK, 0);
            }
            self.rank(parts[i].1, parts[i + 1].1, &piece[parts[i].0..parts[i + 2].0], limit)
        };
        for i in 0..n {
            parts[i].2 = rank_at(&parts, i, n);
        }
        loop {
            let mut best = (NO_RANK, 0);
            for (i, part) in parts[..n].iter().enumerate() {
                if part.2.0 < best.0 {
                    best = (part.2.0, i);
                }
            }
            let (rank, i) = best;
            if rank == NO_RANK {
                break;
            }
            parts[i].1 = parts[i].2.1;
            parts.copy_within(i + 2..=n, i + 1);
            n -= 1;
            parts[i].2 = rank_at(&parts, i, n);
            if i > 0 {
                parts[i - 1].2 = rank_at(&parts, i - 1, n);
            }
        }
        ids.extend(parts[..n].iter().map(|part| part.1));
    }

    /// For long pieces: a linked list of parts, and a heap of the merges that may still be possible.
    fn merge_with_heap(&self, piece: &[u8], limit: u32, ids: &mut Vec<u32>) {
        let n = piece.len();
        let mut token: Vec<u32> = piece.iter().map(|&byte| self.byte(byte)).collect();
        let mut end: Vec<usize> = (1..=n).collect(); // where part i ends, which is where the next starts
        let mut before: Vec<usize> = (0..n).map(|i| i.wrapping_sub(1)).collect();
        let mut alive = vec![true; n];
        let mut heap = BinaryHeap::new();
        let offer = |heap: &mut BinaryHeap<_>, token: &[u32], end: &[usize], i: usize| {
            let next = end[i];
            if next < n {
                let (rank, merged) = self.rank(token[i], token[next], &piece[i..end[next]], limit);
                if rank != NO_RANK {
                    heap.push(Reverse((rank, i, merged, token[i], token[next], end[next])));
                }
            }
        };
        (0..n).for_each(|i| offer(&mut heap, &token, &end, i));
        while let Some(Reverse((_, i, merged, left, right, joined_end))) = heap.pop() {
            let next = end[i];
            let current = alive[i] && next < n && token[i] == left && token[next] == right && end[next] == joined_end;
            if !current {
                continue;
            }
            (token[i], end[i], alive[next]) = (merged, joined_end, false);
            if joined_end < n {
                before[joined_end] = i;
            }
            offer(&mut heap, &token, &end, i);
            if before[i] != usize::MAX {
                offer(&mut heap, &token, &end, before[i]);
            }
        }
        let mut i = 0;
        while i < n {
            ids.push(token[i]);
            i = end[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> Vec<Box<[u8]>> {
        (0..=255u8).map(|byte| vec![byte].into()).collect()
    }

    fn toy() -> Bpe {
        let mut tokens = bytes();
        tokens.extend(["ab", "abab", "bc", "abc"].map(|token| token.as_bytes().into()));
        let (a, b, c) = (97, 98, 99);
        Bpe::from_merges(tokens, &[(a, b, 256), (256, 256, 257), (b, c, 258), (256, c, 259)], |_| true)
    }

    #[test]
    fn lowest_rank_first_and_leftmost_among_equals() {
        let encode = |text: &str| {
            let mut ids = Vec::new();
            toy().encode_piece(text.as_bytes(), &mut ids, &mut Cache::default());
            ids
        };
        assert_eq!(encode("abc"), [259]);
        assert_eq!(encode("ababab"), [257, 256]);
        assert_eq!(encode("bcab"), [258, 256]);
        assert_eq!(encode("xbc"), [120, 258]);
    }

    #[test]
    fn heap_and_scan_agree() {
        let bpe = toy();
        for n in 1..SCAN {
            for seed in 0..20u64 {
                let mut state = seed * 1000 + n as u64 + 1;
                let piece: Vec<u8> = (0..n)
                    .map(|_| {
                        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        b"abc"[(state >> 33) as usize % 3]
                    })
                    .collect();
                let (mut scanned, mut heaped) = (Vec::new(), Vec::new());
                bpe.merge_scanning(&piece, NO_RANK, &mut scanned);
                bpe.merge_with_heap(&piece, NO_RANK, &mut heaped);
                assert_eq!(scanned, heaped, "{}", String::from_utf8_lossy(&piece));
            }
        }
    }

    #[test]
    fn a_token_that_merging_does_not_reach_is_not_used() {
        let mut tokens = bytes();
        tokens.extend(["ab", "bc", "abc"].map(|token| token.as_bytes().into()));
        // "abc" = a + bc, but a + b merges first.
        let bpe = Bpe::from_merges(tokens, &[(97, 98, 256), (98, 99, 257), (97, 257, 258)], |_| true);
        let mut ids = Vec::new();
        bpe.encode_piece(b"abc", &mut ids, &mut Cache::default());
        assert_eq!(ids, [256, 99]);
    }
}
