//! What one request costs, and who pays: its account.
//!
//! A request's account is found from wherever its task is ([`Account::current`]), and goes along with what it hands on: the
//! conductor and the desks note there what they read and write. The account is closed when nobody holds it any more, so that
//! all is known by then, also of a request whose client has left: tokens are settled, counted, and told in a line of the log.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use generate::Generation;

use crate::error::ApiError;
use crate::guards::Guards;
use crate::keys::Key;
use crate::rate::What;

tokio::task_local! {
    static CURRENT: Account;
}

/// The account of a request. Cloning gives another hold on it; without a server around it, it is nobody's.
#[derive(Clone, Debug, Default)]
pub struct Account(Option<Arc<Entry>>);

/// What is known of a request.
#[derive(Debug)]
pub(crate) struct Entry {
    guards: Arc<Guards>,
    /// What it is called in the log.
    pub id: String,
    pub method: String,
    pub path: String,
    /// The route, as the router has it.
    pub route: String,
    /// Where the client is.
    pub client: Option<String>,
    pub start: Instant,
    ended: OnceLock<Duration>,
    /// The status of the answer; 0 before there is one.
    status: AtomicU16,
    /// Whether the answer was taken to its end.
    is_whole: AtomicBool,
    key: OnceLock<Arc<Key>>,
    model: OnceLock<String>,
    denied: OnceLock<What>,
    /// Tokens taken from the key's bucket.
    reserved: AtomicU64,
    prompt_tokens: AtomicU64,
    written_tokens: AtomicU64,
}

/// The status that is noted where a client left before there was one, as other servers have it.
const LEFT: u16 = 499;

impl Account {
    /// The account of the request that this task answers.
    pub fn current() -> Account {
        CURRENT.try_with(Account::clone).unwrap_or_default()
    }

    /// The account of a new request.
    pub(crate) fn open(
        guards: Arc<Guards>,
        id: String,
        method: String,
        path: String,
        route: String,
    ) -> Account {
        Account(Some(Arc::new(Entry {
            guards,
            id,
            method,
            path,
            route,
            client: None,
            start: Instant::now(),
            ended: OnceLock::new(),
            status: AtomicU16::new(0),
            is_whole: AtomicBool::new(false),
            key: OnceLock::new(),
            model: OnceLock::new(),
            denied: OnceLock::new(),
            reserved: AtomicU64::new(0),
            prompt_tokens: AtomicU64::new(0),
            written_tokens: AtomicU64::new(0),
        })))
    }

    /// The same, of a client at this address.
    pub(crate) fn from(mut self, client: Option<String>) -> Account {
        if let Some(entry) = self.0.as_mut().and_then(Arc::get_mut) {
            entry.client = client;
        }
        self
    }

    /// Runs a request's task, within which [`Account::current`] is this one.
    pub(crate) async fn around<T>(&self, task: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), task).await
    }

    /// Who pays.
    pub(crate) fn belongs_to(&self, key: &Arc<Key>) {
        self.with(|entry| _ = entry.key.set(key.clone()));
    }

    /// Which limit was passed.
    pub(crate) fn denied(&self, what: What) {
        self.with(|entry| _ = entry.denied.set(what));
    }

    /// The request is for this model, has prompts of so many tokens, and answers of at most so many. Says if the key's limit of
    /// tokens forbids it.
    pub fn expect(&self, model: &str, prompt_tokens: u64, max_tokens: u64) -> Result<(), ApiError> {
        let Some(entry) = &self.0 else { return Ok(()) };
        _ = entry.model.set(model.to_owned());
        if let Some(key) = entry.key.get() {
            let all = prompt_tokens.saturating_add(max_tokens);
            let taken = entry.guards.rates.reserve(key, all).map_err(|denied| {
                _ = entry.denied.set(denied.what);
                ApiError::from(denied)
            })?;
            entry.reserved.fetch_add(taken, Ordering::Relaxed);
        }
        entry.prompt_tokens.fetch_add(prompt_tokens, Ordering::Relaxed);
        Ok(())
    }

    /// A text was written, or as much of it as was wanted.
    pub fn wrote(&self, generation: &Generation) {
        self.wrote_tokens(generation.timings.tokens);
    }

    /// So many tokens were written.
    fn wrote_tokens(&self, tokens: usize) {
        self.with(|entry| _ = entry.written_tokens.fetch_add(tokens as u64, Ordering::Relaxed));
    }

    /// So many tokens of prompts were read, and so many written, of which [`Account::expect`] did not know: they are taken from
    /// the key's bucket at once, so that what is asked for meanwhile is refused.
    pub fn used(&self, read: usize, written: usize) {
        self.wrote_tokens(written);
        self.with(|entry| {
            entry.prompt_tokens.fetch_add(read as u64, Ordering::Relaxed);
            if let Some(key) = entry.key.get() {
                let used = (read + written) as u64;
                entry.guards.rates.settle(key, 0, used);
                entry.reserved.fetch_add(used, Ordering::Relaxed);
            }
        });
    }

    /// What was sent, for those who have asked to see it in the log.
    pub fn shows(&self, body: &[u8]) {
        if let Some(entry) = self.0.as_ref().filter(|entry| entry.guards.log_prompts) {
            tracing::info!(id = entry.id, body = &*String::from_utf8_lossy(body), "body");
        }
    }

    /// The answer has begun.
    pub(crate) fn answered(&self, status: u16) {
        self.with(|entry| entry.status.store(status, Ordering::Relaxed));
    }

    /// The answer is over, or its client has left.
    pub(crate) fn ended(&self, is_whole: bool) {
        self.with(|entry| {
            entry.is_whole.store(is_whole, Ordering::Relaxed);
            _ = entry.ended.set(entry.start.elapsed());
        });
    }

    fn with(&self, act: impl FnOnce(&Entry)) {
        if let Some(entry) = &self.0 {
            act(entry);
        }
    }
}

impl Entry {
    pub fn status(&self) -> u16 {
        match self.status.load(Ordering::Relaxed) {
            0 => LEFT,
            status => status,
        }
    }

    /// Whether the client left before the end.
    pub fn is_cancelled(&self) -> bool {
        !self.is_whole.load(Ordering::Relaxed)
    }

    /// How long the answer took.
    pub fn time(&self) -> Duration {
        self.ended.get().copied().unwrap_or_else(|| self.start.elapsed())
    }

    /// The key's name.
    pub fn key(&self) -> Option<&str> {
        self.key.get().map(|key| &*key.name)
    }

    pub fn model(&self) -> Option<&str> {
        self.model.get().map(|name| &**name)
    }

    /// The limit that was passed: the key's, or the queue's.
    pub fn denied(&self) -> Option<&'static str> {
        let queue = (self.status() == 429).then_some("queue");
        self.denied.get().map(|what| what.as_str()).or(queue)
    }

    /// Tokens of prompts, and tokens written.
    pub fn tokens(&self) -> (u64, u64) {
        (self.prompt_tokens.load(Ordering::Relaxed), self.written_tokens.load(Ordering::Relaxed))
    }
}

/// The account is closed.
impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(key) = self.key.get() {
            let (prompt, written) = self.tokens();
            self.guards.rates.settle(key, self.reserved.load(Ordering::Relaxed), prompt + written);
        }
        self.guards.metrics.count(self);
        crate::log::request(self);
    }
}
