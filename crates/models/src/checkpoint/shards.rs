//! A model in several safetensors files: `model.safetensors.index.json` says which of them holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tensor::Bytes;

use super::archive::Archive;
use super::safetensors::{self, bare};
use super::write_json;
use crate::{ModelError, Result};

/// The name of the file that lists the shards.
pub const INDEX: &str = "model.safetensors.index.json";

/// What that file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    #[serde(default)]
    pub metadata: Value,
    /// The file of each tensor, in the same directory.
    pub weight_map: BTreeMap<String, String>,
}

impl Index {
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join(INDEX), &serde_json::to_value(self).expect("names can be written"))
    }
}

/// The tensors of all shards, and their files' bytes.
pub(super) fn read(dir: &Path) -> Result<(Archive, Vec<Bytes>)> {
    let path = dir.join(INDEX);
    let text = fs::read(&path).map_err(ModelError::io(&path))?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|error| ModelError::Index { path: path.clone(), reason: error.to_string() })?;
    let mut by_shard: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, shard) in &index.weight_map {
        by_shard.entry(shard).or_default().push(bare(name));
    }
    let mut all = Archive { path: path.clone(), ..Archive::default() };
    let mut files = Vec::new();
    for (shard, names) in by_shard {
        let (part, bytes) = safetensors::read(&find(dir, shard)?)?;
        files.push(bytes);
        if let Some(name) = names.into_iter().find(|&name| !part.tensors.contains_key(name)) {
            let reason = format!("it lists tensor `{name}` in {shard:?}, which does not hold it");
            return Err(ModelError::Index { path, reason });
        }
        for (name, stored) in part.tensors {
            if all.tensors.contains_key(&name) {
                let reason = format!("tensor `{name}` lies in {shard:?} and in another file, too");
                return Err(ModelError::Index { path, reason });
            }
            all.tensors.insert(name, stored);
        }
    }
    Ok((all, files))
}

/// The files that an index names, which must lie beside it.
pub(super) fn files(index: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read(index).map_err(ModelError::io(index))?;
    let list: Index = serde_json::from_slice(&text)
        .map_err(|error| ModelError::Index { path: index.to_owned(), reason: error.to_string() })?;
    let names: BTreeSet<&String> = list.weight_map.values().collect();
    let dir = index.parent().unwrap_or(Path::new("."));
    names.into_iter().map(|name| find(dir, name)).collect()
}

/// The path of a shard, which must lie in the model's own directory.
fn find(dir: &Path, shard: &str) -> Result<PathBuf> {
    let refuse = |reason| ModelError::Shard { index: dir.join(INDEX), shard: shard.to_owned(), reason };
    let mut parts = Path::new(shard).components();
    let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    if !is_name || shard.contains(['/', '\\', '\0']) {
        return Err(refuse("which is no plain file name; a shard must lie beside its index"));
    }
    let path = dir.join(shard);
    if !path.is_file() {
        return Err(refuse("which is missing; copy or download it again"));
    }
    let (whole, home) = (real(&path)?, real(dir)?);
    if whole.parent() == Some(&home) || whole.parent() == blobs(&home).as_deref() {
        return Ok(path);
    }
    Err(refuse("which is a link to another place; copy the file itself beside its index"))
}

fn real(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(ModelError::io(path))
}

/// The hub's cache keeps a model's files in `blobs/`, with links to them in `snapshots/REVISION/`.
fn blobs(dir: &Path) -> Option<PathBuf> {
    let snapshots = dir.parent()?;
    (snapshots.file_name()? == "snapshots").then(|| snapshots.with_file_name("blobs"))
}
