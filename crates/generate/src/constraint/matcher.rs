//! How far a text has come in its constraint, and what may follow.
//!
//! The invariant: [`Matcher::closing`] ends the text rightly, and has no more tokens than may still be written. A drawn
//! token stands only if that can be kept; else the ending's first token takes its place.

use llguidance::TokenParser;

use super::closing::Search;
use super::numbers::Numbers;
use super::{Constraint, ConstraintError, EFFORT, LONGEST, Vocabulary, guard};
use crate::sampling::{Draw, History, Sampler, SamplingError};

/// Places that are looked at for an ending when a token has been drawn.
const NEXT_EFFORT: usize = 2000;
/// Tokens that are drawn anew where no text could follow, before the known ending is taken.
const ATTEMPTS: usize = 8;

/// One text's place in its constraint. It depends on the text alone, so that drafts and neighbours change nothing.
pub struct Matcher {
    parser: TokenParser,
    vocabulary: Vocabulary,
    /// Tokens that end a text, and are no part of it.
    ends: Vec<u32>,
    closing: Closing,
    /// For JSON: where its numbers stand.
    numbers: Option<Numbers>,
}

/// An ending, and the fewest tokens that write it.
#[derive(Clone, Debug, Default)]
struct Closing {
    bytes: Vec<u8>,
    tokens: Vec<u32>,
}

/// What became of a token that was tried.
enum Tried {
    /// The text goes on with it.
    Stands,
    /// It could not be ended in time, or no ending was found at all.
    Late,
    Lost,
}

impl Matcher {
    /// At the start of a text of at most `most` tokens, which the tokens `ends` end.
    pub fn new(constraint: &Constraint, ends: &[u32], most: usize) -> Result<Matcher, ConstraintError> {
        let vocabulary = constraint.vocabulary.clone();
        let parser = constraint.parser()?;
        let (closing, numbers) = (Closing::default(), constraint.is_json.then(Numbers::default));
        let mut matcher = Matcher { parser, vocabulary, ends: ends.to_vec(), closing, numbers };
        let none = || ConstraintError::NoText { what: constraint.what };
        matcher.closing = match matcher.written(constraint.shortest.clone()) {
            Some(closing) => closing,
            // A token that ends texts was part of it.
            None => matcher.search(&[], usize::MAX, EFFORT)?.ok_or_else(none)?,
        };
        let need = matcher.closing.tokens.len();
        if need > most { Err(ConstraintError::TooShort { need, most }) } else { Ok(matcher) }
    }

    /// Draws the token for `position`, and takes it in; `left` tokens may be written, this one included.
    pub fn draw(
        &mut self,
        sampler: &Sampler,
        logits: &mut [f32],
        history: History<'_>,
        position: u64,
        left: usize,
    ) -> Result<Draw, SamplingError> {
        let failed =
            |error: ConstraintError| SamplingError::Constraint { position, reason: error.to_string() };
        if self.closing.tokens.len() < left.max(1) {
            let mut allowed = self.allowed().map_err(failed)?;
            for _ in 0..ATTEMPTS {
                let draw = match sampler.sample_among(logits, history, position, &allowed) {
                    Err(SamplingError::NothingAllowed { .. }) if allowed.iter().all(|word| *word == 0) => {
                        break;
                    }
                    draw => draw?,
                };
                if sampler.ends(draw.id) {
                    return Ok(draw);
                }
                match self.take(draw.id, left - 1).map_err(failed)? {
                    Tried::Stands => return Ok(draw),
                    Tried::Late => break,
                    Tried::Lost => allowed[draw.id as usize / 32] &= !(1 << (draw.id % 32)),
                }
            }
        }
        let first = self.closing.tokens.first().copied();
        let mut only = vec![0; self.vocabulary.trie().vocab_size().div_ceil(32)];
        let forced: &[u32] = first.as_ref().map_or(&self.ends, std::slice::from_ref);
        forced.iter().for_each(|&id| only[id as usize / 32] |= 1 << (id % 32));
        let draw = sampler.sample_among(logits, history, position, &only)?;
        if first.is_some() {
            self.advance(draw.id).map_err(failed)?;
            let bytes = self.vocabulary.trie().token(draw.id);
            self.numbers = self.numbers.and_then(|numbers| numbers.after(bytes));
            self.closing.tokens.remove(0);
            self.closing.bytes.drain(..bytes.len());
        }
        Ok(draw)
    }

