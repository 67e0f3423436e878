//! Examples, or pairs of them, to batches.
//!
//! Each example is a sequence of its own, with positions from 0 and an attention that keeps to it: sequences of any
//! length lie one after the other without padding, and none sees its neighbours. A target counts where it is a token
//! of an answer; tokens after the last of these are left out, since nothing depends on them.
//!
//! A batch holds the next examples up to a number of examples or of tokens, whichever is reached first. The number
//! is what a step averages over; the tokens are what memory is needed for. With the tokens alone as a limit, short
//! examples fill a batch as well as long ones do.
//!
//! The order is that of a keyed permutation, another one in each epoch, as in [`crate::batches`].

use crate::batches::{Batches, OwnedBatch, Position, permute, ragged};
use crate::example::{Example, Pair};
use crate::{DataError, Result, fingerprint, mix};

/// How much a batch may hold. It holds one example or pair at least, however long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Examples, or pairs.
    pub examples: usize,
    /// Tokens seen.
    pub tokens: usize,
}

/// Draws batches of examples or pairs.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Examples; those of a pair follow each other, the preferred one first.
    rows: Vec<Example>,
    /// Rows drawn together: 1, or 2 where they are pairs.
    group: usize,
    limits: Limits,
    seed: u64,
    position: Position,
}

impl Packed {
    /// Batches of examples of at most `time` tokens and the one after, in an order of the seed.
    ///
    /// # Errors
    /// If there are none, or one is longer, or has no answer; examples are counted from 1.
    pub fn examples(examples: Vec<Example>, limits: Limits, time: usize, seed: u64) -> Result<Packed> {
        Packed::new(examples, 1, limits, time, seed)
    }

    /// Batches of pairs; see [`Packed::examples`].
    pub fn pairs(pairs: Vec<Pair>, limits: Limits, time: usize, seed: u64) -> Result<Packed> {
        let rows = pairs.into_iter().flat_map(|Pair { chosen, rejected }| [chosen, rejected]);
        Packed::new(rows.collect(), 2, limits, time, seed)
    }

    fn new(mut rows: Vec<Example>, group: usize, limits: Limits, time: usize, seed: u64) -> Result<Packed> {
        if rows.is_empty() {
            return Err(DataError::NoExamples);
        }
        for (i, row) in rows.iter_mut().enumerate() {
            let example = i / group + 1;
            if row.ids.len() > time + 1 {
                return Err(DataError::ExampleTooLong { example, tokens: row.ids.len(), room: time + 1 });
            }
            *row = row.until_last_answer().ok_or(DataError::NoAnswer { example })?;
        }
        Ok(Packed { rows, group, limits, seed, position: Position { used: vec![0] } })
    }

    /// Batches in the first pass over the data; later ones may have a few more or less.
    pub fn batches_per_epoch(&self) -> u64 {
        let (mut used, mut batches) = (0, 0);
        while used < self.sequences_per_epoch() {
            used += self.next(used).len() as u64;
            batches += 1;
        }
        batches
    }

    /// The examples or pairs of the batch that comes after `used` others, by their place in the data.
    fn next(&self, used: u64) -> Vec<usize> {
        let (mut batch, mut tokens) = (Vec::new(), 0);
        loop {
            let next = self.at(used + batch.len() as u64);
            tokens += self.rows(next).iter().map(|row| row.ids.len() - 1).sum::<usize>();
            if !batch.is_empty() && (tokens > self.limits.tokens || batch.len() >= self.limits.examples) {
                return batch;
            }
            batch.push(next);
        }
    }

    /// The example or pair that comes after `used` others.
    fn at(&self, used: u64) -> usize {
        let n = self.sequences_per_epoch();
        permute(used % n, n, mix(self.seed, 0, used / n)) as usize
    }

    fn rows(&self, example: usize) -> &[Example] {
        &self.rows[example * self.group..][..self.group]
    }
}

impl Batches for Packed {
    fn next_batch(&mut self) -> Result<OwnedBatch> {
        let examples = self.next(self.position.used[0]);
        self.position.used[0] += examples.len() as u64;
        let rows: Vec<&Example> = examples.iter().flat_map(|&example| self.rows(example)).collect();
        Ok(OwnedBatch { examples, ..pack(&rows) })
    }

    fn position(&self) -> &Position {
        &self.position
    }

    fn seek(&mut self, position: &Position) {
        assert_eq!(position.used.len(), 1, "a position in one set of examples");
        self.position = position.clone();
    }

    fn time(&self) -> usize {
        self.rows.iter().map(|row| row.ids.len() - 1).max().unwrap_or(0)
    }

    fn fingerprint(&self) -> Result<u64> {
        Ok(fingerprint::of_examples(&self.rows, self.group))
    }

    fn sequences_per_epoch(&self) -> u64 {
        (self.rows.len() / self.group) as u64
    }
}

/// Examples one after the other, each a sequence of its own; each one's last token is only a target.
///
/// # Panics
/// If one has no tokens.
pub fn pack(rows: &[&Example]) -> OwnedBatch {
    let weight = |&is_answer: &bool| if is_answer { 1.0 } else { 0.0 };
    OwnedBatch {
        ids: rows.iter().flat_map(|row| &row.ids[..row.ids.len() - 1]).copied().collect(),
        targets: rows.iter().flat_map(|row| &row.ids[1..]).copied().collect(),
        weights: rows.iter().flat_map(|row| row.is_answer[1..].iter().map(weight)).collect(),
        batch: rows.len(),
        lens: ragged(rows.iter().map(|row| row.ids.len() - 1).collect()),
        examples: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
