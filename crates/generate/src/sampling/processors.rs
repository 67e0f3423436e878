//! What changes logits before a token is chosen: biases, penalties, and tokens that may not come.
//!
//! They look at the text so far. The order is that of transformers' `generate`; the two penalties of OpenAI, which
//! transformers lacks, stand beside its own.

use super::SamplingError;

/// The text so far, as tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct History<'a> {
    /// What was given.
    pub prompt: &'a [u32],
    /// What was written since.
    pub generated: &'a [u32],
}

/// Changes of the logits `x`, in the order in which they are made. Everything is off in [`Processors::NONE`].
#[derive(Clone, Debug, PartialEq)]
pub struct Processors {
    /// Pairs (token, bias): `x += bias`. Minus infinity bans the token (`logit_bias` of OpenAI, `sequence_bias` of
    /// transformers).
    pub logit_bias: Vec<(u32, f32)>,
    /// For each token of prompt and output, once: `x / r` if x is positive, else `x · r` (Keskar et al., 2019, CTRL).
    /// 1 is off.
    pub repetition: f32,
    /// For each token of the output, once: `x -= presence` (OpenAI). From -2 to 2; 0 is off. The prompt does not count.
    pub presence: f32,
    /// For each token of the output: `x -= count · frequency` (OpenAI). From -2 to 2; 0 is off. The prompt does not
    /// count.
    pub frequency: f32,
    /// The three penalties look at the last N tokens of prompt and output together; 0 is all of them.
    pub penalty_window: usize,
    /// No group of n tokens comes twice in prompt and output (Paulus et al., 2017); 0 is off.
    pub no_repeat_ngram: usize,
    /// Sequences of tokens that may not be completed, even where the prompt begins them. Sequences of one token that
    /// ends the text are ignored.
    pub bad_words: Vec<Vec<u32>>,
    /// Until so many tokens are written, none that ends the text may come.
    pub min_new_tokens: usize,
    /// Tokens that end the text, beside the model's own.
    pub stop_tokens: Vec<u32>,
}

impl Processors {
    /// Nothing changes.
    pub const NONE: Processors = Processors {
        logit_bias: Vec::new(),
        repetition: 1.0,
        presence: 0.0,
        frequency: 0.0,
        penalty_window: 0,
        no_repeat_ngram: 0,
        bad_words: Vec::new(),
        min_new_tokens: 0,
        stop_tokens: Vec::new(),
    };

    /// Checks the settings, save that tokens exist.
    pub fn validate(&self) -> Result<(), SamplingError> {
        for (at, &(id, bias)) in self.logit_bias.iter().enumerate() {
            if bias.is_nan() || bias == f32::INFINITY {
                return Err(SamplingError::LogitBias { id, bias });
            }
            if self.logit_bias[..at].iter().any(|&(other, _)| other == id) {
                return Err(SamplingError::TwoBiases(id));
            }
        }
        if !(self.repetition > 0.0 && self.repetition.is_finite()) {
            return Err(SamplingError::Repetition(self.repetition));
        }
        if !(-2.0..=2.0).contains(&self.presence) {
            return Err(SamplingError::Presence(self.presence));
        }
        if !(-2.0..=2.0).contains(&self.frequency) {
            return Err(SamplingError::Frequency(self.frequency));
        }
        if let Some(at) = self.bad_words.iter().position(Vec::is_empty) {
            return Err(SamplingError::EmptyBadWord(at));
        }
        Ok(())
    }

    /// Checks that every token that is named exists.
    fn check_tokens(&self, vocab_size: usize) -> Result<(), SamplingError> {
        let biases = self.logit_bias.iter().map(|&(id, _)| ("logit bias", id));
        let words = self.bad_words.iter().flatten().map(|&id| ("bad words", id));
        let stops = self.stop_tokens.iter().map(|&id| ("stop tokens", id));
        match biases.chain(words).chain(stops).find(|&(_, id)| id as usize >= vocab_size) {
            Some((setting, id)) => Err(SamplingError::TokenOutOfRange { setting, id, vocab_size }),
            None => Ok(()),
        }
    }
}

impl Default for Processors {
    fn default() -> Processors {
        Processors::NONE
    }
}

/// Processors of one vocabulary, checked.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    processors: Processors,
    /// Tokens that end the text.
    ends: Vec<u32>,
    pub vocab_size: usize,
}

