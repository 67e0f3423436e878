//! Connections: how many, how long they may be silent, and how they end.

mod patient;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::guards::Guards;
use crate::tls::Tls;
use patient::Patient;

/// How long a client may take to send the head of a request, or to send another one.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a client may take to agree on TLS.
const GREETING: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what is sent to it.
const STALL: Duration = Duration::from_secs(300);
/// How long to wait before the next try where the system has no more sockets.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until this is dropped; `graceful` watches over all of them.
pub(crate) async fn accept(
    listener: TcpListener,
    app: Router,
    guards: Arc<Guards>,
    most: usize,
    graceful: &GracefulShutdown,
) {
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
        let (app, watcher) = (app.clone(), graceful.watcher());
        let (stream, acceptor) = (Patient::new(stream, STALL), guards.tls.as_ref().map(Tls::acceptor));
        tokio::spawn(async move {
            match acceptor {
                None => answer(stream, peer, app, watcher).await,
                Some(acceptor) => {
                    let greeted = tokio::time::timeout(GREETING, acceptor.accept(stream)).await;
                    if let Ok(Ok(stream)) = greeted {
                        answer(stream, peer, app, watcher).await;
                    }
                }
            }
            drop(place);
        });
    }
}

/// Answers the requests of a connection.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    app: Router,
    watcher: Watcher,
) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = app.clone().oneshot(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE)
        .serve_connection(TokioIo::new(stream), service);
    _ = watcher.watch(connection).await; // a connection that breaks is the client's affair
}
