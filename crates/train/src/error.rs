//! What training can be refused or stopped for.

use std::path::PathBuf;

use thiserror::Error;

/// Why a run cannot start, or stopped.
#[derive(Debug, Error)]
pub enum TrainError {
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A setting that cannot be.
    #[error("{name} is {got}, but {want}")]
    Setting {
        /// The flag.
        name: &'static str,
        /// Its value.
        got: String,
        /// What it must be.
        want: &'static str,
    },
    /// A directory that holds a model already.
    #[error("{} already holds {what}; choose another --out, continue it with --resume, or replace it with --force", .dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// A directory that another run writes to.
    #[error("another process is training in {}; wait for it, stop it, or choose another --out", .dir.display())]
    Busy {
        /// The directory.
        dir: PathBuf,
    },
    /// A state or model that could not be written.
    #[error("cannot save step {step}: {source}; {}", kept(.saved))]
    Save {
        /// What went wrong.
        source: models::ModelError,
        /// Steps completed.
        step: u64,
        /// Steps completed by the state that is saved.
        saved: Option<u64>,
    },
    /// Nothing to resume.
    #[error("there is nothing to resume: {} does not exist", .path.display())]
    NoState {
        /// Where the state would be.
        path: PathBuf,
    },
    /// A state that does not fit.
    #[error("{}: {reason}", .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The loss, the gradient or a weight is not a number.
    #[error("the {what} is {value} at step {step}; {}. Try a lower --lr, or --clip-norm 1.0", kept(.saved))]
    NotFinite {
        /// Loss, gradient norm or what else.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step that failed, counted from 1 as in `metrics.jsonl`.
        step: u64,
        /// Steps completed by the state that is saved.
        saved: Option<u64>,
    },
    /// The model refused.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// The data refused.
    #[error(transparent)]
    Data(#[from] data::DataError),
    /// Validation failed.
    #[error(transparent)]
    Eval(#[from] eval::EvalError),
    /// The tokenizer could not be saved.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::TokenizerError),
}

fn kept(saved: &Option<u64>) -> String {
    match saved {
        Some(step) => format!("the state of step {step} is kept"),
        None => "no state had been saved yet".into(),
    }
}

impl TrainError {
    /// For `map_err` at a file operation.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> TrainError + '_ {
        move |source| TrainError::Io { path: path.to_owned(), source }
    }
}
