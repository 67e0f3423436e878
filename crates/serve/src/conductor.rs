//! One thread that steps the engines of all models, and the doors to it.
//!
//! Requests wait in bounded numbers: a model takes as many texts as it writes at once, and as many more as may wait. What a
//! step brings goes to each order in one piece, through a channel without a limit: what `max_tokens` allows bounds it, and
//! the conductor waits for nobody. An order whose receiver is dropped leaves the engine before the next step.

mod embedding;
mod figures;
mod order;
mod room;

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use generate::{GenerateError, Request, Sampling};

pub use figures::Figures;
pub use order::{Failure, Order, Receipt, Update};

use crate::account::Account;
use crate::error::ApiError;
use crate::served::Served;
use crate::state::Settings;
use embedding::Embedding;
use order::Ticket;
use room::Room;

/// What the thread is told.
enum Message {
    /// An order for the model of this number.
    Write(usize, Box<Ticket>),
    /// Texts whose vectors are wanted of the model of this number.
    Embed(usize, Embedding),
    /// Drop all that runs, and end.
    Stop,
}

/// The doors to the thread. Cloning gives another.
#[derive(Clone, Debug)]
pub struct Conductor {
    inbox: Sender<Message>,
    models: Vec<Arc<Served>>,
    /// Texts of a model that are written at once, and those with the waiting ones.
    batch: usize,
    most: usize,
    /// Held by the thread.
    alive: Weak<()>,
}

impl Conductor {
    /// Starts the thread, and returns once each model has made a step.
    pub fn start(
        models: Vec<Arc<Served>>,
        settings: &Settings,
    ) -> Result<(Conductor, JoinHandle<()>), GenerateError> {
        let (inbox, messages) = channel();
        let (warm, is_warm) = channel();
        let (served, settings) = (models.clone(), settings.clone());
        let (batch, most) = (settings.batch, settings.batch.saturating_add(settings.queue));
        let thread = std::thread::Builder::new().name("conductor".into());
        let life = Arc::new(());
        let alive = Arc::downgrade(&life);
        let thread = thread.spawn(move || {
            let _life = life;
            let share = settings.kv_bytes / served.len().max(1) as u64;
            let mut rooms = Vec::new();
            for served in &served {
                match warm_up(served).and_then(|()| Room::open(served, &settings, share)) {
                    Ok(room) => rooms.push(room),
                    Err(error) => return drop(warm.send(Err(error))),
                }
            }
            _ = warm.send(Ok(()));
            conduct(rooms, &messages);
        });
        let thread = thread.map_err(|_| GenerateError::Lost)?;
        is_warm.recv().map_err(|_| GenerateError::Lost)??;
        Ok((Conductor { inbox, models, batch, most, alive }, thread))
    }

    /// Takes an order for a model, or says that too many are waiting.
    pub fn submit(&self, served: &Arc<Served>, order: Order) -> Result<Receipt, ApiError> {
        let (texts, at) = (order.requests.len(), self.number(served)?);
        if texts > self.most {
            let message = format!(
                "the request asks for {texts} texts, but the server takes at most {} at once; ask for fewer, or for one prompt \
                 at a time",
                self.most
            );
            return Err(ApiError::invalid("n", message));
        }
        let (figures, account) = (served.figures(), Account::current());
        let (prompts, answers) = cost(served, &order.requests);
        account.expect(served.name(), prompts, answers)?;
        let more = |taken: usize| Some(taken + texts).filter(|all| *all <= self.most);
        if figures.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_err() {
            let message = format!("{} texts wait already; try again later", figures.waiting());
            return Err(ApiError::busy(message, self.patience(served)));
        }
        let (ticket, receipt) = Receipt::new(order, account);
        if self.inbox.send(Message::Write(at, Box::new(ticket))).is_err() {
            figures.taken.fetch_sub(texts, Ordering::SeqCst);
            return Err(gone());
        }
        Ok(receipt)
    }

