//! Extracts: a summary of whole sentences of the text, which the model chooses and does not write, so that it invents nothing.
//!
//! Each sentence s of a document d is scored as if the model had answered with it when it is asked for the summary of d:
//!
//! > score(s) = Σ γᵗ ln p(sₜ | d, s₁ … sₜ₋₁) / Σ γᵗ
//!
//! It is a mean, for a sum is the less the longer a sentence is, in which the first tokens weigh most: they tell whether the
//! model would begin its summary so, where later ones tell how common the words are that the sentence is about. The sentences
//! of a document are one batch on the engine, and the document before them is read once.
//!
//! A document that is longer than the context is cut into parts, as for a summary that is written; the sentences that are
//! chosen from the parts are a shorter document, until one part holds it. Nothing is random.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, Range};

use models::Gpt2;
use serde::Serialize;
use tokenizer::{Tokenizer, sentences};

use super::choose::{Candidate, Most, choose};
use super::parts::{self, Limits};
use super::{Round, SummarizeError, Summary, SummaryEvent, SummarySettings};
use crate::ends::end_tokens;
use crate::engine::{Engine, EngineSettings, Event, Overflow, Task, TaskId};
use crate::request::GenerateError;
use crate::sampling::{Sampling, SamplingError, TokenLogprobs};

/// A sentence of the text that the model chose.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chosen {
    /// Its number among the text's sentences, from 0.
    pub sentence: usize,
    /// Where it stands in the text, in bytes of UTF-8.
    pub bytes: Range<usize>,
    /// Its tokens.
    pub tokens: usize,
    /// What it was chosen by: the mean of `ln p` of its tokens as the summary of what was read, the first ones weighing most.
    pub score: f64,
    /// The mean in which all weigh the same.
    pub logprob: f64,
}

/// γ: how much less each token of a sentence weighs than the one before it. Measured on abstracts: LOG.md.
const FADING: f64 = 0.8;

/// Extracts being made, many at once.
pub struct Extracts<'a, M: Deref<Target = Gpt2>> {
    engine: Engine<M>,
    tokenizer: &'a Tokenizer,
    settings: SummarySettings,
    jobs: BTreeMap<u64, Job>,
    tasks: HashMap<TaskId, Asked>,
}

/// A sentence that is being scored.
struct Asked {
    job: u64,
    part: usize,
    sentence: usize,
    logprobs: Vec<TokenLogprobs>,
    from: usize,
}

/// An extract on its way.
struct Job {
    wording: String,
    text: String,
    /// Tokens of the whole text.
    tokens: usize,
    /// Tokens of a sentence that are scored, at most.
    scored: usize,
    sentences: Vec<Sentence>,
    rounds: Vec<Round>,
    parts: Vec<Part>,
}

/// A sentence of the text.
struct Sentence {
    bytes: Range<usize>,
    /// With the white space behind it.
    piece: Range<usize>,
    tokens: usize,
    score: f64,
    logprob: f64,
}

/// Sentences that are read together.
struct Part {
    tokens: usize,
    sentences: Vec<usize>,
    /// Scores that are still to come.
    waiting: usize,
}

impl<'a, M: Deref<Target = Gpt2>> Extracts<'a, M> {
    /// Extracts of this tokenizer's texts by this model. Of the settings, those of drawing do not matter.
    pub fn new(
        model: M,
        tokenizer: &'a Tokenizer,
        settings: SummarySettings,
        engine: EngineSettings,
    ) -> Result<Self, SummarizeError> {
        settings.check()?;
        // The first sentence of a document may be done before others begin with what was read for it.
        let kept = engine.kept.max(engine.batch);
        let engine = EngineSettings { kept, ..engine };
        let ends = end_tokens(model.config(), tokenizer);
        let engine =
            Engine::new(model, tokenizer.vocab_size(), &ends, engine).map_err(GenerateError::from)?;
        Ok(Extracts { engine, tokenizer, settings, jobs: BTreeMap::new(), tasks: HashMap::new() })
    }

