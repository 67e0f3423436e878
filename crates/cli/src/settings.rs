//! The settings of a training run as they are typed: flags, or a TOML recipe with the same names.
//!
//! Two stages, one way: [`Settings`] is what was typed, each field possibly absent; `train::TrainConfig` is what
//! will run. A recipe is read first, flags win over it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::input;

/// Everything about a training run that may be typed or stand in a recipe.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Texts to train on: .txt, .jsonl, .json (field `text`), each also .gz, or a directory of prepared shards;
    /// PATH=WEIGHT mixes several in proportion
    #[arg(long, num_args = 1.., value_name = "FILE[=WEIGHT]", help_heading = "Data")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<String>,
    /// Texts to validate on, instead of the last part of the training data
    #[arg(long, num_args = 1.., value_name = "FILE", help_heading = "Data")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub val_data: Vec<PathBuf>,
    /// Share of each text, from its end, held out for validation [default: 0.1]
    #[arg(long, value_name = "0..1", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_fraction: Option<f64>,
    /// Encoding of the texts, such as gb18030, big5, utf-16le [default: utf-8]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Vocabulary: gpt2, char, word:N, bpe:N (N tokens, trained on the data), a directory or file that holds
    /// one, or a name on the hub
    /// [default: that of the shards or the initial model, else gpt2]
    #[arg(long, value_name = "KIND", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// stream: cut the whole text into full windows; documents: one sequence each, of its own length
    /// [default: stream]
    #[arg(long, value_name = "stream|documents", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequences: Option<String>,

    /// Shape of the model: gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, gpt2-small, gpt2-mini, gpt2-nano
    /// [default: gpt2-mini]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Transformer blocks
    #[arg(long, value_name = "N", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_layer: Option<usize>,
    /// Attention heads in each block
    #[arg(long, value_name = "N", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_head: Option<usize>,
    /// Width of the model; a multiple of the number of heads
    #[arg(long, value_name = "N", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_embd: Option<usize>,
    /// Longest sequence, in tokens
    #[arg(long, value_name = "N", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_ctx: Option<usize>,
    /// Initial weights: gpt2 (normal, 0.02), xavier, or a model to continue from: a directory, a file, or a name on the hub, such as
    /// ORG/NAME or hf:gpt2 [default: gpt2]
    #[arg(long, value_name = "KIND|MODEL", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Dropout on embeddings, attention and residuals [default: 0]
    #[arg(long, value_name = "P", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f32>,
    /// Dropout on embeddings alone
    #[arg(long, value_name = "P", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout_embd: Option<f32>,
    /// Dropout on attention probabilities alone
    #[arg(long, value_name = "P", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout_attn: Option<f32>,
    /// Dropout on residuals alone
    #[arg(long, value_name = "P", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout_resid: Option<f32>,

    /// Optimiser steps to make
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Times to go through the data, instead of --max-steps [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "max_steps", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Minutes for all of it, instead of --max-steps: the first steps are timed, and become a number of steps, which is printed and
    /// saved
    #[arg(long, value_name = "M", conflicts_with_all = ["max_steps", "epochs"], help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minutes: Option<f64>,
    /// Sequences computed at once [default: 8]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Batches whose gradients are summed for one step [default: 1]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_accum: Option<usize>,
    /// Type of the products: f32, bf16 (with f32 weights, sums and residual stream), or auto: bf16 where the CPU
    /// multiplies it [default: auto]
    #[arg(long, value_name = "TYPE", value_parser = ["auto", "f32", "bf16"], help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// Keep only what goes into each block, and compute the rest again on the way back: less memory, a quarter slower
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "true|false", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recompute: Option<bool>,
    /// adamw (decay on matrices only), adam, sgd, muon (for the blocks' matrices, adamw for the rest) [default: adamw]
    #[arg(long, value_name = "NAME", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<String>,
    /// Highest learning rate [default: 1e-3 up to width 256, 6e-4 beyond; 0.1 for sgd]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f32>,
    /// Learning rate at the end of cosine and linear [default: a tenth of --lr]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr: Option<f32>,
    /// cosine, linear, constant, step [default: cosine]
    #[arg(long, value_name = "NAME", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Steps over which the learning rate rises from 0 [default: a twentieth of all, at most 2000; 0 for step]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// With --schedule step: periods between reductions [default: 1]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<u64>,
    /// With --schedule step: factor of each reduction [default: 0.95]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f32>,
    /// With --schedule step: whether a period is a step or an epoch [default: epoch]
    #[arg(long, value_name = "step|epoch", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_per: Option<String>,
    /// Pull of the weights towards zero [default: 0.1 for adamw and muon, else 0]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f32>,
    /// Memory of Adam's first moment [default: 0.9]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f32>,
    /// Memory of Adam's second moment [default: 0.95; 0.999 for adam]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f32>,
    /// Added to Adam's denominator [default: 1e-8]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f32>,
    /// Momentum of sgd and muon [default: 0.9; 0.95 for muon]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f32>,
    /// Longest gradient, as one vector; 0 turns clipping off [default: 1.0]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f32>,
    /// Largest element of the gradient [default: no limit]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_value: Option<f32>,
    /// Start of all random numbers [default: random, and reported]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Steps between validations; 0 validates after each epoch [default: a tenth of the run, at most 500]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_interval: Option<u64>,
    /// Steps between saves of the resumable state; 0 saves at the end only [default: as --eval-interval]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_interval: Option<u64>,
}

