//! Byte-level byte-pair encoding (Sennrich et al., 2016; Radford et al., 2019).
//!
//! A piece of text starts as its bytes, each a token. Then the pair of neighbours with the lowest rank is merged,
//! again and again, until no pair has a rank. Most pieces of ordinary text are tokens themselves: those are found
//! by one look-up, once it is known that merging gives the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU8, Ordering};

use rustc_hash::FxHashMap;

use crate::tokens::Tokens;

/// Longer pieces are merged with a heap, shorter ones by scanning.
const SCAN: usize = 40;
/// Longest piece whose result is remembered within one text.
const CACHED_LEN: usize = 40;
/// Pieces remembered within one text.
const CACHED: usize = 1 << 16;
/// A longer piece is cut, so that places fit in 32 bits.
const LONGEST: usize = u32::MAX as usize;

/// A byte-level vocabulary and its merges.
#[derive(Debug)]
pub struct Bpe {
    tokens: Tokens,
    byte_ids: [u32; 256],
    /// Two neighbours, as [`key`] packs them, to what becomes of them.
    merges: FxHashMap<u64, Merge>,
    /// For each token, whether merging its bytes gives that token: [`UNTRIED`], [`WHOLE`] or [`SPLIT`].
    whole: Vec<AtomicU8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Merge {
    /// Lower merges first.
    rank: u32,
    token: u32,
}

const NONE: Merge = Merge { rank: u32::MAX, token: 0 };

const UNTRIED: u8 = 0;
const WHOLE: u8 = 1;
const SPLIT: u8 = 2;

/// Results of one text's pieces.
#[derive(Default)]
pub(crate) struct Cache {
    found: FxHashMap<Box<[u8]>, (u32, u32)>,
    ids: Vec<u32>,
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl Bpe {
    /// A vocabulary with merges in order of rank: left and right token, and what they become. Where a pair is
    /// named twice the later rank counts. Each byte must be a token that [`Tokens::find`] finds; else, the first
    /// that is not.
    pub fn new(tokens: Tokens, merges: impl ExactSizeIterator<Item = (u32, u32, u32)>) -> Result<Bpe, u8> {
        let mut byte_ids = [0; 256];
        for byte in 0..=255 {
            byte_ids[byte as usize] = tokens.find(&[byte]).ok_or(byte)?;
        }
        let mut by_pair = FxHashMap::with_capacity_and_hasher(merges.len(), Default::default());
        by_pair.extend(
            merges.zip(0..).map(|((left, right, token), rank)| (key(left, right), Merge { rank, token })),
        );
        let whole = (0..tokens.len()).map(|_| AtomicU8::new(UNTRIED)).collect();
        Ok(Bpe { tokens, byte_ids, merges: by_pair, whole })
    }

    /// Whether both have the same tokens and merge the same pairs in the same order.
    pub fn is_same_as(&self, other: &Bpe) -> bool {
        self.merges.len() == other.merges.len()
            && self.tokens.iter().eq(other.tokens.iter())
            && self.merges_by_rank() == other.merges_by_rank()
    }

    /// Pairs and what becomes of them. Ranks themselves may have gaps, so that only their order counts.
    fn merges_by_rank(&self) -> Vec<(u64, u32)> {
        let mut merges: Vec<(u32, u64, u32)> =
            self.merges.iter().map(|(&pair, merge)| (merge.rank, pair, merge.token)).collect();
        merges.sort_unstable();
        merges.into_iter().map(|(_, pair, token)| (pair, token)).collect()
    }

    /// All tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The merges in order of rank: left, right, merged.
    pub fn merges(&self) -> Vec<(u32, u32, u32)> {
        let mut list: Vec<(Merge, u64)> = self.merges.iter().map(|(&key, &merge)| (merge, key)).collect();
        list.sort_unstable();
        list.into_iter().map(|(merge, key)| ((key >> 32) as u32, key as u32, merge.token)).collect()
    }

    /// The token of one byte.
    pub fn byte(&self, byte: u8) -> u32 {
        self.byte_ids[byte as usize]
    }

    /// Appends the tokens of one piece of text.
    #[inline]
    pub(crate) fn encode_piece(&self, piece: &[u8], ids: &mut Vec<u32>, cache: &mut Cache) {
        if let Some(id) = self.tokens.find(piece)
            && self.is_whole(id, piece)
        {
            return ids.push(id);
        }
        if piece.len() > CACHED_LEN {
            return piece.chunks(LONGEST).for_each(|piece| self.merge_bytes(piece, ids));
        }
        if let Some(&(start, end)) = cache.found.get(piece) {
            return ids.extend_from_slice(&cache.ids[start as usize..end as usize]);
        }
        let first = ids.len();
        self.merge_bytes(piece, ids);
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
                self.merge_bytes(piece, &mut ids);
                let whole = ids == [id];
                state.store(if whole { WHOLE } else { SPLIT }, Ordering::Relaxed);
                whole
            }
        }
    }

