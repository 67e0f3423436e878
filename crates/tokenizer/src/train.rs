//! Training byte-level BPE: merge the most frequent pair of neighbours, again and again (Sennrich et al., 2016).
//!
//! Text is cut by GPT-2's pattern and each distinct piece is kept once, with its count. A merge looks only at the
//! pieces that contain the pair. Among pairs of equal count the one with the smaller ids is merged first, as
//! Hugging Face's `tokenizers` does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::split::{Pattern, pieces};
use crate::tokens::Tokens;
use crate::{Result, TokenizerError};

/// The bytes, and end-of-text.
const LEAST: usize = 257;

/// Counts pieces of text, document by document: memory grows with the different pieces, not with the text.
#[derive(Debug)]
pub struct PieceCounts {
    pattern: Pattern,
    counts: FxHashMap<Box<str>, u64>,
}

type Pair = (u32, u32);

/// A vocabulary that was learnt: its tokens, and the merges in order.
#[derive(Debug)]
pub struct Learnt {
    /// Every token but end-of-text.
    pub tokens: Tokens,
    /// Left, right, merged.
    pub merges: Vec<(u32, u32, u32)>,
}

impl Default for PieceCounts {
    /// For GPT-2's pattern.
    fn default() -> PieceCounts {
        PieceCounts::new(Pattern::Gpt2)
    }
}

impl PieceCounts {
    /// No pieces yet, which will be cut by `pattern`.
    pub fn new(pattern: Pattern) -> PieceCounts {
        PieceCounts { pattern, counts: FxHashMap::default() }
    }

    /// The different pieces and how often each occurs, in no order.
    pub fn into_vec(self) -> Vec<(Box<str>, u64)> {
        self.counts.into_iter().collect()
    }

    /// Counts one document's pieces.
    pub fn add(&mut self, doc: &str) {
        for piece in pieces(doc, self.pattern) {
            match self.counts.get_mut(piece) {
                Some(count) => *count += 1,
                None => _ = self.counts.insert(piece.into(), 1),
            }
        }
    }

    /// Learns a vocabulary of `size` tokens, end-of-text included; fewer where no pair is left to merge.
    pub fn learn(self, size: usize) -> Result<Learnt> {
        if size < LEAST {
            let reason = "it holds the 256 bytes and end-of-text";
            return Err(TokenizerError::TooSmall { asked: size, least: LEAST, reason });
        }
        if self.counts.is_empty() {
            return Err(TokenizerError::NoText);
        }
        let mut tokens = Tokens::with_capacity(size.min(1 << 20));
        let mut id_of = [0; 256];
        bytes_in_gpt2_order().for_each(|byte| id_of[byte as usize] = tokens.push(&[byte]));
        let mut pieces: Vec<(Box<str>, u64)> =
            self.counts.into_iter().filter(|(piece, _)| piece.len() > 1).collect();
        pieces.sort_unstable_by(|a, b| a.0.cmp(&b.0)); // so that nothing depends on the hash map's order
        let mut learner = Learner::new(&pieces, &id_of);
        let mut merges = Vec::new();
        while tokens.len() + 1 < size {
            let Some((left, right)) = learner.best() else { break };
            let merged = tokens.join(left, right);
            merges.push((left, right, merged));
            learner.merge((left, right), merged);
        }
        Ok(Learnt { tokens, merges })
    }
}

/// The order in which GPT-2 numbers the bytes: those that are printable characters of Latin-1 first.
pub fn bytes_in_gpt2_order() -> impl Iterator<Item = u8> {
    (0..=255).filter(is_printable).chain((0..=255).filter(|byte| !is_printable(byte)))
}

/// Whether GPT-2's files write this byte as the character of Latin-1 that it is.
pub(crate) fn is_printable(byte: &u8) -> bool {
    matches!(byte, 33..=126 | 161..=172 | 174..=255)
}

/// All distinct pieces as tokens, and where each pair occurs.
struct Learner {
    symbols: Vec<u32>,
    /// Start and length of each piece in `symbols`, and how often it occurs.
    words: Vec<(usize, usize, i64)>,
    counts: FxHashMap<Pair, i64>,
    places: FxHashMap<Pair, Vec<u32>>,
    /// Pairs with a count they once had: to be checked when they come up.
    heap: BinaryHeap<(i64, Reverse<Pair>)>,
}

impl Learner {
    fn new(pieces: &[(Box<str>, u64)], id_of: &[u32; 256]) -> Learner {
        let mut learner = Learner {
            symbols: Vec::new(),
            words: Vec::with_capacity(pieces.len()),
            counts: FxHashMap::default(),
            places: FxHashMap::default(),
            heap: BinaryHeap::new(),
        };
        for (index, (piece, count)) in pieces.iter().enumerate() {
            let (start, count) = (learner.symbols.len(), *count as i64);
            learner.symbols.extend(piece.bytes().map(|byte| id_of[byte as usize]));
            learner.words.push((start, piece.len(), count));
            for i in start..start + piece.len() - 1 {
                let pair = (learner.symbols[i], learner.symbols[i + 1]);
                *learner.counts.entry(pair).or_default() += count;
                let places = learner.places.entry(pair).or_default();
                if places.last() != Some(&(index as u32)) {
                    places.push(index as u32);
                }
            }
        }
        learner.heap = learner.counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();
        learner
    }

