//! What the commands print: results on standard output, where a failure is an error, and messages on standard error,
//! where it is not: a run whose terminal is gone goes on.

use std::borrow::Cow;
use std::fmt::Arguments;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use atomic_write_file::AtomicWriteFile;
use indicatif::{ProgressBar, ProgressStyle};
use tokenizer::Tokenizer;

/// Prints a message as `eprintln!` does, and does not mind if nobody can read it.
macro_rules! note {
    ($($text:tt)*) => { $crate::output::message(format_args!($($text)*)) };
}
/// Prints a line of the result as `println!` does, but gives an error back where that panics.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::result(format_args!($($text)*)) };
}
pub(crate) use {note, say};

/// A line on standard error.
pub fn message(text: Arguments) {
    _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A line on standard output.
pub fn result(text: Arguments) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context(STDOUT)
}

/// What a file says of itself, with escapes where it would steer the terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(steers) {
        return text.into();
    }
    let escaped = |c: char| if steers(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect::<String>().into()
}

/// A number with its standard error, of which nothing is said where there is none: of a single one there is no spread.
pub fn plus_minus(value: f64, stderr: f64) -> String {
    if stderr.is_nan() { format!("{value:.4}") } else { format!("{value:.4} ± {stderr:.4}") }
}

/// Tokens with their texts, as far as these are known: `"<|im_end|>" (300), "<|endoftext|>" (299)`.
pub fn token_names(ids: &[u32], tokenizer: Option<&Tokenizer>) -> String {
    let name = |&id: &u32| match tokenizer.and_then(|tokenizer| tokenizer.token_bytes(id)) {
        Some(bytes) => format!("{:?} ({id})", String::from_utf8_lossy(bytes)),
        None => format!("token {id}"),
    };
    ids.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// One JSON value on a line of standard output.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    result(format_args!("{}", serde_json::to_string(value)?))
}

/// A bar for work on so many things, called `unit`; seen on a terminal only.
pub fn bar(n: usize, unit: &str) -> ProgressBar {
    let template = format!("{{bar:24}} {{pos}}/{{len}} {unit}, {{eta}} left  {{msg}}");
    ProgressBar::new(n as u64).with_style(ProgressStyle::with_template(&template).expect("a valid template"))
}

/// Where links lead to, also where nothing is there yet: a file that is replaced is that, and the link stays.
pub fn behind_links(path: &Path) -> PathBuf {
    const MOST: usize = 40; // as the system follows
    let next = |path: &PathBuf| {
        let to = std::fs::read_link(path).ok()?;
        Some(path.parent().unwrap_or(Path::new("")).join(to))
    };
    std::iter::successors(Some(path.to_owned()), next).take(MOST).last().unwrap_or_default()
}

/// Whether a path stands for a device, or for something that is open, as `/dev/stdout` does, whatever that is. Files may lie in
/// `/dev/shm`.
pub fn is_device(path: &Path) -> bool {
    path.starts_with("/proc") || (path.starts_with("/dev") && !path.starts_with("/dev/shm"))
}

/// Writes a file, whole or not at all. What is no plain file, such as a pipe, has no place beside it: it is written to.
pub fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    let all = || -> std::io::Result<()> {
        if is_device(path) || path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return std::fs::File::options().append(true).open(path)?.write_all(bytes);
        }
        let mut file = AtomicWriteFile::open(behind_links(path))?;
        file.write_all(bytes)?;
        file.commit()
    };
    all().with_context(|| format!("cannot write {}", path.display()))
}

/// What an error of standard output is said about.
pub const STDOUT: &str = "cannot write to standard output";

/// Whether the error is only that the reader of our output went away, as `head` does.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_memory_are_files() {
        for (path, is) in
            [("/dev/stdout", true), ("/proc/self/fd/1", true), ("/dev/shm/a.md", false), ("dev/a.md", false)]
        {
            assert_eq!(is_device(Path::new(path)), is, "{path}");
        }
    }
}
