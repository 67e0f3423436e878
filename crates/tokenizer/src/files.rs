//! Tokenizer files as Hugging Face's libraries write and read them.
//!
//! Read with every check: ids must be 0 to n-1, each once, and merges must name tokens. What cannot be
//! reproduced exactly is refused by name.

use std::fs;
use std::io::Write;
use std::path::Path;

use atomic_write_file::AtomicWriteFile;
use rustc_hash::FxHashMap;
use serde_json::{Map, Value, json};

use crate::bpe::Bpe;
use crate::split::HAN;
use crate::tokenizer::{Kind, Options};
use crate::train::bytes_in_gpt2_order;
use crate::words::{UNKNOWN, Unit, Vocabulary};
use crate::{END_OF_TEXT, Result, Tokenizer, TokenizerError};

const TOKENIZER: &str = "tokenizer.json";
const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";

/// Reads a tokenizer from a file or a directory.
pub(crate) fn load(path: &Path) -> Result<Tokenizer> {
    let at = |name: &str| path.join(name);
    if path.is_file() {
        let is_vocab = path.file_name().is_some_and(|name| name == VOCAB);
        let dir = path.parent().unwrap_or(Path::new("."));
        return if is_vocab { load_pair(path, &dir.join(MERGES)) } else { load_json(path) };
    }
    if at(TOKENIZER).is_file() {
        return load_json(&at(TOKENIZER));
    }
    if at(VOCAB).is_file() && at(MERGES).is_file() {
        return load_pair(&at(VOCAB), &at(MERGES));
    }
    Err(TokenizerError::NotFound { path: path.to_owned() })
}

fn format(path: &Path, reason: impl Into<String>) -> TokenizerError {
    TokenizerError::Format { path: path.to_owned(), reason: reason.into() }
}

fn read_json(path: &Path) -> Result<Value> {
    let text = fs::read(path).map_err(TokenizerError::io(path))?;
    serde_json::from_slice(&text).map_err(|error| format(path, error.to_string()))
}

/// The tokens of a vocabulary by id: every id from 0 on, each once.
fn by_id<'a>(path: &Path, entries: impl Iterator<Item = (&'a str, &'a Value)>) -> Result<Vec<&'a str>> {
    let mut found: Vec<(u64, &str)> = entries
        .map(|(token, id)| {
            id.as_u64().map(|id| (id, token)).ok_or_else(|| format(path, format!("token {token:?} has the id {id}")))
        })
        .collect::<Result<_>>()?;
    found.sort_unstable();
    found.dedup();
    for (want, &(id, token)) in found.iter().enumerate() {
        if id < want as u64 {
            return Err(format(path, format!("id {id} is given twice, once to {token:?}")));
        }
        if id > want as u64 {
            return Err(format(path, format!("there is no token with id {want}, but one with id {id}")));
        }
    }
    if found.is_empty() {
        return Err(format(path, "the vocabulary is empty"));
    }
    Ok(found.into_iter().map(|(_, token)| token).collect())
}

/// vocab.json with merges.txt, as GPT-2 was released.
fn load_pair(vocab_path: &Path, merges_path: &Path) -> Result<Tokenizer> {
    let vocab = read_json(vocab_path)?;
    let vocab = vocab.as_object().ok_or_else(|| format(vocab_path, "a table of tokens and ids is needed"))?;
    let tokens = by_id(vocab_path, vocab.iter().map(|(token, id)| (token.as_str(), id)))?;
    let text = fs::read_to_string(merges_path).map_err(TokenizerError::io(merges_path))?;
    let lines = text.lines().enumerate().filter(|(i, line)| !(*i == 0 && line.starts_with("#version")) && !line.is_empty());
    let merges: Vec<(&str, &str)> = lines
        .map(|(i, line)| {
            line.split_once(' ').ok_or_else(|| format(merges_path, format!("line {} is not a pair of tokens", i + 1)))
        })
        .collect::<Result<_>>()?;
    let specials = tokens.iter().zip(0..).filter(|(token, _)| **token == END_OF_TEXT);
    let specials: Vec<(String, u32)> = specials.map(|(token, id)| (token.to_string(), id)).collect();
    byte_level(vocab_path, &tokens, &merges, specials, Options { add_prefix_space: false })
}