    /// Merges neighbours, lowest rank first, leftmost among equals.
    fn merge_bytes(&self, piece: &[u8], ids: &mut Vec<u32>) {
        if piece.len() <= SCAN { self.merge_scanning(piece, ids) } else { self.merge_with_heap(piece, ids) }
    }

    #[inline]
    fn merge_of(&self, left: u32, right: u32) -> Merge {
        self.merges.get(&key(left, right)).copied().unwrap_or(NONE)
    }

    fn merge_scanning(&self, piece: &[u8], ids: &mut Vec<u32>) {
        // Side by side: the parts, and for each what becomes of it and the next.
        let (mut parts, mut merges) = ([0; SCAN], [NONE; SCAN]);
        let mut n = piece.len();
        for (part, &byte) in parts.iter_mut().zip(piece) {
            *part = self.byte(byte);
        }
        for i in 1..n {
            merges[i - 1] = self.merge_of(parts[i - 1], parts[i]);
        }
        while n > 1 {
            let (mut i, mut best) = (0, NONE);
            for (j, &merge) in merges[..n - 1].iter().enumerate() {
                if merge.rank < best.rank {
                    (i, best) = (j, merge);
                }
            }
            if best == NONE {
                break;
            }
            parts[i] = best.token;
            parts.copy_within(i + 2..n, i + 1);
            merges.copy_within(i + 1..n, i);
            n -= 1;
            merges[n - 1] = NONE;
            if i + 1 < n {
                merges[i] = self.merge_of(parts[i], parts[i + 1]);
            }
            if i > 0 {
                merges[i - 1] = self.merge_of(parts[i - 1], parts[i]);
            }
        }
        ids.extend_from_slice(&parts[..n]);
    }

    /// For long pieces: a linked list of parts, and a heap of the merges that may still be possible.
    fn merge_with_heap(&self, piece: &[u8], ids: &mut Vec<u32>) {
        let n = piece.len() as u32;
        let mut parts = Parts {
            token: piece.iter().map(|&byte| self.byte(byte)).collect(),
            end: (1..=n).collect(),
            before: (0..n).map(|i| i.wrapping_sub(1)).collect(),
        };
        let first = (0..n).filter_map(|i| self.offer(&parts, i));
        let mut heap: BinaryHeap<Reverse<Offer>> = first.collect();
        while let Some(Reverse((merge, i, end))) = heap.pop() {
            if !parts.holds(i, end) {
                continue;
            }
            parts.join(i, end, merge.token);
            heap.extend(self.offer(&parts, i));
            if parts.before[i as usize] < n {
                heap.extend(self.offer(&parts, parts.before[i as usize]));
            }
        }
        let mut i = 0;
        while i < n {
            ids.push(parts.token[i as usize]);
            i = parts.end[i as usize];
        }
    }