    /// Begins the extract of a text under this number, which no other may have at the time.
    pub fn add(&mut self, id: u64, text: &str) -> Result<(), SummarizeError> {
        if text.trim().is_empty() {
            return Err(SummarizeError::Empty);
        }
        let wording = self.settings.ask.wording(self.settings.instruction.as_deref(), text);
        let (mut sentences, mut candidates) = (Vec::new(), Vec::new());
        let (mut longest, mut at) = (1, 0);
        for piece in sentences::pieces(text) {
            let sentence = piece.trim();
            let start = at + piece.len() - piece.trim_start().len();
            if !sentence.is_empty() {
                let tokens = self.tokenizer.encode(sentence)?.len();
                let (ids, from) = self.settings.ask.answered(self.tokenizer, &wording, "", sentence)?;
                longest = longest.max(ids.len() - from);
                // What the vocabulary has no tokens for has no likelihood.
                candidates.extend((ids.len() > from).then_some(sentences.len()));
                sentences.push(Sentence {
                    bytes: start..start + sentence.len(),
                    piece: at..at + piece.len(),
                    tokens,
                    score: f64::NEG_INFINITY,
                    logprob: f64::NEG_INFINITY,
                });
            }
            at += piece.len();
        }
        if candidates.is_empty() {
            return Err(SummarizeError::Empty);
        }
        let n_ctx = self.engine.model().config().n_ctx;
        let mut job = Job {
            wording,
            text: text.to_owned(),
            tokens: self.tokenizer.encode(text)?.len(),
            scored: longest.min((n_ctx / 4).max(1)),
            rounds: Vec::new(),
            parts: Vec::new(),
            sentences,
        };
        self.begin(id, &mut job, candidates).inspect_err(|_| self.drop_job(id))?;
        self.jobs.insert(id, job);
        Ok(())
    }

    /// Whether all extracts are whole.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Feeds one batch, and tells what came of it.
    pub fn step(&mut self) -> Result<Vec<SummaryEvent>, SummarizeError> {
        let mut events = Vec::new();
        for event in self.engine.step().map_err(GenerateError::from)? {
            match event {
                Event::Prompt(task, known) => {
                    if let Some(asked) = self.tasks.get_mut(&task) {
                        asked.logprobs.extend(known);
                    }
                }
                Event::Done(task, _) => {
                    if let Some(asked) = self.tasks.remove(&task) {
                        self.scored(&asked, &mut events);
                    }
                }
                Event::Failed(task, error) => {
                    if let Some(asked) = self.tasks.remove(&task) {
                        self.fail(asked.job, error.into(), &mut events);
                    }
                }
                Event::Started(..) | Event::Token(..) | Event::Slid(..) => {}
            }
        }
        Ok(events)
    }

