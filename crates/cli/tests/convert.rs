//! Models in other formats, there and back, through the binary; and what `gpt2 show` says of each.
//!
//! `GPT2_PYTHON` names a Python that has torch and transformers (`tests/golden/requirements.txt`).

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use common::{Folder, text};
use serde_json::{Value, json};

/// Matrices whose rows are whole blocks of GGUF.
const SHAPE: &str = "--n-layer 2 --n-head 2 --n-embd 32 --n-ctx 32 --batch 4 --seed 3 --lr 0.01";

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A folder with a model `m`, of a vocabulary that GGUF can carry.
fn trained() -> Folder {
    trained_with("bpe:300")
}

fn trained_with(tokenizer: &str) -> Folder {
    let folder = Folder::new();
    folder.write("a.txt", text());
    folder.succeeds(&format!("train --data a.txt --tokenizer {tokenizer} {SHAPE} --max-steps 20 --out m"));
    folder
}

impl Folder {
    #[track_caller]
    fn converts(&self, args: &str) -> Value {
        parse(&self.succeeds(&format!("convert {args} --json")))
    }

    fn writes(&self, model: &str) -> String {
        self.succeeds(&format!("generate -m {model} -p Once -n 16 --min-tokens 16 --seed 5"))
    }

    fn nothing_is_left(&self) {
        for entry in fs::read_dir(self.path(".")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with('.') && !name.contains("part"), "{name} is left");
        }
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn round_trips_keep_every_bit_and_the_tokenizer() {
    let folder = trained();
    let (story, hash) = (folder.writes("m"), folder.converts("m first --to hf")["from"]["sha256"].clone());
    fs::create_dir(folder.path("files")).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"] {
        fs::copy(folder.path("m").join(name), folder.path("files").join(name)).unwrap();
    }
    let chain = [
        ("m", "files/m.bin", "llmc"),
        ("files/m.bin", "m.gguf", "gguf"),
        ("m.gguf", "again", "hf"),
        ("again", "files/m.pt", "pt"),
        ("files/m.pt", "last", "hf"),
    ];
    for (from, to, format) in chain {
        let report = folder.converts(&format!("{from} {to} --to {format}"));
        assert_eq!((&report["from"]["sha256"], &report["to"]["sha256"]), (&hash, &hash), "{report}");
        assert_eq!((&report["type"], &report["same_weights"]), (&json!("f32"), &json!(true)));
        assert_eq!((&report["max_logit_difference"], &report["top1_agreement"]), (&json!(0.0), &json!(1.0)));
        assert_eq!((&report["to"]["format"], &report["to"]["path"]), (&json!(format), &json!(to)));
        assert!(report["tokens"].as_u64().unwrap() == 32 && report["tolerance"] == 0.0, "{report}");
        assert!(report["mean_logit_difference_of_spread"] == 0.0 && report["from"]["path"].is_string());
        assert_eq!(folder.writes(to), story, "{to}");
    }
    for name in ["tokenizer.json", "vocab.json", "merges.txt"] {
        let same = parse_or_text(&folder.read(&format!("m/{name}")));
        assert_eq!(parse_or_text(&folder.read(&format!("again/{name}"))), same, "{name} out of GGUF");
        assert_eq!(folder.read(&format!("last/{name}")), folder.read(&format!("files/{name}")), "{name}");
    }
    let table = folder.succeeds("convert m other.gguf --to gguf");
    for part in ["max |Δlogit|      0.000e0", "100.0 % of 32 tokens", hash.as_str().unwrap(), "(the same)"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    folder.nothing_is_left();
}

fn parse_or_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

#[test]
fn fewer_bits_stay_the_same_from_format_to_format() {
    let folder = trained();
    for (kind, ours) in [("f16", "f16"), ("bf16", "bf16"), ("q8_0", "q8"), ("q4_0", "q4")] {
        let hash = folder.converts(&format!("m {kind}.gguf --to gguf --type {kind}"));
        assert_eq!((&hash["same_weights"], &hash["type"]), (&json!(false), &json!(kind)));
        assert!(hash["max_logit_difference"].as_f64().unwrap() > 0.0, "{hash}");
        // Norms are wider than the matrices, so that only f32 keeps all in a directory of one type.
        let hf = folder.converts(&format!("{kind}.gguf hf-{kind} --to hf"));
        assert_eq!((&hf["from"]["sha256"], &hf["type"]), (&hash["to"]["sha256"], &json!("f32")));
        folder.converts(&format!("{kind}.gguf {kind}.pt --to pt"));
        let again = folder.converts(&format!("{kind}.pt again-{kind} --to hf"));
        for report in [&hf, &again] {
            assert_eq!(report["to"]["sha256"], hash["to"]["sha256"], "{kind}");
        }
        if !kind.starts_with('q') {
            // Where all is of the type, it stays.
            let all = folder.converts(&format!("m all-{kind} --to hf --type {kind}"));
            let next = folder.converts(&format!("all-{kind} next-{kind} --to hf"));
            let then = folder.converts(&format!("next-{kind} next-{kind}.pt --to pt"));
            for report in [&next, &then] {
                assert_eq!((&report["to"]["sha256"], &report["type"]), (&all["to"]["sha256"], &json!(kind)));
            }
        }
        let table = folder.succeeds(&format!("convert m {kind}-2.gguf --to gguf --type {kind}"));
        assert!(table.contains("(rounded)"), "{table}");
        // Our own directories of this type.
        folder.succeeds(&format!("quantize -m m --to {ours} --out our-{kind}"));
        let ours = folder.converts(&format!("our-{kind} our-{kind}.gguf --to gguf"));
        assert_eq!((&ours["same_weights"], &ours["type"]), (&json!(true), &json!(kind)), "{ours}");
        assert_eq!(
            folder.writes(&format!("our-{kind}.gguf")),
            folder.writes(&format!("our-{kind}")),
            "{kind}"
        );
    }
    let bf16 = folder.converts("m bf16.bin --to llmc --type bf16");
    let from_bin = folder.converts("bf16.bin from-bin --to hf");
    assert_eq!((&bf16["to"]["sha256"], &from_bin["type"]), (&from_bin["to"]["sha256"], &json!("bf16")));
    assert_eq!(parse(&folder.read("from-bin/config.json"))["torch_dtype"], "bfloat16");
    folder.nothing_is_left();
}

#[test]
fn nano_gpt_becomes_a_directory_in_several_files() {
    let folder = Folder::new();
    for name in ["nano_bias", "nano_no_bias"] {
        let from = golden(&format!("torch/{name}.pt"));
        let whole = folder.converts(&format!("{} {name} --to hf", from.display()));
        assert_eq!(whole["from"]["format"], "PyTorch");
        let parts = folder.converts(&format!("{name} {name}-parts --to hf --shard-bytes 3000"));
        assert_eq!(
            (&whole["to"]["sha256"], &parts["to"]["sha256"]),
            (&whole["from"]["sha256"], &whole["from"]["sha256"])
        );
        assert!(folder.exists(&format!("{name}-parts/model.safetensors.index.json")));
        assert!(!folder.exists(&format!("{name}-parts/model.safetensors")));
        assert!(
            folder.exists(&format!("{name}-parts/model-00002-of-{:05}.safetensors", shards(&folder, name)))
        );
        let back = folder.converts(&format!("{name}-parts {name}.pt --to pt"));
        assert_eq!(back["to"]["sha256"], whole["from"]["sha256"]);
        let shown = parse(&folder.succeeds(&format!("show -m {name}-parts --json")));
        assert!(shown["file_bytes"].as_u64() > shown["memory"]["weights_bytes"].as_u64());
        fs::remove_file(
            folder.path(&format!("{name}-parts/model-00002-of-{:05}.safetensors", shards(&folder, name))),
        )
        .unwrap();
        folder.fails(&format!("show -m {name}-parts"), &["model-00002-of-", "missing"]);
        folder.fails(&format!("convert {name}-parts x.pt --to pt"), &["model-00002-of-", "missing"]);
    }
}

fn shards(folder: &Folder, name: &str) -> usize {
    let files = fs::read_dir(folder.path(&format!("{name}-parts"))).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let names: Vec<String> = files.map(name).filter(|name| name.starts_with("model-0")).collect();
    names[0].split(['-', '.']).nth(3).unwrap().parse().unwrap()
}

#[test]
fn switches_go_where_there_is_a_place_for_them() {
    let folder = Folder::new();
    let cases = [
        ("untied", "tie_word_embeddings"),
        ("silu", "activation_function"),
        ("gelu", "activation_function"),
        ("unscaled", "scale_attn_weights"),
        ("by_layer", "scale_attn_by_inverse_layer_idx"),
        ("all", "place"),
    ];
    for (name, field) in cases {
        let from = golden(&format!("switches/{name}"));
        let from = from.display();
        let hf = folder.converts(&format!("{from} {name} --to hf"));
        let pt = folder.converts(&format!("{name} {name}.pt --to pt"));
        let back = folder.converts(&format!("{name}.pt {name}-back --to hf"));
        for report in [&hf, &pt, &back] {
            assert_eq!(report["to"]["sha256"], hf["from"]["sha256"], "{name}");
            assert_eq!(report["max_logit_difference"], 0.0, "{name}");
        }
        let config = |dir: &str| {
            let mut config = parse(&folder.read(&format!("{dir}/config.json")));
            config["torch_dtype"] = Value::Null;
            config
        };
        let want = parse(&fs::read_to_string(golden(&format!("switches/{name}/config.json"))).unwrap());
        if let Some(want) = want.get(field) {
            assert_eq!((&config(name)[field], &config(&format!("{name}-back"))[field]), (want, want));
            let shown = folder.succeeds(&format!("show -m {name}.pt"));
            assert!(shown.contains(&format!("{field}: {want}")), "{shown}");
        }
        for to in ["gguf", "llmc"] {
            if (name, to) == ("untied", "gguf") {
                // An output layer of its own has a place there.
                assert_eq!(folder.converts("untied untied.gguf --to gguf")["same_weights"], true);
                continue;
            }
            if (name, to) == ("gelu", "gguf") {
                continue; // see below
            }
            let field = if (name, to) == ("gelu", "llmc") { "n_inner" } else { field };
            folder.fails(&format!("convert {name} x.{to} --to {to}"), &["cannot carry", field]);
            assert!(!folder.exists(&format!("x.{to}")));
        }
        folder.nothing_is_left();
    }
}

#[test]
fn the_exact_gelu_goes_where_only_its_tanh_formula_is_known() {
    let folder = Folder::new();
    let nano = golden("torch/nano_bias.pt");
    for to in ["gguf", "llmc"] {
        let finished = folder.run(&format!("convert {} x.{to} --to {to}", nano.display()));
        assert!(
            finished.ok && finished.stderr.contains("nearly the same, not the same"),
            "{}",
            finished.stderr
        );
        let report = folder.converts(&format!("{} x.{to} --to {to} --force", nano.display()));
        assert_eq!(report["same_weights"], true, "{to}");
        let (difference, most) =
            (report["mean_logit_difference_of_spread"].as_f64(), report["tolerance"].as_f64());
        assert!(
            difference > Some(0.0) && difference < Some(1e-3) && most < Some(0.01),
            "{to}: {difference:?}"
        );
    }
}

#[test]
fn what_goes_wrong_leaves_nothing() {
    let folder = trained();
    let weights = folder.path("m/model.safetensors");
    let good = fs::read(&weights).unwrap();
    let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let spoil = |value: f32| {
        let mut bytes = good.clone();
        let at = 8 + header + 4 * 40;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        fs::write(&weights, bytes).unwrap();
    };
    spoil(1e6);
    folder.fails("convert m x --to hf --type f16", &["too large for f16", "bf16 or f32"]);
    folder.fails("convert m x.pt --to pt --type f16", &["too large for f16"]);
    folder.fails("convert m x.gguf --to gguf --type f16", &["1000000", "more than F16"]);
    spoil(3e38);
    folder.fails("convert m x.gguf --to gguf", &["logits that are not numbers", "nothing is kept"]);
    spoil(f32::NAN);
    for to in ["hf", "gguf", "llmc", "pt"] {
        folder.fails(&format!("convert m x --to {to}"), &["NaN", "damaged"]);
    }
    let shown = folder.succeeds("show -m m");
    assert!(shown.contains("warning") && shown.contains("NaN"), "{shown}");
    assert!(parse(&folder.succeeds("show -m m --json"))["weights_error"].as_str().unwrap().contains("NaN"));
    assert!(!folder.exists("x") && !folder.exists("x.pt") && !folder.exists("x.gguf"));
    folder.nothing_is_left();
}

#[test]
fn nothing_is_overwritten_unasked() {
    let folder = trained();
    folder.converts("m x --to hf");
    folder.converts("m x.gguf --to gguf");
    folder.fails("convert m x --to hf", &["x already holds a model", "--force"]);
    folder.fails("convert m x.gguf --to gguf", &["x.gguf is already there", "--force"]);
    folder.fails("convert x ./x --to hf --force", &["the model itself"]);
    folder.fails("convert x/model.safetensors x --to hf --force", &["where the model itself lies"]);
    folder.fails("convert x x/model.safetensors --to gguf --force", &["where the model itself lies"]);
    folder.fails("convert x.gguf x.gguf --to gguf --force", &["the model itself"]);
    folder.fails("convert m x --to pt", &["x is a directory"]);
    folder.fails("convert m x.gguf --to hf", &["x.gguf is a file"]);
    folder.fails("convert x m --to hf --force", &["holds a training run"]);
    folder.fails("convert m a.txt/y --to hf", &["cannot write a.txt/y"]);
    folder.converts("m deep/er/y.pt --to pt");
    assert!(folder.exists("deep/er/y.pt"));
    folder.fails("convert m y --to hf --shard-bytes 0", &["--shard-bytes 0"]);
    folder.fails("convert m y --to llmc --type q8_0", &["q8_0", "llmc", "f32, bf16"]);
    folder.fails("convert m y --to hf --type q4_0", &["q4_0", "f32, f16, bf16"]);
    folder.fails("convert m y --to onnx", &["onnx", "gguf"]);
    folder.fails("convert nowhere y --to hf", &["nowhere", "no file or directory"]);
    folder.fails("convert a.txt y --to hf", &["like no model"]);
    folder.converts("m x.gguf --to gguf --force --type f16");

    // What is replaced does not stay behind to be read instead, or beside it.
    let sharded = folder.converts("m x --to hf --force --shard-bytes 20000");
    assert!(!folder.exists("x/model.safetensors") && folder.exists("x/model.safetensors.index.json"));
    folder.write("x/vocab.txt", "[PAD]\n");
    folder.write("x/notes.txt", "mine");
    let whole = folder.converts("x.gguf x --to hf --force");
    assert_ne!(whole["to"]["sha256"], sharded["to"]["sha256"]);
    let mut names: Vec<String> = fs::read_dir(folder.path("x"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let want = "README.md config.json generation_config.json merges.txt model.safetensors notes.txt tokenizer.json tokenizer_config.json vocab.json";
    assert_eq!(names.join(" "), want);
    assert_eq!(folder.converts("x x.pt --to pt")["to"]["sha256"], whole["to"]["sha256"]);
    // A directory of other things stays as it was, and gets a model.
    fs::create_dir(folder.path("project")).unwrap();
    folder.write("project/README.md", "my project");
    folder.converts("m project --to hf");
    assert_eq!(folder.read("project/README.md"), "my project");
    assert!(folder.read("x/README.md").contains("Converted from `x.gguf`"));
    folder.nothing_is_left();
}

#[test]
fn probes_and_tokenizers() {
    let folder = trained_with("char");
    // GGUF knows byte-level BPE only.
    folder.fails("convert m x.gguf --to gguf", &["cannot carry this tokenizer", "characters"]);
    folder.fails("convert m x --to hf --probe Onceü", &["--probe", "ü"]);
    let run =
        folder.run("convert m x --to hf --json --probe Once.upon.a.time.there.was.a.fox.and.a.fox.and.a.fox");
    assert!(run.ok && run.stderr.contains("the first 32 of its"), "{}", run.stderr);
    let run = folder.run("convert m y --to hf --json --probe Once");
    assert_eq!(parse(&run.stdout)["tokens"], 32, "{}", run.stderr);
    let run = folder.run("convert m bare.pt --to pt");
    assert!(run.ok && run.stderr.contains("no place for the tokenizer; keep that of m"), "{}", run.stderr);
    // The model alone.
    fs::create_dir(folder.path("alone")).unwrap();
    fs::rename(folder.path("bare.pt"), folder.path("alone/bare.pt")).unwrap();
    let run = folder.run("convert alone/bare.pt z --to hf");
    assert!(run.ok && run.stderr.contains("warning: no tokenizer goes with the model"), "{}", run.stderr);
    folder.fails("convert alone/bare.pt zz --to hf --probe Once", &["--probe", "no tokenizer"]);
    // A width that is no multiple of 32.
    folder.succeeds("train --data a.txt --tokenizer bpe:300 --n-layer 1 --n-head 2 --n-embd 8 --n-ctx 64 --batch 4 --max-steps 1 --out thin");
    let run = folder.run("convert thin thin.gguf --to gguf --type q4_0");
    assert!(run.ok && run.stderr.contains("not whole blocks of 32 stay f16"), "{}", run.stderr);
    // A context of one token.
    folder.succeeds("train --data a.txt --tokenizer bpe:300 --n-layer 1 --n-head 1 --n-embd 32 --n-ctx 1 --batch 4 --max-steps 1 --out one");
    for (to, format) in [("one-hf", "hf"), ("one.gguf", "gguf"), ("one.bin", "llmc"), ("one.pt", "pt")] {
        assert_eq!(folder.converts(&format!("one {to} --to {format}"))["tokens"], 1);
    }
    folder.nothing_is_left();
}

#[test]
fn what_stands_beside_the_weights_comes_along() {
    let folder = trained();
    let mut tokenizer = parse(&folder.read("m/tokenizer.json"));
    tokenizer["added_tokens"].as_array_mut().unwrap().push(json!({
        "id": 300, "content": "<user>", "special": false, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false,
    }));
    folder.write("m/tokenizer.json", tokenizer.to_string());
    folder.succeeds(&format!("train --data a.txt --tokenizer m {SHAPE} --max-steps 2 --out n"));
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let mut config = parse(&folder.read("n/tokenizer_config.json"));
    config["chat_template"] = template.into();
    folder.write("n/tokenizer_config.json", config.to_string());
    folder.write("n/generation_config.json", r#"{"eos_token_id": [299, 5], "top_k": 7}"#);
    let mut config = parse(&folder.read("n/config.json"));
    (config["bos_token_id"], config["pad_token_id"]) = (3.into(), 4.into());
    folder.write("n/config.json", config.to_string());
    folder.converts("n hf --to hf --type bf16");
    assert_eq!(folder.read("hf/generation_config.json"), folder.read("n/generation_config.json"));
    assert_eq!(folder.read("hf/tokenizer_config.json"), folder.read("n/tokenizer_config.json"));
    let got = parse(&folder.read("hf/config.json"));
    for field in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        assert_eq!(got[field], config[field], "{field}");
    }
    assert_eq!(got["torch_dtype"], "bfloat16");
    // The chat template goes through GGUF, too.
    folder.converts("n m.gguf --to gguf");
    for model in ["n", "hf", "m.gguf"] {
        let shown = parse(&folder.succeeds(&format!("show -m {model} --json")));
        assert_eq!(shown["chat_template"], template, "{model}");
    }
    folder.converts("m.gguf from-gguf --to hf");
    assert_eq!(parse(&folder.read("from-gguf/tokenizer_config.json"))["chat_template"], template);
    for model in ["hf", "from-gguf"] {
        let added = parse(&folder.read(&format!("{model}/tokenizer.json")))["added_tokens"].clone();
        let added = added.as_array().unwrap();
        assert!(added.iter().any(|token| token["id"] == 300 && token["special"] == false), "{added:?}");
    }
}

#[test]
fn show_says_what_a_model_is() {
    let folder = trained();
    folder.converts("m m.gguf --to gguf --type q8_0");
    folder.converts("m m.bin --to llmc");
    folder.converts("m m.pt --to pt --type bf16");
    let parameters = 300 * 32 + 32 * 32 + 2 * (12 * 32 * 32 + 13 * 32) + 2 * 32;
    for (model, format, dtype) in [
        ("m", "safetensors", "f32"),
        ("m.gguf", "GGUF", "q8"),
        ("m.bin", "llm.c", "f32"),
        ("m.pt", "PyTorch", "bf16"),
    ] {
        let shown = parse(&folder.succeeds(&format!("show -m {model} --json")));
        assert_eq!((&shown["format"], &shown["dtype"]), (&json!(format), &json!(dtype)));
        assert_eq!(shown["parameters"], parameters);
        assert_eq!((&shown["config"]["n_layer"], &shown["config"]["n_positions"]), (&json!(2), &json!(32)));
        assert_eq!(shown["weights_error"], Value::Null);
        let memory = &shown["memory"];
        let bytes = |key: &str| memory[key].as_u64().unwrap();
        let wide = if dtype == "f32" { 4 } else { 2 };
        assert_eq!(bytes("kv_cache_bytes"), 2 * 2 * 32 * 32 * wide);
        assert_eq!(bytes("run_bytes"), bytes("weights_bytes") + bytes("kv_cache_bytes"));
        assert!(bytes("train_bytes") >= 16 * parameters, "weights, gradients, two moments");
        let table = folder.succeeds(&format!("show -m {model}"));
        for part in ["2 layers, 2 heads, 32 wide", format, dtype, "context        32 tokens", "to train"] {
            assert!(table.contains(part), "{part}: {table}");
        }
        let file =
            fs::metadata(folder.path(if model == "m" { "m/model.safetensors" } else { model })).unwrap();
        assert_eq!(shown["file_bytes"], file.len());
    }
    let gguf = parse(&folder.succeeds("show -m m.gguf --json"));
    assert_eq!(
        (&gguf["tokenizer"]["tokens"], &gguf["tokenizer"]["end"]),
        (&json!(300), &json!("<|endoftext|>"))
    );
    assert_eq!((&gguf["provenance"]["general.name"], &gguf["chat_template"]), (&json!("m"), &Value::Null));
    let bin = parse(&folder.succeeds("show -m m.bin --json"));
    assert!(bin["tokenizer"]["error"].as_str().unwrap().contains("300"), "{bin}");
    folder.fails("show -m a.txt", &["like no model"]);
    folder.fails("show -m nowhere", &["nowhere", "no file or directory"]);
    // As the hub's cache keeps it.
    fs::create_dir_all(folder.path("models--org--name/snapshots")).unwrap();
    copy_directory(&folder.path("m"), &folder.path("models--org--name/snapshots/0123abc"));
    let shown = parse(&folder.succeeds("show -m models--org--name/snapshots/0123abc --json"));
    assert_eq!(shown["provenance"]["from the hub"], "org/name at 0123abc");
}

#[test]
fn training_and_benchmarks_take_any_format() {
    let folder = trained();
    folder.converts("m m.gguf --to gguf");
    folder.converts("m m/copy.pt --to pt");
    folder.converts("m m/copy.bin --to llmc");
    for (i, model) in ["m", "m.gguf", "m/copy.pt", "m/copy.bin"].into_iter().enumerate() {
        folder.succeeds(&format!(
            "train --data a.txt --init {model} --batch 4 --max-steps 2 --seed 1 --out go{i}"
        ));
        assert_eq!(
            common::losses(&folder.path(&format!("go{i}"))),
            common::losses(&folder.path("go0")),
            "{model}"
        );
        assert_eq!(folder.writes(&format!("go{i}")), folder.writes("go0"), "{model}");
    }
    let ids = |tokenizer: &str| {
        let args = format!("tokenizer encode --json --tokenizer {tokenizer}");
        folder.run_with_input(&args, "The fox 狐狸".as_bytes()).stdout
    };
    assert!(ids("m").len() > 10);
    assert_eq!((ids("m.gguf"), ids("m/copy.pt")), (ids("m"), ids("m")));
    folder.fails(
        "train --data a.txt --init nowhere.gguf --out x",
        &["nowhere.gguf", "no such directory or file"],
    );
    let long = "--n-layer 1 --n-head 1 --n-embd 32 --n-ctx 256 --batch 1";
    folder.succeeds(&format!("train --data a.txt --tokenizer bpe:300 {long} --max-steps 1 --out long"));
    folder.converts("long long.gguf --to gguf --type q8_0");
    let bench = parse(&folder.succeeds("bench infer -m long.gguf --only tg128 --repeat 1 --json"));
    assert!(bench["tg128"].as_f64().unwrap() > 0.0 && bench["dtype"] == "q8", "{bench}");
}

#[test]
fn python_loads_what_was_converted() {
    let Ok(python) = env::var("GPT2_PYTHON") else {
        eprintln!(
            "SKIPPED: GPT2_PYTHON does not name a Python with transformers, so conversions were not loaded"
        );
        return;
    };
    let folder = trained();
    folder.converts("m m.gguf --to gguf");
    folder.converts("m.gguf hf --to hf --shard-bytes 20000");
    folder.converts("hf m.pt --to pt");
    let mut command = Command::new(python);
    command.arg(golden("ask_converted.py")).args([folder.path("m"), folder.path("hf"), folder.path("m.pt")]);
    let run = folder.finish(command, b"");
    assert!(run.ok, "{}", run.stderr);
    let answer = parse(&run.stdout);
    assert_eq!(answer["unmatched"], json!([]));
    assert_eq!(
        (&answer["max_logit_difference"], &answer["state_dict_difference"]),
        (&json!(0.0), &json!(0.0))
    );
    let ours = parse(&folder.succeeds("generate -m hf -p Once -n 12 --temperature 0 --json"));
    assert_eq!(ours["ids"], answer["greedy"]);
}
