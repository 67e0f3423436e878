//! Models in fewer bits, through the real binary.

mod common;

use common::{Folder, TINY, text};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn trained() -> Folder {
    let folder = Folder::new();
    folder.write("a.txt", text());
    folder.write("b.txt", &text()[..1000]);
    folder.succeeds(&format!("train --data a.txt --tokenizer char {TINY} --max-steps 20 --out m"));
    folder
}

#[test]
fn every_type_is_a_whole_model() {
    let folder = trained();
    let loss =
        |args: &str| json(&folder.succeeds(&format!("eval --data b.txt --json {args}")))["loss"].clone();
    for dtype in ["f32", "f16", "bf16", "q8", "q4"] {
        folder.succeeds(&format!("quantize -m m --to {dtype} --out {dtype}"));
        for name in ["config.json", "generation_config.json", "tokenizer.json"] {
            assert_eq!(folder.read(&format!("m/{name}")), folder.read(&format!("{dtype}/{name}")), "{dtype}");
        }
        // One arithmetic, however the type comes about.
        assert_eq!(loss(&format!("-m {dtype}")), loss(&format!("-m m --dtype {dtype}")), "{dtype}");
        let write = |args: &str| folder.succeeds(&format!("generate -n 12 --seed 1 -p Once {args}"));
        assert_eq!(write(&format!("-m {dtype}")), write(&format!("-m m --dtype {dtype}")), "{dtype}");
        // Weights in few bits can be trained on, as f32.
        folder.succeeds(&format!(
            "train --data a.txt --init {dtype} --batch 4 --max-steps 1 --out again-{dtype}"
        ));
        assert_eq!(
            json(&folder.succeeds(&format!("quantize -m {dtype} --to f32 --out back-{dtype} --json")))["dtype"],
            "f32"
        );
    }
    assert_eq!(loss("-m f32"), loss("-m m"));
    assert_eq!(
        std::fs::read_dir(folder.path("."))
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().contains("part") })
            .count(),
        0,
        "nothing is left of what was written"
    );
}

#[test]
fn the_report_is_of_what_will_run() {
    let folder = trained();
    let run = "quantize -m m --to q4 --out q4 --force --report b.txt a.txt --outliers 20";
    let report = json(&folder.succeeds(&format!("{run} --json")));
    folder.write("both.jsonl", [json_line(&folder.read("b.txt")), json_line(&folder.read("a.txt"))].concat());
    for (side, dir) in [("before", "m"), ("after", "q4")] {
        let want = json(&folder.succeeds(&format!("eval -m {dir} --data both.jsonl --json")));
        let [got, want] = [&report["report"][side]["loss"], &want["loss"]].map(|loss| loss.as_f64().unwrap());
        assert!((got - want).abs() < 1e-5, "{side}: {got} and {want}");
    }
    for key in ["kl", "kl_stderr", "agreement", "perplexity_change", "tokens"] {
        assert!(report["report"][key].is_number() && report["outliers"][key].is_number(), "{key}: {report}");
    }
    assert!(report["bytes"].as_u64() < report["f32_bytes"].as_u64());
    let table = folder.succeeds(run);
    for word in
        ["perplexity", "accuracy", "size", "tokens/s", "KL divergence", "same first", "20 times as large"]
    {
        assert!(table.contains(word), "{table}");
    }
    folder.succeeds("quantize -m m --to q4 --out q4 --force --calibrate a.txt --report b.txt");
}

fn json_line(text: &str) -> String {
    format!("{}\n", serde_json::json!({ "text": text }))
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_lost() {
    let folder = trained();
    folder.succeeds("quantize -m m --to q8 --out q8");
    let before = std::fs::read(folder.path("q8/model.safetensors")).unwrap();
    folder.fails("quantize -m m --to q4 --out q8", &["q8 already holds a model", "--force"]);
    folder.fails("quantize -m q8 --to q4 --out ./q8/../q8 --force", &["the model itself"]);
    folder.fails("quantize -m q8 --to q4 --out m --force", &["holds a training run"]);
    folder.fails("quantize -m m --to q5 --out q5", &["q5", "f32, f16, bf16, q8, q4"]);
    folder.fails("quantize -m nowhere --to q8 --out x", &["nowhere", "no file or directory"]);
    folder.fails("quantize -m m --to q8 --out x --report none.txt", &["none.txt"]);
    folder.fails(
        "quantize -m m --to q8 --out x --report a.txt --calibrate b.txt ./a.txt",
        &["a.txt", "--calibrate"],
    );
    folder.fails("quantize -m m --to q8 --out x --report a.txt --outliers 0", &["--outliers 0"]);
    folder.fails("quantize -m m --to q8 --out x --report a.txt --stride 17", &["17", "16"]);
    folder.fails("quantize -m m --to q8 --out a.txt/x", &["a.txt/x", "cannot write"]);
    folder.fails("eval -m m --data a.txt --dtype int8", &["int8", "f32, f16, bf16, q8, q4"]);
    assert!(!folder.exists("x"));
    assert!(std::fs::read(folder.path("q8/model.safetensors")).unwrap() == before);
    // A scale that is not a number: the blocks of the first matrix stand first in the file.
    let mut bytes = before;
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let start = bytes[8..8 + header].windows(4).position(|part| part == b"\"U8\"").unwrap();
    assert!(start > 0);
    let end = bytes.len() - bytes.len() % 64;
    for at in (8 + header..end).step_by(2) {
        bytes[at..at + 2].copy_from_slice(&0x7e00u16.to_le_bytes());
    }
    folder.write("q8/model.safetensors", bytes);
    for command in
        ["generate -m q8 -p Once", "eval -m q8 --data a.txt", "train --data a.txt --init q8 --out y"]
    {
        folder.fails(command, &["tensor `", "scale", "NaN", "damaged"]);
    }
}
