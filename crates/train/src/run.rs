//! The training loop.
//!
//! A step: batches → losses and gradients → their norm, clipped → the optimiser → the log. The numbers are
//! checked before the weights change, so that a loss that is not a number leaves the last good state. Validation
//! keeps the best model in `DIR`; the resumable state goes to `DIR/last`.
//!
//! Text, examples and pairs go through the same steps: [`Batches`] says which tokens count, and the [`Objective`]
//! what is made of their losses.

use std::path::{Path, PathBuf};
use std::time::Instant;

use data::batches::Batches;
use data::fingerprint;
use eval::EvalError;
use eval::answers::view;
use models::{Gpt2, Pass};
use tensor::Grads;
use tokenizer::Tokenizer;

use crate::dpo::{self, Objective};
use crate::metrics::Metrics;
use crate::optimizer::{Optimizer, clip_factor, global_norm};
use crate::state::{self, Before, Progress};
use crate::validation::{Judge, Measured, Validation};
use crate::{Result, TrainConfig, TrainError, config};

mod pace;
mod report;
mod saving;

pub use pace::Pace;
pub use report::{EvalReport, Observer, Outcome, StepReport};

/// A run in progress.
pub struct Run {
    model: Gpt2,
    tokenizer: Tokenizer,
    optimizer: Optimizer,
    batches: Box<dyn Batches>,
    val: Option<Validation>,
    config: TrainConfig,
    progress: Progress,
    dir: PathBuf,
    grads: Grads,
    flops_per_token: f64,
    /// Steps completed by the state that is saved.
    saved: Option<u64>,
    /// Steps completed by the model that was last judged here.
    judged: Option<u64>,
    /// The best model on the whole validation data, where it was judged by all of it here.
    best: Option<Measured>,
}

impl Run {
    /// Prepares a run that writes to `dir`. `caller` is kept in the state for whoever resumes.
    pub fn new(
        model: Gpt2,
        tokenizer: Tokenizer,
        batches: impl Batches + 'static,
        val: Option<Validation>,
        config: TrainConfig,
        dir: &Path,
        caller: serde_json::Value,
    ) -> Result<Run> {
        config.validate()?;
        let val = val.filter(|val| !val.is_empty());
        if let (Some(patience), None) = (config.patience, &val) {
            let want = "there is no held-out data to judge by; hold some out, or leave it off";
            return Err(TrainError::Setting { name: "--patience", got: patience.to_string(), want });
        }
        let data_hash = batches.fingerprint()?;
        let val_hash = val.as_ref().map(Validation::fingerprint).transpose()?;
        let position = batches.position().clone();
        let flops_per_token = config::cost_of(&model, &config, batches.time()).flops_per_token;
        let progress = Progress {
            step: 0,
            position,
            best: None,
            unjudged: false,
            seconds: 0.0,
            data_hash,
            mixture: Some(batches.mixture()),
            val_hash,
            base_hash: model.lora().map(|_| hash(&model)),
            before: None,
            reference: Vec::new(),
            val_reference: Vec::new(),
            config: config.clone(),
            caller,
        };
        Ok(Run {
            optimizer: Optimizer::new(config.optimizer, &model),
            grads: model.zero_grads(),
            model,
            tokenizer,
            batches: Box::new(batches),
            val,
            config,
            progress,
            dir: dir.to_owned(),
            flops_per_token,
            saved: None,
            judged: None,
            best: None,
        })
    }

