//! The training loop.
//!
//! A step: batches → losses and gradients → their norm, clipped → the optimiser → the log. The numbers are
//! checked before the weights change, so that a loss that is not a number leaves the last good state. Validation
//! keeps the best model in `DIR`; the resumable state goes to `DIR/last`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use data::Tokens;
use data::batches::{Batcher, OwnedBatch};
use eval::{EvalError, Report};
use models::{Batch, Gpt2, Pass};
use serde::Serialize;
use tensor::Grads;
use tokenizer::Tokenizer;

use crate::metrics::Metrics;
use crate::optimizer::{Optimizer, clip_factor, global_norm};
use crate::state::{self, Progress};
use crate::{Result, TrainConfig, TrainError, config};

/// A run in progress.
pub struct Run {
    model: Gpt2,
    tokenizer: Tokenizer,
    optimizer: Optimizer,
    batcher: Batcher,
    val: Option<Tokens>,
    config: TrainConfig,
    progress: Progress,
    dir: PathBuf,
    grads: Grads,
    flops_per_token: f64,
    /// Steps completed by the state that is saved.
    saved: Option<u64>,
}

/// One optimiser step.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StepReport {
    /// Steps made, this one included.
    pub step: u64,
    /// Steps of the whole run.
    pub max_steps: u64,
    /// Passes over the data, as a fraction.
    pub epoch: f64,
    /// Mean loss of the step's tokens before the update.
    pub loss: f64,
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
    pub report: Report,
    /// Whether the loss is the lowest so far.
    pub best: bool,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Steps made.
    pub step: u64,
    /// Whether all steps were made, or it was asked to stop.
    pub finished: bool,
    /// The best model on the whole validation data.
    pub val: Option<Report>,
    /// The lowest validation loss and its step.
    pub best: Option<(f64, u64)>,
    /// Seconds spent training, in all sessions.
    pub seconds: f64,
    /// The plot.
    pub plot: Option<PathBuf>,
}

/// Sees what happens.
pub trait Observer {
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

/// Refuses a directory that holds a model or a run, unless told to replace them.
pub(crate) fn refuse_existing(dir: &Path) -> Result<()> {
    let holds = |what| Err(TrainError::Exists { dir: dir.to_owned(), what });
    if dir.join(models::checkpoint::WEIGHTS).exists() {
        return holds("a model");
    }
    if state::path(dir).exists() {
        return holds("a training run");
    }
    Ok(())
}

impl Run {
    /// Prepares a run that writes to `dir`. `caller` is kept in the state for whoever resumes.
    pub fn new(
        model: Gpt2,
        tokenizer: Tokenizer,
        batcher: Batcher,
        val: Option<Tokens>,
        config: TrainConfig,
        dir: &Path,
        caller: serde_json::Value,
    ) -> Result<Run> {
        config.validate()?;
        let data_hash = batcher.fingerprint()?;
        let position = batcher.position().clone();
        let flops_per_token = config::cost(model.config(), &config, batcher.time()).flops_per_token;
        let progress = Progress {
            step: 0,
            position,
            best: None,
            seconds: 0.0,
            data_hash,
            config: config.clone(),
            caller,
        };
        Ok(Run {
            optimizer: Optimizer::new(config.optimizer, &model),
            grads: model.zero_grads(),
            model,
            tokenizer,
            batcher,
            val: val.filter(|val| val.len() > 1),
            config,
            progress,
            dir: dir.to_owned(),
            flops_per_token,
            saved: None,
        })
    }

    /// Refuses a directory that already holds a model or a run.
    pub fn refuse_existing(dir: &Path) -> Result<()> {
        refuse_existing(dir)
    }

    /// Takes up the state saved in the run's directory. Data and settings must be the same.
    pub fn resume(&mut self) -> Result<()> {
        let progress = state::load(&self.dir, &mut self.model, &mut self.optimizer)?;
        let refuse =
            |reason: &str| Err(TrainError::State { path: state::path(&self.dir), reason: reason.into() });
        if progress.data_hash != self.progress.data_hash {
            return refuse(
                "the training data is not what this run began with; give the same --data in the same order",
            );
        }
        let extended = TrainConfig { max_steps: self.config.max_steps, ..progress.config.clone() };
        if extended != self.config {
            return refuse(
                "the settings are not those this run began with; resume without other flags than --max-steps",
            );
        }
        if progress.position.used.len() != self.progress.position.used.len() {
            return refuse("its place in the data is of another number of sources");
        }
        self.batcher.seek(&progress.position);
        self.saved = Some(progress.step);
        self.progress = Progress { config: self.config.clone(), ..progress };
        Ok(())
    }

    /// The model as it is now.
    pub fn model(&self) -> &Gpt2 {
        &self.model
    }

    /// Steps made.
    pub fn step(&self) -> u64 {
        self.progress.step
    }

