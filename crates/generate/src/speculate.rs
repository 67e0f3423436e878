//! Drafts: guesses of the next tokens, which the model then checks several at once (Leviathan et al., 2023).
//!
//! A draft never changes what is written. At each position the sampler draws from the model's own logits with that
//! position's own random number, and a draft stands only if it is what was drawn. Guesses come from the text itself
//! (the last tokens have stood there before: what followed?), or from a smaller model that draws with the same numbers.

use std::sync::Arc;

use models::{Gpt2, KvCache, ModelError, Pass};

use crate::sampling::{History, Sampler};

/// Where drafts come from.
#[derive(Clone, Debug, Default)]
pub enum Speculation {
    /// Nowhere: one token at a time.
    #[default]
    Off,
    /// From the text so far.
    Lookup {
        /// Tokens to guess at most.
        most: usize,
    },
    /// From a smaller model of the same vocabulary.
    Model {
        /// The model.
        model: Arc<Gpt2>,
        /// Tokens to guess at most.
        most: usize,
    },
}

impl Speculation {
    /// Tokens that are guessed at most.
    pub fn most(&self) -> usize {
        match self {
            Speculation::Off => 0,
            Speculation::Lookup { most } | Speculation::Model { most, .. } => *most,
        }
    }
}

/// The longest and the shortest run of tokens that is looked up.
const RUNS: [usize; 3] = [4, 3, 2];
/// Steps that are waited for after a guess that failed wholly, at most.
const PATIENCE: u32 = 32;

/// One sequence's guesses.
#[derive(Debug, Default)]
pub struct Drafter {
    /// The smaller model's keys and values.
    cache: Option<KvCache>,
    /// Steps to wait before the next guess, and how many were waited for before this one.
    wait: u32,
    waited: u32,
    /// How many to guess: more where guesses hold.
    length: usize,
}

impl Drafter {
    /// A drafter that has guessed nothing yet.
    pub fn new(speculation: &Speculation) -> Drafter {
        let cache = match speculation {
            Speculation::Model { model, .. } => {
                Some(KvCache::of(&models::KvPool::new(model.config(), model.precision(), usize::MAX)))
            }
            _ => None,
        };
        Drafter { cache, length: speculation.most().min(4), ..Drafter::default() }
    }

    /// At most `most` guesses of what follows `window`.
    pub fn draft(
        &mut self,
        speculation: &Speculation,
        window: &[u32],
        history: History<'_>,
        sampler: &Sampler,
        most: usize,
    ) -> Result<Vec<u32>, ModelError> {
        let most = most.min(speculation.most()).min(self.length.max(1));
        if most == 0 {
            return Ok(Vec::new());
        }
        if self.wait > 0 {
            self.wait -= 1;
            return Ok(Vec::new());
        }
        match speculation {
            Speculation::Off => Ok(Vec::new()),
            Speculation::Lookup { .. } => Ok(look_up(window, most)),
            Speculation::Model { model, .. } => self.ask(model, window, history, sampler, most),
        }
    }

    /// Lets the smaller model write on, with the random numbers of the positions.
    fn ask(
        &mut self,
        model: &Gpt2,
        window: &[u32],
        history: History<'_>,
        sampler: &Sampler,
        most: usize,
    ) -> Result<Vec<u32>, ModelError> {
        let Some(cache) = &mut self.cache else { return Ok(Vec::new()) };
        let most = most.min(model.config().n_ctx.saturating_sub(window.len()));
        // What it had guessed beyond the text is wrong, or unknown to be right.
        cache.truncate(window.len() - 1);
        let mut generated = history.generated.to_vec();
        let mut drafts = Vec::new();
        while drafts.len() < most {
            let mut next: Vec<u32> = window[cache.len().min(window.len())..].to_vec();
            next.extend(drafts.last().filter(|_| cache.len() >= window.len()));
            let mut logits = model.last_logits(&next, &mut Pass::cached(cache))?;
            let position = (history.prompt.len() + generated.len()) as u64;
            let history = History { prompt: history.prompt, generated: &generated };
            // A draft model's numbers may be unusable: then there is no guess.
            let Ok(draw) = sampler.sample(&mut logits, history, position) else { break };
            if sampler.ends(draw.id) {
                break;
            }
            drafts.push(draw.id);
            generated.push(draw.id);
        }
        Ok(drafts)
    }

    /// Remembers how many of the guesses held.
    pub fn learn(&mut self, guessed: usize, held: usize) {
        if guessed == 0 {
            return;
        }
        if held == 0 {
            self.wait = (2 * self.waited).clamp(1, PATIENCE);
            self.waited = self.wait;
            self.length = (self.length / 2).max(1);
        } else {
            self.waited = 0;
            self.length = if held == guessed { self.length.saturating_mul(2) } else { held + 1 };
        }
    }

    /// The context keeps only its first `keep` tokens where they are.
    pub fn forget(&mut self, keep: usize) {
        if let Some(cache) = &mut self.cache {
            cache.truncate(keep);
        }
    }
}

/// What followed the last tokens when they stood in the text before; the longest run that did, and its latest place.
fn look_up(window: &[u32], most: usize) -> Vec<u32> {
    for run in RUNS {
        let Some(start) = window.len().checked_sub(run) else { continue };
        let last = &window[start..];
        let before = (0..start).rev().find(|&at| window[at..at + run] == *last);
        if let Some(at) = before {
            return window[at + run..].iter().take(most).copied().collect();
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_place_of_the_longest_run() {
        assert_eq!(look_up(&[1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3], 2), [8, 1]);
        assert_eq!(look_up(&[5, 2, 3, 9, 1, 2, 3, 8, 5, 2, 3], 3), [9, 1, 2]);
        assert!(look_up(&[1, 2, 3], 4).is_empty());
        assert_eq!(look_up(&[7, 7, 7], 4), [7]);
    }

    #[test]
    fn guesses_that_fail_become_rare_and_short() {
        let mut drafter = Drafter::new(&Speculation::Lookup { most: 8 });
        for _ in 0..20 {
            drafter.learn(4, 0);
        }
        assert_eq!((drafter.wait, drafter.length), (PATIENCE, 1));
        drafter.learn(1, 1);
        drafter.learn(2, 2);
        assert_eq!((drafter.waited, drafter.length), (0, 4));
    }

    #[test]
    fn guesses_that_always_hold_stay_long() {
        let mut drafter = Drafter::new(&Speculation::Lookup { most: usize::MAX });
        for _ in 0..100 {
            drafter.learn(4, 4);
            assert!(drafter.length >= 4);
        }
    }
}