/// Builds byte-level BPE from tokens and merges in GPT-2's alphabet.
fn byte_level(
    path: &Path,
    tokens: &[&str],
    merges: &[(&str, &str)],
    specials: Vec<(String, u32)>,
    options: Options,
) -> Result<Tokenizer> {
    let alphabet = alphabet();
    let byte_of: FxHashMap<char, u8> = alphabet.iter().zip(0..=255).map(|(&char, byte)| (char, byte)).collect();
    let is_special = |id: u32| specials.iter().any(|special| special.1 == id);
    let mut bytes: Vec<Box<[u8]>> = Vec::with_capacity(tokens.len());
    for (&token, id) in tokens.iter().zip(0..) {
        if is_special(id) {
            bytes.push(token.as_bytes().into());
            continue;
        }
        let decoded: Option<Vec<u8>> = token.chars().map(|char| byte_of.get(&char).copied()).collect();
        let decoded = decoded.ok_or_else(|| {
            format(path, format!("token {token:?} (id {id}) is not written in the byte-level alphabet"))
        })?;
        bytes.push(decoded.into());
    }
    let ids: FxHashMap<&str, u32> = tokens.iter().copied().zip(0..).collect();
    if let Some(missing) = alphabet.iter().position(|char| !ids.contains_key(&*char.to_string())) {
        return Err(format(path, format!("there is no token for byte {missing:#04x}: not a byte-level vocabulary")));
    }
    let id = |token: &str| {
        ids.get(token).copied().ok_or_else(|| format(path, format!("a merge names {token:?}, which is no token")))
    };
    let merges: Vec<(u32, u32, u32)> = merges
        .iter()
        .map(|&(left, right)| Ok((id(left)?, id(right)?, id(&format!("{left}{right}"))?)))
        .collect::<Result<_>>()?;
    let eot = specials.iter().find(|(name, _)| name == END_OF_TEXT).or(specials.last()).map(|special| special.1);
    let eot = eot.ok_or_else(|| format(path, format!("there is no end-of-text token such as {END_OF_TEXT}")))?;
    let bpe = Bpe::from_merges(bytes, &merges, |id| !is_special(id));
    Ok(Tokenizer::from_bpe(bpe, options, specials, eot))
}

/// The printable character that stands for each byte in GPT-2's files.
fn alphabet() -> [char; 256] {
    let mut alphabet = ['\0'; 256];
    let mut next = 256;
    for byte in bytes_in_gpt2_order() {
        alphabet[byte as usize] = match byte {
            33..=126 | 161..=172 | 174..=255 => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).expect("a character of the Latin Extended-A block")
            }
        };
    }
    alphabet
}

/// tokenizer.json.
fn load_json(path: &Path) -> Result<Tokenizer> {
    let json = read_json(path)?;
    let model = json.get("model").and_then(Value::as_object).ok_or_else(|| format(path, "it has no `model`"))?;
    let vocab = model.get("vocab").and_then(Value::as_object).ok_or_else(|| format(path, "it has no `model.vocab`"))?;
    let added = json.get("added_tokens").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let added: Vec<(&str, &Value)> =
        added.iter().filter_map(|token| Some((token.get("content")?.as_str()?, token.get("id")?))).collect();
    let all = vocab.iter().map(|(token, id)| (token.as_str(), id)).chain(added.iter().copied());
    let tokens = by_id(path, all)?;
    refuse(path, "normalizer", json.get("normalizer"))?;
    let kind = model.get("type").and_then(Value::as_str).unwrap_or("BPE");
    match kind {
        "BPE" => {
            let specials = added.iter().map(|(name, id)| (name.to_string(), id.as_u64().unwrap_or(0) as u32)).collect();
            let options = byte_level_options(path, &json)?;
            byte_level(path, &tokens, &merges_of(path, model)?, specials, options)
        }
        "WordLevel" => load_words(path, &json, tokens),
        other => Err(TokenizerError::Unsupported { path: path.to_owned(), part: format!("a model of type {other}") }),
    }
}