impl Rules {
    /// `ends` are the tokens that end every text of the model.
    pub fn new(processors: &Processors, vocab_size: usize, ends: &[u32]) -> Result<Rules, SamplingError> {
        processors.validate()?;
        processors.check_tokens(vocab_size)?;
        let mut processors = processors.clone();
        let ends = [ends, &processors.stop_tokens].concat();
        processors.bad_words.retain(|word| !matches!(word[..], [id] if ends.contains(&id)));
        Ok(Rules { processors, ends, vocab_size })
    }

    /// A token that ends the text: the model's first.
    pub fn end(&self) -> Option<u32> {
        self.ends.first().copied()
    }

    /// Whether the text ends with this token.
    pub fn ends(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// How many different tokens end the text.
    pub fn n_ends(&self) -> usize {
        (0..self.ends.len()).filter(|&at| !self.ends[..at].contains(&self.ends[at])).count()
    }

    /// Makes the changes for the token that follows `history`.
    pub fn apply<'a>(&self, logits: &'a mut [f32], history: History<'_>) -> Edits<'a> {
        let mut edits = Edits { logits, before: Vec::new(), damaged: false };
        let processors = &self.processors;
        for &(id, bias) in &processors.logit_bias {
            edits.change(id, |x| x + bias);
        }
        processors.penalise(&mut edits, history);
        if processors.no_repeat_ngram > 0 || !processors.bad_words.is_empty() {
            let text = [history.prompt, history.generated].concat();
            processors.ban_repeated_ngrams(&mut edits, &text);
            processors.ban_bad_words(&mut edits, &text);
        }
        if history.generated.len() < processors.min_new_tokens {
            self.ends.iter().for_each(|&id| edits.ban(id));
        }
        edits
    }
}

impl Processors {
    fn penalise(&self, edits: &mut Edits<'_>, history: History<'_>) {
        let last = |tokens: &[u32], n: usize| {
            let mut tokens = tokens[tokens.len().saturating_sub(n)..].to_vec();
            tokens.sort_unstable();
            tokens
        };
        let window = if self.penalty_window == 0 { usize::MAX } else { self.penalty_window };
        let generated = last(history.generated, window);
        if self.repetition != 1.0 {
            let prompt = last(history.prompt, window.saturating_sub(history.generated.len()));
            let mut seen = [&prompt[..], &generated].concat();
            seen.sort_unstable();
            seen.dedup();
            let penalise = |x: f32| if x < 0.0 { x * self.repetition } else { x / self.repetition };
            seen.into_iter().for_each(|id| edits.change(id, penalise));
        }
        if self.presence != 0.0 || self.frequency != 0.0 {
            for run in generated.chunk_by(|a, b| a == b) {
                edits.change(run[0], |x| x - run.len() as f32 * self.frequency - self.presence);
            }
        }
    }

    /// A group is completed by the token that followed its beginning before.
    fn ban_repeated_ngrams(&self, edits: &mut Edits<'_>, text: &[u32]) {
        let n = self.no_repeat_ngram;
        if n == 0 || text.len() < n {
            return;
        }
        let beginning = &text[text.len() + 1 - n..];
        for group in text.windows(n).filter(|group| group.starts_with(beginning)) {
            edits.ban(group[n - 1]);
        }
    }

    fn ban_bad_words(&self, edits: &mut Edits<'_>, text: &[u32]) {
        for (last, beginning) in self.bad_words.iter().filter_map(|word| word.split_last()) {
            if text.ends_with(beginning) {
                edits.ban(*last);
            }
        }
    }
}

/// Logits with changes that can be taken back.
#[derive(Debug)]
pub(crate) struct Edits<'a> {
    pub logits: &'a mut [f32],
    before: Vec<(u32, f32)>,
    /// Whether a change met a number that none can be drawn from.
    damaged: bool,
}

