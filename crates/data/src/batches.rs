//! Tokens to batches: which sequences a training step sees, and which windows an evaluation scores.
//!
//! The order is a pure function of the seed and the position: nothing is shuffled in memory. In each epoch every
//! window of a source comes once, in an order given by a keyed permutation (a Feistel network), and the windows
//! of each epoch start at another offset.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{DataError, Result, Tokens, fingerprint, mix};

/// What a sequence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A full window of the stream of all documents.
    Stream,
    /// One document between two of this token; longer ones are cut.
    Documents {
        /// The token before and after each document.
        eot: u32,
    },
}

/// Sequences and what they should predict, one after the other. Nothing is padded: attention keeps to each sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedBatch {
    /// The tokens seen.
    pub ids: Vec<u32>,
    /// The token that follows each.
    pub targets: Vec<u32>,
    /// How much each prediction counts.
    pub weights: Vec<f32>,
    /// Sequences.
    pub batch: usize,
    /// Length of each sequence, where they differ.
    pub lens: Option<Vec<usize>>,
    /// Which examples or pairs of the data these are; empty for text. A pair is two sequences, the preferred one first.
    pub examples: Vec<usize>,
}

impl OwnedBatch {
    /// Where each sequence lies among the values.
    pub fn sequences(&self) -> impl Iterator<Item = Range<usize>> {
        let time = self.ids.len() / self.batch.max(1);
        let mut start = 0;
        (0..self.batch).map(move |i| {
            let len = self.lens.as_ref().map_or(time, |lens| lens[i]);
            start += len;
            start - len..start
        })
    }
}

/// How many sequences of each source have been used: all there is to know to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Sequences used, by source.
    pub used: Vec<u64>,
}

/// Where a training run takes its batches from. Their order is a function of the seed and the position alone, so that
/// a run goes on from a position as if it had never stopped.
pub trait Batches: std::fmt::Debug + Send {
    /// The next sequences.
    fn next_batch(&mut self) -> Result<OwnedBatch>;

    /// Where the next batch starts.
    fn position(&self) -> &Position;

    /// Goes on from a position of these or equal batches.
    ///
    /// # Panics
    /// If it has another number of sources.
    fn seek(&mut self, position: &Position);

    /// Tokens of the longest sequence.
    fn time(&self) -> usize;

    /// A hash of all tokens, to recognise data that has changed.
    fn fingerprint(&self) -> Result<u64>;
    /// A hash of the sources' shares, where they are not those of their sizes; else 0.
    fn mixture(&self) -> u64 {
        0
    }

    /// Sequences, examples or pairs in one pass over the data: what a position counts.
    fn sequences_per_epoch(&self) -> u64;

    /// Passes completed, counting sequences of all sources together.
    fn epoch(&self) -> u64 {
        self.position().used.iter().sum::<u64>() / self.sequences_per_epoch()
    }
}

/// Draws batches from weighted sources.
#[derive(Clone, Debug)]
pub struct Batcher {
    sources: Vec<Sequences>,
    shares: Vec<f64>,
    /// Whether the shares are not those of the sources' sizes.
    is_weighted: bool,
    batch: usize,
    time: usize,
    seed: u64,
    mode: Mode,
    position: Position,
}

/// The sequences of one source.
#[derive(Clone, Debug)]
struct Sequences {
    tokens: Tokens,
    /// Sequences in an epoch.
    n: u64,
    /// The documents' windows; empty for windows of a stream.
    documents: Vec<Window>,
}

impl Batcher {
    /// Sequences of at most `time` tokens, `batch` at a time. Weights are relative; a source without one counts by
    /// its number of sequences, so that an epoch is everything once.
    pub fn new(
        sources: Vec<(Tokens, Option<f64>)>,
        batch: usize,
        time: usize,
        seed: u64,
        mode: Mode,
    ) -> Result<Batcher> {
        let weights: Vec<Option<f64>> = sources.iter().map(|source| source.1).collect();
        let is_weighted = weights.len() > 1 && weights.iter().any(Option::is_some);
        let sources: Vec<Sequences> = sources
            .into_iter()
            .map(|(tokens, _)| Sequences::new(tokens, time, mode))
            .collect::<Result<_>>()?;
        let total: f64 = sources.iter().map(|source| source.n as f64).sum();
        let weight = |(source, weight): (&Sequences, &Option<f64>)| weight.unwrap_or(source.n as f64 / total);
        let shares: Vec<f64> = sources.iter().zip(&weights).map(weight).collect();
        let sum: f64 = shares.iter().sum();
        let shares = shares.into_iter().map(|share| share / sum).collect();
        let position = Position { used: vec![0; sources.len()] };
        Ok(Batcher { sources, shares, is_weighted, batch, time, seed, mode, position })
    }

