//! Writing GGUF as llama.cpp loads it.
//!
//! Matrices are of the type asked for; norms, biases and positions are F32. Values become Q8_0 and Q4_0 as by ggml's
//! reference, but blocks of ours keep their scales and numbers: a model in q8 and its GGUF in q8_0 are the same. Two
//! kinds of matrices differ:
//!
//! - The embedding table of a q4_0 file, which is the output layer, too, is Q8_0. `llama-quantize` takes Q6_K there,
//!   which has no place for the scales of our blocks; Q8_0 has, and is a quarter larger.
//! - A matrix whose inputs are no multiple of 32 is F16, as `llama-quantize` does it.
//!
//! Matrices are made and written one after the other, so no second model is in memory.

use std::io::Write;
use std::path::Path;

use serde_json::json;
use tensor::Tensor;
use tensor::blocks::BlockMatrix;
use tensor::weights::Form;

use super::super::archive::{finite, turned};
use super::super::{Fixed, check_carries, write_whole};
use super::file::{ALIGNMENT, MAGIC};
use super::tokenizer::ENDS;
use super::types::GgmlType;
use super::value::Kind;
use super::{GgufTokenizer, is_linear, their_name};
use crate::dtype::is_matrix;
use crate::{Gpt2, Gpt2Config, ModelError, Result};

/// The version that is written.
const VERSION: u32 = 3;
/// The format's name in errors.
const FORMAT: &str = "GGUF";

/// The type of the matrices in a GGUF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufType {
    /// 32 bits.
    F32,
    /// Half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Blocks of 8 bits.
    Q8_0,
    /// Blocks of 4 bits, and an embedding table of 8.
    Q4_0,
}

impl GgufType {
    /// All, the widest first.
    pub const ALL: [GgufType; 5] =
        [GgufType::F32, GgufType::F16, GgufType::Bf16, GgufType::Q8_0, GgufType::Q4_0];

    /// The name, as flags give it.
    pub fn name(self) -> &'static str {
        match self {
            GgufType::F32 => "f32",
            GgufType::F16 => "f16",
            GgufType::Bf16 => "bf16",
            GgufType::Q8_0 => "q8_0",
            GgufType::Q4_0 => "q4_0",
        }
    }

    /// The type of this name.
    pub fn from_name(name: &str) -> Option<GgufType> {
        GgufType::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// `general.file_type`.
    fn number(self) -> u32 {
        match self {
            GgufType::F32 => 0,
            GgufType::F16 => 1,
            GgufType::Bf16 => 32,
            GgufType::Q8_0 => 7,
            GgufType::Q4_0 => 2,
        }
    }

    /// The type of a tensor, of the shape that it has in our model.
    fn of(self, name: &str, shape: &[usize]) -> GgmlType {
        if !is_matrix(name, shape) {
            return GgmlType::F32;
        }
        let inputs = if is_linear(name) { shape[0] } else { shape[1] };
        match self {
            GgufType::F32 => GgmlType::F32,
            GgufType::F16 => GgmlType::F16,
            GgufType::Bf16 => GgmlType::Bf16,
            _ if !inputs.is_multiple_of(GgmlType::Q8_0.block()) => GgmlType::F16,
            GgufType::Q4_0 if is_linear(name) => GgmlType::Q4_0,
            GgufType::Q8_0 | GgufType::Q4_0 => GgmlType::Q8_0,
        }
    }
}

/// What GGUF's gpt2 has no key for, and the values that llama.cpp computes with.
fn fixed() -> Vec<Fixed> {
    vec![
        ("activation_function", vec![json!("gelu_new"), json!("gelu_pytorch_tanh")]),
        ("scale_attn_weights", vec![json!(true)]),
        ("scale_attn_by_inverse_layer_idx", vec![json!(false)]),
    ]
}

/// Writes a model as one GGUF file, whole or not at all. Without a tokenizer, programs that read it can work with ids
/// only. `metadata` are more keys with their texts, such as `general.name`.
///
/// What the format has no place for is an error: see [`ModelError::CannotCarry`].
pub fn save_gguf(
    model: &Gpt2,
    path: &Path,
    kind: GgufType,
    tokenizer: Option<&GgufTokenizer>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let config = model.config();
    check_carries(model, FORMAT, &fixed())?;
    let mut keys = Keys::default();
    keys.text("general.architecture", "gpt2");
    keys.text("general.type", "model");
    keys.u32("general.file_type", kind.number());
    keys.u32("general.quantization_version", 2);
    for (key, text) in metadata {
        if keys.seen.iter().any(|seen| seen == key)
            || key.starts_with("gpt2.")
            || key.starts_with("tokenizer.")
        {
            let reason =
                format!("the metadata `{key}` are given, but the model says what they are; leave them out");
            return Err(ModelError::CannotCarry { format: FORMAT, reason });
        }
        keys.text(key, text);
    }
    describe(&mut keys, config);
    match tokenizer {
        Some(tokenizer) => tokenizer.describe(&mut keys, config)?,
        None => {
            keys.text("tokenizer.ggml.model", "none");
            keys.u32("gpt2.vocab_size", config.vocab_size as u32);
        }
    }
    describe_ends(&mut keys, tokenizer.map_or(config.eot, |tokenizer| tokenizer.eos), config);
    let tensors = model.parameters().into_iter();
    let entries = tensors.map(|(name, tensor)| Entry::of(name, tensor, kind)).collect::<Result<Vec<_>>>()?;
    write_file(path, &keys, &entries)
}

