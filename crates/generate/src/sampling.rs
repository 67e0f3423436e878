//! How the next token is chosen.
//!
//! 1. [`Processors`] change the logits: logit bias, repetition penalty, presence and frequency penalties,
//!    no-repeat-n-gram, bad words, min-new-tokens.
//!    Where a [constraint](crate::constraint) holds, the tokens that it does not allow are left out then.
//! 2. Temperature divides them: `p = softmax(x / temperature)`. At 0 the most likely token is taken (the first of
//!    equals), and the rest does not matter.
//! 3. Filters leave some tokens, and their probabilities are scaled to sum to 1 again: top-k, top-p, min-p, typical-p.
//! 4. One of those is drawn. The random number depends on the seed and the token's position alone, so the same
//!    settings give the same text whatever else happens.
//!
//! The order and the meaning of each are those of transformers' `generate`, to which tests hold them.
//! Start at [`Sampling`] for the settings, and at [`Sampler::sample`] for the choice.

mod error;
mod filters;
mod logprobs;
mod processors;
mod sampler;
mod scan;

pub use error::SamplingError;
pub use filters::Candidate;
pub use logprobs::{TokenLogprobs, top_logprobs};
pub use processors::{History, Processors};
pub use sampler::{Draw, Sampler};

pub(crate) use logprobs::{largest, log_prob, log_sum_exp};
pub(crate) use processors::Rules;
pub(crate) use scan::Scan;

/// How the next token is chosen. [`Sampling::default`] follows the model's probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; 0 takes the most likely token.
    pub temperature: f32,
    /// Only the k most likely tokens may be drawn, and those as likely as the k-th; 0 is all (Fan et al., 2018).
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability, the fewest that do; 1 is all (Holtzman et al.,
    /// 2020).
    pub top_p: f32,
    /// Only tokens at least this share as likely as the most likely one; 0 is all (Nguyen et al., 2024).
    pub min_p: f32,
    /// Only the tokens whose surprise `-ln p` is nearest to its mean, the entropy, which together have this
    /// probability; 1 is all (Meister et al., 2023). It may leave out the most likely token.
    pub typical_p: f32,
    /// Start of the random numbers. Sample k of several takes this seed + k: see [`Sampling::nth`].
    pub seed: u64,
    /// Changes of the logits before all this.
    pub processors: Processors,
    /// Also say how likely the model holds the token, and the K most likely tokens. The model's own probabilities
    /// count, before processors, temperature and filters: see [`top_logprobs`].
    pub logprobs: Option<usize>,
}

impl Sampling {
    /// Always the most likely token.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        typical_p: 1.0,
        seed: 0,
        processors: Processors::NONE,
        logprobs: None,
    };

    /// The settings of sample `k` of several, counted from 0: the seed is `k` further (after the largest comes 0),
    /// so that each of them can be written again alone.
    pub fn nth(self, k: u64) -> Sampling {
        Sampling { seed: self.seed.wrapping_add(k), ..self }
    }

    /// Checks the settings, save that tokens exist: [`Sampler::new`] checks that too.
    pub fn validate(&self) -> Result<(), SamplingError> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(SamplingError::Temperature(self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(SamplingError::TopP(self.top_p));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return Err(SamplingError::MinP(self.min_p));
        }
        if !(self.typical_p > 0.0 && self.typical_p <= 1.0) {
            return Err(SamplingError::TypicalP(self.typical_p));
        }
        self.processors.validate()
    }
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::GREEDY }
    }
}

#[cfg(test)]
mod tests;
