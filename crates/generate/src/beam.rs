//! Beam search: of many texts that are written at once, the most likely ones.
//!
//! A beam is a text that goes on. In each step every beam is continued by every token, and the `num_beams` most likely
//! continuations are the next beams. A continuation by a token that ends the text is finished instead, if it is among
//! the best `num_beams`; its score is the sum of its tokens' log-probabilities over `length ^ length_penalty`
//! (Wu et al., 2016, with the plain power). It is transformers' algorithm, whose texts and scores tests compare.
//!
//! [`BeamSearch`] decides, and never sees a model: [`beam_search`] drives it, with a model or with any other source
//! of logits.

mod cached;

use crate::sampling::{History, Processors, Rules, SamplingError, Scan, largest, log_prob, log_sum_exp};

pub use cached::beam_search_on;

/// What to search for.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamSettings {
    /// Texts that are written at once.
    pub num_beams: usize,
    /// Texts to return, the best first; no more than beams.
    pub num_return: usize,
    /// Scores are divided by the length in tokens to this power: 0 compares the texts' probabilities, 1 their tokens'
    /// mean, more favours long texts.
    pub length_penalty: f64,
    /// When enough is finished.
    pub early_stopping: EarlyStopping,
    /// Tokens to write at most.
    pub max_new_tokens: usize,
    /// Changes of the log-probabilities in each step.
    pub processors: Processors,
}

/// When to stop, once `num_beams` texts are finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// When the best beam, at its present length, scores less than the worst finished text (`False` in transformers).
    #[default]
    Heuristic,
    /// At once (`True`).
    Always,
    /// When no beam can become better than the worst finished text (`"never"`): with a positive length penalty, as if
    /// the best beam reached the greatest length without losing any probability.
    Never,
}

/// A text that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// Its tokens without the prompt; the last may be one that ends it.
    pub ids: Vec<u32>,
    /// Sum of log-probabilities, after processors, over `length ^ length_penalty`.
    pub score: f64,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Feed these tokens, and give their logits to the next step, in this order.
    Continue(Vec<Continuation>),
    /// Nothing: [`BeamSearch::finish`] has the texts.
    Finished,
}

/// A beam of the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// The beam of this step that it continues.
    pub parent: usize,
    /// The token it adds.
    pub token: u32,
}

/// A search, between two steps.
#[derive(Clone, Debug)]
pub struct BeamSearch {
    settings: BeamSettings,
    rules: Rules,
    prompt: Vec<u32>,
    /// Best first. Scores are sums.
    live: Vec<Hypothesis>,
    /// Best first. Scores are divided.
    finished: Vec<Hypothesis>,
}

impl BeamSettings {
    /// Checks the settings, save that tokens exist: [`BeamSearch::new`] checks that too.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let BeamSettings { num_beams: beams, num_return: returns, max_new_tokens: max, .. } = *self;
        if beams == 0 {
            return Err(SamplingError::NoBeams);
        }
        if returns == 0 || returns > beams {
            return Err(SamplingError::Returns { returns, beams });
        }
        if !self.length_penalty.is_finite() {
            return Err(SamplingError::LengthPenalty(self.length_penalty));
        }
        if max == 0 {
            return Err(SamplingError::NoNewTokens);
        }
        if self.processors.min_new_tokens > max {
            return Err(SamplingError::MinBeyondMax { min: self.processors.min_new_tokens, max });
        }
        self.processors.validate()
    }
}

impl BeamSearch {
    /// A search for continuations of `prompt`, in a vocabulary of which the tokens `ends` end a text. There is one live beam
    /// at first, the prompt.
    pub fn new(
        settings: &BeamSettings,
        prompt: &[u32],
        vocab_size: usize,
        ends: &[u32],
    ) -> Result<BeamSearch, SamplingError> {
        settings.validate()?;
        let rules = Rules::new(&settings.processors, vocab_size, ends)?;
        let live = vec![Hypothesis { ids: Vec::new(), score: 0.0 }];
        Ok(BeamSearch {
            settings: settings.clone(),
            rules,
            prompt: prompt.to_vec(),
            live,
            finished: Vec::new(),
        })
    }

