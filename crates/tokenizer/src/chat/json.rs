//! `tojson` as transformers has it: Python's `json.dumps` with `ensure_ascii=False`, and nothing escaped for HTML.

use std::fmt::Write;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// Values within values, at most.
const DEPTH: usize = 100;

/// How values are laid out.
struct Layout {
    /// What a line is indented by for each level; without it, all is in one line.
    indent: Option<String>,
    /// Between items, and between a key and its value.
    separators: (String, String),
    sort_keys: bool,
}

/// The filter. Steps are paid for what is written.
pub(super) fn to_json(
    state: &State,
    value: &Value,
    indent: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => kwargs.get::<Option<Value>>("indent")?,
    };
    let indent = match indent {
        None => None,
        Some(value) if value.is_none() => None,
        Some(value) => Some(match value.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(i64::try_from(value)?.clamp(0, 100)).unwrap_or(0)),
        }),
    };
    let separators = match kwargs.get::<Option<Vec<String>>>("separators")? {
        Some(pair) => match <[String; 2]>::try_from(pair) {
            Ok([item, key]) => (item, key),
            Err(_) => return Err(invalid("tojson: `separators` are two strings")),
        },
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let escape = kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let mut text = String::new();
    write(&mut text, state, value, &Layout { indent, separators, sort_keys }, 0)?;
    Ok(if escape { ascii(&text) } else { text }.into())
}

fn invalid(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

fn write(out: &mut String, state: &State, value: &Value, layout: &Layout, depth: usize) -> Result<(), Error> {
    if depth > DEPTH {
        return Err(invalid(format!("tojson: values lie more than {DEPTH} deep")));
    }
    state.consume_fuel(1)?;
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => write_number(out, value),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            state.consume_fuel(text.len() as u64 / 64)?;
            write_text(out, text);
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.map(|item| (None, item)).collect();
            write_items(out, state, ['[', ']'], items, layout, depth)?;
        }
        ValueKind::Map => {
            let mut items = Vec::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                items.push((Some(name_of(&key)?), item));
            }
            if layout.sort_keys {
                items.sort_by(|a, b| a.0.cmp(&b.0));
            }
            write_items(out, state, ['{', '}'], items, layout, depth)?;
        }
        kind => return Err(invalid(format!("tojson: {kind} has no form in JSON"))),
    }
    Ok(())
}

/// The items of a list, or of a table with their keys.
fn write_items(
    out: &mut String,
    state: &State,
    [open, close]: [char; 2],
    items: Vec<(Option<String>, Value)>,
    layout: &Layout,
    depth: usize,
) -> Result<(), Error> {
    let break_line = |out: &mut String, depth| {
        if let Some(indent) = layout.indent.as_ref().filter(|_| !items.is_empty()) {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    };
    out.push(open);
    for (i, (key, item)) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(&layout.separators.0);
        }
        break_line(out, depth + 1);
        if let Some(key) = key {
            write_text(out, key);
            out.push_str(&layout.separators.1);
        }
        write(out, state, item, layout, depth + 1)?;
    }
    break_line(out, depth);
    out.push(close);
    Ok(())
}

/// A key of a table as JSON has it: a string.
fn name_of(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
        ValueKind::None => "null".to_owned(),
        ValueKind::Number => {
            let mut text = String::new();
            write_number(&mut text, key);
            text
        }
        kind => return Err(invalid(format!("tojson: a key that is {kind}"))),
    })
}

fn write_number(out: &mut String, value: &Value) {
    let float = if value.is_integer() { None } else { f64::try_from(value.clone()).ok() };
    match float {
        None => out.push_str(&value.to_string()),
        Some(x) if x.is_nan() => out.push_str("NaN"),
        Some(x) if x.is_infinite() => out.push_str(if x > 0.0 { "Infinity" } else { "-Infinity" }),
        Some(x) => {
            let text = format!("{x:?}");
            match text.split_once('e') {
                None => out.push_str(&text),
                // Python writes a sign, and two digits at least.
                Some((mantissa, exponent)) => {
                    let (sign, digits) =
                        exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
                    out.push_str(&format!("{mantissa}e{sign}{digits:0>2}"));
                }
            }
        }
    }
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' => _ = write!(out, "\\u{:04x}", char as u32),
            _ => out.push(char),
        }
    }
    out.push('"');
}

/// JSON in which all that is not ASCII is escaped, in UTF-16; it stands in strings only.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_ascii() {
            out.push(char);
        } else {
            char.encode_utf16(&mut [0; 2]).iter().for_each(|unit| _ = write!(out, "\\u{unit:04x}"));
        }
    }
    out
}
