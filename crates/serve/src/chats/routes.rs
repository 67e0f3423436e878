//! `/app/chats`: list, read, write and delete, each of the caller's own conversations alone.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::chat::{Chat, is_id};
use super::file::{Chats, Head, Refused};
use crate::app::Caller;
use crate::body::Json;
use crate::error::ApiError;
use crate::part::Part;
use crate::state::State;

/// The routes, which need a key where the server has keys.
pub fn routes() -> Router<State> {
    Router::new().route("/app/chats", get(list)).route("/app/chats/{id}", get(read).put(write).delete(remove))
}

/// What is written: the conversation, and the version that it follows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: i64,
    chat: Chat,
}

async fn list(Shared(state): Shared<State>, Caller(owner): Caller) -> Result<axum::Json<Value>, ApiError> {
    let chats = in_file(&state, move |file| file.list(&owner)).await?;
    Ok(axum::Json(json!({ "chats": chats })))
}

async fn read(
    Shared(state): Shared<State>,
    Caller(owner): Caller,
    Part(id): Part,
) -> Result<axum::Json<Value>, ApiError> {
    let (version, body) = in_file(&state, move |file| file.read(&owner, &id)).await?.ok_or_else(unknown)?;
    let chat = RawValue::from_string(body).map_err(|_| damaged())?;
    Ok(axum::Json(json!({ "version": version, "chat": chat })))
}

async fn write(
    Shared(state): Shared<State>,
    Caller(owner): Caller,
    Part(id): Part,
    Json(Written { version, chat }): Json<Written>,
) -> Result<axum::Json<Value>, ApiError> {
    if !is_id(&id) {
        return Err(ApiError::invalid(
            "id",
            "a conversation's number has 32 hexadecimal digits, in small letters",
        ));
    }
    if version < 0 {
        return Err(ApiError::invalid("version", "`version` is below 0; a new conversation has 0"));
    }
    chat.check(&id)?;
    let body = serde_json::to_string(&chat).map_err(|error| ApiError::internal(error.to_string()))?;
    let head = Head { id, version, title: chat.title, updated: chat.updated };
    let written = in_file(&state, move |file| file.write(&owner, &head, &body)).await?;
    match written {
        Ok(version) => Ok(axum::Json(json!({ "version": version }))),
        Err(Refused::Changed) => {
            let message = "the conversation was changed or deleted since; keep this one under another number";
            Err(ApiError::new(StatusCode::CONFLICT, "invalid_request_error", message)
                .param("version")
                .code("changed"))
        }
        Err(Refused::Full) => {
            let message = "the history is full; delete conversations that are not needed any more";
            let status = StatusCode::INSUFFICIENT_STORAGE;
            Err(ApiError::new(status, "invalid_request_error", message).code("history_full"))
        }
    }
}

async fn remove(
    Shared(state): Shared<State>,
    Caller(owner): Caller,
    Part(id): Part,
) -> Result<StatusCode, ApiError> {
    let was_there = in_file(&state, move |file| file.remove(&owner, &id)).await?;
    if was_there { Ok(StatusCode::NO_CONTENT) } else { Err(unknown()) }
}

/// Works in the file, beside the threads that read and write HTTP.
async fn in_file<T: Send + 'static>(
    state: &State,
    work: impl FnOnce(&Chats) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    let Some(file) = state.app().chats.clone() else {
        let message = "this server keeps no history; start it with --history FILE";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message).code("no_history"));
    };
    let file: Arc<Chats> = file;
    let done = tokio::task::spawn_blocking(move || work(&file)).await;
    let done = done.map_err(|_| ApiError::internal("the server met a fault of its own in the history"))?;
    // What SQLite says may name the file's path, which is not the client's business.
    done.map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => ApiError::internal("the disk is full; nothing was written"),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            ApiError::unavailable("another process holds the history; try again soon", "history_busy", 1)
        }
        _ => damaged(),
    })
}

fn unknown() -> ApiError {
    let message = "there is no such conversation";
    ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message).param("id").code("not_found")
}

fn damaged() -> ApiError {
    ApiError::internal("the history cannot be read or written; the server's log says why")
}