    /// Changes the length of the run before it has begun.
    pub fn set_max_steps(&mut self, max_steps: u64) {
        self.config.max_steps = max_steps;
        self.progress.config.max_steps = max_steps;
    }

    /// Trains until the last step, or until the observer asks to stop.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Outcome> {
        self.tokenizer.save(&self.dir)?;
        self.progress.config = self.config.clone();
        let mut metrics = Metrics::open(&self.dir, self.progress.step)?;
        let nothing_to_do = self.progress.step >= self.config.max_steps;
        let mut stopped = false;
        while self.progress.step < self.config.max_steps && !stopped {
            let report = self.train_step()?;
            metrics.write(report.step, &report.values())?;
            observer.on_step(&report, &self.model);
            if self.is_due(self.config.eval_interval) {
                self.validate(&mut metrics, observer)?;
            }
            stopped = observer.should_stop();
            if self.config.save_interval > 0 && self.is_due(self.config.save_interval) && !stopped {
                self.save(observer)?;
            }
        }
        let finished = self.progress.step >= self.config.max_steps;
        if !nothing_to_do {
            self.finish(finished, &mut metrics, observer)?;
        }
        self.outcome(finished, &metrics)
    }

    fn is_due(&self, interval: u64) -> bool {
        interval > 0 && self.progress.step.is_multiple_of(interval)
    }

