//! What a job tells, on its way to the client: server-sent events of JSON, `[DONE]` after the last, errors in OpenAI's shape.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use generate::apps::Usage;
use http_body::Frame;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::account::Account;
use crate::conductor::Failure;
use crate::error::ApiError;
use crate::served::Served;
use crate::state::Work;

/// The job's end of the channel. How much goes through, the limits of the job bound.
pub struct Teller {
    events: UnboundedSender<Bytes>,
    deadline: Option<(Instant, Duration)>,
    /// Who pays for what is read and written, and what is noted there already.
    account: Account,
    used: Cell<Usage>,
}

/// The client's end. Dropping it ends the job before its next step.
#[derive(Debug)]
pub struct Receipt(UnboundedReceiver<Bytes>);

/// A channel for a job that may take until then, and that is paid for from this account.
pub fn channel(deadline: Option<(Instant, Duration)>, account: Account) -> (Teller, Receipt) {
    let (events, received) = unbounded_channel();
    (Teller { events, deadline, account, used: Cell::default() }, Receipt(received))
}

impl Teller {
    /// Sends an event.
    pub fn tell(&self, event: &Value) {
        // A client that has left is seen before the next step.
        _ = self.events.send(format!("data: {event}\n\n").into());
    }

    /// Whether the client has left.
    pub fn is_left(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether the job is to go on: somebody waits for it, and it has time.
    pub fn goes_on(&self) -> Result<(), ApiError> {
        if self.is_left() {
            return Err(ApiError::bad("the client has left"));
        }
        match self.deadline {
            Some((at, limit)) if Instant::now() >= at => Err(Failure::TimedOut(limit).into()),
            _ => Ok(()),
        }
    }

    /// Notes what the job has read and written by now, after each step, so that it is paid for however the job ends.
    pub fn used(&self, served: &Served, now: Usage) {
        let before = self.used.replace(now);
        // A text that failed takes along what it has written.
        let read = now.prompt_tokens.saturating_sub(before.prompt_tokens);
        let written = now.written_tokens.saturating_sub(before.written_tokens);
        self.account.used(read, written);
        served.figures().add(read, written);
    }

    /// Tells that all is told.
    pub fn end(&self) {
        _ = self.events.send(Bytes::from_static(b"data: [DONE]\n\n"));
    }

    /// Tells an error, which is the last event.
    pub fn fail(&self, error: &ApiError) {
        self.tell(&error.json());
    }
}

impl Receipt {
    /// The answer: a stream that lasts until the job ends.
    pub fn respond(self, work: Work) -> Response {
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
            (header::CACHE_CONTROL, "no-cache"),
            (header::HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        (headers, Body::new(Stream { events: self.0, _work: work })).into_response()
    }

    /// The next event, as it is sent.
    #[cfg(test)]
    pub fn wait(&mut self) -> Option<String> {
        self.0.blocking_recv().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }
}

struct Stream {
    events: UnboundedReceiver<Bytes>,
    _work: Work,
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.get_mut().events.poll_recv(cx).map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
    }
}
