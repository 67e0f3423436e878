//! The decoding loop: feed the prompt, then draw a token, feed it, and draw the next.

use std::time::Instant;

use models::{Gpt2, KvCache, ModelError, Pass};
use serde::Serialize;
use thiserror::Error;
use tokenizer::{Tokenizer, TokenizerError};

use crate::sampling::{Sampling, SamplingError};
use crate::stream::{Released, TextStream};

/// Tokens of the prompt fed at once; the result does not depend on it.
const PREFILL: usize = 256;

/// What to write.
#[derive(Clone, Debug)]
pub struct Request {
    /// The text so far, as tokens. Without any, the model starts from end-of-text.
    pub prompt: Vec<u32>,
    /// Tokens to write at most; without a limit, until end-of-text or a full context.
    pub max_tokens: Option<usize>,
    /// Tokens before which neither end-of-text nor a stop string ends the text.
    pub min_tokens: usize,
    /// Strings that end the text, and are not part of it.
    pub stop: Vec<String>,
    /// How tokens are drawn.
    pub sampling: Sampling,
}

/// Why the text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model ended it.
    Eot,
    /// A stop string came.
    Stop,
    /// The limit of tokens was reached.
    Length,
    /// The context is full.
    Context,
    /// The receiver of the text asked for no more.
    Cancelled,
}

/// How long it took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Timings {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Until the first token was drawn.
    pub prompt_ms: f64,
    /// Tokens written.
    pub tokens: usize,
    /// Tokens a second after the first.
    pub tokens_per_second: f64,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The text, without the prompt.
    pub text: String,
    /// Its tokens, without the one that ended it.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// How long it took.
    pub timings: Timings,
}

/// Why nothing can be written.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// More tokens than the model has positions.
    #[error("the prompt has {prompt} tokens and {max_tokens} more are asked for, {} in all, but the model's context is {n_ctx}; shorten the prompt or ask for at most {} tokens", .prompt + .max_tokens, .n_ctx.saturating_sub(*.prompt))]
    Context {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// Positions of the model.
        n_ctx: usize,
    },
    /// `min_tokens` beyond `max_tokens`.
    #[error("at least {min} tokens are asked for, but at most {max}")]
    MinBeyondMax {
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// Vocabularies of different sizes.
    #[error("the tokenizer has {tokenizer} tokens, but the model {model}; take both from the same directory")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Tokens of the model.
        model: usize,
    },
    /// Settings or logits that cannot be drawn from.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The model refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer refused.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// Writes text. `on_text` is given each piece as it becomes certain, and stops the writing by returning false.
pub fn generate(
    model: &Gpt2,
    tokenizer: &Tokenizer,
    request: &Request,
    on_text: &mut dyn FnMut(&str) -> bool,
) -> Result<Generation, GenerateError> {
    let limit = check(model, tokenizer, request)?;
    let eot = tokenizer.eot();
    let started = [eot];
    let prompt = if request.prompt.is_empty() { &started } else { &request.prompt[..] };
    let mut cache = KvCache::new(model.config());
    let mut stream = TextStream::new(&request.stop);
    let (mut text, mut ids) = (String::new(), Vec::new());
    let mut show = |piece: String, text: &mut String| {
        text.push_str(&piece);
        piece.is_empty() || on_text(&piece)
    };

    let start = Instant::now();
    let mut logits = Vec::new();
    for chunk in prompt.chunks(PREFILL) {
        logits = model.last_logits(chunk, &mut Pass::cached(&mut cache))?;
    }
    let mut first = None;
    let finish = loop {
        if ids.len() == limit {
            break if request.max_tokens == Some(limit) { Finish::Length } else { Finish::Context };
        }
        let may_end = ids.len() >= request.min_tokens;
        if !may_end {
            logits[eot as usize] = f32::NEG_INFINITY;
        }
        let id = request.sampling.sample(&logits, (prompt.len() + ids.len()) as u64)?;
        first.get_or_insert_with(Instant::now);
        if id == eot && may_end {
            break Finish::Eot;
        }
        ids.push(id);
        let bytes = tokenizer.decode_bytes(&[id])?;
        let may_stop = ids.len() > request.min_tokens;
        let released = if may_stop { stream.push(&bytes) } else { Released::Text(stream.push_unchecked(&bytes)) };
        match released {
            Released::Stop(piece) => {
                show(piece, &mut text);
                return Ok(finished(text, ids, Finish::Stop, prompt.len(), start, first));
            }
            Released::Text(piece) => {
                if !show(piece, &mut text) {
                    return Ok(finished(text, ids, Finish::Cancelled, prompt.len(), start, first));
                }
            }
        }
        if ids.len() < limit {
            logits = model.last_logits(&[id], &mut Pass::cached(&mut cache))?;
        }
    };
    show(stream.finish(), &mut text);
    Ok(finished(text, ids, finish, prompt.len(), start, first))
}

