//! The life of a server: it listens, loads its models, answers, and ends in good order.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use generate::GenerateError;
use hyper_util::server::graceful::GracefulShutdown;
use thiserror::Error;

use crate::conductor::Conductor;
use crate::connections;
use crate::guards::Guards;
use crate::router::router;
use crate::served::Served;
use crate::state::State;

/// Threads that read and write HTTP. The models' own threads have the work.
const THREADS: usize = 2;
/// Threads that cut texts into tokens and compile schemas, which take processors from the models.
const ASIDE: usize = 4;
/// How long the last bytes of answers may take, once all are written.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// Why a server ended early.
#[derive(Debug, Error)]
pub enum ServeError<E> {
    /// The models could not be loaded.
    #[error(transparent)]
    Load(E),
    /// A model cannot be run.
    #[error("the models were loaded, but cannot be run")]
    Start(#[from] GenerateError),
    /// The system has no threads or sockets for it.
    #[error("the system refuses what a server needs")]
    System(#[from] std::io::Error),
}

/// Serves on this listener until [`State::drain`] is called, and until what runs then has ended.
///
/// `load` gives the models, while the server answers already that it is loading; `ready` is called when they are warm. Gives
/// the number of requests that had to be dropped at the end.
pub fn run<E: Send + 'static>(
    listener: TcpListener,
    state: State,
    guards: Arc<Guards>,
    load: impl FnOnce() -> Result<Vec<Served>, E> + Send + 'static,
    ready: impl FnOnce(&State) + Send + 'static,
) -> Result<usize, ServeError<E>> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder
        .worker_threads(THREADS)
        .max_blocking_threads(ASIDE)
        .thread_name("http")
        .enable_all()
        .build()?;
    listener.set_nonblocking(true)?;
    let dropped = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let graceful = GracefulShutdown::new();
        let most = state.settings().connections;
        let app = router(state.clone(), &guards);
        let accepting = connections::accept(listener, app, guards, most, &graceful);
        let own = state.clone();
        let starting = tokio::task::spawn_blocking(move || start(&own, load, ready));
        let living = async {
            let started = tokio::select! {
                started = starting => started,
                () = state.draining() => return Ok::<usize, ServeError<E>>(0),
            };
            match started {
                Ok(started) => started?,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
            state.draining().await;
            // Connections are still taken: whoever asks is told that the server goes down.
            let is_idle = tokio::time::timeout(state.settings().drain, state.idle()).await.is_ok();
            let dropped = if is_idle { 0 } else { state.working() };
            if let Some(conductor) = state.conductor() {
                conductor.stop();
            }
            Ok(dropped)
        };
        let dropped = tokio::select! {
            () = accepting => 0,
            ended = living => ended?,
        };
        _ = tokio::time::timeout(LAST_BYTES, graceful.shutdown()).await;
        Ok(dropped)
    });
    // Whatever still compiles a schema or reads a body is not waited for.
    runtime.shutdown_background();
    dropped
}

fn start<E>(
    state: &State,
    load: impl FnOnce() -> Result<Vec<Served>, E>,
    ready: impl FnOnce(&State),
) -> Result<(), ServeError<E>> {
    let models: Vec<Arc<Served>> = load().map_err(ServeError::Load)?.into_iter().map(Arc::new).collect();
    let (conductor, _) = Conductor::start(models.clone(), state.settings())?;
    state.ready(models, conductor);
    ready(state);
    Ok(())
}

#[cfg(test)]
mod tests;
