//! What all requests share: settings, the models once they are loaded, and whether the server takes requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::app::App;
use crate::conductor::Conductor;
use crate::error::ApiError;
use crate::served::Served;

/// What the server may use.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Texts of a model that are written at once.
    pub batch: usize,
    /// Bytes for keys and values, of all models together.
    pub kv_bytes: u64,
    /// Texts of a model that may wait for their turn; more are refused.
    pub queue: usize,
    /// Tokens that a request may ask for; without a limit, what the context holds.
    pub max_tokens: Option<usize>,
    /// How long a request may take, from when it is taken until it is written.
    pub request_timeout: Duration,
    /// Bytes of a request's body.
    pub body_limit: usize,
    /// How long running requests may go on once the server is to end.
    pub drain: Duration,
    /// Connections that may be open.
    pub connections: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            batch: 32,
            kv_bytes: 1 << 30,
            queue: 256,
            max_tokens: None,
            request_timeout: Duration::from_secs(600),
            body_limit: 4 << 20,
            drain: Duration::from_secs(30),
            connections: 1024,
        }
    }
}

/// Where the server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Models are being loaded and warmed up.
    Loading,
    /// Requests are taken.
    Ready,
    /// Running requests are ended, and no others taken.
    Draining,
}

/// What all requests share. Cloning shares it.
#[derive(Clone, Debug)]
pub struct State(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    app: App,
    loaded: OnceLock<Loaded>,
    phase: watch::Sender<Phase>,
    /// Requests that are being answered.
    working: AtomicUsize,
    idle: Notify,
}

#[derive(Debug)]
struct Loaded {
    models: Vec<Arc<Served>>,
    conductor: Conductor,
}

impl State {
    /// A server without models, which is loading.
    pub fn new(settings: Settings) -> State {
        State::with_app(settings, App::default())
    }

    /// The same, with this page, history and recipes.
    pub fn with_app(settings: Settings, app: App) -> State {
        let (phase, _) = watch::channel(Phase::Loading);
        let (loaded, working, idle) = (OnceLock::new(), AtomicUsize::new(0), Notify::new());
        State(Arc::new(Inner { settings, app, loaded, phase, working, idle }))
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The page's part.
    pub fn app(&self) -> &App {
        &self.0.app
    }

    /// Takes the models, which are warm, and requests from now on.
    pub fn ready(&self, models: Vec<Arc<Served>>, conductor: Conductor) {
        if self.0.loaded.set(Loaded { models, conductor }).is_ok() {
            self.0.phase.send_if_modified(|phase| {
                let is_loading = *phase == Phase::Loading;
                if is_loading {
                    *phase = Phase::Ready;
                }
                is_loading
            });
        }
    }

    /// Where the server stands.
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Takes no requests any more. May be called from any thread.
    pub fn drain(&self) {
        self.0.phase.send_replace(Phase::Draining);
    }

    /// Waits until [`State::drain`] was called.
    pub async fn draining(&self) {
        let mut phase = self.0.phase.subscribe();
        _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
    }

    /// Waits until no request is being answered.
    pub async fn idle(&self) {
        loop {
            let idle = self.0.idle.notified();
            if self.0.working.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Requests that are being answered.
    pub fn working(&self) -> usize {
        self.0.working.load(Ordering::SeqCst)
    }

    /// Begins to answer a request; it lasts until what is returned is dropped.
    pub fn begin(&self) -> Result<Work, ApiError> {
        // Counted first: whoever drains sees it, or it sees that it comes too late.
        self.0.working.fetch_add(1, Ordering::SeqCst);
        let work = Work(self.clone());
        match self.phase() {
            Phase::Ready => Ok(work),
            Phase::Loading => {
                Err(ApiError::unavailable("the models are still being loaded; try again soon", "loading", 1))
            }
            Phase::Draining => Err(ApiError::unavailable(
                "the server is going down; try again at another or later",
                "shutting_down",
                10,
            )),
        }
    }

    /// The models, in the order in which they were named; none while they are loaded.
    pub fn models(&self) -> &[Arc<Served>] {
        self.0.loaded.get().map_or(&[], |loaded| &loaded.models)
    }

    /// The model of this name.
    pub fn model(&self, name: &str) -> Result<&Arc<Served>, ApiError> {
        let found = self.models().iter().find(|served| served.name() == name);
        found.ok_or_else(|| {
            let known: Vec<_> = self.models().iter().map(|served| format!("`{}`", served.name())).collect();
            ApiError::no_model(name, &known.join(", "))
        })
    }

    /// The model of this name, or the only one.
    pub fn model_or_only(&self, name: Option<&str>) -> Result<&Arc<Served>, ApiError> {
        match (name, self.models()) {
            (Some(name), _) => self.model(name),
            (None, [only]) => Ok(only),
            (None, _) => {
                Err(ApiError::invalid("model", "`model` is missing, and several models are served here"))
            }
        }
    }

    /// Who runs the models, once they are loaded.
    pub fn conductor(&self) -> Option<&Conductor> {
        self.0.loaded.get().map(|loaded| &loaded.conductor)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Work(State);

impl Drop for Work {
    fn drop(&mut self) {
        let Inner { working, idle, .. } = &*self.0.0;
        if working.fetch_sub(1, Ordering::SeqCst) == 1 {
            idle.notify_waiters();
        }
    }
}
