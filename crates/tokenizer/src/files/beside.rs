//! What stands beside a vocabulary: `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`,
//! `chat_template.jinja`, and the model's `config.json`.
//!
//! Each may be absent. They say which tokens are special and what for.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{ADDED, CHAT, CONFIG, MODEL_CONFIG, SPECIAL, TOKENIZER, format, read, read_json};
use crate::tokenizer::Added;
use crate::{Result, TokenizerError};

/// The most of a chat template's file that is read.
const LONGEST_TEMPLATE: u64 = 1 << 24;

/// The files beside a vocabulary.
pub(super) struct Beside {
    dir: PathBuf,
    pub config: Value,
    special: Value,
    added: Value,
    jinja: Option<String>,
}

/// A chat template as a directory keeps it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ChatTemplate {
    /// `chat_template` of `tokenizer_config.json`: a string, or a list of templates with names.
    pub config: Value,
    /// `chat_template.jinja`.
    pub jinja: Option<String>,
}

impl ChatTemplate {
    /// The template for a chat: the file's, the only one, or the one that is named `default`.
    pub(crate) fn text(&self) -> Option<&str> {
        self.jinja.as_deref().or_else(|| match &self.config {
            Value::String(text) => Some(text),
            Value::Array(named) => {
                named.iter().find(|one| one["name"] == "default").and_then(|one| one["template"].as_str())
            }
            _ => None,
        })
    }
}

impl Beside {
    /// Reads what there is.
    pub(super) fn read(dir: &Path) -> Result<Beside> {
        let table = |name: &str| {
            let path = dir.join(name);
            let value = if path.is_file() { read_json(&path)? } else { Value::Null };
            if value.is_object() || value.is_null() {
                return Ok(value);
            }
            Err(format(&path, "a table of names is needed"))
        };
        let path = dir.join(CHAT);
        let jinja = path.is_file().then(|| read_template(&path)).transpose()?;
        let (config, special, added) = (table(CONFIG)?, table(SPECIAL)?, table(ADDED)?);
        Ok(Beside { dir: dir.to_owned(), config, special, added, jinja })
    }

    /// The name of the token that is used as `role`, such as `eos_token`.
    pub(super) fn token(&self, role: &str) -> Option<&str> {
        [&self.config, &self.special].into_iter().find_map(|file| {
            let token = file.get(role)?;
            token.get("content").unwrap_or(token).as_str()
        })
    }

    /// The names of all tokens that have a role, as chat templates know them.
    pub(super) fn names(&self) -> Arc<[(String, String)]> {
        let roles = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"].map(|role| format!("{role}_token"));
        roles
            .into_iter()
            .filter_map(|role| self.token(&role).map(str::to_owned).map(|name| (role, name)))
            .collect()
    }

    /// A switch of `tokenizer_config.json`.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.config.get(name).and_then(Value::as_bool)
    }

    /// An id that the model's `config.json` gives, such as `eos_token_id`.
    pub(super) fn model_id(&self, name: &str) -> Option<u32> {
        let path = self.dir.join(MODEL_CONFIG);
        let config = path.is_file().then(|| read_json(&path).ok()).flatten()?;
        config.get(name)?.as_u64().and_then(|id| u32::try_from(id).ok())
    }

    /// The chat template, if there is one.
    pub(super) fn chat_template(&self) -> Option<Arc<ChatTemplate>> {
        let config = self.config.get("chat_template").cloned().unwrap_or_default();
        let template = ChatTemplate { config, jinja: self.jinja.clone() };
        (template != ChatTemplate::default()).then(|| Arc::new(template))
    }

    /// The added tokens that a vocabulary without `tokenizer.json` has: those of `added_tokens_decoder` in
    /// `tokenizer_config.json`, and those of `added_tokens.json`. Tokens with a role are special.
    pub(super) fn added_tokens(&self) -> Result<Vec<Value>> {
        let mut all: Vec<Value> = Vec::new();
        if let Some(list) = self.config.get("added_tokens_decoder").and_then(Value::as_object) {
            for (id, token) in list {
                let (Ok(id), Some(token)) = (id.parse::<u32>(), token.as_object()) else {
                    let reason =
                        format!("`added_tokens_decoder` has an entry {id:?} that is no token of an id");
                    return Err(format(&self.dir.join(CONFIG), reason));
                };
                all.push([("id".to_owned(), Value::from(id))].into_iter().chain(token.clone()).collect());
            }
        }
        let known: HashSet<String> =
            all.iter().filter_map(|token| token["content"].as_str().map(str::to_owned)).collect();
        for (name, id) in self.added.as_object().into_iter().flatten() {
            if !known.contains(name) {
                let special = self.has_role(name);
                all.push(serde_json::json!({
                    "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": !special, "special": special,
                }));
            }
        }
        Ok(all)
    }

    /// Whether a token has a role, such as ending a text.
    fn has_role(&self, name: &str) -> bool {
        let is_it = |value: &Value| value.get("content").unwrap_or(value) == name;
        let roles = |file: &Value| -> Option<bool> {
            let file: &Map<_, _> = file.as_object()?;
            let mut tokens = file.iter().filter(|(role, _)| role.ends_with("_token")).map(|(_, token)| token);
            let more = file.get("additional_special_tokens").and_then(Value::as_array);
            Some(tokens.any(is_it) || more.is_some_and(|more| more.iter().any(is_it)))
        };
        [&self.config, &self.special].into_iter().any(|file| roles(file).unwrap_or(false))
    }
}

fn read_template(path: &Path) -> Result<String> {
    let bytes = fs::metadata(path).map_err(TokenizerError::io(path))?.len();
    if bytes > LONGEST_TEMPLATE {
        return Err(format(path, format!("a chat template of {bytes} bytes is too long")));
    }
    let text = fs::read(path).map_err(TokenizerError::io(path))?;
    String::from_utf8(text).map_err(|_| format(path, "it is not UTF-8"))
}

/// One of `added_tokens`, and its id as it is written; `plain` is false where it takes spaces with it or asks for
/// whole words.
pub(super) fn read_added(path: &Path, token: &Value) -> Result<(Added, Value, bool)> {
    let (name, id) = (token.get("content").and_then(Value::as_str), token.get("id"));
    let (Some(name), Some(id)) = (name.filter(|name| !name.is_empty()), id) else {
        return Err(format(path, format!("the added token {token} has no content or no id")));
    };
    let is_on = |part: &str| token.get(part).and_then(Value::as_bool).unwrap_or(false);
    let plain = !["single_word", "lstrip", "rstrip"].into_iter().any(is_on);
    // An id that is no number of 32 bits is refused with the whole vocabulary.
    let number = id.as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or(u32::MAX);
    Ok((Added { name: name.to_owned(), id: number, special: is_on("special") }, id.clone(), plain))
}

/// The files that are kept as they are where a vocabulary is saved as it was loaded.
pub(super) fn kept_files(dir: &Path, more: &[&'static str]) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let names = [TOKENIZER, CONFIG, SPECIAL, ADDED, CHAT].iter().chain(more);
    let files = names.map(|&name| (name, dir.join(name))).filter(|(_, path)| path.is_file());
    files.map(|(name, path)| Ok((name, read(&path)?))).collect()
}