    /// A sentence has a score more; where it was the last of its round, the next round begins, or the extract is whole.
    fn scored(&mut self, asked: &Asked, events: &mut Vec<SummaryEvent>) {
        let id = asked.job;
        if let Some(at) = asked.logprobs.iter().position(|token| token.logprob.is_nan()) {
            // What is said of a token lies in the logits before it.
            let position = (asked.from.max(1) + at) as u64 - 1;
            return self.fail(id, SamplingError::Logits { position }.into(), events);
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let sentence = &mut job.sentences[asked.sentence];
        sentence.score = mean(&asked.logprobs, FADING);
        sentence.logprob = mean(&asked.logprobs, 1.0);
        job.parts[asked.part].waiting -= 1;
        if job.parts[asked.part].waiting > 0 {
            return;
        }
        let done = job.parts.iter().filter(|part| part.waiting == 0).count();
        events.push(SummaryEvent::Part(id, done, job.parts.len()));
        if done == job.parts.len()
            && let Some(mut job) = self.jobs.remove(&id)
        {
            match self.end_round(id, &mut job) {
                Ok(Some(summary)) => events.push(SummaryEvent::Done(id, Ok(summary))),
                Ok(None) => _ = self.jobs.insert(id, job),
                Err(error) => self.fail_with(id, error, events),
            }
        }
    }

    /// The extract, if no further round is needed; otherwise that round has begun.
    fn end_round(&mut self, id: u64, job: &mut Job) -> Result<Option<Summary>, SummarizeError> {
        let whole = self.most(job.tokens);
        let read: usize = job.parts.iter().map(|part| part.tokens).sum();
        let mut chosen = Vec::new();
        for part in &job.parts {
            // Each part has its share of the tokens.
            let share = |tokens: usize| (tokens as f64 * part.tokens as f64 / read as f64) as usize;
            let tokens = if whole.tokens == usize::MAX { usize::MAX } else { share(whole.tokens) };
            chosen.extend(job.choose(&part.sentences, Most { tokens, ..whole }));
        }
        chosen.sort_unstable();
        let before: usize = job.parts.iter().map(|part| part.sentences.len()).sum();
        let tokens = chosen.iter().map(|&i| job.sentences[i].tokens).sum();
        if let Some(round) = job.rounds.last_mut() {
            round.written = tokens;
        }
        let is_whole = chosen.len() <= whole.sentences && tokens <= whole.tokens;
        if job.parts.len() == 1 || is_whole {
            return Ok(Some(job.summary(&chosen, false)));
        }
        if chosen.len() == before {
            let chosen = job.choose(&chosen, whole);
            return Ok(Some(job.summary(&chosen, true)));
        }
        self.begin(id, job, chosen)?;
        Ok(None)
    }

    /// Begins a round: these sentences are read, and scored.
    fn begin(&mut self, id: u64, job: &mut Job, candidates: Vec<usize>) -> Result<(), SummarizeError> {
        let (mut document, mut starts) = (String::new(), Vec::new());
        for &i in &candidates {
            let Sentence { piece, bytes, .. } = &job.sentences[i];
            starts.push(document.len() + (bytes.start - piece.start));
            document.push_str(&job.text[piece.clone()]);
        }
        let cut = self.cut(job, &document)?;
        let tokens = self.tokenizer.encode(&document)?.len();
        job.parts.clear();
        for (text, range) in cut.parts.iter().zip(&cut.ranges) {
            let starting = candidates.iter().zip(&starts).filter(|(_, start)| range.contains(start));
            let sentences: Vec<usize> = starting.map(|(&i, _)| i).collect();
            // What goes on with a long sentence begins none.
            if !sentences.is_empty() {
                let tokens = self.tokenizer.encode(text)?.len();
                let waiting = self.ask(id, job, text, &sentences)?;
                job.parts.push(Part { tokens, waiting, sentences });
            }
        }
        let parts = job.parts.len();
        job.rounds.push(Round { parts, tokens, written: 0, split_sentences: cut.split });
        Ok(())
    }

    /// Asks how likely sentences are as the summary of a text. Gives the number of questions.
    fn ask(&mut self, id: u64, job: &Job, text: &str, sentences: &[usize]) -> Result<usize, SummarizeError> {
        for &sentence in sentences {
            let said = &job.text[job.sentences[sentence].bytes.clone()];
            let (mut prompt, from) = self.settings.ask.answered(self.tokenizer, &job.wording, text, said)?;
            prompt.truncate(from.saturating_add(job.scored));
            let task = Task {
                prompt,
                max_new: 0,
                sampling: Sampling::GREEDY,
                prompt_logprobs: Some(0),
                logprobs_from: from,
                overflow: Overflow::Refuse,
                constraint: None,
            };
            let task = self.engine.add(task).map_err(GenerateError::from)?;
            let asked = Asked { job: id, part: job.parts.len(), sentence, logprobs: Vec::new(), from };
            self.tasks.insert(task, asked);
        }
        Ok(sentences.len())
    }

    /// What the extract of a text of so many tokens may have.
    fn most(&self, tokens: usize) -> Most {
        let share = self.settings.ratio.map(|ratio| (ratio * tokens as f64).ceil() as usize);
        Most {
            sentences: self.settings.max_sentences.unwrap_or(usize::MAX),
            tokens: share.into_iter().chain(self.settings.max_tokens).min().unwrap_or(usize::MAX),
        }
    }

    fn cut(&self, job: &Job, document: &str) -> Result<parts::Parts, SummarizeError> {
        let n_ctx = self.engine.model().config().n_ctx;
        let instruction = self.settings.ask.prompt(self.tokenizer, &job.wording, "")?.len();
        let max_tokens = job.scored;
        let Some(room) = n_ctx.checked_sub(instruction + max_tokens).filter(|&room| room > 0) else {
            return Err(SummarizeError::Context { n_ctx, instruction, max_tokens });
        };
        parts::cut(document, &Context { extracts: self, job, n_ctx, room })
    }

    fn fail(&mut self, id: u64, error: GenerateError, events: &mut Vec<SummaryEvent>) {
        self.fail_with(id, error.into(), events);
    }

    fn fail_with(&mut self, id: u64, error: SummarizeError, events: &mut Vec<SummaryEvent>) {
        self.drop_job(id);
        events.push(SummaryEvent::Done(id, Err(error)));
    }

    /// Ends all that is computed for an extract.
    fn drop_job(&mut self, id: u64) {
        self.jobs.remove(&id);
        let tasks = self.tasks.extract_if(|_, asked| asked.job == id);
        for (task, _) in tasks {
            self.engine.cancel(task);
        }
    }
}

impl Job {
    fn choose(&self, sentences: &[usize], most: Most) -> Vec<usize> {
        let candidate = |&i: &usize| {
            let sentence = &self.sentences[i];
            let text = &self.text[sentence.bytes.clone()];
            Candidate { text, tokens: sentence.tokens, score: sentence.score }
        };
        let candidates: Vec<Candidate> = sentences.iter().map(candidate).collect();
        choose(&candidates, most).into_iter().map(|at| sentences[at]).collect()
    }