/// The number of tokens to write at most, once the request is known to be possible.
fn check(model: &Gpt2, tokenizer: &Tokenizer, request: &Request) -> Result<usize, GenerateError> {
    request.sampling.validate()?;
    let (n_ctx, vocab_size) = (model.config().n_ctx, model.config().vocab_size);
    if tokenizer.vocab_size() > vocab_size {
        return Err(GenerateError::Vocabulary { tokenizer: tokenizer.vocab_size(), model: vocab_size });
    }
    let prompt = request.prompt.len().max(1);
    let room = n_ctx.saturating_sub(prompt);
    let limit = request.max_tokens.unwrap_or(room);
    if limit > room || prompt > n_ctx {
        return Err(GenerateError::Context { prompt, max_tokens: limit, n_ctx });
    }
    if request.min_tokens > limit {
        return Err(GenerateError::MinBeyondMax { min: request.min_tokens, max: limit });
    }
    Ok(limit)
}

fn finished(
    text: String,
    ids: Vec<u32>,
    finish: Finish,
    prompt_tokens: usize,
    start: Instant,
    first: Option<Instant>,
) -> Generation {
    let prompt_time = first.map_or_else(|| start.elapsed(), |first| first - start);
    let rest = (start.elapsed() - prompt_time).as_secs_f64();
    let tokens = ids.len();
    let tokens_per_second = if tokens > 1 && rest > 0.0 { (tokens - 1) as f64 / rest } else { 0.0 };
    let timings = Timings { prompt_tokens, prompt_ms: prompt_time.as_secs_f64() * 1e3, tokens, tokens_per_second };
    Generation { text, ids, finish, timings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::{Gpt2Config, Init};

    fn parts() -> (Gpt2, Tokenizer) {
        let tokenizer = Tokenizer::train_bpe(["hello world, 你好世界"], 262).unwrap();
        let config = Gpt2Config::new(2, 2, 16, 24, tokenizer.vocab_size());
        (Gpt2::new(config, Init::Xavier, 3).unwrap(), tokenizer)
    }

    fn request(prompt: &[u32]) -> Request {
        let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 11 };
        Request { prompt: prompt.to_vec(), max_tokens: None, min_tokens: 0, stop: vec![], sampling }
    }

    fn run(request: &Request) -> Generation {
        let (model, tokenizer) = parts();
        let mut pieces = String::new();
        let result = generate(&model, &tokenizer, request, &mut |piece| {
            pieces += piece;
            true
        });
        let result = result.unwrap();
        assert_eq!(pieces, result.text);
        result
    }

    #[test]
    fn greedy_with_the_cache_equals_greedy_without() {
        let (model, _) = parts();
        let sampling = Sampling::GREEDY;
        let got = run(&Request { sampling, max_tokens: Some(20), min_tokens: 20, ..request(&[1, 2, 3]) });
        let mut ids = vec![1, 2, 3];
        for _ in 0..20 {
            let mut logits = model.last_logits(&ids, &mut Pass::eval()).unwrap();
            *logits.last_mut().unwrap() = f32::NEG_INFINITY;
            ids.push(Sampling::GREEDY.sample(&logits, 0).unwrap());
        }
        assert_eq!(got.ids, ids[3..]);
        assert_eq!(got.finish, Finish::Length);
    }

    #[test]
    fn the_same_seed_writes_the_same_text_and_another_one_does_not() {
        let long = Request { min_tokens: 20, ..request(&[5]) };
        assert_eq!(run(&long).ids, run(&long).ids);
        let sampling = Sampling { seed: 12, ..long.sampling };
        assert_ne!(run(&long).ids, run(&Request { sampling, ..long.clone() }).ids);
    }

    #[test]
    fn ends() {
        let full = run(&Request { min_tokens: 23, ..request(&[]) });
        assert_eq!((full.finish, full.ids.len()), (Finish::Context, 23));
        let none = run(&Request { max_tokens: Some(0), ..request(&[7]) });
        assert_eq!((none.finish, none.text.as_str()), (Finish::Length, ""));
        let text = full.text;
        let stop = text.chars().nth(3).unwrap().to_string();
        let stopped = run(&Request { stop: vec![stop.clone()], ..request(&[]) });
        if stopped.finish == Finish::Stop {
            assert!(!stopped.text.contains(&stop));
        }
    }

    #[test]
    fn cancelling() {
        let (model, tokenizer) = parts();
        let request = Request { min_tokens: 20, ..request(&[1]) };
        let result = generate(&model, &tokenizer, &request, &mut |_| false).unwrap();
        assert!(result.finish == Finish::Cancelled && result.ids.len() < 20);
    }

    #[test]
    fn what_cannot_fit_is_refused_before_the_first_token() {
        let (model, tokenizer) = parts();
        let refuse = |request: Request| {
            let result = generate(&model, &tokenizer, &request, &mut |_| panic!("no text may be shown"));
            result.unwrap_err().to_string()
        };
        let error = refuse(Request { max_tokens: Some(22), ..request(&[1, 2, 3]) });
        assert!(error.contains("3 tokens and 22 more") && error.contains("24") && error.contains("at most 21"), "{error}");
        assert!(refuse(request(&[1; 25])).contains("25 tokens"));
        assert!(refuse(Request { min_tokens: 5, max_tokens: Some(4), ..request(&[1]) }).contains("at least 5"));
        assert!(refuse(request(&[262])).contains("out of range"));
        let sampling = Sampling { temperature: -1.0, ..Sampling::GREEDY };
        assert!(refuse(Request { sampling, ..request(&[1]) }).contains("temperature"));
    }
}
