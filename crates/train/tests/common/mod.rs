//! What the tests of runs share: settings, an observer that remembers, the bits of the weights.
#![allow(dead_code)] // not every test uses all of it

use models::Gpt2;
use tensor::Precision;
use train::optimizer::{AdamConfig, OptimizerConfig};
use train::schedule::{Decay, Schedule};
use train::{EvalReport, Objective, Observer, Run, StepReport, TrainConfig};

pub fn config(max_steps: u64) -> TrainConfig {
    let adam = AdamConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    TrainConfig {
        batch: 4,
        grad_accum: 1,
        max_steps,
        steps_per_epoch: 10,
        optimizer: OptimizerConfig::AdamW(adam),
        schedule: Schedule { lr: 1e-2, warmup_steps: 5, decay: Decay::Cosine { min_lr: 1e-3 } },
        clip_norm: Some(1.0),
        clip_value: None,
        seed: 3,
        precision: Precision::F32,
        recompute: false,
        eval_interval: 1000,
        eval_tokens: 1_000_000,
        documents: false,
        save_interval: 0,
        objective: Objective::Likelihood,
        eval_first: false,
        patience: None,
    }
}

/// Every weight's bits.
pub fn bits(run: &Run) -> Vec<u32> {
    let parameters = run.model().parameters();
    parameters.iter().flat_map(|(_, tensor)| tensor.data().iter().map(|x| x.to_bits())).collect()
}

/// Keeps losses and validations, and asks to stop after some steps.
#[derive(Default)]
pub struct Watch {
    pub losses: Vec<f64>,
    pub evals: Vec<EvalReport>,
    pub prepared: usize,
    pub stop_after: Option<usize>,
}

impl Observer for Watch {
    fn on_prepare(&mut self, done: usize, _total: usize) {
        self.prepared = done;
    }
    fn on_step(&mut self, report: &StepReport, _: &Gpt2) {
        self.losses.push(report.loss);
    }
    fn on_eval(&mut self, report: &EvalReport) {
        self.evals.push(report.clone());
    }
    fn should_stop(&mut self) -> bool {
        self.stop_after == Some(self.losses.len())
    }
}
