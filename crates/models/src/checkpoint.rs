//! Models on disk, of every format that GPT-2s are found in: a directory as Hugging Face knows it (`config.json` with
//! `model.safetensors` or `pytorch_model.bin`, whole or in parts), or one file of PyTorch, nanoGPT, llm.c or GGUF.
//!
//! What a file is, its first bytes say. Each format's reader gives an archive of tensors under GPT-2's own names; models
//! are made from those in one place.

mod archive;
mod generation;
mod gguf;
mod huggingface;
mod llmc;
mod peft;
mod pickle;
mod safetensors;
mod shards;
mod torch;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;
use serde_json::json;
use tensor::Bytes;

use crate::{Dtype, Gpt2, Gpt2Config, ModelError, Result};

pub(crate) use self::archive::finite;
use self::archive::{Archive, Use};
pub(crate) use self::generation::with_end_tokens;
pub use self::generation::{GENERATION_CONFIG, write_end_tokens};
pub use self::gguf::write::{GgufType, save_gguf};
pub use self::gguf::{GgufTokenizer, read_metadata, read_tokenizer};
pub use self::huggingface::{HfOptions, save_hf};
pub use self::llmc::{LlmcType, save_llmc};
pub use self::peft::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, base_of_adapter, is_adapter};
pub(crate) use self::peft::{load_adapter, save_adapter};
use self::safetensors::{Entry, write_entries};
pub use self::safetensors::{read_tensors, write_tensors};
pub use self::shards::INDEX;

/// The name of the weights file.
pub const WEIGHTS: &str = "model.safetensors";
/// The name of the file with the model's shape.
pub const CONFIG: &str = "config.json";
/// The names that PyTorch's weights have in a model directory, whole and in parts, and in nanoGPT's.
const TORCH: &str = "pytorch_model.bin";
const TORCH_INDEX: &str = "pytorch_model.bin.index.json";
const NANO_GPT: &str = "ckpt.pt";
/// Bytes of a config or of a list of shards at most; the longest there are have a few hundred thousand.
const LONGEST_JSON: u64 = 64 << 20;

/// What a model's weights are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `model.safetensors`, whole or in parts.
    Safetensors,
    /// What `torch.save` writes.
    Torch,
    /// llama.cpp's.
    Gguf,
    /// The `.bin` of llm.c.
    Llmc,
}

/// Weights that were found: what they are, and where they lie.
#[derive(Clone, Debug)]
pub struct Found {
    /// How they are written.
    pub format: Format,
    /// The file, or the list of several.
    pub path: PathBuf,
}

/// A checkpoint that was read.
struct Checkpoint {
    config: Gpt2Config,
    archive: Archive,
    files: Vec<Bytes>,
    /// What the files do not say and is assumed, in sentences for people.
    assumptions: Vec<String>,
}

impl Format {
    /// The name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Torch => "PyTorch",
            Format::Gguf => "GGUF",
            Format::Llmc => "llm.c",
        }
    }

    /// What a file is, by its first bytes. A safetensors file has none of its own, and is known by its name.
    fn of_file(path: &Path) -> Result<Format> {
        let mut start = Vec::new();
        let file = File::open(path).map_err(ModelError::io(path))?;
        file.take(8).read_to_end(&mut start).map_err(ModelError::io(path))?;
        match () {
            () if start.is_empty() => {
                let reason = "the file is empty; copy or download it again".to_owned();
                Err(ModelError::Unsupported { path: path.to_owned(), reason })
            }
            () if gguf::is_gguf(&start) => Ok(Format::Gguf),
            () if llmc::is_llmc(&start) => Ok(Format::Llmc),
            () if torch::is_torch(&start) => Ok(Format::Torch),
            () if path.extension().is_some_and(|extension| extension == "safetensors") => {
                Ok(Format::Safetensors)
            }
            () => {
                let reason = "it begins like no model that is known here; give a model directory, or a file of PyTorch \
                              (.pt, .bin), llm.c (.bin) or GGUF";
                Err(ModelError::Unsupported { path: path.to_owned(), reason: reason.to_owned() })
            }
        }
    }
}