    /// Refuses a directory that already holds a model or a run.
    pub fn refuse_existing(dir: &Path) -> Result<()> {
        let holds = |what| Err(TrainError::Exists { dir: dir.to_owned(), what });
        if dir.join(models::checkpoint::WEIGHTS).exists() {
            return holds("a model");
        }
        if dir.join(models::checkpoint::ADAPTER_WEIGHTS).exists() {
            return holds("an adapter");
        }
        if state::path(dir).exists() {
            return holds("a training run");
        }
        Ok(())
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
        // States of before these were kept have none.
        if progress.mixture.is_some() && progress.mixture != self.progress.mixture {
            return refuse("its sources had other weights; give each --data its `=WEIGHT` as when it began");
        }
        if progress.val_hash.is_some() && progress.val_hash != self.progress.val_hash {
            return refuse(
                "the held-out data is not what this run was judged by so far; give the same --val-data (for finetune, --val)",
            );
        }
        if progress.base_hash != self.progress.base_hash {
            return refuse(
                "the model to start from is not the one that this run's adapter was trained beside",
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
        self.batches.seek(&progress.position);
        self.saved = Some(progress.step);
        let (mixture, val_hash) = (self.progress.mixture, self.progress.val_hash);
        self.progress = Progress { config: self.config.clone(), mixture, val_hash, ..progress };
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

    /// Trains until the last step, or until the observer asks to stop.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Outcome> {
        self.tokenizer.save(&self.dir)?;
        self.progress.config = self.config.clone();
        let mut metrics = Metrics::open(&self.dir, self.progress.step)?;
        let nothing_to_do = self.is_finished() && !self.progress.unjudged;
        let mut stopped = !self.prepare(observer)? || !self.validate_before(&mut metrics, observer)?;
        if stopped {
            self.save(observer)?;
            return self.outcome(&metrics, observer);
        }
        if self.progress.unjudged {
            stopped = !self.validate(&mut metrics, observer)?;
        }
        while !self.is_finished() && !stopped {
            let report = self.train_step()?;
            metrics.write(report.step, &report.values())?;
            observer.on_step(&report, &self.model);
            if self.is_due(self.config.eval_interval) {
                stopped = !self.validate(&mut metrics, observer)?;
            }
            stopped = stopped || observer.should_stop();
            if self.config.save_interval > 0 && self.is_due(self.config.save_interval) && !stopped {
                self.save(observer)?;
            }
        }
        if !nothing_to_do {
            self.finish(&mut metrics, observer)?;
        }
        self.outcome(&metrics, observer)
    }

    /// Whether all steps were made, or validation says that more would not help.
    fn is_finished(&self) -> bool {
        self.progress.step >= self.config.max_steps || self.is_impatient()
    }

    /// Whether as many validations as patience lasts have not been better than the best one.
    fn is_impatient(&self) -> bool {
        let (Some(patience), Some((_, best))) = (self.config.patience, self.progress.best) else {
            return false;
        };
        self.progress.step - best >= patience.saturating_mul(self.config.eval_interval)
    }

    fn is_due(&self, interval: u64) -> bool {
        interval > 0 && self.progress.step.is_multiple_of(interval)
    }

    /// Has the model score all pairs before it changes, where it is to learn from pairs. False if asked to stop.
    fn prepare(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        if self.config.objective == Objective::Likelihood || !self.progress.reference.is_empty() {
            return Ok(true);
        }
        let not_finite = |value: f64| TrainError::NotFinite {
            what: "log-probability of a pair under the model to start from",
            value,
            step: 0,
            saved: None,
        };
        let mut held_out = Vec::new();
        if let Some(Validation::Pairs(pairs)) = &self.val {
            let wanted = pairs.iter().take_while(|_| !observer.should_stop());
            eval::answers::log_ratios(&self.model, wanted, &mut |ratio| held_out.push(ratio))?;
            if held_out.len() < pairs.len() {
                return Ok(false);
            }
        }
        let n = self.batches.sequences_per_epoch() as usize;
        let mut reference = vec![0.0; n];
        let mut done = 0;
        // At the beginning there is no epoch yet; the first one has every pair once.
        while self.batches.epoch() == 0 && !observer.should_stop() {
            let batch = self.batches.next_batch()?;
            let pass = Pass::eval().precision(self.config.precision);
            let losses = self.model.weighted_scores(&view(&batch), pass)?.loss;
            for (&pair, ratio) in batch.examples.iter().zip(dpo::log_ratios(&batch, &losses)) {
                if !ratio.is_finite() {
                    return Err(not_finite(ratio));
                }
                reference[pair] = ratio;
            }
            done += batch.examples.len();
            observer.on_prepare(done.min(n), n);
        }
        let all = self.batches.epoch() > 0;
        self.batches.seek(&self.progress.position);
        if all {
            (self.progress.reference, self.progress.val_reference) = (reference, held_out);
        }
        Ok(all)
    }

    /// One optimiser step.
    pub fn train_step(&mut self) -> Result<StepReport> {
        self.prepare(&mut ())?;
        let start = Instant::now();
        let step = self.progress.step;
        let epoch = step / self.config.steps_per_epoch.max(1);
        let lr = self.config.schedule.at(step, self.config.max_steps, epoch);
        let position = self.batches.position().clone();
        let Summed { loss, weight, tokens, pairs } = self.gradients()?;
        let checked = self.check(loss / weight, weight);
        let (loss, norm, scale) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                self.batches.seek(&position);
                return Err(error);
            }
        };
        self.optimizer.step(&mut self.model, &self.grads, lr, scale, step);
        self.grads.forget();
        let seconds = start.elapsed().as_secs_f64();
        self.progress.step += 1;
        self.progress.seconds += seconds;
        self.progress.position = self.batches.position().clone();
        Ok(StepReport {
            step: step + 1,
            max_steps: self.config.max_steps,
            epoch: (step + 1) as f64 / self.config.steps_per_epoch.max(1) as f64,
            loss,
            rewards: (pairs.pairs > 0.0).then(|| pairs.rewards()),
            lr,
            grad_norm: norm,
            tok_per_sec: tokens as f64 / seconds,
            flops_per_sec: tokens as f64 / seconds * self.flops_per_token,
        })
    }

