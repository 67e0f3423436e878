//! Ids and merges as tiktoken and Hugging Face's tokenizers give them; `tests/golden/tokenizer.py` made the files.
#![forbid(unsafe_code)]

use std::fs;

use serde_json::Value;
use tokenizer::{END_OF_TEXT, Tokenizer};

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn trained() -> Value {
    serde_json::from_str(include_str!("golden/trained.json")).unwrap()
}

#[test]
fn gpt2_ids() {
    let gpt2 = Tokenizer::gpt2();
    let cases: Value = serde_json::from_str(include_str!("golden/gpt2.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let got = gpt2.encode(text).unwrap();
        assert_eq!(got, ids(&case["ids"]), "{text:?}");
        assert_eq!(gpt2.encode_bytes(text.as_bytes()).unwrap(), got, "{text:?}");
        assert_eq!(gpt2.decode(&got).unwrap(), text);
    }
    assert_eq!((gpt2.vocab_size(), gpt2.eot()), (50257, 50256));
}

/// Learning from the same text gives the same tokens and merges, also where counts are equal.
#[test]
fn training() {
    let want = trained();
    let size = want["vocab_size"].as_u64().unwrap() as usize;
    let docs = want["text"].as_str().unwrap().split_inclusive('\n');
    let dir = tempfile::tempdir().unwrap();
    Tokenizer::train_bpe(docs, size).unwrap().save(dir.path()).unwrap();
    let text = fs::read_to_string(dir.path().join("tokenizer.json")).unwrap();
    let got: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(got["model"]["merges"], want["tokenizer"]["model"]["merges"]);
    assert_eq!(got["added_tokens"], want["tokenizer"]["added_tokens"]);
    let mut vocab = want["tokenizer"]["model"]["vocab"].clone();
    vocab[END_OF_TEXT] = (size - 1).into(); // theirs is among the added tokens only
    assert_eq!(got["model"]["vocab"], vocab);
}

/// Files that cut text in other ways give the same ids, also after we saved them.
#[test]
fn variants() {
    let golden = trained();
    let texts: Vec<&str> =
        golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    for variant in golden["variants"].as_array().unwrap() {
        let name = variant["name"].as_str().unwrap();
        let mut json = golden["tokenizer"].clone();
        for (part, value) in variant["parts"].as_object().unwrap() {
            json[part] = value.clone();
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokenizer.json");
        fs::write(&file, json.to_string()).unwrap();
        let loaded = Tokenizer::load(&file).unwrap();
        loaded.save(dir.path()).unwrap();
        let saved = Tokenizer::load(dir.path()).unwrap();
        for (text, want) in texts.iter().zip(variant["ids"].as_array().unwrap()) {
            let got = loaded.encode_with_special(text).unwrap();
            assert_eq!(got, ids(want), "{name}: {text:?}");
            assert_eq!(saved.encode_with_special(text).unwrap(), got, "{name}, saved: {text:?}");
            if !text.contains(END_OF_TEXT) {
                assert_eq!(loaded.encode(text).unwrap(), got, "{name}: {text:?}");
            }
            if loaded.is_lossless() {
                assert_eq!(loaded.decode(&got).unwrap(), *text, "{name}");
            }
        }
    }
}

#[test]
fn special_tokens_in_text() {
    let gpt2 = Tokenizer::gpt2();
    let text = "a<|endoftext|>b";
    assert_eq!(gpt2.encode_with_special(text).unwrap(), [64, 50256, 65]);
    assert!(!gpt2.encode(text).unwrap().contains(&50256));
    assert_eq!(gpt2.decode(&[64, 50256, 65]).unwrap(), text);
    assert_eq!(gpt2.token_bytes(50256), Some(END_OF_TEXT.as_bytes()));
    assert_eq!(gpt2.token_bytes(50257), None);
    let error = gpt2.decode(&[1, 50257]).unwrap_err();
    assert!(error.to_string().contains("token id 50257 at position 1 is out of range"), "{error}");
}

/// Valid stretches are cut as text is; a byte that is not UTF-8 is a token of its own.
#[test]
fn bytes_that_are_not_text() {
    let gpt2 = Tokenizer::gpt2();
    let ids = gpt2.encode_bytes(b"hello\xff\xfe world").unwrap();
    let (hello, world) = (gpt2.encode("hello").unwrap(), gpt2.encode(" world").unwrap());
    assert_eq!(ids.len(), hello.len() + 2 + world.len());
    assert_eq!(gpt2.decode_bytes(&ids).unwrap(), b"hello\xff\xfe world");
    let chars = Tokenizer::train_chars(["hello world"]).unwrap();
    let error = chars.encode_bytes(b"hello\xff").unwrap_err();
    assert!(error.to_string().contains("byte 0xff at offset 5 is not UTF-8"), "{error}");
}

/// Merging these by scanning for the best pair each time would take minutes.
#[test]
fn a_very_long_word_comes_back() {
    let gpt2 = Tokenizer::gpt2();
    for word in ["ab", "z", "好", " "] {
        let text = word.repeat(200_000);
        assert_eq!(gpt2.decode(&gpt2.encode(&text).unwrap()).unwrap(), text);
    }
}