fn refuse(path: &Path, part: &str, value: Option<&Value>) -> Result<()> {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => Ok(()),
        Some(Value::String(text)) if text.is_empty() => Ok(()),
        Some(value) => {
            let kind = value.get("type").and_then(Value::as_str).map_or(value.to_string(), str::to_owned);
            Err(TokenizerError::Unsupported { path: path.to_owned(), part: format!("`{part}` {kind}") })
        }
    }
}

/// Checks that pieces are cut by GPT-2's pattern, and reads whether a space is put first.
fn byte_level_options(path: &Path, json: &Value) -> Result<Options> {
    let model = &json["model"];
    for part in ["dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"] {
        refuse(path, part, model.get(part))?;
    }
    let pre = json.get("pre_tokenizer").unwrap_or(&Value::Null);
    let is_byte_level = pre.get("type").and_then(Value::as_str) == Some("ByteLevel");
    let uses_pattern = pre.get("use_regex").and_then(Value::as_bool).unwrap_or(true);
    if !is_byte_level || !uses_pattern {
        let part = format!("the pre_tokenizer {pre}");
        return Err(TokenizerError::Unsupported { path: path.to_owned(), part });
    }
    Ok(Options { add_prefix_space: pre.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false) })
}

/// Merges as pairs, or as two tokens with a space between.
fn merges_of<'a>(path: &Path, model: &'a Map<String, Value>) -> Result<Vec<(&'a str, &'a str)>> {
    let merges = model.get("merges").and_then(Value::as_array);
    let merges = merges.ok_or_else(|| format(path, "it has no `model.merges`"))?;
    let pair = |merge: &'a Value| match merge {
        Value::String(text) => text.split_once(' '),
        Value::Array(pair) => Some((pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
        _ => None,
    };
    merges.iter().map(|m| pair(m).ok_or_else(|| format(path, format!("the merge {m} is not a pair")))).collect()
}

/// A vocabulary of characters or words, as [`save`] writes it.
fn load_words(path: &Path, json: &Value, tokens: Vec<&str>) -> Result<Tokenizer> {
    let pattern = json.pointer("/pre_tokenizer/pattern/Regex").and_then(Value::as_str);
    let unit = [Unit::Chars, Unit::Words].into_iter().find(|&unit| pattern == Some(&split_pattern(unit)));
    let unit = unit.ok_or_else(|| TokenizerError::Unsupported {
        path: path.to_owned(),
        part: format!("the pre_tokenizer {}", json.get("pre_tokenizer").unwrap_or(&Value::Null)),
    })?;
    let eot = tokens.iter().position(|&token| token == END_OF_TEXT);
    let eot = eot.ok_or_else(|| format(path, format!("there is no {END_OF_TEXT}")))?;
    let entries = tokens.into_iter().map(str::to_owned).collect();
    Ok(Tokenizer::from_words(Vocabulary::new(unit, entries), eot as u32))
}

/// The pattern of [`crate::split::Pattern::Words`], or one character.
fn split_pattern(unit: Unit) -> String {
    let han: String = HAN.iter().map(|&(first, last)| format!("\\x{{{:X}}}-\\x{{{:X}}}", first as u32, last as u32)).collect();
    match unit {
        Unit::Chars => "(?s:.)".to_owned(),
        Unit::Words => format!(
            "'(?:[sdmt]|ll|ve|re)|[{han}]| ?[\\p{{L}}&&[^{han}]]+| ?\\p{{N}}+| ?[^\\s\\p{{L}}\\p{{N}}]+|\\s+(?!\\S)|\\s+"
        ),
    }
}

/// Writes all files of a tokenizer.
pub(crate) fn save(tokenizer: &Tokenizer, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(TokenizerError::io(dir))?;
    let added: Vec<Value> = tokenizer.specials().iter().map(|(name, id)| added_token(name, *id)).collect();
    let head = json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null });
    let (body, class) = match tokenizer.kind_ref() {
        Kind::Bpe(bpe, options) => (save_bpe(tokenizer, bpe, *options, dir)?, "GPT2Tokenizer"),
        Kind::Words(vocabulary) => (words_json(vocabulary), "PreTrainedTokenizerFast"),
    };
    let mut json = head;
    if let (Some(json), Value::Object(body)) = (json.as_object_mut(), body) {
        json.extend(body);
    }
    write(&dir.join(TOKENIZER), &pretty(&json))?;
    let end = END_OF_TEXT;
    let mut config = json!({
        "tokenizer_class": class, "bos_token": end, "eos_token": end, "add_prefix_space": false,
        "clean_up_tokenization_spaces": false, "model_max_length": 1_000_000_000_000_u64,
    });
    match tokenizer.kind() {
        "words" => config["unk_token"] = UNKNOWN.into(),
        "byte-level BPE" => config["unk_token"] = end.into(),
        _ => {}
    }
    write(&dir.join("tokenizer_config.json"), &pretty(&config))
}

