//! Writing a tokenizer: `tokenizer.json`, `tokenizer_config.json` and, for byte-level BPE, `vocab.json` and `merges.txt`.

use std::borrow::Cow;
use std::fs;
use std::io::Write;
use std::path::Path;

use atomic_write_file::AtomicWriteFile;
use serde_json::{Map, Value, json};

use super::{Alphabet, CHAT, CONFIG, ChatTemplate, MERGES, TOKENIZER, VOCAB, split_pattern};
use crate::bpe::Bpe;
use crate::split::Pattern;
use crate::tokenizer::{Kind, Options};
use crate::words::{UNKNOWN, Vocabulary};
use crate::{Result, Tokenizer, TokenizerError};

/// Writes all files of a tokenizer.
pub(crate) fn save(tokenizer: &Tokenizer, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(TokenizerError::io(dir))?;
    if let Kind::Pipeline(pipeline) = tokenizer.inside() {
        let files = with_chat(&pipeline.parts.files, tokenizer.chat());
        forget_template(dir, files.iter().any(|(name, _)| *name == CHAT))?;
        // tokenizer.json comes last: with it the directory holds a tokenizer.
        return files.iter().rev().try_for_each(|(name, bytes)| write(&dir.join(name), bytes));
    }
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
    let [start, end] =
        [tokenizer.bos(), tokenizer.eot()].map(|id| text(tokenizer.token_bytes(id).unwrap_or_default()));
    let mut json = json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null });
    let mut config = json!({
        "bos_token": start, "eos_token": end, "clean_up_tokenization_spaces": false,
        "model_max_length": 1_000_000_000_000_u64,
    });
    match tokenizer.inside() {
        Kind::Bpe(bpe, options) => {
            let names = names(tokenizer, bpe);
            let merges = bpe.merges();
            let merges: Vec<(&str, &str)> =
                merges.iter().map(|&(l, r, _)| (&*names[l as usize], &*names[r as usize])).collect();
            let vocab = vocab(names.iter());
            write(&dir.join(VOCAB), (Value::from(vocab.clone()).to_string() + "\n").as_bytes())?;
            write(&dir.join(MERGES), merges_text(&merges).as_bytes())?;
            extend(&mut json, bpe_json(vocab, &merges, *options));
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
        Kind::Pipeline(_) => {}
    }
    for (role, name) in
        tokenizer.names().iter().filter(|(role, _)| !["bos_token", "eos_token"].contains(&role.as_str()))
    {
        config[role] = name.as_str().into();
    }
    if !tokenizer.prefix().is_empty() {
        json["post_processor"] = template(tokenizer);
    }
    if let Some(chat) = tokenizer.chat() {
        if !chat.config.is_null() {
            config["chat_template"] = chat.config.clone();
        }
        if let Some(jinja) = &chat.jinja {
            write(&dir.join(CHAT), jinja.as_bytes())?;
        }
    }
    forget_template(dir, tokenizer.chat().is_some_and(|chat| chat.jinja.is_some()))?;
    write(&dir.join(CONFIG), pretty(&config).as_bytes())?;
    write(&dir.join(TOKENIZER), pretty(&json).as_bytes())
}

/// Files as they were loaded, with this chat template instead of the one that they have.
fn with_chat<'a>(
    files: &'a [(&'static str, Vec<u8>)],
    chat: Option<&ChatTemplate>,
) -> Vec<(&'static str, Cow<'a, [u8]>)> {
    let file =
        |wanted: &str| files.iter().find(|(name, _)| *name == wanted).map(|(_, bytes)| bytes.as_slice());
    let config: Option<Value> = file(CONFIG).and_then(|bytes| serde_json::from_slice(bytes).ok());
    let mut config = config.unwrap_or_else(|| json!({}));
    let known = ChatTemplate {
        config: config.get("chat_template").cloned().unwrap_or_default(),
        jinja: file(CHAT).map(text),
    };
    let mut all: Vec<_> =
        files.iter().map(|(name, bytes)| (*name, Cow::Borrowed(bytes.as_slice()))).collect();
    if *chat.unwrap_or(&ChatTemplate::default()) == known {
        return all;
    }
    all.retain(|(name, _)| ![CONFIG, CHAT].contains(name));
    if let Some(table) = config.as_object_mut() {
        table.remove("chat_template");
        if let Some(chat) = chat.filter(|chat| !chat.config.is_null()) {
            table.insert("chat_template".to_owned(), chat.config.clone());
        }
    }
    all.push((CONFIG, pretty(&config).into_bytes().into()));
    if let Some(jinja) = chat.and_then(|chat| chat.jinja.as_ref()) {
        all.push((CHAT, jinja.clone().into_bytes().into()));
    }
    all
}

/// Takes away a template of an earlier tokenizer, which would be read instead of this one's.
fn forget_template(dir: &Path, has_one: bool) -> Result<()> {
    let path = dir.join(CHAT);
    if has_one {
        return Ok(());
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(TokenizerError::io(&path)(error)),
        _ => Ok(()),
    }
}

/// What puts tokens before a text.
fn template(tokenizer: &Tokenizer) -> Value {
    let names =
        tokenizer.prefix().iter().map(|&id| (id, text(tokenizer.token_bytes(id).unwrap_or_default())));
    let special: Map<_, _> = names
        .clone()
        .map(|(id, name)| (name.clone(), json!({ "id": name, "ids": [id], "tokens": [name] })))
        .collect();
    let before = names.map(|(_, name)| json!({ "SpecialToken": { "id": name, "type_id": 0 } }));
    let sequence = |name: &str| json!({ "Sequence": { "id": name, "type_id": 0 } });
    let single: Vec<Value> = before.chain([sequence("A")]).collect();
    json!({
        "type": "TemplateProcessing", "single": single, "pair": [sequence("A"), sequence("B")],
        "special_tokens": special,
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn extend(json: &mut Value, more: Value) {
    if let (Value::Object(json), Value::Object(more)) = (json, more) {
        json.extend(more);
    }
}

pub(super) fn pretty(json: &Value) -> String {
    serde_json::to_string_pretty(json).expect("a JSON value can be written") + "\n"
}

/// Writes beside the target, syncs and renames.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let write_all = || -> std::io::Result<()> {
        let mut file = AtomicWriteFile::open(path)?;
        file.write_all(bytes)?;
        file.commit()
    };
    write_all().map_err(TokenizerError::io(path))
}

fn vocab<T: AsRef<str>>(names: impl Iterator<Item = T>) -> Map<String, Value> {
    names.zip(0u32..).map(|(name, id)| (name.as_ref().to_owned(), Value::from(id))).collect()
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

fn merges_text(merges: &[(&str, &str)]) -> String {
    let lines = merges.iter().map(|(left, right)| format!("{left} {right}\n"));
    ["#version: 0.2\n".to_owned()].into_iter().chain(lines).collect()
}

/// The parts of `tokenizer.json` that make byte-level BPE.
pub(super) fn bpe_json(vocab: Map<String, Value>, merges: &[(&str, &str)], options: Options) -> Value {
    let byte_level = |add_prefix_space: bool, trim_offsets: bool, use_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets,
            "use_regex": use_regex,
        })
    };
    json!({
        "pre_tokenizer": byte_level(options.add_prefix_space, true, options.pattern == Pattern::Gpt2),
        "post_processor": byte_level(true, false, true),
        "decoder": byte_level(true, true, true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
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