    /// The tokens of each live beam, without the prompt, in the order in which [`BeamSearch::step`] takes logits.
    pub fn live(&self) -> impl Iterator<Item = &[u32]> {
        self.live.iter().map(|beam| &beam.ids[..])
    }

    /// Takes the logits that follow each live beam.
    ///
    /// # Panics
    /// If there are not as many rows as live beams, or fewer logits in one than tokens.
    pub fn step(&mut self, logits: &[&[f32]]) -> Result<Step, SamplingError> {
        assert_eq!(logits.len(), self.live.len(), "one row of logits for each live beam");
        let candidates = self.candidates(logits)?;
        let length = self.live.first().map_or(0, |beam| beam.ids.len()) + 1;
        let is_last = length == self.settings.max_new_tokens;
        let mut live = Vec::new();
        let mut next = Vec::new();
        for (rank, Candidate { score, parent, token }) in candidates.into_iter().enumerate() {
            let continued = || [&self.live[parent].ids[..], &[token]].concat();
            let ends = is_last || self.rules.ends(token);
            if ends && rank < self.settings.num_beams {
                self.finished.push(Hypothesis { ids: continued(), score: self.divided(score, length) });
            } else if !ends && live.len() < self.settings.num_beams {
                live.push(Hypothesis { ids: continued(), score });
                next.push(Continuation { parent, token });
            }
        }
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(self.settings.num_beams);
        self.live = live;
        if self.can_improve(length) { Ok(Step::Continue(next)) } else { Ok(Step::Finished) }
    }

    /// The texts found so far, the best first. Before the end, they may be fewer than asked for.
    pub fn finish(mut self) -> Vec<Hypothesis> {
        self.finished.truncate(self.settings.num_return);
        self.finished
    }

    /// The best continuations of all beams, in falling order (equals by beam, then by token): so many that `num_beams`
    /// of them go on, even if each beam could end in every way.
    fn candidates(&self, logits: &[&[f32]]) -> Result<Vec<Candidate>, SamplingError> {
        let most = (1 + self.rules.n_ends()).saturating_mul(self.settings.num_beams);
        let mut candidates = Vec::new();
        for (parent, (beam, logits)) in self.live.iter().zip(logits).enumerate() {
            let mut log_probs = self.log_probs(logits, &beam.ids)?;
            let history = History { prompt: &self.prompt, generated: &beam.ids };
            let edits = self.rules.apply(&mut log_probs, history);
            let Some(scan) = Scan::new(edits.logits) else { continue };
            let best = largest(&scan, most, 0.0).into_iter().filter(|(_, log_prob)| log_prob.is_finite());
            candidates.extend(best.map(|(token, log_prob)| Candidate {
                score: beam.score + f64::from(log_prob),
                parent,
                token,
            }));
        }
        if candidates.is_empty() && self.finished.is_empty() {
            let length = self.live.first().map_or(0, |beam| beam.ids.len());
            return Err(SamplingError::NothingLeft { position: (self.prompt.len() + length) as u64 });
        }
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        candidates.truncate(most);
        Ok(candidates)
    }

    fn log_probs(&self, logits: &[f32], ids: &[u32]) -> Result<Vec<f32>, SamplingError> {
        let logits = &logits[..self.rules.vocab_size];
        let most = Scan::new(logits).map(|scan| scan.most).filter(|most| most.is_finite());
        let position = (self.prompt.len() + ids.len()) as u64;
        let shift = log_sum_exp(logits, most.ok_or(SamplingError::Logits { position })?);
        Ok(logits.iter().map(|&logit| log_prob(logit, shift)).collect())
    }

    fn divided(&self, score: f64, length: usize) -> f64 {
        score / (length as f64).powf(self.settings.length_penalty)
    }

