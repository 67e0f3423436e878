//! Reading a tokenizer: `tokenizer.json`, or `vocab.json` with `merges.txt`.
//!
//! Nothing is believed: ids must be 0 to n-1, each once, and merges must name tokens. What cannot be reproduced
//! exactly is refused by name.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Alphabet, CONFIG, MERGES, TOKENIZER, VOCAB, split_pattern};
use crate::bpe::Bpe;
use crate::split::Pattern;
use crate::tokenizer::{Added, Options};
use crate::tokens::Tokens;
use crate::words::{UNKNOWN, Unit, Vocabulary};
use crate::{END_OF_TEXT, Result, Tokenizer, TokenizerError};

/// GPT-2's pattern as it was released and as it is written elsewhere.
const GPT2_PATTERNS: [&str; 2] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
];

/// Reads a tokenizer from a file or a directory.
pub(crate) fn load(path: &Path) -> Result<Tokenizer> {
    if path.is_file() {
        let dir = path.parent().unwrap_or(Path::new("."));
        let is_pair = path.file_name().is_some_and(|name| name == VOCAB || name == MERGES);
        return if is_pair { load_pair(dir) } else { load_json(path, dir) };
    }
    let has = |name: &str| path.join(name).is_file();
    match (has(TOKENIZER), has(VOCAB) && has(MERGES)) {
        (true, _) => load_json(&path.join(TOKENIZER), path),
        (_, true) => load_pair(path),
        _ => Err(TokenizerError::NotFound { path: path.to_owned() }),
    }
}

fn format(path: &Path, reason: impl Into<String>) -> TokenizerError {
    TokenizerError::Format { path: path.to_owned(), reason: reason.into() }
}

fn unsupported(path: &Path, part: impl Into<String>) -> TokenizerError {
    TokenizerError::Unsupported { path: path.to_owned(), part: part.into() }
}

fn read_json(path: &Path) -> Result<Value> {
    let text = fs::read(path).map_err(TokenizerError::io(path))?;
    serde_json::from_slice(&text).map_err(|error| format(path, error.to_string()))
}

/// tokenizer_config.json, which may be absent.
fn read_config(dir: &Path) -> Result<Value> {
    let path = dir.join(CONFIG);
    if path.is_file() { read_json(&path) } else { Ok(Value::Null) }
}

/// The tokens of a vocabulary by id: every id from 0 on, each once, and no token twice. Added tokens may be in the
/// vocabulary too.
fn by_id<'a>(
    path: &Path,
    vocab: &'a Map<String, Value>,
    added: &'a [(Added, &Value)],
) -> Result<Vec<&'a str>> {
    let added = added.iter().map(|(added, id)| (added.name.as_str(), *id));
    let entries = vocab.iter().map(|(token, id)| (token.as_str(), id)).chain(added);
    let mut tokens = vec![None; entries.size_hint().0];
    let mut beyond = None;
    for (token, value) in entries {
        let id = value.as_u64().ok_or_else(|| format(path, format!("token {token:?} has the id {value}")))?;
        if let Some(other) = vocab.get(token).filter(|&other| other != value) {
            return Err(format(path, format!("token {token:?} has two ids, {other} and {id}")));
        }
        match usize::try_from(id).ok().and_then(|id| tokens.get_mut(id)) {
            None => beyond = Some((token, id)),
            Some(place) if place.is_none_or(|other| other == token) => *place = Some(token),
            Some(_) => return Err(format(path, format!("id {id} is given twice, once to {token:?}"))),
        }
    }
    let n = tokens.iter().position(Option::is_none).unwrap_or(tokens.len());
    let later = tokens[n..].iter().zip(n as u64..).find_map(|(token, id)| Some(((*token)?, id)));
    if let Some((token, id)) = later.or(beyond) {
        return Err(format(path, format!("there is no token with id {n}, but {token:?} has id {id}")));
    }
    if n == 0 {
        return Err(format(path, "the vocabulary is empty"));
    }
    Ok(tokens.into_iter().flatten().collect())
}

