//! What a model computes for some tokens, written down for others to compare with: `bench/peers/parity.py` does.
//!
//!     cargo run --release -p models --example forward -- DIR IDS.json OUT.safetensors TYPE NEW
//!
//! IDS.json holds rows of tokens of one length. OUT.safetensors gets `logits` (B, T, V), `hidden.I` (B, T, C), the stream
//! into block I (after the last: the final norm), `loss`, the mean over the T - 1 predictions of each row, and `greedy`
//! (B, NEW), the most likely tokens after each row, decoded with a cache. TYPE is f32, f16, bf16, q8 or q4. Where the
//! system tells, the peak of the process's memory in kB is printed.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;

use models::checkpoint::write_tensors;
use models::{Batch, Dtype, Gpt2, Pass, Tap};
use tensor::Tensor;

/// The stream into each block.
#[derive(Debug, Default)]
struct Streams(Vec<Tensor>);

impl Tap for Streams {
    fn see(&mut self, _weight: &str, _x: &Tensor) {}

    fn see_stream(&mut self, _layer: usize, x: &Tensor) {
        self.0.push(x.clone());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, ids, out, dtype, new] = &args[..] else { return Err("see the head of forward.rs".into()) };
    let dtype = Dtype::from_name(dtype).ok_or("there is no such type of weights")?;
    let rows: Vec<Vec<u32>> = serde_json::from_slice(&std::fs::read(ids)?)?;
    let model = Gpt2::open(Path::new(dir), Some(dtype))?;

    let ids = rows.concat();
    let mut streams = Streams::default();
    let hidden = model.hidden(&ids, rows.len(), &mut Pass::eval().tapped(&mut streams))?;
    let logits = model.logits(&ids, rows.len(), &mut Pass::eval())?;
    let mut results: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    streams.0.push(hidden);
    for (layer, x) in streams.0.iter().enumerate() {
        results.push((format!("hidden.{layer}"), x.shape().to_vec(), x.decoded().into_owned()));
    }
    results.push(("logits".into(), logits.shape().to_vec(), logits.data().to_vec()));
    results.push(("loss".into(), vec![1], vec![loss(&model, &rows)?]));
    let new = new.parse()?;
    let greedy: Vec<Vec<f32>> =
        rows.iter().map(|row| continuation(&model, row, new)).collect::<Result<_, _>>()?;
    results.push(("greedy".into(), vec![rows.len(), new], greedy.concat()));
    let tensors = results.iter().map(|(name, shape, values)| (name.clone(), &shape[..], &values[..]));
    write_tensors(Path::new(out), tensors, HashMap::new())?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
    println!("{}", peak.unwrap_or("unknown"));
    Ok(())
}

/// The mean loss of every token but each row's first.
fn loss(model: &Gpt2, rows: &[Vec<u32>]) -> models::Result<f32> {
    let ids: Vec<u32> = rows.iter().flat_map(|row| &row[..row.len() - 1]).copied().collect();
    let targets: Vec<u32> = rows.iter().flat_map(|row| &row[1..]).copied().collect();
    let weights = vec![1.0; ids.len()];
    let batch = Batch { ids: &ids, targets: &targets, weights: &weights, batch: rows.len(), lens: None };
    let losses = model.scores(&batch)?.loss;
    let sum: f64 = losses.iter().map(|&loss| f64::from(loss)).sum();
    Ok((sum / losses.len() as f64) as f32)
}

/// The `new` most likely tokens after a row, as a tensor's values.
fn continuation(model: &Gpt2, row: &[u32], new: usize) -> models::Result<Vec<f32>> {
    let (mut cache, mut next, mut written) = (model.cache(), row.to_vec(), Vec::new());
    while written.len() < new {
        let logits = model.last_logits(&next, &mut Pass::cached(&mut cache))?;
        let best = tensor::rows::argmax(&logits);
        written.push(best as f32);
        next = vec![best as u32];
    }
    Ok(written)
}
