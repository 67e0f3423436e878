//! From a request to text: what is impossible is refused before anything is computed, and text is shown as it becomes
//! certain. The same request writes the same bytes, whatever else the machine does.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use crate::constraint::{Constraint, ConstraintError};
use models::{Gpt2, ModelError};
use serde::Serialize;
use thiserror::Error;
use tokenizer::{Decoding, Tokenizer, TokenizerError};

use crate::end_tokens;
use crate::engine::{Engine, EngineError, EngineSettings, Event, Overflow, Task, TaskId};
use crate::sampling::{Draw, Sampling, SamplingError, TokenLogprobs};
use crate::stream::{Released, TextStream};

/// What to write.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The text so far, as tokens. Without any, the model starts from [`Tokenizer::bos`].
    pub prompt: Vec<u32>,
    /// Tokens to write at most; without a limit, until an [end token](crate::end_tokens) or a full context.
    pub max_tokens: Option<usize>,
    /// Tokens that are written and shown before an end token or a stop string may end the text: until then
    /// end tokens are never drawn, and stop strings are text like any other.
    pub min_tokens: usize,
    /// Strings that end the text, and are not part of it; the one that is complete first counts.
    pub stop: Vec<String>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Whether the prompt's log-probabilities are wanted, with so many of the most likely tokens.
    pub prompt_logprobs: Option<usize>,
    /// The first token of the prompt whose log-probability is wanted; the first of all has none.
    pub logprobs_from: usize,
    /// What happens when the context is full.
    pub overflow: Overflow,
    /// What the text must be, as a whole and without the prompt. It is so whenever there is no error: the last of
    /// `max_tokens` are kept for an ending, and a stop string ends the text only where what stands before it is whole.
    pub constraint: Option<Arc<Constraint>>,
}

/// Why the text ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model ended it, with one of its [end tokens](crate::end_tokens), or the constraint: nothing could follow.
    #[default]
    Eot,
    /// A stop string or a stop token came.
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
    /// Tokens of the prompt, or 1 for what stands in for an empty one.
    pub prompt_tokens: usize,
    /// Those of them that were computed before, for another text.
    pub cached_tokens: usize,
    /// Milliseconds until it was this text's turn.
    pub queue_ms: f64,
    /// Milliseconds to read the prompt, until the first token could be drawn, those until its turn included.
    pub prompt_ms: f64,
    /// Tokens written.
    pub tokens: usize,
    /// Tokens a second after the first one; 0 where none followed.
    pub tokens_per_second: f64,
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Generation {
    /// The text, without the prompt.
    pub text: String,
    /// The tokens drawn, without the one that ended the text. With [`Finish::Stop`] they include those of the stop string, which
    /// the text does not.
    pub ids: Vec<u32>,
    /// Log-probabilities of the tokens, if asked for.
    pub logprobs: Option<Vec<TokenLogprobs>>,
    /// Log-probabilities of the token that ended the text, which `ids` lacks, if asked for and one was drawn.
    pub end_logprobs: Option<TokenLogprobs>,
    /// Log-probabilities of the prompt's tokens from the first that was asked for, if any were.
    pub prompt_logprobs: Option<Vec<TokenLogprobs>>,
    /// Tokens in the middle of the context that were forgotten, where it may slide.
    pub forgotten: usize,
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
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A constraint that cannot be met.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// A text that was not there any more.
    #[error("the text is no longer being written")]
    Lost,
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
    let mut texts = Texts::new(model, tokenizer, EngineSettings::for_batch(model, 1))?;
    let id = texts.add(request)?;
    loop {
        for event in texts.step()? {
            match event {
                TextEvent::Piece(_, piece) => {
                    if !on_text(&piece) {
                        return texts.cancel(id).ok_or(GenerateError::Lost);
                    }
                }
                TextEvent::Done(_, result) => return result,
                TextEvent::Slid(..) => {}
            }
        }
    }
}

/// What came of a step of [`Texts`].
#[derive(Debug)]
pub enum TextEvent {
    /// Text became certain; never empty.
    Piece(TaskId, String),
    /// So many tokens in the middle of the context were forgotten.
    Slid(TaskId, usize),
    /// The text is whole, or could not go on.
    Done(TaskId, Result<Generation, GenerateError>),
}

