//! Models on disk: a directory as Hugging Face knows it (`config.json`, `model.safetensors`, `generation_config.json`), or
//! one file: see [`Format`].

mod archive;
mod gguf;
mod llmc;
mod safetensors;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use atomic_write_file::AtomicWriteFile;
use serde_json::json;

use crate::{Dtype, Gpt2, Gpt2Config, ModelError, Result};

use self::archive::{Archive, Use};
pub use self::gguf::write::{GgufType, save_gguf};
pub use self::gguf::{GgufTokenizer, read_metadata, read_tokenizer};
pub use self::llmc::{LlmcType, save_llmc};
use self::safetensors::{Entry, write_entries};
pub use self::safetensors::{read_tensors, write_tensors};

/// The name of the weights file.
pub const WEIGHTS: &str = "model.safetensors";
/// The name of the file with the model's shape.
pub const CONFIG: &str = "config.json";

/// Reads a model to train it.
pub(crate) fn load(path: &Path) -> Result<Gpt2> {
    let (config, archive, _) = read(path)?;
    archive.into_model(config, Use::Training)
}

/// Opens a model to run it.
pub(crate) fn open(path: &Path, dtype: Option<Dtype>) -> Result<Gpt2> {
    let (config, archive, bytes) = read(path)?;
    bytes.warm();
    // Bits that the nearest form would round away may matter to the one that is asked for.
    let wanted = if dtype.is_some() && archive.is_rounded(&config) { Use::Training } else { Use::Running };
    let model = archive.into_model(config, wanted)?;
    match dtype {
        Some(dtype) if dtype != model.dtype() => model.to_dtype(dtype),
        _ => Ok(model),
    }
}

/// How a model lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A directory as Hugging Face knows it, or nothing yet.
    Directory,
    /// One file with the tokenizer inside.
    Gguf,
    /// llm.c's `.bin`.
    Llmc,
}

impl Format {
    /// The format of what lies at a path. A file is told by its first bytes.
    pub fn of(path: &Path) -> Result<Format> {
        if !path.is_file() {
            return Ok(Format::Directory);
        }
        let mut start = Vec::new();
        let file = fs::File::open(path).map_err(ModelError::io(path))?;
        file.take(8).read_to_end(&mut start).map_err(ModelError::io(path))?;
        match start {
            start if gguf::is_gguf(&start) => Ok(Format::Gguf),
            start if llmc::is_llmc(&start) => Ok(Format::Llmc),
            _ => {
                let reason =
                    "it is neither GGUF nor a model of llm.c's; give one of these, or a model directory";
                Err(ModelError::Unsupported { path: path.to_owned(), reason: reason.to_owned() })
            }
        }
    }
}

/// The shape, the tensors and the bytes of a model.
fn read(path: &Path) -> Result<(Gpt2Config, Archive, tensor::Bytes)> {
    match Format::of(path)? {
        Format::Gguf => return gguf::read(path),
        Format::Llmc => return llmc::read(path),
        Format::Directory => {}
    }
    let config = load_config(path)?;
    let weights = path.join(WEIGHTS);
    if !weights.is_file() {
        return Err(ModelError::NoModel { dir: path.to_owned(), missing: WEIGHTS });
    }
    let (archive, bytes) = safetensors::read(&weights)?;
    Ok((config, archive, bytes))
}

/// Reads a model's shape: `config.json` of a directory, or what a file says of itself.
pub fn load_config(path: &Path) -> Result<Gpt2Config> {
    match Format::of(path)? {
        Format::Gguf => return gguf::read_config(path),
        Format::Llmc => return llmc::read_config(path),
        Format::Directory => {}
    }
    let file = path.join(CONFIG);
    if !file.is_file() {
        return Err(ModelError::NoModel { dir: path.to_owned(), missing: CONFIG });
    }
    let text = fs::read(&file).map_err(ModelError::io(&file))?;
    let json =
        serde_json::from_slice(&text).map_err(|source| ModelError::ConfigSyntax { path: file, source })?;
    Gpt2Config::from_json(&json)
}

/// A field of `config.json` that a format has no place for, and the values that it stands for.
type Fixed = (&'static str, Vec<serde_json::Value>);

/// Refuses a model whose config says what a format has no place for.
fn check_carries(config: &Gpt2Config, format: &'static str, fixed: &[Fixed]) -> Result<()> {
    let json = config.to_json();
    for (field, only) in fixed {
        let Some(got) = json.get(field).filter(|got| !only.contains(got)) else { continue };
        let only: Vec<String> = only.iter().map(ToString::to_string).collect();
        let reason = format!("`{field}` is {got}, and it has a place only for {}", only.join(" or "));
        return Err(ModelError::CannotCarry { format, reason });
    }
    Ok(())
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
