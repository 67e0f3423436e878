//! Loss, perplexity, bits per byte and next-token accuracy on a text.
//!
//! The text is cut into windows (see [`data::batches::windows`]); nothing is put before it, and every token but the
//! first is predicted once. Sums are taken in the order of the text, so that neither the batch nor the number of
//! threads changes a bit of the result.
//!
//! Each measure is a ratio of sums: nats, or right answers, to tokens; bits to bytes. Its standard error comes from
//! how it varies between windows, or between tokens where that is more; `measure.rs` says why. Windows that overlap
//! count by the tokens they score. The error of the loss is carried through the exponential to the perplexity.
//!
//! Bytes are those of the predicted tokens' text. End-of-text stands for none, though predicting it costs nats like
//! any other token. `<unk>` of a word vocabulary counts as the bytes that it replaced; where these are not known, as
//! with shards, there is no figure a byte.

use std::f64::consts::LN_2;
use std::ops::ControlFlow;

use data::batches::{Window, documents, windows};
use data::{DataError, Tokens};
use models::{Batch, Gpt2, ModelError};
use serde::Serialize;
use thiserror::Error;
use tokenizer::Tokenizer;

use crate::measure::Measure;

/// How to evaluate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Windows computed at once; the result does not depend on it.
    pub batch: usize,
    /// Length of a window; the model's context where `None`.
    pub time: Option<usize>,
    /// Distance of windows; their length where `None`.
    pub stride: Option<usize>,
    /// Each document by itself, after an end-of-text, instead of windows of the whole stream.
    pub documents: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { batch: 8, time: None, stride: None, documents: false }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Mean of `-ln p`, in nats a token.
    pub loss: f64,
    /// Its standard error. This and the others are NaN (in JSON: null) where a single token was predicted.
    pub loss_stderr: f64,
    /// e to the loss, a token.
    pub perplexity: f64,
    /// Its standard error.
    pub perplexity_stderr: f64,
    /// Bits for each byte of the predicted text; infinite (in JSON: null) for end-of-text alone, NaN (null) where it
    /// is not known what text some `<unk>` stand for.
    pub bits_per_byte: f64,
    /// Its standard error.
    pub bits_per_byte_stderr: f64,
    /// Share of tokens that were the most likely one.
    pub accuracy: f64,
    /// Its standard error.
    pub accuracy_stderr: f64,
    /// Tokens predicted.
    pub tokens: usize,
    /// Those of them that are `<unk>`: what a word vocabulary has no token for.
    pub unknown_tokens: usize,
    /// Bytes of text that the tokens stand for, if that is known.
    pub bytes: Option<usize>,
    /// Windows.
    pub windows: usize,
    /// Length of a window.
    pub context: usize,
}

/// One prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// Index of the predicted token in the text.
    pub position: usize,
    /// The token.
    pub id: u32,
    /// `-ln p` of it.
    pub loss: f32,
    /// Whether it was the most likely.
    pub correct: bool,
}

