//! The batching core: many sequences share each pass of the model, and none of them can tell.
//!
//! Every step feeds one batch: the next token of each sequence that is writing, and as much of waiting prompts as the
//! step has room for. Sequences come in the order in which they were added, when there are blocks for the whole of
//! what they may become, so that none is ever pushed out or left behind. Their keys and values lie in shared blocks;
//! prompts that begin alike are computed once.
//!
//! A sequence's tokens depend on its own task alone: each row of a batch has the bits that it has by itself, and each
//! draw its own random number.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;

use models::{BLOCK, Gpt2, KvCache, KvPool, ModelError, Pass, Run};
use thiserror::Error;

use crate::constraint::{Constraint, ConstraintError, Matcher};
use crate::sampling::{Draw, History, Sampler, Sampling, SamplingError, TokenLogprobs, top_logprobs};
use crate::speculate::{Drafter, Speculation};

/// What an engine may use.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Sequences that run at once.
    pub batch: usize,
    /// Blocks of 64 positions for keys and values; see [`KvPool`].
    pub blocks: usize,
    /// Tokens of a step, at most; prompts are cut to it.
    pub step_tokens: usize,
    /// Tasks that may wait; more are refused.
    pub queue: usize,
    /// Finished sequences whose keys and values are kept, while there is room, for prompts that begin alike.
    pub kept: usize,
    /// Where drafts come from, which are then checked several at once.
    pub speculation: Speculation,
}

impl EngineSettings {
    /// For `batch` sequences of full length.
    pub fn for_batch(model: &Gpt2, batch: usize) -> EngineSettings {
        let blocks = batch.saturating_mul(KvPool::blocks_for(model.config().n_ctx));
        EngineSettings {
            batch,
            blocks,
            step_tokens: 512,
            queue: usize::MAX,
            kept: 0,
            speculation: Speculation::Off,
        }
    }
}

/// What happens when the context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It does not: what could overflow is refused when it is added.
    #[default]
    Refuse,
    /// The first `keep` tokens and the latest half of the others stay; the rest is forgotten.
    Slide {
        /// Tokens that always stay.
        keep: usize,
    },
}

/// One text to be continued.
#[derive(Clone, Debug)]
pub struct Task {
    /// The text so far, at least one token.
    pub prompt: Vec<u32>,
    /// Tokens to write at most.
    pub max_new: usize,
    /// How they are drawn.
    pub sampling: Sampling,
    /// Whether the prompt's log-probabilities are wanted, with so many of the most likely tokens.
    pub prompt_logprobs: Option<usize>,
    /// The first token of the prompt whose log-probability is wanted; the first of all has none. What stands before it can be
    /// taken from another text that begins alike.
    pub logprobs_from: usize,
    /// What happens when the context is full.
    pub overflow: Overflow,
    /// What the text must be as a whole.
    pub constraint: Option<Arc<Constraint>>,
}

/// A task's number, in the order in which they were added.
pub type TaskId = u64;

/// What came of a step, for one task.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Log-probabilities of the prompt's tokens from the first that was asked for, in order, as far as they are known now.
    Prompt(TaskId, Vec<TokenLogprobs>),
    /// The task runs from now on; so many tokens of its prompt were computed before, for another.
    Started(TaskId, usize),
    /// A token was drawn.
    Token(TaskId, Draw),
    /// The task is done: the token that ended it, or `None` where it has written all it may. A constraint that nothing could
    /// follow ends it without a draw.
    Done(TaskId, Option<Draw>),
    /// So many tokens in the middle of the context were forgotten.
    Slid(TaskId, usize),
    /// The model's numbers were unusable; the task is done.
    Failed(TaskId, SamplingError),
}

