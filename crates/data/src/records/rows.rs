//! The rows of a file: JSON objects, each with the line that it starts at.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Options, RecordError};
use crate::read::{Text, kind, unwrap_io};
use crate::{DataError, Result};

/// A row: its line, and its fields, or what is wrong with it.
pub type Row = (u64, std::result::Result<Value, RecordError>);
type Rows = Box<dyn Iterator<Item = Result<Row>>>;

/// The rows of a file, in order. An error of the file ends them; one of a row does not.
pub fn rows(path: &Path, options: &Options) -> Result<Rows> {
    let (kind, packed) = kind(path);
    let known = ["jsonl", "ndjson", "json", "csv", "tsv"];
    if !known.contains(&kind.as_str()) && path.exists() && !path.is_dir() {
        return Err(DataError::RecordKind { path: path.to_owned() });
    }
    refuse_utf16(path, packed, options)?;
    let text = Text::open(path, packed, options.encoding)?;
    match kind.as_str() {
        "json" => whole(text),
        "csv" => table(text, b',', options),
        "tsv" => table(text, b'\t', options),
        _ => Ok(Box::new(lines(text))),
    }
}

/// UTF-16, as spreadsheets write it, begins with a mark. In UTF-8 it would be told as a bad byte.
fn refuse_utf16(path: &Path, packed: bool, options: &Options) -> Result<()> {
    if packed || options.encoding != encoding_rs::UTF_8 || path.is_dir() {
        return Ok(());
    }
    let mut mark = [0; 2];
    let file = std::fs::File::open(path).map_err(DataError::io(path))?;
    let read = BufReader::with_capacity(2, file).read_exact(&mut mark);
    let name = match (read, mark) {
        (Ok(()), [0xFF, 0xFE]) => "utf-16le",
        (Ok(()), [0xFE, 0xFF]) => "utf-16be",
        _ => return Ok(()),
    };
    Err(DataError::Utf16 { path: path.to_owned(), name })
}

/// One object a line.
fn lines(text: Text) -> impl Iterator<Item = Result<Row>> {
    let path = text.path.clone();
    let (mut text, mut line, mut buffer) = (BufReader::new(text), 0, String::new());
    std::iter::from_fn(move || {
        loop {
            buffer.clear();
            match text.read_line(&mut buffer) {
                Ok(0) => return None,
                Ok(_) => line += 1,
                Err(error) => return Some(Err(unwrap_io(&path, error))),
            }
            if !buffer.trim().is_empty() {
                let row = serde_json::from_str(&buffer).map_err(|error| json_error(&error));
                return Some(Ok((line, row)));
            }
        }
    })
}

/// The parser's words, without a line number, which would be that within the row.
fn json_error(error: &serde_json::Error) -> RecordError {
    let text = error.to_string();
    let reason = match text.rsplit_once(" at line ") {
        Some((reason, _)) => format!("{reason} at character {}", error.column()),
        None => text,
    };
    RecordError::Json { reason }
}

/// A list of objects, or objects one after the other.
fn whole(mut text: Text) -> Result<Rows> {
    let path = text.path.clone();
    let mut all = String::new();
    while text.append(&mut all)? {}
    let syntax = |error: serde_json::Error, before: &str| {
        let line = (before.matches('\n').count() + error.line()) as u64;
        DataError::Record { path: path.clone(), line, reason: json_error(&error) }
    };
    let values: Vec<&RawValue> = match all.trim_start().starts_with('[') {
        true => serde_json::from_str(&all).map_err(|error| syntax(error, ""))?,
        false => {
            let values = serde_json::Deserializer::from_str(&all).into_iter();
            values.collect::<std::result::Result<_, _>>().map_err(|error| syntax(error, ""))?
        }
    };
    let mut rows = Vec::with_capacity(values.len());
    let (mut at, mut line) = (0, 1);
    for value in values {
        // The raw value is a part of the text, so its place is that of its first byte.
        let start = value.get().as_ptr() as usize - all.as_ptr() as usize;
        line += all[at..start].matches('\n').count() as u64;
        at = start;
        rows.push(Ok((line, serde_json::from_str(value.get()).map_err(|error| json_error(&error)))));
    }
    Ok(Box::new(rows.into_iter()))
}

