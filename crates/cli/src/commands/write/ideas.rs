//! What to write about, from a table: csv or tsv with named columns, or JSON lines.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use generate::apps::write::Recipe;
use serde_json::{Map, Value};
use tokenizer::Lang;

use crate::input;
use crate::output::note;

/// A document to write.
#[derive(Debug, PartialEq)]
pub struct Idea {
    pub topic: String,
    /// Values of the recipe's inputs.
    pub given: BTreeMap<String, String>,
    pub seed: Option<u64>,
    pub lang: Option<Lang>,
    /// Where it stands in the file.
    pub line: u64,
}

/// A row: its line, and its values by column.
type Row = (u64, BTreeMap<String, String>);

/// Reads the ideas of a file, each checked against the recipe.
pub fn read(path: &Path, recipe: &Recipe) -> Result<Vec<Idea>> {
    let name = path.to_string_lossy().to_lowercase();
    let text = || Ok::<_, anyhow::Error>(input::read_text(path)?.trim_start_matches('\u{feff}').to_owned());
    let rows = match name.rsplit('.').next() {
        Some("csv") => table(&text()?, b','),
        Some("tsv") => table(&text()?, b'\t'),
        Some("jsonl") => objects(&text()?),
        _ => bail!("--input {}: give a .csv, .tsv or .jsonl file", path.display()),
    };
    let rows = rows.with_context(|| path.display().to_string())?;
    ensure!(!rows.is_empty(), "{} holds no topics", path.display());
    note_unused(&rows, recipe);
    let ideas = rows.into_iter().map(|(line, values)| {
        idea(line, values, recipe).with_context(|| format!("{}, line {line}", path.display()))
    });
    ideas.collect()
}

/// The rows below a line of column names.
fn table(text: &str, delimiter: u8) -> Result<Vec<Row>> {
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::Headers).from_reader(text.as_bytes());
    let columns = reader.headers()?.clone();
    for (at, column) in columns.iter().enumerate() {
        ensure!(!columns.iter().take(at).any(|other| other == column), "two columns are called {column:?}");
    }
    ensure!(columns.iter().any(|column| column == "topic"), no_topic(columns.iter()));
    let rows = reader.records().map(|record| {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let values = columns.iter().zip(&record).map(|(column, value)| (column.to_owned(), value.to_owned()));
        Ok((line, values.collect()))
    });
    rows.collect()
}

/// The objects of JSON lines; numbers are read as they stand.
fn objects(text: &str) -> Result<Vec<Row>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let rows = lines.map(|(at, line)| {
        let about = || format!("line {}: each line is an object such as {{\"topic\": \"tea\"}}", at + 1);
        let object: Map<String, Value> = serde_json::from_str(line).with_context(about)?;
        ensure!(
            object.contains_key("topic"),
            "line {}: {}",
            at + 1,
            no_topic(object.keys().map(String::as_str))
        );
        let mut values = BTreeMap::new();
        for (key, value) in object {
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(is) => is.to_string(),
                Value::Null => continue,
                _ => bail!("line {}: `{key}` is no text", at + 1),
            };
            values.insert(key, text);
        }
        Ok((at as u64 + 1, values))
    });
    rows.collect()
}

fn no_topic<'a>(columns: impl Iterator<Item = &'a str>) -> String {
    let columns: Vec<&str> = columns.collect();
    format!(
        "there is no column `topic`, but {}; name the column of what to write about so",
        columns.join(", ")
    )
}

fn idea(line: u64, mut values: BTreeMap<String, String>, recipe: &Recipe) -> Result<Idea> {
    let topic = values.remove("topic").unwrap_or_default();
    ensure!(!topic.trim().is_empty(), "the topic is empty; say in a few words what to write about");
    let is_input = |name: &str| recipe.inputs.iter().any(|input| input.name == name);
    let mut take =
        |name| if is_input(name) { None } else { values.remove(name).filter(|v| !v.trim().is_empty()) };
    let seed = take("seed");
    let lang = take("lang");
    values.retain(|name, value| is_input(name) && !value.is_empty());
    Ok(Idea {
        topic,
        given: values,
        seed: seed
            .map(|seed| seed.trim().parse().with_context(|| format!("the seed {seed:?} is no whole number")))
            .transpose()?,
        lang: lang.map(|lang| lang.trim().parse().map_err(anyhow::Error::msg)).transpose()?,
        line,
    })
}

/// Says which columns the recipe has no use for.
fn note_unused(rows: &[Row], recipe: &Recipe) {
    let is_used = |name: &str| {
        ["topic", "seed", "lang"].contains(&name) || recipe.inputs.iter().any(|i| i.name == name)
    };
    let mut unused: Vec<&String> = rows.iter().flat_map(|(_, values)| values.keys()).collect();
    unused.sort();
    unused.dedup();
    unused.retain(|name| !is_used(name));
    if !unused.is_empty() {
        let names: Vec<&str> = unused.into_iter().map(String::as_str).collect();
        note!("warning: the recipe has no input for the columns {}; they are not used", names.join(", "));
    }
}
