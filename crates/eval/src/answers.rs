//! Loss and accuracy on the answers of examples, each example by itself, and which of a pair's answers is likelier.
//!
//! Both are means over the answers' tokens of all examples together, as in training. Their standard errors come from
//! how examples differ, or tokens where that is more: `measure.rs` says why. Sums are taken in the order of the
//! examples, so that nothing depends on how many are computed at once.

use data::batches::OwnedBatch;
use data::example::{Example, Pair};
use data::packed::pack;
use models::{Batch, Gpt2, Pass};
use serde::Serialize;
use tensor::Precision;

use crate::EvalError;
use crate::measure::Measure;

/// Tokens computed at once; one example at least.
const TOKENS: usize = 4096;

/// What was measured on answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerReport {
    /// Mean of `-ln p`, in nats a token of an answer.
    pub loss: f64,
    /// Its standard error. This and the other are NaN (in JSON: null) where a single token was predicted.
    pub loss_stderr: f64,
    /// e to the loss.
    pub perplexity: f64,
    /// Share of tokens that were the most likely one.
    pub accuracy: f64,
    /// Its standard error.
    pub accuracy_stderr: f64,
    /// Tokens predicted.
    pub tokens: usize,
    /// Examples that have an answer.
    pub examples: usize,
}

/// The answer of one example.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerScore {
    /// `-ln p` of each token.
    pub losses: Vec<f32>,
    /// Whether each was the most likely.
    pub correct: Vec<bool>,
}

impl AnswerScore {
    /// `ln p` of the whole answer.
    pub fn logprob(&self) -> f64 {
        -self.losses.iter().map(|&loss| f64::from(loss)).sum::<f64>()
    }
}

/// What was measured on pairs. An answer's probability is the product of its tokens'.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairReport {
    /// Share of pairs whose preferred answer is the likelier one.
    pub likelier: f64,
    /// Its standard error, with pairs as units. This and the other are NaN (in JSON: null) for a single pair.
    pub likelier_stderr: f64,
    /// Mean of `ln p(chosen) - ln p(rejected)`.
    pub margin: f64,
    /// Its standard error.
    pub margin_stderr: f64,
    /// Pairs.
    pub pairs: usize,
    /// The preferred answers.
    pub chosen: AnswerReport,
    /// The other answers.
    pub rejected: AnswerReport,
}

/// Scores the answers of examples.
///
/// # Errors
/// If no example has an answer, one does not fit the model, or a loss is not a number; examples are counted from 1.
pub fn evaluate<'a>(
    model: &Gpt2,
    examples: impl IntoIterator<Item = &'a Example>,
) -> Result<AnswerReport, EvalError> {
    let (mut sums, mut number) = (Sums::default(), 0);
    score(model, examples, Precision::F32, &mut |answer| {
        number += 1;
        finite_logprob(&answer, number)?;
        sums.add(&answer);
        Ok(())
    })?;
    sums.report()
}

/// Scores both answers of pairs.
///
/// # Errors
/// Those of [`evaluate`]; pairs are counted from 1.
pub fn evaluate_pairs<'a>(
    model: &Gpt2,
    pairs: impl IntoIterator<Item = &'a Pair>,
) -> Result<PairReport, EvalError> {
    let [mut likelier, mut margin] = [Measure::default(); 2];
    let [mut chosen, mut rejected] = [Sums::default(), Sums::default()];
    score_pairs(model, pairs, &mut |scores, logprobs| {
        let ratio = logprobs[0] - logprobs[1];
        for (measure, value) in [(&mut likelier, f64::from(u8::from(ratio > 0.0))), (&mut margin, ratio)] {
            measure.add(value, 1.0);
            measure.end_window();
        }
        chosen.add(&scores[0]);
        rejected.add(&scores[1]);
    })?;
    Ok(PairReport {
        chosen: chosen.report()?,
        rejected: rejected.report()?,
        likelier: likelier.value(),
        likelier_stderr: likelier.stderr(),
        margin: margin.value(),
        margin_stderr: margin.stderr(),
        pairs: margin.total() as usize,
    })
}

/// `ln p(chosen) - ln p(rejected)` of each pair, in order.
///
/// # Errors
/// If one does not fit the model, or a probability is not a number; pairs are counted from 1.
pub fn log_ratios<'a>(
    model: &Gpt2,
    pairs: impl IntoIterator<Item = &'a Pair>,
    on_pair: &mut dyn FnMut(f64),
) -> Result<(), EvalError> {
    score_pairs(model, pairs, &mut |_, [chosen, rejected]| on_pair(chosen - rejected))
}

