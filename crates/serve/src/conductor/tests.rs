//! The conductor by itself: what it promises to those who wait, and to those who have left.

use generate::{Finish, Sampling};
use models::{Gpt2, Gpt2Config, Init};
use tokenizer::Tokenizer;

use super::room::PANIC_SEED;
use super::*;

/// Tokens of a text that is still being written when a test looks.
pub(crate) const LONG: usize = 4000;

/// A model whose texts never end by themselves before their time.
pub(crate) fn model() -> Served {
    let tokenizer =
        Tokenizer::train_bpe(["a quick brown fox jumps over the lazy dog. ".repeat(20)], 280).unwrap();
    let config = Gpt2Config::new(1, 2, 16, 4096, tokenizer.vocab_size());
    Served::new("m", Gpt2::new(config, Init::Xavier, 3).unwrap(), tokenizer).unwrap()
}

fn served() -> Arc<Served> {
    Arc::new(model())
}

fn request(seed: u64, tokens: usize) -> Request {
    let sampling = Sampling { seed, ..Sampling::default() };
    Request {
        prompt: vec![5, 6, 7],
        max_tokens: Some(tokens),
        min_tokens: tokens,
        sampling,
        ..Request::default()
    }
}

fn order(requests: Vec<Request>) -> Order {
    Order { requests, stream: true, deadline: None }
}

fn start(served: &Arc<Served>, batch: usize, queue: usize) -> Conductor {
    let settings = Settings { batch, queue, ..Settings::default() };
    Conductor::start(vec![served.clone()], &settings).unwrap().0
}

pub(crate) fn wait_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for an order on this thread.
fn whole(receipt: Receipt, texts: usize) -> Result<Vec<generate::Generation>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(receipt.whole(texts))
}

#[test]
fn an_order_whose_client_is_gone_leaves_before_the_next_step() {
    let served = served();
    let conductor = start(&served, 4, 4);
    let figures = served.figures();
    for _ in 0..20 {
        let receipt =
            conductor.submit(&served, order(vec![request(1, LONG), request(2, LONG)])).ok().unwrap();
        wait_until(|| figures.running() == 2);
        let before = figures.steps().0;
        drop(receipt);
        wait_until(|| figures.running() == 0);
        // The step that was being made, and the look before the next one.
        assert!(figures.steps().0 <= before + 2, "{} steps later", figures.steps().0 - before);
        assert_eq!(figures.waiting(), 0);
    }
    let ends: Vec<_> = figures.finished().filter(|(_, n)| *n > 0).collect();
    assert_eq!(ends, [(Finish::Cancelled, 40)]);
}

#[test]
fn more_than_can_wait_is_refused_and_the_rest_is_not_lost() {
    let served = served();
    let conductor = start(&served, 2, 3);
    let submit =
        |texts: u64| conductor.submit(&served, order((0..texts).map(|seed| request(seed, 400)).collect()));
    let first = submit(4).ok().unwrap();
    let last = submit(1).ok().unwrap();
    let error = submit(1).err().unwrap();
    assert_eq!((error.status.as_u16(), error.code), (429, Some("queue_full")));
    assert!((1..=60).contains(&error.retry_after.unwrap()));
    // Never possible, however long one waits.
    let error = submit(6).err().unwrap();
    assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some("n")));
    assert_eq!(whole(first, 4).unwrap().len(), 4);
    assert_eq!(whole(last, 1).unwrap()[0].ids.len(), 400);
    assert!(submit(5).is_ok());
}

#[test]
fn a_fault_fails_those_in_the_step_and_nobody_after_them() {
    let served = served();
    let conductor = start(&served, 4, 4);
    let want = whole(conductor.submit(&served, order(vec![request(1, 20)])).ok().unwrap(), 1).unwrap();
    let bystander = conductor.submit(&served, order(vec![request(1, LONG)])).ok().unwrap();
    wait_until(|| served.figures().running() == 1);
    let broken = conductor.submit(&served, order(vec![request(PANIC_SEED, 5)])).ok().unwrap();
    for receipt in [broken, bystander] {
        let failure = whole(receipt, 1).unwrap_err();
        assert!(matches!(failure, Failure::Panicked), "{failure:?}");
        assert_eq!(ApiError::from(failure).status.as_u16(), 500);
    }
    let again = whole(conductor.submit(&served, order(vec![request(1, 20)])).ok().unwrap(), 1).unwrap();
    assert_eq!(again[0].ids, want[0].ids);
    wait_until(|| served.figures().running() == 0);
    assert_eq!((served.figures().waiting(), served.figures().failed()), (0, 2));
}

#[test]
fn time_is_limited_while_waiting_and_while_running() {
    let served = served();
    let conductor = start(&served, 1, 4);
    let late = |tokens| {
        let limit = Duration::from_millis(1);
        let deadline = Some((Instant::now() + limit, limit));
        let order = Order { deadline, ..order(vec![request(3, tokens)]) };
        conductor.submit(&served, order).ok().unwrap()
    };
    let running = conductor.submit(&served, order(vec![request(1, LONG)])).ok().unwrap();
    let waiting = late(1);
    assert!(matches!(whole(waiting, 1), Err(Failure::TimedOut(_))));
    assert_eq!(whole(running, 1).unwrap()[0].ids.len(), LONG);
    assert!(matches!(whole(late(LONG), 1), Err(Failure::TimedOut(_))));
}

#[test]
fn one_impossible_text_stops_its_order_only() {
    let served = served();
    let conductor = start(&served, 4, 4);
    let mut wrong = request(2, 5);
    wrong.prompt = vec![100_000];
    let refused = conductor.submit(&served, order(vec![request(1, LONG), wrong])).ok().unwrap();
    assert!(matches!(whole(refused, 2), Err(Failure::Refused(_))));
    wait_until(|| served.figures().waiting() == 0 && served.figures().running() == 0);
    assert_eq!(
        whole(conductor.submit(&served, order(vec![request(1, 5)])).ok().unwrap(), 1).unwrap()[0].ids.len(),
        5
    );
}

#[test]
fn the_end_is_told_to_those_who_wait() {
    let served = served();
    let conductor = start(&served, 1, 4);
    let receipts: Vec<_> = (0..3)
        .map(|seed| conductor.submit(&served, order(vec![request(seed, LONG)])).ok().unwrap())
        .collect();
    conductor.stop();
    for receipt in receipts {
        assert!(matches!(whole(receipt, 1), Err(Failure::Stopped | Failure::Panicked)));
    }
    wait_until(|| !conductor.is_alive());
    assert_eq!(conductor.submit(&served, order(vec![request(1, 5)])).err().unwrap().status.as_u16(), 500);
}