/// Texts on an [`Engine`]: tokens become pieces of text, which end before stop strings.
#[derive(Debug)]
pub struct Texts<'a, M: Deref<Target = Gpt2>> {
    engine: Engine<M>,
    tokenizer: &'a Tokenizer,
    ends: Vec<u32>,
    writers: HashMap<TaskId, Writer>,
}

impl<'a, M: Deref<Target = Gpt2>> Texts<'a, M> {
    /// Texts of this tokenizer on this model.
    pub fn new(model: M, tokenizer: &'a Tokenizer, settings: EngineSettings) -> Result<Self, GenerateError> {
        let ends = end_tokens(model.config(), tokenizer);
        let engine = Engine::new(model, tokenizer.vocab_size(), &ends, settings)?;
        Ok(Texts { engine, tokenizer, ends, writers: HashMap::new() })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine<M> {
        &self.engine
    }

    /// Adds a request, once it is known to be possible.
    pub fn add(&mut self, request: &Request) -> Result<TaskId, GenerateError> {
        let limit = check(self.engine.model(), self.tokenizer, request)?;
        let prompt =
            if request.prompt.is_empty() { vec![self.tokenizer.bos()] } else { request.prompt.clone() };
        let mut sampling = request.sampling.clone();
        let least = &mut sampling.processors.min_new_tokens;
        *least = (*least).max(request.min_tokens);
        let prompt_tokens = prompt.len();
        // A constraint sees the bytes of tokens in mid-text, and no space is dropped from them.
        let decoding = match request.constraint {
            Some(_) => Decoding::mid_text(),
            None => self.tokenizer.decoding_after(&prompt),
        };
        let id = self.engine.add(Task {
            prompt,
            max_new: limit,
            sampling,
            prompt_logprobs: request.prompt_logprobs,
            logprobs_from: request.logprobs_from,
            overflow: request.overflow,
            constraint: request.constraint.clone(),
        })?;
        let stream = TextStream::new(&request.stop);
        let result = Generation {
            finish: if request.max_tokens.is_some() { Finish::Length } else { Finish::Context },
            timings: Timings { prompt_tokens, ..Timings::default() },
            ..Generation::default()
        };
        let (min_tokens, start) = (request.min_tokens, Instant::now());
        let constraint = request.constraint.clone();
        let writer =
            Writer { min_tokens, constraint, decoding, stream, result, start, turn: None, first: None };
        self.writers.insert(id, writer);
        Ok(id)
    }

    /// Ends a text where it stands.
    pub fn cancel(&mut self, id: TaskId) -> Option<Generation> {
        self.engine.cancel(id);
        let mut writer = self.writers.remove(&id)?;
        writer.result.finish = Finish::Cancelled;
        Some(writer.whole())
    }

    /// A text as far as it is written, until it is whole.
    pub fn so_far(&self, id: TaskId) -> Option<&Generation> {
        Some(&self.writers.get(&id)?.result)
    }

    /// Whether all texts are whole.
    pub fn is_idle(&self) -> bool {
        self.writers.is_empty()
    }

    /// Feeds one batch, and tells what came of it.
    pub fn step(&mut self) -> Result<Vec<TextEvent>, GenerateError> {
        let mut events = Vec::new();
        for event in self.engine.step()? {
            match event {
                Event::Prompt(id, known) => {
                    if let Some(writer) = self.writers.get_mut(&id) {
                        writer.result.prompt_logprobs.get_or_insert_default().extend(known);
                    }
                }
                Event::Started(id, cached) => {
                    if let Some(writer) = self.writers.get_mut(&id) {
                        writer.result.timings.cached_tokens = cached;
                        writer.turn.get_or_insert_with(Instant::now);
                    }
                }
                Event::Token(id, draw) => self.token(id, draw, &mut events)?,
                Event::Slid(id, dropped) => {
                    if let Some(writer) = self.writers.get_mut(&id) {
                        writer.result.forgotten += dropped;
                    }
                    events.push(TextEvent::Slid(id, dropped));
                }
                Event::Done(id, ending) => {
                    if let Some(mut writer) = self.writers.remove(&id) {
                        if let Some(Draw { id, logprobs }) = ending {
                            let is_end = self.ends.contains(&id);
                            writer.result.finish = if is_end { Finish::Eot } else { Finish::Stop };
                            writer.result.end_logprobs = logprobs;
                        }
                        let rest = std::mem::take(&mut writer.stream).finish();
                        writer.show(id, rest, &mut events);
                        events.push(TextEvent::Done(id, Ok(writer.whole())));
                    }
                }
                Event::Failed(id, error) => {
                    if self.writers.remove(&id).is_some() {
                        events.push(TextEvent::Done(id, Err(error.into())));
                    }
                }
            }
        }
        Ok(events)
    }

    fn token(&mut self, id: TaskId, draw: Draw, events: &mut Vec<TextEvent>) -> Result<(), GenerateError> {
        // A stop string may have ended the text earlier in this very step.
        let Some(writer) = self.writers.get_mut(&id) else { return Ok(()) };
        writer.first.get_or_insert_with(Instant::now);
        writer.result.ids.push(draw.id);
        if let Some(logprobs) = draw.logprobs {
            writer.result.logprobs.get_or_insert_default().push(logprobs);
        }
        let bytes = self.tokenizer.decode_next(&mut writer.decoding, draw.id)?;
        if writer.result.ids.len() <= writer.min_tokens {
            let piece = writer.stream.push_unchecked(&bytes);
            writer.show(id, piece, events);
            return Ok(());
        }
        match writer.push(&bytes) {
            Released::Text(piece) => writer.show(id, piece, events),
            Released::Stop(piece) => {
                writer.show(id, piece, events);
                writer.result.finish = Finish::Stop;
                self.engine.cancel(id);
                if let Some(writer) = self.writers.remove(&id) {
                    events.push(TextEvent::Done(id, Ok(writer.whole())));
                }
            }
        }
        Ok(())
    }
}

/// What has been written so far.
#[derive(Debug)]
struct Writer {
    min_tokens: usize,
    constraint: Option<Arc<Constraint>>,
    /// How far prompt and text are decoded.
    decoding: Decoding,
    stream: TextStream,
    result: Generation,
    start: Instant,
    turn: Option<Instant>,
    first: Option<Instant>,
}

impl Writer {
    /// Adds a token's bytes. Before the text is what its constraint asks for, a stop string is text like any other.
    fn push(&mut self, bytes: &[u8]) -> Released {
        let Some(constraint) = &self.constraint else { return self.stream.push(bytes) };
        let mut stream = self.stream.clone();
        match stream.push(bytes) {
            Released::Stop(piece) if !constraint.accepts(&(self.result.text.clone() + &piece)) => {
                Released::Text(self.stream.push_unchecked(bytes))
            }
            released => {
                self.stream = stream;
                released
            }
        }
    }