    /// A sequence and the token after it.
    fn next_row(&mut self) -> Result<Vec<u32>> {
        let source = self.next_source();
        let used = self.position.used[source];
        self.position.used[source] += 1;
        let sequences = &self.sources[source];
        let (epoch, index) = (used / sequences.n, used % sequences.n);
        let key = mix(self.seed, source as u64, epoch);
        let index = permute(index, sequences.n, key);
        match self.mode {
            Mode::Stream => {
                let slack = sequences.tokens.len() - 1 - sequences.n as usize * self.time;
                let start = (mix(key, 1, 2) % (slack as u64 + 1)) as usize + index as usize * self.time;
                sequences.tokens.read(start..start + self.time + 1)
            }
            Mode::Documents { eot } => {
                let Window { start, end, .. } = sequences.documents[index as usize];
                // The first document has no end of another before it.
                let (lead, from) = if start == FIRST { (Some(eot), 0) } else { (None, start) };
                Ok(lead.into_iter().chain(sequences.tokens.read(from..end + 1)?).collect())
            }
        }
    }

    /// The source that has had least of its share.
    fn next_source(&self) -> usize {
        let total: u64 = self.position.used.iter().sum();
        let lack = |i: usize| self.shares[i] * (total + 1) as f64 - self.position.used[i] as f64;
        (1..self.sources.len()).fold(0, |best, i| if lack(i) > lack(best) { i } else { best })
    }
}

impl Batches for Batcher {
    fn next_batch(&mut self) -> Result<OwnedBatch> {
        let rows: Vec<Vec<u32>> = (0..self.batch).map(|_| self.next_row()).collect::<Result<_>>()?;
        Ok(assemble(&rows))
    }

    fn position(&self) -> &Position {
        &self.position
    }

    fn seek(&mut self, position: &Position) {
        assert_eq!(position.used.len(), self.sources.len(), "a position of as many sources");
        self.position = position.clone();
    }

    fn time(&self) -> usize {
        self.time
    }

    fn fingerprint(&self) -> Result<u64> {
        let mut sources = self.sources.iter().map(|source| &source.tokens);
        sources.try_fold(fingerprint::NOTHING, fingerprint::of_tokens)
    }

    fn mixture(&self) -> u64 {
        let shares = self.shares.iter().filter(|_| self.is_weighted);
        shares.fold(0, |hash, share| mix(hash, share.to_bits(), 0))
    }

    fn sequences_per_epoch(&self) -> u64 {
        self.sources.iter().map(|source| source.n).sum()
    }
}

impl Sequences {
    fn new(tokens: Tokens, time: usize, mode: Mode) -> Result<Sequences> {
        let too_short =
            |needed| DataError::TooShort { what: "training".into(), tokens: tokens.len(), needed };
        match mode {
            Mode::Stream => {
                let windows = tokens.len().saturating_sub(1) / time.max(1);
                // One window less leaves room to start each epoch at another offset.
                let n = if windows > 1 { windows - 1 } else { windows } as u64;
                if n == 0 {
                    return Err(too_short(time + 1));
                }
                Ok(Sequences { tokens, n, documents: Vec::new() })
            }
            Mode::Documents { eot } => {
                let documents = documents(&tokens.to_vec()?, time, eot);
                if documents.is_empty() {
                    return Err(too_short(2));
                }
                Ok(Sequences { tokens, n: documents.len() as u64, documents })
            }
        }
    }
}

/// The start of the window of a stream's first document: the end-of-text before it is not in the stream.
pub const FIRST: usize = usize::MAX;