/// The model's shape; `Gpt2Config::validate` keeps its numbers within 32 bits.
pub(super) fn describe(keys: &mut Keys, config: &Gpt2Config) {
    keys.u32("gpt2.context_length", config.n_ctx as u32);
    keys.u32("gpt2.embedding_length", config.n_embd as u32);
    keys.u32("gpt2.feed_forward_length", config.n_inner as u32);
    keys.u32("gpt2.block_count", config.n_layer as u32);
    keys.u32("gpt2.attention.head_count", config.n_head as u32);
    keys.f32("gpt2.attention.layer_norm_epsilon", config.layer_norm_epsilon);
}

/// The tokens that end texts, as far as there are keys for them. The tokenizer's comes first, whether the model ends its texts
/// with it or not: it is read back as what stands between texts.
fn describe_ends(keys: &mut Keys, eos: Option<u32>, config: &Gpt2Config) {
    let others = config.end_tokens().iter().copied().filter(|&id| Some(id) != eos);
    for (key, id) in ENDS.into_iter().zip(eos.into_iter().chain(others)) {
        keys.u32(key, id);
    }
}

impl GgufTokenizer {
    fn describe(&self, keys: &mut Keys, config: &Gpt2Config) -> Result<()> {
        let (n, size) = (self.tokens.len(), config.vocab_size);
        if n > size || self.types.len() != n {
            let reason = format!(
                "its tokenizer has {n} tokens and {} types, but the model {size}; take both from the same model",
                self.types.len()
            );
            return Err(ModelError::CannotCarry { format: FORMAT, reason });
        }
        keys.text("tokenizer.ggml.model", GgufTokenizer::MODEL);
        keys.text("tokenizer.ggml.pre", GgufTokenizer::PRE);
        // llama.cpp takes the number of tokens for the model's.
        let fill: Vec<String> = (n..size).map(|id| format!("[PAD{id}]")).collect();
        keys.texts("tokenizer.ggml.tokens", self.tokens.iter().chain(&fill));
        let unused = fill.iter().map(|_| &GgufTokenizer::UNUSED);
        keys.array("tokenizer.ggml.token_type", Kind::I32, size);
        self.types.iter().chain(unused).for_each(|number| keys.put(&number.to_le_bytes()));
        keys.texts("tokenizer.ggml.merges", self.merges.iter());
        self.bos.into_iter().for_each(|id| keys.u32("tokenizer.ggml.bos_token_id", id));
        keys.bool("tokenizer.ggml.add_bos_token", self.add_bos);
        keys.bool("tokenizer.ggml.add_space_prefix", false);
        if let Some(template) = &self.chat_template {
            keys.text("tokenizer.chat_template", template);
        }
        Ok(())
    }
}

/// A tensor to be written.
pub(super) struct Entry<'a> {
    /// GGUF's name.
    pub name: String,
    /// As it lies, the outermost dimension first.
    pub shape: Vec<usize>,
    pub kind: GgmlType,
    /// Makes its bytes.
    pub bytes: Box<dyn Fn() -> Result<Vec<u8>> + 'a>,
}

