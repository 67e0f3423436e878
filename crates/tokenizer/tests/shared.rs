//! GPT-2's vocabulary against the shared data: every edge case, every invalid sequence, whole files.
//!
//! The data lies in `$GPT2_SHARED`, or in `shared` beside the repository; without it these tests are skipped aloud.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokenizer::{Tokenizer, Utf8Stream};

fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let data = std::env::var_os("GPT2_SHARED").map_or_else(beside, PathBuf::from).join("data");
    let found = data.is_dir().then(|| data.clone());
    if found.is_none() {
        eprintln!("SKIPPED: the shared data is not at {}", data.display());
    }
    found
}

fn json_lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.split('\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn edge_cases() {
    let Some(data) = shared() else { return };
    let gpt2 = Tokenizer::gpt2();
    let cases = json_lines(&data.join("edge/edge-cases.jsonl"));
    assert!(cases.len() > 200);
    for case in cases {
        let (name, text) = (&case["name"], case["text"].as_str().unwrap());
        let got = gpt2.encode(text).unwrap();
        assert_eq!(got, ids(&case["gpt2"]), "{name}: {text:?}");
        assert_eq!(gpt2.decode_bytes(&got).unwrap(), text.as_bytes(), "{name}");
    }
}

#[test]
fn invalid_utf8() {
    let Some(data) = shared() else { return };
    let gpt2 = Tokenizer::gpt2();
    let cases = json_lines(&data.join("edge/invalid-utf8.jsonl"));
    assert!(cases.len() > 50);
    for case in cases {
        let hex = case["hex"].as_str().unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
        let (name, lossy) = (&case["name"], case["lossy"].as_str().unwrap());
        let ids = gpt2.encode_bytes(&bytes).unwrap();
        assert_eq!(gpt2.decode_bytes(&ids).unwrap(), bytes, "{name}");
        assert_eq!(gpt2.decode(&ids).unwrap(), lossy, "{name}");
        let mut stream = Utf8Stream::default();
        let mut text: String = ids.iter().map(|&id| stream.push(gpt2.token_bytes(id).unwrap())).collect();
        text += &stream.finish();
        assert_eq!(text, lossy, "{name}");
    }
    let all = fs::read(data.join("edge/invalid-utf8.bin")).unwrap();
    assert_eq!(gpt2.decode_bytes(&gpt2.encode_bytes(&all).unwrap()).unwrap(), all);
}

#[test]
fn whole_files() {
    let Some(data) = shared() else { return };
    let gpt2 = Tokenizer::gpt2();
    let table = fs::read_to_string(data.join("gpt2-vocab/token-counts.tsv")).unwrap();
    let mut checked = 0;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let Ok(text) = fs::read_to_string(data.join(fields[0])) else { continue }; // some are packed
        let ids = gpt2.encode(&text).unwrap();
        assert_eq!(ids.len().to_string(), fields[3], "{}", fields[0]);
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect();
        assert_eq!(format!("{:x}", Sha256::digest(&bytes)), fields[4], "{}", fields[0]);
        checked += 1;
    }
    assert!(checked >= 8, "only {checked} files could be read");
}

/// What is inside the program is the released vocabulary, and saving gives the released files.
#[test]
fn released_vocabulary() {
    let Some(data) = shared() else { return };
    let released = data.join("gpt2-vocab");
    let dir = tempfile::tempdir().unwrap();
    Tokenizer::gpt2().save(dir.path()).unwrap();
    let merges = |dir: &Path| fs::read_to_string(dir.join("merges.txt")).unwrap();
    assert_eq!(merges(dir.path()), merges(&released));
    let vocab = |dir: &Path| -> Value {
        serde_json::from_str(&fs::read_to_string(dir.join("vocab.json")).unwrap()).unwrap()
    };
    assert_eq!(vocab(dir.path()), vocab(&released));
    let theirs = Tokenizer::load(&released).unwrap();
    for case in json_lines(&data.join("edge/edge-cases.jsonl")) {
        let text = case["text"].as_str().unwrap();
        assert_eq!(theirs.encode(text).unwrap(), ids(&case["gpt2"]), "{text:?}");
    }
}
