//! Files of examples: the flags for reading them, the same for all commands, and what was found in them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use data::records::examples::Set;
use data::records::{self, Dropped, File, Instructions, Options, Shape, TEXT, Wording};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokenizer::Tokenizer;
use tokenizer::chat::{ChatTemplate, Message};

use crate::input::grouped;
use crate::output::note;

/// The tokens of a conversation, and which of them the assistant says.
type Rendered = (Vec<u32>, Vec<bool>);

/// The flags.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Reading {
    /// Which column is which field, as in prompt=question,completion=answer; numbers from 1 for a table without a header
    #[arg(long, value_name = "FIELD=COLUMN,…", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<String>,
    /// Who is who, as in usr=user,sys=assistant; common names are known
    #[arg(long, value_name = "NAME=ROLE,…", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<String>,
    /// What the system says in conversations that do not say it themselves
    #[arg(long, value_name = "TEXT", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// What the user says about a text that has a summary, or a title that has an article; {text} is where it goes
    /// [default: "Summarize:\n{text}", "Write the article: {text}", in Chinese for Chinese texts]
    #[arg(long, value_name = "TEXT", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// Encoding of the files, such as gb18030, utf-16le [default: utf-8]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Count rows that are wrong, and go on, rather than stop at the first
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "true|false", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_bad: Option<bool>,
    /// Cut a document that is too long at the end of a sentence, rather than leave its example out
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "true|false", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_long: Option<bool>,
    /// Rows to read of each file [default: all]
    #[arg(long, value_name = "N", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Most tokens of an example [default: the model's context]
    #[arg(long, value_name = "N", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
}

impl Reading {
    /// How files are read.
    pub fn options(&self) -> Result<Options> {
        ensure!(self.limit != Some(0), "--limit 0: it must be at least 1");
        Ok(Options {
            columns: self.columns.as_deref().map(FromStr::from_str).transpose()?.unwrap_or_default(),
            roles: self.roles.as_deref().map(FromStr::from_str).transpose()?.unwrap_or_default(),
            instructions: match &self.instruction {
                Some(words) => Instructions::all(words)?,
                None => usual_instructions(),
            },
            system: self.system.clone().filter(|system| !system.trim().is_empty()),
            encoding: data::read::encoding(self.encoding.as_deref())?,
            skip_bad: self.skip_bad.unwrap_or(false),
            limit: self.limit,
        })
    }

    /// Whether documents are cut to fit.
    pub fn cuts(&self) -> bool {
        self.cut_long == Some(true)
    }

    /// Most tokens of an example for a model of this context.
    pub fn max_length(&self, n_ctx: usize) -> Result<usize> {
        let length = self.max_length.unwrap_or(n_ctx);
        ensure!((2..=n_ctx).contains(&length), "--max-length {length}: the model reads 2 to {n_ctx} tokens");
        Ok(length)
    }
}

/// The instructions of the applications, so that a model is asked in the words that it learnt.
fn usual_instructions() -> Instructions {
    use generate::apps::tasks;
    let wording = |task: tasks::Instruction| {
        debug_assert!(tasks::TEXT == TEXT, "one mark for the text");
        Wording { english: task.english.to_owned(), chinese: task.chinese.to_owned() }
    };
    Instructions { summarize: wording(tasks::SUMMARIZE), article: wording(tasks::ARTICLE) }
}

/// Reads files whole.
pub fn read(paths: &[PathBuf], options: &Options) -> Result<Vec<File>> {
    paths.iter().map(|path| Ok(records::read(path, options)?)).collect()
}

/// Whether files hold preferences. Some that do and some that do not are refused, with `advice`.
pub fn hold_preferences<'a>(files: impl Iterator<Item = &'a File> + Clone, advice: &str) -> Result<bool> {
    let one = |preference: bool| {
        files.clone().find(|file| file.shapes.keys().any(|&shape| (shape == Shape::Preference) == preference))
    };
    match (one(true), one(false)) {
        (Some(preferences), Some(others)) => {
            let [preferences, others] = [preferences, others].map(|file| file.path.display());
            bail!("{preferences} holds preferences, {others} does not: {advice}")
        }
        (preferences, _) => Ok(preferences.is_some()),
    }
}

