//! Tokenizer files as Hugging Face's libraries write and read them.

mod bert;
mod beside;
mod charsmap;
mod decoder;
mod extend;
mod json;
mod load;
mod parts;
mod pipeline;
mod save;

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::split::HAN;
use crate::train::{bytes_in_gpt2_order, is_printable};
use crate::words::Unit;
use crate::{Result, TokenizerError};

pub(crate) use beside::ChatTemplate;
pub(crate) use extend::extend;
pub(crate) use load::load;
pub use parts::{Parts, Role};
pub(crate) use save::save;

const TOKENIZER: &str = "tokenizer.json";
const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const VOCAB_TXT: &str = "vocab.txt";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";
const CHAT: &str = "chat_template.jinja";
const MODEL_CONFIG: &str = "config.json";

/// The names of all files that a tokenizer may be made of.
pub const FILES: [&str; 8] = [TOKENIZER, CONFIG, VOCAB, MERGES, VOCAB_TXT, SPECIAL, ADDED, CHAT];
/// The files of which one must be there.
pub const DEFINING_FILES: [&str; 3] = [TOKENIZER, VOCAB, VOCAB_TXT];

/// Bytes of a file at most; the longest tokenizers there are have some tens of millions.
const LONGEST_FILE: u64 = 1 << 28;

fn format(path: &Path, reason: impl Into<String>) -> TokenizerError {
    TokenizerError::Format { path: path.to_owned(), reason: reason.into() }
}

fn unsupported(path: &Path, part: impl Into<String>) -> TokenizerError {
    TokenizerError::Unsupported { path: path.to_owned(), part: part.into() }
}

/// The bytes of a file that is not absurdly long.
fn read(path: &Path) -> Result<Vec<u8>> {
    if fs::metadata(path).map_err(TokenizerError::io(path))?.len() > LONGEST_FILE {
        return Err(format(
            path,
            format!("it has more than {} MB, which no tokenizer needs", LONGEST_FILE >> 20),
        ));
    }
    fs::read(path).map_err(TokenizerError::io(path))
}

fn read_json(path: &Path) -> Result<Value> {
    let text = read(path)?;
    serde_json::from_slice(&text).map_err(|error| format(path, error.to_string()))
}

fn type_of(value: &Value) -> String {
    value.get("type").and_then(Value::as_str).map_or_else(|| value.to_string(), str::to_owned)
}

/// The steps of a `Sequence`, or the one step that it is.
fn steps<'a>(step: &'a Value, list: &str) -> Vec<&'a Value> {
    match step.get(list).and_then(Value::as_array) {
        Some(steps) if type_of(step) == "Sequence" => steps.iter().collect(),
        _ => vec![step],
    }
}

/// How GPT-2's files write bytes: each as a printable character.
struct Alphabet {
    char_of: [char; 256],
    /// By code point: they are all below 512.
    byte_of: [Option<u8>; 512],
}

impl Alphabet {
    fn new() -> Alphabet {
        let mut others = '\u{100}'..;
        let (mut char_of, mut byte_of) = (['\0'; 256], [None; 512]);
        for byte in bytes_in_gpt2_order() {
            let char = if is_printable(&byte) { Some(char::from(byte)) } else { others.next() };
            char_of[byte as usize] = char.expect("there are more characters than bytes");
            byte_of[char_of[byte as usize] as usize] = Some(byte);
        }
        Alphabet { char_of, byte_of }
    }

    fn write(&self, bytes: &[u8]) -> String {
        bytes.iter().map(|&byte| self.char_of[byte as usize]).collect()
    }

    /// Appends the bytes that were written so, unless a character stands for none.
    fn read(&self, token: &str, bytes: &mut Vec<u8>) -> Option<()> {
        token.chars().try_for_each(|char| {
            bytes.push((*self.byte_of.get(char as usize)?)?);
            Some(())
        })
    }
}

/// What cuts text into entries, in the words of Hugging Face's libraries: [`crate::split::Pattern::Characters`] and
/// [`crate::split::Pattern::Words`].
fn split_pattern(unit: Unit) -> String {
    let range = |&(first, last): &(char, char)| format!("\\x{{{:X}}}-\\x{{{:X}}}", first as u32, last as u32);
    let han: String = HAN.iter().map(range).collect();
    match unit {
        Unit::Chars => r"[\s\S]".to_owned(),
        Unit::Words => format!(
            r"'(?:[sdmt]|ll|ve|re)|[{han}]| ?[\p{{L}}&&[^{han}]]+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
        ),
    }
}
