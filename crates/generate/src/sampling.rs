//! Drawing the next token: temperature, then top-k, then top-p, as transformers orders them.
//!
//! The random number of a draw depends on the seed and the token's position alone, so the same settings give
//! the same text whatever else happens.

use tensor::random::Stream;
use thiserror::Error;

/// The random stream of draws.
const PURPOSE: u32 = 0x7361_6d70;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; 0 takes the most likely token.
    pub temperature: f32,
    /// Only the k most likely tokens may be drawn; 0 is all (Fan et al., 2018).
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability; 1 is all (Holtzman et al., 2020).
    pub top_p: f32,
    /// Start of the random numbers. Sample k of several takes this seed + k: see [`Sampling::nth`].
    pub seed: u64,
}

/// Settings or logits from which nothing can be drawn.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SamplingError {
    /// A temperature that is none.
    #[error("the temperature is {0}, but it must be 0 (most likely token) or a positive number such as 0.8")]
    Temperature(f32),
    /// A share that is none.
    #[error("top-p is {0}, but it must be above 0 and at most 1 (1 turns it off)")]
    TopP(f32),
    /// The model computed something that is not a number.
    #[error(
        "the logits at position {position} hold no usable numbers (NaN or infinite): the model's weights are damaged"
    )]
    Logits {
        /// Position of the token to be drawn.
        position: u64,
    },
}

impl Sampling {
    /// Always the most likely token.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };

    /// The settings of sample `k` of several, counted from 0: the seed is `k` further (after the largest comes 0),
    /// so that each of them can be written again alone.
    pub fn nth(self, k: u64) -> Sampling {
        Sampling { seed: self.seed.wrapping_add(k), ..self }
    }

    /// Checks the settings.
    pub fn validate(&self) -> Result<(), SamplingError> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(SamplingError::Temperature(self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(SamplingError::TopP(self.top_p));
        }
        Ok(())
    }

    /// Draws the token for `position`.
    pub fn sample(&self, logits: &[f32], position: u64) -> Result<u32, SamplingError> {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !most.is_finite() || logits.iter().any(|logit| logit.is_nan()) {
            return Err(SamplingError::Logits { position });
        }
        if self.temperature == 0.0 {
            return Ok(tensor::rows::argmax(logits) as u32);
        }
        let candidates = self.candidates(logits);
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let target = Stream::new(self.seed, PURPOSE, 0).f64(position) * total;
        let mut sum = 0.0;
        for &(id, weight) in &candidates {
            sum += weight;
            if target < sum {
                return Ok(id);
            }
        }
        // Only by rounding: the last that has any weight.
        Ok(candidates.iter().rev().find(|(_, weight)| *weight > 0.0).map_or(0, |(id, _)| *id))
    }

