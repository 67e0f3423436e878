//! Models behind HTTP, under the routes that OpenAI's clients speak.
//!
//! Start at [`router()`]. A request is read and checked on tokio's threads ([`openai`]), becomes an [`Order`] of texts, and goes
//! to the [`Conductor`]: one thread that steps the engines of all models. What the engines write comes back through a channel
//! for each order, so that the conductor never waits for a client. Around the routes stand [`guards`]. [`run`] listens, loads, and ends in
//! good order. The [`page`] has desks of its own ([`desk`]), and a history if it is given a file ([`chats`]).
#![forbid(unsafe_code)]

pub mod account;
pub mod app;
pub mod body;
pub mod chats;
pub mod conductor;
mod connections;
pub mod cors;
pub mod desk;
pub mod error;
pub mod guards;
mod headers;
mod health;
pub mod hosts;
pub mod keys;
pub mod log;
pub mod metrics;
pub mod openai;
mod openapi;
pub mod page;
mod part;
pub mod rate;
pub mod router;
mod run;
pub mod served;
mod state;
pub mod tls;
mod tokens;

pub use app::{App, Caller};
pub use conductor::{Conductor, Failure, Order, Receipt, Update};
pub use error::ApiError;
pub use guards::Guards;
pub use router::router;
pub use run::{ServeError, run};
pub use served::Served;
pub use state::{Phase, Settings, State, Work};
