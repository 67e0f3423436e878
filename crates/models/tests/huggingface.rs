//! Hugging Face directories, as others write them with every quirk, and as we write them for others.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use models::checkpoint::{HfOptions, INDEX, WEIGHTS, load_config, save_hf};
use models::{Dtype, Gpt2, Gpt2Config, Init, Pass};
use safetensors::tensor::{Dtype as FileType, SafeTensors, TensorView, serialize_to_file};
use serde_json::{Value, json};
use tempfile::TempDir;

const IDS: [u32; 9] = [3, 1, 4, 1, 5, 9, 2, 6, 5];

fn model(tied: bool) -> Gpt2 {
    let config = Gpt2Config { tie_word_embeddings: tied, ..Gpt2Config::new(2, 3, 12, 10, 31) };
    let mut model = Gpt2::new(config, Init::Gpt2, 7).unwrap();
    for (_, tensor) in model.parameters_mut() {
        tensor.data_mut().iter_mut().enumerate().for_each(|(i, x)| *x += 0.1 * (i as f32).sin());
    }
    model
}

fn logits(model: &Gpt2) -> Vec<f32> {
    model.logits(&IDS, 1, &mut Pass::eval()).unwrap().data().to_vec()
}

#[track_caller]
fn says(error: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(error.contains(part), "the error does not say {part:?}: {error}"));
}

/// Opens and loads what must be refused.
#[track_caller]
fn refused(dir: &Path, parts: &[&str]) {
    says(&Gpt2::open(dir, None).unwrap_err().to_string(), parts);
    says(&Gpt2::load(dir).unwrap_err().to_string(), parts);
}

type Tensors = HashMap<String, (FileType, Vec<usize>, Vec<u8>)>;

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The tensors of a model as `GPT2Model` names them.
fn tensors(model: &Gpt2) -> Tensors {
    let entry = |(name, tensor): (String, &tensor::Tensor)| {
        (name, (FileType::F32, tensor.shape().to_vec(), bytes(tensor.data())))
    };
    model.parameters().into_iter().map(entry).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

/// A directory with a model's config, and these tensors.
fn directory(model: &Gpt2, tensors: &Tensors) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = serde_json::to_string(&model.config().to_json()).unwrap();
    fs::write(dir.path().join("config.json"), config).unwrap();
    write(&dir.path().join(WEIGHTS), tensors);
    dir
}