/// The windows of a stream's documents, each of at most `time` tokens. A document's first window starts at the
/// end-of-text before it ([`FIRST`] for the stream's first document), its last one has its own end as last target.
pub fn documents(ids: &[u32], time: usize, eot: u32) -> Vec<Window> {
    let mut found = Vec::new();
    let mut first = 0; // of the document
    for document in ids.split_inclusive(|&id| id == eot) {
        let last = first + document.len() - 1; // its end, or the stream's
        let mut start = first.wrapping_sub(1);
        // One more than a position, since the first window may start before position 0.
        while document.len() > 1 && start.wrapping_add(1) < last + 1 {
            let end = start.wrapping_add(time).min(last);
            found.push(Window { start, end, score_from: start });
            start = end;
        }
        first = last + 1;
    }
    found
}

/// Rows of tokens one after the other; each row's last token is only a target.
fn assemble(rows: &[Vec<u32>]) -> OwnedBatch {
    let lens: Vec<usize> = rows.iter().map(|row| row.len() - 1).collect();
    let ids: Vec<u32> = rows.iter().flat_map(|row| &row[..row.len() - 1]).copied().collect();
    OwnedBatch {
        targets: rows.iter().flat_map(|row| &row[1..]).copied().collect(),
        weights: vec![1.0; ids.len()],
        ids,
        batch: rows.len(),
        lens: ragged(lens),
        examples: Vec::new(),
    }
}

/// Lengths, where they differ.
pub(crate) fn ragged(lens: Vec<usize>) -> Option<Vec<usize>> {
    lens.windows(2).any(|pair| pair[0] != pair[1]).then_some(lens)
}

/// A permutation of `0..n`: a Feistel network on the next even number of bits, walked until it lands inside.
pub(crate) fn permute(index: u64, n: u64, key: u64) -> u64 {
    let half = ((u64::BITS - n.saturating_sub(1).leading_zeros()).div_ceil(2)).max(1);
    let mask = (1u64 << half) - 1;
    let mut x = index;
    loop {
        let (mut left, mut right) = (x >> half, x & mask);
        for round in 0..4 {
            (left, right) = (right, left ^ (mix(key, round, right) & mask));
        }
        x = left << half | right;
        if x < n {
            return x;
        }
    }
}

/// A stretch of tokens to evaluate: `ids[start..end]` predict `ids[start + 1..=end]`, and predictions from `score_from`
/// on count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First token seen.
    pub start: usize,
    /// One past the last token seen; it is the last target.
    pub end: usize,
    /// First token whose prediction counts.
    pub score_from: usize,
}

