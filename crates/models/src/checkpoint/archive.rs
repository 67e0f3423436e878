//! The tensors of a checkpoint, of whatever format, as they lie in its files; and a model made from them.
//!
//! Each format's reader gives an [`Archive`] under GPT-2's own names (`h.0.attn.c_attn.weight`); shapes, types and
//! completeness are checked here, for all formats alike.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use tensor::blocks::{BLOCK, BlockFormat, assemble};
use tensor::weights::{Form, Weights};
use tensor::{Bytes, Tensor, pool};

use super::gguf::GgmlType;
use crate::dtype::{HEAD, TABLE, is_matrix, is_table};
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
    /// A type of ggml's: see [`super::gguf`].
    Ggml(GgmlType),
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
            Kind::Ggml(kind) => self.decoded(name, *kind)?,
            Kind::Panels | Kind::Blocks(_) | Kind::Other(_) => return Err(self.type_error(name)),
        };
        if values.len() != want.iter().product::<usize>() {
            let (name, got, want) = (name.to_owned(), vec![values.len()], want.to_vec());
            return Err(ModelError::TensorShape { name, got, want });
        }
        Ok(if self.is_turned { turned(&values, want[0], want[1]) } else { values })
    }

    fn decoded(&self, name: &str, kind: GgmlType) -> Result<Vec<f32>> {
        Ok(finite(name, kind.decode(&self.bytes).into())?.into_owned())
    }

    fn check_shape(&self, name: &str, want: &[usize]) -> Result<()> {
        let lies: Vec<usize> = match self.is_turned {
            true => want.iter().rev().copied().collect(),
            false => want.to_vec(),
        };
        if self.shape == lies {
            return Ok(());
        }
        // Vocabularies are often padded, or lack tokens that were added later.
        if is_table(name) && self.shape.len() == 2 && self.shape[1..] == lies[1..] {
            let (rows, vocab_size) = (self.shape[0], lies[0]);
            return Err(ModelError::VocabSize { name: name.to_owned(), rows, vocab_size });
        }
        Err(ModelError::TensorShape { name: name.to_owned(), got: self.shape.clone(), want: lies })
    }
}

/// A (rows, cols) matrix of values that lie as (cols, rows).
pub(super) fn turned(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    /// Rows and columns that are turned at once, so that each line of the cache is read and written in one go.
    const TILE: usize = 32;
    let mut out = vec![0.0; values.len()];
    pool::for_each_chunk_mut(&mut out, TILE * cols.max(1), |i, out| {
        let row = i * TILE;
        for first in (0..cols).step_by(TILE) {
            for (r, out) in out.chunks_exact_mut(cols).enumerate() {
                let out = &mut out[first..cols.min(first + TILE)];
                out.iter_mut().zip(first..).for_each(|(out, col)| *out = values[col * rows + row + r]);
            }
        }
    });
    out
}

