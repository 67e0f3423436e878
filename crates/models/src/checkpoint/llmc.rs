//! llm.c's model files (`.bin`), which its trainers start from and write.
//!
//! A header of 256 whole numbers of 32 bits, little-endian: the magic 20240326; the version, 3 for weights in `f32` and 5
//! for bfloat16; n_ctx, vocab_size, n_layer, n_head, n_embd; the vocabulary padded to a multiple of 128. Then the weights,
//! all of one type: wte (with its padding rows), wpe; each kind of weight for all blocks, in the order of a block; ln_f.
//! Linear layers lie as (outputs, inputs). The file has no place for a tokenizer, nor for the token that ends a text: a
//! vocabulary of GPT-2's size is taken for GPT-2's.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use serde_json::json;
use tensor::Bytes;

use super::archive::{Archive, Kind, Stored, finite, turned};
use super::{Fixed, check_carries, map, write_whole};
use crate::dtype::{TABLE, is_matrix};
use crate::{Gpt2, Gpt2Config, ModelError, Result};

const MAGIC: i32 = 20240326;
/// Bytes of the header.
const HEADER: usize = 4 * 256;
/// The vocabulary is padded to a multiple of this.
const PADDING: usize = 128;
/// The format's name in errors.
const FORMAT: &str = "llm.c .bin";

/// The type of the weights in a file of llm.c's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlmcType {
    /// Version 3.
    F32,
    /// Version 5, with all weights in bfloat16, norms and biases too.
    Bf16,
}

impl LlmcType {
    /// Both, with their versions.
    const VERSIONS: [(i32, LlmcType); 2] = [(3, LlmcType::F32), (5, LlmcType::Bf16)];

    fn version(self) -> i32 {
        match self {
            LlmcType::F32 => 3,
            LlmcType::Bf16 => 5,
        }
    }

    /// Bytes of a weight.
    fn size(self) -> usize {
        match self {
            LlmcType::F32 => 4,
            LlmcType::Bf16 => 2,
        }
    }

    fn kind(self) -> Kind {
        match self {
            LlmcType::F32 => Kind::F32,
            LlmcType::Bf16 => Kind::Bf16,
        }
    }

    fn put(self, x: f32, out: &mut Vec<u8>) {
        match self {
            LlmcType::F32 => out.extend(x.to_le_bytes()),
            LlmcType::Bf16 => out.extend(tensor::bf16::from_f32(x).to_le_bytes()),
        }
    }
}

/// Whether a file begins as llm.c's models do.
pub(super) fn is_llmc(start: &[u8]) -> bool {
    start.starts_with(&MAGIC.to_le_bytes())
}

/// The model's shape, its tensors, and all bytes of the file.
pub(super) fn read(path: &Path) -> Result<(Gpt2Config, Archive, Bytes)> {
    let bytes = map(path)?;
    let Header { config, kind, padded } = Header::read(path, &bytes)?;
    let mut tensors = HashMap::new();
    let mut at = HEADER;
    for (name, shape) in order(&config) {
        let len = shape.iter().product::<usize>() * kind.size();
        let is_turned = is_linear(&name, &shape);
        let shape = if is_turned { shape.into_iter().rev().collect() } else { shape };
        let stored = Stored { kind: kind.kind(), shape, bytes: bytes.part(at..at + len), is_turned };
        at += if name == TABLE { padded * config.n_embd * kind.size() } else { len };
        tensors.insert(name, stored);
    }
    Ok((config, Archive { path: path.to_owned(), tensors }, bytes))
}

/// The model's shape.
pub(super) fn read_config(path: &Path) -> Result<Gpt2Config> {
    let bytes = map(path)?;
    Header::read(path, &bytes).map(|header| header.config)
}

/// What the header says.
struct Header {
    config: Gpt2Config,
    kind: LlmcType,
    padded: usize,
}

