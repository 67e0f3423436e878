//! The desks of the page: documents by recipes and summaries, on a thread of their own, one after the other.
//!
//! A desk's engine lives as long as its job, so that an idle desk holds no memory, and a job that nobody waits for any more is
//! dropped with it, before its next step. Few may wait; more are refused with 429.

mod events;
pub mod summarize;
pub mod write;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::{get, post};
use serde_json::json;

use crate::account::Account;
use crate::conductor::Failure;
use crate::error::ApiError;
use crate::openai::choices::random;
use crate::served::Served;
use crate::state::State;
pub use events::{Receipt, Teller};

/// Jobs that may wait.
const MOST_WAITING: usize = 8;
/// Seconds after which a place may be free.
const PATIENCE: u64 = 20;

/// The routes of the desks, which need a key where the server has keys.
pub fn routes() -> Router<State> {
    Router::new()
        .route("/app/recipes", get(write::recipes))
        .route("/app/write", post(write::write))
        .route("/app/summarize", post(summarize::summarize))
}

/// What a job does: it tells what comes, and looks before each step whether it is to go on.
type Work = Box<dyn FnOnce(&Served, &Teller) -> Result<(), ApiError> + Send>;

/// A job that waits.
struct Job {
    served: Arc<Served>,
    work: Work,
    teller: Teller,
}

/// The jobs, shared with the thread.
#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    more: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    is_running: bool,
    is_over: bool,
    has_thread: bool,
}

/// Where jobs are handed in. Dropping it ends the thread, and the job that runs.
#[derive(Default)]
pub struct Desk(Arc<Queue>);

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Desk({} waiting)", self.0.lock().waiting.len())
    }
}

impl Desk {
    /// Takes a job, or says that too many wait. `limit` is how long it may take, waiting included.
    pub fn submit(
        &self,
        served: Arc<Served>,
        limit: Duration,
        work: impl FnOnce(&Served, &Teller) -> Result<(), ApiError> + Send + 'static,
    ) -> Result<Receipt, ApiError> {
        // What it takes is known when it is done: to begin, the key must have a token left.
        let account = Account::current();
        account.expect(served.name(), 0, 1)?;
        let mut jobs = self.0.lock();
        jobs.waiting.retain(|job| !job.teller.is_left());
        if jobs.waiting.len() >= MOST_WAITING {
            let message = format!("{MOST_WAITING} documents wait at the desk already; try again later");
            return Err(ApiError::busy(message, PATIENCE));
        }
        if !jobs.has_thread {
            let queue = self.0.clone();
            let thread = std::thread::Builder::new().name("desk".into()).spawn(move || queue.run());
            thread.map_err(|_| ApiError::internal("the system has no thread for the desk"))?;
            jobs.has_thread = true;
        }
        let (teller, receipt) =
            events::channel(Instant::now().checked_add(limit).map(|at| (at, limit)), account);
        let ahead = jobs.waiting.len() + usize::from(jobs.is_running);
        if ahead > 0 {
            teller.tell(&json!({ "type": "waiting", "ahead": ahead }));
        }
        jobs.waiting.push_back(Job { served, work: Box::new(work), teller });
        drop(jobs);
        self.0.more.notify_one();
        Ok(receipt)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let mut jobs = self.0.lock();
        jobs.is_over = true;
        jobs.waiting.clear();
        drop(jobs);
        self.0.more.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        // A panic leaves no half-made list behind.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: one job after the other.
    fn run(&self) {
        while let Some(Job { served, work, teller }) = self.next() {
            // What a job holds is its own, so that nothing half-made outlives a panic.
            let ended = catch_unwind(AssertUnwindSafe(|| {
                teller.goes_on()?;
                work(&served, &teller)
            }));
            match ended.unwrap_or(Err(Failure::Panicked.into())) {
                Ok(()) => teller.end(),
                Err(error) => teller.fail(&error),
            }
        }
    }

    /// The next job, once there is one; none when the desk is gone.
    fn next(&self) -> Option<Job> {
        let mut jobs = self.lock();
        jobs.is_running = false;
        loop {
            if jobs.is_over {
                return None;
            }
            if let Some(job) = jobs.waiting.pop_front() {
                jobs.is_running = true;
                return Some(job);
            }
            jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A seed where none was given: whole in JavaScript's numbers, too.
fn random_seed() -> u64 {
    random() >> 11
}

#[cfg(test)]
mod tests;
