//! GGUF, the format of llama.cpp and Ollama: one file with the model's shape, its weights and its tokenizer.
//!
//! Read are versions 2 and 3 of architecture `gpt2`, with weights in the types of [`types`]. GGUF lists a tensor's
//! dimensions from the innermost on, and keeps matrices as (outputs, inputs); rows of blocks lie along the inputs, as ours
//! do. So, for running:
//!
//! - F32 and F16 stay as they are; the embedding table is computed from where it lies in the file.
//! - Q8_0 and Q4_0 become our blocks with the very same scales and numbers, in another order.
//! - All others become bfloat16: rounding them to fewer bits a second time would cost what their bits were spent on.
//! - Where linear layers are of several types, all become bfloat16, or `f32` if some are F32 or F16. The embedding table
//!   has a type of its own.
//!
//! For training, and where another type is asked for, weights are decoded to `f32` exactly as ggml does it.
//!
//! [`write`] writes such files.

mod file;
mod k_quants;
mod tokenizer;
mod types;
mod value;
pub(super) mod write;

use std::path::Path;

use tensor::Bytes;

use self::file::{Header, MAGIC, damaged, parse};
pub use self::tokenizer::GgufTokenizer;
pub(super) use self::types::GgmlType;
use self::value::Value;
use super::archive::{Archive, Kind, Stored};
use super::map;
use crate::dtype::TABLE;
use crate::{Gpt2Config, ModelError, Result};

/// GGUF's names of tensors outside of blocks, and ours.
const OUTSIDE: [(&str, &str); 5] = [
    ("token_embd.weight", TABLE),
    ("position_embd.weight", "wpe.weight"),
    ("output_norm.weight", "ln_f.weight"),
    ("output_norm.bias", "ln_f.bias"),
    (OUTPUT.0, OUTPUT.1),
];
/// The output layer, where it is not the embedding table.
const OUTPUT: (&str, &str) = ("output.weight", "lm_head.weight");
/// GGUF's names of a block's layers, and ours.
const LAYERS: [(&str, &str); 6] = [
    ("attn_norm", "ln_1"),
    ("attn_qkv", "attn.c_attn"),
    ("attn_output", "attn.c_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn_up", "mlp.c_fc"),
    ("ffn_down", "mlp.c_proj"),
];

/// Whether a file begins as GGUF does.
pub(super) fn is_gguf(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

/// The model's shape, its tensors, and all bytes of the file.
pub(super) fn read(path: &Path) -> Result<(Gpt2Config, Archive, Bytes)> {
    let bytes = map(path)?;
    let header = parse(path, &bytes)?;
    let config = Metadata { path, header: &header, bytes: &bytes }.config()?;
    let mut archive = Archive { path: path.to_owned(), ..Archive::default() };
    for tensor in &header.tensors {
        let name = our_name(tensor.name).unwrap_or_else(|| tensor.name.to_owned());
        let kind = match tensor.kind {
            Ok(kind) => Kind::Ggml(kind),
            Err(number) => Kind::Other(types::other_name(number)),
        };
        let is_turned = is_linear(&name) && tensor.shape.len() == 2;
        let part = bytes.part(tensor.range.clone());
        let stored = Stored { kind, shape: tensor.shape.clone(), bytes: part, is_turned };
        if archive.tensors.insert(name, stored).is_some() {
            return Err(damaged(path, format!("the tensor `{}` is there under two names", tensor.name)));
        }
    }
    Ok((config, archive, bytes))
}

/// The model's shape.
pub(super) fn read_config(path: &Path) -> Result<Gpt2Config> {
    let bytes = map(path)?;
    let header = parse(path, &bytes)?;
    Metadata { path, header: &header, bytes: &bytes }.config()
}

/// The tokenizer inside a GGUF file; `None` if it has none. One that does not work as GPT-2's is refused by name.
pub fn read_tokenizer(path: &Path) -> Result<Option<GgufTokenizer>> {
    let bytes = map(path)?;
    let header = parse(path, &bytes)?;
    let metadata = Metadata { path, header: &header, bytes: &bytes };
    metadata.check_architecture()?;
    tokenizer::read(&metadata)
}

/// The metadata of a GGUF file in the order of their keys, each value as text; arrays by their lengths.
pub fn read_metadata(path: &Path) -> Result<Vec<(String, String)>> {
    let bytes = map(path)?;
    let text = |value: &Value| value.text().map_or_else(|| value.to_string(), str::to_owned);
    let header = parse(path, &bytes)?;
    let mut all: Vec<_> =
        header.metadata.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
    all.sort_unstable();
    Ok(all)
}

/// Our name of a tensor.
fn our_name(theirs: &str) -> Option<String> {
    if let Some((_, ours)) = OUTSIDE.iter().find(|(name, _)| *name == theirs) {
        return Some((*ours).to_owned());
    }
    let (layer, rest) = theirs.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = rest.split_once('.')?;
    let (_, part) = LAYERS.iter().find(|(name, _)| *name == part)?;
    Some(format!("h.{layer}.{part}.{kind}"))
}

/// GGUF's name of a tensor, the reverse of [`our_name`].
fn their_name(ours: &str) -> Option<String> {
    if let Some((theirs, _)) = OUTSIDE.iter().find(|(_, name)| *name == ours) {
        return Some((*theirs).to_owned());
    }
    let (layer, rest) = ours.strip_prefix("h.")?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let (part, _) = LAYERS.iter().find(|(_, name)| *name == part)?;
    Some(format!("blk.{layer}.{part}.{kind}"))
}

/// Whether this is a weight of a block's linear layer, which lies as (inputs, outputs) in our models. The embedding table
/// and an output layer lie as (outputs, inputs), as all matrices do in GGUF.
fn is_linear(ours: &str) -> bool {
    ours.starts_with("h.") && ours.ends_with(".weight") && !ours.contains(".ln_")
}

/// The metadata of a file.
struct Metadata<'a> {
    path: &'a Path,
    header: &'a Header<'a>,
    bytes: &'a [u8],
}