/// Why a text cannot be evaluated.
#[derive(Debug, Error)]
pub enum EvalError {
    /// Fewer than two tokens.
    #[error("the text has {0} tokens, but at least 2 are needed: one to see and one to predict")]
    TooShort(usize),
    /// No windows at once.
    #[error("a batch of 0 windows cannot be evaluated; take 1 or more")]
    EmptyBatch,
    /// A stride or window that cannot be.
    #[error(
        "windows of {time} tokens every {stride} tokens cannot be; the stride must be 1 to the window's length, \
         and the window 1 to the model's context of {n_ctx}"
    )]
    Windows {
        /// Length.
        time: usize,
        /// Distance.
        stride: usize,
        /// The model's context.
        n_ctx: usize,
    },
    /// A token that the tokenizer does not have.
    #[error(
        "token {id} at position {position} is out of range: the vocabulary has {vocab_size} tokens; encode the text \
         with the model's own tokenizer"
    )]
    TokenOutOfRange {
        /// The token.
        id: u32,
        /// Its index in the text.
        position: usize,
        /// Tokens there are.
        vocab_size: usize,
    },
    /// The model computed something that is not a number. The position is the first where it shows; within a window
    /// that may be before its cause.
    #[error("the loss of the token at position {position} is {loss}: the model's weights are damaged")]
    NotFinite {
        /// Position of the predicted token.
        position: usize,
        /// The loss.
        loss: f32,
    },
    /// The same, in an example.
    #[error("the loss of example {example} is {loss}: the model's weights are damaged")]
    ExampleNotFinite {
        /// Which one, from 1.
        example: usize,
        /// The loss.
        loss: f64,
    },
    /// Whoever sees the predictions wanted no more.
    #[error("the evaluation was stopped before its end")]
    Stopped,
    /// No example has an answer.
    #[error("there are no answers to score")]
    NoAnswers,
    /// Vocabularies of different sizes.
    #[error("the tokenizer has {tokenizer} tokens, but the model {model}; take both from the same directory")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Tokens of the model.
        model: usize,
    },
    /// The tokens could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model refused.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Scores every token of a text but the first. `on_token` sees each prediction in order, and may report progress, or stop.
///
/// # Errors
/// If the text does not fit the model or the options, if a loss is not a number, or [`EvalError::Stopped`].
pub fn evaluate(
    model: &Gpt2,
    tokenizer: &Tokenizer,
    tokens: &Tokens,
    options: Options,
    on_token: &mut dyn FnMut(TokenScore) -> ControlFlow<()>,
) -> Result<Report, EvalError> {
    let (time, stride) = check(model, tokenizer, tokens, options)?;
    let eot = tokenizer.eot();
    let original = tokens;
    let led; // what is scored, with an end-of-text before it where documents count by themselves
    let (tokens, lead, all): (_, _, Vec<Window>) = if options.documents {
        let ids: Vec<u32> = [eot].into_iter().chain(tokens.to_vec()?).collect();
        let all = documents(&ids, time, eot);
        led = Tokens::new(ids);
        (&led, 1, all)
    } else {
        (tokens, 0, windows(tokens.len(), time, stride).collect())
    };
    let mut measures = Measures::default();
    for group in all.chunks(options.batch) {
        for (window, scores) in group.iter().zip(score(model, tokenizer, tokens, group, lead)?) {
            let scored = &scores[window.score_from - window.start..];
            if let Some(bad) = scored.iter().find(|token| !token.loss.is_finite()) {
                return Err(EvalError::NotFinite { position: bad.position, loss: bad.loss });
            }
            measures.add_window(scored, tokenizer, original);
            if scored.iter().try_for_each(|token| on_token(*token)).is_break() {
                return Err(EvalError::Stopped);
            }
        }
    }
    Ok(measures.report(all.len(), time))
}

/// Length and distance of the windows, once the text is known to be fit for evaluation.
fn check(
    model: &Gpt2,
    tokenizer: &Tokenizer,
    tokens: &Tokens,
    options: Options,
) -> Result<(usize, usize), EvalError> {
    let (n_ctx, vocab_size) = (model.config().n_ctx, model.config().vocab_size);
    let time = options.time.unwrap_or(n_ctx);
    let stride = options.stride.unwrap_or(time);
    if time == 0 || time > n_ctx || stride == 0 || stride > time {
        return Err(EvalError::Windows { time, stride, n_ctx });
    }
    if options.batch == 0 {
        return Err(EvalError::EmptyBatch);
    }
    if tokenizer.vocab_size() > vocab_size {
        return Err(EvalError::Vocabulary { tokenizer: tokenizer.vocab_size(), model: vocab_size });
    }
    if tokens.len() < 2 {
        return Err(EvalError::TooShort(tokens.len()));
    }
    Ok((time, stride))
}

