//! What a model does, in numbers that any thread may read.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use generate::{Finish, Generation};

use crate::metrics::Times;

/// Counts of one model.
#[derive(Debug, Default)]
pub struct Figures {
    /// Texts that were taken and are not whole yet.
    pub(crate) taken: AtomicUsize,
    /// Requests for vectors that were taken and not answered yet.
    pub(super) embedding: AtomicUsize,
    pub(super) running: AtomicUsize,
    pub(super) blocks_used: AtomicUsize,
    pub(super) blocks: AtomicUsize,
    pub(super) blocks_reserved: AtomicUsize,
    pub(super) prompt_tokens: AtomicU64,
    pub(super) cached_tokens: AtomicU64,
    pub(super) written_tokens: AtomicU64,
    pub(super) finished: [AtomicU64; 5],
    pub(super) failed: AtomicU64,
    pub(super) steps: AtomicU64,
    pub(super) step_micros: AtomicU64,
    pub(super) text_micros: AtomicU64,
    times: Times,
}

/// The ends that are counted, in the order of their counters.
const ENDS: [Finish; 5] = [Finish::Eot, Finish::Stop, Finish::Length, Finish::Context, Finish::Cancelled];

impl Figures {
    /// Texts that are being written.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Texts that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.taken.load(Ordering::Relaxed).saturating_sub(self.running())
    }

    /// Requests for vectors that wait or are worked on.
    pub fn embedding(&self) -> usize {
        self.embedding.load(Ordering::Relaxed)
    }

    /// Blocks of keys and values in use, those kept for later prompts included, and blocks there may be.
    pub fn blocks(&self) -> (usize, usize) {
        (self.blocks_used.load(Ordering::Relaxed), self.blocks.load(Ordering::Relaxed))
    }

    /// Blocks set aside for the texts that are being written.
    pub fn reserved(&self) -> usize {
        self.blocks_reserved.load(Ordering::Relaxed)
    }

    /// What texts took.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// Tokens of prompts of all texts that ended, and those that the desks have read (total); of the texts' those that had been
    /// computed before.
    pub fn prompt_tokens(&self) -> (u64, u64) {
        (self.prompt_tokens.load(Ordering::Relaxed), self.cached_tokens.load(Ordering::Relaxed))
    }

    /// Tokens written (total).
    pub fn written_tokens(&self) -> u64 {
        self.written_tokens.load(Ordering::Relaxed)
    }

    /// Texts that ended (total), by why.
    pub fn finished(&self) -> impl Iterator<Item = (Finish, u64)> {
        ENDS.into_iter().zip(self.finished.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Texts that ended with an error (total).
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Steps of the engine (total), and the time that they took.
    pub fn steps(&self) -> (u64, Duration) {
        let micros = self.step_micros.load(Ordering::Relaxed);
        (self.steps.load(Ordering::Relaxed), Duration::from_micros(micros))
    }

    /// How long a text took lately, from its first step to its last.
    pub(crate) fn text_time(&self) -> Duration {
        Duration::from_micros(self.text_micros.load(Ordering::Relaxed))
    }

    /// Counts a text that ended.
    pub(super) fn end(&self, generation: &Generation) {
        let at = ENDS.iter().position(|end| *end == generation.finish).unwrap_or(0);
        self.finished[at].fetch_add(1, Ordering::Relaxed);
        let timings = &generation.timings;
        self.prompt_tokens.fetch_add(timings.prompt_tokens as u64, Ordering::Relaxed);
        self.cached_tokens.fetch_add(timings.cached_tokens as u64, Ordering::Relaxed);
        self.written_tokens.fetch_add(timings.tokens as u64, Ordering::Relaxed);
        self.times.queue.observe(timings.queue_ms / 1e3);
        if timings.tokens > 0 {
            self.times.first_token.observe(timings.prompt_ms / 1e3);
        }
        if timings.tokens > 1 {
            self.times.token.observe(timings.tokens_per_second.recip());
        }
    }

    /// Counts what a desk has read and written beside the conductor.
    pub(crate) fn add(&self, prompt_tokens: usize, written_tokens: usize) {
        self.prompt_tokens.fetch_add(prompt_tokens as u64, Ordering::Relaxed);
        self.written_tokens.fetch_add(written_tokens as u64, Ordering::Relaxed);
    }

    /// Remembers how long a text took; the last eight or so count.
    pub(super) fn took(&self, time: Duration) {
        let (old, new) = (self.text_micros.load(Ordering::Relaxed), time.as_micros() as u64);
        let mean = if old == 0 { new } else { (7 * old + new) / 8 };
        self.text_micros.store(mean, Ordering::Relaxed);
    }
}