    /// Sums the gradients of the step's batches.
    fn gradients(&mut self) -> Result<Summed> {
        let mut sum = Summed::default();
        for micro in 0..self.config.grad_accum as u64 {
            let batch = self.batches.next_batch()?;
            let number = self.progress.step * self.config.grad_accum as u64 + micro;
            let pass = Pass::train(std::mem::take(&mut self.grads), self.config.seed, number)
                .precision(self.config.precision)
                .recompute(self.config.recompute);
            let result = match self.config.objective {
                Objective::Likelihood => {
                    let result = self.model.loss(&view(&batch), pass)?;
                    sum.loss += result.value;
                    sum.weight += result.weight;
                    result
                }
                Objective::Dpo { beta } => self.model.loss_weighted_by(&view(&batch), pass, |losses| {
                    let (weights, pairs) = dpo::weights(&batch, losses, beta, &self.progress.reference);
                    sum.loss += pairs.loss;
                    sum.weight += pairs.pairs;
                    sum.pairs += pairs;
                    weights
                })?,
            };
            sum.tokens += batch.ids.len();
            self.grads = result.backward().expect("a training pass has a way back");
        }
        Ok(sum)
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

    /// Judges the model that the run starts from, where the settings ask for it: it is the best until another is better. False if
    /// asked to stop.
    fn validate_before(&mut self, metrics: &mut Metrics, observer: &mut dyn Observer) -> Result<bool> {
        let Some(val) = self.val.as_ref().filter(|_| self.config.eval_first && self.progress.step == 0)
        else {
            return Ok(true);
        };
        let (all, part) = (val.len(), val.part(self.config.eval_tokens));
        let Some(before) = self.measure(val, all, observer)? else { return Ok(false) };
        let (loss, accuracy) = (before.loss(), before.accuracy());
        let first = if part == all { Some(before) } else { self.measure(val, part, observer)? };
        let Some(report) = first else { return Ok(false) };
        self.progress.before = Some(Before { loss, accuracy });
        self.judge(report, metrics, observer)?;
        Ok(true)
    }

    /// Scores the validation data, and keeps the model if it is the best so far. False if asked to stop before that was done: the
    /// run that is resumed begins with it.
    fn validate(&mut self, metrics: &mut Metrics, observer: &mut dyn Observer) -> Result<bool> {
        let Some(val) = &self.val else { return Ok(true) };
        let report = self.measure(val, val.part(self.config.eval_tokens), observer)?;
        self.progress.unjudged = report.is_none();
        let Some(report) = report else { return Ok(false) };
        self.judge(report, metrics, observer)?;
        Ok(true)
    }

    fn judge(&mut self, report: Measured, metrics: &mut Metrics, observer: &mut dyn Observer) -> Result<()> {
        let (step, loss) = (self.progress.step, report.loss());
        let best = self.progress.best.is_none_or(|(best, _)| loss < best);
        if best {
            self.save_model()?;
            self.progress.best = Some((loss, step));
            let is_whole =
                self.val.as_ref().is_some_and(|val| val.part(self.config.eval_tokens) == val.len());
            self.best = is_whole.then(|| report.clone());
        }
        self.judged = Some(step);
        metrics.write(step, &report.values())?;
        observer.on_eval(&EvalReport { step, report, best });
        Ok(())
    }

    /// The model as it is, on the first `n` of the validation data; none if asked to stop.
    fn measure(&self, val: &Validation, n: usize, observer: &mut dyn Observer) -> Result<Option<Measured>> {
        let damaged = |loss: f64| Err(self.not_finite("validation loss", loss, self.progress.step));
        match val.measure(&self.model, n, &self.judgement(), || observer.should_stop()) {
            Ok(measured) => Ok(Some(measured)),
            Err(EvalError::Stopped) => Ok(None),
            Err(EvalError::NotFinite { loss, .. }) => damaged(loss.into()),
            Err(EvalError::ExampleNotFinite { loss, .. }) => damaged(loss),
            Err(error) => Err(error.into()),
        }
    }

    fn judgement(&self) -> Judge<'_> {
        let beta = match self.config.objective {
            Objective::Likelihood => 0.0,
            Objective::Dpo { beta } => beta,
        };
        let (tokenizer, documents) = (&self.tokenizer, self.config.documents);
        Judge { tokenizer, documents, beta, reference: &self.progress.val_reference }
    }

