//! Server-sent events: what a step brings is sent in one go, and what a slow client has not taken waits for it here.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use generate::Generation;
use http_body::Frame;
use serde::Serialize;

use super::Usage;
use crate::conductor::{Receipt, Update};
use crate::error::ApiError;
use crate::state::Work;

/// Writes the events of one kind of answer.
pub trait Writer: Send + Unpin + 'static {
    /// A piece of a text.
    fn piece(&mut self, text: usize, piece: String, tokens: Vec<generate::TokenLogprobs>, out: &mut Events);
    /// The end of a text.
    fn done(&mut self, text: usize, generation: &Generation, out: &mut Events);
}

/// Events that are being written: each has the same head, then its choice.
#[derive(Debug)]
pub struct Events {
    bytes: Vec<u8>,
    /// `{"id": …` up to the choices.
    head: Vec<u8>,
    /// Whether each event has a field `usage`, which is null but in the last.
    with_usage: bool,
}

impl Events {
    /// Events with this head.
    pub fn new(head: &impl Serialize, with_usage: bool) -> Events {
        let mut head = serde_json::to_vec(head).unwrap_or_default();
        head.pop(); // the bracket that closes it
        Events { bytes: Vec::new(), head, with_usage }
    }

    /// An event with one choice.
    pub fn choice(&mut self, choice: &impl Serialize) {
        self.event(&[choice], None);
    }

    fn event<C: Serialize>(&mut self, choices: &[C], usage: Option<Usage>) {
        self.bytes.extend_from_slice(b"data: ");
        self.bytes.extend_from_slice(&self.head);
        self.bytes.extend_from_slice(b",\"choices\":");
        // Writing to memory does not fail, and every key is a string.
        _ = serde_json::to_writer(&mut self.bytes, choices);
        if self.with_usage {
            self.bytes.extend_from_slice(b",\"usage\":");
            _ = serde_json::to_writer(&mut self.bytes, &usage);
        }
        self.bytes.extend_from_slice(b"}\n\n");
    }

    /// The last events.
    fn end(&mut self, usage: Usage) {
        if self.with_usage {
            self.event::<()>(&[], Some(usage));
        }
        self.bytes.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn error(&mut self, error: &ApiError) {
        self.bytes.extend_from_slice(format!("data: {}\n\n", error.json()).as_bytes());
    }
}

/// The body of a stream. Dropping it cancels the texts.
#[derive(Debug)]
struct Stream<W> {
    receipt: Receipt,
    writer: W,
    events: Events,
    /// Texts as they end; all of them at the end.
    done: Vec<Option<Generation>>,
    per_prompt: usize,
    over: bool,
    _work: Work,
}

/// The answer that streams so many texts, of which each `per_prompt` share a prompt. Waits for the first news, so that what is
/// refused is an error of its own.
pub async fn respond<W: Writer>(
    mut receipt: Receipt,
    writer: W,
    events: Events,
    (texts, per_prompt): (usize, usize),
    work: Work,
) -> Result<Response, ApiError> {
    let mut first = receipt.next().await;
    if let Some(Update::Failed(failure)) = first.pop_if(|last| matches!(last, Update::Failed(_))) {
        return Err(failure.into());
    }
    let mut stream =
        Stream { receipt, writer, events, done: vec![None; texts], per_prompt, over: false, _work: work };
    stream.take(first);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        // Proxies are not to wait for more.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::new(stream)).into_response())
}

impl<W: Writer> Stream<W> {
    fn take(&mut self, news: Vec<Update>) {
        for update in news {
            match update {
                Update::Piece { text, piece, tokens } => {
                    self.writer.piece(text, piece, tokens, &mut self.events);
                }
                Update::Done { text, generation } => {
                    self.writer.done(text, &generation, &mut self.events);
                    self.done[text] = Some(*generation);
                }
                Update::Failed(failure) => {
                    self.events.error(&failure.into());
                    self.over = true;
                    return;
                }
            }
        }
        if self.done.iter().all(Option::is_some) {
            self.over = true;
            self.events.end(Usage::of(self.done.iter().flatten(), self.per_prompt));
        }
    }
}

impl<W: Writer> http_body::Body for Stream<W> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let stream = self.get_mut();
        while stream.events.bytes.is_empty() {
            if stream.over {
                return Poll::Ready(None);
            }
            match stream.receipt.poll_next(cx) {
                Poll::Ready(news) => stream.take(news),
                Poll::Pending => return Poll::Pending,
            }
        }
        let bytes = std::mem::take(&mut stream.events.bytes);
        Poll::Ready(Some(Ok(Frame::data(bytes.into()))))
    }
}
