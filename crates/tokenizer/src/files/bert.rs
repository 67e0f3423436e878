//! `vocab.txt`, a token a line, as BERT has it: written as the `tokenizer.json` that does the same.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::beside::Beside;
use super::{CONFIG, VOCAB_TXT, format, unsupported};
use crate::Result;

/// The roles of BERT's special tokens, and their names where no file gives others.
const ROLES: [(&str, &str); 5] = [
    ("pad_token", "[PAD]"),
    ("unk_token", "[UNK]"),
    ("cls_token", "[CLS]"),
    ("sep_token", "[SEP]"),
    ("mask_token", "[MASK]"),
];

/// The `tokenizer.json` of a directory with `vocab.txt`, whose text this is.
pub(super) fn tokenizer_json(dir: &Path, text: &str, beside: &Beside) -> Result<Value> {
    let path = dir.join(VOCAB_TXT);
    if let Some(class) = beside.config.get("tokenizer_class").and_then(Value::as_str)
        && !["BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"]
            .contains(&class)
    {
        return Err(unsupported(&dir.join(CONFIG), format!("{VOCAB_TXT} with `tokenizer_class` {class}")));
    }
    let mut vocab = Map::new();
    let mut line_of: HashMap<&str, usize> = HashMap::new();
    for (token, line) in text.lines().zip(1..) {
        if let Some(first) = line_of.insert(token, line) {
            return Err(format(&path, format!("lines {first} and {line} are the same token, {token:?}")));
        }
        vocab.insert(token.to_owned(), Value::from(line - 1));
    }
    let name = |role: &str| {
        let default = ROLES.iter().find(|(known, _)| *known == role).map_or("", |(_, name)| name);
        beside.token(role).unwrap_or(default).to_owned()
    };
    let mut added = beside.added_tokens()?;
    for (role, _) in ROLES {
        let name = name(role);
        if let Some(id) = vocab.get(&name)
            && !added.iter().any(|token| token["content"] == *name)
        {
            added.push(json!({
                "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }));
        }
    }
    added.sort_by_key(|token| token["id"].as_u64());
    let (unk, cls, sep) = (name("unk_token"), name("cls_token"), name("sep_token"));
    let around = |name: &str| {
        vocab.contains_key(name).then(|| json!({ "SpecialToken": { "id": name, "type_id": 0 } }))
    };
    let text = Some(json!({ "Sequence": { "id": "A", "type_id": 0 } }));
    let single: Vec<Value> = [around(&cls), text, around(&sep)].into_iter().flatten().collect();
    let specials: Map<String, Value> = [&cls, &sep]
        .into_iter()
        .filter_map(|name| {
            Some((name.clone(), json!({ "id": name, "ids": [vocab.get(name)?], "tokens": [name] })))
        })
        .collect();
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": beside.flag("tokenize_chinese_chars").unwrap_or(true),
            "strip_accents": beside.flag("strip_accents"),
            "lowercase": beside.flag("do_lower_case").unwrap_or(true),
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "TemplateProcessing", "single": single, "pair": [
            { "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } },
        ], "special_tokens": specials },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece", "unk_token": unk, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab,
        },
    }))
}