    /// The last validation and the last save.
    fn finish(&mut self, metrics: &mut Metrics, observer: &mut dyn Observer) -> Result<()> {
        let is_judged = self.judged == Some(self.progress.step);
        if self.is_finished() && !is_judged && !self.progress.unjudged {
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
    fn outcome(&self, metrics: &Metrics, observer: &mut dyn Observer) -> Result<Outcome> {
        let (plot, finished) = (metrics.plot()?, self.is_finished() && !self.progress.unjudged);
        let val = match &self.val {
            Some(_) if finished && self.best.is_some() => self.best.clone(),
            Some(val) if finished => {
                let best = self.model.load_trained(&self.dir)?;
                match val.measure(&best, val.len(), &self.judgement(), || observer.should_stop()) {
                    Err(EvalError::Stopped) => None,
                    measured => Some(measured?),
                }
            }
            _ => None,
        };
        let Progress { step, best, seconds, before, .. } = self.progress;
        let stopped_early = finished && step < self.config.max_steps;
        Ok(Outcome { step, finished, stopped_early, before, val, best, seconds, plot })
    }
}

/// A hash of all weights' bits.
fn hash(model: &Gpt2) -> u64 {
    let parameters = model.parameters();
    let bits = parameters.iter().flat_map(|(_, tensor)| tensor.data()).map(|x| x.to_bits());
    fingerprint::of_numbers(fingerprint::NOTHING, bits)
}

/// Sums over the batches of a step.
#[derive(Default)]
struct Summed {
    loss: f64,
    /// What the loss is to be divided by.
    weight: f64,
    tokens: usize,
    pairs: dpo::Sums,
}

#[cfg(test)]
mod tests;
