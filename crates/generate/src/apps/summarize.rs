//! Summaries. A text that is longer than the model's context is cut at the ends of sentences into parts, each is summarised,
//! and the summaries together are summarised again, until one remains. All parts of all texts share the engine's batch.
//!
//! A model with a chat template is asked as it was tuned ([`crate::apps::tasks`]). A base model is given the text and `TL;DR:`
//! (Radford et al., 2019, §3.6: 100 tokens, drawn among the 2 most likely, of which the first 3 sentences count).
//!
//! A summary depends on its own text, settings and number alone, as all texts of the engine do.
//!
//! [`Extracts`] are summaries that invent nothing: sentences of the text itself, which the model chooses.

mod ask;
mod choose;
mod extract;
mod parts;

use std::collections::BTreeMap;
use std::ops::Deref;

use models::Gpt2;
use serde::Serialize;
use thiserror::Error;
use tokenizer::chat::TemplateError;
use tokenizer::{Tokenizer, TokenizerError, sentences};

pub use self::ask::Ask;
pub use self::extract::{Chosen, Extracts};
use self::parts::Limits;
use crate::apps::Usage;
use crate::engine::{EngineSettings, TaskId};
use crate::request::{Finish, GenerateError, Generation, Request, TextEvent, Texts};
use crate::sampling::Sampling;

/// What a summary shall be.
#[derive(Clone, Debug)]
pub struct SummarySettings {
    /// How the model is asked.
    pub ask: Ask,
    /// An instruction in place of the usual one; `{text}` stands for the text.
    pub instruction: Option<String>,
    /// Sentences at most; the first ones of what the model writes.
    pub max_sentences: Option<usize>,
    /// Tokens at most, as a share of the text's.
    pub ratio: Option<f64>,
    /// Tokens at most; without a number and a ratio, 100 or a quarter of the context.
    pub max_tokens: Option<usize>,
    /// How tokens are drawn. Summary number k uses seed + k.
    pub sampling: Sampling,
}

/// Tokens of a summary by default: as in the paper, or a share of the context where that is small.
const MAX_TOKENS: usize = 100;
/// A summary of a part of a text may have at least so many tokens, however small the ratio.
const LEAST_TOKENS: usize = 16;

/// One round: how many parts were summarised, and what they had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Round {
    /// Parts that were read, each by itself.
    pub parts: usize,
    /// Tokens of the text that was read.
    pub tokens: usize,
    /// Tokens of the summaries.
    pub written: usize,
    /// Sentences that were too long to be read at once, and were cut between words.
    pub split_sentences: usize,
}

impl SummarySettings {
    /// Refuses what cannot be.
    pub fn check(&self) -> Result<(), SummarizeError> {
        if let Some(ratio) = self.ratio
            && !(ratio > 0.0 && ratio < 1.0)
        {
            return Err(SummarizeError::Ratio { ratio });
        }
        for (what, n) in [("sentences", self.max_sentences), ("tokens", self.max_tokens)] {
            if n == Some(0) {
                return Err(SummarizeError::Nothing { what });
            }
        }
        Ok(())
    }
}

/// A summary, and how it came about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The summary; empty where the model wrote nothing.
    #[serde(rename = "summary")]
    pub text: String,
    /// The rounds; the first read the whole text.
    pub rounds: Vec<Round>,
    /// Whether the last sentence was cut off because the tokens that it might have were used up.
    pub is_cut_off: bool,
    /// Whether a last round would not have made it shorter, so that the summaries of the parts stand as they are.
    pub is_stalled: bool,
    /// The sentences of an extract; none where the model wrote the summary.
    pub chosen: Vec<Chosen>,
}

