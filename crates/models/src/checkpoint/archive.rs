//! The tensors of a checkpoint, of whatever format, as they lie in its files; and a model made from them.
//!
//! Each format's reader gives an [`Archive`] under GPT-2's own names (`h.0.attn.c_attn.weight`); shapes, types and
//! completeness are checked here, for all formats alike.

use std::collections::HashMap;
use std::path::PathBuf;

use tensor::blocks::BlockFormat;
use tensor::weights::{Form, Weights};
use tensor::{Bytes, Tensor};

use crate::dtype::{TABLE, is_matrix};
use crate::{Dtype, Gpt2, Gpt2Config, ModelError, Result};

/// How weights are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// As `f32` in memory, to be trained.
    Training,
    /// As they are, for running.
    Running,
}

/// How the numbers of a tensor are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    F16,
    Bf16,
    /// bfloat16 in our panels: see [`super::safetensors`].
    Panels,
    /// Our blocks: see [`super::safetensors`].
    Blocks(BlockFormat),
    /// A type that is not computed with, by its name.
    Other(String),
}

/// A tensor as it lies in a file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub kind: Kind,
    /// As the file says it; for panels and blocks, see [`super::safetensors`].
    pub shape: Vec<usize>,
    pub bytes: Bytes,
    /// A matrix that lies as (out, in), where GPT-2 has (in, out).
    pub is_turned: bool,
}

/// The tensors of a checkpoint by name, without the prefix `transformer.`.
#[derive(Clone, Debug, Default)]
pub(super) struct Archive {
    /// The file, or the first of several.
    pub path: PathBuf,
    pub tensors: HashMap<String, Stored>,
}

impl Stored {
    fn type_error(&self, name: &str) -> ModelError {
        let got = match &self.kind {
            Kind::Other(kind) => kind.clone(),
            kind => format!("{kind:?}"),
        };
        ModelError::TensorType { name: name.to_owned(), got }
    }

    /// The values of a type that others write, in the order of `want`, which must be the tensor's shape.
    pub fn plain(&self, name: &str, want: &[usize]) -> Result<Vec<f32>> {
        self.check_shape(name, want)?;
        let halves = || self.bytes.as_chunks::<2>().0.iter().map(|&bytes| u16::from_le_bytes(bytes));
        let values: Vec<f32> = match &self.kind {
            Kind::F32 => self.bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Kind::F16 => halves().map(|bits| tensor::f16::from_bits(bits).to_f32()).collect(),
            Kind::Bf16 => halves().map(|bits| tensor::bf16::from_bits(bits).to_f32()).collect(),
            Kind::Panels | Kind::Blocks(_) | Kind::Other(_) => return Err(self.type_error(name)),
        };
        if values.len() != want.iter().product::<usize>() {
            let (name, got, want) = (name.to_owned(), vec![values.len()], want.to_vec());
            return Err(ModelError::TensorShape { name, got, want });
        }
        Ok(if self.is_turned { turned(&values, want[0], want[1]) } else { values })
    }

    fn check_shape(&self, name: &str, want: &[usize]) -> Result<()> {
        let lies: Vec<usize> = match self.is_turned {
            true => want.iter().rev().copied().collect(),
            false => want.to_vec(),
        };
        if self.shape == lies {
            return Ok(());
        }
        Err(ModelError::TensorShape { name: name.to_owned(), got: self.shape.clone(), want: lies })
    }
}

/// A (rows, cols) matrix of values that lie as (cols, rows).
fn turned(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (row, out) in out.chunks_exact_mut(cols.max(1)).enumerate().take(rows) {
        out.iter_mut().enumerate().for_each(|(col, out)| *out = values[col * rows + row]);
    }
    out
}

/// A weight matrix of the model: what lies in the file, and what the model's shape asks for.
struct Matrix<'a> {
    name: &'a str,
    stored: &'a Stored,
    want: &'a [usize],
}

