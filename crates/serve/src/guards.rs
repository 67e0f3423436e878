//! What stands around the routes: who may come in, how often, from where, and what is written down about it.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::cors::Origins;
use crate::error::ApiError;
use crate::hosts::{self, Hosts};
use crate::keys::{self, KeyRing};
use crate::metrics::Metrics;
use crate::rate::Rates;
use crate::state::State;
use crate::tls::Tls;
use crate::{headers, log};

/// The guards of a server. By default nobody is kept out.
#[derive(Debug, Default)]
pub struct Guards {
    /// Who may come in; without keys, everyone.
    pub keys: Option<KeyRing>,
    /// How much of their limits the keys have used.
    pub rates: Rates,
    /// Under which names the server may be asked.
    pub hosts: Hosts,
    /// Which pages may ask it.
    pub origins: Origins,
    /// How connections are hidden from others.
    pub tls: Option<Tls>,
    /// Whether `/metrics` needs no key.
    pub metrics_open: bool,
    /// Whether the log shows what is sent.
    pub log_prompts: bool,
    /// What is counted.
    pub metrics: Metrics,
}

impl Guards {
    /// Reads keys and certificates again. What is wrong is told, and leaves what there was.
    pub fn reload(&self) {
        if let Some(keys) = &self.keys {
            match keys.reload() {
                Ok(keys) => tracing::info!(keys, "read the keys again"),
                Err(error) => tracing::error!("the keys stay as they were: {}", chain(&error)),
            }
        }
        if let Some(tls) = &self.tls {
            match tls.reload() {
                Ok(()) => tracing::info!("read the certificate again"),
                Err(error) => tracing::error!("the certificate stays as it was: {}", chain(&error)),
            }
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Puts the guards around routes: `inner` needs a key, `open` does not. The first layer that is named is the innermost.
pub(crate) fn around(
    guards: &Arc<Guards>,
    state: &State,
    inner: Router<State>,
    open: Router<State>,
    others: impl FnOnce(Router<State>) -> Router<State>,
) -> Router {
    let metrics = Router::new().route("/metrics", get(show(guards.clone(), state.clone())));
    let (inner, open) = match guards.metrics_open {
        true => (inner, open.merge(metrics)),
        false => (inner.merge(metrics), open),
    };
    let inner = inner.route_layer(from_fn_with_state(guards.clone(), keys::require));
    let all = others(inner.merge(open)).with_state(state.clone());
    let all = match guards.origins.layer() {
        Some(layer) => all.layer(layer),
        None => all,
    };
    all.layer(from_fn(whole))
        .layer(from_fn_with_state(guards.clone(), hosts::check))
        .layer(from_fn_with_state(guards.clone(), headers::add))
        .layer(from_fn_with_state(guards.clone(), log::open))
}

/// Answers `/metrics`.
fn show(
    guards: Arc<Guards>,
    state: State,
) -> impl Fn(HeaderMap) -> std::future::Ready<Response> + Clone + Send + Sync + 'static {
    move |headers| {
        let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let (kind, text) = guards.metrics.text(&state, accepts.unwrap_or_default());
        std::future::ready(([(header::CONTENT_TYPE, kind)], text).into_response())
    }
}

/// A fault of ours is a 500, and the connection lives on.
async fn whole(request: Request, next: Next) -> Response {
    let mut answer = Box::pin(next.run(request));
    poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
        Ok(poll) => poll,
        Err(_) => {
            let error = ApiError::internal("the server met a fault of its own; it goes on");
            Poll::Ready(error.into_response())
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn faulty() -> &'static str {
        panic!("a fault that a test asks for")
    }

    #[test]
    fn a_fault_in_a_handler_is_an_answer() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let app = Router::new().route("/", get(faulty)).layer(from_fn(whole));
        let request = Request::builder().uri("/").body(Body::empty()).unwrap();
        let answer = runtime.block_on(app.oneshot(request)).unwrap();
        assert_eq!(answer.status().as_u16(), 500);
    }
}
