//! The choice of a token: a pure function of settings, logits, text so far, and position.

use tensor::draws;
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
    /// Checks the settings for a vocabulary of which the tokens `ends` end a text: see [`end_tokens`](crate::end_tokens).
    pub fn new(sampling: &Sampling, vocab_size: usize, ends: &[u32]) -> Result<Sampler, SamplingError> {
        sampling.validate()?;
        let rules = Rules::new(&sampling.processors, vocab_size, ends)?;
        Ok(Sampler { sampling: sampling.clone(), rules })
    }

    /// Tokens of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.rules.vocab_size
    }

    /// A token that ends the text.
    pub(crate) fn end(&self) -> Option<u32> {
        self.rules.end()
    }

    /// Whether the text ends with this token: one of the model's own, or of the stop tokens.
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
        let id =
            scan(&edits, position).map(|scan| self.choose(edits.logits, edits.logits.len(), &scan, position));
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
        let mut edits = self.rules.apply(logits, history);
        let n: usize = allowed.iter().map(|bits| bits.count_ones() as usize).sum();
        // Where nearly all may come, to hide the others is quicker than to gather them.
        let id = match 2 * n > edits.logits.len() {
            true => self.choose_unhidden(&mut edits, allowed, n, position),
            false => self.choose_gathered(&edits, allowed, position),
        };
        edits.undo();
        let id = id?;
        Ok(Draw { id, logprobs: self.sampling.logprobs.map(|k| top_logprobs(logits, id, k)) })
    }

    /// Draws among a copy of what is allowed.
    fn choose_gathered(
        &self,
        edits: &Edits<'_>,
        allowed: &[u32],
        position: u64,
    ) -> Result<u32, SamplingError> {
        let ids: Vec<u32> =
            (0..).zip(allowed).flat_map(|(word, &bits)| ones(bits).map(move |at| 32 * word + at)).collect();
        let among: Vec<f32> = ids.iter().map(|&id| edits.logits[id as usize]).collect();
        let scan = scan_allowed(&among, edits, position)?;
        Ok(ids[self.choose(&among, among.len(), &scan, position) as usize])
    }

    /// The same draw among the `n` that are allowed, while the others' logits are minus infinity, where they lie. They weigh
    /// nothing, so no sum has other bits.
    fn choose_unhidden(
        &self,
        edits: &mut Edits<'_>,
        allowed: &[u32],
        n: usize,
        position: u64,
    ) -> Result<u32, SamplingError> {
        let mut hidden = Vec::new();
        for (word, logits) in edits.logits.chunks_mut(32).enumerate() {
            let others = !allowed.get(word).copied().unwrap_or(0);
            let len = logits.len();
            for at in ones(others).map(|at| at as usize).take_while(|&at| at < len) {
                hidden.push((32 * word + at, std::mem::replace(&mut logits[at], f32::NEG_INFINITY)));
            }
        }
        let id = scan_allowed(edits.logits, edits, position)
            .map(|scan| self.choose(edits.logits, n, &scan, position));
        hidden.into_iter().for_each(|(id, logit)| edits.logits[id] = logit);
        id
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
            _ => filters::candidates(&self.sampling, edits.logits, edits.logits.len(), &scan),
        });
        edits.undo();
        candidates
    }

    /// Draws among `n` logits; those besides, if there are more, are minus infinity.
    fn choose(&self, logits: &[f32], n: usize, scan: &Scan<'_>, position: u64) -> u32 {
        let Sampling { temperature, top_k, top_p, min_p, typical_p, seed, .. } = self.sampling;
        if temperature == 0.0 {
            return scan.argmax();
        }
        let share = Stream::new(seed, PURPOSE, 0).f64(position);
        if (top_k == 0 || top_k >= n) && top_p == 1.0 && min_p == 0.0 && typical_p == 1.0 {
            draws::draw(logits, scan.most, temperature, share)
        } else {
            draw(&filters::candidates(&self.sampling, logits, n, scan), share)
        }
    }
}

