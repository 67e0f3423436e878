//! Which files of a repository make a model: nothing else is downloaded.

use std::collections::BTreeSet;

use crate::{HubError, Result, Wanted};

/// The shape of a model.
pub(crate) const CONFIG: &str = "config.json";
/// The shape of an adapter, and its weights.
pub(crate) const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// What a tokenizer may be made of. The same list as the tokenizer's own, which this crate stands beside.
pub const TOKENIZER: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];
/// Weights in one file, and the list of those in several; the first that is there is taken.
pub(crate) const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
const INDEX: &str = ".index.json";

/// Weights of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    /// In one file.
    File(String),
    /// In several, which this file lists.
    Index(&'static str),
}

/// The small files to download, and the weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    pub small: Vec<String>,
    pub weights: Option<Weights>,
}

/// Chooses from the files of a repository. `url` is where they are, for advice.
pub(crate) fn select(repo: &str, files: &[String], wanted: Wanted, url: &str) -> Result<Selection> {
    if let Some(file) = files.iter().find(|file| is_hostile(file)) {
        return Err(HubError::HostileName { repo: repo.to_owned(), file: file.clone() });
    }
    let has = |name: &str| files.iter().any(|file| file == name);
    let mut small: Vec<String> = TOKENIZER.into_iter().filter(|name| has(name)).map(str::to_owned).collect();
    if wanted == Wanted::Tokenizer {
        return Ok(Selection { small, weights: None });
    }
    let others = [CONFIG, "generation_config.json", ADAPTER[0]];
    small.splice(0..0, others.into_iter().filter(|name| has(name)).map(str::to_owned));
    let weights = WEIGHTS.into_iter().find(|name| has(name)).map(weights_of);
    let adapter = ADAPTER.into_iter().all(has).then(|| Weights::File(ADAPTER[1].to_owned()));
    let weights = match weights.or(adapter) {
        Some(weights) => weights,
        None => Weights::File(only_gguf(repo, files, url)?),
    };
    Ok(Selection { small, weights: Some(weights) })
}

/// Weights by the name of their file, or of their list.
pub(crate) fn weights_of(name: &'static str) -> Weights {
    if name.ends_with(INDEX) { Weights::Index(name) } else { Weights::File(name.to_owned()) }
}

/// Whether a file of weights has this name.
pub(crate) fn is_gguf(file: &str) -> bool {
    file.ends_with(".gguf") && !file.contains('/')
}

fn only_gguf(repo: &str, files: &[String], url: &str) -> Result<String> {
    let found: Vec<String> = files.iter().filter(|file| is_gguf(file)).cloned().collect();
    match found.len() {
        0 => Err(HubError::NoWeights { repo: repo.to_owned() }),
        1 => Ok(found[0].clone()),
        _ => Err(HubError::SeveralFiles { repo: repo.to_owned(), files: found, url: url.to_owned() }),
    }
}

/// The files that a list of weights names; `Err` is what is wrong with it.
pub(crate) fn shards(index: &[u8]) -> std::result::Result<BTreeSet<String>, String> {
    let json: serde_json::Value = serde_json::from_slice(index).map_err(|error| error.to_string())?;
    let map = json["weight_map"].as_object().filter(|map| !map.is_empty());
    let map = map.ok_or("it lists no weights in `weight_map`")?;
    let name = |file: &serde_json::Value| match file.as_str() {
        Some(file) if !is_hostile(file) && !file.contains('/') => Ok(file.to_owned()),
        _ => Err(format!("{file} is no name of a file beside it")),
    };
    map.values().map(name).collect()
}

/// Whether a name could lead out of its folder, on any system.
pub(crate) fn is_hostile(file: &str) -> bool {
    let is_odd_part = |part: &str| part.is_empty() || part == "." || part == "..";
    file.split('/').any(is_odd_part)
        || file.contains(['\\', ':'])
        || file.chars().any(char::is_control)
        || file.len() > 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(files: &[&str]) -> Result<Selection> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        select("org/name", &files, Wanted::Model, "http://hub/org/name")
    }

    fn weights(files: &[&str]) -> Weights {
        selected(files).unwrap().weights.unwrap()
    }

    #[test]
    fn one_set_of_weights_is_taken() {
        let file = |name: &str| Weights::File(name.to_owned());
        let all = ["pytorch_model.bin", "config.json", "model.safetensors", "x.gguf", "tf_model.h5"];
        assert_eq!(weights(&all), file("model.safetensors"));
        assert_eq!(weights(&all[..2]), file("pytorch_model.bin"));
        assert_eq!(
            weights(&["pytorch_model.bin", "model.safetensors.index.json"]),
            Weights::Index("model.safetensors.index.json")
        );
        assert_eq!(weights(&["README.md", "x.gguf", "folder/y.gguf"]), file("x.gguf"));
        assert_eq!(weights(&ADAPTER), file(ADAPTER[1]));
        assert!(matches!(selected(&["a.gguf", "b.gguf"]), Err(HubError::SeveralFiles { .. })));
        for none in [&["config.json", "tf_model.h5", "onnx/model.safetensors"][..], &[], &ADAPTER[1..]] {
            assert!(matches!(selected(none), Err(HubError::NoWeights { .. })), "{none:?}");
        }
    }

    #[test]
    fn small_files_are_those_that_are_used() {
        let files = [
            "merges.txt",
            "README.md",
            "config.json",
            "model.safetensors",
            "flax_model.msgpack",
            "vocab.json",
        ];
        assert_eq!(selected(&files).unwrap().small, ["config.json", "vocab.json", "merges.txt"]);
        let files = files.map(str::to_owned);
        let tokenizer = select("org/name", &files, Wanted::Tokenizer, "").unwrap();
        assert_eq!(
            tokenizer,
            Selection { small: vec!["vocab.json".into(), "merges.txt".into()], weights: None }
        );
    }

    #[test]
    fn hostile_names_are_refused() {
        for file in
            ["../a.gguf", "/etc/a.gguf", "a/../../b", "a\\b.gguf", "C:a.gguf", "a\n.gguf", "a//b", ".", ""]
        {
            let error = selected(&["config.json", "model.safetensors", file]);
            assert!(matches!(error, Err(HubError::HostileName { .. })), "{file:?}");
        }
    }

    #[test]
    fn lists_of_weights() {
        let read = |text: &str| shards(text.as_bytes());
        let two = read(
            r#"{"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors", "c": "x-1.safetensors"}}"#,
        );
        assert_eq!(two.unwrap().into_iter().collect::<Vec<_>>(), ["x-1.safetensors", "x-2.safetensors"]);
        for bad in ["", "{}", "[]", r#"{"weight_map": {}}"#, r#"{"weight_map": {"a": 1}}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
        for hostile in ["../x", "/x", "a/x", "..", "a\\\\x"] {
            assert!(read(&format!(r#"{{"weight_map": {{"a": "{hostile}"}}}}"#)).is_err(), "{hostile}");
        }
    }
}
