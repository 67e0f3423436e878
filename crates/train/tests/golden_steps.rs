//! Ten optimiser steps held to PyTorch: AdamW with decay on matrices only, clipping by norm, warm-up and cosine.
//!
//! `tests/golden/make.py` made the expected numbers: learning rates, gradient norms, losses, and the norms of the
//! weights after the last step.
#![forbid(unsafe_code)]

#[path = "../../../tests/golden/golden.rs"]
mod golden;

use golden::{CASES, Golden, Padded, Settings, Steps};
use models::{Gpt2, Pass};
use train::optimizer::{AdamConfig, Optimizer, OptimizerConfig, clip_factor, global_norm};
use train::schedule::{Decay, Schedule};

#[test]
fn ten_steps_agree_with_pytorch() {
    for case in CASES {
        let dir = golden::folder(case);
        let golden = Golden::read(&dir);
        let steps = golden.steps.unwrap_or_else(|| panic!("{case}: golden.json has no steps"));
        assert!(
            steps.taken.len() == 10
                && steps.taken.iter().any(|step| step.grad_norm > steps.settings.clip_norm)
        );
        let mut model = Gpt2::load(&dir).unwrap_or_else(|error| panic!("{case}: {error}"));
        let worst = take_steps(case, &mut model, golden.pad, &steps);
        check_weights(case, &model, &steps);
        eprintln!("{case}: ten losses differ by at most {worst:.1e}");
    }
}

/// Makes the steps as `train::Run` does, checks each, and returns the largest difference of a loss.
fn take_steps(case: &str, model: &mut Gpt2, pad: u32, steps: &Steps) -> f64 {
    let settings = &steps.settings;
    let (schedule, mut optimizer) = (schedule(settings), Optimizer::new(optimizer(settings), model));
    let mut worst = 0.0_f64;
    for (number, step) in (0..).zip(&steps.taken) {
        let case = format!("{case}, step {number}");
        let packed = Padded::new(&step.rows, pad).packed();
        let loss = model.loss(&packed.packed_batch(), Pass::train(model.zero_grads(), 0, number)).unwrap();
        let (mean, weight) = (loss.value / loss.weight, loss.weight);
        close(&case, "loss", mean, step.loss, 1e-4);
        worst = worst.max((mean - step.loss).abs());
        let grads = loss.backward().expect("a training pass records");
        let norm = global_norm(&grads) / weight;
        close(&case, "gradient norm", norm, step.grad_norm, 1e-4 * step.grad_norm);
        let lr = schedule.at(number, settings.n, 0);
        close(&case, "learning rate", f64::from(lr), step.lr, 1e-6 * step.lr);
        let scale = clip_factor(norm, settings.clip_norm as f32) / weight;
        optimizer.step(model, &grads, lr, scale as f32, number);
    }
    worst
}

fn schedule(s: &Settings) -> Schedule {
    let decay = Decay::Cosine { min_lr: s.min_lr as f32 };
    Schedule { lr: s.lr as f32, warmup_steps: s.warmup_steps, decay }
}

fn optimizer(s: &Settings) -> OptimizerConfig {
    OptimizerConfig::AdamW(AdamConfig {
        beta1: s.betas[0] as f32,
        beta2: s.betas[1] as f32,
        eps: s.eps as f32,
        weight_decay: s.weight_decay as f32,
    })
}

/// The norms of the weights at the end. The bias of the keys has no true gradient and is left out, as in make.py.
fn check_weights(case: &str, model: &Gpt2, steps: &Steps) {
    for (name, tensor) in model.parameters() {
        let third = tensor.len() / 3;
        let counted = |i: usize| !name.ends_with("c_attn.bias") || !(third..2 * third).contains(&i);
        let values =
            tensor.data().iter().enumerate().filter(|(i, _)| counted(*i)).map(|(_, &x)| f64::from(x));
        let (got, want) = (values.map(|x| x * x).sum::<f64>().sqrt(), steps.final_norms[&name]);
        close(case, &format!("norm of `{name}`"), got, want, 1e-4 * want);
    }
}

fn close(case: &str, what: &str, got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{case}: the {what} is {got}, but PyTorch's is {want}");
}
