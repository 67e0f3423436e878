//! How tokens are chosen and when a text ends: from a request's fields to what the engine takes.

use std::collections::BTreeMap;

use generate::{Processors, Request, Sampler, Sampling, end_tokens};

use super::fields::Strings;
use crate::error::ApiError;
use crate::served::Served;
use crate::state::Settings;

/// Stop strings of a request, at most.
const MOST_STOPS: usize = 16;
/// Biases of a request, at most: each is looked at for each token that is written.
const MOST_BIASES: usize = 1024;
/// Likely tokens that may be asked for at each position.
pub const MOST_LOGPROBS: usize = 20;

/// The fields that completions and chats share.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Spread of the choices; 1 where nothing is said.
    pub temperature: Option<f32>,
    /// Share of the probability that may be drawn from.
    pub top_p: Option<f32>,
    /// So many of the most likely tokens may be drawn; 0 and -1 are all.
    pub top_k: Option<i64>,
    /// Least probability, as a share of the most likely token's.
    pub min_p: Option<f32>,
    /// Divides the logits of what stood before.
    pub repetition_penalty: Option<f32>,
    /// Taken from the logit of what was written.
    pub presence_penalty: Option<f32>,
    /// Taken from the logit of what was written, each time.
    pub frequency_penalty: Option<f32>,
    /// Added to logits, by the number of the token.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Start of the random numbers.
    pub seed: Option<i64>,
    /// Strings that end a text.
    pub stop: Option<Strings>,
    /// Likely tokens that are told at each position.
    pub logprobs: Option<usize>,
    /// Tokens before a text may end.
    pub min_tokens: usize,
}

impl Choices {
    /// A request without a prompt, checked as far as it can be without one.
    pub fn request(&self, served: &Served) -> Result<Request, ApiError> {
        let top_k = match self.top_k {
            None | Some(-1) => 0,
            Some(k) => usize::try_from(k).map_err(|_| {
                ApiError::invalid("top_k", format!("`top_k` is {k}; give a number of tokens, or 0 for all"))
            })?,
        };
        let stop = self.stop.clone().map_or_else(Vec::new, |stop| stop.0);
        if stop.len() > MOST_STOPS {
            let message = format!("`stop` has {} strings; give at most {MOST_STOPS}", stop.len());
            return Err(ApiError::invalid("stop", message));
        }
        if stop.iter().any(String::is_empty) {
            return Err(ApiError::invalid("stop", "`stop` holds an empty string; leave it out"));
        }
        let processors = Processors {
            logit_bias: self.biases()?,
            repetition: self.repetition_penalty.unwrap_or(1.0),
            presence: self.presence_penalty.unwrap_or(0.0),
            frequency: self.frequency_penalty.unwrap_or(0.0),
            ..Processors::NONE
        };
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_k,
            top_p: self.top_p.unwrap_or(1.0),
            min_p: self.min_p.unwrap_or(0.0),
            typical_p: 1.0,
            // Without one, each request has another, of which nobody need know.
            seed: self.seed.map_or_else(random, |seed| seed as u64),
            processors,
            logprobs: self.logprobs,
        };
        // Which also looks for tokens that the vocabulary lacks.
        let ends = end_tokens(served.model().config(), served.tokenizer());
        Sampler::new(&sampling, served.tokenizer().vocab_size(), &ends)?;
        Ok(Request { stop, sampling, min_tokens: self.min_tokens, ..Request::default() })
    }

    fn biases(&self) -> Result<Vec<(u32, f32)>, ApiError> {
        const NAME: &str = "logit_bias";
        if let Some(biases) = self.logit_bias.as_ref().filter(|biases| biases.len() > MOST_BIASES) {
            let message = format!("`{NAME}` has {} tokens; give at most {MOST_BIASES}", biases.len());
            return Err(ApiError::invalid(NAME, message));
        }
        let pair = |(token, &bias): (&String, &f32)| {
            let id = token.parse().map_err(|_| {
                ApiError::invalid(NAME, format!("`{NAME}` names the token `{token}`, which is no number"))
            })?;
            if !(-100.0..=100.0).contains(&bias) {
                let message = format!("`{NAME}` of token {id} is {bias}, but it must be from -100 to 100");
                return Err(ApiError::invalid(NAME, message));
            }
            Ok((id, bias))
        };
        self.logit_bias.iter().flatten().map(pair).collect()
    }
}

/// The requests for the texts that follow one prompt: text k has the seed + k.
pub fn texts(base: &Request, prompt: &[u32], texts: usize) -> impl Iterator<Item = Request> {
    (0..texts as u64).map(move |k| {
        let sampling = base.sampling.clone().nth(k);
        Request { prompt: prompt.to_vec(), sampling, ..base.clone() }
    })
}

/// The number of tokens that may be written after a prompt, once it is known that there is room.
///
/// `wanted` is what the request asks for; where it says nothing, the text may fill the context, up to the server's limit.
pub fn limit(
    served: &Served,
    settings: &Settings,
    (prompt, name): (usize, &str),
    wanted: Option<(usize, &str)>,
) -> Result<Option<usize>, ApiError> {
    let (n_ctx, prompt) = (served.n_ctx(), prompt.max(1));
    if let (Some((tokens, field)), Some(most)) = (wanted, settings.max_tokens)
        && tokens > most
    {
        let message =
            format!("`{field}` is {tokens}, but this server writes at most {most} tokens at a request");
        return Err(ApiError::invalid(field, message));
    }
    // Without a number, there must be room for one token.
    let least = wanted.map_or(1, |(tokens, _)| tokens);
    if prompt.saturating_add(least) > n_ctx {
        return Err(ApiError::context(name, prompt, least, n_ctx));
    }
    Ok(wanted.map(|(tokens, _)| tokens).or(settings.max_tokens.map(|most| most.min(n_ctx - prompt))))
}

/// A seed from the system's randomness.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
