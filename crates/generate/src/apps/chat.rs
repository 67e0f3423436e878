//! A conversation: its turns, and the prompt for the next reply.
//!
//! A [`Conversation`] keeps all that was said. Its prompt leaves out whole turns, the oldest first, as far as the model's
//! context asks for it; the system prompt stays. [`Chat`] writes the replies.

mod reply;

use models::Gpt2;
use thiserror::Error;
use tokenizer::chat::{ChatTemplate, Message, TemplateError};
use tokenizer::{Tokenizer, TokenizerError};

use crate::request::{Finish, GenerateError};

pub use reply::{Answer, Chat, Reply, ReplySettings};

/// Bytes a token, beyond which it is not tried whether a conversation fits whole.
const MOST_BYTES: usize = 8;

/// What one side said, and what the other answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The user's message.
    pub user: String,
    /// The assistant's answer, or the part of it that was said.
    pub answer: String,
    /// Why the answer ended: [`Finish::Cancelled`] where it was interrupted.
    pub finish: Finish,
}

/// A system prompt, and whole turns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    system: Option<String>,
    turns: Vec<Turn>,
}

/// What the next reply is written from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The tokens, up to where the assistant speaks.
    pub ids: Vec<u32>,
    /// The oldest turns that are left out, since the context holds no more.
    pub dropped: usize,
}

/// What a prompt must fit into.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// How turns become tokens.
    pub template: &'a ChatTemplate,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Positions of the model.
    pub n_ctx: usize,
    /// Positions that the reply may need.
    pub max_tokens: usize,
}

/// Why there is no reply.
#[derive(Debug, Error)]
pub enum ChatError {
    /// A message without a character that is seen.
    #[error("the message is empty; say something")]
    EmptyMessage,
    /// No messages.
    #[error("there are no messages; a conversation has at least one of the role `user`")]
    NoMessages,
    /// A message without a character that is seen, among others.
    #[error("message {number} ({role}) is empty; give it words or leave its turn out")]
    Empty {
        /// Which, from 1.
        number: usize,
        /// Who speaks.
        role: String,
    },
    /// Turns that do not alternate, or a role that is none.
    #[error(
        "message {number} has the role `{role}` where `{want}` was expected; a conversation is a `system` message, if \
         any, then `user` and `assistant` in turn"
    )]
    Role {
        /// Which, from 1.
        number: usize,
        /// Who speaks.
        role: String,
        /// Who should.
        want: &'static str,
    },
    /// No room for a reply, or for nothing else.
    #[error(
        "{max_tokens} tokens are to be kept for the reply, of the {n_ctx} that the model's context holds; keep 1 to {}",
        .n_ctx.saturating_sub(1)
    )]
    Room {
        /// Tokens to be kept.
        max_tokens: usize,
        /// Positions of the model.
        n_ctx: usize,
    },
    /// One message alone is too long.
    #[error(
        "the message has {message} tokens, {prompt} with the system prompt and the marks of its turn, and {max_tokens} \
         are kept for the reply, but the model's context is {n_ctx}; shorten them by {} tokens",
        .prompt + .max_tokens - .n_ctx
    )]
    TooLong {
        /// Tokens of the message.
        message: usize,
        /// Tokens of the prompt without any earlier turn.
        prompt: usize,
        /// Tokens kept for the reply.
        max_tokens: usize,
        /// Positions of the model.
        n_ctx: usize,
    },
    /// The template refused.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer refused.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The model or its settings refused.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

impl Conversation {
    /// A conversation that begins. A system prompt of white space is none.
    pub fn new(system: Option<String>) -> Conversation {
        let mut conversation = Conversation::default();
        conversation.set_system(system);
        conversation
    }

