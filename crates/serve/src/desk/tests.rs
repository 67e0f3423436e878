//! The desk's thread: jobs follow each other, few wait, and none goes on that nobody waits for.

use std::sync::mpsc::{Sender, channel};

use axum::http::StatusCode;
use models::{Gpt2, Gpt2Config, Init};
use serde_json::Value;
use tokenizer::Tokenizer;

use super::*;

const LIMIT: Duration = Duration::from_secs(600);

fn served() -> Arc<Served> {
    let tokenizer = Tokenizer::train_bpe(["a fox ran home ".repeat(9)], 260).unwrap();
    let config = Gpt2Config::new(1, 1, 8, 16, tokenizer.vocab_size());
    let model = Gpt2::new(config, Init::Xavier, 1).unwrap();
    Arc::new(Served::new("fox", model, tokenizer).unwrap())
}

/// A job that goes on until it may not, and tells why it ended.
fn endless(
    begun: Sender<()>,
    ended: Sender<ApiError>,
) -> impl FnOnce(&Served, &Teller) -> Result<(), ApiError> {
    move |_, teller| {
        begun.send(()).unwrap();
        loop {
            if let Err(error) = teller.goes_on() {
                _ = ended.send(error.clone());
                return Err(error);
            }
            std::thread::yield_now();
        }
    }
}

fn data(event: &str) -> Value {
    serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()
}

#[test]
fn events_come_in_order_and_end() {
    let desk = Desk::default();
    let job = |_: &Served, teller: &Teller| {
        teller.tell(&json!({ "n": 1, "text": "a\n\nb" }));
        teller.tell(&json!({ "n": 2 }));
        Ok(())
    };
    let mut receipt = desk.submit(served(), LIMIT, job).unwrap();
    let events: Vec<String> = std::iter::from_fn(|| receipt.wait()).collect();
    assert_eq!(data(&events[0])["text"], "a\n\nb");
    assert_eq!(data(&events[1])["n"], 2);
    assert_eq!(events[2..], ["data: [DONE]\n\n"]);
}

#[test]
fn few_may_wait_and_who_leaves_makes_room() {
    let (desk, served) = (Desk::default(), served());
    let ((begun, has_begun), (ended, has_ended)) = (channel(), channel());
    let running = desk.submit(served.clone(), LIMIT, endless(begun, ended)).unwrap();
    has_begun.recv().unwrap();
    let submit = || desk.submit(served.clone(), LIMIT, |_: &Served, _: &Teller| Ok(()));
    let mut waiting: Vec<Receipt> = (0..MOST_WAITING).map(|_| submit().unwrap()).collect();
    let refused = submit().unwrap_err();
    assert_eq!((refused.status, refused.retry_after), (StatusCode::TOO_MANY_REQUESTS, Some(PATIENCE)));
    assert_eq!(data(&waiting[1].wait().unwrap()), json!({ "type": "waiting", "ahead": 2 }));
    // One that waits leaves, and another may come.
    drop(waiting.pop());
    waiting.push(submit().unwrap());
    // The one that runs leaves, and all the others are served.
    drop(running);
    assert!(has_ended.recv().unwrap().message.contains("left"));
    for mut receipt in waiting {
        let last = std::iter::from_fn(|| receipt.wait()).last().unwrap();
        assert_eq!(last, "data: [DONE]\n\n");
    }
}

#[test]
fn a_job_out_of_time_is_told() {
    let desk = Desk::default();
    let ((begun, _has_begun), (ended, _has_ended)) = (channel(), channel());
    let mut receipt = desk.submit(served(), Duration::from_millis(30), endless(begun, ended)).unwrap();
    let last = std::iter::from_fn(|| receipt.wait()).last().unwrap();
    assert_eq!(data(&last)["error"]["code"], "request_timeout");
}

#[test]
fn a_panic_ends_its_job_alone() {
    let (desk, served) = (Desk::default(), served());
    let mut receipt =
        desk.submit(served.clone(), LIMIT, |_: &Served, _: &Teller| panic!("a test's panic")).unwrap();
    let last = std::iter::from_fn(|| receipt.wait()).last().unwrap();
    assert_eq!(data(&last)["error"]["code"], "internal_error");
    let mut next = desk.submit(served, LIMIT, |_: &Served, _: &Teller| Ok(())).unwrap();
    assert_eq!(std::iter::from_fn(|| next.wait()).last().unwrap(), "data: [DONE]\n\n");
}

#[test]
fn the_thread_ends_with_the_desk() {
    let desk = Desk::default();
    let queue = Arc::downgrade(&desk.0);
    let mut receipt = desk.submit(served(), LIMIT, |_: &Served, _: &Teller| Ok(())).unwrap();
    while receipt.wait().is_some() {}
    drop(desk);
    while queue.upgrade().is_some() {
        std::thread::yield_now();
    }
}