/// Why there is no summary.
#[derive(Debug, Error)]
pub enum SummarizeError {
    /// Nothing but white space.
    #[error("the text is empty; there is nothing to summarise")]
    Empty,
    /// A ratio that is none.
    #[error("a summary of {ratio} times the text's length cannot be; take a number above 0 and below 1")]
    Ratio {
        /// What was asked for.
        ratio: f64,
    },
    /// Asked for nothing.
    #[error("a summary of 0 {what} is none; ask for at least 1")]
    Nothing {
        /// `sentences` or `tokens`.
        what: &'static str,
    },
    /// The instruction and the summary leave no place for the text.
    #[error(
        "the model's context of {n_ctx} tokens does not hold the instruction ({instruction} tokens), a summary of \
         {max_tokens} and some of the text; ask for fewer tokens, or shorten the instruction"
    )]
    Context {
        /// Positions of the model.
        n_ctx: usize,
        /// Tokens of the prompt without a text.
        instruction: usize,
        /// Tokens of the summary.
        max_tokens: usize,
    },
    /// Not even one character fits.
    #[error(
        "{room} tokens of the context are left for the text, which do not hold one character of it; ask for a shorter summary"
    )]
    NoRoom {
        /// Tokens left.
        room: usize,
    },
    /// The template refused.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The engine refused.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The tokenizer refused.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// What came of a step.
#[derive(Debug)]
pub enum SummaryEvent {
    /// One more part is summarised, or had come before: number of the summary, parts done, parts of this round.
    Part(u64, usize, usize),
    /// The summary is whole, or cannot be made.
    Done(u64, Result<Summary, SummarizeError>),
}

/// Summaries being written, many at once.
pub struct Summaries<'a, M: Deref<Target = Gpt2>> {
    texts: Texts<'a, M>,
    tokenizer: &'a Tokenizer,
    settings: SummarySettings,
    jobs: BTreeMap<u64, Job>,
    /// The part of a summary that each task writes, and what there is of it.
    tasks: BTreeMap<TaskId, (u64, usize, String)>,
    /// Of the texts that have ended.
    used: Usage,
}

/// A summary on its way.
struct Job {
    wording: String,
    /// Tokens of the whole text.
    tokens: usize,
    rounds: Vec<Round>,
    /// Parts that were begun in all rounds.
    begun: u64,
    written: Vec<Option<Written>>,
}

/// The summary of a part.
struct Written {
    text: String,
    is_cut_off: bool,
    tokens: usize,
}

impl<'a, M: Deref<Target = Gpt2>> Summaries<'a, M> {
    /// Summaries of this tokenizer on this model.
    pub fn new(
        model: M,
        tokenizer: &'a Tokenizer,
        settings: SummarySettings,
        engine: EngineSettings,
    ) -> Result<Self, SummarizeError> {
        settings.check()?;
        let texts = Texts::new(model, tokenizer, engine)?;
        let (jobs, tasks) = (BTreeMap::new(), BTreeMap::new());
        Ok(Summaries { texts, tokenizer, settings, jobs, tasks, used: Usage::default() })
    }

    /// What all summaries have taken so far.
    pub fn used(&self) -> Usage {
        // Tasks begin in their order: those that wait, of which nothing is read yet, are the last.
        let (running, _) = self.texts.engine().load();
        let mut used = self.used;
        for so_far in self.tasks.keys().take(running).filter_map(|&task| self.texts.so_far(task)) {
            used.add(so_far);
        }
        used
    }

    /// Begins the summary of a text under this number, which no other may have at the time.
    pub fn add(&mut self, id: u64, text: &str) -> Result<(), SummarizeError> {
        if text.trim().is_empty() {
            return Err(SummarizeError::Empty);
        }
        let wording = self.settings.ask.wording(self.settings.instruction.as_deref(), text);
        let tokens = self.tokenizer.encode(text)?.len();
        let mut job = Job { wording, tokens, rounds: Vec::new(), begun: 0, written: Vec::new() };
        let parts = self.cut(&job.wording, text)?;
        self.begin(id, &mut job, parts, tokens)?;
        self.jobs.insert(id, job);
        Ok(())
    }

