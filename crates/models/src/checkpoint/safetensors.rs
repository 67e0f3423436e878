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

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype as FileType, SafeTensors, TensorView};
use serde_json::{Map, json};
use tensor::blocks::BlockFormat;
use tensor::weights::Form;
use tensor::{Bytes, Tensor};

use super::archive::{Archive, Kind, Stored};
use super::write_whole;
use crate::dtype::TABLE;
use crate::{ModelError, Result};

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
fn entries(path: &Path, bytes: &Bytes) -> Result<Vec<(String, Stored)>> {
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

fn map(path: &Path) -> Result<Bytes> {
    File::open(path).and_then(|file| Bytes::of_file(&file)).map_err(ModelError::io(path))
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes)
        .map_err(|error| ModelError::Damaged { path: path.to_owned(), reason: error.to_string() })
}

/// A weight's name without the prefix that `GPT2LMHeadModel` puts before it.
fn bare(name: &str) -> &str {
    name.strip_prefix("transformer.").unwrap_or(name)
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
    bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    /// A tensor under its name in the file, in the form that it has.
    pub fn of(name: &str, tensor: &'a Tensor) -> Entry<'a> {
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let (k, n) = if name == TABLE { (cols, rows) } else { (rows, cols) };
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
        Entry { name: format!("transformer.{name}"), kind, shape, bytes }
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
        bytes: bytemuck::cast_slice(values),
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
    let size = |kind| match kind {
        "F32" => 4,
        "U8" => 1,
        _ => 2,
    };
    // Blocks and panels are multiples of 64 bytes, and so stay aligned if what may not be comes last.
    entries.sort_by_key(|entry| (!entry.bytes.len().is_multiple_of(ALIGNMENT), 4 - size(entry.kind)));
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut end = 0;
    for Entry { name, kind, shape, bytes } in &entries {
        let start = end;
        end += bytes.len();
        let entry = json!({ "dtype": kind, "shape": shape, "data_offsets": [start, end] });
        header.insert(name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header).expect("JSON values can be written");
    header.resize((header.len() + 8).next_multiple_of(ALIGNMENT) - 8, b' ');
    write_whole(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        entries.iter().try_for_each(|entry| file.write_all(entry.bytes))
    })
}
