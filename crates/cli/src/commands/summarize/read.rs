//! Texts to summarise, and references to compare with, from files.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use data::DataError;
use serde_json::Value;

use crate::input;

/// A text, and what people wrote as its summary.
pub struct Document {
    /// Where it is from.
    pub name: String,
    pub text: String,
    pub references: Vec<String>,
}

/// The most bytes of a file, unpacked.
const MOST_BYTES: u64 = 1 << 30;

/// The texts of files; of - from standard input.
pub fn documents(paths: &[PathBuf]) -> Result<Vec<Document>> {
    ensure!(paths.iter().filter(|path| is_stdin(path)).count() < 2, "- stands for standard input once");
    let mut documents = Vec::new();
    for path in paths {
        let name = if is_stdin(path) { "standard input".into() } else { path.display().to_string() };
        let text = text(path)?;
        ensure!(!text.trim().is_empty(), "{name} is empty; there is nothing to summarise");
        match values(path, &text)? {
            None => documents.push(Document { name, text, references: Vec::new() }),
            Some(values) => {
                for (place, value) in values {
                    let name = format!("{name}, {place}");
                    let text = value["text"].as_str().or(value.as_str());
                    let text = text.with_context(|| {
                        format!("{name}: there is no \"text\", such as {{\"text\": \"Once …\"}}")
                    })?;
                    ensure!(
                        !text.trim().is_empty(),
                        "{name}: the text is empty; there is nothing to summarise"
                    );
                    let references = of_object(&value).with_context(|| name.clone())?;
                    documents.push(Document { name, text: text.to_owned(), references });
                }
            }
        }
    }
    Ok(documents)
}

/// The references of a file, for one text after the other.
pub fn references(path: &Path) -> Result<Vec<Vec<String>>> {
    let text = text(path).context("--references")?;
    let about = |place: &str| format!("--references {}, {place}", path.display());
    let Some(values) = values(path, &text)? else {
        let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n').enumerate();
        return lines
            .map(|(number, line)| {
                let line = line.trim();
                ensure!(!line.is_empty(), "{}: the line is empty", about(&format!("line {}", number + 1)));
                Ok(vec![line.to_owned()])
            })
            .collect();
    };
    let mut all = Vec::new();
    for (place, value) in values {
        let found = match &value {
            Value::String(reference) => vec![reference.clone()],
            Value::Array(_) => strings(&value).with_context(|| about(&place))?,
            _ => of_object(&value).with_context(|| about(&place))?,
        };
        ensure!(!found.is_empty(), "{}: there is no \"summary\" or \"summaries\"", about(&place));
        all.push(found);
    }
    Ok(all)
}

/// `summary` or `summaries` of an object.
fn of_object(value: &Value) -> Result<Vec<String>> {
    match (&value["summary"], &value["summaries"]) {
        (Value::Null, Value::Null) => Ok(Vec::new()),
        (Value::String(one), Value::Null) => Ok(vec![one.clone()]),
        (Value::Null, many @ Value::Array(_)) => strings(many),
        (Value::Null, _) => bail!("\"summaries\" is not a list of strings"),
        (_, Value::Null) => bail!("\"summary\" is not a string"),
        _ => bail!("there are both \"summary\" and \"summaries\"; keep one"),
    }
}

fn strings(list: &Value) -> Result<Vec<String>> {
    let strings = list.as_array().into_iter().flatten().map(|value| value.as_str().map(str::to_owned));
    strings.collect::<Option<_>>().context("\"summaries\" is not a list of strings")
}

/// The objects of a .jsonl or .json file, with their places; `None` for other files.
fn values(path: &Path, text: &str) -> Result<Option<Vec<(String, Value)>>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let about = |place: &str| format!("{}, {place}: not JSON", path.display());
    if name.ends_with(".jsonl") {
        let lines = text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty());
        let parse = |(number, line): (usize, &str)| {
            let place = format!("line {}", number + 1);
            let value = serde_json::from_str(line).with_context(|| about(&place))?;
            Ok((place, value))
        };
        return lines.map(parse).collect::<Result<_>>().map(Some);
    }
    if !name.ends_with(".json") {
        return Ok(None);
    }
    let value = serde_json::from_str(text).with_context(|| about("as a whole"))?;
    let list = if let Value::Array(list) = value { list } else { vec![value] };
    ensure!(!list.is_empty(), "{}: the list is empty", path.display());
    Ok(Some(list.into_iter().enumerate().map(|(i, value)| (format!("number {}", i + 1), value)).collect()))
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// The text of a file or of standard input, which must be one.
fn text(path: &Path) -> Result<String> {
    let shown = path.display();
    let bytes = if is_stdin(path) {
        input::read_bytes(path)?
    } else {
        ensure!(!path.is_dir(), "{shown} is a directory; name the files in it");
        let mut bytes = Vec::new();
        let file = data::read::open(path).map_err(|error| match error {
            // It names the file, too.
            DataError::Io { source, .. } => {
                anyhow::Error::new(source).context(format!("cannot read {shown}"))
            }
            other => other.into(),
        })?;
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {shown}"))?;
        ensure!(
            bytes.len() as u64 <= MOST_BYTES,
            "{shown} has more than {}; cut it",
            input::size(MOST_BYTES)
        );
        bytes
    };
    if let Some(offset) = bytes.iter().position(|&byte| byte == 0) {
        bail!(
            "{shown}: not a text, for there is a zero at byte {offset}; give plain text in UTF-8, or .jsonl"
        );
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{shown}: not UTF-8 at byte {offset}; convert it first")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_of_an_object() {
        let of = |json: &str| of_object(&serde_json::from_str(json).unwrap());
        assert_eq!(of(r#"{"text": "a"}"#).unwrap(), Vec::<String>::new());
        assert_eq!(of(r#"{"summary": "a"}"#).unwrap(), ["a"]);
        assert_eq!(of(r#"{"summaries": ["a", "b"]}"#).unwrap(), ["a", "b"]);
        for bad in [
            r#"{"summary": 3}"#,
            r#"{"summaries": "a"}"#,
            r#"{"summaries": [1]}"#,
            r#"{"summary": "a", "summaries": []}"#,
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
