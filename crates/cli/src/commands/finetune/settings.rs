//! The settings of a fine-tuning run: as typed, or as they stand in the run that is resumed.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use models::LoraConfig;
use serde::{Deserialize, Serialize};
use train::Objective;

use crate::examples::Reading;
use crate::settings::Settings as TrainSettings;

/// Everything about a run that may be typed; it is kept in finetune.toml.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Model to start from: a directory, a file, or a name on the hub, such as gpt2
    #[arg(short, long, value_name = "MODEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,

    /// Examples: .jsonl, .json, .csv and .tsv, each also .gz; files of several shapes may be mixed. Known are the fields messages,
    /// conversations or turns; prompt, completion; instruction, input, output; text, summary or summaries; title, text; and
    /// for preference tuning prompt, chosen, rejected
    #[arg(long, num_args = 1.., value_name = "FILE", help_heading = "Data")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<PathBuf>,
    /// Examples to validate on, instead of a part of --data
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with = "val_fraction", help_heading = "Data")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub val: Vec<PathBuf>,
    /// Share of the examples held out for validation, chosen by prompt and seed; 0 validates on none [default: 0.05]
    #[arg(long, value_name = "0..1", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_fraction: Option<f64>,
    #[command(flatten)]
    #[serde(flatten)]
    pub reading: Reading,
    /// Tokens to learn: those of the assistant, or all [default: answers]
    #[arg(long, value_name = "answers|all", value_parser = ["answers", "all"], help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_on: Option<String>,

    /// Train a small adapter beside the model instead of all weights, as in r=8,alpha=16,dropout=0.05,targets=c_attn+c_proj
    #[arg(long, value_name = "SPEC", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<String>,
    /// With preferences (DPO): how strongly the model is held to where it started [default: 0.1]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// Optimiser steps to make, instead of --epochs
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Times to go through the examples [default: 3]
    #[arg(long, value_name = "N", conflicts_with = "max_steps", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Examples computed at once [default: 8]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Batches whose gradients are summed for one step [default: 1]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_accum: Option<usize>,
    /// Highest learning rate [default: 5e-5 at width 768, more for narrower models, up to 3e-4; ten times that with --lora; a tenth with
    /// preferences]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f32>,
    /// Learning rate at the end of cosine and linear [default: a tenth of --lr]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr: Option<f32>,
    /// cosine, linear, constant [default: cosine]
    #[arg(long, value_name = "NAME", value_parser = ["cosine", "linear", "constant"], help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Steps over which the learning rate rises from 0 [default: a twentieth of all]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Pull of the weights towards zero [default: 0.01; 0 with --lora]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f32>,
    /// Dropout on embeddings, attention and residuals [default: that of the model; 0 with preferences]
    #[arg(long, value_name = "P", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f32>,
    /// Steps between validations; 0 validates after each epoch [default: a tenth of the run, at most an epoch]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_interval: Option<u64>,
    /// Validations without a better one after which the run ends; 0 makes all steps [default: 3]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
    /// Start of all random numbers [default: random, and reported]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Type of the products: f32, bf16, or auto: bf16 where the CPU multiplies it [default: auto]
    #[arg(long, value_name = "TYPE", value_parser = ["auto", "f32", "bf16"], help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// Keep only what goes into each block, and compute the rest again on the way back: less memory, a quarter slower
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "true|false", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recompute: Option<bool>,
}

/// The width at which the learning rate is 5e-5, and the most that a narrower model gets.
const LR_AT: (f32, f32) = (768.0, 5e-5);
const MOST_LR: f32 = 3e-4;

