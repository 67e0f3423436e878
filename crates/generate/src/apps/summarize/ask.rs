//! How a model is asked for a summary.

use tokenizer::Tokenizer;
use tokenizer::chat::{ChatTemplate, Message};
use tokenizer::split::is_han;

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
        Ok(if template.is_assumed() { Ask::TlDr } else { Ask::Template(template) })
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

    /// The prompt for a text with a sentence as its answer, as the model would write it, and where the answer starts.
    pub(super) fn answered(
        &self,
        tokenizer: &Tokenizer,
        wording: &str,
        text: &str,
        sentence: &str,
    ) -> Result<(Vec<u32>, usize), SummarizeError> {
        match self {
            Ask::Template(template) => {
                let asked = Message::new("user", tasks::fill(wording, text));
                let turns = [asked, Message::new("assistant", sentence)];
                let (mut ids, is_answer) = template.conversation(tokenizer, &turns)?;
                let start = is_answer.iter().position(|&is| is).unwrap_or(ids.len());
                ids.truncate(is_answer.iter().rposition(|&is| is).map_or(start, |last| last + 1));
                Ok((ids, start))
            }
            Ask::TlDr => {
                let mut ids = self.prompt(tokenizer, wording, text)?;
                let start = ids.len();
                // A word that follows begins with its space, where words have any.
                let space = if sentence.starts_with(is_han) { "" } else { " " };
                ids.extend(tokenizer.encode(&format!("{space}{sentence}"))?);
                Ok((ids, start))
            }
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
