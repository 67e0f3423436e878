//! From a prompt to text: sampling, beam search, and the decoding loop.
//!
//! Start at [`generate`]; [`sampling`] says how a token is drawn, [`constraint`] how texts are held to a schema or a
//! grammar, [`beam`] how the best of many texts is found, and [`stream`] when text may be shown.
#![forbid(unsafe_code)]

pub mod apps;
pub mod beam;
pub mod constraint;
mod ends;
pub mod engine;
pub mod gguf;
mod request;
pub mod sampling;
pub mod speculate;
pub mod stream;

pub use beam::{BeamSearch, BeamSettings, EarlyStopping, Hypothesis, beam_search, beam_search_on};
pub use constraint::{Constraint, ConstraintError, Vocabulary};
pub use ends::end_tokens;
pub use engine::{Engine, EngineError, EngineSettings, Event, Overflow, Task, TaskId};
pub use request::{Finish, GenerateError, Generation, Request, TextEvent, Texts, Timings, generate};
pub use sampling::{
    Draw, History, Processors, Sampler, Sampling, SamplingError, TokenLogprobs, top_logprobs,
};
pub use speculate::Speculation;