/// A table with a header, or with numbered columns. In .tsv a quote is a character like others, as IANA has it.
fn table(mut text: Text, delimiter: u8, options: &Options) -> Result<Rows> {
    let path = text.path.clone();
    let mut all = String::new();
    while text.append(&mut all)? {}
    // The reader of tables counts a line end of two characters into the line after it.
    let all = all.replace("\r\n", "\n");
    let first = all.lines().next().unwrap_or_default();
    // Spreadsheets in countries with a decimal comma write semicolons.
    let delimiter = match delimiter {
        b',' if !first.contains(',') && first.contains(';') => b';',
        other => other,
    };
    if let Some(line) = open_quote(&all, delimiter).filter(|_| delimiter != b'\t') {
        let reason = RecordError::Table { reason: "a quote begins here that never ends".to_owned() };
        return Err(DataError::Record { path, line, reason });
    }
    let reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(delimiter != b'\t')
        .has_headers(false)
        .from_reader(std::io::Cursor::new(all.into_bytes()));
    let mut records = reader.into_records();
    let names: Option<Vec<String>> = match options.columns.are_numbers() {
        true => None,
        false => match records.next() {
            None => return Ok(Box::new(std::iter::empty())),
            Some(names) => {
                let names = names.map_err(|error| table_file_error(&path, error))?;
                let names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).collect();
                let mut seen = std::collections::HashSet::new();
                if let Some(twice) =
                    names.iter().find(|name| !seen.insert(*name) && options.columns.may_be(name))
                {
                    let reason = RecordError::Table { reason: format!("two columns are called `{twice}`") };
                    return Err(DataError::Record { path, line: 1, reason });
                }
                Some(names)
            }
        },
    };
    Ok(Box::new(records.map(move |record| table_row(&path, names.as_deref(), record))))
}

/// The line in which a quoted cell begins that goes on to the end of the text: the reader of tables takes all of it for the cell.
fn open_quote(text: &str, delimiter: u8) -> Option<u64> {
    let (mut line, mut is_start, mut quoted) = (1, true, None);
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, quoted) {
            // Two quotes in a quoted cell are one of its characters.
            (b'"', Some(_)) if bytes.next_if_eq(&b'"').is_none() => quoted = None,
            (b'"', None) if is_start => quoted = Some(line),
            _ => {}
        }
        is_start = quoted.is_none() && (byte == delimiter || byte == b'\n');
        line += u64::from(byte == b'\n');
    }
    quoted
}

fn table_row(
    path: &Path,
    names: Option<&[String]>,
    record: std::result::Result<csv::StringRecord, csv::Error>,
) -> Result<Row> {
    let record = match record {
        Ok(record) => record,
        Err(error) => {
            let line = error.position().map_or(0, csv::Position::line);
            return match error.kind() {
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    let reason = format!("{len} cells, where the first line has {expected_len}");
                    Ok((line, Err(RecordError::Table { reason })))
                }
                _ => Err(table_file_error(path, error)),
            };
        }
    };
    let line = record.position().map_or(0, csv::Position::line);
    let name = |i: usize| names.map_or_else(|| (i + 1).to_string(), |names| names[i].clone());
    let fields: Map<String, Value> =
        record.iter().enumerate().map(|(i, cell)| (name(i), Value::String(cell.to_owned()))).collect();
    Ok((line, Ok(Value::Object(fields))))
}

/// An error that ends the reading of a table.
fn table_file_error(path: &Path, error: csv::Error) -> DataError {
    let line = error.position().map_or(1, csv::Position::line);
    let reason = RecordError::Table { reason: error.to_string() };
    DataError::Record { path: path.to_owned(), line, reason }
}
