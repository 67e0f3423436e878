//! Vocabularies for Hugging Face's crate: what it is given is looked at before, and what it made of it after.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use super::json::Model;
use super::{charsmap, decoder, format, steps, type_of, unsupported};
use crate::Result;
use crate::pipeline::{Parts, Pipeline, guarded};
use crate::tokenizer::Added;

/// Longest word that WordPiece may be asked to look at: its work grows with the cube.
const LONGEST_WORD: u64 = 1000;

/// What a `tokenizer.json` holds, as far as it was read.
pub(super) struct Source<'a> {
    pub text: &'a [u8],
    pub json: &'a super::json::Json<'a>,
    pub model: &'a Model<'a>,
    /// All tokens in order of id.
    pub names: &'a [&'a str],
    pub added: &'a [Added],
}

/// A tokenizer that Hugging Face's crate runs.
pub(super) fn load(path: &Path, source: &Source, files: Vec<(&'static str, Vec<u8>)>) -> Result<Pipeline> {
    let Source { json, model, names, .. } = *source;
    check_model(path, model, names)?;
    let mut changes = Vec::new();
    look_at_normalizer(path, &json.normalizer, &mut changes)?;
    let kind = kind(source);
    if kind == "WordPiece" {
        changes.push("white space becomes single spaces".to_owned());
    }
    let (tokens, joins) = decoder::tokens(path, &json.decoder, names)?;
    let bytes_are_tokens = match kind {
        "byte-level BPE" => covers_bytes(&tokens, source.added),
        _ => model.byte_fallback == true && has_fallbacks(names),
    };
    let unknown = unknown(path, model, names)?;
    let drops = model.kind.as_deref().unwrap_or("BPE") == "BPE" && unknown.is_none() && !bytes_are_tokens;
    let mut inner =
        guarded(|| tokenizers::Tokenizer::from_bytes(source.text)).map_err(|reason| format(path, reason))?;
    // Nothing is cut off, filled up or put around.
    inner.with_padding(None);
    guarded(|| inner.with_truncation(None).map(|_| ())).map_err(|reason| format(path, reason))?;
    inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
    check_ids(path, &inner, source)?;
    Ok(Pipeline::new(inner, Parts { kind, tokens, joins, unknown, drops, changes, files }))
}

/// What it is, in words.
fn kind(source: &Source) -> &'static str {
    match source.model.kind.as_deref() {
        Some("WordPiece") => "WordPiece",
        Some("Unigram") => "Unigram",
        Some("WordLevel") => "words",
        _ => {
            let cutting = steps(&source.json.pre_tokenizer, "pretokenizers");
            let normalizing = steps(&source.json.normalizer, "normalizers");
            let bytes = cutting.iter().chain(&normalizing).any(|step| type_of(step) == "ByteLevel");
            if bytes { "byte-level BPE" } else { "BPE" }
        }
    }
}

fn check_model(path: &Path, model: &Model, names: &[&str]) -> Result<()> {
    if !(model.dropout.is_null() || model.dropout == 0.0) {
        return Err(unsupported(path, format!("`dropout` {}", model.dropout)));
    }
    let longest = model.max_input_chars_per_word.as_u64();
    if let Some(longest) = longest.filter(|&longest| longest > LONGEST_WORD) {
        let reason =
            format!("`max_input_chars_per_word` is {longest}; more than {LONGEST_WORD} takes too long");
        return Err(format(path, reason));
    }
    if model.kind.as_deref() == Some("Unigram") && names.iter().any(|name| name.is_empty()) {
        return Err(format(path, "a token is empty"));
    }
    // The crate cuts the prefix off the right token of a merge without looking.
    if let Some(prefix) = model.continuing_subword_prefix.as_str().filter(|prefix| !prefix.is_empty()) {
        let pairs = model.merges.iter().flatten().filter_map(|merge| merge.pair());
        if let Some((_, right)) = { pairs }.find(|(_, right)| !right.starts_with(prefix)) {
            return Err(format(
                path,
                format!("a merge names {right:?}, which does not start with {prefix:?}"),
            ));
        }
    }
    if let Some(merge) = model.merges.iter().flatten().find(|merge| merge.pair().is_none()) {
        return Err(format(path, format!("the merge {merge} is not a pair")));
    }
    Ok(())
}

/// The token for what has none.
fn unknown(path: &Path, model: &Model, names: &[&str]) -> Result<Option<u32>> {
    let n = names.len() as u64;
    if let Some(id) = model.unk_id.as_u64() {
        let reason = || format!("`unk_id` is {id}, but there are {n} tokens");
        return if id < n { Ok(Some(id as u32)) } else { Err(format(path, reason())) };
    }
    let Some(name) = model.unk_token.as_str() else { return Ok(None) };
    match names.iter().position(|token| *token == name) {
        Some(id) => Ok(Some(id as u32)),
        None => Err(format(path, format!("the unk_token {name:?} is no token of the vocabulary"))),
    }
}

