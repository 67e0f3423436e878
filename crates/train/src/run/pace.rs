//! How fast a run is, and so how many steps it can make in a given time.

use std::time::{Duration, Instant};

use super::Run;
use crate::Result;

/// Steps that are timed.
const STEPS: usize = 400;
/// Of steps that take long, fewer; the first one faults in memory and wakes threads, so it alone would say little.
const FEWEST_STEPS: usize = 3;
/// Held-out tokens that are timed.
const EVAL_TOKENS: usize = 1 << 12;

/// Seconds that the parts of a run take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// A step.
    pub step: f64,
    /// A validation between steps; nothing where no data is held out.
    pub validation: f64,
    /// One more of the best model, on all that is held out, where the others are on a part.
    pub last_validation: f64,
}

impl Run {
    /// Times the run's first steps, for about `limit` but at least three of them, and then a validation.
    /// The run is used up: who wants to train begins anew, and gets what a run that was never timed gives.
    pub fn pace(mut self, limit: Duration) -> Result<Pace> {
        let timed = |work: &mut dyn FnMut() -> Result<()>| {
            let start = Instant::now();
            work().map(|()| start.elapsed().as_secs_f64())
        };
        let start = Instant::now();
        let mut steps = Vec::new();
        while steps.len() < FEWEST_STEPS || (steps.len() < STEPS && start.elapsed() < limit) {
            steps.push(timed(&mut || self.train_step().map(drop))?);
        }
        steps.sort_by(f64::total_cmp);
        let mut pace = Pace { step: steps[steps.len() / 2], validation: 0.0, last_validation: 0.0 };
        if let Some(val) = &self.val {
            let n = val.part(EVAL_TOKENS.min(self.config.eval_tokens));
            let each = timed(&mut || self.measure(val, n, &mut ()).map(drop))? / n as f64;
            let part = val.part(self.config.eval_tokens);
            pace.validation = each * part as f64;
            pace.last_validation = if part < val.len() { each * val.len() as f64 } else { 0.0 };
        }
        Ok(pace)
    }
}

impl Pace {
    /// The most steps that `seconds` are enough for, at least one, where a run of so many has `interval` steps
    /// between validations.
    pub fn steps(&self, seconds: f64, interval: impl Fn(u64) -> u64) -> u64 {
        let takes = |steps: u64| {
            let validations = steps.div_ceil(interval(steps).max(1)) as f64;
            steps as f64 * self.step + validations * self.validation + self.last_validation
        };
        let (mut enough, mut too_many) = (1, ((seconds / self.step) as u64).saturating_add(2));
        while enough + 1 < too_many {
            let steps = enough.midpoint(too_many);
            if takes(steps) <= seconds {
                enough = steps;
            } else {
                too_many = steps;
            }
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_validations_fill_the_time() {
        let pace = Pace { step: 0.5, validation: 3.0, last_validation: 10.0 };
        // 80 steps, eight validations between them and one at the end.
        assert_eq!(pace.steps(74.0, |steps| steps.div_ceil(8)), 80);
        assert_eq!(Pace { validation: 0.0, last_validation: 0.0, ..pace }.steps(74.0, |_| 10), 148);
        assert_eq!(pace.steps(74.0, |_| u64::MAX), 122);
        for seconds in [-5.0, 0.0, 1.0] {
            assert_eq!(pace.steps(seconds, |_| 10), 1);
        }
    }
}
