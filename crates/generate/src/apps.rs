//! What people do with a model: talk to it, let it write, let it summarise. Each is a program over [`crate::Texts`].

pub mod chat;
pub mod facts;
pub mod summarize;
pub mod tasks;
pub mod write;

use crate::request::Generation;

/// Tokens that the texts of a program have taken so far, those that are being written included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of prompts that are read, each prompt once, however many texts follow it.
    pub prompt_tokens: usize,
    /// Tokens written, also of texts that were not chosen or were cut.
    pub written_tokens: usize,
}

impl Usage {
    /// Adds a text whose prompt is no other's.
    fn add(&mut self, text: &Generation) {
        self.prompt_tokens += text.timings.prompt_tokens;
        self.written_tokens += text.ids.len();
    }
}
