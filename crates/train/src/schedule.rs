//! The learning rate as a function of the step.

use serde::{Deserialize, Serialize};

use crate::{Result, TrainError};

/// How the learning rate changes over a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest rate.
    pub lr: f32,
    /// Steps over which it rises to that.
    pub warmup_steps: u64,
    /// How it falls.
    pub decay: Decay,
}

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Not at all.
    Constant,
    /// Along half a cosine (Loshchilov and Hutter, 2017).
    Cosine {
        /// The rate at the end.
        min_lr: f32,
    },
    /// In a straight line.
    Linear {
        /// The rate at the end.
        min_lr: f32,
    },
    /// By a factor every so many steps or epochs: PyTorch's `StepLR`.
    Step {
        /// Periods between reductions.
        step_size: u64,
        /// Factor of each.
        gamma: f32,
        /// What a period is.
        per: Period,
    },
}

/// A unit of training time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// One optimiser step.
    Step,
    /// One pass over the data.
    Epoch,
}

impl Schedule {
    /// The rate of step `step` (from 0) of `max_steps`, in epoch `epoch` (from 0).
    ///
    /// 1. While warming up, `lr · (step + 1) / warmup_steps`.
    /// 2. Then with progress p from 0 to 1: cosine `min + (lr - min) (1 + cos πp) / 2`, linear `lr + (min - lr) p`.
    /// 3. StepLR is `lr · gamma^⌊period / step_size⌋`.
    pub fn at(&self, step: u64, max_steps: u64, epoch: u64) -> f32 {
        let &Schedule { lr, warmup_steps, decay } = self;
        if step < warmup_steps {
            return (f64::from(lr) * (step + 1) as f64 / warmup_steps as f64) as f32;
        }
        let span = max_steps.saturating_sub(warmup_steps).max(1);
        let p = ((step - warmup_steps) as f64 / span as f64).min(1.0);
        let top = f64::from(lr);
        let rate = match decay {
            Decay::Constant => top,
            Decay::Cosine { min_lr } => {
                let low = f64::from(min_lr);
                low + (top - low) * 0.5 * (1.0 + (std::f64::consts::PI * p).cos())
            }
            Decay::Linear { min_lr } => top + (f64::from(min_lr) - top) * p,
            Decay::Step { step_size, gamma, per } => {
                let period = if per == Period::Step { step } else { epoch };
                top * f64::from(gamma).powf((period / step_size) as f64)
            }
        };
        rate as f32
    }

    /// Checks the numbers.
    pub fn validate(&self) -> Result<()> {
        let refuse = |name, got: f32, want| Err(TrainError::Setting { name, got: got.to_string(), want });
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return refuse("--lr", self.lr, "it must be a positive number, such as 6e-4");
        }
        match self.decay {
            Decay::Cosine { min_lr } | Decay::Linear { min_lr } if !(0.0..=self.lr).contains(&min_lr) => {
                refuse("--min-lr", min_lr, "it must be between 0 and --lr")
            }
            Decay::Step { gamma, .. } if !(gamma > 0.0 && gamma <= 1.0) => {
                refuse("--gamma", gamma, "it must be above 0 and at most 1")
            }
            Decay::Step { step_size: 0, .. } => refuse("--step-size", 0.0, "it must be at least 1"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f32, want: f64) {
        assert!((f64::from(got) - want).abs() < 1e-9 + 1e-6 * want, "{got} is not {want}");
    }

    #[test]
    fn warm_up_then_cosine_or_line() {
        let schedule = Schedule { lr: 1e-3, warmup_steps: 10, decay: Decay::Cosine { min_lr: 1e-4 } };
        close(schedule.at(0, 110, 0), 1e-4);
        close(schedule.at(9, 110, 0), 1e-3);
        close(schedule.at(10, 110, 0), 1e-3);
        close(schedule.at(60, 110, 0), 5.5e-4);
        close(schedule.at(35, 110, 0), 1e-4 + 9e-4 * 0.5 * (1.0 + (0.25f64 * std::f64::consts::PI).cos()));
        close(schedule.at(500, 110, 0), 1e-4);
        let line = Schedule { decay: Decay::Linear { min_lr: 0.0 }, ..schedule };
        close(line.at(35, 110, 0), 7.5e-4);
        close(Schedule { decay: Decay::Constant, ..schedule }.at(99, 110, 7), 1e-3);
    }

    /// Values printed by `torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.95)` for lr 1e-3.
    #[test]
    fn step_lr_is_pytorch_s() {
        let want = [1e-3, 1e-3, 9.5e-4, 9.5e-4, 9.025e-4, 9.025e-4, 8.57375e-4];
        for per in [Period::Step, Period::Epoch] {
            let schedule =
                Schedule { lr: 1e-3, warmup_steps: 0, decay: Decay::Step { step_size: 2, gamma: 0.95, per } };
            for (i, want) in (0..).zip(want) {
                let (step, epoch) = if per == Period::Step { (i, 0) } else { (50 * i, i) };
                close(schedule.at(step, 1000, epoch), want);
            }
        }
    }

    #[test]
    fn numbers_are_checked() {
        let good = Schedule { lr: 1e-3, warmup_steps: 0, decay: Decay::Constant };
        assert!(good.validate().is_ok());
        for lr in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(Schedule { lr, ..good }.validate().unwrap_err().to_string().contains("--lr"));
        }
        let step = |step_size, gamma| Schedule {
            decay: Decay::Step { step_size, gamma, per: Period::Step },
            ..good
        };
        assert!(
            step(0, 0.9).validate().is_err()
                && step(1, 0.0).validate().is_err()
                && step(1, 1.5).validate().is_err()
        );
        assert!(Schedule { decay: Decay::Cosine { min_lr: 1.0 }, ..good }.validate().is_err());
    }
}
