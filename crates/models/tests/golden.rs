//! The whole model held to PyTorch and transformers: logits, loss, and the gradient of every parameter.
//!
//! `tests/golden/make.py` makes the small cases, which are committed. `tests/golden/make_124m.py` makes one of
//! GPT-2's released shape, too large to commit: name its folder in `GOLDEN_124M`.

#[path = "../../../tests/golden/golden.rs"]
mod golden;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use golden::{CASES, Golden, GoldenBatch, Padded};
use models::checkpoint::read_tensors;
use models::{Batch, Gpt2, Pass};
use tensor::{Grads, Precision};

/// Largest difference of a logit, over the spread of all logits.
const LOGITS: f32 = 1e-4;
/// Largest |got - want| / |want| of a gradient, both Euclidean.
const GRADIENT: f64 = 1e-4;

/// Most of PyTorch's own error under bfloat16 autocast that ours may be (`tests/golden/autocast.py` measures it).
const AUTOCAST: f64 = 1.5;

type Tensors = HashMap<String, (Vec<usize>, Vec<f32>)>;

#[test]
fn tiny_models_agree_with_transformers() {
    let errors: Vec<_> = CASES.iter().flat_map(|case| check_folder(case, &golden::folder(case))).collect();
    assert!(!errors.is_empty());
    check_bf16(&errors);
}

/// The instruction set is chosen once in a process, so each is tried in one of its own.
#[test]
fn tiny_models_agree_on_every_instruction_set() {
    for isa in tensor::isa::available() {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "tiny_models_agree_with_transformers", "--nocapture"])
            .env("GPT2_ISA", isa.name());
        let output = test.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("logits differ by"), "{}: {said}", isa.name());
    }
}

#[test]
fn the_124m_shape_agrees_with_transformers() {
    match std::env::var("GOLDEN_124M") {
        Ok(dir) => check_bf16(&check_folder("124M", Path::new(&dir))),
        Err(_) => eprintln!("SKIPPED: GOLDEN_124M does not name a folder made by tests/golden/make_124m.py"),
    }
}

fn check_folder(case: &str, dir: &Path) -> Vec<[(f64, f64); 2]> {
    let mut errors = Vec::new();
    let model = Gpt2::load(dir).unwrap_or_else(|error| panic!("{case}: {error}"));
    let (tensors, _) =
        read_tensors(&dir.join("golden.safetensors")).unwrap_or_else(|error| panic!("{case}: {error}"));
    let golden = Golden::read(dir);
    for batch in &golden.batches {
        let case = format!("{case}, batch `{}`", batch.name);
        let padded = Padded::new(&batch.rows, golden.pad);
        check_logits(&case, &model, &padded, find(&tensors, &format!("{}.logits", batch.name)));
        check_gradients(&format!("{case}, padded"), &model, &padded.batch(), batch, &tensors);
        let packed = padded.packed();
        check_gradients(&format!("{case}, packed"), &model, &packed.packed_batch(), batch, &tensors);
        errors.extend(bf16_errors(&case, dir, &model, &padded, batch, &tensors));
    }
    errors
}

/// bfloat16 is as near to exact arithmetic as PyTorch's autocast, over these batches together: in a tiny one, a single
/// row that the norms blow up decides.
fn check_bf16(errors: &[[(f64, f64); 2]]) {
    for what in 0..2 {
        let root =
            |of: fn(&(f64, f64)) -> f64| errors.iter().map(|e| of(&e[what]).powi(2)).sum::<f64>().sqrt();
        let (ours, theirs) = (root(|e| e.0), root(|e| e.1));
        assert!(ours <= AUTOCAST * theirs, "bf16: all errors are {ours:.1e}, and PyTorch's {theirs:.1e}");
    }
}

