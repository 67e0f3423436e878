//! A model directory that the binary made, loaded by transformers: the same ids, losses and greedy text.
//!
//! `GPT2_PYTHON` names a Python that has torch and transformers (`tests/golden/requirements.txt`).
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use serde_json::Value;

const PROMPT: &str = "The fox";
const NEW_TOKENS: usize = 20;

#[test]
fn transformers_loads_what_we_save_and_agrees() {
    let Ok(python) = env::var("GPT2_PYTHON") else {
        eprintln!(
            "SKIPPED: GPT2_PYTHON does not name a Python with transformers, so our exports were not checked"
        );
        return;
    };
    for tokenizer in ["bpe:400", "gpt2", "char"] {
        let dir = fresh_folder(&tokenizer.replace(':', "-"));
        let (text, model) = (dir.join("text.txt"), dir.join("model"));
        fs::write(&text, story()).unwrap();
        train(tokenizer, &text, &model);
        let theirs = ask_transformers(&python, &model, &text);
        same_ids(tokenizer, &model, &theirs);
        same_losses(tokenizer, &model, &text, &theirs);
        same_continuation(tokenizer, &model, &theirs);
    }
}

fn train(tokenizer: &str, text: &Path, model: &Path) {
    let shape =
        ["--n-layer", "2", "--n-head", "3", "--n-embd", "24", "--n-ctx", "32", "--tokenizer", tokenizer];
    let run = ["--max-steps", "30", "--batch", "4", "--lr", "0.01", "--dropout", "0.1", "--seed", "1"];
    let paths = ["--data".as_ref(), text.as_os_str(), "--out".as_ref(), model.as_os_str()];
    gpt2(Command::new(GPT2).arg("train").args(paths).args(shape).args(run), "");
}

fn ask_transformers(python: &str, model: &Path, text: &Path) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ask_transformers.py");
    let mut command = Command::new(python);
    command
        .arg(script)
        .args([model, text])
        .args([PROMPT, &NEW_TOKENS.to_string()])
        .env("HF_HUB_OFFLINE", "1");
    let theirs: Value = serde_json::from_str(&gpt2(&mut command, "")).unwrap();
    assert_eq!(
        theirs["unmatched"],
        serde_json::json!({}),
        "weights that transformers misses or does not know"
    );
    theirs
}

fn same_ids(case: &str, model: &Path, theirs: &Value) {
    let encode = |flag: &[&str], text: &str| {
        let command = ["tokenizer", "encode", "--json", "--tokenizer"];
        let ids = gpt2(Command::new(GPT2).args(command).arg(model).args(flag), text);
        serde_json::from_str::<Value>(&ids).unwrap()
    };
    assert_eq!(encode(&[], &story()), theirs["ids"], "{case}: ids of the same text");
    assert_eq!(theirs["decoded"], story(), "{case}: transformers decodes the ids to the text");
    let special = encode(&["--parse-special"], &format!("{PROMPT}<|endoftext|>{PROMPT}"));
    assert_eq!(special, theirs["special"], "{case}: ids around an end-of-text token");
    assert!(special.as_array().unwrap().contains(&theirs["eos"]), "{case}: {special} holds no end-of-text");
}

/// The mean loss of `gpt2 eval`, and that of each token, over the same windows.
fn same_losses(case: &str, model: &Path, text: &Path, theirs: &Value) {
    let table = text.with_file_name("per-token.tsv");
    let mut command = Command::new(GPT2);
    command.args(["eval", "--json", "-m"]).arg(model).arg("--data").arg(text).arg("--per-token").arg(&table);
    let ours: Value = serde_json::from_str(&gpt2(&mut command, "")).unwrap();
    let theirs: Vec<f64> =
        theirs["losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    let (got, want) = (ours["loss"].as_f64().unwrap(), theirs.iter().sum::<f64>() / theirs.len() as f64);
    eprintln!("{case}: loss {got}, by transformers {want}, over {} tokens", theirs.len());
    assert!((got - want).abs() <= 1e-4, "{case}: `gpt2 eval` says {got}, transformers {want}");
    let table = fs::read_to_string(table).unwrap();
    let logprobs: Vec<f64> =
        table.lines().skip(1).map(|line| line.split('\t').nth(3).unwrap().parse().unwrap()).collect();
    assert_eq!(logprobs.len(), theirs.len(), "{case}: the number of predictions");
    for (i, (logprob, loss)) in logprobs.iter().zip(&theirs).enumerate() {
        assert!(
            (logprob + loss).abs() <= 1e-4,
            "{case}: prediction {i} has ln p {logprob}, by transformers -{loss}"
        );
    }
}

fn same_continuation(case: &str, model: &Path, theirs: &Value) {
    let n = NEW_TOKENS.to_string();
    let flags = ["-p", PROMPT, "-n", &n, "--temperature", "0", "--json"];
    let ours = gpt2(Command::new(GPT2).args(["generate", "-m"]).arg(model).args(flags), "");
    let ours: Value = serde_json::from_str(&ours).unwrap();
    assert_eq!(ours["ids"], theirs["greedy"], "{case}: the most likely {n} tokens after `{PROMPT}`");
}

const GPT2: &str = env!("CARGO_BIN_EXE_gpt2");

/// Runs a command with `input` and returns its stdout; it must succeed.
fn gpt2(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fresh_folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("transformers-{name}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// A text with words, numbers, Chinese, emoji and odd spaces.
fn story() -> String {
    let animals = ["fox", "hen", "tortoise", "小狐狸", "naïve owl 🦉"];
    let places = ["hill", "river", "山上", "old  mill", "market\tsquare"];
    let lines = (0..60).map(|i| {
        let (animal, place) = (animals[i % 5], places[i * 7 / 5 % 5]);
        format!(
            "The {animal} went to the {place} {i} times, and it's not tired yet.\r\n 它说：“你好！” {}\n",
            i * i * 37
        )
    });
    lines.collect::<String>() + "The end.\n\n"
}
