//! What an engine is asked for, and what it says.

use std::sync::Arc;

use models::{Gpt2, KvPool, ModelError};
use thiserror::Error;

use crate::constraint::{Constraint, ConstraintError};
use crate::sampling::{Draw, Sampling, SamplingError, TokenLogprobs};
use crate::speculate::Speculation;

/// What an engine may use.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Sequences that run at once.
    pub batch: usize,
    /// Blocks of 64 positions for keys and values; see [`KvPool`].
    pub blocks: usize,
    /// Tokens of a step, at most; prompts are cut to it.
    pub step_tokens: usize,
    /// Tasks that may wait; more are refused.
    pub queue: usize,
    /// Finished sequences whose keys and values are kept, while there is room, for prompts that begin alike.
    pub kept: usize,
    /// Where drafts come from, which are then checked several at once.
    pub speculation: Speculation,
}

impl EngineSettings {
    /// For `batch` sequences of full length.
    pub fn for_batch(model: &Gpt2, batch: usize) -> EngineSettings {
        let blocks = batch.saturating_mul(KvPool::blocks_for(model.config().n_ctx));
        EngineSettings {
            batch,
            blocks,
            step_tokens: 512,
            queue: usize::MAX,
            kept: 0,
            speculation: Speculation::Off,
        }
    }
}

/// What happens when the context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It does not: what could overflow is refused when it is added.
    #[default]
    Refuse,
    /// The first `keep` tokens and the latest half of the others stay; the rest is forgotten.
    Slide {
        /// Tokens that always stay.
        keep: usize,
    },
}

/// One text to be continued.
#[derive(Clone, Debug)]
pub struct Task {
    /// The text so far, at least one token.
    pub prompt: Vec<u32>,
    /// Tokens to write at most.
    pub max_new: usize,
    /// How they are drawn.
    pub sampling: Sampling,
    /// Whether the prompt's log-probabilities are wanted, with so many of the most likely tokens.
    pub prompt_logprobs: Option<usize>,
    /// The first token of the prompt whose log-probability is wanted; the first of all has none. What stands before it can be
    /// taken from another text that begins alike.
    pub logprobs_from: usize,
    /// What happens when the context is full.
    pub overflow: Overflow,
    /// What the text must be as a whole.
    pub constraint: Option<Arc<Constraint>>,
}

/// A task's number, in the order in which they were added.
pub type TaskId = u64;

/// What came of a step, for one task.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Log-probabilities of the prompt's tokens from the first that was asked for, in order, as far as they are known now.
    Prompt(TaskId, Vec<TokenLogprobs>),
    /// The task runs from now on; so many tokens of its prompt were computed before, for another.
    Started(TaskId, usize),
    /// A token was drawn.
    Token(TaskId, Draw),
    /// The task is done: the token that ended it, or `None` where it has written all it may. A constraint that nothing could
    /// follow ends it without a draw.
    Done(TaskId, Option<Draw>),
    /// So many tokens in the middle of the context were forgotten.
    Slid(TaskId, usize),
    /// The model's numbers were unusable; the task is done.
    Failed(TaskId, SamplingError),
}

/// What an engine refuses.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A task without a prompt.
    #[error("a task needs a prompt of at least one token; start from end-of-text")]
    EmptyPrompt,
    /// A token that the model does not have.
    #[error(
        "token {id} at position {position} of the prompt is out of range: the model has {vocab_size} tokens"
    )]
    TokenOutOfRange {
        /// The token.
        id: u32,
        /// Where it stands.
        position: usize,
        /// Tokens there are.
        vocab_size: usize,
    },
    /// More than the context holds.
    #[error(
        "the prompt has {prompt} tokens and {max_new} more are asked for, but the model's context is {n_ctx}; \
         shorten the one, lower the other, or let the context slide"
    )]
    Context {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        max_new: usize,
        /// Positions of the model.
        n_ctx: usize,
    },
    /// Keeping so much leaves no room to slide.
    #[error("{keep} tokens are to be kept, but the context is {n_ctx}; keep at most {}", .n_ctx.saturating_sub(4))]
    Keep {
        /// Tokens to be kept.
        keep: usize,
        /// Positions of the model.
        n_ctx: usize,
    },
    /// More blocks than there are.
    #[error(
        "the task may need {need} blocks of keys and values, but the budget is {budget}; raise the budget to {need}, \
         or shorten the task"
    )]
    Budget {
        /// Blocks that the task may need.
        need: usize,
        /// Blocks there are.
        budget: usize,
    },
    /// Log-probabilities of no token.
    #[error(
        "log-probabilities are wanted from token {from} of the prompt on, but it has {prompt}; ask for an earlier one"
    )]
    LogprobsFrom {
        /// The first token that was asked for.
        from: usize,
        /// Tokens of the prompt.
        prompt: usize,
    },
    /// No room to wait.
    #[error("{waiting} tasks are waiting already; try again when some are done")]
    QueueFull {
        /// Tasks that wait.
        waiting: usize,
    },
    /// A vocabulary that does not fit the model's.
    #[error("the {what} has {got} tokens, but the model {want}; take both from the same family of models")]
    Vocabulary {
        /// Whose vocabulary.
        what: &'static str,
        /// Its tokens.
        got: usize,
        /// The model's.
        want: usize,
    },
    /// Settings that cannot be met.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A constraint that cannot be met.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The model refused.
    #[error(transparent)]
    Model(#[from] ModelError),
}
