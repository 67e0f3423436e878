//! Ids held to Hugging Face's `tokenizers` on awkward texts, with GPT-2's vocabulary and one read from a file.
//!
//! `tests/golden/make_ids.py` made the expected ids.
#![forbid(unsafe_code)]

use std::path::Path;

use serde::Deserialize;
use tokenizer::Tokenizer;

const CASES: &str = include_str!("../../../tests/golden/ids.json");

#[derive(Deserialize)]
struct Case {
    text: String,
    gpt2: Vec<u32>,
    bpe: Vec<u32>,
}

#[test]
fn ids_agree_with_tokenizers_and_round_trip() {
    let cases: Vec<Case> = serde_json::from_str(CASES).unwrap();
    assert!(cases.len() > 30);
    let gpt2 = Tokenizer::gpt2();
    let bpe = Tokenizer::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/bpe")).unwrap();
    for Case { text, gpt2: gpt2_ids, bpe: bpe_ids } in cases {
        for (name, tokenizer, want) in [("gpt2", &gpt2, gpt2_ids), ("bpe", &bpe, bpe_ids)] {
            let got = tokenizer.encode(&text).unwrap();
            assert_eq!(got, want, "{name} encodes {text:?}");
            assert_eq!(tokenizer.decode(&got).unwrap(), text, "{name} decodes {got:?}");
        }
    }
}

#[test]
fn special_tokens_are_parsed_when_asked() {
    let gpt2 = Tokenizer::gpt2();
    assert_eq!(gpt2.encode_with_special("Hello<|endoftext|> world").unwrap(), [15496, 50256, 995]);
    let bpe = Tokenizer::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/bpe")).unwrap();
    assert_eq!(bpe.eot(), 0);
    assert_eq!(bpe.encode_with_special("a<|endoftext|>a").unwrap(), [65, 0, 65]);
}
