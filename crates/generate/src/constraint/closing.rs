//! The search for an ending: bytes with which a text becomes one that the constraint allows.
//!
//! A grammar can be asked two things: which byte may come next, and whether the text may end here. So an ending is
//! searched for as a way in a graph: the cheapest ways first, where forced bytes cost nothing, and bytes that close
//! something less than others. Within a word of the grammar (a lexeme), places in the same state of the lexer are the
//! same, and are visited once: strings and numbers have few. An ending that was right before helps most: where a
//! text has gone on, it is usually the end of the new one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use llguidance::derivre::StateID;
use llguidance::earley::{Parser, ParserStats};
use llguidance::toktrie::{Recognizer, TokTrie};

use super::vocabulary::Vocabulary;

/// A place that is reached by the bytes of `token` from the place `parent`.
struct Place {
    parent: usize,
    token: u32,
    /// Bytes from the start.
    len: usize,
    /// The same for places between which no word of the grammar ends.
    word: usize,
}

/// What the end of a word is worth to a search for a way that has come far: less than one more element of a list costs.
const FAR: i64 = 4;
/// So many ways in ASCII are enough.
const LITTLE: usize = 8;

/// Where a parser stands, and how to go back.
struct Walker<'a> {
    parser: &'a mut Parser,
    start: usize,
    at: Vec<u8>,
    eot: u32,
}

impl Walker<'_> {
    /// Goes to the place that these bytes reach from the start.
    fn go(&mut self, path: &[u8]) -> bool {
        let same = self.at.iter().zip(path).take_while(|(a, b)| a == b).count();
        self.back_to(same) && self.push(&path[same..])
    }

    fn back_to(&mut self, len: usize) -> bool {
        let written = self.parser.get_bytes().len() - self.start;
        self.at.truncate(len);
        written <= len || self.parser.rollback(written - len).is_ok()
    }

    fn push(&mut self, bytes: &[u8]) -> bool {
        let before = self.at.len();
        for byte in bytes {
            // Of no token: the grammar sees bytes alone.
            if self.parser.apply_token(std::slice::from_ref(byte), self.eot).is_err() {
                self.back_to(before);
                return false;
            }
            self.at.push(*byte);
        }
        true
    }

    /// Whether the text may end after these bytes.
    fn ends_after(&mut self, bytes: &[u8]) -> bool {
        let before = self.at.len();
        let ends = self.push(bytes) && self.parser.is_accepting();
        self.back_to(before);
        ends
    }

    /// The shortest end of `hint` that ends the text here.
    fn end_of<'h>(&mut self, hint: &'h [u8]) -> Option<&'h [u8]> {
        let fits = self.parser.with_recognizer(|recognizer| {
            recognizer.trie_started("end");
            let fits = |from: &usize| {
                let rest = &hint[*from..];
                let n = rest.iter().take_while(|&&byte| recognizer.try_push_byte(byte)).count();
                recognizer.pop_bytes(n);
                n == rest.len()
            };
            let fits: Vec<usize> = (0..hint.len()).filter(fits).collect();
            recognizer.trie_finished();
            fits
        });
        fits.into_iter().rev().map(|from| &hint[from..]).find(|rest| self.ends_after(rest))
    }
}

/// A way on from a place.
struct Step {
    token: u32,
    state: StateID,
    ends_word: bool,
}

/// What is searched in, and how far.
pub(super) struct Search<'a> {
    pub vocabulary: &'a Vocabulary,
    /// Tokens that may not be used.
    pub banned: &'a [u32],
    /// Places to look at.
    pub effort: usize,
    /// Bytes of the longest ending.
    pub longest: usize,
}