    /// The tokens that may be drawn, with weights in proportion to their probabilities; the largest is 1. With
    /// top-p they come in falling order (equals by id), else by id. The temperature must not be 0.
    ///
    /// Tokens as likely as the k-th are all kept by top-k, and top-p keeps the fewest that reach its share.
    pub fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let mut kept: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        if self.top_k > 0 && self.top_k < kept.len() {
            let mut values = logits.to_vec();
            let (_, &mut least, _) = values.select_nth_unstable_by(self.top_k - 1, |a, b| b.total_cmp(a));
            kept.retain(|&(_, logit)| logit >= least);
        }
        let most = kept.iter().map(|&(_, logit)| logit).fold(f32::NEG_INFINITY, f32::max);
        let weight = |logit: f32| f64::from((logit - most) / self.temperature).exp();
        let mut weighted: Vec<(u32, f64)> = kept.into_iter().map(|(id, logit)| (id, weight(logit))).collect();
        if self.top_p < 1.0 {
            let total = weighted.iter().map(|(_, weight)| weight).sum::<f64>();
            let limit = f64::from(self.top_p) * total;
            // Tokens below this weight sum to less than the share that is left out: they need not be sorted.
            let least = ((total - limit) / weighted.len() as f64).min(1.0);
            weighted.retain(|&(_, weight)| weight >= least);
            weighted.sort_by(|a, b| b.1.total_cmp(&a.1));
            let mut before = 0.0;
            weighted.retain(|&(_, weight)| {
                let keep = before < limit;
                before += weight;
                keep
            });
        }
        weighted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, f32::NEG_INFINITY];

    fn ids(sampling: Sampling) -> Vec<u32> {
        let mut ids: Vec<u32> =
            sampling.candidates(&LOGITS).into_iter().filter(|(_, w)| *w > 0.0).map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn filters() {
        let all = Sampling { temperature: 1.0, ..Sampling::GREEDY };
        assert_eq!(ids(all), [0, 1, 2, 3]);
        assert_eq!(ids(Sampling { top_k: 3, ..all }), [1, 2, 3]);
        assert_eq!(ids(Sampling { top_k: 1, ..all }), [1, 3]); // equals are kept together, as transformers does
        // Probabilities: 0.056, 0.413, 0.152, 0.413 (less rounding).
        assert_eq!(ids(Sampling { top_p: 0.3, ..all }).len(), 1);
        assert_eq!(ids(Sampling { top_p: 0.5, ..all }), [1, 3]);
        assert_eq!(ids(Sampling { top_p: 0.9, ..all }), [1, 2, 3]);
        assert_eq!(ids(Sampling { top_p: 1e-9, ..all }).len(), 1);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let sampling = Sampling { temperature: 0.7, top_k: 0, top_p: 1.0, seed: 5 };
        let n = 20_000;
        let mut counts = [0.0f64; 5];
        for position in 0..n {
            counts[sampling.sample(&LOGITS, position).unwrap() as usize] += 1.0;
        }
        let weights = LOGITS.map(|logit| f64::from(logit / 0.7).exp());
        let total: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            assert!((count / n as f64 - weight / total).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(Sampling::GREEDY.sample(&LOGITS, 9), Ok(1));
    }

    #[test]
    fn the_nearly_certain_token_is_drawn_without_overflow() {
        for temperature in [f32::MIN_POSITIVE, 1e-45, 1e-3] {
            for logits in [[-f32::MAX, f32::MAX, 0.0], [-1.0, 1.0, 0.0]] {
                let sampling = Sampling { temperature, top_k: 0, top_p: 1.0, seed: 1 };
                assert!((0..50).all(|position| sampling.sample(&logits, position) == Ok(1)), "{temperature}");
            }
        }
    }

    #[test]
    fn top_p_sorts_no_more_than_it_needs_and_loses_nothing() {
        // Equal tokens are the hardest case: none is below the mean.
        for n in [1, 2, 3, 1000, 50_257] {
            for top_p in [1e-30, 0.5, 0.999_999_9] {
                let sampling = Sampling { temperature: 1.0, top_k: 0, top_p, seed: 1 };
                let kept = sampling.candidates(&vec![2.5; n]);
                let want = (f64::from(top_p) * n as f64).ceil() as usize;
                assert!(kept.iter().map(|kept| kept.0).eq(0..want as u32), "{n} tokens, top-p {top_p}");
            }
        }
    }

    #[test]
    fn samples_have_seeds_that_follow_each_other() {
        let sampling = Sampling { seed: u64::MAX - 1, ..Sampling::GREEDY };
        assert_eq!([0, 1, 2].map(|k| sampling.nth(k).seed), [u64::MAX - 1, u64::MAX, 0]);
    }

    #[test]
    fn a_draw_depends_on_seed_and_position_alone() {
        let draws = |seed| {
            let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed };
            (0..40).map(|position| sampling.sample(&LOGITS, position).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn what_cannot_be_drawn_from_is_refused() {
        let bad = |temperature, top_p| Sampling { temperature, top_k: 0, top_p, seed: 0 }.validate().is_err();
        assert!(bad(-1.0, 1.0) && bad(f32::NAN, 1.0) && bad(f32::INFINITY, 1.0));
        assert!(bad(1.0, 0.0) && bad(1.0, 1.1) && bad(1.0, f32::NAN) && !bad(0.0, 1.0));
        for logits in [&[1.0, f32::NAN][..], &[f32::INFINITY, 0.0], &[f32::NEG_INFINITY], &[]] {
            assert_eq!(Sampling::GREEDY.sample(logits, 3), Err(SamplingError::Logits { position: 3 }));
        }
    }
}