/// Hands the scores of each pair's answers to `on_pair`, the preferred one first, with their log-probabilities.
fn score_pairs<'a>(
    model: &Gpt2,
    pairs: impl IntoIterator<Item = &'a Pair>,
    on_pair: &mut dyn FnMut([AnswerScore; 2], [f64; 2]),
) -> Result<(), EvalError> {
    let examples = pairs.into_iter().flat_map(|pair| [&pair.chosen, &pair.rejected]);
    let (mut number, mut chosen) = (1, None);
    score(model, examples, Precision::F32, &mut |answer| {
        let logprob = finite_logprob(&answer, number)?;
        match chosen.take() {
            None => chosen = Some((answer, logprob)),
            Some((first, first_logprob)) => {
                on_pair([first, answer], [first_logprob, logprob]);
                number += 1;
            }
        }
        Ok(())
    })
}

fn finite_logprob(answer: &AnswerScore, example: usize) -> Result<f64, EvalError> {
    let logprob = answer.logprob();
    if logprob.is_finite() {
        Ok(logprob)
    } else {
        Err(EvalError::ExampleNotFinite { example, loss: -logprob })
    }
}

/// Sums over the tokens of answers.
#[derive(Default)]
struct Sums {
    loss: Measure,
    accuracy: Measure,
    answers: usize,
}

impl Sums {
    fn add(&mut self, answer: &AnswerScore) {
        answer.losses.iter().for_each(|&nats| self.loss.add(f64::from(nats), 1.0));
        answer.correct.iter().for_each(|&correct| self.accuracy.add(f64::from(u8::from(correct)), 1.0));
        if !answer.losses.is_empty() {
            self.loss.end_window();
            self.accuracy.end_window();
            self.answers += 1;
        }
    }

    fn report(&self) -> Result<AnswerReport, EvalError> {
        let Sums { loss, accuracy, answers } = self;
        if *answers == 0 {
            return Err(EvalError::NoAnswers);
        }
        Ok(AnswerReport {
            loss: loss.value(),
            loss_stderr: loss.stderr(),
            perplexity: loss.value().exp(),
            accuracy: accuracy.value(),
            accuracy_stderr: accuracy.stderr(),
            tokens: loss.total() as usize,
            examples: *answers,
        })
    }
}

/// Scores every example in order, and hands each to `on_example`; one without an answer has no scores.
pub fn score<'a>(
    model: &Gpt2,
    examples: impl IntoIterator<Item = &'a Example>,
    precision: Precision,
    on_example: &mut dyn FnMut(AnswerScore) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let mut examples = examples.into_iter().map(Example::until_last_answer).peekable();
    while examples.peek().is_some() {
        let (mut group, mut tokens) = (Vec::new(), 0);
        while let Some(example) = examples.next_if(|next| {
            tokens += next.as_ref().map_or(0, |next| next.ids.len());
            group.is_empty() || tokens <= TOKENS
        }) {
            group.push(example);
        }
        let mut scored = score_together(model, &group, precision)?.into_iter();
        for example in &group {
            let none = AnswerScore { losses: Vec::new(), correct: Vec::new() };
            on_example(if example.is_some() { scored.next().unwrap_or(none) } else { none })?;
        }
    }
    Ok(())
}

/// The scores of those examples that have an answer.
fn score_together(
    model: &Gpt2,
    group: &[Option<Example>],
    precision: Precision,
) -> Result<Vec<AnswerScore>, EvalError> {
    let rows: Vec<&Example> = group.iter().flatten().collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let batch = pack(&rows);
    let scores = model.weighted_scores(&view(&batch), Pass::eval().precision(precision))?;
    let answers = |sequence: std::ops::Range<usize>| {
        let kept: Vec<usize> = sequence.filter(|&i| batch.weights[i] != 0.0).collect();
        AnswerScore {
            losses: kept.iter().map(|&i| scores.loss[i]).collect(),
            correct: kept.iter().map(|&i| scores.correct[i]).collect(),
        }
    };
    Ok(batch.sequences().map(answers).collect())
}

