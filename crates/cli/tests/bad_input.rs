//! What must be refused, each with its own message, and nothing lost.

mod common;

use common::{Folder, TINY, text};

fn trained() -> Folder {
    let folder = Folder::new();
    folder.write("a.txt", text());
    folder.succeeds(&format!("train --data a.txt --tokenizer char {TINY} --max-steps 2 --out m"));
    folder
}

#[test]
fn data() {
    let folder = Folder::new();
    folder.write("empty.txt", "");
    folder.write("short.txt", "tiny");
    folder.write("bad.txt", b"fine \xff not");
    folder.write("a.txt", text());
    let train = |rest: &str| format!("train {TINY} --out out {rest}");
    folder.fails(&train(""), &["--data"]);
    folder.fails(&train("--data none.txt"), &["none.txt", "No such file"]);
    folder.fails(&train("--data empty.txt"), &["empty.txt", "no text"]);
    folder.fails(&train("--data short.txt --tokenizer char"), &["needs 17"]);
    folder.fails(&train("--data bad.txt"), &["bad.txt", "byte 5"]);
    folder.fails(&train("--data a.txt=0"), &["positive number"]);
    folder.fails(&train("--data ."), &["gpt2 prepare"]);
    folder.fails(&train("--data a.txt --encoding klingon"), &["klingon"]);
    folder.fails(&train("--data a.txt --tokenizer bpe:12"), &["too small", "257"]);
    folder.fails(&train("--data a.txt --tokenizer bpe:x"), &["bpe:8000"]);
    folder.fails(&train("--data a.txt --tokenizer nowhere"), &["nowhere"]);
    assert!(!folder.exists("out/model.safetensors"));
}

#[test]
fn settings() {
    let folder = Folder::new();
    folder.write("a.txt", text());
    let fails = |flags: &str, parts: &[&str]| {
        folder.fails(&format!("train --data a.txt --tokenizer char --n-ctx 8 --out out {flags}"), parts);
    };
    fails("--n-embd 10 --n-head 3", &["`n_embd` is 10", "9 or 12"]);
    fails("--n-head 0", &["`n_head` is 0"]);
    fails("--lr nan", &["--lr"]);
    fails("--lr -1", &[]);
    fails("--batch 0", &["--batch"]);
    fails("--grad-accum 0", &["--grad-accum"]);
    fails("--max-steps 0", &["--max-steps"]);
    fails("--dropout 1.5", &["pdrop"]);
    fails("--schedule cosinus", &["cosine"]);
    fails("--optimizer lion", &["adamw"]);
    fails("--val-fraction 1", &["--val-fraction"]);
    fails("--preset gpt5", &["gpt2-medium"]);
    fails("--n-layer 4000 --n-embd 60000 --n-head 1", &["GB of memory"]);
    folder.write("wrong.toml", "learning-rate = 1");
    fails("--config wrong.toml", &["learning-rate", "wrong.toml"]);
    let forced = folder.command("tokenizer encode").env("GPT2_ISA", "sse9").output().unwrap();
    assert!(!forced.status.success() && String::from_utf8_lossy(&forced.stderr).contains("sse9"));
}

#[test]
fn prompts() {
    let folder = trained();
    let long = "a".repeat(17);
    folder.fails(&format!("generate -m m -p {long}"), &["17", "16"]);
    folder.fails("generate -m m -p Once -n 13", &["4 tokens", "13", "16"]);
    folder.fails("generate -m m -p Once --temperature -1", &[]);
    folder.fails("generate -m m -p Once --temperature nan", &["temperature"]);
    folder.fails("generate -m m -p Once --top-p 0", &["top-p"]);
    folder.fails("generate -m m -p ☃", &["☃", "byte 0"]);
    folder.fails("generate -m m -p Once --samples 0", &["--samples"]);
    folder.fails("generate -m nowhere -p Once", &["nowhere", "config.json"]);
    let decoded = folder.run_with_input("tokenizer decode", b"[50257]");
    assert!(
        !decoded.ok && decoded.stderr.contains("50257") && decoded.stderr.contains("50256"),
        "{}",
        decoded.stderr
    );
    assert!(!folder.run_with_input("tokenizer decode", b"[1, -1]").ok);
}

#[test]
fn hostile_model_files() {
    let folder = trained();
    let path = folder.path("m/model.safetensors");
    let good = std::fs::read(&path).unwrap();
    let config = folder.read("m/config.json");
    let mut huge_header = good.clone();
    huge_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut one_nan = good.clone();
    let end = one_nan.len();
    one_nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    for damage in [&good[..good.len() / 2], &good[..7], &[], &huge_header] {
        std::fs::write(&path, damage).unwrap();
        folder.fails("generate -m m -p Once", &["safetensors"]);
    }
    std::fs::write(&path, &one_nan).unwrap();
    folder.fails("eval -m m --data a.txt", &["damaged"]);
    std::fs::write(&path, &good).unwrap();
    let changes = [
        ("\"n_embd\": 16", "\"n_embd\": 18", "shape"),
        ("\"n_layer\": 1", "\"n_layer\": 2", "missing"),
        ("\"n_layer\": 1", "\"n_layer\": 99999999999", "n_layer"),
        ("\"n_embd\": 16", "\"n_embd\": -16", "n_embd"),
        ("gelu_new", "relu", "activation_function"),
        ("{", "", "m/config.json"),
    ];
    for (from, to, want) in changes {
        folder.write("m/config.json", config.replacen(from, to, 1));
        folder.fails("generate -m m -p Once", &[want]);
    }
    folder.write("m/config.json", &config);
    folder.succeeds("generate -m m -p Once -n 2");
    folder.write("m/tokenizer.json", "{\"model\": {\"vocab\": {\"a\": 0, \"b\": 7}}}");
    folder.fails("generate -m m -p Once", &["tokenizer.json"]);
}
