//! Optimisers: AdamW, Adam, SGD and Muon, and clipping of gradients.

use models::Gpt2;
use serde::{Deserialize, Serialize};
use tensor::Grads;
use tensor::muon::{MuonMatrix, MuonStep, muon};
use tensor::optim::{self, AdamStep, SgdStep};

use crate::{Result, TrainError};

/// An optimiser and its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "name")]
pub enum OptimizerConfig {
    /// Adam with decoupled decay, on matrices only (Loshchilov and Hutter, 2019).
    AdamW(AdamConfig),
    /// Adam; decay goes through the gradient of every weight, as in `torch.optim.Adam` (Kingma and Ba, 2015).
    Adam(AdamConfig),
    /// Stochastic gradient descent with momentum, as in `torch.optim.SGD`.
    Sgd {
        /// Share of the last direction that is kept.
        momentum: f32,
        /// Decay, through the gradient.
        weight_decay: f32,
    },
    /// Muon for the matrices of the blocks, AdamW for all else (Jordan et al., 2024).
    Muon {
        /// Share of the last direction that is kept, in the matrices.
        momentum: f32,
        /// AdamW, for the embeddings, biases and norms; its decay is that of all matrices.
        adam: AdamConfig,
    },
}

/// The numbers of Adam.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamConfig {
    /// Memory of the first moment.
    pub beta1: f32,
    /// Memory of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    pub eps: f32,
    /// Pull of the weights towards zero.
    pub weight_decay: f32,
}

impl OptimizerConfig {
    /// Values kept for each weight of this parameter: a first moment, or a second one, too.
    pub fn moments(&self, name: &str, shape: &[usize]) -> usize {
        match self {
            OptimizerConfig::Sgd { .. } => 1,
            OptimizerConfig::Muon { .. } if is_hidden_matrix(name, shape) => 1,
            _ => 2,
        }
    }

    /// Checks the numbers.
    pub fn validate(&self) -> Result<()> {
        let check = |name, got: f32, ok: bool, want| match ok {
            true => Ok(()),
            false => Err(TrainError::Setting { name, got: got.to_string(), want }),
        };
        let share = "it must be at least 0 and below 1";
        let positive = "it must be a number of at least 0";
        match *self {
            OptimizerConfig::AdamW(adam) | OptimizerConfig::Adam(adam) => {
                check("--beta1", adam.beta1, (0.0..1.0).contains(&adam.beta1), share)?;
                check("--beta2", adam.beta2, (0.0..1.0).contains(&adam.beta2), share)?;
                check(
                    "--eps",
                    adam.eps,
                    adam.eps > 0.0 && adam.eps.is_finite(),
                    "it must be a positive number",
                )?;
                let decay = adam.weight_decay;
                check("--weight-decay", decay, decay >= 0.0 && decay.is_finite(), positive)
            }
            OptimizerConfig::Muon { momentum, adam } => {
                check("--momentum", momentum, (0.0..1.0).contains(&momentum), share)?;
                OptimizerConfig::AdamW(adam).validate()
            }
            OptimizerConfig::Sgd { momentum, weight_decay } => {
                check("--momentum", momentum, (0.0..1.0).contains(&momentum), share)?;
                check(
                    "--weight-decay",
                    weight_decay,
                    weight_decay >= 0.0 && weight_decay.is_finite(),
                    positive,
                )
            }
        }
    }
}

/// Whether this is a matrix inside the blocks, which Muon moves: not the embeddings, which are tables.
fn is_hidden_matrix(name: &str, shape: &[usize]) -> bool {
    name.starts_with("h.") && shape.len() == 2
}

/// An optimiser with its memory, one or two values for each weight.
#[derive(Clone, Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// First moments, or SGD's directions; by parameter.
    pub first: Vec<Vec<f32>>,
    /// Second moments; by parameter. Empty where there is none.
    pub second: Vec<Vec<f32>>,
}

impl Optimizer {
    /// An optimiser that has not made a step.
    pub fn new(config: OptimizerConfig, model: &Gpt2) -> Optimizer {
        let zeros = |kept: usize| {
            let trainable = model.trainable().into_iter();
            trainable
                .map(|(name, tensor)| {
                    let kept = config.moments(&name, tensor.shape()) >= kept;
                    if kept { vec![0.0; tensor.len()] } else { Vec::new() }
                })
                .collect()
        };
        Optimizer { config, first: zeros(1), second: zeros(2) }
    }

