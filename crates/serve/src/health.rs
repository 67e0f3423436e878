//! `GET /health`: whether requests are taken.

use axum::Json;
use axum::extract;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::conductor::Conductor;
use crate::state::{Phase, State};

/// 200 once the models are warm, and 503 before, and again from when the server is to end.
pub(crate) async fn health(extract::State(state): extract::State<State>) -> (StatusCode, Json<Value>) {
    let is_alive = state.conductor().is_none_or(Conductor::is_alive);
    let (status, name) = match state.phase() {
        Phase::Ready if !is_alive => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
        Phase::Ready => (StatusCode::OK, "ok"),
        Phase::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    (status, Json(json!({ "status": name })))
}
