//! The tokenizer inside a GGUF file: the ids that llama.cpp makes (`tests/golden/gguf/make.py`), and the way back.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use generate::gguf;
use models::checkpoint::{GgufTokenizer, GgufType, read_tokenizer, save_gguf};
use models::{Gpt2, Gpt2Config, Init};
use serde_json::Value;
use tokenizer::Tokenizer;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gguf").join(name)
}

#[test]
fn texts_become_the_ids_of_llama_cpp() {
    let tokenizer = gguf::tokenizer(&golden("f32.gguf")).unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&std::fs::read(golden("tokens.json")).unwrap()).unwrap();
    assert!(rows.len() > 10);
    for row in rows {
        let text = row["text"].as_str().unwrap();
        let ids = |field: &str| serde_json::from_value::<Vec<u32>>(row[field].clone()).unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), ids("ids"), "{text:?}");
        assert_eq!(tokenizer.encode_with_special(text).unwrap(), ids("special"), "{text:?}");
    }
}

#[test]
fn a_tokenizer_comes_back_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    for (tokenizer, more) in [
        (Tokenizer::gpt2(), 0),
        (Tokenizer::gpt2(), 47),
        (Tokenizer::train_bpe(["the theme"], 260).unwrap(), 3),
    ] {
        // A model may have more tokens than its tokenizer.
        let config = Gpt2Config::new(1, 1, 4, 4, tokenizer.vocab_size() + more);
        let model = Gpt2::new(config, Init::Gpt2, 1).unwrap();
        gguf::save(&model, &tokenizer, &path, GgufType::F32, &[("general.name", "a name")]).unwrap();
        assert!(gguf::tokenizer(&path).unwrap().is_same_as(&tokenizer));
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let model = Gpt2::new(Gpt2Config::new(1, 1, 4, 4, 300), Init::Gpt2, 1).unwrap();
    let chars = Tokenizer::train_chars(["abc"]).unwrap();
    let error = gguf::save(&model, &chars, &path, GgufType::F32, &[]).unwrap_err().to_string();
    assert!(error.contains("characters") && !path.exists(), "{error}");
    let refused = |tokenizer: Option<GgufTokenizer>| {
        save_gguf(&model, &path, GgufType::F32, tokenizer.as_ref(), &[]).unwrap();
        gguf::tokenizer(&path).unwrap_err().to_string()
    };
    assert!(refused(None).contains("no tokenizer inside"));
    let good = read_tokenizer(&golden("f32.gguf")).unwrap().unwrap();
    assert!(refused(Some(GgufTokenizer { add_bos: true, ..good.clone() })).contains("add_bos_token"));
    assert!(refused(Some(GgufTokenizer { bos: None, eos: None, ..good.clone() })).contains("eos_token_id"));
    let merges = vec!["th e".to_owned()];
    assert!(refused(Some(GgufTokenizer { merges, ..good })).contains("no token of the vocabulary"));
}
