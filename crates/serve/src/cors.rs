//! Pages of other origins that may ask this server: none, unless they were named.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use thiserror::Error;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// The origins that were named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    names: Vec<String>,
}

/// A text that names no origin.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is no origin; give one such as https://app.example or http://localhost:3000, without a path, or * for all"
)]
pub struct NoOrigin(String);

/// How long a browser may remember what it was told.
const MEMORY: Duration = Duration::from_secs(600);

impl Origins {
    /// Reads origins, such as `https://app.example`; `*` is all of them.
    pub fn of(names: &[String]) -> Result<Origins, NoOrigin> {
        let one = |name: &String| {
            let small = name.to_ascii_lowercase();
            let rest = small.strip_prefix("https://").or_else(|| small.strip_prefix("http://"));
            let is_host = |rest: &str| {
                !rest.is_empty() && rest.parse::<axum::http::uri::Authority>().is_ok() && !rest.contains('@')
            };
            if small == "*" || rest.is_some_and(is_host) { Ok(small) } else { Err(NoOrigin(name.clone())) }
        };
        Ok(Origins { names: names.iter().map(one).collect::<Result<_, _>>()? })
    }

    /// Whether pages of this origin may ask.
    pub fn allow(&self, origin: &str) -> bool {
        self.names.iter().any(|name| name == "*" || *name == origin)
    }

    /// The layer that tells browsers so; none where nobody was named.
    pub(crate) fn layer(&self) -> Option<CorsLayer> {
        if self.names.is_empty() {
            return None;
        }
        let own = self.clone();
        let allow =
            AllowOrigin::predicate(move |origin, _| origin.to_str().is_ok_and(|origin| own.allow(origin)));
        let shown = ["x-request-id", "x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens"];
        let shown = shown.map(HeaderName::from_static).into_iter().chain([header::RETRY_AFTER]);
        let layer = CorsLayer::new().allow_methods([Method::GET, Method::POST]).max_age(MEMORY);
        // Keys come in a header that scripts must set, never in cookies: any header may come, and no credentials.
        Some(
            layer
                .allow_origin(allow)
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers(shown.collect::<Vec<_>>()),
        )
    }

    /// What other origins may do with answers.
    pub(crate) fn policy(&self) -> HeaderValue {
        HeaderValue::from_static(if self.names.is_empty() { "same-origin" } else { "cross-origin" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        let all = ["https://App.example".to_owned(), "http://localhost:3000".to_owned()];
        let origins = Origins::of(&all).unwrap();
        assert!(origins.allow("https://app.example") && origins.allow("http://localhost:3000"));
        assert!(!origins.allow("https://app.example.evil.example") && !origins.allow("http://app.example"));
        assert!(!origins.allow("null") && Origins::of(&["*".to_owned()]).unwrap().allow("null"));
        assert!(Origins::default().layer().is_none() && origins.layer().is_some());
        for wrong in [
            "",
            "app.example",
            "https://",
            "https://a.example/path",
            "ftp://a.example",
            "https://u@a.example",
            "null",
        ] {
            assert_eq!(Origins::of(&[wrong.to_owned()]), Err(NoOrigin(wrong.to_owned())));
        }
    }
}
