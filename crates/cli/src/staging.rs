//! A result that is made beside its place, and moved there when it is whole; what does not get there is removed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A file or directory being made.
pub struct Staged {
    part: PathBuf,
    target: PathBuf,
}

impl Staged {
    /// A place beside `target`, in the same file system.
    pub fn beside(target: &Path) -> Result<Staged> {
        let name = target.file_name().with_context(|| format!("{}: give a name", target.display()))?;
        let parent = target.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        let part = parent.join(format!(".{}.part{}", name.to_string_lossy(), std::process::id()));
        Ok(Staged { part, target: target.to_owned() })
    }

    /// Where to make it.
    pub fn path(&self) -> &Path {
        &self.part
    }

    /// Moves it to its place. In a directory that is there already, files of the same name are replaced, that called
    /// `last` at the end: until then the old ones are whole.
    pub fn commit(self, last: &str) -> Result<()> {
        let all = || -> std::io::Result<()> {
            if !self.part.is_dir() || !self.target.exists() {
                return fs::rename(&self.part, &self.target);
            }
            let entries = fs::read_dir(&self.part)?;
            let mut names =
                entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>()?;
            names.sort_by_key(|name| name == last);
            names.iter().try_for_each(|name| fs::rename(self.part.join(name), self.target.join(name)))
        };
        all().with_context(|| format!("cannot write {}", self.target.display()))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        _ = if self.part.is_dir() { fs::remove_dir_all(&self.part) } else { fs::remove_file(&self.part) };
    }
}