    /// One optimiser step.
    pub fn train_step(&mut self) -> Result<StepReport> {
        let start = Instant::now();
        let step = self.progress.step;
        let epoch = step / self.config.steps_per_epoch.max(1);
        let lr = self.config.schedule.at(step, self.config.max_steps, epoch);
        let position = self.batcher.position().clone();
        let (loss, weight, tokens) = self.gradients()?;
        let checked = self.check(loss / weight, weight);
        let (loss, norm, scale) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                self.batcher.seek(&position);
                return Err(error);
            }
        };
        self.optimizer.step(&mut self.model, &self.grads, lr, scale, step);
        self.grads.forget();
        let seconds = start.elapsed().as_secs_f64();
        self.progress.step += 1;
        self.progress.seconds += seconds;
        self.progress.position = self.batcher.position().clone();
        Ok(StepReport {
            step: step + 1,
            max_steps: self.config.max_steps,
            epoch: (step + 1) as f64 / self.config.steps_per_epoch.max(1) as f64,
            loss,
            lr,
            grad_norm: norm,
            tok_per_sec: tokens as f64 / seconds,
            flops_per_sec: tokens as f64 / seconds * self.flops_per_token,
        })
    }

    /// Sums the gradients of the step's batches; the summed loss, the weight it is summed over, and tokens.
    fn gradients(&mut self) -> Result<(f64, f64, usize)> {
        let (mut loss, mut weight, mut tokens) = (0.0, 0.0, 0);
        for micro in 0..self.config.grad_accum as u64 {
            let batch = self.batcher.next_batch()?;
            let number = self.progress.step * self.config.grad_accum as u64 + micro;
            let pass = Pass::train(std::mem::take(&mut self.grads), self.config.seed, number)
                .precision(self.config.precision)
                .recompute(self.config.recompute);
            let result = self.model.loss(&view(&batch), pass)?;
            loss += result.value;
            weight += result.weight;
            tokens += batch.ids.len();
            self.grads = result.backward().expect("a training pass has a way back");
        }
        Ok((loss, weight, tokens))
    }

    /// The mean loss, the gradient's norm, and the factor to apply it with, if these are numbers.
    fn check(&mut self, loss: f64, weight: f64) -> Result<(f64, f64, f32)> {
        let mean = 1.0 / weight;
        let mut norm = global_norm(&self.grads) * mean;
        for (what, value) in [("loss", loss), ("gradient's length", norm)] {
            if !value.is_finite() {
                self.grads.forget();
                return Err(self.not_finite(what, value, self.progress.step + 1));
            }
        }
        if let Some(limit) = self.config.clip_value {
            let limit = f64::from(limit) / mean;
            (0..self.grads.len())
                .for_each(|slot| tensor::optim::clip_value(self.grads.slot_mut(slot), limit as f32));
            norm = global_norm(&self.grads) * mean;
        }
        let clip = self.config.clip_norm.map_or(1.0, |limit| clip_factor(norm, limit));
        Ok((loss, norm, (mean * clip) as f32))
    }

    fn not_finite(&self, what: &'static str, value: f64, step: u64) -> TrainError {
        TrainError::NotFinite { what, value, step, saved: self.saved }
    }

    /// Scores the validation data, and keeps the model if it is the best so far.
    fn validate(&mut self, metrics: &mut Metrics, observer: &mut dyn Observer) -> Result<()> {
        let Some(val) = &self.val else { return Ok(()) };
        let part = val.slice(0..val.len().min(self.config.eval_tokens.max(2)));
        let report = eval::evaluate(&self.model, &self.tokenizer, &part, self.eval_options(), &mut |_| {});
        let report = report.map_err(|error| match error {
            EvalError::NotFinite { loss, .. } => {
                self.not_finite("validation loss", loss.into(), self.progress.step)
            }
            error => error.into(),
        })?;
        let step = self.progress.step;
        let best = self.progress.best.is_none_or(|(best, _)| report.loss < best);
        if best {
            self.save_model()?;
            self.progress.best = Some((report.loss, step));
        }
        metrics.write(step, &[("val/loss", report.loss), ("val/accuracy", report.accuracy)])?;
        observer.on_eval(&EvalReport { step, report, best });
        Ok(())
    }

    fn eval_options(&self) -> eval::Options {
        eval::Options { documents: self.config.documents, ..Default::default() }
    }

    fn save(&mut self, observer: &mut dyn Observer) -> Result<()> {
        self.check_weights()?;
        self.check_next_loss()?;
        state::save(&self.dir, &self.model, &self.optimizer, &self.progress)
            .map_err(|error| self.not_saved(error))?;
        self.saved = Some(self.progress.step);
        observer.on_save(&state::path(&self.dir));
        Ok(())
    }

    fn save_model(&self) -> Result<()> {
        self.check_weights()?;
        self.model.save(&self.dir).map_err(|error| self.not_saved(error.into()))
    }

    fn not_saved(&self, error: TrainError) -> TrainError {
        match error {
            TrainError::Model(source) => {
                TrainError::Save { source, step: self.progress.step, saved: self.saved }
            }
            other => other,
        }
    }

    /// Refuses to keep weights or moments that are not numbers: nothing could go on from them.
    fn check_weights(&self) -> Result<()> {
        let bad = |values: &[f32]| values.iter().copied().find(|value| !value.is_finite());
        let weight = self.model.parameters().iter().find_map(|(_, tensor)| bad(tensor.data()));
        let moments = self.optimizer.first.iter().chain(&self.optimizer.second);
        let moment = moments.filter_map(|values| bad(values)).next();
        for (what, value) in [("value of a weight", weight), ("value of a moment", moment)] {
            if let Some(value) = value {
                return Err(self.not_finite(what, value.into(), self.progress.step));
            }
        }
        Ok(())
    }

    /// Refuses to keep a state of finite weights that the last step has sent too far to compute with. The loss of the
    /// sequences that come next tells; the run goes on as if it had not been asked.
    fn check_next_loss(&mut self) -> Result<()> {
        let position = self.batcher.position().clone();
        let batch = self.batcher.next_batch();
        self.batcher.seek(&position);
        let batch = batch?;
        let loss = self.model.loss(&view(&batch), Pass::eval())?;
        let loss = loss.value / loss.weight;
        match loss.is_finite() {
            true => Ok(()),
            false => Err(self.not_finite("loss after the update", loss, self.progress.step)),
        }
    }

    /// The last validation and the last save.
    fn finish(&mut self, finished: bool, metrics: &mut Metrics, observer: &mut dyn Observer) -> Result<()> {
        let validated = self.progress.best.is_some() && self.is_due(self.config.eval_interval);
        if finished && !validated {
            self.validate(metrics, observer)?;
        }
        // Without a validation the last model is the best there is.
        if self.progress.best.is_none() {
            self.check_next_loss()?;
            self.save_model()?;
        }
        self.save(observer)
    }

    /// What the run has come to. The best model is scored on all of the validation data.
    fn outcome(&self, finished: bool, metrics: &Metrics) -> Result<Outcome> {
        let plot = Some(metrics.plot()?);
        let val = match &self.val {
            Some(val) if finished => {
                let best = Gpt2::load(&self.dir)?;
                Some(eval::evaluate(&best, &self.tokenizer, val, self.eval_options(), &mut |_| {})?)
            }
            _ => None,
        };
        let Progress { step, best, seconds, .. } = self.progress;
        Ok(Outcome { step, finished, val, best, seconds, plot })
    }
}

/// A batch of the data as the model takes it.
fn view(batch: &OwnedBatch) -> Batch<'_> {
    let OwnedBatch { ids, targets, weights, batch, lens } = batch;
    Batch { ids, targets, weights, batch: *batch, lens: lens.as_deref() }
}

impl StepReport {
    fn values(&self) -> [(&'static str, f64); 6] {
        [
            ("train/loss", self.loss),
            ("lr", f64::from(self.lr)),
            ("grad_norm", self.grad_norm),
            ("tok_per_sec", self.tok_per_sec),
            ("gflops", self.flops_per_sec / 1e9),
            ("epoch", self.epoch),
        ]
    }
}

#[cfg(test)]
mod tests;
