//! All routes, and the layers around them.

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post};

use crate::app;
use crate::error::ApiError;
use crate::guards::{self, Guards};
use crate::openai::{chat, completions, embeddings, models};
use crate::state::State;
use crate::{health, openapi, tokens};

/// The routes of a server.
pub fn router(state: State, guards: &Arc<Guards>) -> Router {
    let openai = Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/completions", post(completions::create))
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/embeddings", post(embeddings::create))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize));
    // Routes that need a key are merged above this line.
    let open =
        Router::new().route("/health", get(health::health)).route("/openapi.json", get(openapi::openapi));
    let (openai, open) = match state.app().page {
        true => (openai.merge(app::routes()), open.merge(app::open_routes())),
        false => (openai, open),
    };
    guards::around(guards, &state, openai, open, |all| {
        all.fallback(unknown).method_not_allowed_fallback(not_so)
    })
}

/// A route that is none.
async fn unknown(uri: Uri) -> ApiError {
    let message = format!("there is no route {}; /openapi.json lists those that there are", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message).code("unknown_url")
}

/// A method that a route does not have.
async fn not_so(method: Method, uri: Uri) -> ApiError {
    let message = format!("the route {} cannot be asked with {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
}
