//! Training: optimisers, schedules, the loop, resume, and logs.
//!
//! Start at [`Run`], the loop told in order. [`config`] holds what a run is made of, [`optimizer`] and [`schedule`]
//! the arithmetic, [`state`] the one file that resume needs, [`metrics`] what is written down on the way.
#![forbid(unsafe_code)]

pub mod config;
mod error;
pub mod lock;
pub mod metrics;
pub mod optimizer;
mod plot;
mod run;
pub mod schedule;
pub mod state;
mod tensorboard;

pub use config::TrainConfig;
pub use error::TrainError;
pub use lock::RunLock;
pub use run::{EvalReport, Observer, Outcome, Run, StepReport};

/// The result of training.
pub type Result<T> = std::result::Result<T, TrainError>;