impl Settings {
    /// Refuses what can be refused before any file is read.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.data.is_empty(), "no examples: give --data FILE…");
        ensure!(self.epochs != Some(0), "--epochs 0: it must be at least 1");
        let fraction = self.val_fraction();
        ensure!(
            (0.0..1.0).contains(&fraction),
            "--val-fraction {fraction}: it must be at least 0 and below 1"
        );
        let dropout = self.dropout.unwrap_or(0.0);
        ensure!((0.0..1.0).contains(&dropout), "--dropout {dropout}: it must be at least 0 and below 1");
        let beta = self.beta();
        ensure!(beta > 0.0 && beta.is_finite(), "--beta {beta}: it must be a positive number");
        self.reading.options()?;
        self.lora()?;
        crate::plan::train_config(&mut self.training(768, false), 768, 1)?;
        Ok(())
    }

    /// The adapter to train, if one is asked for.
    pub fn lora(&self) -> Result<Option<LoraConfig>> {
        let Some(spec) = &self.lora else { return Ok(None) };
        Ok(Some(spec.parse().with_context(|| format!("--lora {spec}"))?))
    }

    /// The share that is held out.
    pub fn val_fraction(&self) -> f64 {
        self.val_fraction.unwrap_or(if self.val.is_empty() { 0.05 } else { 0.0 })
    }

    /// Validations to wait for a better one.
    pub fn patience(&self) -> Option<u64> {
        Some(self.patience.unwrap_or(3)).filter(|&patience| patience > 0)
    }

    fn beta(&self) -> f64 {
        self.beta.unwrap_or(0.1)
    }

    /// What is made smaller.
    pub fn objective(&self, is_preference: bool) -> Result<Objective> {
        match (is_preference, self.beta) {
            (true, _) => Ok(Objective::Dpo { beta: self.beta() }),
            (false, None) => Ok(Objective::Likelihood),
            (false, Some(beta)) => {
                bail!("--beta {beta} is for preferences, and the data has no `chosen` and `rejected`")
            }
        }
    }

    /// What `gpt2 train` knows, too, under its names and with the defaults of fine-tuning.
    pub fn training(&self, n_embd: usize, is_preference: bool) -> TrainSettings {
        let lr = self.lr.unwrap_or_else(|| default_lr(n_embd, self.lora.is_some(), is_preference));
        TrainSettings {
            max_steps: self.max_steps,
            epochs: self.epochs.or(self.max_steps.is_none().then_some(3)),
            batch: self.batch,
            grad_accum: self.grad_accum,
            precision: self.precision.clone(),
            recompute: self.recompute,
            lr: Some(lr),
            min_lr: self.min_lr,
            schedule: self.schedule.clone(),
            warmup_steps: self.warmup_steps,
            weight_decay: Some(self.weight_decay.unwrap_or(if self.lora.is_some() { 0.0 } else { 0.01 })),
            beta2: Some(0.999),
            seed: self.seed,
            eval_interval: self.eval_interval,
            ..TrainSettings::default()
        }
    }

    /// Takes over what was resolved, so that it is shown and kept.
    pub fn keep(&mut self, resolved: &TrainSettings) {
        let TrainSettings { batch, grad_accum, precision, recompute, lr, min_lr, .. } = resolved.clone();
        let TrainSettings { schedule, warmup_steps, weight_decay, seed, eval_interval, .. } =
            resolved.clone();
        (self.max_steps, self.epochs) = (resolved.max_steps, None);
        (self.batch, self.grad_accum, self.precision, self.recompute) =
            (batch, grad_accum, precision, recompute);
        (self.lr, self.min_lr, self.schedule, self.warmup_steps) = (lr, min_lr, schedule, warmup_steps);
        (self.weight_decay, self.seed, self.eval_interval) = (weight_decay, seed, eval_interval);
    }

    /// These settings over those of the run that is resumed: only its length, and places of files, may change.
    pub fn over(self, saved: Settings) -> Result<Settings> {
        let Settings { model, data, val, max_steps, .. } = self.clone();
        let others = Settings { model: None, data: vec![], val: vec![], max_steps: None, ..self };
        let others = serde_json::to_value(others)?;
        ensure!(
            others.as_object().is_some_and(serde_json::Map::is_empty),
            "--resume goes on with the saved settings; leave out everything but --out, --max-steps and, if the files moved, -m, --data and --val"
        );
        let or = |new: Vec<PathBuf>, old: Vec<PathBuf>| if new.is_empty() { old } else { new };
        Ok(Settings {
            model: model.or(saved.model),
            data: or(data, saved.data),
            val: or(val, saved.val),
            max_steps: max_steps.or(saved.max_steps),
            ..saved
        })
    }

    /// The same with absolute paths, so that the run can be resumed from another working directory.
    pub fn absolute(&self) -> Result<Settings> {
        let whole = |path: &PathBuf| {
            std::path::absolute(path).with_context(|| format!("cannot find out where {} is", path.display()))
        };
        let model = self.model.clone().map(|model| match std::path::Path::new(&model).exists() {
            true => whole(&PathBuf::from(model)).map(|path| path.display().to_string()),
            false => Ok(model),
        });
        Ok(Settings {
            model: model.transpose()?,
            data: self.data.iter().map(whole).collect::<Result<_>>()?,
            val: self.val.iter().map(whole).collect::<Result<_>>()?,
            ..self.clone()
        })
    }
}

/// A learning rate for a model of this width: small, since the weights are good already; the narrower the model, the more it
/// takes. Adapters start at nothing and take ten times that; preferences go wrong sooner, and take a tenth.
fn default_lr(n_embd: usize, is_lora: bool, is_preference: bool) -> f32 {
    let (width, lr) = LR_AT;
    let lr = (lr * width / n_embd.max(1) as f32).min(MOST_LR);
    let lr = lr * if is_lora { 10.0 } else { 1.0 } * if is_preference { 0.1 } else { 1.0 };
    // Two digits, as people write it.
    format!("{lr:.1e}").parse().unwrap_or(lr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rates() {
        assert_eq!(default_lr(768, false, false), 5e-5);
        assert_eq!(default_lr(768, true, false), 5e-4);
        assert_eq!(default_lr(1600, false, true), 2.4e-6);
        assert_eq!(default_lr(64, false, false), 3e-4);
    }

    #[test]
    fn resuming_changes_the_length_only() {
        let saved = Settings { max_steps: Some(10), lr: Some(0.1), ..Settings::default() };
        let longer = Settings { max_steps: Some(20), ..Settings::default() };
        let merged = longer.over(saved.clone()).unwrap();
        assert_eq!((merged.max_steps, merged.lr), (Some(20), Some(0.1)));
        let other = Settings { lr: Some(0.2), ..Settings::default() };
        assert!(other.over(saved).unwrap_err().to_string().contains("leave out everything"));
    }
}
