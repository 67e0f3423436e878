//! The one file that resume needs: weights, moments, step, data position, seed and settings.
//!
//! `DIR/last/state.safetensors` holds tensors `model.NAME`, `first.NAME`, `second.NAME`, and the rest as JSON in
//! its metadata. It is written beside its target, synced and renamed: a kill at any moment leaves the old one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use data::batches::Position;
use models::Gpt2;
use models::checkpoint::{read_tensors, write_tensors};
use serde::{Deserialize, Serialize};

use crate::optimizer::Optimizer;
use crate::{Result, TrainConfig, TrainError};

/// Where a run stands, but for its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Optimiser steps made.
    pub step: u64,
    /// Sequences used, by source.
    pub position: Position,
    /// The lowest validation loss so far, and its step.
    pub best: Option<(f64, u64)>,
    /// Whether the validation that is due after this step was stopped before its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unjudged: bool,
    /// Seconds spent training.
    pub seconds: f64,
    /// A hash of the training tokens.
    pub data_hash: u64,
    /// A hash of the shares of the sources, where they are not those of their sizes; else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixture: Option<u64>,
    /// A hash of the held-out data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_hash: Option<u64>,
    /// A hash of the weights beside which an adapter is trained: the state does not hold them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_hash: Option<u64>,
    /// The model it started from, on the validation data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// `ln p(chosen) - ln p(rejected)` of each training pair under the model it started from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reference: Vec<f64>,
    /// The same of the held-out pairs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub val_reference: Vec<f64>,
    /// The settings.
    pub config: TrainConfig,
    /// What the caller wants to find again, such as the flags as they were typed.
    pub caller: serde_json::Value,
}

/// A model on the whole validation data, before training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Before {
    /// The mean loss.
    pub loss: f64,
    /// Share of tokens that were the most likely one; of pairs it is 0, since no answer has a reward yet.
    pub accuracy: f64,
}

/// Where the state of a run lies.
pub fn path(dir: &Path) -> PathBuf {
    dir.join("last").join("state.safetensors")
}

const KEY: &str = "progress";

/// Reads where a run stands, without its tensors being used.
pub fn load_progress(dir: &Path) -> Result<Progress> {
    Ok(load_file(dir)?.1)
}

type Tensors = HashMap<String, (Vec<usize>, Vec<f32>)>;

fn load_file(dir: &Path) -> Result<(Tensors, Progress)> {
    let path = path(dir);
    if !path.is_file() {
        return Err(TrainError::NoState { path });
    }
    let (tensors, metadata) = read_tensors(&path)?;
    let refuse = |reason: String| TrainError::State { path: path.clone(), reason };
    let text = metadata.get(KEY).ok_or_else(|| refuse("it is not the state of a run".into()))?;
    let progress = serde_json::from_str(text)
        .map_err(|error| refuse(format!("its progress is not readable: {error}")))?;
    Ok((tensors, progress))
}

/// Reads the state of a run into a model and an optimiser of the same shape.
pub fn load(dir: &Path, model: &mut Gpt2, optimizer: &mut Optimizer) -> Result<Progress> {
    let (mut tensors, progress) = load_file(dir)?;
    let path = path(dir);
    for (slot, (name, tensor)) in model.trainable_mut().into_iter().enumerate() {
        let shape = tensor.shape().to_vec();
        let mut take = |part: &str, into: &mut [f32]| {
            let key = format!("{part}.{name}");
            let found = tensors.remove(&key);
            match found {
                Some((got, values)) if got == shape => {
                    into.copy_from_slice(&values);
                    Ok(())
                }
                other => {
                    let got = other.map_or("missing".to_owned(), |(got, _)| format!("of shape {got:?}"));
                    let reason = format!("tensor `{key}` is {got}, but the model needs {shape:?}");
                    Err(TrainError::State { path: path.clone(), reason })
                }
            }
        };
        take("model", tensor.data_mut())?;
        take("first", &mut optimizer.first[slot])?;
        if !optimizer.second[slot].is_empty() {
            take("second", &mut optimizer.second[slot])?;
        }
    }
    Ok(progress)
}

/// Writes the state of a run.
pub fn save(dir: &Path, model: &Gpt2, optimizer: &Optimizer, progress: &Progress) -> Result<()> {
    let path = path(dir);
    let folder = path.parent().unwrap_or(dir);
    std::fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
    let trainable = model.trainable();
    let mut tensors: Vec<(String, &[usize], &[f32])> = Vec::with_capacity(3 * trainable.len());
    for (slot, (name, tensor)) in trainable.iter().enumerate() {
        tensors.push((format!("model.{name}"), tensor.shape(), tensor.data()));
        tensors.push((format!("first.{name}"), tensor.shape(), &optimizer.first[slot]));
        if !optimizer.second[slot].is_empty() {
            tensors.push((format!("second.{name}"), tensor.shape(), &optimizer.second[slot]));
        }
    }
    let text = serde_json::to_string(progress).expect("progress can be written");
    write_tensors(&path, tensors.into_iter(), [(KEY.to_owned(), text)].into())?;
    Ok(())
}
