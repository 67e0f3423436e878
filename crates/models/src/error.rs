//! What a model or its files can refuse.

use std::path::PathBuf;

use tensor::TensorError;
use thiserror::Error;

use crate::dtype::HEAD;

/// Why a model cannot be made, loaded, saved or run.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no model in this directory.
    #[error("{} holds no model: `{missing}` is missing; give a model directory, or a file of weights", .dir.display())]
    NoModel {
        /// The directory.
        dir: PathBuf,
        /// The file that is not there.
        missing: &'static str,
    },
    /// A config that is not readable as one.
    #[error("{}: {source}", .path.display())]
    ConfigSyntax {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        source: serde_json::Error,
    },
    /// A config whose values cannot be a GPT-2.
    #[error("config: `{field}` is {got}, but {want}")]
    Config {
        /// The field, as in config.json.
        field: &'static str,
        /// Its value.
        got: String,
        /// What it must be, and what to do.
        want: String,
    },
    /// An unknown preset.
    #[error("there is no preset `{name}`; choose one of {known}")]
    Preset {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A weights file that is damaged or not safetensors.
    #[error("{}: not a whole safetensors file ({reason}); it may be truncated: copy or download it again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of another format that is damaged.
    #[error("{}: not a whole {format} file ({reason}); it may be truncated: copy or download it again", .path.display())]
    NotWhole {
        /// The file.
        path: PathBuf,
        /// What it should be.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that says something which is not done here.
    #[error("{}: {reason}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it says, and what to do.
        reason: String,
    },
    /// A model, or a part of it, that a format has no place for.
    #[error("{format} cannot carry this model: {reason}")]
    CannotCarry {
        /// The format.
        format: &'static str,
        /// What it cannot carry, and what to do.
        reason: String,
    },
    /// A weight that the config asks for is not in the file.
    #[error("tensor `{name}` is missing from {}; {advice}", .path.display())]
    MissingTensor {
        /// The tensor, without the `transformer.` prefix.
        name: String,
        /// The file.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// A table of another number of tokens than the config says.
    #[error(
        "tensor `{name}` has {rows} rows, but config.json says \"vocab_size\": {vocab_size}; if only that is wrong (tables are \
         often padded), make it {rows}, or else take both files from the same model"
    )]
    VocabSize {
        /// The tensor.
        name: String,
        /// Its rows.
        rows: usize,
        /// Rows by the config.
        vocab_size: usize,
    },
    /// A weight that is NaN or infinite.
    #[error(
        "tensor `{name}` holds {value} (value number {index}): the file is damaged, or training went wrong before it \
         was written; take an earlier one"
    )]
    NotFinite {
        /// The tensor.
        name: String,
        /// Its place, row by row.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// A weight that a narrower type cannot hold.
    #[error("tensor `{name}` holds {value}, which is too large for {dtype}; write the model in bf16 or f32")]
    TooLarge {
        /// The tensor.
        name: String,
        /// The value.
        value: f32,
        /// The type.
        dtype: crate::Dtype,
    },
    /// A type that only we read.
    #[error("a Hugging Face directory holds f32, f16 or bf16, not {dtype}; choose one of those")]
    PlainType {
        /// The type.
        dtype: crate::Dtype,
    },
    /// A list of shards that cannot be right.
    #[error("{}: {reason}; copy or download the model again", .path.display())]
    Index {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A shard that cannot be read.
    #[error("{} names the file {shard:?}, {reason}", .index.display())]
    Shard {
        /// The list of shards.
        index: PathBuf,
        /// The name in it.
        shard: String,
        /// What is wrong, and what to do.
        reason: &'static str,
    },
    /// A weight of another shape than the config asks for.
    #[error(
        "tensor `{name}` has shape {got:?}, but the config asks for {want:?}; take both from the same model"
    )]
    TensorShape {
        /// The tensor.
        name: String,
        /// Its shape in the file.
        got: Vec<usize>,
        /// The shape by the config.
        want: Vec<usize>,
    },
    /// A weight of a type that is not computed with.
    #[error(
        "tensor `{name}` is of type {got}, which is not computed with here; save the model in float32, float16 or \
         bfloat16, or let `gpt2 quantize` make it"
    )]
    TensorType {
        /// The tensor.
        name: String,
        /// Its type in the file.
        got: String,
    },
    /// A matrix in blocks or panels that are not those of its shape.
    #[error(
        "tensor `{name}` has shape {got:?}, but a {k} × {n} matrix takes {want}; take config.json and \
         model.safetensors from the same model, or make the file again with `gpt2 quantize`"
    )]
    BlockShape {
        /// The tensor.
        name: String,
        /// Its shape in the file.
        got: Vec<usize>,
        /// Rows of the product's right factor.
        k: usize,
        /// Columns of it.
        n: usize,
        /// The shapes there may be.
        want: String,
    },
    /// Linear layers of several types.
    #[error(
        "tensor `{name}` is of type {got}, but those before it of {want}; make the file again with `gpt2 quantize`"
    )]
    MixedTypes {
        /// The tensor.
        name: String,
        /// Its type.
        got: crate::Dtype,
        /// The type of the others.
        want: crate::Dtype,
    },
    /// A matrix whose contents cannot be.
    #[error("tensor `{name}`: {source}")]
    Weights {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        source: TensorError,
    },
    /// A tensor that GPT-2 does not have.
    #[error("{}: tensor `{name}` is not part of a GPT-2 of this config; {advice}", .path.display())]
    UnknownTensor {
        /// The tensor.
        name: String,
        /// The file.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// More positions than the model has.
    #[error("{past} + {new} tokens are more than the context of {n_ctx}; shorten the input")]
    ContextExceeded {
        /// Tokens already in the cache.
        past: usize,
        /// Tokens to be added.
        new: usize,
        /// The model's longest sequence.
        n_ctx: usize,
    },
    /// A table that would lose rows.
    #[error("the model has {have} tokens, and a table of {want} would forget some; tokens can only be added")]
    VocabShrinks {
        /// Rows there are.
        have: usize,
        /// Rows asked for.
        want: usize,
    },
    /// A table in a type that is only run.
    #[error("weights in {dtype} are for running only; load the model in f32 to add tokens")]
    VocabType {
        /// The type.
        dtype: crate::Dtype,
    },
    /// A row that the batch does not have.
    #[error("row {row} is asked for, but the batch has {rows}")]
    RowOutOfRange {
        /// The row.
        row: usize,
        /// Rows there are.
        rows: usize,
    },
    /// No more blocks for keys and values.
    #[error(
        "all {budget} blocks for keys and values are in use; raise the budget, or run fewer or shorter sequences at once"
    )]
    CacheFull {
        /// Blocks that there may be.
        budget: usize,
    },
    /// A batch whose parts do not fit together, or an empty one.
    #[error(
        "a batch of {batch} sequences cannot be made from {ids} tokens; give the same number, at least one, to each"
    )]
    BatchShape {
        /// Sequences.
        batch: usize,
        /// Tokens in all.
        ids: usize,
    },
    /// A file of PyTorch that cannot be read as a GPT-2.
    #[error("{}: not a checkpoint of PyTorch that can be read: {reason}", .path.display())]
    Torch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A pickle that asks for code.
    #[error(
        "{}: it asks for Python's `{global}`, which no weights need; nothing was executed. If you trust where it is \
         from, load it in Python and save `model.state_dict()` alone",
        .path.display()
    )]
    ForbiddenGlobal {
        /// The file.
        path: PathBuf,
        /// The function or class, with its module.
        global: String,
    },
    /// An operation refused its input.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl ModelError {
    /// A weight that is not there.
    pub(crate) fn missing(name: &str, path: &std::path::Path) -> ModelError {
        let advice = match name {
            HEAD => "if the model was tied, say \"tie_word_embeddings\": true in config.json",
            _ => "take the config and the weights from the same model",
        };
        ModelError::MissingTensor { name: name.to_owned(), path: path.to_owned(), advice }
    }

    /// For `map_err` where a matrix is read or made.
    pub(crate) fn weights(name: &str) -> impl FnOnce(TensorError) -> ModelError + '_ {
        move |source| ModelError::Weights { name: name.to_owned(), source }
    }

    /// For `map_err` at a file operation.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> ModelError + '_ {
        move |source| ModelError::Io { path: path.to_owned(), source }
    }
}