/// What an engine refuses.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A task without a prompt.
    #[error("a task needs a prompt of at least one token; start from end-of-text")]
    EmptyPrompt,
    /// A token that the model does not have.
    #[error(
        "token {id} at position {position} of the prompt is out of range: the model has {vocab_size} tokens"
    )]
    TokenOutOfRange {
        /// The token.
        id: u32,
        /// Where it stands.
        position: usize,
        /// Tokens there are.
        vocab_size: usize,
    },
    /// More than the context holds.
    #[error(
        "the prompt has {prompt} tokens and {max_new} more are asked for, but the model's context is {n_ctx}; \
         shorten the one, lower the other, or let the context slide"
    )]
    Context {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        max_new: usize,
        /// Positions of the model.
        n_ctx: usize,
    },
    /// Keeping so much leaves no room to slide.
    #[error("{keep} tokens are to be kept, but the context is {n_ctx}; keep at most {}", .n_ctx.saturating_sub(4))]
    Keep {
        /// Tokens to be kept.
        keep: usize,
        /// Positions of the model.
        n_ctx: usize,
    },
    /// More blocks than there are.
    #[error(
        "the task may need {need} blocks of keys and values, but the budget is {budget}; raise the budget to {need}, \
         or shorten the task"
    )]
    Budget {
        /// Blocks that the task may need.
        need: usize,
        /// Blocks there are.
        budget: usize,
    },
    /// Log-probabilities of no token.
    #[error(
        "log-probabilities are wanted from token {from} of the prompt on, but it has {prompt}; ask for an earlier one"
    )]
    LogprobsFrom {
        /// The first token that was asked for.
        from: usize,
        /// Tokens of the prompt.
        prompt: usize,
    },
    /// No room to wait.
    #[error("{waiting} tasks are waiting already; try again when some are done")]
    QueueFull {
        /// Tasks that wait.
        waiting: usize,
    },
    /// A vocabulary that does not fit the model's.
    #[error("the {what} has {got} tokens, but the model {want}; take both from the same family of models")]
    Vocabulary {
        /// Whose vocabulary.
        what: &'static str,
        /// Its tokens.
        got: usize,
        /// The model's.
        want: usize,
    },
    /// Settings that cannot be met.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A constraint that cannot be met.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The model refused.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Many sequences on one model.
#[derive(Debug)]
pub struct Engine<M: Deref<Target = Gpt2>> {
    model: M,
    vocab_size: usize,
    ends: Vec<u32>,
    settings: EngineSettings,
    pool: KvPool,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    kept: VecDeque<(Vec<u32>, KvCache)>,
    next: TaskId,
}

/// A task under way.
#[derive(Debug)]
struct Sequence {
    id: TaskId,
    task: Task,
    sampler: Sampler,
    matcher: Option<Matcher>,
    generated: Vec<u32>,
    /// The context: what is in the cache, and what is still to be fed.
    window: Vec<u32>,
    cache: KvCache,
    /// Blocks that are set aside for it.
    need: usize,
    /// Where in the context the logits begin that are wanted while it is read.
    wanted: usize,
    drafter: Drafter,
    /// What was fed this step beyond the window.
    drafts: Vec<u32>,
    /// Tokens fed this step, drafts included, and the rows of logits that were asked for.
    fed: usize,
    rows: usize,
}

impl Sequence {
    fn pending(&self) -> usize {
        self.window.len().saturating_sub(self.cache.len())
    }

    /// Tokens of the context, from its start, whose logits nobody needs: another's keys and values do for them.
    fn shareable(&self) -> usize {
        (self.window.len() - 1).min(self.wanted)
    }
}

impl<M: Deref<Target = Gpt2>> Engine<M> {
    /// An engine for texts of this vocabulary, which may be smaller than the model's table. The tokens `ends` end them:
    /// see [`end_tokens`](crate::end_tokens).
    pub fn new(
        model: M,
        vocab_size: usize,
        ends: &[u32],
        settings: EngineSettings,
    ) -> Result<Self, EngineError> {
        let want = model.config().vocab_size;
        if vocab_size > want {
            return Err(EngineError::Vocabulary { what: "tokenizer", got: vocab_size, want });
        }
        if let Speculation::Model { model: draft, .. } = &settings.speculation
            && draft.config().vocab_size != want
        {
            return Err(EngineError::Vocabulary {
                what: "draft model",
                got: draft.config().vocab_size,
                want,
            });
        }
        let pool = KvPool::new(model.config(), model.precision(), settings.blocks);
        let (waiting, running, kept) = (VecDeque::new(), Vec::new(), VecDeque::new());
        let ends = ends.to_vec();
        Ok(Engine { model, vocab_size, ends, settings, pool, waiting, running, kept, next: 0 })
    }

    /// The model.
    pub fn model(&self) -> &Gpt2 {
        &self.model
    }