/// Finds the weights of a model, which is a directory or a file. In a directory they are looked for in the order of
/// transformers, then as others write them.
pub fn find(path: &Path) -> Result<Found> {
    let refused = |reason: &str| ModelError::Unsupported { path: path.to_owned(), reason: reason.to_owned() };
    if path.is_file() {
        return Ok(Found { format: Format::of_file(path)?, path: path.to_owned() });
    }
    if path.exists() && !path.is_dir() {
        return Err(refused("it is neither a file nor a directory"));
    }
    let known = [
        (WEIGHTS, Format::Safetensors),
        (INDEX, Format::Safetensors),
        (TORCH, Format::Torch),
        (TORCH_INDEX, Format::Torch),
        (NANO_GPT, Format::Torch),
    ];
    if let Some((name, format)) = known.into_iter().find(|(name, _)| path.join(name).is_file()) {
        return Ok(Found { format, path: path.join(name) });
    }
    let is_gguf = |file: &PathBuf| file.extension().is_some_and(|end| end == "gguf") && file.is_file();
    let files = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    match &files.filter(is_gguf).collect::<Vec<_>>()[..] {
        [one] => Ok(Found { format: Format::Gguf, path: one.clone() }),
        [_, _, ..] => Err(refused("it holds several GGUF files; name one of them")),
        [] => Err(ModelError::NoModel { dir: path.to_owned(), missing: WEIGHTS }),
    }
}

/// The files that hold a model's weights: one, or all parts that a list names, and the list.
pub fn files(found: &Found) -> Result<Vec<PathBuf>> {
    let mut files = vec![found.path.clone()];
    if found.path.extension().is_some_and(|extension| extension == "json") {
        files.extend(shards::files(&found.path)?);
    }
    Ok(files)
}

impl Found {
    /// The directory that the weights lie in.
    pub fn dir(&self) -> &Path {
        folder(&self.path)
    }

    fn read(&self) -> Result<Checkpoint> {
        let path = &self.path;
        match self.format {
            Format::Gguf => gguf::read(path).map(Checkpoint::whole),
            Format::Llmc => llmc::read(path).map(Checkpoint::whole),
            Format::Torch => {
                let is_index = path.extension().is_some_and(|extension| extension == "json");
                let torch = if is_index { torch::read_sharded(path) } else { torch::read(path) }?;
                let assumptions = torch.assumptions();
                Ok(Checkpoint {
                    config: torch.config,
                    archive: torch.archive,
                    files: torch.files,
                    assumptions,
                })
            }
            Format::Safetensors => {
                let config = read_config(self.dir())?;
                let (archive, files) = if path.ends_with(INDEX) {
                    shards::read(path)?
                } else {
                    let (archive, bytes) = safetensors::read(path)?;
                    (archive, vec![bytes])
                };
                Ok(Checkpoint { config, archive, files, assumptions: Vec::new() })
            }
        }
    }
}

impl Checkpoint {
    fn whole((config, archive, bytes): (Gpt2Config, Archive, Bytes)) -> Checkpoint {
        Checkpoint { config, archive, files: vec![bytes], assumptions: Vec::new() }
    }
}

/// Reads a model to train it.
pub(crate) fn load(path: &Path) -> Result<Gpt2> {
    let Checkpoint { config, archive, .. } = find(path)?.read()?;
    archive.into_model(config, Use::Training)
}

/// Opens a model to run it.
pub(crate) fn open(path: &Path, dtype: Option<Dtype>) -> Result<Gpt2> {
    // Without its config a directory is not a model yet, whatever else is in it.
    let Checkpoint { config, archive, files, .. } = find(path)?.read()?;
    files.iter().for_each(Bytes::warm);
    // Bits that the nearest form would round away may matter to the one that is asked for.
    let wanted = if dtype.is_some() && archive.is_rounded(&config) { Use::Training } else { Use::Running };
    let model = archive.into_model(config, wanted)?;
    match dtype {
        Some(dtype) if dtype != model.dtype() => model.to_dtype(dtype),
        _ => Ok(model),
    }
}

/// Opens a model for running where no bit is rounded: types of others that have no form here are `f32`.
pub(crate) fn open_exact(path: &Path) -> Result<Gpt2> {
    let Checkpoint { config, archive, .. } = find(path)?.read()?;
    let wanted = if archive.is_rounded(&config) { Use::Training } else { Use::Running };
    archive.into_model(config, wanted)
}

/// Reads a model's shape: `config.json` of a directory, or what a file says of itself.
pub fn load_config(path: &Path) -> Result<Gpt2Config> {
    if !path.is_file() && path.join(CONFIG).is_file() {
        return read_config(path);
    }
    let found = match find(path) {
        Err(ModelError::NoModel { dir, .. }) => return Err(ModelError::NoModel { dir, missing: CONFIG }),
        found => found?,
    };
    match found.format {
        Format::Gguf => gguf::read_config(&found.path),
        Format::Llmc => llmc::read_config(&found.path),
        Format::Torch | Format::Safetensors => Ok(found.read()?.config),
    }
}

