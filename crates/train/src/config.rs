//! What a run is made of, with every default filled, and what it will cost.

use models::{Gpt2, Gpt2Config, LoraConfig};
use serde::{Deserialize, Serialize};
use tensor::Precision;

use crate::dpo::Objective;
use crate::optimizer::{AdamConfig, OptimizerConfig};
use crate::schedule::{Decay, Schedule};
use crate::{Result, TrainError};

/// Settings of a run, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Sequences computed at once.
    pub batch: usize,
    /// Batches whose gradients are summed for one step.
    pub grad_accum: usize,
    /// Optimiser steps.
    pub max_steps: u64,
    /// Steps in one pass over the data.
    pub steps_per_epoch: u64,
    /// The optimiser and its numbers.
    pub optimizer: OptimizerConfig,
    /// The learning rate over time.
    pub schedule: Schedule,
    /// Longest gradient, as one vector.
    pub clip_norm: Option<f32>,
    /// Largest element of the gradient.
    pub clip_value: Option<f32>,
    /// Start of all random numbers.
    pub seed: u64,
    /// The type of the products in training.
    #[serde(default)]
    pub precision: Precision,
    /// Whether each block is computed again on the way back, rather than kept.
    #[serde(default)]
    pub recompute: bool,
    /// Steps between validations.
    pub eval_interval: u64,
    /// Tokens of the validation data used between steps; the end uses all.
    pub eval_tokens: usize,
    /// Whether sequences are documents: then validation scores each by itself, too.
    pub documents: bool,
    /// Steps between saves of the state; 0 saves at the end only.
    pub save_interval: u64,
    /// What is made smaller.
    #[serde(default)]
    pub objective: Objective,
    /// Whether the model is validated before the first step, too.
    #[serde(default)]
    pub eval_first: bool,
    /// Validations without a better one after which the run ends; `None` makes all steps.
    #[serde(default)]
    pub patience: Option<u64>,
}

impl TrainConfig {
    /// Checks every rule.
    pub fn validate(&self) -> Result<()> {
        let refuse = |name, got: String, want| Err(TrainError::Setting { name, got, want });
        for (name, n) in [
            ("--batch", self.batch as u64),
            ("--grad-accum", self.grad_accum as u64),
            ("--max-steps", self.max_steps),
            ("--eval-interval", self.eval_interval),
        ] {
            if n == 0 {
                return refuse(name, n.to_string(), "it must be at least 1");
            }
        }
        if self.patience == Some(0) {
            return refuse("--patience", "0".to_owned(), "it must be at least 1");
        }
        if let Objective::Dpo { beta } = self.objective
            && !(beta > 0.0 && beta.is_finite())
        {
            return refuse("--beta", beta.to_string(), "it must be a positive number");
        }
        for (name, clip) in [("--clip-norm", self.clip_norm), ("--clip-value", self.clip_value)] {
            if clip.is_some_and(|clip| !(clip > 0.0 && clip.is_finite())) {
                return refuse(name, clip.unwrap_or(0.0).to_string(), "it must be a positive number");
            }
        }
        self.optimizer.validate()?;
        self.schedule.validate()
    }
}

/// What a run needs and how much it computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Trainable values.
    pub parameters: usize,
    /// Bytes at the peak: weights, gradients, moments, activations, and a block of logits. Weights that are frozen have
    /// neither gradients nor moments.
    pub bytes: f64,
    /// Floating-point operations for each token trained: `6 N + 12 L C T` (Chowdhery et al., 2022), with N values but
    /// for the position table, L layers, width C and sequences of T; `4 N` where they are frozen, and 6 for each value that
    /// is trained beside them.
    pub flops_per_token: f64,
}

/// Bytes of a block of logits at most: see `tensor::ops::lm_loss`.
const LOGITS: f64 = 104.0 * 1024.0 * 1024.0;

/// The cost of training with AdamW in `f32`, a sequence of the model's whole context at a time.
pub fn plain_cost(model: &Gpt2Config) -> Cost {
    let adam = AdamConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let config = TrainConfig {
        batch: 1,
        grad_accum: 1,
        max_steps: 1,
        steps_per_epoch: 1,
        optimizer: OptimizerConfig::AdamW(adam),
        schedule: Schedule { lr: 1e-3, warmup_steps: 0, decay: Decay::Constant },
        clip_norm: None,
        clip_value: None,
        seed: 0,
        precision: Precision::F32,
        recompute: false,
        eval_interval: 0,
        eval_tokens: 0,
        documents: false,
        save_interval: 0,
        objective: Objective::Likelihood,
        eval_first: false,
        patience: None,
    };
    cost(model, &config, model.n_ctx)
}

