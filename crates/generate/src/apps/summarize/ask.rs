//! How a model is asked for a summary.

use tokenizer::Tokenizer;

use super::SummarizeError;
use crate::apps::tasks;

/// How a model is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// A base model only continues: it is given the text and `TL;DR:`.
    TlDr,
}

/// What follows the text for a base model.
const TL_DR: &str = "{text}\nTL;DR:";

impl Ask {
    /// How a model of this tokenizer is asked.
    pub fn of(_tokenizer: &Tokenizer, _with_template: bool) -> Result<Ask, SummarizeError> {
        Ok(Ask::TlDr)
    }

    /// The wording for a text: an instruction that was given, or the usual one in the text's language. An instruction without
    /// `{text}` stands before the text where the model follows instructions, and after it where it only continues.
    pub(super) fn wording(&self, instruction: Option<&str>, text: &str) -> String {
        match (self, instruction) {
            (_, Some(given)) if given.contains(tasks::TEXT) => given.to_owned(),
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
            Ask::TlDr => Ok(tokenizer.encode_prompt(&asked, false)?),
        }
    }

    /// Tokens that end the summary.
    pub(super) fn end_tokens(&self, _tokenizer: &Tokenizer) -> Vec<u32> {
        match self {
            Ask::TlDr => Vec::new(),
        }
    }

    /// Strings that end the summary.
    pub(super) fn stop_strings(&self) -> Vec<String> {
        match self {
            Ask::TlDr => Vec::new(),
        }
    }
}
