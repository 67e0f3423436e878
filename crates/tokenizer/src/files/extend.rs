//! More special tokens for a vocabulary that Hugging Face's crate runs: its `tokenizer.json` gets them.

use std::path::Path;

use serde_json::{Value, json};

use super::{TOKENIZER, format, load};
use crate::Result;
use crate::pipeline::Pipeline;

/// The same pipeline with these tokens at its end.
pub(crate) fn extend(pipeline: &Pipeline, names: &[&str]) -> Result<Pipeline> {
    let path = Path::new(TOKENIZER);
    let mut files = pipeline.parts.files.clone();
    let mut json: Value = load::parse(path, &files[0].1)?;
    let mut added = json["added_tokens"].as_array().cloned().unwrap_or_default();
    let first = pipeline.parts.tokens.len();
    added.extend(names.iter().zip(first..).map(|(name, id)| {
        json!({
            "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    }));
    let json_table = json.as_object_mut().ok_or_else(|| format(path, "a table of parts is needed"))?;
    json_table.insert("added_tokens".to_owned(), added.into());
    files[0].1 = super::save::pretty(&json).into_bytes();
    load::pipeline(path, files)
}