impl Edits<'_> {
    /// Tokens beyond the vocabulary, which a prompt may hold, cannot be drawn anyway.
    fn change(&mut self, id: u32, f: impl Fn(f32) -> f32) {
        if let Some(x) = self.logits.get_mut(id as usize) {
            self.damaged |= x.is_nan() || *x == f32::INFINITY;
            self.before.push((id, *x));
            *x = f(*x).min(f32::MAX); // a tiny repetition penalty rewards, but does not overflow
        }
    }

    fn ban(&mut self, id: u32) {
        self.change(id, |_| f32::NEG_INFINITY);
    }

    /// Whether all numbers that were changed were fit to be drawn from.
    pub fn are_sound(&self) -> bool {
        !self.damaged
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        !self.before.is_empty()
    }

    /// Takes the changes back.
    pub fn undo(self) {
        self.before.iter().rev().for_each(|&(id, x)| self.logits[id as usize] = x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits 1, -1, 1, -1 … of 8 tokens, the last of which is end-of-text, after the processors.
    fn process(processors: &Processors, prompt: &[u32], generated: &[u32]) -> Vec<f32> {
        let mut logits: Vec<f32> = (0..8).map(|id| if id % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let before = logits.clone();
        let rules = Rules::new(processors, 8, &[7]).unwrap();
        let edits = rules.apply(&mut logits, History { prompt, generated });
        let after = edits.logits.to_vec();
        edits.undo();
        assert_eq!(logits, before, "taken back");
        after
    }

    const NONE: [usize; 0] = [];

    fn banned(logits: Vec<f32>) -> Vec<usize> {
        (0..logits.len()).filter(|&id| logits[id] == f32::NEG_INFINITY).collect()
    }

    #[test]
    fn repetition_counts_prompt_and_output_once() {
        let twice = Processors { repetition: 2.0, ..Processors::NONE };
        assert_eq!(process(&twice, &[0, 1, 0], &[1, 2, 99]), [0.5, -2.0, 0.5, -1.0, 1.0, -1.0, 1.0, -1.0]);
        let last_two = Processors { penalty_window: 2, ..twice };
        assert_eq!(process(&last_two, &[0, 1], &[2]), [1.0, -2.0, 0.5, -1.0, 1.0, -1.0, 1.0, -1.0]);
        assert_eq!(process(&last_two, &[0, 1], &[2, 4, 4]), [1.0, -1.0, 1.0, -1.0, 0.5, -1.0, 1.0, -1.0]);
    }

    #[test]
    fn presence_and_frequency_count_the_output_alone() {
        let both = Processors { presence: 0.5, frequency: 0.25, ..Processors::NONE };
        assert_eq!(process(&both, &[0, 0, 1], &[2, 2, 3])[..4], [1.0, -1.0, 0.0, -1.75]);
        let last_two = Processors { penalty_window: 2, ..both };
        assert_eq!(process(&last_two, &[0], &[2, 2, 3])[..4], [1.0, -1.0, 0.25, -1.75]);
    }

    #[test]
    fn groups_of_tokens_do_not_come_twice() {
        let after = |n, prompt: &[u32], generated: &[u32]| {
            banned(process(&Processors { no_repeat_ngram: n, ..Processors::NONE }, prompt, generated))
        };
        assert_eq!(after(1, &[1, 2], &[1]), [1, 2]);
        assert_eq!(after(2, &[1, 2, 1], &[3, 1]), [2, 3]);
        assert_eq!(after(3, &[1, 2, 3], &[1, 2]), [3]);
        assert_eq!(after(4, &[1, 2, 3], &[1, 2]), NONE);
        assert_eq!(after(2, &[1], &[]), NONE);
        assert_eq!(after(9, &[1, 2], &[1, 2]), NONE);
    }

    #[test]
    fn bad_words_are_not_completed() {
        let words = vec![vec![1], vec![2, 3], vec![4, 5, 6], vec![7], vec![2, 7]];
        let bad = Processors { bad_words: words, ..Processors::NONE };
        let after = |prompt: &[u32], generated: &[u32]| banned(process(&bad, prompt, generated));
        assert_eq!(after(&[], &[]), [1]);
        assert_eq!(
            after(&[2], &[]),
            [1, 3, 7],
            "end-of-text alone may not be banned, but as the end of a word"
        );
        assert_eq!(after(&[4], &[5]), [1, 6]);
    }

    #[test]
    fn the_text_does_not_end_too_early() {
        let long = Processors { min_new_tokens: 2, stop_tokens: vec![3, 7], ..Processors::NONE };
        let after = |generated: &[u32]| banned(process(&long, &[1, 1, 1], generated));
        assert_eq!(after(&[]), [3, 7]);
        assert_eq!(after(&[1]), [3, 7]);
        assert_eq!(after(&[1, 2]), NONE);
        let rules = Rules::new(&long, 8, &[7]).unwrap();
        assert!(rules.ends(3) && rules.ends(7) && !rules.ends(2));
        assert_eq!((rules.n_ends(), rules.end()), (2, Some(7)));
        let several = Rules::new(&Processors::NONE, 8, &[2, 5]).unwrap();
        assert!(several.ends(2) && several.ends(5) && !several.ends(7));
        assert_eq!((several.n_ends(), several.end()), (2, Some(2)));
    }
}