/// A batch of data as a model takes it.
pub fn view(batch: &OwnedBatch) -> Batch<'_> {
    let OwnedBatch { ids, targets, weights, batch, lens, .. } = batch;
    Batch { ids, targets, weights, batch: *batch, lens: lens.as_deref() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::{Gpt2Config, Init};

    fn model() -> Gpt2 {
        Gpt2::new(Gpt2Config::new(2, 2, 16, 24, 50), Init::Gpt2, 3).unwrap()
    }

    fn examples() -> Vec<Example> {
        let example = |i: usize| {
            let len = 3 + i * 7 % 20;
            let ids = (0..len).map(|t| ((t * 31 + i * 17) % 50) as u32).collect();
            Example { ids, is_answer: (0..len).map(|t| t > len / 3 && t % 5 != 0).collect() }
        };
        (0..12).map(example).collect()
    }

    fn scores(model: &Gpt2, examples: &[Example]) -> Vec<AnswerScore> {
        let mut all = Vec::new();
        let mut keep = |answer| {
            all.push(answer);
            Ok(())
        };
        score(model, examples, Precision::F32, &mut keep).unwrap();
        all
    }

    #[test]
    fn a_neighbour_changes_no_bit() {
        let (model, examples) = (model(), examples());
        let together = scores(&model, &examples);
        let alone: Vec<AnswerScore> =
            examples.iter().flat_map(|example| scores(&model, std::slice::from_ref(example))).collect();
        assert_eq!(together, alone);
        assert!(together.iter().any(|answer| answer.losses.len() > 5));
    }

    #[test]
    fn the_mean_is_over_the_tokens_of_all_answers() {
        let (model, mut examples) = (model(), examples());
        let losses: Vec<f64> =
            scores(&model, &examples).iter().flat_map(|a| a.losses.clone()).map(f64::from).collect();
        let report = evaluate(&model, &examples).unwrap();
        assert_eq!((report.tokens, report.examples), (losses.len(), 12));
        assert!((report.loss - losses.iter().sum::<f64>() / losses.len() as f64).abs() < 1e-12);
        assert!(report.loss_stderr > 0.0 && report.perplexity == report.loss.exp());
        // A prompt alone adds nothing.
        examples.insert(3, Example { ids: vec![1, 2, 3], is_answer: vec![true, false, false] });
        assert_eq!(evaluate(&model, &examples).unwrap(), report);
    }

    #[test]
    fn a_pair_is_two_answers() {
        let (model, examples) = (model(), examples());
        let pair = |two: &[Example]| Pair { chosen: two[0].clone(), rejected: two[1].clone() };
        let pairs: Vec<Pair> = examples.chunks(2).map(pair).collect();
        let report = evaluate_pairs(&model, &pairs).unwrap();
        let halves = |half: usize| examples.iter().skip(half).step_by(2);
        assert_eq!(report.chosen, evaluate(&model, halves(0)).unwrap());
        assert_eq!(report.rejected, evaluate(&model, halves(1)).unwrap());
        let mut ratios = Vec::new();
        log_ratios(&model, &pairs, &mut |ratio| ratios.push(ratio)).unwrap();
        let logprobs: Vec<f64> = scores(&model, &examples).iter().map(AnswerScore::logprob).collect();
        assert_eq!(ratios, logprobs.chunks(2).map(|two| two[0] - two[1]).collect::<Vec<_>>());
        let share = ratios.iter().filter(|&&ratio| ratio > 0.0).count() as f64 / 6.0;
        assert!(report.likelier == share && share > 0.0 && share < 1.0 && report.pairs == 6, "{report:?}");
        assert!((report.margin - ratios.iter().sum::<f64>() / 6.0).abs() < 1e-12);
        assert!(report.margin_stderr > 0.0 && report.likelier_stderr > 0.0);
        assert!(matches!(evaluate_pairs(&model, &[]), Err(EvalError::NoAnswers)));
    }

    #[test]
    fn what_cannot_be_scored_is_refused() {
        let model = model();
        let answer = |ids: Vec<u32>| Example { is_answer: vec![true; ids.len()], ids };
        assert!(matches!(evaluate(&model, &[]), Err(EvalError::NoAnswers)));
        assert!(matches!(evaluate(&model, &[Example::default()]), Err(EvalError::NoAnswers)));
        assert!(matches!(evaluate(&model, &[answer(vec![1; 26])]), Err(EvalError::Model(_))));
        assert!(evaluate(&model, &[answer(vec![1; 25])]).is_ok());
        assert!(matches!(evaluate(&model, &[answer(vec![1, 50])]), Err(EvalError::Model(_))));
    }
}
