//! From a prompt to text: sampling, beam search, and the decoding loop.
//!
//! Start at [`generate`]; [`sampling`] says how a token is drawn, [`beam`] how the best of many texts is found, and
//! [`stream`] when text may be shown.
#![forbid(unsafe_code)]

pub mod beam;
mod engine;
pub mod sampling;
pub mod stream;

pub use beam::{BeamSearch, BeamSettings, EarlyStopping, Hypothesis, beam_search};
pub use engine::{Finish, GenerateError, Generation, Request, Timings, generate};
pub use sampling::{
    Draw, History, Processors, Sampler, Sampling, SamplingError, TokenLogprobs, top_logprobs,
};