    /// Whether the text may end here.
    pub fn may_end(&self) -> bool {
        self.closing.bytes.is_empty()
    }

    /// Whether nothing can follow.
    pub fn is_over(&self) -> bool {
        self.parser.stopped()
    }

    /// The tokens that may follow, as bits: token i is bit i % 32 of number i / 32.
    pub fn allowed(&mut self) -> Result<Vec<u32>, ConstraintError> {
        let n = self.vocabulary.trie().vocab_size().div_ceil(32);
        let mut bits = vec![0; n];
        if !self.is_over() {
            let mask = guard(|| self.parser.compute_mask())?;
            bits.copy_from_slice(&mask.as_slice()[..n]);
        }
        let may_end = self.accepts()?;
        // The vocabulary's own end of a text is none, if the model's files name others.
        let eot = self.vocabulary.trie().eos_token();
        bits[eot as usize / 32] &= !(1 << (eot % 32));
        for &id in &self.ends {
            let (word, bit) = (id as usize / 32, 1 << (id % 32));
            bits[word] = if may_end { bits[word] | bit } else { bits[word] & !bit };
        }
        Ok(bits)
    }

    fn accepts(&mut self) -> Result<bool, ConstraintError> {
        guard(|| Ok(self.parser.is_accepting()))
    }

    /// Takes in a token, unless the text could not be ended with `left` tokens then.
    fn take(&mut self, id: u32, left: usize) -> Result<Tried, ConstraintError> {
        let numbers = self.numbers.map(|numbers| numbers.after(self.vocabulary.trie().token(id)));
        if numbers == Some(None) {
            return Ok(Tried::Lost);
        }
        self.advance(id)?;
        let fits = |closing: &Closing| match numbers {
            Some(Some(numbers)) => numbers.after(&closing.bytes).is_some(),
            _ => true,
        };
        let closing = self.closing_after(id)?.filter(fits);
        let tried = match closing {
            Some(closing) if closing.tokens.len() <= left => {
                self.closing = closing;
                self.numbers = numbers.flatten();
                return Ok(Tried::Stands);
            }
            Some(_) => Tried::Late,
            None => Tried::Lost,
        };
        guard(|| {
            self.parser.rollback(1)?;
            // It knows places by their number, which another text may have had.
            self.parser.invalidate_bias_cache();
            Ok(())
        })?;
        Ok(tried)
    }

    fn advance(&mut self, id: u32) -> Result<(), ConstraintError> {
        guard(|| {
            self.parser.consume_token(id)?;
            self.parser.check_stop()?;
            Ok(())
        })
    }

    /// An ending after `id` has come: what is left of the one before, the same again, or another.
    fn closing_after(&mut self, id: u32) -> Result<Option<Closing>, ConstraintError> {
        if self.is_over() || self.accepts()? {
            return Ok(Some(Closing::default()));
        }
        let bytes = self.vocabulary.trie().token(id);
        if let Some(rest) = self.closing.bytes.strip_prefix(bytes)
            && let Some(closing) = self.written(rest.to_vec())
        {
            return Ok(Some(closing));
        }
        let mut whole = self.closing.tokens.clone();
        whole.push(self.vocabulary.trie().eos_token());
        // A digit that ended a number is not needed again.
        let is_digit = self.closing.bytes.first().is_some_and(u8::is_ascii_digit);
        if !is_digit && guard(|| self.parser.validate_tokens_raw(&whole))? == whole.len() {
            return Ok(Some(self.closing.clone()));
        }
        let hint = self.closing.bytes.clone();
        self.search(&hint, LONGEST, NEXT_EFFORT)
    }

    fn search(&self, hint: &[u8], longest: usize, effort: usize) -> Result<Option<Closing>, ConstraintError> {
        let found = guard(|| {
            let mut probe = self.parser.parser.clone();
            let search = Search { vocabulary: &self.vocabulary, banned: &self.ends, effort, longest };
            Ok(search.run(&mut probe, hint))
        })?;
        Ok(found.and_then(|bytes| self.written(bytes)))
    }

    fn written(&self, bytes: Vec<u8>) -> Option<Closing> {
        let tokens = self.vocabulary.fewest(&bytes, &self.ends)?;
        Some(Closing { bytes, tokens })
    }
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matcher that ends with {:?}", String::from_utf8_lossy(&self.closing.bytes))
    }
}