    /// Adds a task, which starts when there is room.
    pub fn add(&mut self, task: Task) -> Result<TaskId, EngineError> {
        let n_ctx = self.model.config().n_ctx;
        if task.prompt.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        if let Some(position) = task.prompt.iter().position(|&id| id as usize >= self.vocab_size) {
            let (id, vocab_size) = (task.prompt[position], self.vocab_size);
            return Err(EngineError::TokenOutOfRange { id, position, vocab_size });
        }
        if task.logprobs_from >= task.prompt.len() {
            let (from, prompt) = (task.logprobs_from, task.prompt.len());
            return Err(EngineError::LogprobsFrom { from, prompt });
        }
        let whole = task.prompt.len().saturating_add(task.max_new);
        match task.overflow {
            Overflow::Refuse if whole > n_ctx => {
                return Err(EngineError::Context { prompt: task.prompt.len(), max_new: task.max_new, n_ctx });
            }
            Overflow::Slide { keep } if whole > n_ctx && keep > n_ctx.saturating_sub(4) => {
                return Err(EngineError::Keep { keep, n_ctx });
            }
            _ => {}
        }
        let sampler = Sampler::new(&task.sampling, self.vocab_size, &self.ends)?;
        let most = whole.saturating_add(self.settings.speculation.most()).min(n_ctx);
        let need = KvPool::blocks_for(most);
        if need > self.settings.blocks {
            return Err(EngineError::Budget { need, budget: self.settings.blocks });
        }
        if self.waiting.len() >= self.settings.queue {
            return Err(EngineError::QueueFull { waiting: self.waiting.len() });
        }
        let ends = [&self.ends[..], &task.sampling.processors.stop_tokens].concat();
        let matcher = task.constraint.as_ref();
        let matcher = matcher.map(|constraint| Matcher::new(constraint, &ends, task.max_new)).transpose()?;
        let id = self.next;
        self.next += 1;
        let mut window = task.prompt.clone();
        let mut from = task.logprobs_from;
        if let Overflow::Slide { keep } = task.overflow {
            let dropped = slide(&mut window, n_ctx, keep);
            from = from.saturating_sub(dropped).max(from.min(keep));
        }
        // A token's log-probability is in the logits of the one before it.
        let wanted = task.prompt_logprobs.map_or(usize::MAX, |_| from.saturating_sub(1));
        self.waiting.push_back(Sequence {
            id,
            sampler,
            matcher,
            generated: Vec::new(),
            window,
            cache: KvCache::of(&self.pool),
            need,
            wanted,
            drafter: Drafter::new(&self.settings.speculation, || self.model.weight_bytes()),
            drafts: Vec::new(),
            fed: 0,
            rows: 0,
            task,
        });
        Ok(id)
    }

    /// Drops a task, wherever it stands. Says whether it was there. What it has computed is kept as that of one that is done:
    /// a text that ends at a stop string, or that its reader has cut short, is often gone on with.
    pub fn cancel(&mut self, id: TaskId) -> bool {
        let before = self.waiting.len() + self.running.len();
        self.waiting.retain(|sequence| sequence.id != id);
        self.retire(id);
        before > self.waiting.len() + self.running.len()
    }