/// The values, if all of them are numbers. Matrices that are computed from where they lie are not looked through: to read
/// a whole file would take longer than to begin to use it. [`Gpt2::check_finite`] does it for whoever has the time.
pub(crate) fn finite<'a>(name: &str, values: Cow<'a, [f32]>) -> Result<Cow<'a, [f32]>> {
    // By parts, so that the compiler vectorises each.
    let bad = |part: &[f32]| part.iter().fold(false, |bad, x| bad | !x.is_finite());
    let Some(part) = values.chunks(4096).position(bad) else { return Ok(values) };
    let index = values.iter().skip(4096 * part).position(|x| !x.is_finite()).unwrap_or(0) + 4096 * part;
    Err(ModelError::NotFinite { name: name.to_owned(), index, value: values[index] })
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
        let turned = is_table(self.name);
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
            Kind::Ggml(kind) => kind.form(),
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

    /// The matrix as it lies in the file, if it lies as products read it, or in blocks that need only another order.
    fn in_place(&self) -> Result<Option<Weights>> {
        let form = self.form()?;
        if let (Kind::Ggml(kind), Form::Blocks(format)) = (&self.stored.kind, form) {
            return self.reordered(*kind, format).map(Some);
        }
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

    /// The same scales and numbers as a matrix in blocks of ours. Its rows lie along K.
    fn reordered(&self, kind: GgmlType, format: BlockFormat) -> Result<Weights> {
        let (turned, k, n) = self.product();
        assert!(self.stored.is_turned != turned, "a matrix of ggml's lies as (outputs, inputs)");
        let (bytes, size) = (&self.stored.bytes, kind.block_bytes());
        let blocks = assemble(format, k, n, |column, i, levels| {
            let (scale, numbers) = kind.numbers(&bytes[(column * (k / BLOCK) + i) * size..][..size]);
            *levels = numbers.map(|number| (i32::from(number) + format.offset()) as u8);
            scale
        });
        let bytes = Bytes::of_memory(blocks.len(), |bytes| bytes.copy_from_slice(&blocks));
        let weights = Weights::new(Form::Blocks(format), self.want[0], self.want[1], turned, bytes);
        weights.map_err(ModelError::weights(self.name))
    }

    /// The matrix in this form, from where it lies if it has it already.
    fn weights(&self, form: Form) -> Result<Tensor> {
        let lies = self.in_place()?;
        let weights = match &lies {
            Some(weights) if weights.form() == form => weights.clone(),
            Some(weights) => self.encode(form, &finite(self.name, weights.decode())?)?,
            None => {
                self.encode(form, &finite(self.name, self.stored.plain(self.name, self.want)?.into())?)?
            }
        };
        Ok(Tensor::from_weights(self.want[0], self.want[1], weights)?)
    }

    fn encode(&self, form: Form, values: &[f32]) -> Result<Weights> {
        let weights = Weights::encode(form, values, (self.want[0], self.want[1]), self.product().0, None);
        weights.map_err(ModelError::weights(self.name))
    }

    /// The matrix's values.
    fn values(&self) -> Result<Vec<f32>> {
        if matches!(self.stored.kind, Kind::Ggml(_)) {
            return self.stored.plain(self.name, self.want);
        }
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
        let mut linear = self.common_type(&shapes);
        let mut model = Gpt2::build(config, &mut |name| {
            let stored = self.tensors.get(name).ok_or_else(|| ModelError::missing(name, &self.path))?;
            let want = &shapes[name];
            if !is_matrix(name, want) {
                let values = finite(name, stored.plain(name, want)?.into())?;
                return Ok(Tensor::new(want, values.into_owned())?);
            }
            let matrix = Matrix { name, stored, want };
            if wanted == Use::Training {
                return Ok(Tensor::new(want, finite(name, matrix.values()?.into())?.into_owned())?);
            }
            let form = matrix.form()?;
            if is_table(name) {
                return matrix.weights(form);
            }
            let kind = Dtype::of(form);
            let want = *linear.get_or_insert(kind);
            if kind != want && !matches!(stored.kind, Kind::Ggml(_)) {
                return Err(ModelError::MixedTypes { name: name.to_owned(), got: kind, want });
            }
            matrix.weights(want.form(name))
        })?;
        model.set_dtype(match wanted {
            Use::Training => Dtype::F32,
            Use::Running => linear.unwrap_or_default(),
        });
        Ok(model)
    }

    /// The type for all linear layers of a file of ggml's, which may mix types: the one that they have, or `f32` where
    /// some are of 16 bits or more and others are not, or bfloat16.
    fn common_type(&self, shapes: &HashMap<String, Vec<usize>>) -> Option<Dtype> {
        let mut common = None;
        for (name, stored) in &self.tensors {
            let Kind::Ggml(kind) = stored.kind else { continue };
            if is_table(name) || !shapes.get(name).is_some_and(|shape| is_matrix(name, shape)) {
                continue;
            }
            let kind = Dtype::of(kind.form());
            common = Some(match common {
                Some(other) if other != kind => match (other, kind) {
                    (Dtype::F32 | Dtype::F16, _) | (_, Dtype::F32 | Dtype::F16) => Dtype::F32,
                    _ => Dtype::Bf16,
                },
                _ => kind,
            });
        }
        common
    }

    /// Whether running the model in the types nearest to it would round some of its values.
    pub fn is_rounded(&self, config: &Gpt2Config) -> bool {
        let shapes = config.shapes().into_iter().collect();
        let is_mixed = self.common_type(&shapes) == Some(Dtype::Bf16);
        let kind = |name: &str| match self.tensors.get(name).map(|stored| &stored.kind) {
            Some(Kind::Ggml(kind)) => Some(*kind),
            _ => None,
        };
        let mut kinds = shapes.keys().filter_map(|name| Some((is_table(name), kind(name)?)));
        kinds.any(|(is_table, kind)| {
            !kind.is_ours() || is_mixed && !is_table && Dtype::of(kind.form()).is_blocks()
        })
    }

    /// Every tensor must be a weight, or one of the constants that old checkpoints carry.
    fn refuse_unknown(&self, shapes: &HashMap<String, Vec<usize>>) -> Result<()> {
        // Where both lie in one place, they need not be read.
        let same = |a: &[u8], b: &[u8]| std::ptr::eq(a, b) || a == b;
        let same_as_table =
            |head: &Stored| self.tensors.get(TABLE).is_some_and(|wte| same(&wte.bytes, &head.bytes));
        for (name, stored) in &self.tensors {
            let mask = name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
            let tied = name == HEAD && same_as_table(stored);
            if shapes.contains_key(name) || mask || tied {
                continue;
            }
            let advice = match name.as_str() {
                HEAD if self.tensors.contains_key(TABLE) => {
                    "its output layer differs from its embeddings: say \"tie_word_embeddings\": false in config.json"
                }
                "score.weight" | "classifier.weight" => "it classifies texts, and does not write them",
                _ => "take config.json and the weights from the same model",
            };
            return Err(ModelError::UnknownTensor { name: name.clone(), path: self.path.clone(), advice });
        }
        Ok(())
    }
}