/// Windows of at most `time` tokens over `len` tokens, each `stride` further. With `stride = time` they follow each
/// other without overlap; with less, each prediction but the first few sees at least `time - stride` tokens.
/// Every prediction counts once; the last window may be shorter.
pub fn windows(len: usize, time: usize, stride: usize) -> impl Iterator<Item = Window> {
    assert!(0 < stride && stride <= time, "a stride between 1 and the window");
    let last = len.saturating_sub(1); // tokens that have a successor
    let mut scored = 0;
    std::iter::from_fn(move || {
        if scored >= last {
            return None;
        }
        let end = if scored == 0 { time } else { scored + stride }.min(last);
        let start = if stride == time { scored } else { end.saturating_sub(time).min(scored) };
        let window = Window { start, end, score_from: scored };
        scored = end;
        Some(window)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(n: u32) -> Tokens {
        Tokens::new((0..n).collect())
    }

    fn batcher(sources: Vec<(Tokens, Option<f64>)>, batch: usize, time: usize) -> Batcher {
        Batcher::new(sources, batch, time, 7, Mode::Stream).unwrap()
    }

    #[test]
    fn a_permutation() {
        for n in [1, 2, 3, 10, 64, 1000] {
            let mut seen: Vec<u64> = (0..n).map(|i| permute(i, n, 99)).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..n), "{n}");
        }
        assert_ne!((0..100).map(|i| permute(i, 100, 1)).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn every_window_once_an_epoch_and_epochs_differ() {
        let mut batches = batcher(vec![(stream(101), None)], 3, 10);
        assert_eq!(batches.sequences_per_epoch(), 9);
        let epoch = |batches: &mut Batcher| {
            let mut starts = Vec::new();
            for _ in 0..3 {
                let batch = batches.next_batch().unwrap();
                assert!(batch.ids.iter().zip(&batch.targets).all(|(id, target)| id + 1 == *target));
                starts.extend(batch.ids.chunks(10).map(|row| row[0]));
            }
            starts
        };
        let (first, second) = (epoch(&mut batches), epoch(&mut batches));
        assert_eq!(batches.epoch(), 2);
        assert_ne!(first, second);
        for mut starts in [first, second] {
            starts.sort_unstable();
            assert!(starts.windows(2).all(|pair| pair[0] + 10 == pair[1]), "{starts:?}");
        }
    }

    #[test]
    fn seeking_goes_on_as_if_never_stopped() {
        let sources = || vec![(stream(500), Some(3.0)), (stream(90), Some(1.0))];
        let mut straight = batcher(sources(), 4, 8);
        for stop in 0..30 {
            let mut resumed = batcher(sources(), 4, 8);
            resumed
                .seek(&serde_json::from_str(&serde_json::to_string(straight.position()).unwrap()).unwrap());
            let want = straight.next_batch().unwrap();
            assert_eq!(resumed.next_batch().unwrap(), want, "after {stop} batches");
        }
        assert_eq!(straight.position().used, [90, 30]);
    }

    #[test]
    fn documents_lie_one_after_the_other_and_long_ones_are_cut() {
        let eot = 99;
        let tokens = Tokens::new(vec![1, 2, 3, eot, 4, eot, eot, 5, 6, 7, 8, 9, 10, eot]);
        let mode = Mode::Documents { eot };
        let mut batches = Batcher::new(vec![(tokens, None)], 4, 4, 1, mode).unwrap();
        let batch = batches.next_batch().unwrap();
        assert_eq!((batch.ids.len(), batch.targets.len(), &batch.weights), (13, 13, &vec![1.0; 13]));
        let mut start = 0;
        let row = |len: usize| {
            start += len;
            (batch.ids[start - len..start].to_vec(), batch.targets[start - len..start].to_vec())
        };
        let mut rows: Vec<(Vec<u32>, Vec<u32>)> = batch.lens.iter().flatten().copied().map(row).collect();
        rows.sort();
        let want: [(&[u32], &[u32]); 4] = [
            (&[8, 9, 10], &[9, 10, eot]),
            (&[eot, 1, 2, 3], &[1, 2, 3, eot]),
            (&[eot, 4], &[4, eot]),
            (&[eot, 5, 6, 7], &[5, 6, 7, 8]),
        ];
        assert_eq!(rows, want.map(|(ids, targets)| (ids.to_vec(), targets.to_vec())));
    }

    #[test]
    fn too_little_text_is_refused_with_both_numbers() {
        let error = Batcher::new(vec![(stream(8), None)], 1, 8, 1, Mode::Stream).unwrap_err().to_string();
        assert!(error.contains("has 8 tokens") && error.contains("needs 9"), "{error}");
        assert!(Batcher::new(vec![(stream(9), None)], 1, 8, 1, Mode::Stream).is_ok());
    }

    #[test]
    fn windows_score_every_token_once() {
        for (len, time, stride) in
            [(0, 4, 4), (1, 4, 4), (2, 4, 4), (21, 4, 4), (22, 5, 2), (3, 8, 1), (100, 10, 7)]
        {
            let mut scored = 0;
            for window in windows(len, time, stride) {
                assert_eq!(window.score_from, scored);
                assert!(window.start <= scored && window.end > scored && window.end - window.start <= time);
                assert!(
                    window.end < len
                        && (window.start == 0 || window.end - window.start == time || stride == time)
                );
                scored = window.end;
            }
            assert_eq!(scored, usize::saturating_sub(len, 1));
        }
        let plain: Vec<_> = windows(10, 4, 4).map(|w| (w.start, w.end)).collect();
        assert_eq!(plain, [(0, 4), (4, 8), (8, 9)]);
    }
}