    fn show(&mut self, id: TaskId, piece: String, events: &mut Vec<TextEvent>) {
        if !piece.is_empty() {
            self.result.text += &piece;
            events.push(TextEvent::Piece(id, piece));
        }
    }

    fn whole(mut self) -> Generation {
        let (timings, end) = (&mut self.result.timings, Instant::now());
        let first = self.first.unwrap_or(end);
        timings.queue_ms = (self.turn.unwrap_or(first) - self.start).as_secs_f64() * 1e3;
        timings.prompt_ms = (first - self.start).as_secs_f64() * 1e3;
        timings.tokens = self.result.ids.len();
        let (later, seconds) = (timings.tokens.saturating_sub(1) as f64, (end - first).as_secs_f64());
        timings.tokens_per_second = if later > 0.0 { later / seconds.max(1e-9) } else { 0.0 };
        self.result
    }
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
    if request.overflow != Overflow::Refuse {
        if request.constraint.is_some() && request.max_tokens.is_none() {
            return Err(ConstraintError::NoLimit.into());
        }
        let limit = request.max_tokens.unwrap_or(usize::MAX - prompt - n_ctx);
        return if request.min_tokens > limit {
            Err(GenerateError::MinBeyondMax { min: request.min_tokens, max: limit })
        } else {
            Ok(limit)
        };
    }
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

#[cfg(test)]
pub(crate) mod tests;