impl Search<'_> {
    /// Bytes that end the text of this parser; `hint` ended it before, or something like it. The parser is left where
    /// it happens to be.
    ///
    /// Ways that cost the same and differ in what came before the end of a word are many, and the more so the more words there are:
    /// where they use the effort up, ways that have come far are preferred.
    pub fn run(&self, parser: &mut Parser, hint: &[u8]) -> Option<Vec<u8>> {
        let start = parser.get_bytes().len();
        self.go(parser, hint, 0).or_else(|| {
            let more = parser.get_bytes().len() - start;
            if more > 0 && parser.rollback(more).is_err() {
                return None;
            }
            self.go(parser, hint, FAR)
        })
    }

    /// [`Search::run`], where each word that has ended makes a way cheaper by so much.
    fn go(&self, parser: &mut Parser, hint: &[u8], far: i64) -> Option<Vec<u8>> {
        let start = parser.get_bytes().len();
        let trie = self.vocabulary.trie();
        let mut walker = Walker { parser, start, at: Vec::new(), eot: trie.eos_token() };
        let mut places = vec![Place { parent: 0, token: 0, len: 0, word: 0 }];
        let mut queue = BinaryHeap::from([Reverse((0i64, 0usize))]);
        let mut seen = HashSet::new();
        for _ in 0..self.effort {
            let Reverse((cost, index)) = queue.pop()?;
            let path = path(&places, index, trie);
            if !walker.go(&path) {
                continue;
            }
            if walker.parser.is_accepting() {
                return Some(path);
            }
            if let Some(rest) = walker.end_of(hint) {
                return Some([&path, rest].concat());
            }
            let steps = self.steps(walker.parser);
            let is_forced = steps.len() == 1;
            for Step { token, state, ends_word } in steps {
                let bytes = trie.token(token);
                let len = places[index].len + bytes.len();
                let word = if ends_word { places.len() } else { places[index].word };
                if len <= self.longest && seen.insert((word, state)) {
                    let more = if is_forced { 0 } else { price(bytes, ends_word) };
                    let cost = cost + more - if ends_word { far } else { 0 };
                    queue.push(Reverse((cost, places.len())));
                    places.push(Place { parent: index, token, len, word });
                }
            }
        }
        None
    }

    /// The ways on. Where every byte is a token, ASCII comes first, and the rest only where there is little of it: a key among others
    /// may begin with such a byte, and within a free string there is no need for any.
    fn steps(&self, parser: &mut Parser) -> Vec<Step> {
        let trie = self.vocabulary.trie();
        let letters = self.vocabulary.letters();
        parser.with_recognizer(|recognizer| {
            let mut walk = |tokens: &[u32]| {
                recognizer.trie_started("steps");
                let mut steps = Vec::new();
                for &token in tokens.iter().filter(|token| !self.banned.contains(token)) {
                    let bytes = trie.token(token);
                    let before = n_words(recognizer.stats_mut());
                    let n = bytes.iter().take_while(|&&byte| recognizer.try_push_byte(byte)).count();
                    if n == bytes.len() {
                        let state = recognizer.lexer_state();
                        let ends_word = n_words(recognizer.stats_mut()) != before;
                        steps.push(Step { token, state, ends_word });
                    }
                    recognizer.pop_bytes(n);
                }
                recognizer.trie_finished();
                steps
            };
            if self.vocabulary.is_whole() {
                let (ascii, others) = letters.split_at(128);
                let mut steps = walk(ascii);
                if steps.len() < LITTLE {
                    steps.extend(walk(others));
                }
                return steps;
            }
            walk(letters)
        })
    }
}

/// Grows when a word of the grammar ends.
fn n_words(stats: &ParserStats) -> usize {
    stats.rows + stats.cached_rows
}

/// What a step costs: closing is cheap, opening is dear.
fn price(bytes: &[u8], ends_word: bool) -> i64 {
    match bytes.last() {
        Some(b'}' | b']' | b')' | b'"' | b'\'' | b'>' | b';' | b'\n') if ends_word => 1,
        Some(b'{' | b'[' | b'(' | b',') => 12,
        _ => 4,
    }
}

/// The bytes that lead to a place.
fn path(places: &[Place], mut index: usize, trie: &TokTrie) -> Vec<u8> {
    let mut tokens = Vec::new();
    while index > 0 {
        tokens.push(places[index].token);
        index = places[index].parent;
    }
    tokens.iter().rev().flat_map(|&token| trie.token(token)).copied().collect()
}
