//! A request's body: JSON of a limited size, read in a limited time, whose errors name the field.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use crate::account::Account;
use crate::error::ApiError;
use crate::state::State;

/// How long a client may take to send a body.
const PATIENCE: Duration = Duration::from_secs(60);

/// A body of JSON.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<State> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &State) -> Result<Json<T>, ApiError> {
        // What a page of another origin can send without asking is no JSON by its type.
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(is_json) {
            let message = "the body must be JSON: send it with the header `Content-Type: application/json`";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(ApiError::new(status, "invalid_request_error", message));
        }
        let limit = state.settings().body_limit;
        let told = request.headers().get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse().ok());
        if told.is_some_and(|bytes: u64| bytes > limit as u64) {
            return Err(too_large(limit));
        }
        let bytes = match tokio::time::timeout(PATIENCE, to_bytes(request.into_body(), limit)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) if is_limit(&error) => return Err(too_large(limit)),
            Ok(Err(_)) => return Err(ApiError::bad("the body broke off before its end")),
            Err(_) => {
                let message = format!("the body did not come within {} s", PATIENCE.as_secs());
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message));
            }
        };
        Account::current().shows(&bytes);
        parse(&bytes).map(Json)
    }
}

/// Reads a value, and says which field is wrong.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let (path, inner) = (error.path().to_string(), error.inner());
        if inner.is_data() && path != "." {
            // Where in the text it stands says less than the field's name.
            let reason = inner.to_string();
            let reason = reason.rsplit_once(" at line ").map_or(&*reason, |(reason, _)| reason);
            ApiError::invalid(&path, format!("`{path}`: {reason}"))
        } else if inner.is_data() {
            ApiError::bad(format!("the body is not what is asked for: {inner}"))
        } else {
            ApiError::bad(format!("the body is not JSON: {inner}"))
        }
    })?;
    reader.end().map_err(|error| ApiError::bad(format!("the body is not JSON: {error}")))?;
    Ok(value)
}

fn is_json(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn is_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("length limit") {
            return true;
        }
        cause = error.source();
    }
    false
}

fn too_large(limit: usize) -> ApiError {
    let message = format!("the body has more than {limit} bytes, the most that this server reads");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
}
