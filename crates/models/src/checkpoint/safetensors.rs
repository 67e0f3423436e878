//! `model.safetensors`: reading with every check, computing from where the file lies, and writing in one go.
//!
//! Matrices may be of the types that others write (F32, F16, BF16), or in a form of ours:
//!
//! - bfloat16 in panels: type BF16, shape (N / 32, K / 2, 32, 2), both rounded up;
//! - blocks of 8, 6 or 4 bits: type U8, shape (N / 32, K / 32, bytes of a block), both rounded up; the bytes say which.
//!
//! K and N are those of the product: a linear layer's weight is (K, N); the embedding table is (N, K), since it is read
//! as an output layer. `tensor::weights` and `kernels::blocks` say what lies in a panel and in a block. The values start
//! at a multiple of 64 bytes, as we write them; those of other files are copied where their numbers need it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype as FileType, SafeTensors, TensorView};
use serde_json::{Map, json};
use tensor::blocks::BlockFormat;
use tensor::weights::Form;
use tensor::{Bytes, Tensor};

use super::archive::{Archive, Kind, Stored};
use super::{map, write_whole};
use crate::dtype::{HEAD, is_table};
use crate::{Dtype, ModelError, Result};

/// The tensors of a file, and all its bytes.
pub(super) fn read(path: &Path) -> Result<(Archive, Bytes)> {
    let bytes = map(path)?;
    let mut tensors = HashMap::new();
    for (name, stored) in entries(path, &bytes)? {
        if tensors.insert(bare(&name).to_owned(), stored).is_some() {
            let reason = format!("the tensor {} is there twice", bare(&name));
            return Err(ModelError::Damaged { path: path.to_owned(), reason });
        }
    }
    Ok((Archive { path: path.to_owned(), tensors }, bytes))
}

/// The tensors of a file under the names that it gives them.
pub(super) fn entries(path: &Path, bytes: &Bytes) -> Result<Vec<(String, Stored)>> {
    let entry = |(name, view): (&str, TensorView)| {
        let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        let part = bytes.part(start..start + view.data().len());
        let (kind, shape) = (kind(&view), view.shape().to_vec());
        (name.to_owned(), Stored { kind, shape, bytes: part, is_turned: false })
    };
    Ok(parse(path, bytes)?.iter().map(entry).collect())
}

/// How a tensor's numbers are written. The number of dimensions tells our panels and blocks from what others write.
fn kind(view: &TensorView) -> Kind {
    match (view.dtype(), view.shape()) {
        (FileType::F32, _) => Kind::F32,
        (FileType::F16, _) => Kind::F16,
        (FileType::BF16, [_, _, _, _]) => Kind::Panels,
        (FileType::BF16, _) => Kind::Bf16,
        (FileType::U8, &[_, _, bytes]) => {
            // A block of another length is told by its shape.
            let format = BlockFormat::ALL.into_iter().find(|format| format.block_bytes() == bytes);
            Kind::Blocks(format.unwrap_or(BlockFormat::Q8))
        }
        (other, _) => Kind::Other(format!("{other:?}")),
    }
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes)
        .map_err(|error| ModelError::Damaged { path: path.to_owned(), reason: error.to_string() })
}

/// A weight's name without the prefix that `GPT2LMHeadModel` puts before it.
pub(super) fn bare(name: &str) -> &str {
    name.strip_prefix("transformer.").unwrap_or(name)
}

/// A weight's name as `GPT2LMHeadModel` has it.
pub(super) fn full(name: &str) -> String {
    if name == HEAD { name.to_owned() } else { format!("transformer.{name}") }
}

/// Reads all `f32` tensors of a safetensors file, and its metadata.
#[allow(clippy::type_complexity)]
pub fn read_tensors(
    path: &Path,
) -> Result<(HashMap<String, (Vec<usize>, Vec<f32>)>, HashMap<String, String>)> {
    let bytes = map(path)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| ModelError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    let values = |(name, stored): (String, Stored)| match stored.kind {
        Kind::F32 => {
            let values = stored.plain(&name, &stored.shape)?;
            Ok((name, (stored.shape, values)))
        }
        kind => Err(ModelError::TensorType { name, got: format!("{kind:?}") }),
    };
    let tensors = entries(path, &bytes)?.into_iter().map(values).collect::<Result<_>>()?;
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

/// A tensor to be written.
pub(super) struct Entry<'a> {
    name: String,
    kind: &'static str,
    shape: Vec<usize>,
    content: Content<'a>,
}