/// The token that ends a text: GPT-2's, or the `eos_token` of tokenizer_config.json.
fn find_eot(path: &Path, tokens: &[&str], config: &Value) -> Result<u32> {
    let named = config.get("eos_token").and_then(|token| token.get("content").unwrap_or(token).as_str());
    let names = [named, Some(END_OF_TEXT)];
    let eot = names.into_iter().flatten().find_map(|name| tokens.iter().position(|&token| token == name));
    let eot = eot.ok_or_else(|| {
        let reason =
            format!("there is no token {END_OF_TEXT}, nor does {CONFIG} name another as `eos_token`");
        format(path, reason)
    })?;
    Ok(eot as u32)
}

/// vocab.json with merges.txt, as GPT-2 was released.
fn load_pair(dir: &Path) -> Result<Tokenizer> {
    let (vocab_path, merges_path) = (dir.join(VOCAB), dir.join(MERGES));
    let vocab = read_json(&vocab_path)?;
    let vocab =
        vocab.as_object().ok_or_else(|| format(&vocab_path, "a table of tokens and ids is needed"))?;
    let tokens = by_id(&vocab_path, vocab, &[])?;
    let text = fs::read_to_string(&merges_path).map_err(TokenizerError::io(&merges_path))?;
    let lines = (1..).zip(text.lines());
    let merges: Vec<(&str, &str)> = lines
        .filter(|(number, line)| !(line.is_empty() || *number == 1 && line.starts_with("#version")))
        .map(|(number, line)| {
            let pair = line.split_once(' ');
            pair.ok_or_else(|| format(&merges_path, format!("line {number} is not a pair of tokens")))
        })
        .collect::<Result<_>>()?;
    let config = read_config(dir)?;
    let add_prefix_space = config.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false);
    let eot = find_eot(&vocab_path, &tokens, &config)?;
    byte_level(&vocab_path, &tokens, &merges, vec![], eot, Options { add_prefix_space, ..Options::GPT2 })
}

/// Builds byte-level BPE from tokens and merges in GPT-2's alphabet.
pub(super) fn byte_level(
    path: &Path,
    names: &[&str],
    merges: &[(&str, &str)],
    mut added: Vec<Added>,
    eot: u32,
    options: Options,
) -> Result<Tokenizer> {
    if !added.iter().any(|added| added.id == eot) {
        added.push(Added { name: names[eot as usize].to_owned(), id: eot, special: true });
    }
    let alphabet = Alphabet::new();
    let added_ids: HashSet<u32> = added.iter().map(|added| added.id).collect();
    let mut tokens = Tokens::with_capacity(names.len());
    let mut bytes = Vec::new();
    for (&name, id) in names.iter().zip(0..) {
        if added_ids.contains(&id) {
            tokens.push_hidden(name.as_bytes());
            continue;
        }
        bytes.clear();
        let reason = || format!("token {name:?} (id {id}) is not written in the byte-level alphabet");
        alphabet.read(name, &mut bytes).ok_or_else(|| format(path, reason()))?;
        tokens.push(&bytes);
    }
    let mut find = |token: &str| {
        bytes.clear();
        let reason = || format!("a merge names {token:?}, which is no token of the vocabulary");
        let id = alphabet.read(token, &mut bytes).and_then(|()| tokens.find(&bytes));
        id.ok_or_else(|| format(path, reason()))
    };
    let merges: Vec<(u32, u32, u32)> = merges
        .iter()
        .map(|&(left, right)| Ok((find(left)?, find(right)?, find(&[left, right].concat())?)))
        .collect::<Result<_>>()?;
    let bpe = Bpe::new(tokens, merges.into_iter()).map_err(|byte| {
        format(path, format!("there is no token for byte {byte:#04x}: this is not a byte-level vocabulary"))
    })?;
    Ok(Tokenizer::from_bpe(bpe, options, added, eot))
}

