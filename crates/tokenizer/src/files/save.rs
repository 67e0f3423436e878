//! Writing a tokenizer: `tokenizer.json`, `tokenizer_config.json` and, for byte-level BPE, `vocab.json` and `merges.txt`.

use std::fs;
use std::io::Write;
use std::path::Path;

use atomic_write_file::AtomicWriteFile;
use serde_json::{Map, Value, json};

use super::{Alphabet, CONFIG, MERGES, TOKENIZER, VOCAB, split_pattern};
use crate::bpe::Bpe;
use crate::split::Pattern;
use crate::tokenizer::{Kind, Options};
use crate::words::{UNKNOWN, Vocabulary};
use crate::{Result, Tokenizer, TokenizerError};

/// Writes all files of a tokenizer.
pub(crate) fn save(tokenizer: &Tokenizer, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(TokenizerError::io(dir))?;
    let added: Vec<Value> = tokenizer
        .added()
        .iter()
        .map(|added| {
            json!({
                "id": added.id, "content": added.name, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": !added.special, "special": added.special,
            })
        })
        .collect();
    let end = text(tokenizer.token_bytes(tokenizer.eot()).unwrap_or_default());
    let mut json = json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null });
    let mut config = json!({
        "bos_token": end, "eos_token": end, "clean_up_tokenization_spaces": false,
        "model_max_length": 1_000_000_000_000_u64,
    });
    match tokenizer.inside() {
        Kind::Bpe(bpe, options) => {
            let names = names(tokenizer, bpe);
            write(&dir.join(VOCAB), &(vocab(names.iter()).to_string() + "\n"))?;
            write(&dir.join(MERGES), &merges_text(&names, bpe))?;
            extend(&mut json, bpe_json(&names, bpe, *options));
            let (class, space) = ("GPT2Tokenizer", options.add_prefix_space);
            extend(
                &mut config,
                json!({ "tokenizer_class": class, "unk_token": end, "add_prefix_space": space }),
            );
        }
        Kind::Words(vocabulary) => {
            extend(&mut json, words_json(vocabulary));
            extend(&mut config, json!({ "tokenizer_class": "PreTrainedTokenizerFast" }));
            if vocabulary.tokens().find(UNKNOWN.as_bytes()).is_some() {
                extend(&mut config, json!({ "unk_token": UNKNOWN }));
            }
        }
    }
    write(&dir.join(CONFIG), &pretty(&config))?;
    write(&dir.join(TOKENIZER), &pretty(&json))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn extend(json: &mut Value, more: Value) {
    if let (Value::Object(json), Value::Object(more)) = (json, more) {
        json.extend(more);
    }
}

fn pretty(json: &Value) -> String {
    serde_json::to_string_pretty(json).expect("a JSON value can be written") + "\n"
}

/// Writes beside the target, syncs and renames.
fn write(path: &Path, text: &str) -> Result<()> {
    let write_all = || -> std::io::Result<()> {
        let mut file = AtomicWriteFile::open(path)?;
        file.write_all(text.as_bytes())?;
        file.commit()
    };
    write_all().map_err(TokenizerError::io(path))
}

fn vocab<T: AsRef<str>>(names: impl Iterator<Item = T>) -> Value {
    names
        .zip(0u32..)
        .map(|(name, id)| (name.as_ref().to_owned(), Value::from(id)))
        .collect::<Map<_, _>>()
        .into()
}

/// How each token is written in byte-level files.
fn names(tokenizer: &Tokenizer, bpe: &Bpe) -> Vec<String> {
    let alphabet = Alphabet::new();
    let mut names: Vec<String> = bpe.tokens().iter().map(|token| alphabet.write(token)).collect();
    for added in tokenizer.added() {
        names[added.id as usize] = added.name.clone();
    }
    names
}

fn merges_text(names: &[String], bpe: &Bpe) -> String {
    let lines =
        bpe.merges().into_iter().map(|(l, r, _)| format!("{} {}\n", names[l as usize], names[r as usize]));
    ["#version: 0.2\n".to_owned()].into_iter().chain(lines).collect()
}

fn bpe_json(names: &[String], bpe: &Bpe, options: Options) -> Value {
    let byte_level = |add_prefix_space: bool, trim_offsets: bool, use_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets,
            "use_regex": use_regex,
        })
    };
    let merges: Vec<[&str; 2]> =
        bpe.merges().iter().map(|&(l, r, _)| [&*names[l as usize], &*names[r as usize]]).collect();
    json!({
        "pre_tokenizer": byte_level(options.add_prefix_space, true, options.pattern == Pattern::Gpt2),
        "post_processor": byte_level(true, false, true),
        "decoder": byte_level(true, true, true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab(names.iter()), "merges": merges,
        },
    })
}

fn words_json(vocabulary: &Vocabulary) -> Value {
    let pattern = split_pattern(vocabulary.unit());
    json!({
        "pre_tokenizer": {
            "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false,
        },
        "post_processor": null,
        "decoder": { "type": "Fuse" },
        "model": { "type": "WordLevel", "vocab": vocab(vocabulary.tokens().iter().map(text)), "unk_token": UNKNOWN },
    })
}