    /// Whether a beam may still become better than the worst finished text.
    fn can_improve(&self, length: usize) -> bool {
        let (Some(best), full) = (self.live.first(), self.finished.len() >= self.settings.num_beams) else {
            return false;
        };
        let Some(worst) = self.finished.last().filter(|_| full) else { return true };
        let best = match self.settings.early_stopping {
            EarlyStopping::Always => return false,
            EarlyStopping::Never if self.settings.length_penalty > 0.0 => {
                self.divided(best.score, self.settings.max_new_tokens)
            }
            _ => self.divided(best.score, length),
        };
        best > worst.score
    }
}

struct Candidate {
    score: f64,
    parent: usize,
    token: u32,
}

/// Runs a search to its end. `logits_of` is given the whole text of each live beam, with the prompt, and gives the
/// logits after each; it is the plain driver, which says what others must give.
pub fn beam_search<E: From<SamplingError>>(
    mut search: BeamSearch,
    mut logits_of: impl FnMut(&[Vec<u32>]) -> Result<Vec<Vec<f32>>, E>,
) -> Result<Vec<Hypothesis>, E> {
    loop {
        let texts: Vec<Vec<u32>> = search.live().map(|ids| [&search.prompt[..], ids].concat()).collect();
        let logits = logits_of(&texts)?;
        let rows: Vec<&[f32]> = logits.iter().map(|row| &row[..]).collect();
        if search.step(&rows)? == Step::Finished {
            return Ok(search.finish());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(num_beams: usize) -> BeamSettings {
        BeamSettings {
            num_beams,
            num_return: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Heuristic,
            max_new_tokens: 3,
            processors: Processors::NONE,
        }
    }

    /// Logits over 5 tokens, the last of which is end-of-text, that depend on the whole text.
    fn logits_of(texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, SamplingError> {
        let row = |text: &Vec<u32>| {
            let seed = text.iter().fold(7, |seed: u64, &id| seed * 31 + u64::from(id));
            let random = tensor::random::Stream::new(seed, 0, 0);
            (0..5).map(|i| 2.0 * random.normal(i)).collect()
        };
        Ok(texts.iter().map(row).collect())
    }

    fn search(settings: &BeamSettings) -> Vec<Hypothesis> {
        beam_search(BeamSearch::new(settings, &[1, 2], 5, &[4]).unwrap(), logits_of).unwrap()
    }

    /// Every text of at most three tokens, by falling score.
    fn all_texts(length_penalty: f64) -> Vec<Hypothesis> {
        let mut open = vec![Hypothesis { ids: vec![], score: 0.0 }];
        let mut done = Vec::new();
        for length in 1..=3 {
            for text in std::mem::take(&mut open) {
                let whole = [&[1, 2][..], &text.ids].concat();
                let logits = logits_of(&[whole]).unwrap().remove(0);
                let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
                for token in 0..5 {
                    let ids = [&text.ids[..], &[token]].concat();
                    let score = text.score + f64::from(logits[token as usize]) - total.ln();
                    if token == 4 || length == 3 {
                        done.push(Hypothesis { ids, score: score / f64::from(length).powf(length_penalty) });
                    } else {
                        open.push(Hypothesis { ids, score });
                    }
                }
            }
        }
        done.sort_by(|a, b| b.score.total_cmp(&a.score));
        done
    }

    #[test]
    fn with_enough_beams_it_finds_the_best_texts_there_are() {
        for length_penalty in [0.0, 1.0] {
            let wide = BeamSettings {
                num_return: 10,
                length_penalty,
                early_stopping: EarlyStopping::Never,
                ..settings(100)
            };
            let (got, want) = (search(&wide), all_texts(length_penalty));
            assert_eq!(got.len(), 10);
            for (got, want) in got.iter().zip(&want) {
                assert_eq!(got.ids, want.ids);
                assert!((got.score - want.score).abs() < 1e-5, "{got:?}, want {want:?}");
            }
        }
    }

    #[test]
    fn one_beam_is_greedy() {
        let mut text = vec![1, 2];
        while text.len() < 5 && text.last() != Some(&4) {
            let logits = logits_of(std::slice::from_ref(&text)).unwrap().remove(0);
            text.push(tensor::rows::argmax(&logits) as u32);
        }
        assert_eq!(search(&settings(1))[0].ids, text[2..]);
    }

    #[test]
    fn a_step_names_its_parents() {
        let mut search = BeamSearch::new(&settings(2), &[], 3, &[2]).unwrap();
        let step = search.step(&[&[1.0, 2.0, -9.0]]).unwrap();
        let next = |parent, token| Continuation { parent, token };
        assert_eq!(step, Step::Continue(vec![next(0, 1), next(0, 0)]));
        let step = search.step(&[&[0.0, 0.1, -9.0], &[9.0, 0.0, -9.0]]).unwrap();
        assert_eq!(step, Step::Continue(vec![next(0, 1), next(0, 0)]), "0.73 / 2 is more than 0.27");
        assert_eq!(search.live().collect::<Vec<_>>(), [[1, 1], [1, 0]]);
    }

    #[test]
    fn with_a_negative_length_penalty_a_beam_is_best_where_it_is() {
        let patient = BeamSettings {
            num_return: 2,
            length_penalty: -1.0,
            early_stopping: EarlyStopping::Never,
            max_new_tokens: 10,
            ..settings(2)
        };
        let search = BeamSearch::new(&patient, &[], 3, &[2]).unwrap();
        let logits = |texts: &[Vec<u32>]| {
            let probs = |text: &Vec<u32>| match text[..] {
                [] => [0.6, 0.3, 0.1],
                [0] => [0.7, 0.05, 0.25],
                [0, 0] => [0.6, 0.05, 0.35],
                [0, 0, 0] => [0.005, 0.005, 0.99],
                _ => [0.33, 0.33, 0.34],
            };
            let rows = texts.iter().map(|text| probs(text).map(f32::ln).to_vec());
            Ok::<Vec<Vec<f32>>, SamplingError>(rows.collect())
        };
        let got = beam_search(search, logits).unwrap();
        let ids: Vec<_> = got.into_iter().map(|hypothesis| hypothesis.ids).collect();
        // [0, 0, 2] was second when the second text ended, and [0, 0, 0] could not have won at ten tokens.
        assert_eq!(ids, [vec![0, 2], vec![0, 0, 0, 2]]);
    }

    #[test]
    fn settings_outside_their_ranges_are_refused() {
        let refused = |settings: BeamSettings| BeamSearch::new(&settings, &[1], 5, &[4]).unwrap_err();
        assert_eq!(refused(settings(0)), SamplingError::NoBeams);
        for returns in [0, 3] {
            let error = refused(BeamSettings { num_return: returns, ..settings(2) });
            assert_eq!(error, SamplingError::Returns { returns, beams: 2 });
        }
        for length_penalty in [f64::NAN, f64::INFINITY] {
            let error = refused(BeamSettings { length_penalty, ..settings(2) });
            assert!(matches!(error, SamplingError::LengthPenalty(_)));
        }
        assert_eq!(refused(BeamSettings { max_new_tokens: 0, ..settings(2) }), SamplingError::NoNewTokens);
        let processors = Processors { min_new_tokens: 4, ..Processors::NONE };
        let error = refused(BeamSettings { processors, ..settings(2) });
        assert_eq!(error, SamplingError::MinBeyondMax { min: 4, max: 3 });
        let processors = Processors { stop_tokens: vec![5], ..Processors::NONE };
        let error = refused(BeamSettings { processors, ..settings(2) });
        assert!(matches!(error, SamplingError::TokenOutOfRange { id: 5, .. }));
    }

    #[test]
    fn damaged_logits_and_nothing_left_are_errors() {
        let mut damaged = BeamSearch::new(&settings(2), &[1], 2, &[1]).unwrap();
        assert_eq!(damaged.step(&[&[0.0, f32::NAN]]), Err(SamplingError::Logits { position: 1 }));
        let processors = Processors { bad_words: vec![vec![0]], min_new_tokens: 1, ..Processors::NONE };
        let mut banned = BeamSearch::new(&BeamSettings { processors, ..settings(2) }, &[1], 2, &[1]).unwrap();
        assert_eq!(banned.step(&[&[0.0, 0.0]]), Err(SamplingError::NothingLeft { position: 1 }));
    }
}