    fn summary(&self, chosen: &[usize], is_stalled: bool) -> Summary {
        let texts: Vec<&str> = chosen.iter().map(|&i| &self.text[self.sentences[i].bytes.clone()]).collect();
        let chosen = chosen.iter().map(|&i| {
            let sentence = &self.sentences[i];
            Chosen {
                sentence: i,
                bytes: sentence.bytes.clone(),
                tokens: sentence.tokens,
                score: sentence.score,
                logprob: sentence.logprob,
            }
        });
        Summary {
            text: texts.join("\n"),
            rounds: self.rounds.clone(),
            is_cut_off: false,
            is_stalled,
            chosen: chosen.collect(),
        }
    }
}

/// The mean log-probability, where each token weighs so much of what the one before it does; none is unlikely.
fn mean(tokens: &[TokenLogprobs], fading: f64) -> f64 {
    if tokens.is_empty() {
        return f64::NEG_INFINITY;
    }
    let (mut sum, mut all, mut weight) = (0.0, 0.0, 1.0);
    for token in tokens {
        sum += weight * f64::from(token.logprob);
        all += weight;
        weight *= fading;
    }
    sum / all
}

/// What a model reads at once.
struct Context<'s, 'a, M: Deref<Target = Gpt2>> {
    extracts: &'s Extracts<'a, M>,
    job: &'s Job,
    n_ctx: usize,
    room: usize,
}

impl<M: Deref<Target = Gpt2>> Limits for Context<'_, '_, M> {
    fn tokens(&self, text: &str) -> Result<usize, SummarizeError> {
        Ok(self.extracts.tokenizer.encode(text)?.len())
    }

    fn room(&self) -> usize {
        self.room
    }

    fn fits(&self, text: &str) -> Result<bool, SummarizeError> {
        let Extracts { tokenizer, settings, .. } = self.extracts;
        Ok(settings.ask.prompt(tokenizer, &self.job.wording, text)?.len() + self.job.scored <= self.n_ctx)
    }
}

#[cfg(test)]
mod tests;