    /// Takes texts whose vectors are wanted, or says that too many requests are waiting. What is returned gives the vectors;
    /// dropping it cancels them.
    pub fn embed(
        &self,
        served: &Arc<Served>,
        inputs: Vec<Vec<u32>>,
        deadline: Option<(Instant, Duration)>,
    ) -> Result<impl Future<Output = Result<Vec<Vec<f32>>, Failure>> + use<>, ApiError> {
        let (figures, at) = (served.figures(), self.number(served)?);
        let tokens: usize = inputs.iter().map(Vec::len).sum();
        Account::current().expect(served.name(), tokens as u64, 0)?;
        let more = |waiting: usize| Some(waiting + 1).filter(|all| *all <= self.most);
        if figures.embedding.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_err() {
            let message = format!("{} requests for vectors wait already; try again later", self.most);
            return Err(ApiError::busy(message, 1));
        }
        let (embedding, vectors) = Embedding::new(inputs, deadline);
        if self.inbox.send(Message::Embed(at, embedding)).is_err() {
            figures.embedding.fetch_sub(1, Ordering::SeqCst);
            return Err(gone());
        }
        Ok(async move { vectors.await.unwrap_or(Err(Failure::Panicked)) })
    }

    fn number(&self, served: &Arc<Served>) -> Result<usize, ApiError> {
        let at = self.models.iter().position(|known| Arc::ptr_eq(known, served));
        at.ok_or_else(|| ApiError::internal("the model is not run by this server"))
    }

    /// Whether the thread is there.
    pub fn is_alive(&self) -> bool {
        self.alive.strong_count() > 0
    }

    /// Drops all that runs.
    pub fn stop(&self) {
        _ = self.inbox.send(Message::Stop);
    }

    /// Seconds after which a place may be free: the time of as many texts as wait before it, of which a batch is written at once.
    fn patience(&self, served: &Served) -> u64 {
        let figures = served.figures();
        let rounds = (figures.waiting() / self.batch.max(1) + 1) as u32;
        (figures.text_time() * rounds).as_secs().clamp(1, 60)
    }
}

/// Tokens of prompts, and tokens that may be written at most. Texts that share a prompt read it once.
fn cost(served: &Served, requests: &[Request]) -> (u64, u64) {
    let (mut prompts, mut answers, mut last) = (0, 0, None);
    for request in requests {
        let prompt = request.prompt.len().max(1); // something stands in for an empty one
        if last != Some(&request.prompt) {
            prompts += prompt as u64;
        }
        last = Some(&request.prompt);
        answers += request.max_tokens.unwrap_or(served.n_ctx().saturating_sub(prompt)) as u64;
    }
    (prompts, answers)
}

fn gone() -> ApiError {
    ApiError::internal("the thread that runs the models is gone")
}

/// Makes a step, so that weights are in memory and threads are there.
fn warm_up(served: &Served) -> Result<(), GenerateError> {
    let request = Request { max_tokens: Some(1), sampling: Sampling::GREEDY, ..Request::default() };
    generate::generate(served.model(), served.tokenizer(), &request, &mut |_| true).map(drop)
}

/// Steps all rooms until there is nobody left to work for.
fn conduct(mut rooms: Vec<Room>, messages: &Receiver<Message>) {
    loop {
        // Without work it sleeps; with some it looks only whether there is more.
        let mut first = None;
        if rooms.iter().all(Room::is_idle) {
            match messages.recv() {
                Ok(message) => first = Some(message),
                Err(_) => return,
            }
        }
        for message in first.into_iter().chain(messages.try_iter()) {
            match message {
                Message::Write(at, ticket) => rooms[at].take(*ticket),
                Message::Embed(at, embedding) => rooms[at].take_embedding(embedding),
                Message::Stop => {
                    rooms.iter_mut().for_each(|room| room.clear(|| Failure::Stopped));
                    return;
                }
            }
        }
        rooms.iter_mut().for_each(Room::work);
    }
}

#[cfg(test)]
pub(crate) mod tests;