/// tokenizer.json.
fn load_json(path: &Path, dir: &Path) -> Result<Tokenizer> {
    let json = read_json(path)?;
    let model =
        json.get("model").and_then(Value::as_object).ok_or_else(|| format(path, "it has no `model`"))?;
    let vocab = model.get("vocab").and_then(Value::as_object);
    let vocab = vocab.ok_or_else(|| format(path, "it has no `model.vocab` of tokens and ids"))?;
    let added = json.get("added_tokens").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let added: Vec<(Added, &Value)> =
        added.iter().map(|token| read_added(path, token)).collect::<Result<_>>()?;
    let tokens = by_id(path, vocab, &added)?;
    let mut seen = HashSet::new();
    if let Some((twice, _)) = added.iter().find(|(added, _)| !seen.insert(&added.name)) {
        return Err(format(path, format!("the added token {:?} is given twice", twice.name)));
    }
    let added: Vec<Added> = added.iter().map(|(added, _)| added.clone()).collect();
    let config = read_config(dir)?;
    let eot = find_eot(path, &tokens, &config)?;
    refuse(path, "normalizer", json.get("normalizer"))?;
    if json.get("post_processor").is_some_and(|processor| !adds_nothing(processor)) {
        return Err(unsupported(path, format!("the post_processor {}", type_of(&json["post_processor"]))));
    }
    match model.get("type").and_then(Value::as_str).unwrap_or("BPE") {
        "BPE" => {
            let options = byte_level_options(path, &json)?;
            let space = config.get("add_prefix_space").and_then(Value::as_bool);
            if space.is_some_and(|space| space != options.add_prefix_space) {
                return Err(format(
                    path,
                    format!("`add_prefix_space` contradicts {CONFIG}; make them the same"),
                ));
            }
            byte_level(path, &tokens, &merges_of(path, model)?, added, eot, options)
        }
        "WordLevel" => load_words(path, &json, &tokens, &added, eot),
        other => Err(unsupported(path, format!("a model of type {other}"))),
    }
}

/// One of `added_tokens`, and its id as it is written.
fn read_added<'a>(path: &Path, token: &'a Value) -> Result<(Added, &'a Value)> {
    let (name, id) = (token.get("content").and_then(Value::as_str), token.get("id"));
    let (Some(name), Some(id)) = (name.filter(|name| !name.is_empty()), id) else {
        return Err(format(path, format!("the added token {token} has no content or no id")));
    };
    for part in ["single_word", "lstrip", "rstrip"] {
        refuse(path, &format!("{part} of the added token {name:?}"), token.get(part))?;
    }
    let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
    // An id that is no number of 32 bits is refused with the whole vocabulary.
    let number = id.as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or(u32::MAX);
    Ok((Added { name: name.to_owned(), id: number, special }, id))
}

fn type_of(value: &Value) -> String {
    value.get("type").and_then(Value::as_str).map_or_else(|| value.to_string(), str::to_owned)
}

/// Refuses a part that is switched on.
fn refuse(path: &Path, part: &str, value: Option<&Value>) -> Result<()> {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => Ok(()),
        Some(Value::String(text)) if text.is_empty() => Ok(()),
        Some(value) => Err(unsupported(path, format!("`{part}` {}", type_of(value)))),
    }
}

/// The steps of a `Sequence`, or the one step that it is.
fn steps<'a>(step: &'a Value, list: &str) -> Vec<&'a Value> {
    match step.get(list).and_then(Value::as_array) {
        Some(steps) if type_of(step) == "Sequence" => steps.iter().collect(),
        _ => vec![step],
    }
}

/// Whether this post-processor puts no tokens around a text.
fn adds_nothing(processor: &Value) -> bool {
    let only_text = |template: &Value| {
        template.as_array().is_some_and(|items| items.iter().all(|item| item.get("Sequence").is_some()))
    };
    steps(processor, "processors").into_iter().all(|step| match type_of(step).as_str() {
        "TemplateProcessing" => only_text(&step["single"]),
        kind => kind == "ByteLevel" || step.is_null(),
    })
}

