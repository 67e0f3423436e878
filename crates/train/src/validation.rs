//! What a run is judged by: held-out text, or the answers of held-out examples or pairs.

use std::ops::ControlFlow;

use data::example::{Example, Pair};
use data::{Tokens, fingerprint};
use eval::{AnswerReport, EvalError, Measure, Report};
use models::Gpt2;
use serde::Serialize;
use tokenizer::Tokenizer;

use crate::dpo;

/// Held-out data.
#[derive(Clone, Debug)]
pub enum Validation {
    /// Text, of which every token counts.
    Tokens(Tokens),
    /// Examples, of which the answers count.
    Examples(Vec<Example>),
    /// Pairs, judged as preference tuning does.
    Pairs(Vec<Pair>),
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Measured {
    /// On text.
    Text(Report),
    /// On answers.
    Answers(AnswerReport),
    /// On pairs.
    Preferences(PreferenceReport),
}

/// What was measured on pairs: means over them, with standard errors, which are NaN (in JSON: null) for a single pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PreferenceReport {
    /// The loss of [`crate::dpo`].
    pub loss: f64,
    /// Its standard error.
    pub loss_stderr: f64,
    /// Share of pairs whose preferred answer has the larger reward.
    pub accuracy: f64,
    /// Its standard error.
    pub accuracy_stderr: f64,
    /// By how much the preferred answer's reward is larger.
    pub margin: f64,
    /// Its standard error.
    pub margin_stderr: f64,
    /// Pairs.
    pub pairs: usize,
}

impl Measured {
    /// The mean loss.
    pub fn loss(&self) -> f64 {
        match self {
            Measured::Text(report) => report.loss,
            Measured::Answers(report) => report.loss,
            Measured::Preferences(report) => report.loss,
        }
    }

    /// The loss's standard error.
    pub fn loss_stderr(&self) -> f64 {
        match self {
            Measured::Text(report) => report.loss_stderr,
            Measured::Answers(report) => report.loss_stderr,
            Measured::Preferences(report) => report.loss_stderr,
        }
    }

    /// Share of tokens that were the most likely one, or of pairs whose preferred answer has the larger reward.
    pub fn accuracy(&self) -> f64 {
        match self {
            Measured::Text(report) => report.accuracy,
            Measured::Answers(report) => report.accuracy,
            Measured::Preferences(report) => report.accuracy,
        }
    }

    /// Names and values for the log.
    pub(crate) fn values(&self) -> Vec<(&'static str, f64)> {
        let loss = ("val/loss", self.loss());
        match self {
            Measured::Preferences(PreferenceReport { accuracy, margin, .. }) => {
                vec![loss, ("val/rewards/accuracy", *accuracy), ("val/rewards/margin", *margin)]
            }
            _ => vec![loss, ("val/accuracy", self.accuracy())],
        }
    }
}

/// How to judge.
pub(crate) struct Judge<'a> {
    pub tokenizer: &'a Tokenizer,
    pub documents: bool,
    pub beta: f64,
    /// What the start says of the pairs: see [`eval::answers::log_ratios`].
    pub reference: &'a [f64],
}

impl Validation {
    /// Tokens, examples or pairs.
    pub fn len(&self) -> usize {
        match self {
            Validation::Tokens(tokens) => tokens.len(),
            Validation::Examples(examples) => examples.len(),
            Validation::Pairs(pairs) => pairs.len(),
        }
    }

    /// Whether there is nothing to judge by.
    pub fn is_empty(&self) -> bool {
        match self {
            Validation::Tokens(tokens) => tokens.len() < 2,
            _ => self.len() == 0,
        }
    }

    /// A hash of it.
    pub(crate) fn fingerprint(&self) -> data::Result<u64> {
        match self {
            Validation::Tokens(tokens) => fingerprint::of_tokens(fingerprint::NOTHING, tokens),
            Validation::Examples(examples) => Ok(fingerprint::of_examples(examples, 1)),
            Validation::Pairs(pairs) => {
                let rows = pairs.iter().flat_map(|pair| [&pair.chosen, &pair.rejected]);
                Ok(fingerprint::of_examples(rows, 2))
            }
        }
    }

    /// How many from the beginning on have this many tokens together; at least one example, or two tokens of text.
    pub(crate) fn part(&self, tokens: usize) -> usize {
        let fit = |lens: &mut dyn Iterator<Item = usize>| {
            let ends = lens.scan(0, |sum: &mut usize, len| {
                *sum += len;
                Some(*sum)
            });
            ends.take_while(|&end| end <= tokens).count().max(1)
        };
        match self {
            Validation::Tokens(text) => text.len().min(tokens.max(2)),
            Validation::Examples(examples) => fit(&mut examples.iter().map(|example| example.ids.len())),
            Validation::Pairs(pairs) => {
                fit(&mut pairs.iter().map(|pair| pair.chosen.ids.len() + pair.rejected.ids.len()))
            }
        }
    }

    /// Judges by the first `n`.
    ///
    /// # Errors
    /// Those of the evaluation; [`EvalError::Stopped`] where it was to stop before the end.
    pub(crate) fn measure(
        &self,
        model: &Gpt2,
        n: usize,
        judge: &Judge,
        mut should_stop: impl FnMut() -> bool,
    ) -> Result<Measured, EvalError> {
        let mut stopped = false;
        let mut goes_on = || {
            stopped = stopped || should_stop();
            !stopped
        };
        let measured = match self {
            Validation::Tokens(tokens) => {
                let options = eval::Options { documents: judge.documents, ..Default::default() };
                let part = tokens.slice(0..n);
                eval::evaluate(model, judge.tokenizer, &part, options, &mut |_| {
                    if goes_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })
                .map(Measured::Text)
            }
            Validation::Examples(examples) => {
                let examples = examples[..n].iter().take_while(|_| goes_on());
                eval::answers::evaluate(model, examples).map(Measured::Answers)
            }
            Validation::Pairs(pairs) => {
                let pairs = pairs[..n].iter().take_while(|_| goes_on());
                judge.preferences(model, pairs).map(Measured::Preferences)
            }
        };
        if stopped { Err(EvalError::Stopped) } else { measured }
    }
}

impl Judge<'_> {
    fn preferences<'p>(
        &self,
        model: &Gpt2,
        pairs: impl Iterator<Item = &'p Pair>,
    ) -> Result<PreferenceReport, EvalError> {
        let [mut loss, mut right, mut margins] = [Measure::default(); 3];
        let mut reference = self.reference.iter();
        eval::answers::log_ratios(model, pairs, &mut |ratio| {
            let margin = self.beta * (ratio - reference.next().expect("one for each pair"));
            let is_right = f64::from(u8::from(margin > 0.0));
            for (measure, value) in
                [(&mut loss, dpo::loss(margin)), (&mut right, is_right), (&mut margins, margin)]
            {
                measure.add(value, 1.0);
                measure.end_window();
            }
        })?;
        Ok(PreferenceReport {
            loss: loss.value(),
            loss_stderr: loss.stderr(),
            accuracy: right.value(),
            accuracy_stderr: right.stderr(),
            margin: margins.value(),
            margin_stderr: margins.stderr(),
            pairs: loss.total() as usize,
        })
    }
}
