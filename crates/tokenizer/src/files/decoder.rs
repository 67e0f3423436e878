//! The `decoder` of `tokenizer.json`: what each token adds to a text, and how tokens are joined.
//!
//! Two things differ from Hugging Face's on purpose. Words of WordPiece have no spaces beside Chinese and Japanese
//! characters, where theirs have. Bytes that are no UTF-8 become U+FFFD as everywhere in this crate, where theirs make
//! one of each byte of a stretch that has a wrong one.

use std::path::Path;

use serde_json::Value;

use super::{Alphabet, steps, type_of, unsupported};
use crate::Result;
use crate::decode::{Joins, is_tight};
use crate::tokens::Tokens;

/// What is done to a token by itself.
enum Step {
    Replace(String, String),
    Metaspace(String),
    ByteLevel(Box<Alphabet>),
    ByteFallback,
    Word { prefix: String, cleanup: bool },
    Space,
}

/// What each of these tokens adds in mid-text, and how they are joined.
pub(super) fn tokens(path: &Path, decoder: &Value, names: &[&str]) -> Result<(Tokens, Joins)> {
    let (todo, joins) = read(path, decoder)?;
    let mut tokens = Tokens::with_capacity(names.len());
    for name in names {
        tokens.push_hidden(&bytes_of(name, &todo));
    }
    Ok((tokens, joins))
}

fn read(path: &Path, decoder: &Value) -> Result<(Vec<Step>, Joins)> {
    let refuse = || unsupported(path, format!("the decoder {decoder}"));
    if decoder.is_null() {
        return Ok((vec![Step::Space], Joins::Spaced));
    }
    let (mut todo, mut joins, mut fused) = (Vec::new(), Joins::Plain, false);
    let parts = steps(decoder, "decoders");
    for part in &parts {
        match type_of(part).as_str() {
            "Fuse" => fused = true,
            "ByteFallback" if !fused => todo.push(Step::ByteFallback),
            "ByteLevel" if !fused => todo.push(Step::ByteLevel(Box::new(Alphabet::new()))),
            "Replace" => {
                let from = part.pointer("/pattern/String").and_then(Value::as_str).ok_or_else(refuse)?;
                let to = part["content"].as_str().ok_or_else(refuse)?;
                // A longer pattern might match across tokens.
                if from.is_empty() || fused && from.chars().count() != 1 {
                    return Err(refuse());
                }
                todo.push(Step::Replace(from.to_owned(), to.to_owned()));
            }
            "Metaspace" if !fused && joins == Joins::Plain => {
                let mark = part["replacement"].as_str().unwrap_or("▁");
                let scheme = part["prepend_scheme"].as_str().unwrap_or("always");
                let space = part["add_prefix_space"].as_bool().unwrap_or(true);
                if scheme != "never" && space {
                    joins = Joins::FirstTrimmed;
                }
                todo.push(Step::Metaspace(mark.to_owned()));
            }
            "Strip" if joins == Joins::Plain && (fused || part["start"] == 0) && part["stop"] == 0 => {
                let content = part["content"].as_str().unwrap_or_default();
                let (&[byte @ 0..0x80], Some(start)) = (content.as_bytes(), part["start"].as_u64()) else {
                    return Err(refuse());
                };
                if start > 0 {
                    joins = Joins::Stripped { byte, most: usize::try_from(start).map_err(|_| refuse())? };
                }
            }
            "WordPiece" if parts.len() == 1 => {
                let prefix = part["prefix"].as_str().unwrap_or("##").to_owned();
                todo.push(Step::Word { prefix, cleanup: part["cleanup"].as_bool().unwrap_or(true) });
                joins = Joins::Words;
            }
            _ => return Err(refuse()),
        }
    }
    Ok((todo, joins))
}

fn bytes_of(name: &str, todo: &[Step]) -> Vec<u8> {
    let mut text = name.to_owned();
    for step in todo {
        match step {
            Step::Replace(from, to) => text = text.replace(from, to),
            Step::Metaspace(mark) => text = text.replace(mark, " "),
            Step::Space => text.insert(0, ' '),
            Step::ByteFallback => {
                if let Some(byte) = fallback_byte(&text) {
                    return vec![byte];
                }
            }
            Step::ByteLevel(alphabet) => {
                let mut bytes = Vec::new();
                if alphabet.read(&text, &mut bytes).is_some() {
                    return bytes;
                }
            }
            Step::Word { prefix, cleanup } => text = word(&text, prefix, *cleanup),
        }
    }
    text.into_bytes()
}

/// The byte of a token such as `<0x0A>`.
pub(super) fn fallback_byte(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// A word in mid-text: with a space before it, but for punctuation and English endings, as Hugging Face's decoder
/// writes them, and for what needs none.
fn word(name: &str, prefix: &str, cleanup: bool) -> String {
    if let Some(rest) = name.strip_prefix(prefix) {
        return rest.to_owned();
    }
    if name.chars().next().is_some_and(is_tight) {
        return name.to_owned();
    }
    let spaced = format!(" {name}");
    if !cleanup {
        return spaced;
    }
    const ENDINGS: [&str; 9] = [".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"];
    match ENDINGS.into_iter().any(|ending| name.starts_with(ending)) {
        true => name.to_owned(),
        false => spaced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(decoder: Value, names: &[&str], want: &[&[u8]], joins: Joins) {
        let (tokens, got) = tokens("x".as_ref(), &decoder, names).unwrap();
        assert_eq!((tokens.iter().collect::<Vec<_>>(), got), (want.to_vec(), joins), "{decoder}");
    }

    #[test]
    fn what_tokens_add() {
        check(json!(null), &["a", "b"], &[b" a", b" b"], Joins::Spaced);
        let words = json!({ "type": "WordPiece", "prefix": "##", "cleanup": true });
        let names = ["a", "##b", "世", ",", "n't", "'", "##世"];
        let want = [" a", "b", "世", ",", "n't", " '", "世"].map(str::as_bytes);
        check(words, &names, &want, Joins::Words);
        let space =
            json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
        check(space, &["▁a▁", "<0x41>"], &[b" a ", b"<0x41>"], Joins::FirstTrimmed);
        let llama = json!({ "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " }, { "type": "ByteFallback" },
            { "type": "Fuse" }, { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ] });
        let want: [&[u8]; 4] = [b" a", b"\xff", b"<0xFFF>", b"<0xGG>"];
        check(llama, &["▁a", "<0xFF>", "<0xFFF>", "<0xGG>"], &want, Joins::Stripped { byte: b' ', most: 1 });
        check(json!({ "type": "ByteLevel" }), &["Ġa", "世"], &[b" a", "世".as_bytes()], Joins::Plain);
    }

    #[test]
    fn decoders_that_look_ahead_are_refused() {
        let strip = json!({ "type": "Strip", "content": " ", "start": 1, "stop": 1 });
        let early = json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 });
        let regex = json!({ "type": "Replace", "pattern": { "Regex": " +" }, "content": " " });
        for decoder in
            [json!({ "type": "CTC" }), json!({ "type": "BPEDecoder" }), json!(7), strip, early, regex]
        {
            let error = tokens("x".as_ref(), &decoder, &["a"]).unwrap_err().to_string();
            assert!(error.contains("the decoder"), "{error}");
        }
    }
}