    /// The merge of part `i` and the next.
    fn offer(&self, parts: &Parts, i: u32) -> Option<Reverse<Offer>> {
        let next = parts.end[i as usize];
        let right = *parts.token.get(next as usize)?;
        let merge = self.merge_of(parts.token[i as usize], right);
        (merge != NONE).then(|| Reverse((merge, i, parts.end[next as usize])))
    }
}

/// A merge, the part where it starts, and where the two parts end.
type Offer = (Merge, u32, u32);

/// A linked list of parts, each known by the place of its first byte.
struct Parts {
    token: Vec<u32>,
    /// Where the part ends, which is where the next one starts; 0 when it was joined to the one before.
    end: Vec<u32>,
    before: Vec<u32>,
}

impl Parts {
    /// Whether a part starts at `i` still, and the next one ends at `end`. As parts only grow, they are then the
    /// same two as when this was noted.
    fn holds(&self, i: u32, end: u32) -> bool {
        let next = self.end[i as usize];
        next != 0 && self.end.get(next as usize) == Some(&end)
    }

    fn join(&mut self, i: u32, end: u32, token: u32) {
        let next = std::mem::replace(&mut self.end[i as usize], end);
        self.end[next as usize] = 0;
        self.token[i as usize] = token;
        if let Some(before) = self.before.get_mut(end as usize) {
            *before = i;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes as tokens 0 to 255, and merges of them.
    fn bpe(merges: &[(u32, u32)]) -> Bpe {
        let mut tokens = Tokens::default();
        (0..=255).for_each(|byte| _ = tokens.push(&[byte]));
        let merges: Vec<_> = merges.iter().map(|&(l, r)| (l, r, tokens.join(l, r))).collect();
        Bpe::new(tokens, merges.into_iter()).unwrap()
    }

    const A: u32 = b'a' as u32;
    const B: u32 = b'b' as u32;
    const C: u32 = b'c' as u32;

    /// "ab", "abab", "bc", "abc".
    fn toy() -> Bpe {
        bpe(&[(A, B), (256, 256), (B, C), (256, C)])
    }

    fn encode(bpe: &Bpe, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        bpe.encode_piece(text.as_bytes(), &mut ids, &mut Cache::default());
        ids
    }

    #[test]
    fn lowest_rank_first_and_leftmost_among_equals() {
        assert_eq!(encode(&toy(), "abc"), [259]);
        assert_eq!(encode(&toy(), "ababab"), [257, 256]);
        assert_eq!(encode(&toy(), "bcab"), [258, 256]);
        assert_eq!(encode(&toy(), "xbc"), [120, 258]);
        assert!(encode(&toy(), "").is_empty());
    }

    #[test]
    fn heap_and_scan_agree() {
        let bpe = toy();
        for n in 0..SCAN {
            for seed in 0..20u64 {
                let mut state = seed * 1000 + n as u64 + 1;
                let piece: Vec<u8> = (0..n)
                    .map(|_| {
                        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        b"abc"[(state >> 33) as usize % 3]
                    })
                    .collect();
                let (mut scanned, mut heaped) = (Vec::new(), Vec::new());
                bpe.merge_scanning(&piece, &mut scanned);
                bpe.merge_with_heap(&piece, &mut heaped);
                assert_eq!(scanned, heaped, "{}", String::from_utf8_lossy(&piece));
            }
        }
    }

    #[test]
    fn a_token_that_merging_does_not_reach_is_not_used() {
        // "abc" = a + bc, but a + b merges first.
        let bpe = bpe(&[(A, B), (B, C), (A, 257)]);
        assert_eq!(encode(&bpe, "abc"), [256, C]);
        assert_eq!(encode(&bpe, "abc"), [256, C]);
    }

    #[test]
    fn every_byte_must_be_a_token() {
        let mut tokens = Tokens::default();
        (0..=255).filter(|&byte| byte != 7).for_each(|byte| _ = tokens.push(&[byte]));
        assert_eq!(Bpe::new(tokens, [].into_iter()).unwrap_err(), 7);
    }
}
