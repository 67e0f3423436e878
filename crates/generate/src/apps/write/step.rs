//! One step: its prompt, and what becomes of each text that the model writes for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokenizer::chat::{ChatTemplate, Message};
use tokenizer::sentences::marked_ends;
use tokenizer::{Decoding, Lang, Tokenizer, TokenizerError, Utf8Stream};

use super::checks::{Checks, Failure};
use super::ending::{End, Found, Lengths};
use super::error::WriteError;
use super::recipe::{Keep, Step};
use super::units::ends_with_sentence;
use crate::constraint::Constraint;
use crate::request::{Finish, Generation, Request};
use crate::sampling::Sampling;

/// What a step has come to.
#[derive(Clone, Debug, Serialize)]
pub struct StepResult {
    /// Its name.
    pub name: String,
    /// The text that is kept.
    pub text: String,
    /// Whether that passes all checks.
    pub passed: bool,
    /// What it becomes in the document.
    pub keep: Keep,
    /// The heading above it there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What the model was given, with its places filled: a message where `chat` holds, else a text to continue.
    pub prompt: String,
    /// Whether it was asked through a chat template.
    pub chat: bool,
    /// Tokens that each text could have at most.
    pub max_tokens: usize,
    /// Whether that is fewer than the recipe says, since the context has no room for more.
    pub is_short_of_room: bool,
    /// The attempt that is kept, counted from 0.
    pub kept: usize,
    /// All attempts, in order.
    pub attempts: Vec<Attempt>,
}

impl StepResult {
    /// The attempt that is kept.
    pub fn best(&self) -> &Attempt {
        &self.attempts[self.kept]
    }
}

/// One text that was written for a step.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    /// The text.
    pub text: String,
    /// The seed of its draws.
    pub seed: u64,
    /// Tokens that the text took, without what its step begins it with.
    pub tokens: usize,
    /// Mean of their log-probabilities, as the model gives them; none for an empty text.
    pub mean_logprob: Option<f64>,
    /// Why it ended.
    pub ended: Ended,
    /// The begun sentence that a limit cut, and that was dropped.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dropped: String,
    /// The checks that it fails.
    pub failed: Vec<Failure>,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The model ended it.
    Eot,
    /// A stop string came.
    Stop,
    /// A line, paragraph or sentence ended, as its step says.
    End,
    /// It had as many words or characters as it may.
    Max,
    /// It had as many tokens as it may.
    MaxTokens,
}

/// A step with its prompt, ready to be written.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    /// The prompt, as tokens.
    ids: Vec<u32>,
    prompt: String,
    chat: bool,
    begin: String,
    title: Option<String>,
    keep: Keep,
    max_tokens: usize,
    min_tokens: usize,
    is_short_of_room: bool,
    stop: Vec<String>,
    end: End,
    lengths: Lengths,
    drop_unfinished: bool,
    sampling: Sampling,
    constraint: Option<Arc<Constraint>>,
    checks: Checks,
}

impl Ready {
    /// Fills a step's prompt, which the recipe's rules have found possible, and finds out whether there is room to go on.
    pub fn new(
        step: &Step,
        lang: Lang,
        values: &BTreeMap<String, String>,
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        constraint: Option<Arc<Constraint>>,
        n_ctx: usize,
    ) -> Result<Ready, WriteError> {
        let fill = |text: &super::Template| text.fill(values).map_err(WriteError::MissingInput);
        let failed = |error: TokenizerError| WriteError::Step {
            step: step.name.clone(),
            error: Box::new(error.into()),
        };
        let template = template.filter(|_| step.chat);
        let asked = step.ask.as_ref().filter(|_| template.is_some()).unwrap_or(&step.prompt);
        let prompt = fill(asked.get(lang))?;
        let begin = fill(step.begin.get(lang))?.trim_end().to_owned();
        let mut sampling = step.sampling.clone();
        let mut stop = step.stop.get(lang).clone();
        let ids = match template {
            Some(template) => {
                sampling.processors.stop_tokens = template.end_tokens(tokenizer);
                stop.extend(template.stop_strings());
                let mut ids = template
                    .prompt(tokenizer, &[Message::new("user", prompt.trim())])
                    .map_err(|error| WriteError::Template { step: step.name.clone(), error })?;
                ids.extend(tokenizer.encode(&begin).map_err(failed)?);
                ids
            }
            // A space at the end would be a token of its own, where the model expects it before the next word.
            None if begin.is_empty() => {
                tokenizer.encode_prompt(prompt.trim_end_matches(' '), false).map_err(failed)?
            }
            None => tokenizer.encode_prompt(&format!("{prompt}{begin}"), false).map_err(failed)?,
        };
        let (length, need) = (ids.len().max(1), step.min_tokens.max(1));
        let room = n_ctx.saturating_sub(length);
        if room < need {
            return Err(WriteError::TooLong { step: step.name.clone(), prompt: length, n_ctx, need });
        }
        Ok(Ready {
            ids,
            chat: template.is_some(),
            prompt,
            begin,
            title: step.title.as_ref().map(|title| fill(title.get(lang))).transpose()?,
            keep: step.keep.clone(),
            max_tokens: step.max_tokens.min(room),
            min_tokens: step.min_tokens,
            is_short_of_room: room < step.max_tokens,
            stop,
            end: step.end,
            lengths: step.lengths(lang),
            drop_unfinished: step.drop_unfinished,
            sampling,
            constraint,
            checks: step.checks(lang, &mut |text| text.fill(values).unwrap_or_default()),
        })
    }

