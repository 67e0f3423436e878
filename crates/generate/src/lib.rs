//! From a prompt to text: sampling, and the decoding loop.
//!
//! Start at [`generate`]; [`sampling`] says how a token is drawn and [`stream`] when text may be shown.
#![forbid(unsafe_code)]

mod engine;
pub mod sampling;
pub mod stream;

pub use engine::{Finish, GenerateError, Generation, Request, Timings, generate};
pub use sampling::{Sampling, SamplingError};
