//! A file of JSON lines that grows: one line for each piece of work, in order. A run that was stopped is gone on with.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The file, open and locked.
pub struct Lines {
    file: File,
    path: PathBuf,
    /// Whole lines that were there.
    pub done: Vec<Value>,
}

impl Lines {
    /// Opens a file, or makes it. Line `k` begins with `heads[k]`, an object's first keys: any other file is refused. A line
    /// that was cut short is removed. `what` is what the lines are of, and `flag` what names the file, for errors.
    pub fn open(path: &Path, heads: &[String], what: &str, flag: &str) -> Result<Lines> {
        let about = || path.display().to_string();
        ensure!(!path.exists() || path.is_file(), "{}: not a file; name a file for {flag}", path.display());
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .with_context(about)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                bail!("another process is writing {}; let it end first", path.display())
            }
            Err(TryLockError::Error(error)) if error.kind() != ErrorKind::Unsupported => {
                return Err(error).with_context(about);
            }
            // A file system without locks protects nobody, but the work is still possible on it.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let mut old = Vec::new();
        file.read_to_end(&mut old).with_context(about)?;
        let whole = old.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let mut done = Vec::new();
        let other = |line: usize| {
            let advice = format!("is not what {what} give; name another {flag}, or remove it");
            anyhow::anyhow!("{}, line {}, {advice}", path.display(), line + 1)
        };
        for line in old[..whole].split_inclusive(|&byte| byte == b'\n') {
            let value: Value = serde_json::from_slice(line).unwrap_or_default();
            let is_ours = heads.get(done.len()).is_some_and(|head| line.starts_with(head.as_bytes()));
            ensure!(is_ours && value.is_object(), other(done.len()));
            done.push(value);
        }
        // A line that was cut short is written anew; anything else is not ours to remove.
        let cut = &old[whole..];
        let head = heads.get(done.len()).map(String::as_bytes).unwrap_or_default();
        let common = cut.len().min(head.len());
        ensure!(cut.is_empty() || (common > 0 && cut[..common] == head[..common]), other(done.len()));
        file.set_len(whole as u64).with_context(about)?;
        file.seek(SeekFrom::End(0)).with_context(about)?;
        Ok(Lines { file, path: path.to_owned(), done })
    }

    /// The seed that the lines were begun with, if line `k` has it + `k` and `is_own` does not say that it has its own.
    pub fn first_seed(&self, is_own: impl Fn(usize) -> bool) -> Option<u64> {
        let seeds = self.done.iter().enumerate().filter(|&(k, _)| !is_own(k));
        seeds.filter_map(|(k, line)| Some(line["seed"].as_u64()?.wrapping_sub(k as u64))).next()
    }

    /// Appends a line.
    pub fn push(&mut self, line: &str) -> Result<()> {
        self.file.write_all(format!("{line}\n").as_bytes()).with_context(|| self.path.display().to_string())
    }

    /// Makes sure that all is on the disk.
    pub fn finish(&self) -> Result<()> {
        self.file.sync_all().with_context(|| self.path.display().to_string())
    }
}

/// A line from its head, which begins an object, and the rest of that object.
pub fn line(head: &str, rest: &Value) -> String {
    format!("{head}{}", &rest.to_string()[1..])
}
