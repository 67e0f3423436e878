//! The decoding loop: feed the prompt, then draw a token, feed it, and draw the next.
//!
//! What is impossible is refused before anything is computed. The same request writes the same bytes, however
//! the prompt is cut into chunks and whatever else the machine does.

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
    /// Tokens that are written and shown before end-of-text or a stop string may end the text: until then
    /// end-of-text is never drawn, and stop strings are text like any other.
    pub min_tokens: usize,
    /// Strings that end the text, and are not part of it; the one that is complete first counts.
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
    /// `max_tokens` were written.
    Length,
    /// The context is full.
    Context,
    /// The receiver of the text asked for no more.
    Cancelled,
}

impl Finish {
    /// The name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Finish::Eot => "eot",
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Context => "context",
            Finish::Cancelled => "cancelled",
        }
    }
}

/// How long it took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Timings {
    /// Tokens of the prompt, or 1 for the end-of-text that stands in for an empty one.
    pub prompt_tokens: usize,
    /// Milliseconds to read the prompt, until the first token could be drawn.
    pub prompt_ms: f64,
    /// Tokens written.
    pub tokens: usize,
    /// Tokens a second after the first one; 0 where none followed.
    pub tokens_per_second: f64,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The text, without the prompt.
    pub text: String,
    /// The tokens drawn, without end-of-text. With [`Finish::Stop`] they include those of the stop string, which
    /// the text does not.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// How long it took.
    pub timings: Timings,
}

/// Why nothing can be written.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// Prompt and `max_tokens` are more than the model has positions.
    #[error(
        "the prompt has {prompt} tokens and {max_tokens} more are asked for, {} in all, but the model's context \
         is {n_ctx}; shorten the prompt or ask for at most {} tokens",
        .prompt.saturating_add(*.max_tokens), .n_ctx.saturating_sub(*.prompt)
    )]
    Context {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// Positions of the model.
        n_ctx: usize,
    },
    /// The prompt leaves no room, but more is asked for.
    #[error(
        "the prompt has {n_ctx} tokens, which fill the model's context of {n_ctx}; shorten the prompt by the \
         {max_tokens} tokens asked for"
    )]
    PromptFull {
        /// Tokens asked for.
        max_tokens: usize,
        /// Positions of the model, and tokens of the prompt.
        n_ctx: usize,
    },
    /// The prompt alone is more than the model has positions.
    #[error("the prompt has {prompt} tokens, but the model's context is {n_ctx}; shorten the prompt")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Positions of the model.
        n_ctx: usize,
    },
    /// `min_tokens` is more than can be written.
    #[error(
        "at least {min} tokens are asked for, but no more than {max} can be written; lower the least to {max} \
         tokens, or shorten the prompt"
    )]
    MinBeyondMax {
        /// `min_tokens`.
        min: usize,
        /// `max_tokens`, or what the context leaves.
        max: usize,
    },
    /// A token of the prompt that the tokenizer does not have.
    #[error(
        "token {id} at position {position} of the prompt is out of range: the vocabulary has {vocab_size} tokens; \
         encode the prompt with the model's own tokenizer"
    )]
    TokenOutOfRange {
        /// The token.
        id: u32,
        /// Where it stands in the prompt.
        position: usize,
        /// Tokens there are.
        vocab_size: usize,
    },
    /// A stop string without characters would end every text before it begins.
    #[error("a stop string is empty; give it characters or leave it out")]
    EmptyStop,
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

/// Writes text. `on_text` is given each piece as it becomes certain, and stops the writing by returning false; the
/// pieces together are the text.
pub fn generate(
    model: &Gpt2,
    tokenizer: &Tokenizer,
    request: &Request,
    on_text: &mut dyn FnMut(&str) -> bool,
) -> Result<Generation, GenerateError> {
    let limit = check(model, tokenizer, request)?;
    let end_of_text = [tokenizer.eot()];
    let prompt = if request.prompt.is_empty() { &end_of_text } else { &request.prompt[..] };
    let start = Instant::now();
    let mut cache = model.cache();
    let mut logits = prefill(model, prompt, PREFILL, &mut cache)?;
    let prompt_time = start.elapsed();
    let mut writer = Writer::new(tokenizer, request, on_text);
    let finish = loop {
        if writer.ids.len() == limit {
            break if request.max_tokens.is_some() { Finish::Length } else { Finish::Context };
        }
        if let Some(finish) = writer.write(&mut logits, (prompt.len() + writer.ids.len()) as u64)? {
            break finish;
        }
        if writer.ids.len() < limit {
            logits = model.last_logits(&writer.ids[writer.ids.len() - 1..], &mut Pass::cached(&mut cache))?;
        }
    };
    let decoded = (cache.len() - prompt.len()) as f64; // tokens fed one by one
    let decode_time = (start.elapsed() - prompt_time).as_secs_f64();
    let (text, ids) = writer.finish(finish);
    let timings = Timings {
        prompt_tokens: prompt.len(),
        prompt_ms: prompt_time.as_secs_f64() * 1e3,
        tokens: ids.len(),
        tokens_per_second: if decoded > 0.0 { decoded / decode_time.max(1e-9) } else { 0.0 },
    };
    Ok(Generation { text, ids, finish, timings })
}

