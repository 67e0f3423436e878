//! How a model is asked for a summary.

use tokenizer::Tokenizer;
use tokenizer::chat::{ChatTemplate, Kind, Message};

use super::SummarizeError;
use crate::apps::tasks;

/// How a model is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// In a conversation of one turn, as it was fine-tuned.
    Template(ChatTemplate),
    /// A base model only continues: it is given the text and `TL;DR:`.
    TlDr,
}

/// What follows the text for a base model.
const TL_DR: &str = "{text}\nTL;DR:";

impl Ask {
    /// Asks through the template of a tokenizer; with the tokens or the template of no conversation, it is a base model's.
    pub fn of(tokenizer: &Tokenizer) -> Result<Ask, SummarizeError> {
        let template = ChatTemplate::of(tokenizer)?;
        let is_base = tokenizer.chat_template().is_none() && template.kind() == Kind::Plain;
        Ok(if is_base { Ask::TlDr } else { Ask::Template(template) })
    }

    /// Asks through a template even where the tokenizer has none.
    pub fn with_template(tokenizer: &Tokenizer) -> Result<Ask, SummarizeError> {
        Ok(Ask::Template(ChatTemplate::of(tokenizer)?))
    }

    /// The wording for a text: an instruction that was given, or the usual one in the text's language. An instruction without
    /// `{text}` stands before the text where the model follows instructions, and after it where it only continues.
    pub(super) fn wording(&self, instruction: Option<&str>, text: &str) -> String {
        match (self, instruction) {
            (_, Some(given)) if given.contains(tasks::TEXT) => given.to_owned(),
            (Ask::Template(_), Some(given)) => format!("{given}\n{}", tasks::TEXT),
            (Ask::Template(_), None) => tasks::SUMMARIZE.wording(text).to_owned(),
            (Ask::TlDr, Some(given)) => format!("{}\n{given}", tasks::TEXT),
            (Ask::TlDr, None) => TL_DR.to_owned(),
        }
    }

    /// The prompt for a text.
    pub(super) fn prompt(
        &self,
        tokenizer: &Tokenizer,
        wording: &str,
        text: &str,
    ) -> Result<Vec<u32>, SummarizeError> {
        let asked = tasks::fill(wording, text);
        match self {
            Ask::Template(template) => Ok(template.prompt(tokenizer, &[Message::new("user", asked)])?),
            Ask::TlDr => Ok(tokenizer.encode_prompt(&asked, false)?),
        }
    }

    /// Tokens that end the summary.
    pub(super) fn end_tokens(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        match self {
            Ask::Template(template) => template.end_tokens(tokenizer),
            Ask::TlDr => Vec::new(),
        }
    }

    /// Strings that end the summary.
    pub(super) fn stop_strings(&self) -> Vec<String> {
        match self {
            Ask::Template(template) => template.stop_strings(),
            Ask::TlDr => Vec::new(),
        }
    }
}
