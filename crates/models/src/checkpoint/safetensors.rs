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
use tensor::weights::{Form, Weights};
use tensor::{Bytes, Tensor};

use super::write_whole;
use crate::dtype::{TABLE, is_matrix};
use crate::{Dtype, Gpt2, Gpt2Config, ModelError, Result};

/// How weights are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use {
    /// As `f32` in memory, to be trained.
    Training,
    /// As they are, for running.
    Running,
}

/// Reads the weights of a model of shape `config`.
pub(super) fn load(path: &Path, config: Gpt2Config, wanted: Use) -> Result<Gpt2> {
    let bytes = map(path)?;
    if matches!(wanted, Use::Running) {
        bytes.warm();
    }
    let file = parse(path, &bytes)?;
    let named: HashMap<&str, _> = file.iter().map(|(name, view)| (bare(name), view)).collect();
    let shapes: HashMap<String, Vec<usize>> = config.shapes().into_iter().collect();
    refuse_unknown(path, &named, &shapes)?;
    let mut linear = None;
    let mut model = Gpt2::build(config, &mut |name| {
        let missing = || ModelError::MissingTensor { name: name.to_owned(), path: path.to_owned() };
        let view = named.get(name).ok_or_else(missing)?;
        let want = &shapes[name];
        let found = Found { name, view, want, bytes: &bytes };
        if !is_matrix(name, want) {
            return Ok(Tensor::new(want, found.plain()?)?);
        }
        if matches!(wanted, Use::Training) {
            return Ok(Tensor::new(want, found.values()?)?);
        }
        let kind = Dtype::of(found.form()?);
        if name != TABLE {
            let want = *linear.get_or_insert(kind);
            if kind != want {
                return Err(ModelError::MixedTypes { name: name.to_owned(), got: kind, want });
            }
        }
        found.weights(kind.form(name))
    })?;
    model.set_dtype(linear.unwrap_or_default());
    Ok(model)
}

/// A tensor of the file.
struct Found<'a> {
    name: &'a str,
    view: &'a TensorView<'a>,
    want: &'a [usize],
    bytes: &'a Bytes,
}