/// Every prediction of some windows; positions are counted from token `lead` on.
fn score(
    model: &Gpt2,
    tokenizer: &Tokenizer,
    tokens: &Tokens,
    group: &[Window],
    lead: usize,
) -> Result<Vec<Vec<TokenScore>>, EvalError> {
    let lens: Vec<usize> = group.iter().map(|window| window.end - window.start).collect();
    let vocab_size = tokenizer.vocab_size();
    let (mut ids, mut targets) = (Vec::new(), Vec::new());
    for window in group {
        let seen = tokens.read(window.start..window.end + 1)?;
        if let Some(at) = seen.iter().position(|&id| id as usize >= vocab_size) {
            return Err(EvalError::TokenOutOfRange {
                id: seen[at],
                position: (window.start + at).saturating_sub(lead),
                vocab_size,
            });
        }
        ids.extend_from_slice(&seen[..seen.len() - 1]);
        targets.extend_from_slice(&seen[1..]);
    }
    let weights = vec![1.0; ids.len()];
    let lens = Some(&lens[..]);
    let batch = Batch { ids: &ids, targets: &targets, weights: &weights, batch: group.len(), lens };
    let scores = model.scores(&batch)?;
    let mut all = (0..).zip(scores.loss.iter().zip(&scores.correct));
    let mut token = |position: usize| {
        let (i, (&loss, &correct)) = all.next().expect("a score for each position");
        TokenScore { position, id: targets[i], loss, correct }
    };
    let positions = |window: &Window| window.start + 1 - lead..window.end + 1 - lead;
    Ok(group.iter().map(|window| positions(window).map(&mut token).collect()).collect())
}

/// What is measured, as far as the text has been read.
#[derive(Default)]
struct Measures {
    loss: Measure,
    accuracy: Measure,
    bits_per_byte: Measure,
    unknown_tokens: usize,
    /// Whether it is not known what text some `<unk>` stands for.
    bytes_unknown: bool,
}

impl Measures {
    /// Positions are those in `text`, which may know what each `<unk>` stands for.
    fn add_window(&mut self, scored: &[TokenScore], tokenizer: &Tokenizer, text: &Tokens) {
        let unk = tokenizer.unknown_token();
        for token in scored {
            let nats = f64::from(token.loss);
            self.loss.add(nats, 1.0);
            self.accuracy.add(f64::from(u8::from(token.correct)), 1.0);
            let mut bytes = text_bytes(tokenizer, token.id);
            if Some(token.id) == unk {
                let replaced = text.unknown_bytes(token.position);
                self.unknown_tokens += 1;
                self.bytes_unknown |= replaced.is_none();
                bytes = replaced.unwrap_or(0);
            }
            self.bits_per_byte.add(nats / LN_2, bytes as f64);
        }
        for measure in [&mut self.loss, &mut self.accuracy, &mut self.bits_per_byte] {
            measure.end_window();
        }
    }

    fn report(&self, windows: usize, context: usize) -> Report {
        let (loss, loss_stderr) = (self.loss.value(), self.loss.stderr());
        let a_byte = |value: f64| if self.bytes_unknown { f64::NAN } else { value };
        Report {
            loss,
            loss_stderr,
            perplexity: loss.exp(),
            perplexity_stderr: loss.exp() * loss_stderr,
            bits_per_byte: a_byte(self.bits_per_byte.value()),
            bits_per_byte_stderr: a_byte(self.bits_per_byte.stderr()),
            accuracy: self.accuracy.value(),
            accuracy_stderr: self.accuracy.stderr(),
            tokens: self.loss.total() as usize,
            unknown_tokens: self.unknown_tokens,
            bytes: (!self.bytes_unknown).then(|| self.bits_per_byte.total() as usize),
            windows,
            context,
        }
    }
}

/// Bytes of text behind a token: none where it starts or ends a text.
fn text_bytes(tokenizer: &Tokenizer, id: u32) -> usize {
    if id == tokenizer.eot() || tokenizer.prefix().contains(&id) {
        0
    } else {
        tokenizer.token_bytes(id).map_or(0, <[u8]>::len)
    }
}

#[cfg(test)]
mod tests;
