//! Files of examples as people have them → conversations: chat logs, prompts with completions, instructions, summaries,
//! articles, preferences; as .jsonl, .json, .csv and .tsv, each also as .gz.
//!
//! Start at [`read`]. A file is a list of rows (`rows`); each row's keys tell its shape (`shapes`), which makes it
//! a [`Record`]; [`examples`] turns records into tokens. What cannot be learnt from is left out and counted
//! ([`Dropped`]); what is wrong is an error with its line.

mod columns;
mod dropped;
mod error;
pub mod examples;
mod roles;
mod rows;
mod shapes;
mod turns;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use encoding_rs::Encoding;
use tokenizer::chat::Message;

pub use columns::Columns;
pub use dropped::{Dropped, Reason};
pub use error::RecordError;
pub use roles::Roles;
pub use shapes::Shape;

use crate::{DataError, Result};

/// How files are read.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of the fields, where they are not those that are known.
    pub columns: Columns,
    /// Names of those who speak, beyond those that are known.
    pub roles: Roles,
    /// What the user says about a text or a title that comes without an instruction.
    pub instructions: Instructions,
    /// What the system says in conversations that do not say it themselves.
    pub system: Option<String>,
    /// The encoding of the files.
    pub encoding: &'static Encoding,
    /// Whether rows that are wrong are counted rather than an error.
    pub skip_bad: bool,
    /// Rows to read of each file; all where none is given.
    pub limit: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            columns: Columns::default(),
            roles: Roles::default(),
            instructions: Instructions::default(),
            system: None,
            encoding: encoding_rs::UTF_8,
            skip_bad: false,
            limit: None,
        }
    }
}

/// What the user says, with [`TEXT`] where the text goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instructions {
    /// Asks for the summary of a text.
    pub summarize: Wording,
    /// Asks for the article of a title.
    pub article: Wording,
}

/// An instruction in two languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wording {
    /// For texts in English, and in all other languages.
    pub english: String,
    /// For texts in Chinese.
    pub chinese: String,
}

/// What stands for the text in an instruction.
pub const TEXT: &str = "{text}";

impl Default for Instructions {
    fn default() -> Instructions {
        let wording =
            |english: &str, chinese: &str| Wording { english: english.into(), chinese: chinese.into() };
        Instructions {
            summarize: wording("Summarize:\n{text}", "概括：\n{text}"),
            article: wording("Write the article: {text}", "按标题写文章：{text}"),
        }
    }
}

impl Instructions {
    /// The same words for every text. They must have a place for it.
    pub fn all(words: &str) -> Result<Instructions> {
        if !words.contains(TEXT) {
            return Err(DataError::Instruction { words: words.to_owned() });
        }
        let wording = Wording { english: words.to_owned(), chinese: words.to_owned() };
        Ok(Instructions { summarize: wording.clone(), article: wording })
    }
}

/// What a row has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// What the assistant says is to be learnt.
    Conversation(Conversation),
    /// The first is preferred to the second; they begin alike.
    Choice([Vec<Message>; 2]),
}

/// Turns, in order: the system's if there is one, then the user's and the assistant's in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The turns; the last is the assistant's.
    pub messages: Vec<Message>,
    /// A long text among them, which may be cut.
    pub document: Option<Document>,
}

/// A text inside a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Which turn.
    pub turn: usize,
    /// Where in it, in bytes.
    pub range: Range<usize>,
}

/// The records of a file.
#[derive(Clone, Debug)]
pub struct File {
    /// Where it lies.
    pub path: PathBuf,
    /// Rows of each shape.
    pub shapes: BTreeMap<Shape, usize>,
    /// The records, each with the line that its row starts at.
    pub records: Vec<(u64, Record)>,
    /// Rows that nothing can be learnt from.
    pub dropped: Dropped,
    /// Conversations whose last turn, the user's, was left off: nobody answers it.
    pub left_off: usize,
    /// Whether only a part was read, since a limit was set.
    pub has_more: bool,
    /// Whether `--columns` named fields of this file.
    pub used_columns: bool,
}

/// Reads a file whole.
pub fn read(path: &Path, options: &Options) -> Result<File> {
    let mut file = File {
        path: path.to_owned(),
        shapes: BTreeMap::new(),
        records: Vec::new(),
        dropped: Dropped::default(),
        left_off: 0,
        has_more: false,
        used_columns: false,
    };
    let mut n = 0;
    for row in rows::rows(path, options)? {
        if options.limit.is_some_and(|limit| n >= limit) {
            file.has_more = true;
            break;
        }
        n += 1;
        let (line, row) = row?;
        let read = row.and_then(|row| shapes::read(row, options));
        match read {
            Ok(read) => file.take(line, read, options),
            Err(error) if options.skip_bad => {
                file.dropped.add(Reason::Malformed(error), path, line);
            }
            Err(reason) => return Err(DataError::Record { path: path.to_owned(), line, reason }),
        }
    }
    match n {
        0 => Err(DataError::Empty { path: path.to_owned() }),
        _ => Ok(file),
    }
}

impl File {
    /// Adds what a row has come to.
    fn take(&mut self, line: u64, row: shapes::Read, options: &Options) {
        *self.shapes.entry(row.shape).or_default() += 1;
        self.used_columns |= row.used_columns;
        for record in row.records {
            match turns::checked(record, options.system.as_deref()) {
                Ok((record, left_off)) => {
                    self.left_off += usize::from(left_off);
                    self.records.push((line, record));
                }
                Err(reason) => self.dropped.add(reason, &self.path, line),
            }
        }
    }
}

#[cfg(test)]
mod tests;
