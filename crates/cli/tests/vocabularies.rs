//! A Chinese GPT-2 with BERT's vocabulary, from text to text.

mod common;

use common::{Folder, TINY};
use serde_json::Value;

const TEXT: &str = "这是很久之前的事情了。那时候有一只狐狸和一个 fox，还有 two foxes。";

/// A folder with a vocabulary `bert/vocab.txt` of the characters of [`TEXT`], small letters, and texts in `a.txt`.
fn folder() -> Folder {
    let folder = Folder::new();
    let mut tokens: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fox", "##es", "two"].map(str::to_owned).to_vec();
    for char in TEXT.chars().filter(|char| !char.is_ascii() && !char.is_whitespace()) {
        if !tokens.contains(&char.to_string()) {
            tokens.push(char.to_string());
        }
    }
    std::fs::create_dir(folder.path("bert")).unwrap();
    folder.write("bert/vocab.txt", tokens.join("\n") + "\n");
    folder.write("a.txt", TEXT.repeat(20));
    folder
}

#[test]
fn chinese_with_a_bert_vocabulary() {
    let folder = folder();
    let trained = folder.run(&format!("train --data a.txt --tokenizer bert {TINY} --max-steps 3 --out m"));
    assert!(trained.ok, "{}", trained.stderr);
    assert!(
        trained.stderr.contains("does not keep text as it is: letters become lower case"),
        "{}",
        trained.stderr
    );
    for name in ["vocab.txt", "tokenizer.json", "tokenizer_config.json"] {
        assert!(folder.exists(&format!("m/{name}")), "{name}");
    }
    let config: Value = serde_json::from_str(&folder.read("m/config.json")).unwrap();
    assert_eq!(config["eos_token_id"], 3);
    let run = folder.run("generate -m m -p 有一只狐狸 -n 8 --min-tokens 8 --seed 1 --json");
    let result: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{}", run.stderr));
    // [CLS] and five characters.
    assert_eq!(result["timings"]["prompt_tokens"], 6);
    assert!(!run.stderr.contains("has no token"), "{}", run.stderr);
    let text = result["text"].as_str().unwrap();
    let han = |char: Option<char>| char.is_some_and(|char| ('\u{4E00}'..='\u{9FFF}').contains(&char));
    let chars: Vec<char> = text.chars().collect();
    for (i, &char) in chars.iter().enumerate() {
        let beside = [i.checked_sub(1).and_then(|i| chars.get(i)), chars.get(i + 1)];
        assert!(char != ' ' || !beside.iter().any(|char| han(char.copied())), "{text:?}");
    }
    let run = folder.run("generate -m m -p 狐狸鑫 -n 1 --seed 1");
    assert!(run.stderr.contains("no token for '鑫' (U+946B) at byte 6 of the prompt"), "{}", run.stderr);
    assert!(run.stdout.starts_with("狐狸鑫"), "{}", run.stdout);
    assert!(folder.run("generate -m m -n 1 --seed 1").ok);
    assert!(folder.run("generate -m m -p 狐 -n 2 --beams 2").ok);
    assert!(folder.run("eval -m m --data a.txt").ok);
}

#[test]
fn what_a_vocabulary_lacks_is_reported() {
    let folder = folder();
    folder.write("b.txt", "狐狸鑫 焱\n");
    let run = folder.run("prepare --data a.txt b.txt --tokenizer bert --out shards --json");
    let summary: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{}", run.stderr));
    assert_eq!(summary["unknown_tokens"], 2);
    assert!(run.stderr.contains("2 tokens") && run.stderr.contains("lacks"), "{}", run.stderr);
    let run = folder.run_with_input("tokenizer encode --tokenizer bert --json", "狐狸鑫 焱".as_bytes());
    assert_eq!(serde_json::from_str::<Vec<u32>>(&run.stdout).unwrap()[2..], [1, 1]);
    assert!(run.stderr.contains("'鑫' (U+946B) at byte 6 of the text, nor for 1 more"), "{}", run.stderr);
    let run = folder.run_with_input("tokenizer stats --tokenizer bert --json", "狐狸鑫 焱".as_bytes());
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap()["unknown"], 2);
    // Each document starts with [CLS] and ends with [SEP].
    folder.write("c.jsonl", "{\"text\": \"狐\"}\n{\"text\": \"狸\"}\n");
    let run = folder.run("prepare --data c.jsonl --tokenizer bert --out c --val-fraction 0 --json");
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap()["tokens"], 6, "{}", run.stderr);
}