impl Matrix<'_> {
    /// Whether products read the transposed matrix, and their K and N.
    fn product(&self) -> (bool, usize, usize) {
        let turned = self.name == TABLE;
        if turned { (turned, self.want[1], self.want[0]) } else { (turned, self.want[0], self.want[1]) }
    }

    /// For shapes of blocks and panels.
    fn block_shape_error(&self) -> ModelError {
        let (_, k, n) = self.product();
        let (panels, blocks) = (n.div_ceil(32), k.div_ceil(32));
        let want = match self.stored.kind {
            Kind::Panels => format!("[{panels}, {}, 32, 2]", k.div_ceil(2)),
            _ => BlockFormat::ALL
                .map(|format| format!("[{panels}, {blocks}, {}]", format.block_bytes()))
                .join(" or "),
        };
        ModelError::BlockShape { name: self.name.to_owned(), got: self.stored.shape.clone(), k, n, want }
    }

    /// The form that the matrix has in the file, or that is nearest to it if it is of a type of others.
    fn form(&self) -> Result<Form> {
        let (_, k, n) = self.product();
        let (panels, blocks) = (n.div_ceil(32), k.div_ceil(32));
        let form = match &self.stored.kind {
            Kind::F32 => Form::F32,
            Kind::F16 => Form::F16,
            Kind::Bf16 => Form::Bf16,
            Kind::Panels if self.stored.shape == [panels, k.div_ceil(2), 32, 2] => return Ok(Form::Bf16),
            Kind::Blocks(format) if self.stored.shape == [panels, blocks, format.block_bytes()] => {
                return Ok(Form::Blocks(*format));
            }
            Kind::Panels | Kind::Blocks(_) => return Err(self.block_shape_error()),
            Kind::Other(_) => return Err(self.stored.type_error(self.name)),
        };
        self.stored.check_shape(self.name, self.want)?;
        Ok(form)
    }

    /// The matrix as it lies in the file, if it lies as products read it.
    fn in_place(&self) -> Result<Option<Weights>> {
        let form = self.form()?;
        let is_ours = matches!(self.stored.kind, Kind::Panels | Kind::Blocks(_));
        let mut bytes = self.stored.bytes.clone();
        let aligned = bytes.as_ptr().cast::<f32>().is_aligned();
        if is_ours && !aligned {
            bytes = Bytes::of_memory(bytes.len(), |copy| copy.copy_from_slice(&bytes));
        }
        if !is_ours && (form == Form::Bf16 || !aligned || self.stored.is_turned) {
            return Ok(None);
        }
        let (turned, ..) = self.product();
        let weights = Weights::new(form, self.want[0], self.want[1], turned, bytes);
        weights.map(Some).map_err(ModelError::weights(self.name))
    }

    /// The matrix in this form, from where it lies if it has it already.
    fn weights(&self, form: Form) -> Result<Tensor> {
        let lies = self.in_place()?;
        let weights = match &lies {
            Some(weights) if weights.form() == form => weights.clone(),
            Some(weights) => self.encode(form, &weights.decode())?,
            None => self.encode(form, &self.stored.plain(self.name, self.want)?)?,
        };
        Ok(Tensor::from_weights(self.want[0], self.want[1], weights)?)
    }

    fn encode(&self, form: Form, values: &[f32]) -> Result<Weights> {
        let weights = Weights::encode(form, values, (self.want[0], self.want[1]), self.product().0, None);
        weights.map_err(ModelError::weights(self.name))
    }

    /// The matrix's values.
    fn values(&self) -> Result<Vec<f32>> {
        match self.in_place()? {
            Some(weights) => Ok(weights.decode().into_owned()),
            None => self.stored.plain(self.name, self.want),
        }
    }
}

impl Archive {
    /// A model of this shape from these tensors: each that it asks for, and no other.
    pub fn into_model(self, config: Gpt2Config, wanted: Use) -> Result<Gpt2> {
        let shapes: HashMap<String, Vec<usize>> = config.shapes().into_iter().collect();
        self.refuse_unknown(&shapes)?;
        let mut linear = None;
        let mut model = Gpt2::build(config, &mut |name| {
            let missing = || ModelError::MissingTensor { name: name.to_owned(), path: self.path.clone() };
            let stored = self.tensors.get(name).ok_or_else(missing)?;
            let want = &shapes[name];
            if !is_matrix(name, want) {
                return Ok(Tensor::new(want, stored.plain(name, want)?)?);
            }
            let matrix = Matrix { name, stored, want };
            if wanted == Use::Training {
                return Ok(Tensor::new(want, matrix.values()?)?);
            }
            let kind = Dtype::of(matrix.form()?);
            if name != TABLE {
                let want = *linear.get_or_insert(kind);
                if kind != want {
                    return Err(ModelError::MixedTypes { name: name.to_owned(), got: kind, want });
                }
            }
            matrix.weights(kind.form(name))
        })?;
        model.set_dtype(linear.unwrap_or_default());
        Ok(model)
    }

    /// Every tensor must be a weight, or one of the constants that old checkpoints carry.
    fn refuse_unknown(&self, shapes: &HashMap<String, Vec<usize>>) -> Result<()> {
        // Where both lie in one place, they need not be read.
        let same = |a: &[u8], b: &[u8]| std::ptr::eq(a, b) || a == b;
        let same_as_table =
            |head: &Stored| self.tensors.get(TABLE).is_some_and(|wte| same(&wte.bytes, &head.bytes));
        for (name, stored) in &self.tensors {
            let mask = name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
            let tied = name == "lm_head.weight" && same_as_table(stored);
            if shapes.contains_key(name) || mask || tied {
                continue;
            }
            let advice = match name.as_str() {
                "lm_head.weight" => {
                    "its output layer differs from its embeddings, which this version cannot run"
                }
                _ => "take config.json and model.safetensors from the same model",
            };
            return Err(ModelError::UnknownTensor { name: name.clone(), path: self.path.clone(), advice });
        }
        Ok(())
    }
}
