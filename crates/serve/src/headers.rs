//! Headers that tell browsers to be careful with an answer. The page has stricter ones of its own, which are left alone.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use crate::guards::Guards;

/// For answers that are no page: nothing in them may be loaded or run, wherever they are opened.
const POLICY: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox";

/// Adds the headers that an answer does not have yet.
pub(crate) async fn add(State(guards): State<Arc<Guards>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let fixed = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        // Answers are somebody's texts.
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fixed {
        set(headers, name, HeaderValue::from_static(value));
    }
    set(headers, HeaderName::from_static("cross-origin-resource-policy"), guards.origins.policy());
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    headers.entry(name).or_insert(value);
}
