//! A model directory as Hugging Face knows it: `config.json`, `model.safetensors`, `generation_config.json`.

mod archive;
mod huggingface;
mod safetensors;
mod shards;

use std::fs;
use std::io::Write;
use std::path::Path;

use atomic_write_file::AtomicWriteFile;
use serde_json::json;
use tensor::Bytes;

use crate::{Dtype, Gpt2, Gpt2Config, ModelError, Result};

pub(crate) use self::archive::finite;
use self::archive::{Archive, Use};
pub use self::huggingface::{HfOptions, save_hf};
use self::safetensors::{Entry, write_entries};
pub use self::safetensors::{read_tensors, write_tensors};
pub use self::shards::INDEX;

/// The name of the weights file.
pub const WEIGHTS: &str = "model.safetensors";
/// The name of the file with the model's shape.
pub const CONFIG: &str = "config.json";

/// Reads a model directory to train it.
pub(crate) fn load(dir: &Path) -> Result<Gpt2> {
    read(dir, Use::Training)
}

/// Opens a model directory to run it.
pub(crate) fn open(dir: &Path, dtype: Option<Dtype>) -> Result<Gpt2> {
    let model = read(dir, Use::Running)?;
    match dtype {
        Some(dtype) if dtype != model.dtype() => model.to_dtype(dtype),
        _ => Ok(model),
    }
}

fn read(dir: &Path, wanted: Use) -> Result<Gpt2> {
    let config = load_config(dir)?;
    let (archive, files) = archive(dir)?;
    if wanted == Use::Running {
        files.iter().for_each(Bytes::warm);
    }
    archive.into_model(config, wanted)
}

/// The tensors of a model directory, and the bytes of its files: of whichever format is there, in the order that
/// transformers looks for them.
fn archive(dir: &Path) -> Result<(Archive, Vec<Bytes>)> {
    if dir.join(WEIGHTS).is_file() {
        let (archive, bytes) = safetensors::read(&dir.join(WEIGHTS))?;
        return Ok((archive, vec![bytes]));
    }
    if dir.join(INDEX).is_file() {
        return shards::read(dir);
    }
    Err(ModelError::NoModel { dir: dir.to_owned(), missing: WEIGHTS })
}

/// Reads `config.json` of a model directory.
pub fn load_config(dir: &Path) -> Result<Gpt2Config> {
    let path = dir.join(CONFIG);
    if !path.is_file() {
        return Err(ModelError::NoModel { dir: dir.to_owned(), missing: CONFIG });
    }
    let text = fs::read(&path).map_err(ModelError::io(&path))?;
    let json = serde_json::from_slice(&text).map_err(|source| ModelError::ConfigSyntax { path, source })?;
    Gpt2Config::from_json(&json)
}

/// Writes a model directory; the weights come last but one, so that a directory with weights has its config.
pub(crate) fn save(model: &Gpt2, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
    let eot = model.config().eot;
    let generation = json!({ "bos_token_id": eot, "eos_token_id": eot, "do_sample": true });
    write_json(&dir.join(CONFIG), &model.config().to_json())?;
    let tensors = model.parameters();
    let entries = tensors.iter().map(|(name, tensor)| Entry::of(name, tensor)).collect();
    write_entries(&dir.join(WEIGHTS), entries, [("format".to_owned(), "pt".to_owned())].into())?;
    write_json(&dir.join("generation_config.json"), &generation)
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("a JSON value can be written");
    write_whole(path, |file| writeln!(file, "{text}"))
}

/// Writes a file beside its target, syncs it and renames it, so that the target is always whole.
fn write_whole(path: &Path, write: impl FnOnce(&mut AtomicWriteFile) -> std::io::Result<()>) -> Result<()> {
    let write_all = || -> std::io::Result<()> {
        let mut file = AtomicWriteFile::open(path)?;
        write(&mut file)?;
        file.as_file().sync_all()?; // A full disk shows here at the latest, while the new file is still discarded.
        file.commit()
    };
    write_all().map_err(ModelError::io(path))
}