    /// Whether no task is left.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Tasks that run, and tasks that wait.
    pub fn load(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// Blocks in use, those kept for later prompts included.
    pub fn blocks_used(&self) -> usize {
        self.pool.used()
    }

    /// Blocks set aside for what the running tasks may become; others are free for those that wait.
    pub fn blocks_reserved(&self) -> usize {
        self.running.iter().map(|sequence| sequence.need).sum()
    }

    /// What it may use.
    pub fn settings(&self) -> &EngineSettings {
        &self.settings
    }

    /// Feeds one batch, and tells what came of it.
    pub fn step(&mut self) -> Result<Vec<Event>, EngineError> {
        let mut events = Vec::new();
        self.admit(&mut events);
        self.make_room();
        let Some(mut logits) = self.feed()? else { return Ok(events) };
        let width = logits.cols();
        let rows = logits.data_mut();
        let _span = tensor::timing::start(|| ("draws".into(), 0.0, 4.0 * rows.len() as f64));
        let (mut rest, mut tasks) = (rows, Vec::new());
        for sequence in self.running.iter_mut().filter(|sequence| sequence.fed > 0) {
            let (own, others) = rest.split_at_mut(sequence.rows * width);
            rest = others;
            tasks.push((sequence, own, Vec::new(), false));
        }
        // Draws are many small searches of the vocabulary, each by itself.
        let n_ctx = self.model.config().n_ctx;
        tensor::pool::for_each_chunk_mut(&mut tasks, 1, |_, task| {
            let [(sequence, own, events, done)] = task else { return };
            *done = sequence.advance(own, width, n_ctx, events);
        });
        let mut done = Vec::new();
        for (sequence, _, news, ended) in tasks {
            events.extend(news);
            if ended {
                done.push(sequence.id);
            }
        }
        for id in done {
            self.retire(id);
        }
        Ok(events)
    }

    /// Starts tasks in their order, while there is room for what they may become.
    fn admit(&mut self, events: &mut Vec<Event>) {
        while let Some(first) = self.waiting.front() {
            let reserved = self.blocks_reserved();
            if self.running.len() >= self.settings.batch || reserved + first.need > self.settings.blocks {
                return;
            }
            let (prefix, coming) = self.prefix(&first.window[..=first.shareable()]);
            if coming {
                return; // Another sequence is computing what this one begins with.
            }
            let Some(mut sequence) = self.waiting.pop_front() else { return };
            if let Some(prefix) = prefix {
                sequence.cache = prefix;
            }
            let dropped = sequence.task.prompt.len() - sequence.window.len();
            if dropped > 0 {
                events.push(Event::Slid(sequence.id, dropped));
            }
            events.push(Event::Started(sequence.id, sequence.cache.len()));
            if sequence.task.max_new == 0 && sequence.task.prompt_logprobs.is_none() {
                events.push(Event::Done(sequence.id, None));
            } else {
                self.running.push(sequence);
            }
        }
    }

    /// What is kept of finished texts makes way for those that run. A text that slides back into a block that it shares
    /// takes one of its own, so that this is looked at anew before each step.
    fn make_room(&mut self) {
        let unused = |s: &Sequence| s.cache.missing((s.need * BLOCK).saturating_sub(s.cache.len()));
        while !self.kept.is_empty()
            && self.pool.used() + self.running.iter().map(unused).sum::<usize>() > self.settings.blocks
        {
            self.kept.pop_front();
        }
    }

    /// The longest beginning, in whole blocks, that another sequence has computed; and whether one is about to compute
    /// a longer one.
    fn prefix(&self, window: &[u32]) -> (Option<KvCache>, bool) {
        let most = window.len() - 1; // The last token's logits are needed, and those of what follows.
        let common = |other: &[u32]| {
            let same = window.iter().zip(other).take_while(|(a, b)| a == b).count();
            same.min(most) / BLOCK * BLOCK
        };
        let running = self.running.iter().map(|s| (&s.window[..], &s.cache));
        let all = running.clone().chain(self.kept.iter().map(|(ids, cache)| (&ids[..], cache)));
        let (len, cache) = all
            .map(|(ids, cache)| (common(&ids[..cache.len()]), Some(cache)))
            .fold((0, None), |best, found| if found.0 > best.0 { found } else { best });
        let coming = running
            .map(|(ids, cache)| (common(ids), cache.len()))
            .any(|(same, held)| same > len && held < same);
        (cache.map(|cache| cache.fork(len)), coming)
    }

    /// Builds the step's batch and runs the model; gives the rows of logits that were asked for.
    fn feed(&mut self) -> Result<Option<tensor::Tensor>, EngineError> {
        let n_ctx = self.model.config().n_ctx;
        let mut room = self.settings.step_tokens.max(1);
        for sequence in &mut self.running {
            sequence.drafts.clear();
            (sequence.fed, sequence.rows) = (0, 0);
        }
        let texts = self.running.iter().filter(|sequence| sequence.pending() == 1).count();
        // Sequences that write come first: each needs one token, so that none waits for another's prompt.
        for writing in [true, false] {
            for sequence in &mut self.running {
                let pending = sequence.pending();
                if (pending == 1) != writing || room == 0 {
                    continue;
                }
                let fed = pending.min(room);
                room -= fed;
                if writing {
                    let left = sequence.task.max_new.saturating_sub(sequence.generated.len() + 1);
                    let most = room.min(left).min(n_ctx.saturating_sub(sequence.window.len()));
                    let Sequence { drafter, task, generated, sampler, window, drafts, .. } = sequence;
                    let history = History { prompt: &task.prompt, generated };
                    *drafts =
                        drafter.draft(&self.settings.speculation, window, history, sampler, most, texts)?;
                    room -= sequence.drafts.len();
                }
                sequence.fed = fed + sequence.drafts.len();
                let rows = match sequence.task.prompt_logprobs {
                    Some(_) if sequence.generated.is_empty() => {
                        fed.min((sequence.cache.len() + fed).saturating_sub(sequence.wanted))
                    }
                    _ => usize::from(fed == pending),
                };
                sequence.rows = rows + sequence.drafts.len();
            }
        }
        let (mut ids, mut rows, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        for sequence in self.running.iter_mut().filter(|sequence| sequence.fed > 0) {
            let held = sequence.cache.len();
            let own = sequence.fed - sequence.drafts.len();
            ids.extend_from_slice(&sequence.window[held..held + own]);
            ids.extend_from_slice(&sequence.drafts);
            rows.extend(ids.len() - sequence.rows..ids.len());
            runs.push(Run { cache: &mut sequence.cache, tokens: sequence.fed });
        }
        if ids.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.model.logits_of(&ids, &mut Pass::batch(runs), &rows)?))
    }

