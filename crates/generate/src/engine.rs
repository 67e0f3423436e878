//! The batching core: many sequences share each pass of the model, and none of them can tell.
//!
//! Every step feeds one batch: the next token of each sequence that is writing, and as much of waiting prompts as the
//! step has room for. Sequences come in the order in which they were added, when there are blocks for the whole of
//! what they may become, so that none is ever pushed out or left behind. Their keys and values lie in shared blocks;
//! prompts that begin alike are computed once.
//!
//! A sequence's tokens depend on its own task alone: each row of a batch has the bits that it has by itself, and each
//! draw its own random number.

mod sequence;
mod task;

use std::collections::VecDeque;
use std::ops::Deref;

use models::{BLOCK, Gpt2, KvCache, KvPool, Pass, Run};

use self::sequence::{Sequence, slide};
pub use self::task::{EngineError, EngineSettings, Event, Overflow, Task, TaskId};
use crate::constraint::Matcher;
use crate::sampling::{History, Sampler};
use crate::speculate::{Drafter, Speculation};

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

#[cfg(test)]
mod tests;