    /// The most frequent pair that occurs at all.
    fn best(&mut self) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.heap.pop() {
            let now = self.counts.get(&pair).copied().unwrap_or(0);
            if now == count && now > 0 {
                return Some(pair);
            }
            if now > 0 && now < count {
                self.heap.push((now, Reverse(pair)));
            }
        }
        None
    }

    /// Replaces the pair by one token wherever it occurs.
    fn merge(&mut self, pair: Pair, merged: u32) {
        let mut grown: FxHashSet<Pair> = FxHashSet::default();
        for place in self.places.remove(&pair).unwrap_or_default() {
            self.merge_in(place, pair, merged, &mut grown);
        }
        self.counts.remove(&pair);
        self.heap.extend(grown.into_iter().filter_map(|pair| {
            let count = *self.counts.get(&pair)?;
            (count > 0).then_some((count, Reverse(pair)))
        }));
    }

    fn merge_in(&mut self, place: u32, pair: Pair, merged: u32, grown: &mut FxHashSet<Pair>) {
        let (start, len, count) = self.words[place as usize];
        let (mut read, mut write) = (0, 0);
        while read < len {
            let here = self.symbols[start + read];
            let next = (read + 1 < len).then(|| self.symbols[start + read + 1]);
            if here != pair.0 || next != Some(pair.1) {
                self.symbols[start + write] = here;
                (read, write) = (read + 1, write + 1);
                continue;
            }
            if write > 0 {
                let before = self.symbols[start + write - 1];
                self.change((before, pair.0), -count);
                self.gain((before, merged), count, place, grown);
            }
            if read + 2 < len {
                let after = self.symbols[start + read + 2];
                self.change((pair.1, after), -count);
                self.gain((merged, after), count, place, grown);
            }
            self.symbols[start + write] = merged;
            (read, write) = (read + 2, write + 1);
        }
        self.words[place as usize].1 = write;
    }

    fn change(&mut self, pair: Pair, by: i64) {
        if let Some(count) = self.counts.get_mut(&pair) {
            *count += by;
        }
    }

    fn gain(&mut self, pair: Pair, by: i64, place: u32, grown: &mut FxHashSet<Pair>) {
        *self.counts.entry(pair).or_default() += by;
        let places = self.places.entry(pair).or_default();
        if places.last() != Some(&place) {
            places.push(place);
        }
        grown.insert(pair);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(text: &str, size: usize) -> Learnt {
        let mut counts = PieceCounts::default();
        counts.add(text);
        counts.learn(size).unwrap()
    }

    /// The rule of the file's head, by brute force.
    fn slow(text: &str, size: usize) -> Vec<(u32, u32, u32)> {
        let order: Vec<u8> = bytes_in_gpt2_order().collect();
        let id = |byte: u8| order.iter().position(|&b| b == byte).unwrap() as u32;
        let mut words: Vec<Vec<u32>> =
            pieces(text, Pattern::Gpt2).map(|piece| piece.bytes().map(id).collect()).collect();
        let mut merges = Vec::new();
        while 256 + merges.len() + 1 < size {
            let mut counts: std::collections::BTreeMap<Pair, i64> = Default::default();
            words
                .iter()
                .flat_map(|w| w.windows(2))
                .for_each(|p| *counts.entry((p[0], p[1])).or_default() += 1);
            let Some((&pair, _)) = counts.iter().max_by_key(|&(&pair, &count)| (count, Reverse(pair))) else {
                break;
            };
            let merged = 256 + merges.len() as u32;
            for word in &mut words {
                let mut i = 0;
                while i + 1 < word.len() {
                    if (word[i], word[i + 1]) == pair {
                        word.splice(i..i + 2, [merged]);
                    }
                    i += 1;
                }
            }
            merges.push((pair.0, pair.1, merged));
        }
        merges
    }

    #[test]
    fn agrees_with_brute_force() {
        let text =
            "the cat sat on the mat, the cat ate; a cot, a tot, 世界世界和平世界 aaaa aaaaa baaa the then";
        for size in [257, 260, 275, 300, 1000] {
            assert_eq!(learn(text, size).merges, slow(text, size), "size {size}");
        }
    }

    #[test]
    fn bytes_are_numbered_as_gpt2_numbers_them() {
        let order: Vec<u8> = bytes_in_gpt2_order().collect();
        assert_eq!(
            (order.len(), order[0], order[93], order[94], order[188], order[255]),
            (256, b'!', b'~', 161, 0, 173)
        );
    }

    #[test]
    fn sizes() {
        assert_eq!(learn("hello hello", 257).tokens.len(), 256);
        assert_eq!(learn("hello hello", 260).tokens.len(), 259);
        assert!(learn("hello", 1000).tokens.len() < 300);
        assert!(PieceCounts::default().learn(300).is_err());
        let mut counts = PieceCounts::default();
        counts.add("x");
        assert!(counts.learn(256).unwrap_err().to_string().contains("ask for at least 257"));
    }
}
