//! The web page at `/`: plain HTML, CSS and modules of JavaScript, inside the binary. Nothing of it comes from elsewhere, and
//! its policy lets nothing come: no inline script or style, no other origin, and no text that is read as markup.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::error::ApiError;
use crate::part::Part;
use crate::state::State;

/// What the browser may do on the page. Trusted types forbid the functions that make elements from text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the page.
struct File {
    name: &'static str,
    bytes: &'static [u8],
}

/// Files by name, from the folder beside the source.
macro_rules! files {
    ($($name:literal)*) => { &[$(File { name: $name, bytes: include_bytes!(concat!("../page/", $name)) }),*] };
}

static FILES: &[File] = files! {
    "index.html" "icon.svg" "base.css" "chat.css" "desks.css" "theme.js" "api.js" "chat.js" "chatlist.js" "dialogs.js" "dom.js"
    "main.js" "message.js" "prefs.js" "reader.js" "score.js" "settings.js" "sse.js" "state.js" "store.js" "summary.js" "tokens.js"
    "tree.js" "words.js" "write.js"
};

/// The page's routes, which need no key: there is nothing secret in them.
pub fn routes() -> Router<State> {
    Router::new().route("/", get(index)).route("/page/{name}", get(file))
}

async fn index(headers: HeaderMap) -> Response {
    respond("index.html", &headers)
}

async fn file(Part(name): Part, headers: HeaderMap) -> Response {
    respond(&name, &headers)
}

/// A file, or that the browser's copy is still good.
fn respond(name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        return ApiError::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            format!("the page has no file {name}"),
        )
        .code("unknown_url")
        .into_response();
    };
    let tag = tag(file.bytes);
    let head = [
        (header::CONTENT_TYPE, kind(name)),
        (header::CACHE_CONTROL, "no-cache"), // asked for each time: another version may be running
        (header::ETAG, &*tag),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    if is_known {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (head, file.bytes).into_response()
}

fn tag(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in the folder is in the binary, and each module that is imported is there.
    #[test]
    fn all_files_are_along() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(FILES.iter().any(|file| file.name == name), "{name} is not in FILES");
        }
        for file in FILES.iter().filter(|file| file.name.ends_with(".js")) {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for part in text.split(" from \"./").skip(1) {
                let module = part.split('"').next().unwrap();
                assert!(FILES.iter().any(|file| file.name == module), "{}: {module}", file.name);
            }
        }
    }

    /// Markup is never made from text, nothing is inline, and no other place is named.
    #[test]
    fn nothing_is_made_from_markup() {
        for file in FILES {
            let text = std::str::from_utf8(file.bytes).unwrap();
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "http:",
                "https:",
                "//cdn",
            ] {
                assert!(!text.contains(word), "{} says {word}", file.name);
            }
        }
        let index = std::str::from_utf8(FILES[0].bytes).unwrap();
        assert!(!index.contains(" style=") && !index.contains("<style") && !index.contains(" on"), "{index}");
        assert!(index.matches("<script").count() == index.matches("<script src=").count());
    }
}