impl<'a> Entry<'a> {
    pub fn of(name: String, tensor: &'a Tensor, kind: GgufType) -> Result<Entry<'a>> {
        let kind = kind.of(&name, tensor.shape());
        let mut shape = tensor.shape().to_vec();
        if is_linear(&name) {
            shape.reverse();
        }
        let theirs = their_name(&name).ok_or_else(|| ModelError::CannotCarry {
            format: FORMAT,
            reason: format!("it has no name for the tensor `{name}`"),
        })?;
        Ok(Entry { name: theirs, shape, kind, bytes: Box::new(move || encode(&name, tensor, kind)) })
    }
}

/// A tensor's bytes, in a type.
fn encode(name: &str, tensor: &Tensor, kind: GgmlType) -> Result<Vec<u8>> {
    if let Some(bytes) = carried(name, tensor, kind) {
        return Ok(bytes);
    }
    let values = tensor.decoded();
    let largest = match kind {
        GgmlType::F16 => f32::from(tensor::f16::MAX),
        // The scale is a half.
        GgmlType::Q8_0 => f32::from(tensor::f16::MAX) * 127.0,
        GgmlType::Q4_0 => f32::from(tensor::f16::MAX) * 8.0,
        GgmlType::Bf16 => f32::from(tensor::bf16::MAX),
        _ => f32::MAX,
    };
    let values = finite(name, values)?;
    if let Some(at) = values.iter().position(|x| x.abs() > largest) {
        let reason =
            format!("value {at} of `{name}` is {}, more than {} can be; write f32", values[at], kind.name());
        return Err(ModelError::CannotCarry { format: FORMAT, reason });
    }
    Ok(match is_linear(name) {
        true => kind.encode(&turned(&values, tensor.cols(), tensor.rows())),
        false => kind.encode(&values),
    })
}

/// The blocks of a matrix in ours, as they are, if the type has a place for them.
fn carried(name: &str, tensor: &Tensor, kind: GgmlType) -> Option<Vec<u8>> {
    let weights = tensor.weights()?;
    let Form::Blocks(format) = weights.form() else { return None };
    let (lowest, highest) = format.range();
    let fits = match kind {
        GgmlType::Q8_0 => true,
        GgmlType::Q4_0 => lowest >= -8 && highest <= 7,
        _ => false,
    };
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let (k, n) = if is_linear(name) { (rows, cols) } else { (cols, rows) };
    if !fits || !k.is_multiple_of(kind.block()) {
        return None;
    }
    let matrix = BlockMatrix::new(format, k, n, weights.bytes()).expect("the model computes with it");
    let mut out = vec![0; k / kind.block() * n * kind.block_bytes()];
    tensor::pool::for_each_chunk_mut(&mut out, k / kind.block() * kind.block_bytes(), |column, out| {
        for (i, out) in out.chunks_exact_mut(kind.block_bytes()).enumerate() {
            let (scale, numbers) = matrix.block(i, column);
            kind.store(scale, &numbers, out);
        }
    });
    Some(out)
}

/// Writes the header, and then tensor after tensor, each at a multiple of the alignment.
pub(super) fn write_file(path: &Path, keys: &Keys, entries: &[Entry]) -> Result<()> {
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((entries.len() as u64).to_le_bytes());
    header.extend((keys.seen.len() as u64).to_le_bytes());
    header.extend(&keys.bytes);
    let mut offset = 0;
    for Entry { name, shape, kind, .. } in entries {
        put_text(&mut header, name);
        header.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|&n| header.extend((n as u64).to_le_bytes()));
        header.extend(kind.number().to_le_bytes());
        header.extend((offset as u64).to_le_bytes());
        offset += kind.bytes_for(shape).expect("it is in memory").next_multiple_of(ALIGNMENT);
    }
    let mut failed = None;
    let written = write_whole(path, |file| {
        let mut put = |bytes: &[u8]| {
            file.write_all(bytes)?;
            file.write_all(&vec![0; bytes.len().next_multiple_of(ALIGNMENT) - bytes.len()])
        };
        put(&header)?;
        for entry in entries {
            match (entry.bytes)() {
                Ok(bytes) => put(&bytes)?,
                Err(error) => {
                    failed = Some(error);
                    return Err(std::io::Error::other("a tensor cannot be written"));
                }
            }
        }
        Ok(())
    });
    failed.map_or(written, Err)
}

/// Metadata as they lie in the file.
#[derive(Default)]
pub(super) struct Keys {
    bytes: Vec<u8>,
    seen: Vec<String>,
}

impl Keys {
    fn key(&mut self, key: &str, kind: Kind) {
        put_text(&mut self.bytes, key);
        self.put(&kind.number().to_le_bytes());
        self.seen.push(key.to_owned());
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(key, Kind::U32);
        self.put(&value.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(key, Kind::F32);
        self.put(&value.to_le_bytes());
    }

    pub fn bool(&mut self, key: &str, value: bool) {
        self.key(key, Kind::Bool);
        self.put(&[value.into()]);
    }

    pub fn text(&mut self, key: &str, text: &str) {
        self.key(key, Kind::Text);
        put_text(&mut self.bytes, text);
    }

    /// The head of an array, whose `len` values must follow.
    pub fn array(&mut self, key: &str, kind: Kind, len: usize) {
        self.key(key, Kind::Array);
        self.put(&kind.number().to_le_bytes());
        self.put(&(len as u64).to_le_bytes());
    }

    pub fn texts<'a>(&mut self, key: &str, texts: impl Iterator<Item = &'a String> + Clone) {
        self.array(key, Kind::Text, texts.clone().count());
        texts.for_each(|text| put_text(&mut self.bytes, text));
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