/// The number of tokens to write at most, once the request is known to be possible.
fn check(model: &Gpt2, tokenizer: &Tokenizer, request: &Request) -> Result<usize, GenerateError> {
    request.sampling.validate()?;
    let (n_ctx, vocab_size) = (model.config().n_ctx, tokenizer.vocab_size());
    if vocab_size > model.config().vocab_size {
        return Err(GenerateError::Vocabulary { tokenizer: vocab_size, model: model.config().vocab_size });
    }
    if let Some(position) = request.prompt.iter().position(|&id| id as usize >= vocab_size) {
        return Err(GenerateError::TokenOutOfRange { id: request.prompt[position], position, vocab_size });
    }
    if request.stop.iter().any(String::is_empty) {
        return Err(GenerateError::EmptyStop);
    }
    let prompt = request.prompt.len().max(1);
    let Some(room) = n_ctx.checked_sub(prompt) else {
        return Err(GenerateError::PromptTooLong { prompt, n_ctx });
    };
    let limit = request.max_tokens.unwrap_or(room);
    if limit > 0 && room == 0 {
        return Err(GenerateError::PromptFull { max_tokens: limit, n_ctx });
    }
    if limit > room {
        return Err(GenerateError::Context { prompt, max_tokens: limit, n_ctx });
    }
    if request.min_tokens > limit {
        return Err(GenerateError::MinBeyondMax { min: request.min_tokens, max: limit });
    }
    Ok(limit)
}

/// Feeds the prompt, `chunk` tokens at a time, and gives the logits after it.
fn prefill(
    model: &Gpt2,
    prompt: &[u32],
    chunk: usize,
    cache: &mut KvCache,
) -> Result<Vec<f32>, GenerateError> {
    let mut logits = Vec::new();
    for chunk in prompt.chunks(chunk) {
        logits = model.last_logits(chunk, &mut Pass::cached(cache))?;
    }
    Ok(logits)
}

/// What has been written so far.
struct Writer<'a> {
    tokenizer: &'a Tokenizer,
    request: &'a Request,
    on_text: &'a mut dyn FnMut(&str) -> bool,
    stream: TextStream,
    text: String,
    ids: Vec<u32>,
}

impl<'a> Writer<'a> {
    fn new(tokenizer: &'a Tokenizer, request: &'a Request, on_text: &'a mut dyn FnMut(&str) -> bool) -> Self {
        let stream = TextStream::new(&request.stop);
        Writer { tokenizer, request, on_text, stream, text: String::new(), ids: Vec::new() }
    }

    /// Draws a token from its logits and shows what is certain now. Says so if the text ends with it.
    fn write(&mut self, logits: &mut Vec<f32>, position: u64) -> Result<Option<Finish>, GenerateError> {
        let eot = self.tokenizer.eot();
        logits.truncate(self.tokenizer.vocab_size()); // a model's table may be padded beyond its tokens
        if self.ids.len() < self.request.min_tokens {
            logits[eot as usize] = f32::NEG_INFINITY;
        }
        let id = self.request.sampling.sample(logits, position)?;
        if id == eot {
            return Ok(Some(Finish::Eot));
        }
        self.ids.push(id);
        let bytes = self.tokenizer.decode_bytes(&[id])?;
        if self.ids.len() <= self.request.min_tokens {
            let piece = self.stream.push_unchecked(&bytes);
            return Ok(self.show(&piece));
        }
        match self.stream.push(&bytes) {
            Released::Text(piece) => Ok(self.show(&piece)),
            Released::Stop(piece) => {
                self.show(&piece);
                Ok(Some(Finish::Stop))
            }
        }
    }

    fn show(&mut self, piece: &str) -> Option<Finish> {
        self.text += piece;
        let go_on = piece.is_empty() || (self.on_text)(piece);
        (!go_on).then_some(Finish::Cancelled)
    }

    /// The text and its tokens, after showing what was still held back.
    fn finish(mut self, finish: Finish) -> (String, Vec<u32>) {
        if !matches!(finish, Finish::Stop | Finish::Cancelled) {
            let rest = std::mem::take(&mut self.stream).finish();
            self.show(&rest);
        }
        (self.text, self.ids)
    }
}

#[cfg(test)]
mod tests;
