//! A document from its steps, as Markdown.

use std::collections::BTreeMap;

use serde::Serialize;
use tokenizer::Lang;

use super::recipe::Keep;
use super::step::StepResult;

/// A document that was written.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    /// Its language.
    pub lang: Lang,
    /// What was filled in: the topic, and the recipe's inputs.
    pub inputs: BTreeMap<String, String>,
    /// The seed it grew from.
    pub seed: u64,
    /// What each step came to.
    pub steps: Vec<StepResult>,
}

impl Written {
    /// The whole document.
    pub fn markdown(&self) -> String {
        let parts: Vec<String> = self.steps.iter().filter_map(StepResult::markdown).collect();
        parts.join("\n\n") + "\n"
    }
}

/// The level of the heading above a step's text.
const TITLE_LEVEL: usize = 2;

impl StepResult {
    /// The step's part of the document, if it has one.
    pub fn markdown(&self) -> Option<String> {
        let part = match &self.keep {
            Keep::No => return None,
            Keep::Heading(level) => heading(*level, &self.text),
            Keep::Paragraph => self.text.clone(),
            Keep::List => list(&self.text),
            Keep::Code(language) => code(language, &self.text),
        };
        Some(match &self.title {
            Some(title) => format!("{}\n\n{part}", heading(TITLE_LEVEL, title)),
            None => part,
        })
    }
}

fn heading(level: usize, text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{} {line}", "#".repeat(level))
}

/// An item for each line that says something, without the mark that it came with.
fn list(text: &str) -> String {
    let marks = |c: char| c.is_whitespace() || matches!(c, '-' | '*' | '•' | '·' | '–');
    let items = text.lines().map(|line| line.trim_start_matches(marks).trim_end());
    items.filter(|line| !line.is_empty()).map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n")
}

/// A block whose fence is longer than any that stands within.
fn code(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(3.max(longest + 1));
    format!("{fence}{language}\n{text}\n{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_each_kind() {
        assert_eq!(heading(2, " A fox\ncame "), "## A fox came");
        assert_eq!(list("- one\n\n* two\nthree "), "- one\n- two\n- three");
        assert_eq!(code("rust", "fn f() {}"), "```rust\nfn f() {}\n```");
        assert_eq!(code("", "```\nx\n```"), "````\n```\nx\n```\n````");
    }
}