impl<'a> Metadata<'a> {
    fn get(&self, key: &str) -> Option<Value<'a>> {
        self.header.metadata.get(key).copied()
    }

    fn unsupported(&self, reason: impl Into<String>) -> ModelError {
        ModelError::Unsupported { path: self.path.to_owned(), reason: reason.into() }
    }

    fn damaged(&self, reason: impl Into<String>) -> ModelError {
        damaged(self.path, reason)
    }

    /// A whole number that must be there.
    fn size(&self, key: &str) -> Result<usize> {
        let size = self.size_if_any(key)?;
        size.ok_or_else(|| self.damaged(format!("its metadata have no `{key}`")))
    }

    fn size_if_any(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || self.damaged(format!("`{key}` is {value}, but must be a whole number"));
        value.whole().map(Some).ok_or_else(wrong)
    }

    fn check_architecture(&self) -> Result<()> {
        let architecture = self.get("general.architecture");
        if architecture != Some(Value::Text("gpt2")) {
            let is = architecture.map_or("missing".to_owned(), |value| value.to_string());
            return Err(self.unsupported(format!("`general.architecture` is {is}; only \"gpt2\" can be run")));
        }
        match self.size_if_any("split.count")? {
            None | Some(0 | 1) => Ok(()),
            Some(n) => Err(self.unsupported(format!(
                "it is one of {n} parts of a model; join them with `llama-gguf-split --merge`"
            ))),
        }
    }

    fn config(&self) -> Result<Gpt2Config> {
        self.check_architecture()?;
        let [n_layer, n_head, n_embd, n_ctx, n_inner] = [
            "gpt2.block_count",
            "gpt2.attention.head_count",
            "gpt2.embedding_length",
            "gpt2.context_length",
            "gpt2.feed_forward_length",
        ]
        .map(|key| self.size(key));
        let epsilon = match self.get("gpt2.attention.layer_norm_epsilon") {
            Some(Value::Float(epsilon)) => epsilon as f32,
            _ => return Err(self.damaged("its metadata have no `gpt2.attention.layer_norm_epsilon`")),
        };
        let table = self.header.tensors.iter().find(|tensor| tensor.name == OUTSIDE[0].0);
        let Some(&[vocab_size, _]) = table.map(|table| &table.shape[..]) else {
            return Err(self.damaged(format!("it has no matrix `{}`", OUTSIDE[0].0)));
        };
        let mut config = Gpt2Config::new(n_layer?, n_head?, n_embd?, n_ctx?, vocab_size);
        config.n_inner = n_inner?;
        config.layer_norm_epsilon = epsilon;
        let mut ends = [None; 3];
        for (end, key) in ends.iter_mut().zip(tokenizer::ENDS) {
            let id = self.size_if_any(key)?.and_then(|id| u32::try_from(id).ok());
            *end = id.filter(|&id| (id as usize) < vocab_size);
        }
        config.eot = ends[0];
        config.tie_word_embeddings = self.is_tied();
        let config = config.with_ends(ends.into_iter().flatten())?;
        self.only("gpt2.attention.head_count_kv", config.n_head)?;
        self.only("gpt2.attention.key_length", config.head_dim())?;
        self.only("gpt2.attention.value_length", config.head_dim())?;
        Ok(config)
    }

    /// Whether the output layer is the embedding table: it is not there, or there a second time.
    fn is_tied(&self) -> bool {
        let find = |name| self.header.tensors.iter().find(|tensor| tensor.name == name);
        let bytes = |tensor: &file::TensorInfo| self.bytes.get(tensor.range.clone());
        match (find(OUTSIDE[0].0), find(OUTPUT.0)) {
            (Some(table), Some(output)) => table.kind == output.kind && bytes(table) == bytes(output),
            _ => true,
        }
    }

    /// Refuses what no GPT-2 has.
    fn only(&self, key: &str, want: usize) -> Result<()> {
        match self.size_if_any(key)? {
            Some(got) if got != want => Err(self
                .unsupported(format!("`{key}` is {got}, but in a GPT-2 of its other numbers it is {want}"))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