/// What a model's files do not say and is assumed, in sentences for people; empty for most.
pub fn assumptions(path: &Path) -> Result<Vec<String>> {
    let found = find(path)?;
    // Only files of PyTorch leave something open.
    if found.format == Format::Torch { Ok(found.read()?.assumptions) } else { Ok(Vec::new()) }
}

/// The characters of a character-level nanoGPT with their ids, in the order of the ids, from its `meta.pkl`.
pub fn read_nano_gpt_chars(path: &Path) -> Result<Vec<(String, u32)>> {
    torch::read_meta(path)
}

/// Writes a model as a state dict that PyTorch loads (`.pt`), whole or not at all.
pub fn save_torch(model: &Gpt2, path: &Path) -> Result<()> {
    refuse_adapter(model, "a state dict")?;
    torch::write(model, path)
}

/// Reads `config.json` of a model directory.
fn read_config(dir: &Path) -> Result<Gpt2Config> {
    let path = dir.join(CONFIG);
    if !path.is_file() {
        return Err(ModelError::NoModel { dir: dir.to_owned(), missing: CONFIG });
    }
    let config = parse_config(&path, &read_json(&path, LONGEST_JSON)?)?;
    with_end_tokens(config, dir)
}

/// The text of a JSON file that is not absurdly long.
fn read_json(path: &Path, longest: u64) -> Result<Vec<u8>> {
    if fs::metadata(path).map_err(ModelError::io(path))?.len() > longest {
        let reason = format!("it has more than {} MB, which no such file needs", longest >> 20);
        return Err(ModelError::Unsupported { path: path.to_owned(), reason });
    }
    fs::read(path).map_err(ModelError::io(path))
}

/// The directory that a file lies in.
fn folder(file: &Path) -> &Path {
    file.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."))
}

/// A file's bytes, where they lie.
fn map(path: &Path) -> Result<Bytes> {
    File::open(path).and_then(|file| Bytes::of_file(&file)).map_err(ModelError::io(path))
}

/// Reads the text of `config.json`, wherever it was.
fn parse_config(path: &Path, text: &[u8]) -> Result<Gpt2Config> {
    let json = serde_json::from_slice(text)
        .map_err(|source| ModelError::ConfigSyntax { path: path.to_owned(), source })?;
    Gpt2Config::from_json(&json)
}

/// A field of `config.json` that a format has no place for, and the values that it stands for.
type Fixed = (&'static str, Vec<serde_json::Value>);

/// Refuses a model whose config says what a format has no place for.
fn check_carries(model: &Gpt2, format: &'static str, fixed: &[Fixed]) -> Result<()> {
    refuse_adapter(model, format)?;
    let json = model.config().to_json();
    for (field, only) in fixed {
        let Some(got) = json.get(field).filter(|got| !only.contains(got)) else { continue };
        let only: Vec<String> = only.iter().map(ToString::to_string).collect();
        let reason = format!("`{field}` is {got}, and it has a place only for {}", only.join(" or "));
        return Err(ModelError::CannotCarry { format, reason });
    }
    Ok(())
}

/// Refuses a model whose adapter would not come along.
fn refuse_adapter(model: &Gpt2, what: &'static str) -> Result<()> {
    model.lora().map_or(Ok(()), |_| Err(ModelError::HasAdapter { what }))
}

/// Writes a model directory; the weights come last but one, so that a directory with weights has its config.
pub(crate) fn save(model: &Gpt2, dir: &Path) -> Result<()> {
    refuse_adapter(model, "a model directory")?;
    fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
    let mut generation = generation::fields(model.config());
    generation["do_sample"] = json!(true);
    write_json(&dir.join(CONFIG), &model.config().to_json())?;
    let tensors = model.parameters();
    let entries = tensors.iter().map(|(name, tensor)| Entry::of(name, tensor)).collect();
    write_entries(&dir.join(WEIGHTS), entries, [("format".to_owned(), "pt".to_owned())].into())?;
    write_json(&dir.join(GENERATION_CONFIG), &generation)
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("a JSON value can be written");
    write_whole(path, |file| writeln!(file, "{text}"))
}

/// Writes a file as all files are written: beside its target, synced and renamed, so that the target is always whole.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, |file| file.write_all(bytes))
}

fn write_whole(path: &Path, write: impl FnOnce(&mut AtomicWriteFile) -> io::Result<()>) -> Result<()> {
    let write_all = || -> io::Result<()> {
        let mut file = AtomicWriteFile::open(path)?;
        write(&mut file)?;
        file.as_file().sync_all()?; // A full disk shows here at the latest, while the new file is still discarded.
        file.commit()
    };
    write_all().map_err(ModelError::io(path))
}