/// The errors of our bfloat16 and of PyTorch's autocast: of all logits, and of all gradients.
fn bf16_errors(
    case: &str,
    dir: &Path,
    model: &Gpt2,
    padded: &Padded,
    batch: &GoldenBatch,
    tensors: &Tensors,
) -> Option<[(f64, f64); 2]> {
    let Ok(text) = std::fs::read_to_string(dir.join("autocast.json")) else {
        eprintln!("SKIPPED: {case}: no autocast.json, which tests/golden/autocast.py makes");
        return None;
    };
    let theirs = &serde_json::from_str::<serde_json::Value>(&text).unwrap()[&batch.name];
    let mut pass = Pass::eval().precision(Precision::Bf16);
    let logits = model.logits(&padded.ids, padded.lens.len(), &mut pass).unwrap();
    let real = |values: &[f32]| -> Vec<f32> {
        let rows = values.chunks_exact(model.config().vocab_size).zip(&padded.weights);
        rows.filter(|(_, weight)| **weight > 0.0).flat_map(|(row, _)| row.to_vec()).collect()
    };
    let want = real(find(tensors, &format!("{}.logits", batch.name)));
    let logits = relative_error(&real(logits.data()), &want);
    let (_, grads) = mean_loss_and_gradients(model, &padded.batch(), Precision::Bf16);
    let (mut got, mut want) = (Vec::new(), Vec::new());
    for (slot, (name, _)) in model.parameters().iter().enumerate() {
        got.extend_from_slice(grads.slot(slot));
        want.extend_from_slice(find(tensors, &format!("{}.grad.{name}", batch.name)));
    }
    let errors = [("logits", logits), ("gradients", relative_error(&got, &want))].map(|(what, ours)| {
        let theirs = theirs[what].as_f64().unwrap();
        eprintln!("{case}, bf16: {what} differ by {ours:.1e} of their size, PyTorch's by {theirs:.1e}");
        (ours, theirs)
    });
    Some(errors)
}

/// Compares the logits of all positions that are not padding.
fn check_logits(case: &str, model: &Gpt2, padded: &Padded, want: &[f32]) {
    let vocab_size = model.config().vocab_size;
    let got = model.logits(&padded.ids, padded.lens.len(), &mut Pass::eval()).unwrap();
    assert_eq!(got.len(), want.len(), "{case}: the number of logits");
    let rows = got.data().chunks_exact(vocab_size).zip(want.chunks_exact(vocab_size));
    let real: Vec<_> =
        rows.zip(&padded.weights).filter(|(_, weight)| **weight > 0.0).map(|(rows, _)| rows).collect();
    let values = || real.iter().flat_map(|(_, want)| want.iter().copied());
    let spread = values().fold(f32::MIN, f32::max) - values().fold(f32::MAX, f32::min);
    let worst = real
        .iter()
        .flat_map(|(got, want)| got.iter().zip(*want))
        .map(|(got, want)| (got - want).abs() / spread)
        .fold(0.0, largest);
    eprintln!("{case}: logits differ by at most {worst:.1e} of their spread of {spread:.2}");
    assert!(worst <= LOGITS, "{case}: logits differ by {worst:.1e} of their spread of {spread}");
}

fn check_gradients(case: &str, model: &Gpt2, input: &Batch, batch: &GoldenBatch, tensors: &Tensors) {
    let (mean, grads) = mean_loss_and_gradients(model, input, Precision::F32);
    assert!((mean - batch.loss).abs() <= 1e-5, "{case}: the loss is {mean}, but PyTorch's is {}", batch.loss);
    let mut worst = (0.0, "");
    let parameters = model.parameters();
    for (slot, (name, _)) in parameters.iter().enumerate() {
        let want = find(tensors, &format!("{}.grad.{name}", batch.name));
        let error = relative_error(grads.slot(slot), want);
        assert!(error <= GRADIENT, "{case}: the gradient of `{name}` differs by {error:.1e} of its size");
        if error >= worst.0 {
            worst = (error, name);
        }
    }
    eprintln!("{case}: gradients differ by at most {:.1e} of their size (`{}`)", worst.0, worst.1);
}

fn mean_loss_and_gradients(model: &Gpt2, input: &Batch, precision: Precision) -> (f64, Grads) {
    let loss = model.loss(input, Pass::train(model.zero_grads(), 0, 0).precision(precision)).unwrap();
    let (mean, weight) = (loss.value / loss.weight, loss.weight);
    let mut grads = loss.backward().expect("a training pass records");
    for slot in 0..grads.len() {
        grads.slot_mut(slot).iter_mut().for_each(|g| *g = (f64::from(*g) / weight) as f32);
    }
    (mean, grads)
}

fn find<'a>(tensors: &'a Tensors, name: &str) -> &'a [f32] {
    let (_, values) = tensors.get(name).unwrap_or_else(|| panic!("golden.safetensors holds no `{name}`"));
    values
}

fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(want).map(|(g, w)| f64::from(*g) - f64::from(*w)));
    difference / norm(&mut want.iter().map(|&w| f64::from(w)))
}

/// The larger of two, or NaN where one of them is: `f32::max` would hide it.
fn largest(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}