fn edit_config(dir: &Path, field: &str, value: Value) {
    let path = dir.join("config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json[field] = value;
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn names_buffers_and_copies_of_the_output_layer() {
    let model = model(true);
    let bare = tensors(&model);
    let full: Tensors = bare.iter().map(|(name, t)| (format!("transformer.{name}"), t.clone())).collect();
    let mut tied = full.clone();
    tied.insert("lm_head.weight".to_owned(), bare["wte.weight"].clone());
    let mut buffers = full.clone();
    for (kind, size) in [(FileType::BOOL, 1), (FileType::U8, 1), (FileType::F32, 4), (FileType::F16, 2)] {
        let mask = (kind, vec![1, 1, 10, 10], vec![1; 100 * size]);
        buffers.insert(format!("transformer.h.{}.attn.bias", size % 2), mask);
        buffers.insert("transformer.h.1.attn.masked_bias".to_owned(), (kind, vec![], vec![0; size]));
        let dir = directory(&model, &buffers);
        assert_eq!(logits(&Gpt2::open(dir.path(), None).unwrap()), logits(&model));
    }
    for tensors in [bare, full, tied] {
        let dir = directory(&model, &tensors);
        for read in [Gpt2::open(dir.path(), None), Gpt2::load(dir.path())] {
            assert_eq!(logits(&read.unwrap()), logits(&model));
        }
    }
}

#[test]
fn output_layers_of_their_own() {
    let model = model(false);
    let mut all = tensors(&model);
    let dir = directory(&model, &all);
    assert_eq!(logits(&Gpt2::open(dir.path(), None).unwrap()), logits(&model));
    edit_config(dir.path(), "tie_word_embeddings", json!(true));
    refused(dir.path(), &["lm_head.weight", "\"tie_word_embeddings\": false"]);
    all.remove("lm_head.weight");
    refused(directory(&model, &all).path(), &["lm_head.weight", "missing", "\"tie_word_embeddings\": true"]);
    all.insert("score.weight".to_owned(), (FileType::F32, vec![2, 12], vec![0; 96]));
    let dir = directory(&model, &all);
    edit_config(dir.path(), "tie_word_embeddings", json!(true));
    refused(dir.path(), &["score.weight", "classifies"]);
}

#[test]
fn vocabularies_of_another_size_say_what_to_do() {
    let model = model(true);
    let dir = directory(&model, &tensors(&model));
    for size in [30, 32] {
        edit_config(dir.path(), "vocab_size", json!(size));
        refused(dir.path(), &["`wte.weight` has 31 rows", &format!("\"vocab_size\": {size}"), "make it 31"]);
    }
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    let model = model(true);
    for (name, value) in
        [("h.1.ln_2.bias", f32::NAN), ("wpe.weight", f32::INFINITY), ("ln_f.weight", f32::NAN)]
    {
        let mut all = tensors(&model);
        all.get_mut(name).unwrap().2[4 * 7..4 * 8].copy_from_slice(&value.to_le_bytes());
        refused(directory(&model, &all).path(), &[&format!("`{name}`"), &value.to_string(), "number 7"]);
    }
    // A matrix that is computed from where it lies is looked through when there is time, and before it is trained.
    let mut all = tensors(&model);
    all.get_mut("h.0.mlp.c_fc.weight").unwrap().2[..4].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    let dir = directory(&model, &all);
    let parts = ["`h.0.mlp.c_fc.weight`", "-inf"];
    says(&Gpt2::load(dir.path()).unwrap_err().to_string(), &parts);
    says(&Gpt2::open(dir.path(), None).unwrap().check_finite().unwrap_err().to_string(), &parts);
    assert!(model.check_finite().is_ok());
}

/// Writes a model in three shards, and gives the index.
fn sharded(model: &Gpt2) -> (TempDir, Value) {
    let dir = tempfile::tempdir().unwrap();
    let bytes = 4 * model.config().n_params() as u64;
    save_hf(model, dir.path(), &HfOptions { shard_bytes: bytes * 2 / 5, ..HfOptions::of(model, "tiny") })
        .unwrap();
    let index = serde_json::from_slice(&fs::read(dir.path().join(INDEX)).unwrap()).unwrap();
    (dir, index)
}

fn shard(n: usize) -> String {
    format!("model-0000{n}-of-00003.safetensors")
}

#[test]
fn shards_are_read_and_written() {
    for tied in [true, false] {
        let model = model(tied);
        let (dir, index) = sharded(&model);
        assert!((1..=3).all(|n| dir.path().join(shard(n)).is_file()) && !dir.path().join(WEIGHTS).exists());
        assert_eq!(index["metadata"]["total_size"], json!(4 * model.config().n_params()));
        assert_eq!(index["weight_map"]["transformer.wte.weight"], json!(shard(1)));
        assert_eq!(index["weight_map"].get("lm_head.weight").is_some(), !tied);
        for read in [Gpt2::open(dir.path(), None), Gpt2::load(dir.path())] {
            assert_eq!(logits(&read.unwrap()), logits(&model));
        }
        // Written again in one file, it is that file which counts.
        save_hf(&model, dir.path(), &HfOptions::of(&model, "tiny")).unwrap();
        assert!(!dir.path().join(INDEX).exists());
        assert_eq!(logits(&Gpt2::open(dir.path(), None).unwrap()), logits(&model));
    }
}

#[test]
fn hostile_lists_of_shards() {
    let model = model(true);
    let (dir, index) = sharded(&model);
    let (dir, outside) = (dir.path(), tempfile::tempdir().unwrap());
    let elsewhere = outside.path().join("x.safetensors");
    fs::copy(dir.join(shard(3)), &elsewhere).unwrap();
    let with = |shard: &str, parts: &[&str]| {
        let mut index = index.clone();
        index["weight_map"]["transformer.ln_f.bias"] = json!(shard);
        fs::write(dir.join(INDEX), index.to_string()).unwrap();
        refused(dir, parts);
    };
    let plain = ["no plain file name"];
    for name in
        ["", ".", "..", "../x.safetensors", "a/../x.safetensors", "a/b", "a\\b", "/etc/passwd", "a\0b"]
    {
        with(name, &plain);
    }
    with(elsewhere.to_str().unwrap(), &plain);
    with("gone.safetensors", &["\"gone.safetensors\"", "missing"]);
    fs::create_dir(dir.join("folder.safetensors")).unwrap();
    with("folder.safetensors", &["missing"]);
    with(&shard(1), &["ln_f.bias", &shard(1), "does not hold it"]);
    with("config.json", &["config.json", "safetensors"]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&elsewhere, dir.join("link.safetensors")).unwrap();
        with("link.safetensors", &["\"link.safetensors\"", "link to another place"]);
    }
    // The same tensors twice.
    fs::copy(dir.join(shard(3)), dir.join("copy.safetensors")).unwrap();
    with("copy.safetensors", &["and in another file"]);
    for text in ["", "[]", "{}", "{\"weight_map\":{\"a\":3}}", "{\"weight_map\":[]}", "\u{1}"] {
        fs::write(dir.join(INDEX), text).unwrap();
        refused(dir, &[INDEX, "download the model again"]);
    }
    fs::write(dir.join(INDEX), "{\"weight_map\":{}}").unwrap();
    refused(dir, &["wte.weight", "missing"]);
    fs::write(dir.join(INDEX), index.to_string()).unwrap();
    fs::remove_file(dir.join(shard(2))).unwrap();
    refused(dir, &[&shard(2), "missing"]);
}

/// The hub's cache: links in `snapshots/REVISION` to files in `blobs`.
#[cfg(unix)]
#[test]
fn links_of_the_hubs_cache_are_followed() {
    let model = model(true);
    let (dir, _) = sharded(&model);
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/0123"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    for (i, entry) in fs::read_dir(dir.path()).unwrap().enumerate() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), blobs.join(i.to_string())).unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{i}"), snapshot.join(entry.file_name())).unwrap();
    }
    assert_eq!(logits(&Gpt2::open(&snapshot, None).unwrap()), logits(&model));
}

