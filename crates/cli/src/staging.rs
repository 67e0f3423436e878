//! A result that is made beside its place, and moved there when it is whole; what does not get there is removed, after an
//! error and after a signal.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::output::{behind_links, is_device};
use crate::signals;

/// A file or directory being made.
pub struct Staged {
    /// A directory of its own, once it is there, which holds whatever is made on the way. It is locked while files are
    /// moved: a signal must not come between two of them.
    dir: Arc<Mutex<Option<PathBuf>>>,
    part: PathBuf,
    target: PathBuf,
}

impl Staged {
    /// A place in the same file system as `target`: beside it, or within it where it is a directory already, which may be one of
    /// another file system than its parent.
    pub fn beside(target: &Path) -> Result<Staged> {
        ensure!(!is_device(target), "{}: no place for a file; name one", target.display());
        let target = &behind_links(target);
        let (parent, name) = match target.is_dir() {
            true => (target.as_path(), OsStr::new("whole")),
            false => {
                let name =
                    target.file_name().with_context(|| format!("{}: give a name", target.display()))?;
                let parent = target.parent().filter(|parent| *parent != Path::new(""));
                (parent.unwrap_or(Path::new(".")), name)
            }
        };
        let failed = || format!("cannot write {}", target.display());
        fs::create_dir_all(parent).with_context(failed)?;
        let dir = Arc::new(Mutex::new(None));
        let seen = dir.clone();
        signals::before_end(move || {
            let dir = lock(&seen);
            dir.as_deref().inspect(|dir| remove(dir));
            std::mem::forget(dir); // nothing is made or moved any more
        })?;
        let made = new_dir(parent, &mut lock(&dir)).with_context(failed)?;
        Ok(Staged { dir, part: made.join(name), target: target.to_owned() })
    }

    /// Where to make it.
    pub fn path(&self) -> &Path {
        &self.part
    }

    /// Moves it to its place. In a directory that is there already, files of the same name are replaced, that called
    /// `last` at the end: until then the old ones are whole.
    pub fn commit(self, last: &str) -> Result<()> {
        let _moving = lock(&self.dir);
        let all = || -> io::Result<()> {
            if !self.part.is_dir() || !self.target.exists() {
                return fs::rename(&self.part, &self.target);
            }
            let entries = fs::read_dir(&self.part)?;
            let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
            names.sort_by_key(|name| name == last);
            names.iter().try_for_each(|name| fs::rename(self.part.join(name), self.target.join(name)))
        };
        all().with_context(|| format!("cannot write {}", self.target.display()))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        lock(&self.dir).take().inspect(|dir| remove(dir));
    }
}

fn lock(dir: &Mutex<Option<PathBuf>>) -> MutexGuard<'_, Option<PathBuf>> {
    dir.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a directory that nobody else uses, with a name that is short, however long the target's is.
fn new_dir(parent: &Path, made: &mut Option<PathBuf>) -> io::Result<PathBuf> {
    let mut number = 0;
    loop {
        let dir = parent.join(format!(".gpt2-{}-{number}.part", std::process::id()));
        match fs::create_dir(&dir) {
            // What a process of this number left that could not remove it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
            Ok(()) => return Ok(made.insert(dir).clone()),
        }
    }
}

/// Removes a directory, in which a file may appear meanwhile.
fn remove(dir: &Path) {
    for _ in 0..10 {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {}
            _ => return,
        }
    }
}
