//! A model directory as Hugging Face knows it (`config.json`, `model.safetensors`, `generation_config.json`), and files
//! of others.

mod archive;
mod pickle;
mod safetensors;
mod torch;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use atomic_write_file::AtomicWriteFile;
use serde_json::json;
use tensor::Bytes;

use crate::{Dtype, Gpt2, Gpt2Config, ModelError, Result};

use self::archive::Use;
use self::safetensors::{Entry, write_entries};
pub use self::safetensors::{read_tensors, write_tensors};

/// The name of the weights file.
pub const WEIGHTS: &str = "model.safetensors";
/// The name of the file with the model's shape.
pub const CONFIG: &str = "config.json";

/// The names that PyTorch's weights have in a model directory, whole and in parts, and in nanoGPT's.
const TORCH: &str = "pytorch_model.bin";
const TORCH_INDEX: &str = "pytorch_model.bin.index.json";
const NANO_GPT: &str = "ckpt.pt";

/// Reads a model to train it.
pub(crate) fn load(path: &Path) -> Result<Gpt2> {
    read(path, Use::Training)
}

/// Opens a model to run it.
pub(crate) fn open(path: &Path, dtype: Option<Dtype>) -> Result<Gpt2> {
    let model = read(path, Use::Running)?;
    match dtype {
        Some(dtype) if dtype != model.dtype() => model.to_dtype(dtype),
        _ => Ok(model),
    }
}

fn read(path: &Path, wanted: Use) -> Result<Gpt2> {
    if let Some(torch) = read_torch(path)? {
        if wanted == Use::Running {
            torch.files.iter().for_each(Bytes::warm);
        }
        return torch.archive.into_model(torch.config, wanted);
    }
    let config = load_config(path)?;
    let weights = path.join(WEIGHTS);
    if !weights.is_file() {
        return Err(ModelError::NoModel { dir: path.to_owned(), missing: WEIGHTS });
    }
    let (archive, bytes) = safetensors::read(&weights)?;
    if wanted == Use::Running {
        bytes.warm();
    }
    archive.into_model(config, wanted)
}

/// The weights of PyTorch in a file, or in a directory that has no others.
fn read_torch(path: &Path) -> Result<Option<torch::Checkpoint>> {
    if path.is_file() {
        let mut start = Vec::new();
        let file = File::open(path).map_err(ModelError::io(path))?;
        file.take(4).read_to_end(&mut start).map_err(ModelError::io(path))?;
        if !torch::is_torch(&start) {
            let reason = "it begins like no format that is known here".to_owned();
            return Err(ModelError::Torch { path: path.to_owned(), reason });
        }
        return torch::read(path).map(Some);
    }
    let [whole, parts, nano] = [TORCH, TORCH_INDEX, NANO_GPT].map(|name| path.join(name));
    if path.join(WEIGHTS).is_file() {
        return Ok(None);
    }
    if whole.is_file() {
        return torch::read(&whole).map(Some);
    }
    if parts.is_file() {
        return torch::read_sharded(&parts).map(Some);
    }
    if nano.is_file() && !path.join(CONFIG).is_file() { torch::read(&nano).map(Some) } else { Ok(None) }
}

/// What PyTorch's files of a model do not say and is assumed, in sentences for people; empty for all other models.
pub fn assumptions(path: &Path) -> Result<Vec<String>> {
    let Some(torch) = read_torch(path)? else { return Ok(Vec::new()) };
    let mut notes = Vec::new();
    if torch.assumed.heads {
        let n_head = torch.config.n_head;
        notes.push(format!(
            "the file does not say the number of heads: {n_head} are taken, of 64 columns each"
        ));
    }
    if torch.assumed.is_nano_gpt {
        let activation = torch.assumed.activation();
        notes.push(format!("the file is of nanoGPT, whose activation is taken to be {activation:?}"));
    }
    Ok(notes)
}

/// The characters of a character-level nanoGPT with their ids, in the order of the ids, from its `meta.pkl`.
pub fn read_nano_gpt_chars(path: &Path) -> Result<Vec<(String, u32)>> {
    torch::read_meta(path)
}

/// Writes a model as a state dict that PyTorch loads (`.pt`), whole or not at all.
pub fn save_torch(model: &Gpt2, path: &Path) -> Result<()> {
    torch::write(model, path)
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