/// The maxima of what is allowed, if a token can be drawn from it.
fn scan_allowed<'a>(among: &'a [f32], edits: &Edits<'_>, position: u64) -> Result<Scan<'a>, SamplingError> {
    let scan = Scan::new(among).filter(|scan| scan.most < f32::INFINITY && edits.are_sound());
    match scan.ok_or(SamplingError::Logits { position })? {
        scan if scan.most == f32::NEG_INFINITY => Err(SamplingError::NothingAllowed { position }),
        scan => Ok(scan),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::Processors;

    /// Both ways to draw among some tokens are one draw.
    #[test]
    fn hiding_and_gathering_give_the_same_token() {
        let plain = Sampling { temperature: 1.0, ..Sampling::default() };
        let penalised =
            Processors { repetition: 1.3, logit_bias: vec![(3, 2.0), (5, -1.0)], ..Processors::NONE };
        let mut draws = 0;
        for n in [1_usize, 31, 32, 33, 700, 1000] {
            let random = Stream::new(n as u64, 1, 0);
            let logits: Vec<f32> = (0..n as u64).map(|i| random.below(i, 900) as f32 / 90.0 - 5.0).collect();
            for share in [1, 2, 3, 10, 100] {
                let mut allowed = vec![0_u32; n.div_ceil(32)];
                let mut count = 0;
                for id in 0..n {
                    if random.below(5000 + id as u64, share) > 0 || share == 1 || id == n / 2 {
                        allowed[id / 32] |= 1 << (id % 32);
                        count += 1;
                    }
                }
                for sampling in [
                    Sampling::GREEDY,
                    plain.clone(),
                    Sampling { temperature: 0.3, top_k: 40, ..plain.clone() },
                    Sampling { top_k: count, ..plain.clone() },
                    Sampling { top_k: count + 1, top_p: 0.9, ..plain.clone() },
                    Sampling { top_k: count.saturating_sub(1), ..plain.clone() },
                    Sampling { top_p: 0.7, ..plain.clone() },
                    Sampling { min_p: 0.1, typical_p: 0.8, ..plain.clone() },
                    Sampling { typical_p: 0.5, ..plain.clone() },
                    Sampling { processors: penalised.clone(), top_p: 0.95, ..plain.clone() },
                ] {
                    if n < 8 && !sampling.processors.logit_bias.is_empty() {
                        continue;
                    }
                    let sampler = Sampler::new(&sampling, n, &[]).unwrap();
                    for position in 0..20 {
                        let history = History { prompt: &[0], generated: &[0] };
                        let mut row = logits.clone();
                        let mut edits = sampler.rules.apply(&mut row, history);
                        let gathered = sampler.choose_gathered(&edits, &allowed, position).unwrap();
                        let hidden = sampler.choose_unhidden(&mut edits, &allowed, count, position).unwrap();
                        edits.undo();
                        assert_eq!(hidden, gathered, "{n} tokens, {count} allowed, {sampling:?}");
                        assert_eq!(row, logits);
                        draws += 1;
                    }
                }
            }
        }
        assert!(draws > 4000, "{draws}");
    }

    #[test]
    fn what_cannot_be_drawn_is_told_in_both_ways() {
        let sampler = Sampler::new(&Sampling::default(), 4, &[]).unwrap();
        let draw = |logits: [f32; 4], allowed: u32| {
            sampler.sample_among(&mut logits.clone(), History::default(), 0, &[allowed])
        };
        let (low, high) = (f32::NEG_INFINITY, f32::INFINITY);
        for allowed in [0b0001, 0b0111] {
            assert!(matches!(draw([low, low, low, 1.0], allowed), Err(SamplingError::NothingAllowed { .. })));
            assert!(matches!(draw([high, 0.0, 0.0, 0.0], allowed), Err(SamplingError::Logits { .. })));
            assert!(matches!(draw([0.0, 0.0, 0.0, f32::NAN], allowed), Err(SamplingError::Logits { .. })));
            assert_eq!(draw([3.0, low, low, 9.0], allowed).unwrap().id, 0);
        }
    }
}