/// Turns a conversation into tokens, with what the assistant says.
pub fn render(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
) -> impl Fn(&[Message]) -> Result<Rendered, String> + Sync {
    |messages| template.conversation(tokenizer, messages).map_err(|error| error.to_string())
}

/// What files were read as, and what became of their rows.
#[derive(Default)]
pub struct Findings {
    pub files: Vec<FileReport>,
    pub dropped: Dropped,
    /// Conversations whose last turn was the user's.
    pub left_off: usize,
    /// Conversations that lost their last turns to fit, and documents that were cut.
    pub shortened: usize,
    pub cut: usize,
    has_asked_texts: bool,
}

/// What a file was read as.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    pub path: PathBuf,
    /// Rows of each shape, in words.
    pub shapes: Vec<(String, usize)>,
    /// Records before they became tokens; of a row with several summaries there are several.
    pub records: usize,
    pub for_validation: bool,
    pub has_more: bool,
    pub used_columns: bool,
}

impl Findings {
    /// Takes down what files were read as.
    pub fn add_files(&mut self, files: &[File], for_validation: bool) {
        for file in files {
            self.files.push(FileReport {
                path: file.path.clone(),
                shapes: file.shapes.iter().map(|(shape, rows)| (shape.to_string(), *rows)).collect(),
                records: file.records.len(),
                for_validation,
                has_more: file.has_more,
                used_columns: file.used_columns,
            });
            self.dropped.extend(file.dropped.clone());
            self.left_off += file.left_off;
            self.has_asked_texts |=
                file.shapes.keys().any(|shape| matches!(shape, Shape::Summary | Shape::Article));
        }
    }

    /// Takes down what was left out where records became tokens.
    pub fn add_set<T>(&mut self, set: &Set<T>) {
        self.dropped.extend(set.dropped.clone());
        self.shortened += set.shortened;
        self.cut += set.cut;
    }

    /// Why rows were left out, in one line.
    pub fn reasons(&self) -> String {
        self.dropped.lines().collect::<Vec<_>>().join("; ")
    }

    /// For `--json`.
    pub fn json(&self) -> Value {
        json!({
            "files": self.files,
            "dropped": self.dropped.counts().collect::<std::collections::BTreeMap<_, _>>(),
            "left_off": self.left_off, "shortened": self.shortened, "cut": self.cut,
        })
    }

    /// Says it all on standard error.
    pub fn tell(&self, reading: &Reading) {
        note!("data:");
        for file in &self.files {
            note!("  {}: {}", file.path.display(), file.words(reading));
        }
        for line in self.dropped.lines() {
            note!("  left out: {line}");
        }
        if self.dropped.counts().any(|(reason, _)| reason == "too long") && !reading.cuts() {
            note!("  (--cut-long cuts documents that are too long at the end of a sentence instead)");
        }
        for (count, what) in [
            (self.left_off, "conversations end with the user; that turn was left off"),
            (self.shortened, "conversations lost their last turns, to fit"),
            (self.cut, "documents were cut at the end of a sentence, to fit"),
        ] {
            if count > 0 {
                note!("  {} {what}", grouped(count as u64));
            }
        }
        if reading.instruction.is_some() && !self.has_asked_texts {
            note!(
                "  warning: --instruction is for texts with summaries and titles with articles, and there are none"
            );
        }
    }
}

impl FileReport {
    fn words(&self, reading: &Reading) -> String {
        let rows: Vec<String> =
            self.shapes.iter().map(|(shape, rows)| format!("{} {shape}", grouped(*rows as u64))).collect();
        let mut notes = Vec::new();
        if self.for_validation {
            notes.push("to validate on".to_owned());
        }
        let rows_read: usize = self.shapes.iter().map(|(_, rows)| rows).sum();
        if self.records > rows_read {
            notes.push(format!("one example for each of {} summaries", grouped(self.records as u64)));
        }
        if self.has_more {
            notes.push("there is more than --limit reads".to_owned());
        }
        if reading.columns.is_some() && !self.used_columns {
            notes.push("--columns names none of its fields".to_owned());
        }
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
        let rows = if rows.is_empty() { "nothing".to_owned() } else { rows.join(", ") };
        rows + &notes
    }

    /// The file's own name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or(Path::new("").as_os_str()).to_string_lossy().into_owned()
    }
}
