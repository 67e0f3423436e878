//! A file that is written beside its place, and moved there when it is whole.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::output::{behind_links, is_device};

/// The file; what is not moved to its place is removed.
pub struct Part {
    target: PathBuf,
    path: PathBuf,
    file: BufWriter<File>,
}

impl Part {
    /// Begins a file beside `target`.
    pub fn beside(target: &Path) -> Result<Part> {
        ensure!(!is_device(target), "{}: no place for a file; name one", target.display());
        let behind = behind_links(target);
        let mut name = behind.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = PathBuf::from(name);
        let file = File::create_new(&path).with_context(|| format!("cannot write {}", target.display()))?;
        Ok(Part { target: behind, path, file: BufWriter::new(file) })
    }

    /// Appends a line.
    pub fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.file, "{text}").with_context(|| format!("cannot write {}", self.target.display()))
    }

    /// Moves the file to its place, which it gives back. One that is there is replaced, or an error.
    pub fn commit(mut self, replace: bool) -> Result<PathBuf> {
        let mut all = || -> std::io::Result<()> {
            self.file.flush()?;
            self.file.get_ref().sync_all()?;
            if replace {
                return fs::rename(&self.path, &self.target);
            }
            // Another process may have made the file meanwhile: a link does not replace it.
            fs::hard_link(&self.path, &self.target).or_else(|error| match error.kind() {
                ErrorKind::AlreadyExists => Err(error),
                _ => fs::rename(&self.path, &self.target),
            })
        };
        all().with_context(|| format!("cannot write {}", self.target.display()))?;
        Ok(self.target.clone())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.path);
    }
}