    /// Takes a finished sequence out, and keeps what it has computed, if that is wanted.
    fn retire(&mut self, id: TaskId) {
        let Some(at) = self.running.iter().position(|sequence| sequence.id == id) else { return };
        let Sequence { mut window, mut cache, .. } = self.running.remove(at);
        // The last token may not be fed yet; drafts that did not stand may be, where the text ended before them.
        let len = window.len().min(cache.len());
        if self.settings.kept > 0 && len >= BLOCK {
            window.truncate(len);
            cache.truncate(len);
            self.kept.push_back((window, cache));
            if self.kept.len() > self.settings.kept {
                self.kept.pop_front();
            }
        }
    }
}

impl Sequence {
    /// Takes in the logits of what was fed; true if the task is done.
    fn advance(&mut self, rows: &mut [f32], width: usize, n_ctx: usize, events: &mut Vec<Event>) -> bool {
        let mut rows = rows.chunks_exact_mut(width);
        if let (Some(k), true) = (self.task.prompt_logprobs, self.generated.is_empty()) {
            let first = self.cache.len() - self.rows;
            let last = self.window.len() - 1;
            let known = rows.by_ref().take(last.saturating_sub(first).min(self.rows));
            let known = known.zip(&self.window[first + 1..]);
            let known: Vec<_> =
                known.map(|(row, &id)| top_logprobs(&row[..self.sampler.vocab_size()], id, k)).collect();
            events.push(Event::Prompt(self.id, known));
        }
        if self.rows == 0 || self.pending() > 0 {
            return false;
        }
        if self.task.max_new == 0 {
            events.push(Event::Done(self.id, None));
            return true;
        }
        let start = self.window.len();
        let mut kept = 0; // drafts that were what is drawn
        for row in rows {
            let position = (self.task.prompt.len() + self.generated.len()) as u64;
            let history = History { prompt: &self.task.prompt, generated: &self.generated };
            let left = self.task.max_new - self.generated.len();
            let draw = match &mut self.matcher {
                Some(matcher) => matcher.draw(&self.sampler, row, history, position, left),
                None => self.sampler.sample(row, history, position),
            };
            let draw = match draw {
                Ok(draw) => draw,
                Err(error) => {
                    events.push(Event::Failed(self.id, error));
                    return true;
                }
            };
            let id = draw.id;
            if self.sampler.ends(id) {
                events.push(Event::Done(self.id, Some(draw)));
                return true;
            }
            events.push(Event::Token(self.id, draw));
            self.generated.push(id);
            self.window.push(id);
            let is_long = self.generated.len() >= self.task.sampling.processors.min_new_tokens;
            if is_long && self.matcher.as_ref().is_some_and(Matcher::is_over) {
                // Only an end of the text could follow: it need not be drawn.
                let end = self.sampler.end().map(|id| Draw { id, logprobs: None });
                events.push(Event::Done(self.id, end));
                return true;
            }
            if self.generated.len() == self.task.max_new {
                events.push(Event::Done(self.id, None));
                return true;
            }
            if self.drafts.get(kept) != Some(&id) {
                break;
            }
            kept += 1;
        }
        self.drafter.learn(self.drafts.len(), kept);
        self.cache.truncate(start + kept);
        if let Overflow::Slide { keep } = self.task.overflow {
            let dropped = slide(&mut self.window, n_ctx, keep);
            if dropped > 0 {
                self.cache.truncate(keep);
                self.drafter.forget(keep);
                events.push(Event::Slid(self.id, dropped));
            }
        }
        false
    }
}

/// Where the context is more than full: keeps its first `keep` tokens and the latest half of the others. Gives the number
/// of tokens that it drops.
fn slide(window: &mut Vec<u32>, n_ctx: usize, keep: usize) -> usize {
    if window.len() <= n_ctx {
        return 0;
    }
    let latest = (n_ctx - keep).div_ceil(2);
    let dropped = window.len() - keep - latest;
    window.drain(keep..keep + dropped);
    dropped
}

#[cfg(test)]
mod tests;
