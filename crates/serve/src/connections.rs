//! Connections: how many, how long they may be silent, and how they end.

mod patient;

use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::error::ApiError;
use patient::Patient;

/// How long a client may take to send the head of a request, or to send another one.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a client may take nothing of what is sent to it.
const STALL: Duration = Duration::from_secs(300);
/// How long to wait before the next try where the system has no more sockets.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until this is dropped; `graceful` watches over all of them.
pub(crate) async fn accept(listener: TcpListener, app: Router, most: usize, graceful: &GracefulShutdown) {
    let places = Arc::new(Semaphore::new(most));
    loop {
        // Where all places are taken, clients wait in the system's queue.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        _ = stream.set_nodelay(true); // a piece of text is sent as it comes
        let app = app.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            whole(app.clone().oneshot(request.map(Body::new)))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(SILENCE)
            .serve_connection(TokioIo::new(Patient::new(stream, STALL)), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            _ = connection.await; // a connection that breaks is the client's affair
            drop(place);
        });
    }
}

/// An answer, whatever happens on the way to it: a fault of ours is a 500, and the connection lives on.
async fn whole(answer: impl Future<Output = Result<Response, Infallible>>) -> Result<Response, Infallible> {
    let mut answer = Box::pin(answer);
    poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
        Ok(poll) => poll,
        Err(_) => {
            let error = ApiError::internal("the server met a fault of its own; it goes on");
            Poll::Ready(Ok(error.into_response()))
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_in_a_handler_is_an_answer() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answer = runtime.block_on(whole(async { panic!("a fault that a test asks for") }));
        assert_eq!(answer.unwrap().status().as_u16(), 500);
    }
}