impl Header {
    /// Reads the header, and holds it to the length of the file.
    fn read(path: &Path, bytes: &[u8]) -> Result<Header> {
        let damaged = |reason: String| ModelError::NotWhole { path: path.to_owned(), format: FORMAT, reason };
        let header = bytes.get(..HEADER);
        let header = header.ok_or_else(|| damaged(format!("{} bytes are no header", bytes.len())))?;
        let number = |i: usize| i32::from_le_bytes(header[4 * i..][..4].try_into().expect("four bytes"));
        let version = number(1);
        let kind = LlmcType::VERSIONS.into_iter().find(|(known, _)| *known == version);
        let Some((_, kind)) = kind else {
            let reason = format!(
                "it is of version {version} of llm.c's format; versions 3 (f32) and 5 (bfloat16) are read: \
                 write it anew with a later llm.c"
            );
            return Err(ModelError::Unsupported { path: path.to_owned(), reason });
        };
        let size = |i: usize| usize::try_from(number(i)).unwrap_or(0); // which no config can have
        let mut config = Gpt2Config::new(size(4), size(5), size(6), size(2), size(3));
        config.eot = (config.vocab_size == 50257).then_some(50256);
        config.validate()?;
        let padded = size(7);
        if padded < config.vocab_size {
            return Err(damaged(format!("{} tokens are padded to {}", config.vocab_size, number(7))));
        }
        // It cannot overflow, since `validate` bounds each factor, and `padded` is of 31 bits.
        let n = config.n_params() + (padded - config.vocab_size) * config.n_embd;
        let want = HEADER + n * kind.size();
        if bytes.len() != want {
            return Err(damaged(format!("its header asks for {want} bytes, but it has {}", bytes.len())));
        }
        Ok(Header { config, kind, padded })
    }
}

/// Whether this is the weight of a linear layer.
fn is_linear(name: &str, shape: &[usize]) -> bool {
    is_matrix(name, shape) && name != TABLE
}

/// The weights in the order of the file, with our shapes.
fn order(config: &Gpt2Config) -> Vec<(String, Vec<usize>)> {
    let shapes = config.shapes();
    let (before, blocks) = shapes.split_at(2);
    let (blocks, after) = blocks.split_at(blocks.len() - 2);
    let each = blocks.len() / config.n_layer;
    let kinds = (0..each).flat_map(|kind| (0..config.n_layer).map(move |layer| layer * each + kind));
    before.iter().chain(kinds.map(|i| &blocks[i])).chain(after).cloned().collect()
}

/// Writes a model as llm.c's trainers read it, whole or not at all.
///
/// What the format has no place for is an error: see [`ModelError::CannotCarry`].
pub fn save_llmc(model: &Gpt2, path: &Path, kind: LlmcType) -> Result<()> {
    let config = model.config();
    let fixed: [Fixed; 6] = [
        ("activation_function", vec![json!("gelu_new"), json!("gelu_pytorch_tanh")]),
        ("scale_attn_weights", vec![json!(true)]),
        ("scale_attn_by_inverse_layer_idx", vec![json!(false)]),
        ("tie_word_embeddings", vec![json!(true)]),
        ("layer_norm_epsilon", vec![json!(1e-5)]),
        ("n_inner", vec![json!(null), json!(4 * config.n_embd)]),
    ];
    check_carries(model, FORMAT, &fixed)?;
    let padded = config.vocab_size.next_multiple_of(PADDING);
    let Gpt2Config { n_ctx, vocab_size, n_layer, n_head, n_embd, .. } = *config;
    let mut header = vec![MAGIC, kind.version()];
    // `validate` keeps them within 24 bits.
    header.extend([n_ctx, vocab_size, n_layer, n_head, n_embd, padded].map(|n| n as i32));
    header.resize(HEADER / 4, 0);
    let header: Vec<u8> = header.into_iter().flat_map(i32::to_le_bytes).collect();
    let tensors: HashMap<_, _> = model.parameters().into_iter().collect();
    let mut failed = None;
    let written = write_whole(path, |file| {
        file.write_all(&header)?;
        for (name, shape) in order(config) {
            let values = tensors[&name].decoded();
            let values = finite(&name, values).map_err(|error| {
                failed = Some(error);
                std::io::Error::other("a tensor cannot be written")
            })?;
            let lies = is_linear(&name, &shape).then(|| turned(&values, shape[1], shape[0]));
            let mut bytes = Vec::with_capacity(kind.size() * values.len());
            lies.as_deref().unwrap_or(&values).iter().for_each(|&x| kind.put(x, &mut bytes));
            if name == TABLE {
                bytes.resize(padded * n_embd * kind.size(), 0);
            }
            file.write_all(&bytes)?;
        }
        Ok(())
    });
    failed.map_or(written, Err)
}
