//! Where messages stand in the text that a template makes of them.
//!
//! Characters of the private planes that occur nowhere are put around what is said, and taken out again. Should the
//! template treat a message differently for it, so that the text is not the same, less is marked: only the names of special
//! tokens in messages, which must not become those tokens.

use std::ops::Range;

use super::engine::{Given, Jinja};
use super::{Message, TemplateError, python};

/// A rendered conversation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Marked {
    /// As the template makes it.
    pub text: String,
    /// Messages by number, and where their words stand; in the order of their starts.
    pub contents: Vec<(usize, Range<usize>)>,
    /// What came from messages, in which no special token is looked for; in order and apart.
    pub protected: Vec<Range<usize>>,
    /// What the template marks as answers.
    pub generation: Vec<Range<usize>>,
}

impl Marked {
    /// Adds a range that ends after all others; those within it are a part of it.
    fn protect(&mut self, range: Range<usize>) {
        while self.protected.last().is_some_and(|last| last.start >= range.start) {
            self.protected.pop();
        }
        self.protected.push(range);
    }
}

/// What is marked in messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// All that is said, without the white space around it.
    Contents,
    /// Names of special tokens.
    Names,
}

/// Pairs of marks before those of messages: around answers, and around names of special tokens.
const GENERATION: usize = 0;
const NAMES: usize = 1;
const MESSAGES: usize = 2;

/// The first character that marks are taken from.
const FIRST: char = '\u{F0000}';

impl Jinja {
    /// Renders a conversation, and finds out what is where. `special` are the names of special tokens.
    pub(super) fn render_marked(
        &self,
        messages: &[Message],
        given: &Given,
        source: &str,
        special: &[&str],
    ) -> Result<Marked, TemplateError> {
        let text = self.render(messages, given)?;
        let marks = unused(messages, source, 2 * (messages.len() + MESSAGES));
        let has_names = messages.iter().any(|Message { role, content }| {
            special.iter().any(|name| content.contains(name) || role.contains(name))
        });
        for level in [Level::Contents, Level::Names] {
            let marked: Vec<Message> = messages
                .iter()
                .zip(marks.chunks_exact(2).skip(MESSAGES))
                .map(|(message, around)| match level {
                    Level::Contents => Message {
                        role: with_names(&message.role, special, &marks),
                        content: around_words(&message.content, around),
                    },
                    Level::Names => Message {
                        role: with_names(&message.role, special, &marks),
                        content: with_names(&message.content, special, &marks),
                    },
                })
                .collect();
            let given = Given { marks: Some([marks[0], marks[1]]), ..*given };
            if let Ok(rendered) = self.render(&marked, &given)
                && let Some(found) = take_out(&rendered, &marks)
                && found.text == text
            {
                return Ok(found);
            }
        }
        if has_names {
            return Err(TemplateError::SpecialName);
        }
        Ok(Marked { text, ..Marked::default() })
    }
}

/// Characters that stand neither in the messages nor in the template.
fn unused(messages: &[Message], source: &str, n: usize) -> Vec<char> {
    let texts = messages.iter().flat_map(|message| [message.role.as_str(), &message.content]).chain([source]);
    // Those characters start with one of the last bytes there are.
    let rare = texts.filter(|text| text.bytes().any(|byte| byte >= 0xF3));
    let used: std::collections::HashSet<char> =
        rare.flat_map(str::chars).filter(|&char| char >= FIRST).collect();
    (FIRST..=char::MAX).filter(|char| !used.contains(char)).take(n).collect()
}

/// The text with marks inside the white space around it.
fn around_words(text: &str, around: &[char]) -> String {
    let words = text.trim_matches(python::is_space);
    if words.is_empty() {
        return text.to_owned();
    }
    let start = words.as_ptr() as usize - text.as_ptr() as usize;
    let (before, after) = (&text[..start], &text[start + words.len()..]);
    format!("{before}{}{words}{}{after}", around[0], around[1])
}

/// The text with marks around each name of a special token.
fn with_names(text: &str, special: &[&str], marks: &[char]) -> String {
    let [open, close] = [marks[2 * NAMES], marks[2 * NAMES + 1]];
    let (mut out, mut rest) = (String::new(), text);
    let first = |rest: &str| {
        let found = special.iter().filter_map(|name| Some((rest.find(name)?, name.len())));
        found.min_by_key(|&(at, len)| (at, std::cmp::Reverse(len)))
    };
    while let Some((at, len)) = first(rest) {
        out.push_str(&rest[..at]);
        out.push(open);
        out.push_str(&rest[at..at + len]);
        out.push(close);
        rest = &rest[at + len..];
    }
    out + rest
}

/// The text without its marks, if they come in pairs.
fn take_out(rendered: &str, marks: &[char]) -> Option<Marked> {
    let mut found = Marked::default();
    let mut open = Vec::new();
    for char in rendered.chars() {
        // Marks are in the order of their code points.
        let Some(mark) = (char >= FIRST).then(|| marks.binary_search(&char).ok()).flatten() else {
            found.text.push(char);
            continue;
        };
        let (pair, at) = (mark / 2, found.text.len());
        if mark.is_multiple_of(2) {
            open.push((pair, at));
            continue;
        }
        let (opened, start) = open.pop()?;
        if opened != pair {
            return None;
        }
        let range = start..at;
        match pair {
            GENERATION => found.generation.push(range),
            NAMES => found.protect(range),
            _ => {
                found.contents.push((pair - MESSAGES, range.clone()));
                found.protect(range);
            }
        }
    }
    found.contents.sort_by_key(|(_, range)| range.start);
    open.is_empty().then_some(found)
}
