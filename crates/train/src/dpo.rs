//! Direct preference optimisation: learning from pairs of answers, of which one is preferred (Rafailov et al., 2023).
//!
//! With π the model, π₀ the one it started as, and an answer's probability the product of its tokens', equation 7 is
//! `loss = -ln σ(β Δ)`, `Δ = [ln π(chosen) - ln π₀(chosen)] - [ln π(rejected) - ln π₀(rejected)]`.
//! `β (ln π - ln π₀)` is an answer's reward, and `β Δ` the margin.
//!
//! Its gradient is that of a weighted cross-entropy. With `g = β σ(-β Δ)`, each answer token of the chosen one weighs
//! `+g` and each of the rejected one `-g`. So a step runs the blocks once, the output layer once for Δ, and once more
//! for loss and gradient ([`models::Gpt2::loss_weighted_by`]): for GPT-2 124M a tenth more than a plain step on
//! the same tokens, and more where the vocabulary is a larger part of the model.
//! `ln π₀(chosen) - ln π₀(rejected)` is computed once for every pair, before the first step.
//!
//! Where the model drops out, its margins are noisy, those of π₀ are not: preference tuning is best done without.

use data::batches::OwnedBatch;
use serde::{Deserialize, Serialize};

/// What a run makes smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "name")]
pub enum Objective {
    /// The mean of `-ln p` over the tokens that count.
    #[default]
    Likelihood,
    /// The mean of the loss above over pairs.
    Dpo {
        /// How strongly the model is held to where it started; 0.1 is usual.
        beta: f64,
    },
}

/// What the rewards of some pairs say, as means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rewards {
    /// Share of pairs whose preferred answer has the larger reward.
    pub accuracy: f64,
    /// `β Δ`.
    pub margin: f64,
}

/// Sums over the pairs of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub pairs: f64,
    pub loss: f64,
    pub right: f64,
    pub margin: f64,
}

impl Sums {
    /// Counts a pair of this margin `β Δ`.
    pub fn add(&mut self, margin: f64) {
        self.pairs += 1.0;
        self.loss += loss(margin);
        self.right += f64::from(u8::from(margin > 0.0));
        self.margin += margin;
    }

    pub fn rewards(&self) -> Rewards {
        Rewards { accuracy: self.right / self.pairs, margin: self.margin / self.pairs }
    }
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Sums) {
        self.pairs += other.pairs;
        self.loss += other.loss;
        self.right += other.right;
        self.margin += other.margin;
    }
}

/// `-ln σ(margin)`.
pub(crate) fn loss(margin: f64) -> f64 {
    (-margin.abs()).exp().ln_1p() + (-margin).max(0.0)
}

/// `σ(-margin)`: how far the loss falls as the margin grows.
fn slope(margin: f64) -> f64 {
    1.0 / (1.0 + margin.exp())
}

/// `ln π(chosen) - ln π(rejected)` of each pair of a batch, from the loss of each prediction.
///
/// # Panics
/// If the batch is not of pairs.
pub(crate) fn log_ratios(batch: &OwnedBatch, losses: &[f32]) -> Vec<f64> {
    assert_eq!(2 * batch.examples.len(), batch.batch, "preferences are learnt from pairs");
    let answers = batch.sequences().map(|sequence| {
        let counted = sequence.filter(|&i| batch.weights[i] != 0.0);
        -counted.map(|i| f64::from(losses[i])).sum::<f64>()
    });
    let answers: Vec<f64> = answers.collect();
    answers.chunks_exact(2).map(|pair| pair[0] - pair[1]).collect()
}

/// The weight of each prediction that makes its cross-entropy's gradient that of the loss, and the loss itself.
/// `reference` is what [`log_ratios`] were at the start, for all pairs of the data.
pub(crate) fn weights(batch: &OwnedBatch, losses: &[f32], beta: f64, reference: &[f64]) -> (Vec<f32>, Sums) {
    let mut sums = Sums::default();
    let mut weights = batch.weights.clone();
    let mut sequences = batch.sequences();
    for (ratio, &pair) in log_ratios(batch, losses).into_iter().zip(&batch.examples) {
        let margin = beta * (ratio - reference[pair]);
        sums.add(margin);
        let g = (beta * slope(margin)) as f32;
        for (sign, sequence) in [g, -g].into_iter().zip(&mut sequences) {
            weights[sequence].iter_mut().for_each(|weight| *weight *= sign);
        }
    }
    (weights, sums)
}

#[cfg(test)]
mod tests;