    /// Step number `step` (from 0) with rate `lr`; gradients are multiplied by `scale` first.
    pub fn step(&mut self, model: &mut Gpt2, grads: &Grads, lr: f32, scale: f32, step: u64) {
        let moments = self.first.iter_mut().zip(&mut self.second);
        let mut hidden = Vec::new();
        for (slot, ((name, tensor), (first, second))) in
            model.trainable_mut().into_iter().zip(moments).enumerate()
        {
            let shape = tensor.shape().to_vec();
            let (p, g) = (tensor.data_mut(), grads.slot(slot));
            match self.config {
                OptimizerConfig::Muon { .. } if is_hidden_matrix(&name, &shape) => {
                    let parts = if name.ends_with("c_attn.weight") { 3 } else { 1 };
                    hidden.push(MuonMatrix { p, momentum: first, g, cols: shape[1], parts });
                }
                OptimizerConfig::AdamW(adam) | OptimizerConfig::Muon { adam, .. } => {
                    let decay = if shape.len() > 1 { adam.weight_decay } else { 0.0 };
                    optim::adam(p, first, second, g, &adam.step(lr, scale, step, decay, true));
                }
                OptimizerConfig::Adam(adam) => {
                    optim::adam(p, first, second, g, &adam.step(lr, scale, step, adam.weight_decay, false));
                }
                OptimizerConfig::Sgd { momentum, weight_decay } => {
                    let s = SgdStep { lr, momentum, weight_decay, grad_scale: scale, first: step == 0 };
                    optim::sgd(p, first, g, &s);
                }
            }
        }
        if let OptimizerConfig::Muon { momentum, adam } = self.config {
            muon(&mut hidden, &MuonStep { lr, momentum, weight_decay: adam.weight_decay, grad_scale: scale });
        }
    }
}

impl AdamConfig {
    fn step(&self, lr: f32, grad_scale: f32, step: u64, weight_decay: f32, decoupled: bool) -> AdamStep {
        let &AdamConfig { beta1, beta2, eps, .. } = self;
        AdamStep { lr, beta1, beta2, eps, weight_decay, step: step + 1, decoupled, grad_scale }
    }
}

/// The length of the gradient as one vector.
pub fn global_norm(grads: &Grads) -> f64 {
    (0..grads.len()).map(|slot| optim::sum_of_squares(grads.slot(slot))).sum::<f64>().sqrt()
}

/// The factor that shortens a gradient of this length to `limit`, as `torch.nn.utils.clip_grad_norm_` does.
pub fn clip_factor(norm: f64, limit: f32) -> f64 {
    (f64::from(limit) / (norm + 1e-6)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::{Gpt2Config, Init};

    fn model() -> Gpt2 {
        Gpt2::new(Gpt2Config::new(1, 1, 4, 4, 5), Init::Gpt2, 1).unwrap()
    }

    #[test]
    fn adamw_decays_matrices_only_and_adam_everything() {
        let adam = AdamConfig { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.5 };
        for (config, biases_move) in
            [(OptimizerConfig::AdamW(adam), false), (OptimizerConfig::Adam(adam), true)]
        {
            let mut model = model();
            let grads = model.zero_grads();
            let before: Vec<Vec<f32>> = model.parameters().iter().map(|(_, t)| t.data().to_vec()).collect();
            Optimizer::new(config, &model).step(&mut model, &grads, 0.1, 1.0, 0);
            for ((name, tensor), before) in model.parameters().iter().zip(&before) {
                let moved = tensor.data() != &before[..];
                let is_zero = before.iter().all(|&x| x == 0.0);
                assert_eq!(moved, !is_zero && (biases_move || tensor.shape().len() > 1), "{config:?} {name}");
            }
        }
    }

    #[test]
    fn beside_an_adapter_nothing_else_is_kept_or_moves() {
        let adam = AdamConfig { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 };
        for config in [OptimizerConfig::AdamW(adam), OptimizerConfig::Muon { momentum: 0.9, adam }] {
            let mut model = model();
            model.add_lora(&"r=2,targets=all-linear".parse().unwrap(), 1).unwrap();
            let values = |model: &Gpt2| -> Vec<Vec<f32>> {
                model.parameters().iter().map(|(_, tensor)| tensor.data().to_vec()).collect()
            };
            let before = values(&model);
            let mut optimizer = Optimizer::new(config, &model);
            let kept: usize = optimizer.first.iter().map(Vec::len).sum();
            assert_eq!(kept, model.lora().unwrap().n_params(model.config()));
            let mut grads = model.zero_grads();
            (0..grads.len()).for_each(|slot| grads.slot_mut(slot).fill(0.5));
            optimizer.step(&mut model, &grads, 0.1, 1.0, 0);
            assert_eq!(values(&model), before);
            assert!(model.trainable().iter().all(|(_, tensor)| tensor.data().iter().any(|&x| x != 0.0)));
        }
    }

    #[test]
    fn norms_and_clipping() {
        let mut grads = Grads::new(&[2, 1]);
        grads.slot_mut(0).copy_from_slice(&[2.0, -1.0]);
        grads.slot_mut(1)[0] = 2.0;
        assert_eq!(global_norm(&grads), 3.0);
        assert!((clip_factor(3.0, 1.5) - 0.5).abs() < 1e-6);
        assert_eq!(clip_factor(3.0, 10.0), 1.0);
    }

    #[test]
    fn numbers_are_checked() {
        let adam = AdamConfig { beta1: 0.9, beta2: 1.0, eps: 1e-8, weight_decay: 0.0 };
        let error = OptimizerConfig::Adam(adam).validate().unwrap_err().to_string();
        assert!(error.starts_with("--beta2 is 1"), "{error}");
        let sgd = OptimizerConfig::Sgd { momentum: f32::NAN, weight_decay: 0.0 };
        assert!(sgd.validate().is_err());
    }
}
