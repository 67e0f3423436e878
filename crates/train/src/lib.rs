//! Training: optimisers, schedules, the loop, resume, and logs.
//!
//! Start at [`Run`], the loop told in order. [`config`] holds what a run is made of, [`optimizer`] and [`schedule`]
//! the arithmetic, [`dpo`] what is learnt from preferences, [`state`] the one file that resume needs, [`metrics`] what is written down on the way.
#![forbid(unsafe_code)]

pub mod config;
pub mod dpo;
mod error;
pub mod lock;
pub mod metrics;
pub mod optimizer;
mod plot;
mod run;
pub mod schedule;
pub mod state;
mod tensorboard;
mod validation;

pub use config::TrainConfig;
pub use dpo::{Objective, Rewards};
pub use error::TrainError;
pub use lock::RunLock;
pub use run::{EvalReport, Observer, Outcome, Pace, Run, StepReport};
pub use state::Before;
pub use validation::{Measured, PreferenceReport, Validation};

/// The result of training.
pub type Result<T> = std::result::Result<T, TrainError>;