/// Where the bytes of an entry come from.
enum Content<'a> {
    /// They lie there.
    Bytes(&'a [u8]),
    /// They are made while they are written: the tensor's values in this type.
    Values(&'a Tensor, Dtype),
}

impl<'a> Entry<'a> {
    /// A tensor under its name in the file, in the form that it has.
    pub fn of(name: &str, tensor: &'a Tensor) -> Entry<'a> {
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let (k, n) = if is_table(name) { (cols, rows) } else { (rows, cols) };
        let plain = tensor.shape().to_vec();
        let (kind, shape, bytes) = match tensor.weights().map(|weights| (weights, weights.form())) {
            None => ("F32", plain, bytemuck::cast_slice(tensor.data())),
            Some((weights, Form::F32)) => ("F32", plain, weights.bytes()),
            Some((weights, Form::F16)) => ("F16", plain, weights.bytes()),
            Some((weights, Form::Bf16)) => {
                ("BF16", vec![n.div_ceil(32), k.div_ceil(2), 32, 2], weights.bytes())
            }
            Some((weights, Form::Blocks(format))) => {
                ("U8", vec![n.div_ceil(32), k.div_ceil(32), format.block_bytes()], weights.bytes())
            }
        };
        Entry { name: full(name), kind, shape, content: Content::Bytes(bytes) }
    }

    /// A tensor under its name in the file, row by row in `f32`, `f16` or `bf16`.
    pub fn plain(name: &str, tensor: &'a Tensor, dtype: Dtype) -> Entry<'a> {
        let kind = match dtype {
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
            _ => "F32",
        };
        let content = match tensor.weights() {
            None if kind == "F32" => Content::Bytes(bytemuck::cast_slice(tensor.data())),
            Some(weights) if [("F32", Form::F32), ("F16", Form::F16)].contains(&(kind, weights.form())) => {
                Content::Bytes(weights.bytes())
            }
            _ => Content::Values(tensor, dtype),
        };
        Entry { name: full(name), kind, shape: tensor.shape().to_vec(), content }
    }

    /// The name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        match &self.content {
            Content::Bytes(bytes) => bytes.len(),
            Content::Values(tensor, _) => tensor.len() * size(self.kind),
        }
    }

    /// The bytes.
    fn bytes(&self) -> Result<Cow<'a, [u8]>> {
        let (tensor, dtype) = match self.content {
            Content::Bytes(bytes) => return Ok(Cow::Borrowed(bytes)),
            Content::Values(tensor, dtype) => (tensor, dtype),
        };
        let values = tensor.decoded();
        let halves: Vec<u16> = match dtype {
            Dtype::F16 => values.iter().map(|&x| tensor::f16::from_f32(x).to_bits()).collect(),
            Dtype::Bf16 => values.iter().map(|&x| tensor::bf16::from_f32(x).to_bits()).collect(),
            _ => return Ok(Cow::Owned(bytemuck::cast_slice(&values).to_vec())),
        };
        let infinite = if dtype == Dtype::F16 { 0x7c00 } else { 0x7f80 };
        let overflow =
            halves.iter().zip(&*values).find(|(bits, x)| **bits & 0x7fff == infinite && x.is_finite());
        if let Some((_, &value)) = overflow {
            return Err(ModelError::TooLarge { name: bare(&self.name).to_owned(), value, dtype });
        }
        Ok(Cow::Owned(bytemuck::cast_slice(&halves).to_vec()))
    }
}

/// Bytes of a number.
fn size(kind: &str) -> usize {
    match kind {
        "F32" => 4,
        "U8" => 1,
        _ => 2,
    }
}

/// Writes `f32` tensors and metadata as one file, whole or not at all.
pub fn write_tensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (String, &'a [usize], &'a [f32])>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let entry = |(name, shape, values): (String, &[usize], &'a [f32])| Entry {
        name,
        kind: "F32",
        shape: shape.to_vec(),
        content: Content::Bytes(bytemuck::cast_slice(values)),
    };
    write_entries(path, tensors.map(entry).collect(), metadata)
}

/// Writes tensors one after the other, those with the longest numbers first, so that each starts where its numbers may.
pub(super) fn write_entries(
    path: &Path,
    mut entries: Vec<Entry>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    /// The header ends at a multiple of this many bytes.
    const ALIGNMENT: usize = 64;
    // Blocks and panels are multiples of 64 bytes, and so stay aligned if what may not be comes last.
    entries.sort_by_key(|entry| (!entry.len().is_multiple_of(ALIGNMENT), 4 - size(entry.kind)));
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut end = 0;
    for entry in &entries {
        let (start, Entry { name, kind, shape, .. }) = (end, entry);
        end += entry.len();
        let entry = json!({ "dtype": kind, "shape": shape, "data_offsets": [start, end] });
        header.insert(name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header).expect("JSON values can be written");
    header.resize((header.len() + 8).next_multiple_of(ALIGNMENT) - 8, b' ');
    let mut refused = None;
    let written = write_whole(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        entries.iter().try_for_each(|entry| match entry.bytes() {
            Ok(bytes) => file.write_all(&bytes),
            Err(error) => {
                refused = Some(error);
                Err(std::io::ErrorKind::InvalidData.into())
            }
        })
    });
    refused.map_or(written, Err)
}