impl Settings {
    /// These settings over those of a recipe file.
    pub fn over_recipe(self, path: &Path) -> anyhow::Result<Settings> {
        let text = input::read_settings(path)?;
        let recipe: Settings = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        let check = refuse_not_finite(&recipe).and_then(|()| refuse_two_lengths(&recipe));
        check.with_context(|| format!("in {}", path.display()))?;
        self.over(recipe)
    }

    /// Each setting of `self` that is there, else that of `base`.
    pub fn over(self, base: Settings) -> anyhow::Result<Settings> {
        refuse_not_finite(&self)?;
        let (typed, mut merged) = (serde_json::to_value(&self)?, serde_json::to_value(&base)?);
        let (Some(typed), Some(target)) = (typed.as_object(), merged.as_object_mut()) else {
            bail!("settings are a table");
        };
        if LENGTHS.iter().any(|&name| typed.contains_key(name)) {
            target.retain(|name, _| !LENGTHS.contains(&name.as_str()));
        }
        if typed.contains_key("preset") {
            target.retain(|name, _| !["n-layer", "n-head", "n-embd", "n-ctx"].contains(&name.as_str()));
        }
        target.extend(typed.clone());
        Ok(serde_json::from_value(merged)?)
    }
}

/// The ways to say how long a run is.
const LENGTHS: [&str; 3] = ["max-steps", "epochs", "minutes"];

/// Refuses a recipe of which one length would be ignored.
fn refuse_two_lengths(recipe: &Settings) -> anyhow::Result<()> {
    let values = serde_json::to_value(recipe)?;
    let given: Vec<&str> = LENGTHS.into_iter().filter(|&name| values.get(name).is_some()).collect();
    ensure!(given.len() <= 1, "{} say both how long to train; keep one of them", given.join(" and "));
    Ok(())
}

/// Refuses `nan` and `inf`, which would be lost on the way: JSON has no such numbers.
fn refuse_not_finite(settings: &Settings) -> anyhow::Result<()> {
    let values = serde_json::to_value(settings)?;
    let lost = values.as_object().into_iter().flatten().find(|(_, value)| value.is_null());
    lost.map_or(Ok(()), |(name, _)| bail!("--{name} must be a number that is not infinite"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_recipe() {
        let recipe = Settings { lr: Some(0.1), batch: Some(4), epochs: Some(3), ..Settings::default() };
        let flags = Settings { lr: Some(0.2), max_steps: Some(10), ..Settings::default() };
        let merged = flags.over(recipe).unwrap();
        assert_eq!((merged.lr, merged.batch), (Some(0.2), Some(4)));
        assert_eq!((merged.max_steps, merged.epochs), (Some(10), None));
    }

    #[test]
    fn a_recipe_has_one_length() {
        let recipe = Settings { minutes: Some(3.0), ..Settings::default() };
        assert!(refuse_two_lengths(&recipe).is_ok());
        let merged = Settings { epochs: Some(2), ..Settings::default() }.over(recipe.clone()).unwrap();
        assert_eq!((merged.minutes, merged.epochs), (None, Some(2)));
        let error = refuse_two_lengths(&Settings { max_steps: Some(10), ..recipe }).unwrap_err().to_string();
        assert!(error.starts_with("max-steps and minutes"), "{error}");
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        let fails = |settings: Settings| settings.over(Settings::default()).unwrap_err().to_string();
        assert!(fails(Settings { lr: Some(f32::NAN), ..Settings::default() }).contains("--lr"));
        assert!(
            fails(Settings { val_fraction: Some(f64::INFINITY), ..Settings::default() })
                .contains("--val-fraction")
        );
    }

    #[test]
    fn a_recipe_with_an_unknown_name_is_refused() {
        let error = toml::from_str::<Settings>("learning-rate = 1.0").unwrap_err().to_string();
        assert!(error.contains("learning-rate") && error.contains("expected one of"), "{error}");
    }

    #[test]
    fn every_committed_recipe_parses() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let mut recipes: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        recipes.retain(|path| !path.ends_with("serve.toml")); // settings of a server
        assert!(recipes.len() >= 3);
        for path in recipes {
            Settings::default().over_recipe(&path).unwrap();
        }
    }
}