fn added_token(name: &str, id: u32) -> Value {
    json!({ "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true })
}

fn pretty(json: &Value) -> String {
    serde_json::to_string_pretty(json).expect("a JSON value can be written") + "\n"
}

fn write(path: &Path, text: &str) -> Result<()> {
    let write_all = || -> std::io::Result<()> {
        let mut file = AtomicWriteFile::open(path)?;
        file.write_all(text.as_bytes())?;
        file.commit()
    };
    write_all().map_err(TokenizerError::io(path))
}

/// Writes vocab.json and merges.txt, and returns the body of tokenizer.json.
fn save_bpe(tokenizer: &Tokenizer, bpe: &Bpe, options: Options, dir: &Path) -> Result<Value> {
    let alphabet = alphabet();
    let is_special = |id: u32| tokenizer.specials().iter().any(|special| special.1 == id);
    let name = |id: u32| -> String {
        let bytes = &bpe.tokens()[id as usize];
        if is_special(id) {
            return String::from_utf8_lossy(bytes).into_owned();
        }
        bytes.iter().map(|&byte| alphabet[byte as usize]).collect()
    };
    let vocab: Map<String, Value> = (0..bpe.tokens().len() as u32).map(|id| (name(id), id.into())).collect();
    let vocab = Value::Object(vocab);
    let merges: Vec<[String; 2]> = bpe.merges().iter().map(|&(left, right, _)| [name(left), name(right)]).collect();
    let mut lines = String::from("#version: 0.2\n");
    merges.iter().for_each(|[left, right]| lines += &format!("{left} {right}\n"));
    write(&dir.join(VOCAB), &(vocab.to_string() + "\n"))?;
    write(&dir.join(MERGES), &lines)?;
    let byte_level = |add_prefix_space: bool, trim_offsets: bool| {
        json!({ "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets, "use_regex": true })
    };
    Ok(json!({
        "pre_tokenizer": byte_level(options.add_prefix_space, true),
        "post_processor": byte_level(true, false),
        "decoder": byte_level(true, true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    }))
}

fn words_json(vocabulary: &Vocabulary) -> Value {
    let text = |entry: &[u8]| String::from_utf8_lossy(entry).into_owned();
    let vocab: Map<String, Value> =
        vocabulary.entries().iter().zip(0u32..).map(|(entry, id)| (text(entry), id.into())).collect();
    json!({
        "pre_tokenizer": {
            "type": "Split", "pattern": { "Regex": split_pattern(vocabulary.unit()) }, "behavior": "Isolated", "invert": false,
        },
        "post_processor": null,
        "decoder": { "type": "Fuse" },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN },
    })
}
