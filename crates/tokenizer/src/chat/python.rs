//! Python's way with strings, lists and numbers, where it differs from Rust's or minijinja-contrib has none.

use std::fmt::Write;

use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Output, State};
use minijinja_contrib::pycompat;
use unicode_general_category::{GeneralCategory, get_general_category};

/// Values within values, at most, where they are printed.
const DEPTH: usize = 100;

/// Calls a method that the engine itself does not know.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let own = match value.kind() {
        ValueKind::String => text_method(value.as_str().unwrap_or_default(), name, args)?,
        ValueKind::Seq => list_method(value, name, args)?,
        _ => None,
    };
    match own {
        Some(result) => Ok(result),
        None => pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// The filter `trim`, which is `str.strip`.
pub(super) fn trim(text: String, chars: Option<String>) -> String {
    stripped(&text, chars.as_deref(), true, true).to_owned()
}

/// The filter `int`: what is no number becomes the default, 0.
pub(super) fn int(value: &Value, default: Option<i64>) -> Value {
    let whole = |x: f64| x.is_finite().then_some(x.trunc() as i64);
    let number = match value.kind() {
        ValueKind::Number if value.is_integer() => return value.clone(),
        ValueKind::Number => f64::try_from(value.clone()).ok().and_then(whole),
        ValueKind::Bool => Some(i64::from(value.is_true())),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default().trim_matches(is_space);
            text.parse().ok().or_else(|| text.parse().ok().and_then(whole))
        }
        _ => None,
    };
    number.unwrap_or(default.unwrap_or(0)).into()
}

/// The filter `float`: what is no number becomes the default, 0.0.
pub(super) fn float(value: &Value, default: Option<f64>) -> f64 {
    let number = match value.kind() {
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::Bool => Some(if value.is_true() { 1.0 } else { 0.0 }),
        ValueKind::String => value.as_str().unwrap_or_default().trim_matches(is_space).parse().ok(),
        _ => None,
    };
    number.unwrap_or(default.unwrap_or(0.0))
}

/// The test `sequence`: what has a length and items.
pub(super) fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map)
}

/// Prints a value: `str(value)`, of lists and tables with the `repr` of what they hold.
pub(super) fn print(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let is_list = value.kind() == ValueKind::Seq && !value.is_tuple();
    if !is_list && value.kind() != ValueKind::Map {
        return minijinja::escape_formatter(out, state, value);
    }
    let mut text = String::new();
    repr(&mut text, state, value, 0)?;
    minijinja::escape_formatter(out, state, &Value::from(text))
}

/// `repr` of what JSON has; anything else as the engine prints it.
fn repr(out: &mut String, state: &State, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > DEPTH {
        return Err(invalid(format!("values that lie more than {DEPTH} deep are printed")));
    }
    state.consume_fuel(1)?;
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            state.consume_fuel(text.len() as u64 / 64)?;
            repr_text(out, text);
        }
        ValueKind::Seq if !value.is_tuple() => {
            out.push('[');
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(out, state, &item, depth + 1)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(out, state, &key, depth + 1)?;
                out.push_str(": ");
                repr(out, state, &value.get_item(&key)?, depth + 1)?;
            }
            out.push('}');
        }
        _ => _ = write!(out, "{value:?}"),
    }
    Ok(())
}

fn repr_text(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for char in text.chars() {
        let code = char as u32;
        match char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if char == quote => out.extend(['\\', char]),
            _ if is_printable(char) => out.push(char),
            _ if code <= 0xFF => _ = write!(out, "\\x{code:02x}"),
            _ if code <= 0xFFFF => _ = write!(out, "\\u{code:04x}"),
            _ => _ = write!(out, "\\U{code:08x}"),
        }
    }
    out.push(quote);
}

/// `str.isprintable` of a character.
fn is_printable(char: char) -> bool {
    use GeneralCategory::*;
    let kind = get_general_category(char);
    let hidden = [
        Control,
        Format,
        Surrogate,
        PrivateUse,
        Unassigned,
        LineSeparator,
        ParagraphSeparator,
        SpaceSeparator,
    ];
    char == ' ' || !hidden.contains(&kind)
}

/// White space as `str.isspace` has it.
pub(super) fn is_space(char: char) -> bool {
    char.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&char)
}