    /// Whether all summaries are whole.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Feeds one batch, and tells what came of it.
    pub fn step(&mut self) -> Result<Vec<SummaryEvent>, SummarizeError> {
        let mut events = Vec::new();
        for event in self.texts.step()? {
            match event {
                TextEvent::Piece(task, piece) => {
                    let Some((.., text)) = self.tasks.get_mut(&task) else { continue };
                    text.push_str(&piece);
                    let enough = self.settings.max_sentences.unwrap_or(usize::MAX);
                    if sentences::sentences(text).count() > enough
                        && let Some(result) = self.texts.cancel(task)
                    {
                        self.part(task, result, &mut events)?;
                    }
                }
                TextEvent::Done(task, Ok(result)) => self.part(task, result, &mut events)?,
                TextEvent::Done(task, Err(error)) => {
                    if let Some((id, ..)) = self.tasks.remove(&task) {
                        self.drop_job(id);
                        events.push(SummaryEvent::Done(id, Err(error.into())));
                    }
                }
                TextEvent::Slid(..) => {}
            }
        }
        Ok(events)
    }

    /// A part is summarised; where it was the last of its round, the next round begins, or the summary is whole.
    fn part(
        &mut self,
        task: TaskId,
        result: Generation,
        events: &mut Vec<SummaryEvent>,
    ) -> Result<(), SummarizeError> {
        let Some((id, part, _)) = self.tasks.remove(&task) else { return Ok(()) };
        self.used.add(&result);
        let written = self.trimmed(&result)?;
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        job.written[part] = Some(written);
        let done = job.written.iter().flatten().count();
        events.push(SummaryEvent::Part(id, done, job.written.len()));
        if done == job.written.len()
            && let Some(mut job) = self.jobs.remove(&id)
        {
            match self.end_round(id, &mut job) {
                Ok(Some(summary)) => events.push(SummaryEvent::Done(id, Ok(summary))),
                Ok(None) => _ = self.jobs.insert(id, job),
                Err(error) => events.push(SummaryEvent::Done(id, Err(error))),
            }
        }
        Ok(())
    }

    /// The summary, if no further round is needed; otherwise that round has begun.
    fn end_round(&mut self, id: u64, job: &mut Job) -> Result<Option<Summary>, SummarizeError> {
        let written: Vec<Written> = std::mem::take(&mut job.written).into_iter().flatten().collect();
        let round = job.rounds.last_mut().expect("a round was begun");
        round.written = written.iter().map(|part| part.tokens).sum();
        let round = *round;
        let is_cut_off = written.last().is_some_and(|part| part.is_cut_off);
        let lines: Vec<&str> =
            written.iter().map(|part| &*part.text).filter(|text| !text.is_empty()).collect();
        let text = lines.join("\n");
        let summary = |rounds: &[Round], text: String, is_stalled| Summary {
            text,
            rounds: rounds.to_vec(),
            is_cut_off,
            is_stalled,
            chosen: Vec::new(),
        };
        let tokens = self.tokenizer.encode(&text)?.len();
        let is_short = self.settings.ratio.is_some_and(|ratio| tokens as f64 <= ratio * job.tokens as f64);
        if round.parts == 1 || lines.len() < 2 || is_short {
            return Ok(Some(summary(&job.rounds, text, false)));
        }
        let parts = self.cut(&job.wording, &text)?;
        if tokens >= round.tokens || parts.parts.len() >= round.parts {
            return Ok(Some(summary(&job.rounds, text, true)));
        }
        self.begin(id, job, parts, tokens)?;
        Ok(None)
    }

    /// Begins a round.
    fn begin(
        &mut self,
        id: u64,
        job: &mut Job,
        parts: parts::Parts,
        tokens: usize,
    ) -> Result<(), SummarizeError> {
        let n = parts.parts.len();
        for (part, text) in parts.parts.iter().enumerate() {
            let request = self.request(id, job, text).inspect_err(|_| self.drop_job(id))?;
            let task = self.texts.add(&request).inspect_err(|_| self.drop_job(id))?;
            job.begun += 1;
            self.tasks.insert(task, (id, part, String::new()));
        }
        job.rounds.push(Round { parts: n, tokens, written: 0, split_sentences: parts.split });
        job.written = std::iter::repeat_with(|| None).take(n).collect();
        Ok(())
    }

