//! What is written down: one line a request, as text or JSON, on standard error.
//!
//! A line has no text of anybody's, only numbers and names; `--log-prompts` shows what was sent, too. Each request has an id:
//! the client's `x-request-id`, if it is one, or a new one, which is also in the answer.

mod writer;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tracing::Level;

use crate::account::{Account, Entry};
use crate::guards::Guards;
use crate::openai::new_id;
pub use writer::{Flush, Lines};

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// From now on, lines of this level and above are written. What is returned is to be kept until the end of the process, so that
/// the last lines are not lost. Faults are written as lines, too; what a fault says may hold somebody's text, so that it
/// only says where it was, unless `log_prompts` asks for all.
pub fn init(format: Format, level: Level, log_prompts: bool) -> std::io::Result<Flush> {
    let (lines, flush) = Lines::to(std::io::stderr())?;
    let builder = tracing_subscriber::fmt().with_writer(lines).with_max_level(level).with_target(false);
    // Another one that is there already stays: only tests have one.
    _ = match format {
        Format::Text => builder.with_ansi(false).try_init(),
        Format::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        }
    };
    std::panic::set_hook(Box::new(move |fault| {
        let place = fault.location().map(ToString::to_string).unwrap_or_default();
        let what =
            fault.payload_as_str().filter(|_| log_prompts).unwrap_or("not shown without --log-prompts");
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(place, thread, what, "a fault of the server's own");
    }));
    Ok(flush)
}

const ID: HeaderName = HeaderName::from_static("x-request-id");

/// Opens a request's account.
pub(crate) async fn open(State(guards): State<Arc<Guards>>, mut request: Request, next: Next) -> Response {
    let id = id(request.headers()).unwrap_or_else(|| format!("req-{}", new_id()));
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let (method, path) = (request.method().as_str().to_owned(), request.uri().path().to_owned());
    let client =
        request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(at)| at.ip().to_string());
    let account = Account::open(guards, id.clone(), method, path, route).from(client);
    request.extensions_mut().insert(account.clone());
    let mut response = account.around(next.run(request)).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(ID, value);
    }
    account.answered(response.status().as_u16());
    response.map(|body| Body::new(Watched { body, account, is_whole: false }))
}

/// The id that a client gave, if it can be put in a line.
fn id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(&ID)?.to_str().ok()?;
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    ((1..=128).contains(&id.len()) && id.chars().all(is_fine)).then(|| id.to_owned())
}

/// A body that tells its request's account when it is over.
struct Watched {
    body: Body,
    account: Account,
    is_whole: bool,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.is_whole |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.account.ended(self.is_whole || http_body::Body::is_end_stream(&self.body));
    }
}

/// Writes a request's line.
pub(crate) fn request(entry: &Entry) {
    let ms = (entry.time().as_secs_f64() * 1e5).round() / 1e2;
    let (prompt_tokens, tokens) = entry.tokens();
    // What is not known is left out; where nothing was computed, there are no tokens.
    let model = entry.model();
    let (prompt_tokens, tokens) = (model.map(|_| prompt_tokens), model.map(|_| tokens));
    let cancelled = entry.is_cancelled().then_some(true);
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                $level,
                id = entry.id,
                method = entry.method,
                path = entry.path,
                status = entry.status(),
                ms,
                model,
                prompt_tokens,
                tokens,
                key = entry.key(),
                client = entry.client,
                cancelled,
                limit = entry.denied(),
                "request"
            )
        };
    }
    match entry.status() {
        // Probes come every few seconds.
        200 if matches!(&*entry.route, "/health" | "/metrics") => line!(Level::DEBUG),
        500 => line!(Level::ERROR),
        _ => line!(Level::INFO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_can_be_put_in_a_line() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ID, HeaderValue::from_static(text));
            id(&headers)
        };
        assert_eq!(of("9f-A_1.b:c"), Some("9f-A_1.b:c".into()));
        for wrong in ["", "a b", "a\"b", "a,b", "{}"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(id(&headers), None);
        headers.insert(ID, HeaderValue::from_str(&"x".repeat(129)).unwrap());
        assert_eq!(id(&headers), None);
    }
}