/// Checks that text is cut by GPT-2's pattern or not at all, and that tokens are joined as bytes.
fn byte_level_options(path: &Path, json: &Value) -> Result<Options> {
    let model = &json["model"];
    for part in
        ["dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"]
    {
        refuse(path, part, model.get(part))?;
    }
    let decoder = json.get("decoder").unwrap_or(&Value::Null);
    if steps(decoder, "decoders").into_iter().any(|step| type_of(step) != "ByteLevel") {
        return Err(unsupported(path, format!("the decoder {}", type_of(decoder))));
    }
    let cutting = json.get("pre_tokenizer").unwrap_or(&Value::Null);
    let flag = |step: &Value, name: &str, default| step.get(name).and_then(Value::as_bool).unwrap_or(default);
    match steps(cutting, "pretokenizers")[..] {
        [bytes] if type_of(bytes) == "ByteLevel" => {
            let pattern = if flag(bytes, "use_regex", true) { Pattern::Gpt2 } else { Pattern::Whole };
            Ok(Options { pattern, add_prefix_space: flag(bytes, "add_prefix_space", true) })
        }
        // GPT-2's pattern cuts its own pieces no further, so it does not matter whether it is used again.
        [split, bytes]
            if type_of(bytes) == "ByteLevel"
                && !flag(bytes, "add_prefix_space", true)
                && is_gpt2_split(split) =>
        {
            Ok(Options::GPT2)
        }
        _ => Err(unsupported(path, format!("the pre_tokenizer {cutting}"))),
    }
}

fn is_gpt2_split(split: &Value) -> bool {
    let pattern = split.pointer("/pattern/Regex").and_then(Value::as_str);
    // Every character is in a match, so these two say the same.
    let keeps_all = [("Isolated", false), ("Removed", true)].iter().any(|&(behavior, invert)| {
        split["behavior"] == behavior
            && split.get("invert").and_then(Value::as_bool).unwrap_or(false) == invert
    });
    type_of(split) == "Split" && keeps_all && pattern.is_some_and(|pattern| GPT2_PATTERNS.contains(&pattern))
}

/// Merges as pairs, or as two tokens with a space between.
fn merges_of<'a>(path: &Path, model: &'a Map<String, Value>) -> Result<Vec<(&'a str, &'a str)>> {
    let merges = model.get("merges").and_then(Value::as_array);
    let merges = merges.ok_or_else(|| format(path, "it has no `model.merges`"))?;
    let pair = |merge: &'a Value| match merge {
        Value::String(text) => text.split_once(' '),
        Value::Array(pair) => match &pair[..] {
            [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
            _ => None,
        },
        _ => None,
    };
    merges
        .iter()
        .map(|m| pair(m).ok_or_else(|| format(path, format!("the merge {m} is not a pair"))))
        .collect()
}

/// A vocabulary of characters or words, as [`super::save`] writes it.
fn load_words(path: &Path, json: &Value, tokens: &[&str], added: &[Added], eot: u32) -> Result<Tokenizer> {
    let split = json.get("pre_tokenizer").unwrap_or(&Value::Null);
    let pattern = split.pointer("/pattern/Regex").and_then(Value::as_str).unwrap_or_default();
    let unit = [Unit::Chars, Unit::Words].into_iter().find(|&unit| {
        pattern == split_pattern(unit) && type_of(split) == "Split" && split["behavior"] == "Isolated"
    });
    let unit = unit.ok_or_else(|| unsupported(path, format!("the pre_tokenizer {split}")))?;
    if json["model"]["unk_token"] != UNKNOWN {
        return Err(unsupported(path, format!("the unk_token {}", json["model"]["unk_token"])));
    }
    if type_of(&json["decoder"]) != "Fuse" {
        return Err(unsupported(path, format!("the decoder {}", type_of(&json["decoder"]))));
    }
    if let Some(other) = added.iter().find(|added| added.id != eot && added.name != UNKNOWN) {
        return Err(unsupported(path, format!("the added token {:?}", other.name)));
    }
    Ok(Tokenizer::from_words(Vocabulary::new(unit, tokens), eot))
}
