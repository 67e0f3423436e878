//! A model in several files: `model.safetensors.index.json` or `pytorch_model.bin.index.json` says which of them holds which
//! tensor.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tensor::Bytes;

use super::archive::Archive;
use super::safetensors::{self, bare};
use super::{LONGEST_JSON, folder, read_json, write_json};
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

/// A file that a list names, and the tensors that shall be in it.
pub(super) struct Shard<'a> {
    pub name: &'a str,
    pub path: PathBuf,
    tensors: Vec<&'a str>,
}

impl Index {
    pub fn read(path: &Path) -> Result<Index> {
        serde_json::from_slice(&read_json(path, LONGEST_JSON)?)
            .map_err(|error| ModelError::Index { path: path.to_owned(), reason: error.to_string() })
    }

    /// The files of the list at `path`, each once, which all lie beside it.
    pub fn shards(&self, path: &Path) -> Result<Vec<Shard<'_>>> {
        let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, name) in &self.weight_map {
            by_name.entry(name).or_default().push(tensor);
        }
        let shard = |(name, tensors)| Ok(Shard { name, path: find(path, name)?, tensors });
        by_name.into_iter().map(shard).collect()
    }

    pub fn write(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join(INDEX), &serde_json::to_value(self).expect("names can be written"))
    }
}

/// The tensors of all safetensors files of a list, and their bytes.
pub(super) fn read(path: &Path) -> Result<(Archive, Vec<Bytes>)> {
    let index = Index::read(path)?;
    let mut all = Archive { path: path.to_owned(), ..Archive::default() };
    let mut files = Vec::new();
    let refuse = |reason: String| ModelError::Index { path: path.to_owned(), reason };
    for Shard { name: shard, path, tensors } in index.shards(path)? {
        let (part, bytes) = safetensors::read(&path)?;
        files.push(bytes);
        if let Some(name) = tensors.into_iter().map(bare).find(|&name| !part.tensors.contains_key(name)) {
            return Err(refuse(format!("it lists tensor `{name}` in {shard:?}, which does not hold it")));
        }
        for (name, stored) in part.tensors {
            if all.tensors.contains_key(&name) {
                return Err(refuse(format!("tensor `{name}` lies in {shard:?} and in another file, too")));
            }
            all.tensors.insert(name, stored);
        }
    }
    Ok((all, files))
}

/// The files that an index names, which must lie beside it.
pub(super) fn files(index: &Path) -> Result<Vec<PathBuf>> {
    Ok(Index::read(index)?.shards(index)?.into_iter().map(|shard| shard.path).collect())
}

/// The path of a shard, which must lie in the list's own directory.
fn find(index: &Path, shard: &str) -> Result<PathBuf> {
    let refuse = |reason| ModelError::Shard { index: index.to_owned(), shard: shard.to_owned(), reason };
    let mut parts = Path::new(shard).components();
    let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    if !is_name || shard.contains(['/', '\\', ':', '\0']) {
        return Err(refuse("which is no plain file name; a shard must lie beside its index"));
    }
    let path = index.with_file_name(shard);
    if !path.is_file() {
        return Err(refuse("which is missing; copy or download it again"));
    }
    let (whole, home) = (real(&path)?, real(folder(index))?);
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