    /// What the engine is asked for an attempt.
    pub fn request(&self, seed: u64) -> Request {
        Request {
            prompt: self.ids.clone(),
            max_tokens: Some(self.max_tokens),
            min_tokens: self.min_tokens,
            stop: self.stop.clone(),
            // Of the drawn tokens alone.
            sampling: Sampling { seed, logprobs: Some(0), ..self.sampling.clone() },
            constraint: self.constraint.clone(),
            ..Request::default()
        }
    }

    /// Where a text ends, of which so much was written; it can be known before the model ends it.
    pub fn end(&self, written: &str, is_whole: bool) -> Option<Found> {
        self.end.find(&format!("{}{written}", self.begin), self.lengths, is_whole)
    }

    /// What a text has become, `written` of which is what the model wrote and `found` the end in it.
    pub fn attempt(
        &self,
        written: &str,
        found: Option<Found>,
        generation: &Generation,
        seed: u64,
        tokenizer: &Tokenizer,
    ) -> Result<Attempt, TokenizerError> {
        let full = format!("{}{written}", self.begin);
        let (cut, ended) = match (found, generation.finish) {
            (Some(Found::Whole(cut)), _) => (cut, Ended::End),
            (Some(Found::Limit(cut)), _) => (cut, Ended::Max),
            (None, Finish::Eot) => (full.len(), Ended::Eot),
            (None, Finish::Stop) => (full.len(), Ended::Stop),
            (None, _) => (full.len(), Ended::MaxTokens),
        };
        let mut text = full[..cut].trim_end();
        let mut dropped = "";
        // A text with a constraint is whole, wherever it ends.
        let is_cut = matches!(ended, Ended::Max | Ended::MaxTokens) && self.constraint.is_none();
        if is_cut && self.drop_unfinished {
            let whole = marked_ends(text, true).last().unwrap_or(text.len());
            (text, dropped) = text.split_at(whole);
        }
        let tokens = self.tokens_of(&text[self.begin.len().min(text.len())..], generation, tokenizer)?;
        let mut failed = self.checks.failures(text.trim(), self.lengths);
        if is_cut && (self.end == End::Line || !ends_with_sentence(text)) {
            failed.push(self.cut_short(ended));
        }
        let logprobs = generation.logprobs.iter().flatten().take(tokens);
        let sum: f64 = logprobs.map(|token| f64::from(token.logprob)).sum();
        Ok(Attempt {
            text: text.trim().to_owned(),
            seed,
            tokens,
            mean_logprob: (tokens > 0).then(|| sum / tokens as f64),
            ended,
            dropped: dropped.trim().to_owned(),
            failed,
        })
    }

    fn cut_short(&self, ended: Ended) -> Failure {
        let Lengths { max, unit, .. } = self.lengths;
        if ended == Ended::Max {
            Failure { check: "max", why: format!("it goes on after {max} {}", unit.name()) }
        } else {
            Failure { check: "max-tokens", why: format!("it goes on after {} tokens", self.max_tokens) }
        }
    }

    /// How many of the tokens that were drawn the kept text is made of.
    fn tokens_of(
        &self,
        text: &str,
        generation: &Generation,
        tokenizer: &Tokenizer,
    ) -> Result<usize, TokenizerError> {
        let mut decoding = match self.constraint {
            Some(_) => Decoding::mid_text(),
            None => tokenizer.decoding_after(&self.ids),
        };
        let mut stream = Utf8Stream::default();
        let (mut tokens, mut bytes) = (0, 0);
        while bytes < text.len() && tokens < generation.ids.len() {
            bytes += stream.push(&tokenizer.decode_next(&mut decoding, generation.ids[tokens])?).len();
            tokens += 1;
        }
        Ok(tokens)
    }

    /// The result of a step, from all attempts: the most likely one of those that pass, or else of those that fail the
    /// fewest checks.
    pub fn choose(self, name: &str, attempts: Vec<Attempt>) -> StepResult {
        let better = |a: &Attempt, b: &Attempt| {
            let likely = |a: &Attempt| a.mean_logprob.unwrap_or(f64::NEG_INFINITY);
            (a.failed.len() < b.failed.len()) || (a.failed.len() == b.failed.len() && likely(a) > likely(b))
        };
        let mut kept = 0;
        for number in 1..attempts.len() {
            if better(&attempts[number], &attempts[kept]) {
                kept = number;
            }
        }
        StepResult {
            name: name.to_owned(),
            text: attempts[kept].text.clone(),
            passed: attempts[kept].failed.is_empty(),
            keep: self.keep,
            title: self.title,
            prompt: self.prompt,
            chat: self.chat,
            max_tokens: self.max_tokens,
            is_short_of_room: self.is_short_of_room,
            kept,
            attempts,
        }
    }
}
