//! Golden cases as `make.py` beside this file writes them. Included by the tests of several crates.
#![allow(dead_code)] // not every test that includes this file reads all of it

use std::fs;
use std::path::{Path, PathBuf};

use models::Batch;
use serde::Deserialize;

/// The cases that are committed.
pub const CASES: [&str; 3] = ["odd", "deep", "wide"];

/// The folder of a case.
pub fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(case)
}

/// `golden.json` of one case.
#[derive(Deserialize)]
pub struct Golden {
    /// What short rows are filled with.
    pub pad: u32,
    /// Batches whose logits and gradients are known.
    pub batches: Vec<GoldenBatch>,
    /// Ten steps of training.
    pub steps: Option<Steps>,
}

/// A batch and its mean loss.
#[derive(Deserialize)]
pub struct GoldenBatch {
    pub name: String,
    pub rows: Vec<Vec<u32>>,
    pub loss: f64,
}

/// Steps of AdamW, and what the weights are after.
#[derive(Deserialize)]
pub struct Steps {
    pub settings: Settings,
    pub taken: Vec<Step>,
    pub final_norms: std::collections::BTreeMap<String, f64>,
}

/// The optimiser and schedule of [`Steps`].
#[derive(Deserialize)]
pub struct Settings {
    pub n: u64,
    pub lr: f64,
    pub min_lr: f64,
    pub warmup_steps: u64,
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
    pub clip_norm: f64,
}

/// One step: its batch, learning rate, loss before it, and gradient norm before clipping.
#[derive(Deserialize)]
pub struct Step {
    pub rows: Vec<Vec<u32>>,
    pub lr: f64,
    pub loss: f64,
    pub grad_norm: f64,
}

impl Golden {
    /// Reads `golden.json` in `dir`.
    pub fn read(dir: &Path) -> Golden {
        let path = dir.join("golden.json");
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// Rows of n + 1 tokens as n inputs and n targets each, padded on the right.
pub struct Padded {
    pub ids: Vec<u32>,
    pub targets: Vec<u32>,
    pub weights: Vec<f32>,
    pub lens: Vec<usize>,
    pub time: usize,
}

impl Padded {
    /// Pads `rows` with `pad`, at weight 0.
    pub fn new(rows: &[Vec<u32>], pad: u32) -> Padded {
        let lens: Vec<usize> = rows.iter().map(|row| row.len() - 1).collect();
        let time = lens.iter().copied().max().unwrap_or(0);
        let mut batch = Padded { ids: vec![], targets: vec![], weights: vec![], lens, time };
        for row in rows {
            let (n, filled) = (row.len() - 1, batch.ids.len() + time);
            batch.ids.extend(&row[..n]);
            batch.targets.extend(&row[1..]);
            batch.weights.extend(vec![1.0; n]);
            batch.ids.resize(filled, pad);
            batch.targets.resize(filled, pad);
            batch.weights.resize(filled, 0.0);
        }
        batch
    }

    /// The model's view of it: the padded sequences, which causal attention and weights keep out of the loss.
    pub fn batch(&self) -> Batch<'_> {
        let Padded { ids, targets, weights, lens, .. } = self;
        Batch { ids, targets, weights, batch: lens.len(), lens: None }
    }

    /// The same sequences one after the other, without the padding.
    pub fn packed(&self) -> Padded {
        let kept: Vec<bool> = self.weights.iter().map(|&weight| weight > 0.0).collect();
        let keep =
            |ids: &[u32]| ids.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(&id, _)| id).collect();
        let (ids, targets): (Vec<u32>, Vec<u32>) = (keep(&self.ids), keep(&self.targets));
        Padded { weights: vec![1.0; ids.len()], ids, targets, lens: self.lens.clone(), time: self.time }
    }

    /// The model's view of [`Padded::packed`].
    pub fn packed_batch(&self) -> Batch<'_> {
        Batch { lens: Some(&self.lens), ..self.batch() }
    }
}
