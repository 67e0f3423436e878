//! What a run says on its way, and to whom.

use std::path::{Path, PathBuf};

use models::Gpt2;
use serde::Serialize;

use crate::dpo::Rewards;
use crate::state::Before;
use crate::validation::Measured;

/// One optimiser step.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StepReport {
    /// Steps made, this one included.
    pub step: u64,
    /// Steps of the whole run.
    pub max_steps: u64,
    /// Passes over the data, as a fraction.
    pub epoch: f64,
    /// Mean loss of the step's tokens, or pairs, before the update.
    pub loss: f64,
    /// Of the step's pairs, before the update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewards: Option<Rewards>,
    /// Learning rate.
    pub lr: f32,
    /// Length of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens a second.
    pub tok_per_sec: f64,
    /// Floating-point operations a second.
    pub flops_per_sec: f64,
}

/// One validation.
#[derive(Clone, Debug, Serialize)]
pub struct EvalReport {
    /// Steps made.
    pub step: u64,
    /// What was measured.
    pub report: Measured,
    /// Whether the loss is the lowest so far.
    pub best: bool,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Steps made.
    pub step: u64,
    /// Whether it came to its end, rather than being asked to stop.
    pub finished: bool,
    /// Whether it ended because validation had not improved for as long as its patience lasts.
    pub stopped_early: bool,
    /// The model on the whole validation data before the first step, where the settings ask for it.
    pub before: Option<Before>,
    /// The best model on the whole validation data.
    pub val: Option<Measured>,
    /// The lowest validation loss and its step.
    pub best: Option<(f64, u64)>,
    /// Seconds spent training, in all sessions.
    pub seconds: f64,
    /// The plot, if there was something to draw.
    pub plot: Option<PathBuf>,
}

/// Sees what happens.
pub trait Observer {
    /// While the model it starts from scores pairs: how many are done, of how many.
    fn on_prepare(&mut self, _done: usize, _total: usize) {}
    /// After each step.
    fn on_step(&mut self, _report: &StepReport, _model: &Gpt2) {}
    /// After each validation.
    fn on_eval(&mut self, _report: &EvalReport) {}
    /// After the state was saved.
    fn on_save(&mut self, _path: &Path) {}
    /// Whether to save and stop.
    fn should_stop(&mut self) -> bool {
        false
    }
}

impl Observer for () {}

impl StepReport {
    pub(super) fn values(&self) -> Vec<(&'static str, f64)> {
        let mut values = vec![
            ("train/loss", self.loss),
            ("lr", f64::from(self.lr)),
            ("grad_norm", self.grad_norm),
            ("tok_per_sec", self.tok_per_sec),
            ("gflops", self.flops_per_sec / 1e9),
            ("epoch", self.epoch),
        ];
        if let Some(Rewards { accuracy, margin }) = self.rewards {
            values.extend([("rewards/accuracy", accuracy), ("rewards/margin", margin)]);
        }
        values
    }
}
