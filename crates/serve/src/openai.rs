//! OpenAI's routes: its JSON lives here, and nowhere else.
//!
//! Each field that OpenAI defines works, or is refused with its name ([`fields`]). What a request asks for becomes
//! [`generate::Request`]s ([`choices`]), the same that `gpt2 generate` makes.

pub mod chat;
pub mod choices;
pub mod completions;
pub mod embeddings;
pub mod fields;
pub mod form;
pub mod logprobs;
pub mod messages;
pub mod models;
pub mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use generate::{Finish, Generation};
use serde::Serialize;

use self::choices::random;
use crate::conductor::{Order, Receipt};
use crate::error::ApiError;
use crate::served::Served;
use crate::state::State;

/// Texts of a request, at most, for each of its prompts.
pub const MOST_CHOICES: usize = 128;

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens of the prompts; a prompt counts once, however many texts follow it.
    pub prompt_tokens: usize,
    /// Tokens written, those of texts that were not chosen included.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
    /// What is known of the prompts' tokens.
    pub prompt_tokens_details: PromptTokens,
}

/// What is known of the prompts' tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PromptTokens {
    /// Those that were computed before, for another text.
    pub cached_tokens: usize,
}

impl Usage {
    /// Of texts, of which each `per_prompt` share a prompt.
    pub fn of<'g>(texts: impl IntoIterator<Item = &'g Generation>, per_prompt: usize) -> Usage {
        let mut usage = Usage::default();
        for (at, generation) in texts.into_iter().enumerate() {
            let timings = &generation.timings;
            if at % per_prompt == 0 {
                usage.prompt_tokens += timings.prompt_tokens;
                usage.prompt_tokens_details.cached_tokens += timings.cached_tokens;
            }
            usage.completion_tokens += timings.tokens;
        }
        usage.total_tokens = usage.prompt_tokens + usage.completion_tokens;
        usage
    }
}

/// What stands around the choices of every answer.
#[derive(Clone, Debug, Serialize)]
pub struct Head {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
}

impl Head {
    /// Of an answer of this kind, whose id begins so.
    pub fn new(prefix: &str, object: &'static str, served: &Served) -> Head {
        Head {
            id: format!("{prefix}-{}", new_id()),
            object,
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            model: served.name().to_owned(),
            system_fingerprint: served.fingerprint().to_owned(),
        }
    }
}

/// Why a text ended, as OpenAI says it.
pub fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Eot | Finish::Stop => "stop",
        Finish::Length | Finish::Context | Finish::Cancelled => "length",
    }
}

/// A name that no other answer has.
pub(crate) fn new_id() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}{:08x}", random(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Hands requests to the conductor.
fn submit(
    state: &State,
    served: &Arc<Served>,
    requests: Vec<generate::Request>,
    stream: bool,
) -> Result<Receipt, ApiError> {
    let conductor = state.conductor().ok_or_else(|| ApiError::internal("the models are not running"))?;
    conductor.submit(served, Order { requests, stream, deadline: deadline(state) })
}

/// When a request that is taken now must be done, and how long it has.
fn deadline(state: &State) -> Option<(Instant, Duration)> {
    let limit = state.settings().request_timeout;
    Some((Instant::now().checked_add(limit)?, limit))
}

/// Does what may take long beside the threads that read and write.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| {
        Err(ApiError::internal("the server met a fault of its own while it read the request"))
    })
}
