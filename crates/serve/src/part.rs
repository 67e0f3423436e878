//! The part of a route's path that a request fills in, such as a model's name.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::error::ApiError;
use crate::state::State;

/// The one part that a route leaves open.
#[derive(Debug)]
pub struct Part(pub String);

impl FromRequestParts<State> for Part {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Part, ApiError> {
        let text = Path::from_request_parts(parts, state).await;
        text.map(|Path(text)| Part(text)).map_err(|error| ApiError::bad(error.body_text()))
    }
}
