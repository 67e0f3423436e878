//! A task under way.

use models::KvCache;

use super::{Event, Overflow, Task, TaskId};
use crate::constraint::Matcher;
use crate::sampling::{Draw, History, Sampler, top_logprobs};
use crate::speculate::Drafter;

/// A task, and how far it has come.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) id: TaskId,
    pub(super) task: Task,
    pub(super) sampler: Sampler,
    pub(super) matcher: Option<Matcher>,
    pub(super) generated: Vec<u32>,
    /// The context: what is in the cache, and what is still to be fed.
    pub(super) window: Vec<u32>,
    pub(super) cache: KvCache,
    /// Blocks that are set aside for it.
    pub(super) need: usize,
    /// Where in the context the logits begin that are wanted while it is read.
    pub(super) wanted: usize,
    pub(super) drafter: Drafter,
    /// What was fed this step beyond the window.
    pub(super) drafts: Vec<u32>,
    /// Tokens fed this step, drafts included, and the rows of logits that were asked for.
    pub(super) fed: usize,
    pub(super) rows: usize,
}

impl Sequence {
    pub(super) fn pending(&self) -> usize {
        self.window.len().saturating_sub(self.cache.len())
    }

    /// Tokens of the context, from its start, whose logits nobody needs: another's keys and values do for them.
    pub(super) fn shareable(&self) -> usize {
        (self.window.len() - 1).min(self.wanted)
    }

    /// Takes in the logits of what was fed; true if the task is done.
    pub(super) fn advance(
        &mut self,
        rows: &mut [f32],
        width: usize,
        n_ctx: usize,
        events: &mut Vec<Event>,
    ) -> bool {
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
pub(super) fn slide(window: &mut Vec<u32>, n_ctx: usize, keep: usize) -> usize {
    if window.len() <= n_ctx {
        return 0;
    }
    let latest = (n_ctx - keep).div_ceil(2);
    let dropped = window.len() - keep - latest;
    window.drain(keep..keep + dropped);
    dropped
}
