//! What was left out, and why.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::RecordError;

/// Why a record is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The assistant says nothing.
    EmptyAnswer,
    /// Someone else says nothing.
    EmptyMessage,
    /// The assistant does not speak.
    NoAssistant,
    /// User and assistant do not take turns.
    RolesOutOfOrder,
    /// The tokens do not fit, even with the last turns left off.
    TooLong,
    /// The same as another one.
    Duplicate,
    /// The preferred answer is the other one.
    SameAnswers,
    /// The model's template does not take it.
    Template(String),
    /// A row that is wrong, where these are to be skipped.
    Malformed(RecordError),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Reason::EmptyAnswer => "empty answer",
            Reason::EmptyMessage => "empty message",
            Reason::NoAssistant => "no assistant turn",
            Reason::RolesOutOfOrder => "roles out of order",
            Reason::TooLong => "too long",
            Reason::Duplicate => "duplicate",
            Reason::SameAnswers => "both answers the same",
            Reason::Template(_) => "refused by the chat template",
            Reason::Malformed(_) => "malformed",
        })
    }
}

impl Reason {
    /// More about the first one, where there is more to say.
    fn detail(&self) -> Option<String> {
        match self {
            Reason::Template(said) => Some(said.clone()),
            Reason::Malformed(error) => Some(error.to_string()),
            _ => None,
        }
    }
}

/// How many were left out for each reason, and where the first was found.
#[derive(Clone, Debug, Default)]
pub struct Dropped(BTreeMap<String, Kind>);

#[derive(Clone, Debug)]
struct Kind {
    count: usize,
    path: PathBuf,
    line: u64,
    detail: Option<String>,
}

impl Dropped {
    /// Counts one.
    pub fn add(&mut self, reason: Reason, path: &Path, line: u64) {
        let first = || Kind { count: 0, path: path.to_owned(), line, detail: reason.detail() };
        self.0.entry(reason.to_string()).or_insert_with(first).count += 1;
    }

    /// Adds those of another count.
    pub fn extend(&mut self, other: Dropped) {
        for (name, kind) in other.0 {
            let count = kind.count;
            self.0.entry(name).or_insert(Kind { count: 0, ..kind }).count += count;
        }
    }

    /// How many in all.
    pub fn total(&self) -> usize {
        self.0.values().map(|kind| kind.count).sum()
    }

    /// Each reason and how many, by name.
    pub fn counts(&self) -> impl Iterator<Item = (&str, usize)> {
        self.0.iter().map(|(name, kind)| (name.as_str(), kind.count))
    }

    /// One line a reason: how many, and where the first is.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(name, Kind { count, path, line, detail })| {
            let detail = detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
            let first = if *count == 1 { "" } else { "the first " };
            format!("{count} {name} ({first}in {}, line {line}{detail})", path.display())
        })
    }
}
