//! One model's engine, and the orders that it works on.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use generate::{EngineSettings, GenerateError, TaskId, TextEvent, Texts};
use models::{Gpt2, KvPool};

use super::embedding::Embedding;
use super::order::{Failure, Ticket, Update};
use crate::served::Served;
use crate::state::Settings;

/// An engine with its orders.
pub(super) struct Room<'a> {
    served: &'a Served,
    settings: EngineSettings,
    texts: Texts<'a, Arc<Gpt2>>,
    orders: HashMap<u64, Running>,
    /// Which order a text belongs to, and its number there.
    places: HashMap<TaskId, (u64, usize)>,
    next: u64,
    embeddings: VecDeque<Embedding>,
}

/// An order that is being worked on.
struct Running {
    ticket: Ticket,
    since: Instant,
    texts: Vec<TextState>,
    news: Vec<Update>,
}

/// A text of an order.
struct TextState {
    id: TaskId,
    /// Tokens whose log-probabilities were told.
    told: usize,
    done: bool,
}

impl<'a> Room<'a> {
    /// An engine for this model, with its share of the memory for keys and values.
    pub fn open(served: &'a Served, settings: &Settings, bytes: u64) -> Result<Room<'a>, GenerateError> {
        let model = served.model();
        let all = EngineSettings::for_batch(model, settings.batch);
        let block = KvPool::new(model.config(), model.precision(), 0).block_bytes() as u64;
        // At least one text of full length can be written. Half as much again as all may need is for what is kept of finished
        // texts, which also lies in blocks that nobody else wants.
        let one = KvPool::blocks_for(model.config().n_ctx);
        let most = all.blocks.saturating_add(all.blocks / 2);
        let blocks = usize::try_from(bytes / block).unwrap_or(usize::MAX).min(most).max(one);
        let settings = EngineSettings { blocks, kept: 2 * settings.batch, ..all };
        let texts = Texts::new(model.clone(), served.tokenizer(), settings.clone())?;
        served.figures().blocks.store(blocks, Ordering::Relaxed);
        let (orders, places, embeddings) = (HashMap::new(), HashMap::new(), VecDeque::new());
        Ok(Room { served, settings, texts, orders, places, next: 0, embeddings })
    }

    /// Whether nothing is to be done.
    pub fn is_idle(&self) -> bool {
        self.orders.is_empty() && self.embeddings.is_empty()
    }

    /// Does what comes next: a step of the engine, and a portion of the texts whose vectors are wanted.
    pub fn work(&mut self) {
        self.sweep();
        if !self.orders.is_empty() {
            self.step();
        }
        self.embed();
        self.show();
    }

    /// Adds an order's texts; if one is impossible, none is written.
    pub fn take(&mut self, ticket: Ticket) {
        let mut ids = Vec::new();
        for request in &ticket.order.requests {
            let added = catch_unwind(AssertUnwindSafe(|| self.texts.add(request)));
            let failure = match added {
                Ok(Ok(id)) => {
                    ids.push(id);
                    continue;
                }
                Ok(Err(error)) => Failure::Refused(error),
                Err(_) => Failure::Panicked,
            };
            ids.iter().for_each(|&id| drop(self.texts.cancel(id)));
            self.served.figures().failed.fetch_add(1, Ordering::Relaxed);
            self.leave(ticket.order.requests.len());
            _ = ticket.updates.send(vec![Update::Failed(failure)]);
            return;
        }
        let number = self.next;
        self.next += 1;
        for (text, &id) in ids.iter().enumerate() {
            self.places.insert(id, (number, text));
        }
        let texts = ids.into_iter().map(|id| TextState { id, told: 0, done: false }).collect();
        let running = Running { ticket, since: Instant::now(), texts, news: Vec::new() };
        self.orders.insert(number, running);
    }

    /// Ends the orders whose client is gone, or whose time is over.
    fn sweep(&mut self) {
        let now = Instant::now();
        let over = |running: &Running| match running.ticket.order.deadline {
            _ if running.ticket.updates.is_closed() => Some(None),
            Some((deadline, limit)) if now >= deadline => Some(Some(Failure::TimedOut(limit))),
            _ => None,
        };
        let ended: Vec<_> =
            self.orders.iter().filter_map(|(&number, order)| Some((number, over(order)?))).collect();
        for (number, failure) in ended {
            self.end(number, failure);
        }
    }

    /// Ends an order as it stands.
    fn end(&mut self, number: u64, failure: Option<Failure>) {
        let Some(running) = self.orders.remove(&number) else { return };
        let mut left = 0;
        for text in running.texts.iter().filter(|text| !text.done) {
            left += 1;
            self.places.remove(&text.id);
            let cancelled = catch_unwind(AssertUnwindSafe(|| self.texts.cancel(text.id)));
            if let Ok(Some(generation)) = cancelled {
                running.ticket.account.wrote(&generation);
                self.served.figures().end(&generation);
            }
        }
        self.leave(left);
        if let Some(failure) = failure {
            _ = running.ticket.updates.send(vec![Update::Failed(failure)]);
        }
    }

    /// Ends everything.
    pub fn clear(&mut self, failure: impl Fn() -> Failure) {
        for number in self.orders.keys().copied().collect::<Vec<_>>() {
            self.end(number, Some(failure()));
        }
        for embedding in std::mem::take(&mut self.embeddings) {
            self.end_embedding(embedding, Some(failure()));
        }
    }

    /// Adds texts whose vectors are wanted.
    pub fn take_embedding(&mut self, embedding: Embedding) {
        self.embeddings.push_back(embedding);
    }

    /// Reads a portion for the first that wants vectors.
    fn embed(&mut self) {
        let Some(mut embedding) = self.embeddings.pop_front() else { return };
        if let Some(failure) = embedding.is_over() {
            return self.end_embedding(embedding, failure);
        }
        let model = self.served.model();
        match catch_unwind(AssertUnwindSafe(|| embedding.read(model))) {
            Ok(Ok(())) if embedding.is_whole() => {
                self.served.figures().embedding.fetch_sub(1, Ordering::SeqCst);
                embedding.finish();
            }
            Ok(Ok(())) => self.embeddings.push_front(embedding),
            Ok(Err(error)) => self.end_embedding(embedding, Some(Failure::Refused(error.into()))),
            Err(_) => self.end_embedding(embedding, Some(Failure::Panicked)),
        }
    }

    fn end_embedding(&self, embedding: Embedding, failure: Option<Failure>) {
        self.served.figures().embedding.fetch_sub(1, Ordering::SeqCst);
        if let Some(failure) = failure {
            embedding.fail(failure);
        }
    }

    /// Makes a step, and tells everyone what it brought.
    fn step(&mut self) {
        let start = Instant::now();
        let step = || {
            #[cfg(test)]
            assert!(self.orders.values().all(Running::is_sound), "a fault that a test asks for");
            self.texts.step()
        };
        let events = match catch_unwind(AssertUnwindSafe(step)) {
            Ok(Ok(events)) => events,
            // What the engine holds now is not known.
            Ok(Err(_)) | Err(_) => return self.begin_anew(),
        };
        let ended = events.iter().filter(|event| matches!(event, TextEvent::Done(..))).count();
        self.served.figures().times().batch.observe((self.texts.engine().load().0 + ended) as f64);
        events.into_iter().for_each(|event| self.tell(event));
        let done: Vec<u64> = self
            .orders
            .iter_mut()
            .filter_map(|(&number, running)| {
                let news = std::mem::take(&mut running.news);
                if !news.is_empty() {
                    _ = running.ticket.updates.send(news);
                }
                running.texts.iter().all(|text| text.done).then_some(number)
            })
            .collect();
        for number in done {
            if let Some(running) = self.orders.remove(&number) {
                self.served.figures().took(running.since.elapsed());
            }
        }
        let figures = self.served.figures();
        figures.steps.fetch_add(1, Ordering::Relaxed);
        figures.step_micros.fetch_add(start.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    fn tell(&mut self, event: TextEvent) {
        let (id, update) = match event {
            TextEvent::Slid(..) => return, // the context never slides here
            TextEvent::Piece(id, piece) => {
                let Some((running, text)) = place(&self.places, &mut self.orders, id) else { return };
                if running.ticket.order.stream {
                    let state = &mut running.texts[text];
                    let so_far = self.texts.so_far(id).and_then(|so_far| so_far.logprobs.as_deref());
                    let tokens = so_far.map_or(&[][..], |all| &all[state.told..]).to_vec();
                    state.told += tokens.len();
                    running.news.push(Update::Piece { text, piece, tokens });
                }
                return;
            }
            TextEvent::Done(id, result) => (id, result),
        };
        let Some(&(number, _)) = self.places.get(&id) else { return };
        match update {
            Ok(generation) => {
                let Some((running, text)) = place(&self.places, &mut self.orders, id) else { return };
                self.served.figures().end(&generation);
                running.ticket.account.wrote(&generation);
                running.texts[text].done = true;
                running.news.push(Update::Done { text, generation: Box::new(generation) });
                self.places.remove(&id);
                self.leave(1);
            }
            Err(error) => {
                self.served.figures().failed.fetch_add(1, Ordering::Relaxed);
                self.end(number, Some(Failure::Refused(error)));
            }
        }
    }

    /// After a fault: all orders fail, and the engine is a new one.
    fn begin_anew(&mut self) {
        let figures = self.served.figures();
        figures.failed.fetch_add(self.places.len() as u64, Ordering::Relaxed);
        let left = self.places.len();
        self.places.clear();
        for (_, running) in self.orders.drain() {
            _ = running.ticket.updates.send(vec![Update::Failed(Failure::Panicked)]);
        }
        self.leave(left);
        // It was made from these settings before.
        if let Ok(texts) =
            Texts::new(self.served.model().clone(), self.served.tokenizer(), self.settings.clone())
        {
            self.texts = texts;
        }
    }

    /// So many texts are no longer taken.
    fn leave(&self, texts: usize) {
        self.served.figures().taken.fetch_sub(texts, Ordering::Relaxed);
    }

    /// Shows how full the engine is.
    fn show(&self) {
        let (figures, engine) = (self.served.figures(), self.texts.engine());
        figures.running.store(engine.load().0, Ordering::Relaxed);
        figures.blocks_used.store(engine.blocks_used(), Ordering::Relaxed);
        figures.blocks_reserved.store(engine.blocks_reserved(), Ordering::Relaxed);
    }
}

/// In tests, a step with a text of this seed fails.
#[cfg(test)]
pub(super) const PANIC_SEED: u64 = u64::MAX - 1;

#[cfg(test)]
impl Running {
    fn is_sound(&self) -> bool {
        self.ticket.order.requests.iter().all(|request| request.sampling.seed != PANIC_SEED)
    }
}

/// The order that a text belongs to, and its number there.
fn place<'o>(
    places: &HashMap<TaskId, (u64, usize)>,
    orders: &'o mut HashMap<u64, Running>,
    id: TaskId,
) -> Option<(&'o mut Running, usize)> {
    let &(number, text) = places.get(&id)?;
    Some((orders.get_mut(&number)?, text))
}
