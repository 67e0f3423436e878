//! The shape of a row, told by its fields, and the record that it becomes.

use std::fmt;
use std::ops::Range;

use serde_json::{Map, Value};
use tokenizer::chat::Message;
use tokenizer::is_chinese;

use super::columns::quoted;
use super::roles::Role;
use super::turns::{self, turns};
use super::{Conversation, Document, Options, Record, RecordError, TEXT, Wording};

/// What a row is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// A list of turns.
    Chat,
    /// A prompt and its completion.
    Prompt,
    /// An instruction, perhaps what it is about, and the answer.
    Instruction,
    /// A text and its summary, or several.
    Summary,
    /// A title and its article.
    Article,
    /// Two answers, of which one is preferred.
    Preference,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Shape::Chat => "conversations",
            Shape::Prompt => "prompts with completions",
            Shape::Instruction => "instructions with answers",
            Shape::Summary => "texts with summaries",
            Shape::Article => "titles with articles",
            Shape::Preference => "preferences (chosen, rejected)",
        })
    }
}

/// The fields that may be named by `--columns`.
pub const FIELDS: [&str; 13] = [
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "text",
    "summary",
    "title",
    "messages",
    "chosen",
    "rejected",
    "system",
    "summaries",
];
/// Names of a list of turns.
const TURNS: [&str; 6] = ["messages", "conversations", "conversation", "turns", "dialog", "dialogue"];
const PROMPTS: [&str; 2] = ["prompt", "question"];
const COMPLETIONS: [&str; 3] = ["completion", "response", "answer"];
const OUTPUTS: [&str; 2] = ["output", "response"];

/// What a row was read as.
pub struct Read {
    pub shape: Shape,
    pub records: Vec<Record>,
    /// Whether its fields were found under the names of `--columns`.
    pub used_columns: bool,
}

type Result<T> = std::result::Result<T, RecordError>;

/// Reads a row. Fields that `--columns` names count first; a row without them may have a shape of its own.
pub fn read(row: Value, options: &Options) -> Result<Read> {
    let row = match row {
        Value::Object(row) => row,
        // A conversation may stand alone.
        Value::Array(_) => Map::from_iter([("messages".to_owned(), row)]),
        other => return Err(RecordError::NotAnObject { found: said(&other).into() }),
    };
    let renamed = match options.columns.is_empty() {
        true => None,
        false => Some(options.columns.rename(&row)),
    };
    let own = Fields(&row);
    match &renamed {
        Some(Ok(renamed)) => Fields(renamed).read(options).map(|read| Read { used_columns: true, ..read }),
        Some(Err(missing)) if own.shape().is_err() => Err(missing.clone()),
        _ => own.read(options),
    }
}

struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn shape(&self) -> Result<Shape> {
        let has = |name: &str| self.0.get(name).is_some_and(|value| !value.is_null());
        let any = |names: &[&str]| names.iter().any(|name| has(name));
        match () {
            () if has("chosen") && has("rejected") => Ok(Shape::Preference),
            () if has("chosen") => Err(RecordError::HalfPair { has: "chosen", lacks: "rejected" }),
            () if has("rejected") => Err(RecordError::HalfPair { has: "rejected", lacks: "chosen" }),
            () if any(&TURNS) => Ok(Shape::Chat),
            () if has("instruction") && any(&OUTPUTS) => Ok(Shape::Instruction),
            () if any(&PROMPTS) && any(&COMPLETIONS) => Ok(Shape::Prompt),
            () if has("text") && any(&["summary", "summaries"]) => Ok(Shape::Summary),
            () if has("title") && has("text") => Ok(Shape::Article),
            () if has("text") => Err(RecordError::OnlyText),
            () => Err(RecordError::Shape { found: self.names() }),
        }
    }

    /// The fields that are there, and those that say nothing.
    fn names(&self) -> String {
        let (empty, full): (Vec<_>, Vec<_>) = self.0.iter().partition(|(_, value)| value.is_null());
        let names = |fields: Vec<(&String, &Value)>| quoted(fields.into_iter().map(|(name, _)| name));
        match empty.is_empty() {
            true => names(full),
            false => format!("{} (and empty: {})", names(full), names(empty)),
        }
    }

    fn read(&self, options: &Options) -> Result<Read> {
        let shape = self.shape()?;
        let records = match shape {
            Shape::Chat => vec![conversation(self.chat(options)?, None)],
            Shape::Prompt => {
                let answer = self.first_text(&COMPLETIONS)?;
                vec![self.asked(self.first_text(&PROMPTS)?, answer, None)?]
            }
            Shape::Instruction => {
                let (prompt, input) = self.instruction()?;
                vec![self.asked(prompt, self.first_text(&OUTPUTS)?, input.map(InTurn::User))?]
            }
            Shape::Summary => self.summaries(&options.instructions.summarize)?,
            Shape::Article => vec![self.article(&options.instructions.article)?],
            Shape::Preference => vec![self.preference(options)?],
        };
        Ok(Read { shape, records, used_columns: false })
    }

    fn text(&self, name: &str) -> Result<String> {
        let value = self.0.get(name).unwrap_or(&Value::Null);
        turns::text(value).ok_or_else(|| RecordError::NotText { field: name.to_owned(), found: said(value) })
    }

    /// The text of the first field that is there.
    fn first_text(&self, names: &[&str]) -> Result<String> {
        let there = names.iter().find(|name| self.0.contains_key(**name));
        self.text(there.unwrap_or(&names[0]))
    }

    /// The text of a field that need not be there.
    fn optional(&self, name: &str) -> Result<Option<String>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.text(name).map(|text| Some(text).filter(|text| !text.is_empty())),
        }
    }

    fn chat(&self, options: &Options) -> Result<Vec<Message>> {
        let name = TURNS.into_iter().find(|name| self.0.contains_key(*name)).unwrap_or(TURNS[0]);
        let mut messages = turns(name, &self.0[name], &options.roles)?;
        let leads = messages.first().is_some_and(|first| first.role == Role::System.name());
        if let Some(system) = self.optional("system")?.filter(|_| !leads) {
            messages.insert(0, Message::new(Role::System.name(), system));
        }
        Ok(messages)
    }

    /// The instruction, and below it what it is about, with its place.
    fn instruction(&self) -> Result<(String, Option<Range<usize>>)> {
        let instruction = self.text("instruction")?;
        Ok(match self.optional("input")? {
            Some(input) => {
                let whole = format!("{instruction}\n\n{input}");
                let range = whole.len() - input.len()..whole.len();
                (whole, Some(range))
            }
            None => (instruction, None),
        })
    }

    /// The turns up to an answer: the row's system prompt, and the user.
    fn until_answer(&self, prompt: String) -> Result<Vec<Message>> {
        let system = self.optional("system")?.map(|system| Message::new(Role::System.name(), system));
        Ok(system.into_iter().chain([Message::new(Role::User.name(), prompt)]).collect())
    }

    fn asked(&self, prompt: String, answer: String, document: Option<InTurn>) -> Result<Record> {
        let mut messages = self.until_answer(prompt)?;
        let user = messages.len() - 1;
        messages.push(Message::new(Role::Assistant.name(), answer));
        let document = document.map(|document| match document {
            InTurn::User(range) => Document { turn: user, range },
            InTurn::Assistant => Document { turn: user + 1, range: 0..messages[user + 1].content.len() },
        });
        Ok(conversation(messages, document))
    }

    /// One record for each summary: each is an answer that somebody has given.
    fn summaries(&self, wording: &Wording) -> Result<Vec<Record>> {
        let text = self.text("text")?;
        let (prompt, start) = fill(wording, &text);
        let not_text = |found| RecordError::NotText { field: "summaries".to_owned(), found };
        let summaries = match self.0.get("summaries").filter(|_| !self.0.contains_key("summary")) {
            Some(Value::Array(list)) => {
                let texts = list.iter().map(|value| turns::text(value).ok_or_else(|| not_text(said(value))));
                texts.collect::<Result<Vec<_>>>()?
            }
            Some(one) => vec![turns::text(one).ok_or_else(|| not_text(said(one)))?],
            None => vec![self.text("summary")?],
        };
        if summaries.is_empty() {
            return Ok(vec![self.asked(prompt, String::new(), None)?]);
        }
        let document = || Some(InTurn::User(start..start + text.len()));
        summaries.into_iter().map(|summary| self.asked(prompt.clone(), summary, document())).collect()
    }

    fn article(&self, wording: &Wording) -> Result<Record> {
        let title = self.text("title")?;
        let asked = match title.is_empty() {
            true => String::new(),
            false => fill(wording, &title).0,
        };
        self.asked(asked, self.text("text")?, Some(InTurn::Assistant))
    }

    /// Both answers as whole conversations.
    fn preference(&self, options: &Options) -> Result<Record> {
        let before = match ["prompt", "question"].into_iter().find(|name| self.0.contains_key(*name)) {
            Some(name) if self.0[name].is_array() => turns(name, &self.0[name], &options.roles)?,
            Some(name) => self.until_answer(self.text(name)?)?,
            None if self.0.contains_key("instruction") => self.until_answer(self.instruction()?.0)?,
            None if self.0["chosen"].is_array() && self.0["rejected"].is_array() => Vec::new(),
            None => return Err(RecordError::NoPrompt),
        };
        let whole = |name: &str| -> Result<Vec<Message>> {
            let value = &self.0[name];
            let mut answer = match value {
                Value::Array(_) => turns(name, value, &options.roles)?,
                _ => vec![Message::new(Role::Assistant.name(), self.text(name)?)],
            };
            // Some data repeats the prompt in both answers.
            let repeats = !before.is_empty() && answer.starts_with(&before);
            let mut messages = if repeats { Vec::new() } else { before.clone() };
            messages.append(&mut answer);
            Ok(messages)
        };
        Ok(Record::Choice([whole("chosen")?, whole("rejected")?]))
    }
}

/// Where a document lies in a record that is asked for.
enum InTurn {
    User(Range<usize>),
    Assistant,
}

fn conversation(messages: Vec<Message>, document: Option<Document>) -> Record {
    Record::Conversation(Conversation { messages, document })
}

/// A wording with its text, and where the text starts. An empty text asks for nothing.
fn fill(wording: &Wording, text: &str) -> (String, usize) {
    let words = if is_chinese(text) { &wording.chinese } else { &wording.english };
    match words.split_once(TEXT) {
        _ if text.is_empty() => (String::new(), 0),
        Some((before, after)) => ([before, text, after].concat(), before.len()),
        None => (format!("{words}\n{text}"), words.len() + 1),
    }
}

/// What a value is, in words.
pub fn said(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
