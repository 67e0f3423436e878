//! The tokenizer inside a GGUF file, as plain data: `tokenizer` makes a tokenizer of it.

use super::Metadata;
use super::value::{Array, Value};
use crate::Result;

/// A byte-level BPE as GGUF keeps it (`tokenizer.ggml.model` is `gpt2`, `tokenizer.ggml.pre` is `gpt-2`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GgufTokenizer {
    /// The tokens by id: those that stand for text in GPT-2's alphabet of printable characters, the others by name.
    pub tokens: Vec<String>,
    /// What each token is: see [`GgufTokenizer::NORMAL`] and those after it.
    pub types: Vec<u32>,
    /// Pairs of tokens with a space between, the first to be merged first.
    pub merges: Vec<String>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
    /// Whether each text is to begin with `bos`.
    pub add_bos: bool,
    /// How messages become a text, in Jinja.
    pub chat_template: Option<String>,
}

impl GgufTokenizer {
    /// A token that stands for text.
    pub const NORMAL: u32 = 1;
    /// The token for what has none.
    pub const UNKNOWN: u32 = 2;
    /// A token that stands for something other than its name, such as end-of-text.
    pub const CONTROL: u32 = 3;
    /// A token that is found in text by its name, before anything else is cut.
    pub const USER_DEFINED: u32 = 4;
    /// A token that fills up the table.
    pub const UNUSED: u32 = 5;
    /// What [`GgufTokenizer::model`](MODEL) is called.
    pub(super) const MODEL: &str = "gpt2";
    /// GPT-2's pattern, which cuts a text into pieces.
    pub(super) const PRE: &str = "gpt-2";
}

/// The keys of the tokens that end texts; llama.cpp stops at each. The first is the tokenizer's own, the second ends a turn of
/// a conversation, the third a message.
pub(super) const ENDS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// The tokenizer, if there is one.
pub(super) fn read(metadata: &Metadata) -> Result<Option<GgufTokenizer>> {
    match metadata.get("tokenizer.ggml.model") {
        None | Some(Value::Text("none" | "no_vocab")) => return Ok(None),
        Some(Value::Text(GgufTokenizer::MODEL)) => {}
        Some(other) => {
            return Err(metadata.unsupported(format!(
                "`tokenizer.ggml.model` is {other}; only \"gpt2\", byte-level BPE, is known"
            )));
        }
    }
    // Files from before the key existed were made for GPT-2's pattern, the only one that there was.
    match metadata.get("tokenizer.ggml.pre") {
        None | Some(Value::Text(GgufTokenizer::PRE)) => {}
        Some(other) => {
            return Err(metadata.unsupported(format!(
                "`tokenizer.ggml.pre` is {other}; only \"gpt-2\", GPT-2's pattern, is known"
            )));
        }
    }
    let flag = |key: &str| metadata.get(key) == Some(Value::Bool(true));
    for key in ["tokenizer.ggml.add_space_prefix", "tokenizer.ggml.add_eos_token"] {
        if flag(key) {
            return Err(metadata.unsupported(format!("`{key}` is true, which GPT-2's tokenizer does not do")));
        }
    }
    let id = |key: &str| -> Result<Option<u32>> {
        Ok(metadata.size_if_any(key)?.and_then(|id| u32::try_from(id).ok()))
    };
    let tokens = texts(metadata, "tokenizer.ggml.tokens")?;
    let types = types(metadata, tokens.len())?;
    let (bos, eos) = (id("tokenizer.ggml.bos_token_id")?, id(ENDS[0])?);
    if let Some(id) = [bos, eos].into_iter().flatten().find(|&id| id as usize >= tokens.len()) {
        return Err(
            metadata.damaged(format!("token {id} is to begin or end texts, but there are {}", tokens.len()))
        );
    }
    let merges = texts(metadata, "tokenizer.ggml.merges")?;
    let add_bos = flag("tokenizer.ggml.add_bos_token");
    let chat_template =
        metadata.get("tokenizer.chat_template").and_then(|value| value.text().map(str::to_owned));
    Ok(Some(GgufTokenizer { tokens, types, merges, bos, eos, add_bos, chat_template }))
}

fn array<'a>(metadata: &Metadata<'a>, key: &str) -> Result<Option<Array<'a>>> {
    match metadata.get(key) {
        None => Ok(None),
        Some(Value::Array(array)) => Ok(Some(array)),
        Some(other) => Err(metadata.damaged(format!("`{key}` is {other}, not an array"))),
    }
}

fn texts(metadata: &Metadata, key: &str) -> Result<Vec<String>> {
    let array = array(metadata, key)?;
    let array = array.ok_or_else(|| metadata.damaged(format!("its metadata have no `{key}`")))?;
    let texts = array.texts().ok_or_else(|| metadata.damaged(format!("`{key}` holds no text")))?;
    Ok(texts.map(str::to_owned).collect())
}

/// The types; where the file gives none, all tokens are normal.
fn types(metadata: &Metadata, n: usize) -> Result<Vec<u32>> {
    let key = "tokenizer.ggml.token_type";
    let Some(array) = array(metadata, key)? else { return Ok(vec![GgufTokenizer::NORMAL; n]) };
    let numbers = array.wholes().ok_or_else(|| metadata.damaged(format!("`{key}` holds no numbers")))?;
    let known = |number: i128| u32::try_from(number).ok().filter(|number| (1..=6).contains(number));
    let types = numbers.map(|number| {
        known(number).ok_or_else(|| metadata.damaged(format!("`{key}` holds {number}, which is no type")))
    });
    let types = types.collect::<Result<Vec<_>>>()?;
    if types.len() != n {
        return Err(metadata.damaged(format!("`{key}` has {} entries for {n} tokens", types.len())));
    }
    Ok(types)
}