#[test]
fn what_others_read_is_plain_whatever_we_computed_with() {
    for tied in [true, false] {
        let original = model(tied);
        for from in Dtype::ALL {
            let ours = original.to_dtype(from).unwrap();
            for to in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
                let dir = tempfile::tempdir().unwrap();
                save_hf(&ours, dir.path(), &HfOptions { dtype: to, ..HfOptions::of(&ours, "tiny") }).unwrap();
                let file = fs::read(dir.path().join(WEIGHTS)).unwrap();
                let file = SafeTensors::deserialize(&file).unwrap();
                let kind = match to {
                    Dtype::F32 => FileType::F32,
                    Dtype::F16 => FileType::F16,
                    _ => FileType::BF16,
                };
                assert_eq!(file.len(), ours.parameters().len());
                for (name, tensor) in ours.parameters() {
                    let full = if name.starts_with("lm_head") {
                        name.clone()
                    } else {
                        format!("transformer.{name}")
                    };
                    let view = file.tensor(&full).unwrap();
                    assert_eq!((view.dtype(), view.shape()), (kind, tensor.shape()), "{name}");
                    let near = |x: f32| match to {
                        Dtype::F32 => x,
                        Dtype::F16 => tensor::f16::from_f32(x).to_f32(),
                        _ => tensor::bf16::from_f32(x).to_f32(),
                    };
                    let want: Vec<f32> = tensor.decoded().iter().map(|&x| near(x)).collect();
                    let read = Gpt2::load(dir.path()).unwrap();
                    let read = read.parameters().into_iter().find(|(other, _)| *other == name).unwrap();
                    assert_eq!(read.1.data(), want, "{from} to {to}: {name}");
                }
                let config: Value =
                    serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
                assert_eq!(config["tie_word_embeddings"], json!(tied));
                let torch = [(Dtype::F32, "float32"), (Dtype::F16, "float16"), (Dtype::Bf16, "bfloat16")];
                assert!(torch.contains(&(to, config["torch_dtype"].as_str().unwrap())));
                assert_eq!(&load_config(dir.path()).unwrap(), ours.config());
                let card = fs::read_to_string(dir.path().join("README.md")).unwrap();
                says(&card, &["# tiny", &ours.config().n_params().to_string(), "gelu_new", to.name()]);
            }
        }
    }
}