/// Goes through the steps of a normalizer: says what they change, and refuses tables that lead astray.
fn look_at_normalizer(path: &Path, normalizer: &Value, changes: &mut Vec<String>) -> Result<()> {
    let on = |step: &Value, name: &str| step.get(name).and_then(Value::as_bool);
    for step in steps(normalizer, "normalizers") {
        let mut add = |change: &str| changes.push(change.to_owned());
        match type_of(step).as_str() {
            "Sequence" => return Err(unsupported(path, "a normalizer within a normalizer")),
            "Lowercase" => add("letters become lower case"),
            "StripAccents" => add("accents are dropped"),
            "Strip" => add("white space at the ends is dropped"),
            "NFKC" | "NFKD" | "Nmt" => add("characters are replaced by compatible ones (NFKC)"),
            "NFC" | "NFD" => add("accents are written in one way (NFC)"),
            "BertNormalizer" => {
                let small = on(step, "lowercase").unwrap_or(true);
                if small {
                    add("letters become lower case");
                }
                if on(step, "strip_accents").unwrap_or(small) {
                    add("accents are dropped");
                }
            }
            "Precompiled" => {
                add("characters are replaced by compatible ones (NFKC)");
                let table = step["precompiled_charsmap"].as_str().unwrap_or_default();
                charsmap::check(table).map_err(|reason| {
                    format(path, format!("the `precompiled_charsmap` cannot be used: {reason}"))
                })?;
            }
            "Replace" => {
                let of = |pattern: &str| step["pattern"].get(pattern).and_then(Value::as_str);
                // A space for another sign is taken back when text is decoded.
                if of("String") != Some(" ") {
                    let from = of("String").or(of("Regex")).unwrap_or_default();
                    changes.push(format!("{from:?} becomes {}", step["content"]));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether each byte is a token of the byte-level alphabet.
fn covers_bytes(tokens: &crate::tokens::Tokens, added: &[Added]) -> bool {
    let added: HashSet<u32> = added.iter().map(|added| added.id).collect();
    let mut found = [false; 256];
    for (token, id) in tokens.iter().zip(0..) {
        if let [byte] = token
            && !added.contains(&id)
        {
            found[*byte as usize] = true;
        }
    }
    found == [true; 256]
}

/// Whether each byte has its token `<0x..>`.
fn has_fallbacks(names: &[&str]) -> bool {
    let mut found = [false; 256];
    names.iter().filter_map(|name| decoder::fallback_byte(name)).for_each(|byte| found[byte as usize] = true);
    found == [true; 256]
}

/// The crate numbers added tokens itself; all must have the ids that the file gives them.
fn check_ids(path: &Path, inner: &tokenizers::Tokenizer, source: &Source) -> Result<()> {
    for added in source.added {
        let got = inner.token_to_id(&added.name);
        if got != Some(added.id) {
            let reason =
                format!("the added token {:?} has the id {}, where {got:?} is next", added.name, added.id);
            return Err(format(path, reason));
        }
    }
    let (got, want) = (inner.get_vocab_size(true), source.names.len());
    if got != want {
        return Err(format(path, format!("{} tokens have the name of another", want.abs_diff(got))));
    }
    Ok(())
}

/// The tokens that a post-processor puts before a text, and after it.
pub(super) fn affixes(path: &Path, processor: &Value, n: usize) -> Result<(Vec<u32>, Vec<u32>)> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let in_range = |id: &Value| {
        let id = id.as_u64().filter(|&id| id < n as u64);
        id.map(|id| id as u32).ok_or_else(|| format(path, "the post_processor names an id that no token has"))
    };
    for step in steps(processor, "processors") {
        match type_of(step).as_str() {
            "ByteLevel" | "null" => {}
            "BertProcessing" | "RobertaProcessing" => {
                before.push(in_range(&step["cls"][1])?);
                after.push(in_range(&step["sep"][1])?);
            }
            "TemplateProcessing" => {
                let mut list = &mut before;
                for item in step["single"].as_array().into_iter().flatten() {
                    if item.get("Sequence").is_some() {
                        list = &mut after;
                    } else if let Some(name) = item.pointer("/SpecialToken/id").and_then(Value::as_str) {
                        let ids = step["special_tokens"].get(name).and_then(|token| token["ids"].as_array());
                        let reason =
                            || format(path, format!("the post_processor does not say what {name:?} is"));
                        for id in ids.ok_or_else(reason)? {
                            list.push(in_range(id)?);
                        }
                    }
                }
            }
            other => return Err(unsupported(path, format!("the post_processor {other}"))),
        }
    }
    Ok((before, after))
}
