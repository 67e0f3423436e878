//! `generation_config.json`, of which one thing is the model's own: the tokens that end what it writes, `eos_token_id`.
//!
//! It is one token, a list, or null. transformers stops at exactly these, and looks into `config.json` only where there is
//! no such file. So it is here, save in two cases. Where the file names none, or none that the model has, transformers
//! writes on for ever; here the tokens of `config.json` hold, and else the tokenizer's end of a text. A file that is no
//! JSON is passed over there, and an error here.

use std::path::Path;

use serde_json::{Value, json};

use super::{read_json, write_json};
use crate::{Gpt2Config, ModelError, Result};

/// The name of the file with the settings of generation.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// Bytes of the file at most; those that are seen have a few hundred.
const LONGEST: u64 = 1 << 20;

/// The shape with the end tokens that the file in this directory names, if there is one.
pub(crate) fn with_end_tokens(config: Gpt2Config, dir: &Path) -> Result<Gpt2Config> {
    let path = dir.join(GENERATION_CONFIG);
    let Some(json) = read(&path)? else { return Ok(config) };
    let ids = match json.get("eos_token_id") {
        None | Some(Value::Null) => return Ok(config),
        Some(Value::Array(several)) => &several[..],
        Some(one) => std::slice::from_ref(one),
    };
    let ids = ids.iter().map(|id| token(&path, id)).collect::<Result<Vec<_>>>()?;
    config.with_ends(ids.into_iter().flatten())
}

/// The file as it is, an object.
fn read(path: &Path) -> Result<Option<Value>> {
    if !path.is_file() {
        return Ok(None);
    }
    let json: Value = serde_json::from_slice(&read_json(path, LONGEST)?)
        .map_err(|source| ModelError::ConfigSyntax { path: path.to_owned(), source })?;
    if json.is_object() {
        return Ok(Some(json));
    }
    let reason = "it must be one object of settings; mend it, or delete it".to_owned();
    Err(ModelError::Unsupported { path: path.to_owned(), reason })
}

/// A token; one that no vocabulary is large enough for is none.
fn token(path: &Path, value: &Value) -> Result<Option<u32>> {
    if let Some(id) = value.as_u64() {
        return Ok(u32::try_from(id).ok());
    }
    let shown: String = value.to_string().chars().take(40).collect();
    let reason = format!(
        "`eos_token_id` names {shown}, which is no token; give the id of one, from 0 on, or a list of ids, or leave it out"
    );
    Err(ModelError::Unsupported { path: path.to_owned(), reason })
}

/// What the file says of a model's tokens.
pub(super) fn fields(config: &Gpt2Config) -> Value {
    json!({ "bos_token_id": config.eot, "eos_token_id": end_tokens(config) })
}

fn end_tokens(config: &Gpt2Config) -> Value {
    match config.end_tokens() {
        [] => Value::Null,
        [one] => json!(one),
        several => json!(several),
    }
}

/// Puts a model's end tokens into the file that lies in this directory; its other settings stay as they are.
pub fn write_end_tokens(config: &Gpt2Config, dir: &Path) -> Result<()> {
    let path = dir.join(GENERATION_CONFIG);
    let mut json = read(&path)?.unwrap_or_else(|| fields(config));
    json["eos_token_id"] = end_tokens(config);
    write_json(&path, &json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(text: &str) -> Result<Vec<u32>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(GENERATION_CONFIG), text).unwrap();
        let config = Gpt2Config { eot: Some(9), ..Gpt2Config::new(1, 1, 4, 4, 20) };
        with_end_tokens(config, dir.path()).map(|config| config.end_tokens().to_vec())
    }

    #[test]
    fn one_token_several_or_none() {
        let read = |text: &str| read_with(text).unwrap();
        assert_eq!(read(r#"{"eos_token_id": 5}"#), [5]);
        assert_eq!(read(r#"{"eos_token_id": [5, 3, 5], "top_k": 7}"#), [5, 3]);
        for none in ["{}", r#"{"eos_token_id": null}"#, r#"{"eos_token_id": []}"#] {
            assert_eq!(read(none), [9], "{none}");
        }
        // The model does not have them, so they never come.
        assert_eq!(read(r#"{"eos_token_id": [20, 50256, 99999999999999]}"#), [9]);
        assert_eq!(read(r#"{"eos_token_id": [50256, 4]}"#), [4]);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let long = format!(r#"{{"eos_token_id": ["{}"]}}"#, "x".repeat(1000));
        let cases = [
            (r#"{"eos_token_id": -1}"#, "names -1, which is no token"),
            (r#"{"eos_token_id": "</s>"}"#, r#"names "</s>", which"#),
            (r#"{"eos_token_id": 1.5}"#, "names 1.5"),
            (r#"{"eos_token_id": true}"#, "names true"),
            (r#"{"eos_token_id": [1, [2]]}"#, "names [2]"),
            (r#"{"eos_token_id": {"id": 3}}"#, r#"names {"id":3}"#),
            (r#"{"eos_token_id": 1e400}"#, "number out of range"),
            (&long, "xxx, which is no token"),
            ("[5]", "one object of settings"),
            ("", "EOF while parsing"),
            ("eos_token_id = 5", "expected value at line 1"),
            ("{\"eos_token_id\": 5", "EOF"),
        ];
        for (text, part) in cases {
            let error = read_with(text).unwrap_err().to_string();
            let start: String = text.chars().take(60).collect();
            assert!(error.contains(part) && error.contains(GENERATION_CONFIG), "{start}: {error}");
            assert!(error.len() < 400, "{start}: {error}");
        }
    }

    #[test]
    fn long_lists_are_bounded() {
        let list = |ids: &mut dyn Iterator<Item = u64>| {
            let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
            format!(r#"{{"eos_token_id": [{}]}}"#, ids.join(","))
        };
        assert_eq!(read_with(&list(&mut (0..100_000).map(|i| i % 2))).unwrap(), [0, 1]);
        let error = read_with(&list(&mut (0..1_000_000))).unwrap_err().to_string();
        assert!(error.contains("more than 1 MB"), "{error}");
    }

    #[test]
    fn other_settings_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(GENERATION_CONFIG);
        let config = Gpt2Config { eot: Some(9), ends: vec![3, 9], ..Gpt2Config::new(1, 1, 4, 4, 20) };
        write_end_tokens(&config, dir.path()).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), json!({ "bos_token_id": 9, "eos_token_id": [3, 9] }));
        std::fs::write(&path, r#"{"top_k": 7, "eos_token_id": 1}"#).unwrap();
        write_end_tokens(&Gpt2Config { ends: vec![4], ..config.clone() }, dir.path()).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), json!({ "top_k": 7, "eos_token_id": 4 }));
        assert_eq!(with_end_tokens(config, dir.path()).unwrap().end_tokens(), [4]);
    }
}