#[test]
fn what_cannot_be_written_is_refused() {
    let mut model = model(true);
    let dir = tempfile::tempdir().unwrap();
    let options = |dtype| HfOptions { dtype, ..HfOptions::of(&model, "tiny") };
    let [half, blocks] = [options(Dtype::F16), options(Dtype::Q8)];
    says(&save_hf(&model, dir.path(), &blocks).unwrap_err().to_string(), &["q8", "f32, f16 or bf16"]);
    assert_eq!(HfOptions::of(&model.to_dtype(Dtype::Q4).unwrap(), "").dtype, Dtype::F32);
    for (name, tensor) in model.parameters_mut() {
        if name == "h.0.attn.c_proj.weight" {
            tensor.data_mut()[3] = 1e6;
        }
    }
    let error = save_hf(&model, dir.path(), &half).unwrap_err().to_string();
    says(&error, &["h.0.attn.c_proj.weight", "1000000", "f16", "bf16 or f32"]);
    assert!(!dir.path().join(WEIGHTS).exists());
}

#[test]
fn a_model_card_that_is_there_stays() {
    let (model, dir) = (model(true), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("README.md"), "mine").unwrap();
    save_hf(&model, dir.path(), &HfOptions::of(&model, "tiny")).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("README.md")).unwrap(), "mine");
}

/// `GPT2_PYTHON` names a Python that has torch and transformers (`tests/golden/requirements.txt`).
#[test]
fn transformers_loads_what_we_write_and_agrees() {
    let Ok(python) = std::env::var("GPT2_PYTHON") else {
        eprintln!("SKIPPED: GPT2_PYTHON does not name a Python with transformers");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut cases = Vec::new();
    for tied in [true, false] {
        let original = model(tied);
        for (from, to) in [(Dtype::F32, Dtype::F32), (Dtype::Bf16, Dtype::Bf16), (Dtype::Q8, Dtype::F16)] {
            for shard_bytes in [u64::MAX, 4_000] {
                let dir = folder.path().join(cases.len().to_string());
                let ours = original.to_dtype(from).unwrap();
                let options = HfOptions { dtype: to, shard_bytes, ..HfOptions::of(&ours, "tiny") };
                save_hf(&ours, &dir, &options).unwrap();
                assert_eq!(dir.join(INDEX).exists(), shard_bytes != u64::MAX);
                cases.push((to, dir));
            }
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ask_logits.py");
    let ids = IDS.map(|id| id.to_string()).join(",");
    let mut command = std::process::Command::new(python);
    command.arg(script).arg(ids).args(cases.iter().map(|(_, dir)| dir)).env("HF_HUB_OFFLINE", "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().count(), cases.len());
    for (line, (dtype, dir)) in said.lines().zip(&cases) {
        let theirs: Value = serde_json::from_str(line).unwrap();
        let torch =
            if *dtype == Dtype::Bf16 { "bfloat16".to_owned() } else { dtype.name().replace('f', "float") };
        assert_eq!(
            (&theirs["dtype"], &theirs["unmatched"]),
            (&json!(torch), &json!({})),
            "{}",
            dir.display()
        );
        // In `f32`, from the same numbers.
        let want = Gpt2::load(dir).unwrap().last_logits(&IDS, &mut Pass::eval()).unwrap();
        for (got, want) in theirs["logits"].as_array().unwrap().iter().zip(&want) {
            assert!((got.as_f64().unwrap() as f32 - want).abs() < 1e-5, "{}", dir.display());
        }
    }
}

#[test]
fn what_is_no_model_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let empty = dir.join("empty.gguf");
    fs::write(&empty, "").unwrap();
    refused(&empty, &["empty.gguf", "the file is empty"]);
    fs::write(dir.join("other.gguf"), "").unwrap();
    refused(dir, &["several GGUF files", "name one"]);
    refused(&dir.join("nowhere"), &["nowhere", "`model.safetensors` is missing"]);
    #[cfg(unix)]
    refused(Path::new("/dev/null"), &["neither a file nor a directory"]);
}

/// Files without contents may claim any length.
#[test]
fn absurdly_long_files_are_not_read() {
    let (dir, _) = sharded(&model(true));
    let dir = dir.path();
    for name in [INDEX, "config.json"] {
        fs::File::create(dir.join(name)).unwrap().set_len(1 << 36).unwrap();
        refused(dir, &[name, "more than 64 MB"]);
    }
}
