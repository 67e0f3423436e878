//! Documents in steps: a [`Recipe`] says what is written, in which order, with which prompts, and what each text must be.
//!
//! A [`Job`] is a recipe with its topic; a [`Writer`] writes many at once, on one engine, and a job's text does not depend on
//! the others. Each step's text goes into the prompts of later ones. A text that fails a check is written anew with other
//! random numbers; of several candidates the most likely one is kept, by mean log-probability. [`builtin`] holds the recipes
//! that come along.

pub mod builtin;
mod checks;
mod document;
mod ending;
mod error;
mod forms;
mod language;
mod placeholders;
mod recipe;
mod settings;
mod step;
mod units;
mod writer;

pub use checks::{Checks, Failure, Repeats};
pub use document::Written;
pub use ending::End;
pub use error::{RecipeError, WriteError};
pub use language::ByLang;
pub use placeholders::Template;
pub use recipe::{Input, Keep, Recipe, Step};
pub use settings::Override;
pub use step::{Attempt, Ended, StepResult};
pub use units::Unit;
pub use writer::{Job, JobId, WriteEvent, Writer};
