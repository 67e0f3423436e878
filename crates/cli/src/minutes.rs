//! Minutes to train become a number of steps: the first ones are timed on a run that is thrown away.
//!
//! What runs then is the same as with `--max-steps`, to the last bit, however fast the machine is.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use data::batches::Batches;
use train::{Run, Validation};

use crate::plan::{self, Corpus};
use crate::settings::Settings;

const MOST: f64 = 10_000.0;
/// Share of the minutes that timing may take.
const TIMING: f64 = 0.03;
/// Share of the minutes that is planned for; the rest is for saving, and for what others do on the machine.
const PLANNED: f64 = 0.95;

/// Refuses what is not a time to train for.
pub fn check(minutes: f64) -> Result<()> {
    ensure!(
        minutes > 0.0 && minutes <= MOST,
        "--minutes {minutes:?}: give a number above 0 and at most {MOST}"
    );
    Ok(())
}

/// As many steps of these settings as fit into the minutes since `start`, at least one, with a validation every `interval(steps,
/// steps of an epoch)` of them.
pub fn steps(
    minutes: f64,
    start: Instant,
    (settings, corpus, out): (&Settings, &Corpus, &Path),
    interval: impl Fn(u64, u64) -> u64,
) -> Result<u64> {
    let mut trial = Settings { minutes: None, max_steps: Some(u64::MAX / 4), ..settings.clone() };
    let model = plan::model(&mut trial, &corpus.tokenizer)?;
    let batcher = plan::batcher(&mut trial, corpus, model.config().n_ctx)?;
    let config = plan::train_config(&mut trial, model.config().n_embd, batcher.sequences_per_epoch())?;
    plan::ensure_fits(train::config::cost(model.config(), &config, model.config().n_ctx).bytes as u64)?;
    let steps_per_epoch = config.steps_per_epoch;
    let val = corpus.val.clone().map(Validation::Tokens);
    let caller = serde_json::Value::Null;
    let run = Run::new(model, corpus.tokenizer.clone(), batcher, val, config, out, caller)?;

    let seconds = 60.0 * minutes;
    let pace = run.pace(Duration::from_secs_f64(TIMING * seconds))?;
    let left = PLANNED * seconds - start.elapsed().as_secs_f64();
    Ok(pace.steps(left, |steps| interval(steps, steps_per_epoch)))
}