    fn request(&self, id: u64, job: &Job, text: &str) -> Result<Request, SummarizeError> {
        let prompt = self.settings.ask.prompt(self.tokenizer, &job.wording, text)?;
        let mut sampling = self.settings.sampling.clone();
        // The first part of text k draws as a text of seed + k does; other parts draw other numbers.
        sampling.seed =
            sampling.seed.wrapping_add(id).wrapping_add(job.begun.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        sampling.processors.stop_tokens.extend(self.settings.ask.end_tokens(self.tokenizer));
        let max_tokens = Some(self.most(self.tokenizer.encode(text)?.len()));
        Ok(Request {
            prompt,
            max_tokens,
            stop: self.settings.ask.stop_strings(),
            sampling,
            ..Request::default()
        })
    }

    /// Ends all that is written for a summary.
    fn drop_job(&mut self, id: u64) {
        self.jobs.remove(&id);
        let tasks: Vec<TaskId> =
            self.tasks.iter().filter(|(_, task)| task.0 == id).map(|(&task, _)| task).collect();
        for task in tasks {
            self.tasks.remove(&task);
            // What has written nothing may not have been read.
            if let Some(result) = self.texts.cancel(task).filter(|result| !result.ids.is_empty()) {
                self.used.add(&result);
            }
        }
    }

    /// What counts of what was written.
    fn trimmed(&self, result: &Generation) -> Result<Written, SummarizeError> {
        let whole = result.text.trim();
        let most = self.settings.max_sentences.unwrap_or(usize::MAX);
        let mut text = sentences::first(whole, most);
        let mut is_cut_off =
            matches!(result.finish, Finish::Length | Finish::Context) && text.len() == whole.len();
        // To a share of the text's length, whole sentences are better than that length exactly.
        let n = sentences::sentences(text).count();
        if is_cut_off && self.settings.ratio.is_some() && n > 1 {
            (text, is_cut_off) = (sentences::first(text, n - 1), false);
        }
        // Not those that were drawn: where drafts hold, more may come before the writing is ended.
        let tokens = self.tokenizer.encode(text)?.len();
        Ok(Written { text: text.to_owned(), is_cut_off, tokens })
    }

    /// Tokens that the summary of a text of so many may have.
    fn most(&self, tokens: usize) -> usize {
        let n_ctx = self.texts.engine().model().config().n_ctx;
        match (self.settings.ratio, self.settings.max_tokens) {
            (Some(ratio), most) => ((ratio * tokens as f64).ceil() as usize)
                .max(LEAST_TOKENS.min(n_ctx / 4))
                .min(most.unwrap_or(usize::MAX)),
            (None, Some(most)) => most,
            (None, None) => MAX_TOKENS.min(n_ctx / 4).max(1),
        }
    }

    fn cut(&self, wording: &str, text: &str) -> Result<parts::Parts, SummarizeError> {
        let n_ctx = self.texts.engine().model().config().n_ctx;
        let instruction = self.settings.ask.prompt(self.tokenizer, wording, "")?.len();
        let max_tokens = self.most(0);
        let Some(room) = n_ctx.checked_sub(instruction.saturating_add(max_tokens)).filter(|&room| room > 0)
        else {
            return Err(SummarizeError::Context { n_ctx, instruction, max_tokens });
        };
        // Where the summary grows with the text: text + ratio · text fit, rounded up.
        let room = match self.settings.ratio {
            Some(ratio) => room.min(((n_ctx - instruction) as f64 / (1.0 + ratio)) as usize),
            None => room,
        };
        parts::cut(text, &Context { summaries: self, wording, n_ctx, room })
    }
}

/// What a model reads at once.
struct Context<'s, 'a, M: Deref<Target = Gpt2>> {
    summaries: &'s Summaries<'a, M>,
    wording: &'s str,
    n_ctx: usize,
    room: usize,
}

impl<M: Deref<Target = Gpt2>> Limits for Context<'_, '_, M> {
    fn tokens(&self, text: &str) -> Result<usize, SummarizeError> {
        Ok(self.summaries.tokenizer.encode(text)?.len())
    }

    fn room(&self) -> usize {
        self.room
    }

    fn fits(&self, text: &str) -> Result<bool, SummarizeError> {
        let summaries = self.summaries;
        let prompt = summaries.settings.ask.prompt(summaries.tokenizer, self.wording, text)?.len();
        Ok(prompt + summaries.most(self.tokens(text)?) <= self.n_ctx)
    }
}

#[cfg(test)]
mod tests;