impl Found<'_> {
    fn shape_error(&self) -> ModelError {
        let (name, got, want) = (self.name.to_owned(), self.view.shape().to_vec(), self.want.to_vec());
        ModelError::TensorShape { name, got, want }
    }

    /// For shapes of blocks and panels.
    fn block_shape_error(&self) -> ModelError {
        let (_, k, n) = self.product();
        let (panels, blocks) = (n.div_ceil(32), k.div_ceil(32));
        let want = match self.view.dtype() {
            FileType::BF16 => format!("[{panels}, {}, 32, 2]", k.div_ceil(2)),
            _ => BlockFormat::ALL
                .map(|format| format!("[{panels}, {blocks}, {}]", format.block_bytes()))
                .join(" or "),
        };
        ModelError::BlockShape { name: self.name.to_owned(), got: self.view.shape().to_vec(), k, n, want }
    }

    fn type_error(&self) -> ModelError {
        ModelError::TensorType { name: self.name.to_owned(), got: format!("{:?}", self.view.dtype()) }
    }

    /// Values of one of the types that others write.
    fn plain(&self) -> Result<Vec<f32>> {
        if self.view.shape() != self.want {
            return Err(self.shape_error());
        }
        let halves = || self.view.data().as_chunks::<2>().0.iter().map(|&bytes| u16::from_le_bytes(bytes));
        Ok(match self.view.dtype() {
            FileType::F32 => {
                self.view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
            }
            FileType::F16 => halves().map(|bits| tensor::f16::from_bits(bits).to_f32()).collect(),
            FileType::BF16 => halves().map(|bits| tensor::bf16::from_bits(bits).to_f32()).collect(),
            _ => return Err(self.type_error()),
        })
    }

    /// Whether products read the transposed matrix, and their K and N.
    fn product(&self) -> (bool, usize, usize) {
        let turned = self.name == TABLE;
        if turned { (turned, self.want[1], self.want[0]) } else { (turned, self.want[0], self.want[1]) }
    }

    /// The form that a matrix has in the file, or would have if it is of a type of others.
    fn form(&self) -> Result<Form> {
        let (_, k, n) = self.product();
        let (panels, blocks) = (n.div_ceil(32), k.div_ceil(32));
        let block = |format: &BlockFormat| self.view.shape() == [panels, blocks, format.block_bytes()];
        match (self.view.dtype(), self.view.shape().len()) {
            (FileType::F32, 2) => Ok(Form::F32),
            (FileType::F16, 2) => Ok(Form::F16),
            (FileType::BF16, 2) => Ok(Form::Bf16),
            (FileType::BF16, 4) if self.view.shape() == [panels, k.div_ceil(2), 32, 2] => Ok(Form::Bf16),
            (FileType::U8, 3) => BlockFormat::ALL
                .into_iter()
                .find(block)
                .map(Form::Blocks)
                .ok_or_else(|| self.block_shape_error()),
            (FileType::BF16, 4) => Err(self.block_shape_error()),
            (FileType::F32 | FileType::F16 | FileType::BF16, _) => Err(self.shape_error()),
            _ => Err(self.type_error()),
        }
    }

    /// The matrix as it lies in the file, if it lies as products read it.
    fn in_place(&self) -> Result<Option<Weights>> {
        let (turned, ..) = self.product();
        let form = self.form()?;
        let dense = self.view.shape().len() == 2;
        if dense && self.view.shape() != self.want {
            return Err(self.shape_error());
        }
        let start = self.view.data().as_ptr() as usize - self.bytes.as_ptr() as usize;
        let mut bytes = self.bytes.part(start..start + self.view.data().len());
        let aligned = bytes.as_ptr().cast::<f32>().is_aligned();
        if !dense && !aligned {
            bytes = Bytes::of_memory(bytes.len(), |copy| copy.copy_from_slice(&bytes));
        }
        if dense && (self.view.dtype() == FileType::BF16 || !aligned) {
            return Ok(None);
        }
        let weights = Weights::new(form, self.want[0], self.want[1], turned, bytes);
        weights.map(Some).map_err(ModelError::weights(self.name))
    }

    /// The matrix in this form, from where it lies if it has it already.
    fn weights(&self, form: Form) -> Result<Tensor> {
        let (rows, cols) = (self.want[0], self.want[1]);
        let lies = self.in_place()?;
        let weights = match &lies {
            Some(weights) if weights.form() == form => weights.clone(),
            Some(weights) => self.encode(form, &weights.decode())?,
            None => self.encode(form, &self.plain()?)?,
        };
        Ok(Tensor::from_weights(rows, cols, weights)?)
    }

    fn encode(&self, form: Form, values: &[f32]) -> Result<Weights> {
        let weights = Weights::encode(form, values, (self.want[0], self.want[1]), self.product().0, None);
        weights.map_err(ModelError::weights(self.name))
    }

    /// A matrix's values.
    fn values(&self) -> Result<Vec<f32>> {
        match self.in_place()? {
            Some(weights) => Ok(weights.decode().into_owned()),
            None => self.plain(),
        }
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

/// Every tensor must be a weight, or one of the constants that old checkpoints carry.
fn refuse_unknown(
    path: &Path,
    named: &HashMap<&str, TensorView>,
    shapes: &HashMap<String, Vec<usize>>,
) -> Result<()> {
    for (&name, view) in named {
        let mask = name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
        let tied = name == "lm_head.weight" && named.get(TABLE).is_some_and(|wte| wte.data() == view.data());
        if shapes.contains_key(name) || mask || tied {
            continue;
        }
        let advice = match name {
            "lm_head.weight" => "its output layer differs from its embeddings, which this version cannot run",
            _ => "take config.json and model.safetensors from the same model",
        };
        return Err(ModelError::UnknownTensor { name: name.to_owned(), path: path.to_owned(), advice });
    }
    Ok(())
}

/// Reads all `f32` tensors of a safetensors file, and its metadata.
#[allow(clippy::type_complexity)]
pub fn read_tensors(
    path: &Path,
) -> Result<(HashMap<String, (Vec<usize>, Vec<f32>)>, HashMap<String, String>)> {
    let bytes = map(path)?;
    let file = parse(path, &bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| ModelError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    let read = |name: &str, view: &TensorView| {
        let found = Found { name, view, want: view.shape(), bytes: &bytes };
        if view.dtype() != FileType::F32 { Err(found.type_error()) } else { found.plain() }
    };
    let tensors = file
        .iter()
        .map(|(name, view)| Ok((name.to_owned(), (view.shape().to_vec(), read(name, &view)?))))
        .collect::<Result<_>>()?;
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