    /// The conversation that these messages are, and the user's last one where it has no answer yet.
    ///
    /// The first may be of the role `system`; `user` and `assistant` alternate from then on. What the user says is not
    /// empty; an answer may be, since a model may say nothing.
    pub fn from_messages(messages: &[Message]) -> Result<(Conversation, Option<String>), ChatError> {
        let mut conversation = Conversation::default();
        let mut asked: Option<&str> = None;
        for (i, Message { role, content }) in messages.iter().enumerate() {
            let number = i + 1;
            let is_empty = content.trim().is_empty();
            match (role.as_str(), asked) {
                ("system", _) if i == 0 => conversation.set_system(Some(content.clone())),
                ("user", None) if is_empty => return Err(ChatError::Empty { number, role: role.clone() }),
                ("user", None) => asked = Some(content),
                ("assistant", Some(user)) => {
                    let (user, answer) = (user.to_owned(), content.clone());
                    conversation.turns.push(Turn { user, answer, finish: Finish::Eot });
                    asked = None;
                }
                (_, None) => return Err(ChatError::Role { number, role: role.clone(), want: "user" }),
                (_, Some(_)) => {
                    return Err(ChatError::Role { number, role: role.clone(), want: "assistant" });
                }
            }
        }
        let asked = asked.map(str::to_owned);
        if conversation.turns.is_empty() && asked.is_none() {
            return Err(ChatError::NoMessages);
        }
        Ok((conversation, asked))
    }

    /// All messages, in order.
    pub fn messages(&self) -> Vec<Message> {
        self.messages_from(0)
    }

    /// The system prompt, and the messages of the turns from this one on.
    fn messages_from(&self, first: usize) -> Vec<Message> {
        let system = self.system.iter().map(|system| Message::new("system", system));
        let turns = self.turns[first..]
            .iter()
            .flat_map(|turn| [Message::new("user", &turn.user), Message::new("assistant", &turn.answer)]);
        system.chain(turns).collect()
    }

    /// The system prompt.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Changes the system prompt, from the next reply on. One of white space is none.
    pub fn set_system(&mut self, system: Option<String>) {
        self.system = system.filter(|system| !system.trim().is_empty());
    }

    /// The turns, in order.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// The turns, to be changed.
    pub fn turns_mut(&mut self) -> &mut Vec<Turn> {
        &mut self.turns
    }

    /// The prompt for the answer to a message, and the fewest of the oldest turns that it must leave out so that the reply
    /// has room.
    pub fn prompt(&self, message: &str, frame: &Frame) -> Result<Prompt, ChatError> {
        let Frame { template, tokenizer, n_ctx, max_tokens } = *frame;
        if message.trim().is_empty() {
            return Err(ChatError::EmptyMessage);
        }
        if max_tokens == 0 || max_tokens >= n_ctx {
            return Err(ChatError::Room { max_tokens, n_ctx });
        }
        let without = |dropped: usize| -> Result<Vec<u32>, ChatError> {
            let mut messages = self.messages_from(dropped);
            messages.push(Message::new("user", message));
            Ok(template.prompt(tokenizer, &messages)?)
        };
        let fits = |ids: &Vec<u32>| ids.len() <= n_ctx - max_tokens;
        let n = self.turns.len();
        let bytes: usize = self.turns.iter().map(|turn| turn.user.len() + turn.answer.len()).sum();
        if n == 0 || bytes <= MOST_BYTES * n_ctx {
            let whole = without(0)?;
            if fits(&whole) {
                return Ok(Prompt { ids: whole, dropped: 0 });
            }
        }
        let (mut kept, mut ids) = (0, without(n)?);
        if !fits(&ids) {
            let message = tokenizer.encode(message)?.len();
            return Err(ChatError::TooLong { message, prompt: ids.len(), max_tokens, n_ctx });
        }
        // Of the latest turns twice as many each time, then halving: turns that are left out for long cost nothing.
        let (mut too_many, mut trial) = (n + 1, 1);
        while kept + 1 < too_many {
            let longer = without(n - trial)?;
            if fits(&longer) {
                (kept, ids) = (trial, longer);
            } else {
                too_many = trial;
            }
            trial = if too_many > n { (2 * trial).min(n) } else { kept.midpoint(too_many) };
        }
        Ok(Prompt { ids, dropped: n - kept })
    }
}

impl<'a> Frame<'a> {
    /// The frame of a model.
    pub fn of(model: &Gpt2, template: &'a ChatTemplate, tokenizer: &'a Tokenizer, max_tokens: usize) -> Self {
        Frame { template, tokenizer, n_ctx: model.config().n_ctx, max_tokens }
    }
}

#[cfg(test)]
mod tests;
