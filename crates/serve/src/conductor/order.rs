//! What one request wants of a model, and how it hears of it.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use generate::{GenerateError, Generation, Request, TokenLogprobs};
use tokio::sync::mpsc;

use crate::account::Account;

/// Texts that belong to one request.
#[derive(Debug)]
pub struct Order {
    /// What to write; texts are numbered in this order.
    pub requests: Vec<Request>,
    /// Whether pieces are wanted as they come, not only whole texts.
    pub stream: bool,
    /// When it must be done.
    pub deadline: Option<(Instant, Duration)>,
}

/// News of an order.
#[derive(Debug)]
pub enum Update {
    /// More of a text is certain. Only where the order streams.
    Piece {
        /// Which text.
        text: usize,
        /// What comes next in it.
        piece: String,
        /// The tokens drawn since the last piece, where log-probabilities are wanted.
        tokens: Vec<TokenLogprobs>,
    },
    /// A text is whole.
    Done {
        /// Which text.
        text: usize,
        /// All of it.
        generation: Box<Generation>,
    },
    /// The order is dropped: nothing more comes.
    Failed(Failure),
}

/// Why an order was dropped.
#[derive(Debug)]
pub enum Failure {
    /// The engine refused, or the model's numbers were unusable.
    Refused(GenerateError),
    /// A fault of ours.
    Panicked,
    /// It was not done in the time that it had.
    TimedOut(Duration),
    /// The server ends.
    Stopped,
}

/// An order as the conductor keeps it.
#[derive(Debug)]
pub(super) struct Ticket {
    pub order: Order,
    pub updates: mpsc::UnboundedSender<Vec<Update>>,
    /// Who pays for what is written.
    pub account: Account,
}

/// Where news of an order comes out. Dropping it cancels the order.
#[derive(Debug)]
pub struct Receipt {
    updates: mpsc::UnboundedReceiver<Vec<Update>>,
}

impl Receipt {
    pub(super) fn new(order: Order, account: Account) -> (Ticket, Receipt) {
        let (sender, updates) = mpsc::unbounded_channel();
        (Ticket { order, updates: sender, account }, Receipt { updates })
    }

    /// What a step, or several, brought.
    pub async fn next(&mut self) -> Vec<Update> {
        // A channel that is closed early is a thread that is gone.
        self.updates.recv().await.unwrap_or_else(|| vec![Update::Failed(Failure::Panicked)])
    }

    /// Everything that has come since the last time.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Update>> {
        let mut all = match self.updates.poll_recv(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(vec![Update::Failed(Failure::Panicked)]),
            Poll::Ready(Some(news)) => news,
        };
        while let Ok(more) = self.updates.try_recv() {
            all.extend(more);
        }
        Poll::Ready(all)
    }

    /// Waits for all of so many texts.
    pub async fn whole(mut self, texts: usize) -> Result<Vec<Generation>, Failure> {
        let mut whole: Vec<Option<Generation>> = vec![None; texts];
        while whole.iter().any(Option::is_none) {
            for update in self.next().await {
                match update {
                    Update::Piece { .. } => {}
                    Update::Done { text, generation } => whole[text] = Some(*generation),
                    Update::Failed(failure) => return Err(failure),
                }
            }
        }
        Ok(whole.into_iter().flatten().collect())
    }
}
