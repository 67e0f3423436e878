//! Adapters between us and PEFT, both ways: the same logits, losses and gradients.
//!
//! `GPT2_PYTHON` names a Python that has torch, transformers and peft (`tests/golden/requirements.txt`).
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use models::checkpoint::{ADAPTER_WEIGHTS, HfOptions, read_tensors, save_hf, write_tensors};
use models::{Batch, Gpt2, Gpt2Config, Init, Pass};
use serde_json::{Value, json};
use tensor::random::Stream;

const IDS: [u32; 8] = [3, 1, 4, 1, 5, 9, 2, 6];
const VOCAB: usize = 41;

fn base() -> Gpt2 {
    let mut model = Gpt2::new(Gpt2Config::new(2, 2, 24, 16, VOCAB), Init::Gpt2, 7).unwrap();
    // Larger than a fresh model's, so that everything counts.
    for (slot, (_, tensor)) in model.parameters_mut().into_iter().enumerate() {
        let stream = Stream::new(9, slot as u32, 0);
        tensor.data_mut().iter_mut().enumerate().for_each(|(i, x)| *x += 0.15 * stream.normal(i as u64));
    }
    model
}

/// An adapter with random matrices, written to `dir`.
fn ours(settings: &str, dir: &Path) {
    let mut model = base();
    model.add_lora(&settings.parse().unwrap(), 3).unwrap();
    for (slot, (_, tensor)) in model.trainable_mut().into_iter().enumerate() {
        let stream = Stream::new(5, slot as u32, 0);
        tensor.data_mut().iter_mut().enumerate().for_each(|(i, x)| *x += 0.3 * stream.normal(i as u64));
    }
    model.save_adapter(dir, "").unwrap();
}

/// Gives the table of an adapter two more rows, as for two new tokens.
fn grow(dir: &Path) {
    let weights = dir.join(ADAPTER_WEIGHTS);
    let mut tensors = read_tensors(&weights).unwrap().0;
    let (shape, values) = tensors.get_mut("base_model.model.transformer.wte.weight").unwrap();
    shape[0] += 2;
    values.extend((0..48).map(|i| 0.01 * i as f32));
    let views = tensors.iter().map(|(name, (shape, values))| (name.clone(), &shape[..], &values[..]));
    write_tensors(&weights, views, [("format".to_owned(), "pt".to_owned())].into()).unwrap();
}

fn near(case: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{case}");
    let spread = want.iter().fold(1e-6f32, |most, x| most.max(x.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            (got - want).abs() <= 2e-5 * spread,
            "{case}: [{i}] is {got}, by PEFT {want} (spread {spread})"
        );
    }
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

/// What the model computes with the adapter in `dir` is what PEFT says.
fn agrees(case: &str, dir: &Path, theirs: &Value) {
    let mut model = base();
    model.load_adapter(dir).unwrap_or_else(|error| panic!("{case}: {error}"));
    near(case, model.logits(&IDS, 1, &mut Pass::eval()).unwrap().data(), &floats(&theirs["logits"]));
    let batch = Batch { ids: &IDS[..7], targets: &IDS[1..], weights: &[1.0; 7], batch: 1, lens: None };
    if model.lora().unwrap().dropout > 0.0 {
        return; // ours drops in a training pass, theirs does not
    }
    let loss = model.loss(&batch, Pass::train(model.zero_grads(), 0, 0)).unwrap();
    let want = theirs["loss"].as_f64().unwrap();
    assert!(
        (loss.value / 7.0 - want).abs() < 1e-5 * want,
        "{case}: loss {}, by PEFT {want}",
        loss.value / 7.0
    );
    let grads = loss.backward().unwrap();
    let wanted: HashMap<String, Vec<f32>> = theirs["grads"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, values)| {
            let name = name.trim_start_matches("base_model.model.transformer.").replace(".default", "");
            (name, floats(values))
        })
        .collect();
    let trained = model.trainable();
    let adapters = trained.iter().enumerate().filter(|(_, (name, _))| name.contains("lora_"));
    assert_eq!(adapters.clone().count(), wanted.len(), "{case}");
    for (slot, (name, tensor)) in adapters {
        let (rank, outputs) = (tensor.rows(), tensor.cols());
        let got: Vec<f32> = grads.slot(slot).iter().map(|g| g / 7.0).collect();
        let theirs = &wanted[name];
        // Their B is turned.
        let turned = |i: usize| theirs[i % outputs * rank + i / outputs];
        let want =
            if name.contains("lora_B") { (0..got.len()).map(turned).collect() } else { theirs.clone() };
        near(&format!("{case}, gradient of {name}"), &got, &want);
    }
}