/// [`cost`] of what is trained of this model: all of it, or its adapter.
pub fn cost_of(model: &Gpt2, config: &TrainConfig, time: usize) -> Cost {
    match model.lora() {
        Some(lora) => lora_cost(model.config(), lora, config, time),
        None => cost(model.config(), config, time),
    }
}

/// Estimates the cost of training an adapter beside a model of this shape.
pub fn lora_cost(model: &Gpt2Config, lora: &LoraConfig, config: &TrainConfig, time: usize) -> Cost {
    let (c, inner) = (model.n_embd as f64, model.n_inner as f64);
    // What goes into layers is kept only where an adapter needs it; what attention gives out is, in any case.
    let inputs = [("attn.c_attn", c), ("mlp.c_fc", c), ("mlp.c_proj", inner)];
    let inputs =
        inputs.iter().filter(|(layer, _)| lora.is_target(&format!("h.0.{layer}"))).map(|(_, size)| size);
    let kept = 4.0 * c + inner + inputs.sum::<f64>();
    let shapes = lora.shapes(model);
    let n = |shapes: &[(String, Vec<usize>)], name: &str| -> usize {
        let all = shapes.iter().filter(|(other, _)| other.contains(name));
        all.map(|(_, shape)| shape.iter().product::<usize>()).sum()
    };
    let (trained, adapters) = (n(&shapes, ""), n(&shapes, "lora"));
    let frozen = model.n_params() - (trained - adapters);
    let flops = 4 * model.n_compute_params() + 6 * adapters + 2 * (trained - adapters);
    estimate(model, config, time, Estimate { shapes, frozen, kept, flops: flops as f64 })
}

/// Estimates the cost of training a model of this shape.
pub fn cost(model: &Gpt2Config, config: &TrainConfig, time: usize) -> Cost {
    let (c, inner) = (model.n_embd as f64, model.n_inner as f64);
    // Two norms, queries, keys, values, attention, and the wide layer before and after its activation.
    let (kept, flops) = (6.0 * c + 2.0 * inner, 6.0 * model.n_compute_params() as f64);
    estimate(model, config, time, Estimate { shapes: model.shapes(), frozen: 0, kept, flops })
}

/// What differs by what is trained.
struct Estimate {
    /// The trained tensors.
    shapes: Vec<(String, Vec<usize>)>,
    /// Weights that are not trained.
    frozen: usize,
    /// Values of the products' type that each block keeps for the way back, for each token.
    kept: f64,
    /// Floating-point operations for each token, but for attention's.
    flops: f64,
}

fn estimate(model: &Gpt2Config, config: &TrainConfig, time: usize, estimate: Estimate) -> Cost {
    const WIDE: f64 = 4.0; // bytes of an f32
    let size = match config.precision {
        Precision::F32 => WIDE,
        Precision::Bf16 => 2.0,
    };
    let Estimate { shapes, frozen, kept, flops } = estimate;
    let parameters: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let tokens = config.batch as f64 * time as f64;
    let (c, inner, layers) = (model.n_embd as f64, model.n_inner as f64, model.n_layer as f64);
    let block = 2.0 * c * WIDE + kept * size; // with two residual sums
    let kept = if config.recompute { layers * c * WIDE + block } else { layers * block };
    let on_the_way = 2.0 * c * WIDE + (5.0 * c + inner) * size; // gradients alive at one moment of the backward pass
    let logits =
        (tokens * model.vocab_size as f64 * size).min(LOGITS.max(16.0 * size * model.vocab_size as f64));
    let moments = shapes
        .iter()
        .map(|(name, shape)| config.optimizer.moments(name, shape) * shape.iter().product::<usize>());
    Cost {
        parameters,
        bytes: WIDE * (frozen + 2 * parameters + moments.sum::<usize>()) as f64
            + tokens * (kept + on_the_way)
            + logits,
        flops_per_token: flops + 12.0 * (model.n_layer * model.n_embd * time) as f64,
    }
}