fn stripped<'a>(text: &'a str, chars: Option<&str>, start: bool, end: bool) -> &'a str {
    let drops = |char: char| chars.map_or_else(|| is_space(char), |chars| chars.contains(char));
    let text = if start { text.trim_start_matches(drops) } else { text };
    if end { text.trim_end_matches(drops) } else { text }
}

fn text_method(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let value = match name {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            stripped(text, chars, name != "rstrip", name != "lstrip").into()
        }
        "split" | "rsplit" => split(text, args, name == "rsplit")?.into_iter().collect(),
        "splitlines" => {
            let (keep, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(kwargs.get("keepends")?).unwrap_or(false);
            lines(text).map(|(line, end)| Value::from(if keep { end } else { line })).collect()
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let cut = if separator.is_empty() {
                return Err(invalid("empty separator"));
            } else if name == "partition" {
                text.split_once(separator).map(|(a, b)| [a, separator, b])
            } else {
                text.rsplit_once(separator).map(|(a, b)| [a, separator, b])
            };
            let absent = if name == "partition" { [text, "", ""] } else { ["", "", text] };
            Tuple::from(cut.unwrap_or(absent).map(Value::from)).into()
        }
        "isspace" => {
            let () = from_args(args)?;
            (!text.is_empty() && text.chars().all(is_space)).into()
        }
        "index" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let at = if name == "index" { text.find(what) } else { text.rfind(what) };
            let at = at.ok_or_else(|| invalid("substring not found"))?;
            text[..at].chars().count().into()
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let missing = width.min(1 << 10).saturating_sub(text.chars().count());
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            format!("{sign}{}{digits}", "0".repeat(missing)).into()
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swap = |char: char| {
                if char.is_uppercase() {
                    char.to_lowercase().to_string()
                } else {
                    char.to_uppercase().to_string()
                }
            };
            text.chars().map(swap).collect::<String>().into()
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

fn list_method(list: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match name {
        "index" => {
            let (what,): (Value,) = from_args(args)?;
            let at = list.try_iter()?.position(|item| item == what);
            Ok(Some(at.ok_or_else(|| invalid(format!("{what} is not in list")))?.into()))
        }
        "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort" | "reverse" => {
            Err(invalid(format!("`{name}` would change a list, which a chat template may not do")))
        }
        _ => Ok(None),
    }
}

fn invalid(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// `str.split(sep=None, maxsplit=-1)` and `str.rsplit`.
fn split(text: &str, args: &[Value], from_end: bool) -> Result<Vec<Value>, Error> {
    let (separator, most, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = separator.or(kwargs.get("sep")?).filter(|separator| !separator.is_none());
    let most = most.or(kwargs.get("maxsplit")?).unwrap_or(-1);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut parts: Vec<Value> = match separator.as_ref().map(|separator| separator.as_str()) {
        Some(None) => return Err(invalid("a separator is a string")),
        Some(Some("")) => return Err(invalid("empty separator")),
        Some(Some(separator)) if from_end => {
            text.rsplitn(most.saturating_add(1), separator).map(Value::from).collect()
        }
        Some(Some(separator)) => text.splitn(most.saturating_add(1), separator).map(Value::from).collect(),
        None => words(text, most, from_end).into_iter().map(Value::from).collect(),
    };
    if from_end {
        parts.reverse();
    }
    Ok(parts)
}

/// Words between white space; after `most` cuts comes the rest as it stands. From the end, the last comes first.
fn words(text: &str, most: usize, from_end: bool) -> Vec<&str> {
    let strip = |text| stripped(text, None, !from_end, from_end);
    let (mut rest, mut parts) = (strip(text), Vec::new());
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let (part, others) = if from_end {
            let start = rest.char_indices().rfind(|&(_, char)| is_space(char));
            let (others, part) = rest.split_at(start.map_or(0, |(at, space)| at + space.len_utf8()));
            (part, others)
        } else {
            rest.split_at(rest.find(is_space).unwrap_or(rest.len()))
        };
        parts.push(part);
        rest = strip(others);
    }
    parts
}

/// Lines without and with what ends them, where Python ends lines.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_end = |char: char| {
        matches!(
            char,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let at = rest.find(is_end).unwrap_or(rest.len());
        let end = match &rest[at..] {
            tail if tail.starts_with("\r\n") => at + 2,
            tail => at + tail.chars().next().map_or(0, char::len_utf8),
        };
        let line = (&rest[..at], &rest[..end]);
        rest = &rest[end..];
        Some(line)
    })
}