/// What PEFT says of each case.
fn ask(python: &str, folder: &Path, cases: &[(String, Value)]) -> Vec<Value> {
    let asked: Vec<&Value> = cases.iter().map(|(_, case)| case).collect();
    let file = folder.join("cases.json");
    fs::write(&file, serde_json::to_string(&asked).unwrap()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ask_peft.py");
    let mut command = Command::new(python);
    let output =
        command.arg(script).args([&folder.join("base"), &file]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn adapters_are_the_same_in_peft() {
    let Ok(python) = env::var("GPT2_PYTHON") else {
        eprintln!(
            "SKIPPED: GPT2_PYTHON does not name a Python with peft, so adapters were not checked against it"
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let model = base();
    save_hf(&model, &path("base"), &HfOptions::of(&model, "base")).unwrap();
    let mut cases = Vec::new();
    let settings = [
        "r=4,alpha=8",
        "r=3,alpha=5,targets=attn.c_proj+c_fc,rslora=true",
        "r=2,targets=c_proj,dropout=0.1",
        "r=2,targets=all-linear",
        "r=2,targets=h.1.mlp.c_proj",
        "r=4,embeddings=true",
        "r=5,targets=c_attn+c_fc,embeddings=true",
    ];
    for (i, settings) in settings.iter().enumerate() {
        let dir = path(&format!("ours-{i}"));
        ours(settings, &dir);
        if i == 6 {
            grow(&dir);
        }
        cases.push((format!("ours: {settings}"), json!({ "adapter": dir })));
    }
    let makes = [
        json!({"r": 4, "lora_alpha": 8}),
        json!({"r": 3, "lora_alpha": 5, "target_modules": ["attn.c_proj", "c_fc"], "use_rslora": true}),
        json!({"r": 2, "target_modules": "all-linear", "lora_dropout": 0.2}),
        json!({"r": 2, "target_modules": ".*\\.1\\.attn\\.c_.*"}),
        json!({"r": 2, "target_modules": ["c_attn"], "layers_to_transform": [1]}),
        json!({"r": 4, "target_modules": ["c_attn", "c_fc"], "rank_pattern": {"c_fc": 2}, "alpha_pattern": {"h.0.attn.c_attn": 3}}),
        json!({"r": 4, "modules_to_save": ["wte"]}),
        json!({"r": 4, "modules_to_save": ["wte", "lm_head"]}),
        json!({"r": 4, "modules_to_save": ["lm_head"]}),
    ];
    for (i, make) in makes.iter().enumerate() {
        let dir = path(&format!("theirs-{i}"));
        cases.push((format!("theirs: {make}"), json!({ "adapter": dir, "make": make })));
    }
    let theirs = ask(&python, folder.path(), &cases);
    let mut again = Vec::new();
    for (i, ((name, case), theirs)) in cases.iter().zip(&theirs).enumerate() {
        let dir = Path::new(case["adapter"].as_str().unwrap());
        agrees(name, dir, theirs);
        // What we read, we write so that it is the same to both.
        let mut model = base();
        model.load_adapter(dir).unwrap();
        let copy = path(&format!("again-{i}"));
        model.save_adapter(&copy, "").unwrap();
        agrees(&format!("{name}, written again"), &copy, theirs);
        again.push((name.clone(), json!({ "adapter": copy })));
    }
    for ((name, _), (before, after)) in
        again.iter().zip(theirs.iter().zip(ask(&python, folder.path(), &again)))
    {
        near(&format!("{name}, read again by PEFT"), &floats(&after["logits"]), &floats(&before["logits"]));
    }
}
