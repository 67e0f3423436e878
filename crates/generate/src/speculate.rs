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
/// What one more row costs, as a share of a step of one row: that step reads all weights, and has time to multiply some rows.
const ROW: f32 = 0.125;
/// The share of the latest guess in the estimate of how often guesses hold.
const LATEST: f32 = 0.25;
/// The steps after which guesses are tried again that were not worth their cost, at most.
const PATIENCE: u32 = 64;

/// One sequence's guesses.
///
/// A guess is worth its cost if it is likelier to hold than the time that it takes is to give a token otherwise. The i-th guess
/// in a row holds with a chance of pⁱ, so as many are made as keep it above that; none, where p is low, but for one now and then.
#[derive(Debug)]
pub struct Drafter {
    /// The smaller model's keys and values.
    cache: Option<KvCache>,
    /// What a guess costs before it is checked, as a share of a step of one row.
    price: f32,
    /// How often guesses hold, of late.
    holds: f32,
    /// Steps to wait before the next try of one that is not worth its cost, and how many to wait for after it.
    wait: u32,
    patience: u32,
}

impl Drafter {
    /// A drafter that has guessed nothing yet, for a model that reads so many bytes of weights for a token.
    pub fn new(speculation: &Speculation, weight_bytes: impl FnOnce() -> usize) -> Drafter {
        let (cache, price) = match speculation {
            Speculation::Model { model, .. } => {
                let pool = models::KvPool::new(model.config(), model.precision(), usize::MAX);
                (Some(KvCache::of(&pool)), model.weight_bytes() as f32 / weight_bytes().max(1) as f32)
            }
            _ => (None, 0.0),
        };
        Drafter { cache, price, holds: 0.5, wait: 0, patience: 1 }
    }

    /// At most `most` guesses of what follows `window`, in a step that `texts` sequences share.
    pub fn draft(
        &mut self,
        speculation: &Speculation,
        window: &[u32],
        history: History<'_>,
        sampler: &Sampler,
        most: usize,
        texts: usize,
    ) -> Result<Vec<u32>, ModelError> {
        let most = most.min(speculation.most());
        if most == 0 {
            return Ok(Vec::new());
        }
        let worth = self.worth(most, texts);
        if worth == 0 && self.wait > 0 {
            self.wait -= 1;
            return Ok(Vec::new());
        }
        let most = worth.max(1);
        let drafts = match speculation {
            Speculation::Off => Vec::new(),
            Speculation::Lookup { .. } => look_up(window, most),
            Speculation::Model { model, .. } => self.ask(model, window, history, sampler, most)?,
        };
        if worth > 0 {
            self.patience = 1;
        } else if !drafts.is_empty() {
            self.wait = self.patience;
        }
        Ok(drafts)
    }

    /// How many guesses in a row are worth their cost: at most `most`.
    fn worth(&self, most: usize, texts: usize) -> usize {
        let texts = texts.max(1) as f32;
        // Tokens that the time of a guess would give without it: the more, the more texts share a step.
        let cost = (self.price + ROW) * texts / (1.0 + texts * ROW);
        if self.holds <= cost {
            return 0;
        }
        // The longest run that holds more often than it costs: pⁱ > cost. (A p of 1 makes it infinite, which `as` limits.)
        let run = cost.recip().ln() / self.holds.recip().ln();
        most.min(run as usize).max(1)
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

    /// Remembers how many of the guesses held; the first that did not is the last that says anything.
    pub fn learn(&mut self, guessed: usize, held: usize) {
        for guess in 0..guessed.min(held + 1) {
            let hit = if guess < held { 1.0 } else { 0.0 };
            self.holds += LATEST * (hit - self.holds);
        }
        if held < guessed {
            self.patience = (2 * self.patience).min(PATIENCE);
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

    /// How many guesses are made, and how many rows are checked, in so many steps in which each guess holds with a chance of `chance`.
    fn guesses(chance: f32, most: usize, texts: usize, steps: u64) -> (usize, usize) {
        let mut drafter = Drafter::new(&Speculation::Lookup { most }, || 1);
        let draws = tensor::random::Stream::new(1, 2, 3);
        let (mut tries, mut rows, mut draw) = (0, 0, 0);
        for _ in 0..steps {
            // Four tokens that stand there twice, and what followed them.
            let window: Vec<u32> = [1, 2, 3, 4].into_iter().chain(5..40).chain([1, 2, 3, 4]).collect();
            let history = History { prompt: &window, generated: &[] };
            let sampler = Sampler::new(&crate::Sampling::default(), 50, &[]).expect("a sampler");
            let drafts =
                drafter.draft(&Speculation::Lookup { most }, &window, history, &sampler, most, texts);
            let guessed = drafts.expect("looking up does not fail").len();
            let mut held = 0;
            while held < guessed && draws.uniform(draw) < chance {
                (held, draw) = (held + 1, draw + 1);
            }
            draw += 1;
            drafter.learn(guessed, held);
            (tries, rows) = (tries + usize::from(guessed > 0), rows + guessed);
        }
        (tries, rows)
    }

    #[test]
    fn guesses_that_fail_become_rare_and_short() {
        let (tries, rows) = guesses(0.0, 8, 1, 1000);
        assert!(tries < 30 && rows < 40, "{tries} {rows}");
    }

    #[test]
    fn guesses_that_hold_stay_long() {
        let (tries, rows) = guesses(1.0, 8, 1, 100);
        assert_eq!(tries, 100);
        assert!(rows > 780, "{rows}");
        // However many may be made: the time to find how many are worth it does not grow with them.
        let mut drafter = Drafter::new(&Speculation::Lookup { most: usize::MAX }, || 1);
        for _ in 0..100 {
            drafter.learn(4, 4);
        }
        assert!(drafter.worth(usize::MAX, 1) >= 4);
    }

    #[test]
    fn guesses_that_hold_now_and_then_are_made_for_one_text_and_not_in_a_crowd() {
        let (alone, _) = guesses(0.5, 8, 1, 1000);
        let (crowd, _) = guesses(0.5, 8, 64, 1000);
        assert!(alone > 700 && crowd < 100, "{alone} {crowd}");
    }
}
