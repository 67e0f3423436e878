//! Replies: each is written after the prompt of its conversation, streamed, and ends where the template says.

use std::ops::Deref;
use std::sync::Arc;

use models::Gpt2;
use tokenizer::Tokenizer;
use tokenizer::chat::ChatTemplate;

use super::{ChatError, Conversation, Frame, Turn};
use crate::constraint::Constraint;
use crate::engine::EngineSettings;
use crate::request::{Finish, Generation, Request, TextEvent, Texts};
use crate::sampling::Sampling;
use crate::speculate::Speculation;

/// Tokens that are guessed at once from what was said before.
const LOOKUP: usize = 8;
/// Prompts whose keys and values are kept: that of the last turn, and one that was taken back.
const KEPT: usize = 2;

/// A model that answers. What the prompts of two turns share is computed once.
#[derive(Debug)]
pub struct Chat<'a, M: Deref<Target = Gpt2>> {
    pub(super) texts: Texts<'a, M>,
    tokenizer: &'a Tokenizer,
    template: ChatTemplate,
    stop: Vec<String>,
    end_tokens: Vec<u32>,
}

/// How a reply is written.
#[derive(Clone, Debug)]
pub struct ReplySettings {
    /// How tokens are drawn. The template's end tokens end the reply as well as those given here.
    pub sampling: Sampling,
    /// Tokens of a reply, at most; so much of the context is kept for it.
    pub max_tokens: usize,
    /// What each reply must be.
    pub constraint: Option<Arc<Constraint>>,
}

/// A reply, whole or as far as it was said.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The turn that it makes, whose answer is without white space at both ends.
    pub turn: Turn,
    /// The oldest turns that the model did not see, since its context holds no more.
    pub dropped: usize,
    /// The tokens as they were written, and how long that took.
    pub generation: Generation,
}

impl Reply {
    /// Tokens of the context that prompt and reply take.
    pub fn context(&self) -> usize {
        self.generation.timings.prompt_tokens + self.generation.ids.len()
    }
}

impl<'a, M: Deref<Target = Gpt2>> Chat<'a, M> {
    /// A model that answers in the form of this template.
    pub fn new(model: M, tokenizer: &'a Tokenizer, template: ChatTemplate) -> Result<Self, ChatError> {
        let settings = EngineSettings::for_batch(&model, 1);
        let settings = EngineSettings {
            kept: KEPT,
            blocks: (1 + KEPT) * settings.blocks,
            speculation: Speculation::Lookup { most: LOOKUP },
            ..settings
        };
        let (stop, end_tokens) = (template.stop_strings(), template.end_tokens(tokenizer));
        Ok(Chat { texts: Texts::new(model, tokenizer, settings)?, tokenizer, template, stop, end_tokens })
    }

    /// The template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.tokenizer
    }

    /// The model.
    pub fn model(&self) -> &Gpt2 {
        self.texts.engine().model()
    }

    /// Answers a message. The conversation stays as it is: push the reply's turn to go on from it.
    ///
    /// `on_text` is given each piece as it becomes certain, and stops the reply by returning false; it is called with an
    /// empty piece where a step made none certain. The pieces together are the turn's answer.
    pub fn reply(
        &mut self,
        conversation: &Conversation,
        message: &str,
        settings: &ReplySettings,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Reply, ChatError> {
        let frame = Frame::of(self.model(), &self.template, self.tokenizer, settings.max_tokens);
        let prompt = conversation.prompt(message, &frame)?;
        let mut sampling = settings.sampling.clone();
        sampling.processors.stop_tokens.extend(&self.end_tokens);
        let (max_tokens, stop) = (Some(settings.max_tokens), self.stop.clone());
        let constraint = settings.constraint.clone();
        let request =
            Request { prompt: prompt.ids, max_tokens, stop, sampling, constraint, ..Request::default() };
        let mut answer = Answer::default();
        let generation = self.write(&request, &mut |piece| on_text(&answer.push(piece)))?;
        let turn = Turn { user: message.to_owned(), answer: answer.shown, finish: generation.finish };
        Ok(Reply { turn, dropped: prompt.dropped, generation })
    }

    /// Writes one text, with a call for each step at least.
    fn write(
        &mut self,
        request: &Request,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generation, ChatError> {
        let id = self.texts.add(request)?;
        loop {
            let mut asked_to_stop = !on_text("");
            let events = match self.texts.step() {
                Ok(events) => events,
                Err(error) => {
                    self.texts.cancel(id);
                    return Err(error.into());
                }
            };
            for event in events {
                match event {
                    TextEvent::Piece(_, piece) => asked_to_stop |= !asked_to_stop && !on_text(&piece),
                    TextEvent::Done(_, result) => {
                        let mut generation = result?;
                        if asked_to_stop {
                            generation.finish = Finish::Cancelled; // what came after was not shown
                        }
                        return Ok(generation);
                    }
                    TextEvent::Slid(..) => {}
                }
            }
            if asked_to_stop && let Some(generation) = self.texts.cancel(id) {
                return Ok(generation);
            }
        }
    }
}

/// What is shown of a reply: white space at its beginning is not, and at its end only where more follows.
#[derive(Debug, Default)]
pub struct Answer {
    shown: String,
    held: String,
}

impl Answer {
    /// Takes in a piece, and gives what may be shown now.
    pub fn push(&mut self, piece: &str) -> String {
        self.held += piece;
        let end = self.held.trim_end().len();
        let mut ready: String = self.held.drain(..end).collect();
        if self.shown.is_empty() {
            ready.drain(..ready.len() - ready.trim_start().len());
        }
        self.shown += &ready;
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_no_white_space_at_its_ends() {
        for cuts in 0..1u32 << 12 {
            let (mut answer, mut pieces, mut piece) = (Answer::default(), String::new(), String::new());
            for (i, char) in " \n你 好\n\n a. \n".chars().enumerate() {
                piece.push(char);
                if cuts >> i & 1 == 1 {
                    pieces += &answer.push(&std::mem::take(&mut piece));
                }
            }
            pieces += &answer.push(&piece);
            assert_eq!((pieces.as_str(), answer.shown.as_str()), ("你 好\n\n a.", "你 好\n\n a."));
        }
    }
}
