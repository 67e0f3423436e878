//! The choice of a token: a pure function of settings, logits, text so far, and position.

use tensor::random::Stream;

use super::filters::{self, Candidate};
use super::processors::{Edits, History, Rules};
use super::scan::Scan;
use super::{Sampling, SamplingError, TokenLogprobs, top_logprobs};

/// The random stream of draws.
const PURPOSE: u32 = 0x7361_6d70;

/// Settings that are known to suit a vocabulary.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    rules: Rules,
}

/// A token that was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    /// The token.
    pub id: u32,
    /// How likely the model holds it, if [`Sampling::logprobs`] asks.
    pub logprobs: Option<TokenLogprobs>,
}

impl Sampler {
    /// Checks the settings for a vocabulary of which `eot` ends a text.
    pub fn new(sampling: &Sampling, vocab_size: usize, eot: u32) -> Result<Sampler, SamplingError> {
        sampling.validate()?;
        let rules = Rules::new(&sampling.processors, vocab_size, eot)?;
        Ok(Sampler { sampling: sampling.clone(), rules })
    }

    /// Tokens of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.rules.vocab_size
    }

    /// The vocabulary's end-of-text.
    pub(crate) fn eot(&self) -> u32 {
        self.rules.eot
    }

    /// Whether the text ends with this token: end-of-text, or one of the stop tokens.
    pub fn ends(&self, id: u32) -> bool {
        self.rules.ends(id)
    }

    /// Draws the token for `position`, which follows `history`. The logits are worked on, but come back as they were;
    /// those beyond the vocabulary are padding.
    ///
    /// # Panics
    /// If there are fewer logits than tokens.
    pub fn sample(
        &self,
        logits: &mut [f32],
        history: History<'_>,
        position: u64,
    ) -> Result<Draw, SamplingError> {
        let logits = &mut logits[..self.rules.vocab_size];
        let edits = self.rules.apply(logits, history);
        let id = scan(&edits, position).map(|scan| self.choose(edits.logits, &scan, position));
        edits.undo();
        let id = id?;
        Ok(Draw { id, logprobs: self.sampling.logprobs.map(|k| top_logprobs(logits, id, k)) })
    }

    /// The same among some tokens only: token i where bit i % 32 of `allowed[i / 32]` is set. As if the others' logits were
    /// minus infinity after the processors.
    ///
    /// # Panics
    /// If there are fewer logits than tokens, or than a token that is allowed.
    pub fn sample_among(
        &self,
        logits: &mut [f32],
        history: History<'_>,
        position: u64,
        allowed: &[u32],
    ) -> Result<Draw, SamplingError> {
        let logits = &mut logits[..self.rules.vocab_size];
        if Scan::new(logits).is_none() {
            return Err(SamplingError::Logits { position });
        }
        let edits = self.rules.apply(logits, history);
        let ids: Vec<u32> =
            (0..).zip(allowed).flat_map(|(word, &bits)| ones(bits).map(move |at| 32 * word + at)).collect();
        let among: Vec<f32> = ids.iter().map(|&id| edits.logits[id as usize]).collect();
        let is_sound = edits.are_sound();
        edits.undo();
        let scan = Scan::new(&among).filter(|scan| scan.most < f32::INFINITY && is_sound);
        let scan = scan.ok_or(SamplingError::Logits { position })?;
        if scan.most == f32::NEG_INFINITY {
            return Err(SamplingError::NothingAllowed { position });
        }
        let id = ids[self.choose(&among, &scan, position) as usize];
        Ok(Draw { id, logprobs: self.sampling.logprobs.map(|k| top_logprobs(logits, id, k)) })
    }

    /// The tokens that may be drawn, with weights in proportion to their probabilities. With top-p they come in falling
    /// order (equals by id), else by id. Temperature 0 has one of them.
    pub fn candidates(
        &self,
        logits: &mut [f32],
        history: History<'_>,
        position: u64,
    ) -> Result<Vec<Candidate>, SamplingError> {
        let edits = self.rules.apply(&mut logits[..self.rules.vocab_size], history);
        let candidates = scan(&edits, position).map(|scan| match self.sampling.temperature {
            0.0 => vec![(scan.argmax(), 1.0)],
            _ => filters::candidates(&self.sampling, edits.logits, &scan),
        });
        edits.undo();
        candidates
    }

    fn choose(&self, logits: &[f32], scan: &Scan<'_>, position: u64) -> u32 {
        let Sampling { temperature, top_k, top_p, min_p, typical_p, seed, .. } = self.sampling;
        if temperature == 0.0 {
            return scan.argmax();
        }
        let share = Stream::new(seed, PURPOSE, 0).f64(position);
        if (top_k == 0 || top_k >= logits.len()) && top_p == 1.0 && min_p == 0.0 && typical_p == 1.0 {
            draw_from_all(logits, scan.most, temperature, share)
        } else {
            draw(&filters::candidates(&self.sampling, logits, scan), share)
        }
    }
}

/// The places of the bits that are set.
fn ones(mut bits: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let at = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (at < u32::BITS).then_some(at)
    })
}

/// The changed logits' maxima, if a token can be drawn from them.
fn scan<'a>(edits: &'a Edits<'_>, position: u64) -> Result<Scan<'a>, SamplingError> {
    let scan = Scan::new(edits.logits).filter(|scan| scan.most < f32::INFINITY && edits.are_sound());
    match scan {
        Some(scan) if scan.most > f32::NEG_INFINITY => Ok(scan),
        Some(_) if edits.any() => Err(SamplingError::NothingLeft { position }),
        _ => Err(SamplingError::Logits { position }),
    }
}

/// The candidate with which the sum of weights exceeds this share of their total.
fn draw(candidates: &[Candidate], share: f64) -> u32 {
    let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
    let target = share * total;
    let mut sum = 0.0;
    for &(id, weight) in candidates {
        sum += weight;
        if target < sum {
            return id;
        }
    }
    // Only by rounding: the last that has any weight.
    candidates.iter().rev().find(|(_, weight)| *weight > 0.0).map_or(0, |(id, _)| *id)
}

/// [`draw`] from every token by id, without a list of them: sums are remembered once a block, and only the block in
/// which the share is exceeded is looked at again.
fn draw_from_all(logits: &[f32], most: f32, temperature: f32, share: f64) -> u32 {
    const BLOCK: usize = 256;
    let weight = |logit: f32| filters::weight(logit, most, temperature);
    let mut sum = 0.0;
    let mut sums = Vec::with_capacity(logits.len() / BLOCK + 2);
    sums.push(sum);
    for block in logits.chunks(BLOCK) {
        block.iter().for_each(|&logit| sum += weight(logit));
        sums.push(sum);
    }
    let target = share * sum;
    let block = sums.partition_point(|&sum| sum <= target).saturating_sub(1);
    let from = block * BLOCK;
    let mut sum = sums[block];
    let exceeds = |&logit: &f32| {
        sum += weight(logit);
        target < sum
    };
    match logits[from.min(logits.len())..].iter().position(exceeds) {
        Some(at) => (from + at) as u32,
        None => logits.iter().rposition(|&logit| weight(logit) > 0.0).unwrap_or(0) as u32,
    }
}
