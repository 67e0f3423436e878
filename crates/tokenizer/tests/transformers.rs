//! Tokenizers that we saved, loaded by Hugging Face's libraries: the same ids, and the text comes back.
//!
//! `GPT2_PYTHON` names a Python that has transformers (`tests/golden/requirements.txt`).
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use serde_json::{Value, json};
use tokenizer::Tokenizer;

#[test]
fn hugging_face_loads_what_we_save_and_agrees() {
    let Ok(python) = env::var("GPT2_PYTHON") else {
        eprintln!(
            "SKIPPED: GPT2_PYTHON does not name a Python with transformers, so saved tokenizers were not checked"
        );
        return;
    };
    let golden: Value = serde_json::from_str(include_str!("golden/gpt2.json")).unwrap();
    let texts: Vec<&str> =
        golden.as_array().unwrap().iter().map(|case| case["text"].as_str().unwrap()).collect();
    let all = [
        Tokenizer::gpt2(),
        Tokenizer::train_bpe(&texts, 500).unwrap(),
        Tokenizer::train_chars(&texts).unwrap(),
        Tokenizer::train_words(&texts, 100_000).unwrap(),
        Tokenizer::train_words(&texts, 50).unwrap(),
    ];
    let dir = tempfile::tempdir().unwrap();
    let folders: Vec<_> = (0..all.len()).map(|i| dir.path().join(i.to_string())).collect();
    all.iter().zip(&folders).for_each(|(tokenizer, folder)| tokenizer.save(folder).unwrap());
    let file = dir.path().join("texts.json");
    fs::write(&file, json!(texts).to_string()).unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ask_tokenizer.py");
    let mut command = Command::new(python);
    let output = command.arg(script).arg(&file).args(&folders).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), all.len());
    for (ours, theirs) in all.iter().zip(&answers) {
        for (who, answer) in theirs.as_object().unwrap() {
            agree(ours, &texts, answer, &format!("{} of {}, {who}", ours.kind(), ours.vocab_size()));
        }
    }
}

fn agree(ours: &Tokenizer, texts: &[&str], theirs: &Value, what: &str) {
    for (i, text) in texts.iter().enumerate() {
        let ids = ours.encode_with_special(text).unwrap();
        assert_eq!(theirs["ids"][i], json!(ids), "{what}: {text:?}");
        assert_eq!(theirs["texts"][i], ours.decode(&ids).unwrap(), "{what}: {text:?}");
    }
    if let Some(eos) = theirs.get("eos") {
        assert_eq!(*eos, ours.eot(), "{what}");
    }
}
