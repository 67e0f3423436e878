//! A directory belongs to one run at a time, and what a killed run left half-written is removed.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use models::checkpoint;

use crate::{Result, TrainError, state};

/// Files that a run writes beside those of its tokenizer, relative to its directory.
const WRITTEN: [&str; 11] = [
    "last/state.safetensors",
    checkpoint::WEIGHTS,
    checkpoint::ADAPTER_WEIGHTS,
    checkpoint::ADAPTER_CONFIG,
    checkpoint::CONFIG,
    checkpoint::GENERATION_CONFIG,
    "train.toml",
    "finetune.toml",
    "metrics.jsonl",
    "loss.svg",
    "README.md",
];
/// Letters and digits that the name of a half-written file ends with.
const SUFFIX: usize = 6;

/// The right to write to a directory, as long as it lives. The system's lock ends with the process, however that ends,
/// so that a killed run leaves none behind.
#[derive(Debug)]
pub struct RunLock {
    dir: PathBuf,
    path: PathBuf,
    /// Directories that were not there before.
    made: Vec<PathBuf>,
    _file: File,
}

impl RunLock {
    /// Takes the directory, which is created if it is not there; refuses one that another process holds.
    pub fn take(dir: &Path) -> Result<RunLock> {
        let last = dir.join("last");
        let made = last.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
        let made: Vec<PathBuf> = made.map(Path::to_owned).collect();
        fs::create_dir_all(&last).map_err(TrainError::io(&last))?;
        let path = last.join(".lock");
        loop {
            let options = File::options().create(true).truncate(false).write(true).open(&path);
            let file = options.map_err(TrainError::io(&path))?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(TrainError::Busy { dir: dir.to_owned() }),
                Err(TryLockError::Error(error)) if error.kind() != std::io::ErrorKind::Unsupported => {
                    return Err(TrainError::io(&path)(error));
                }
                // A file system without locks protects nobody, but a run is still possible on it.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            // The holder before us may have removed the file since it was opened.
            if path.exists() {
                return Ok(RunLock { dir: dir.to_owned(), path, made, _file: file });
            }
        }
    }

    /// Removes files that an earlier run was writing when it was killed: `.NAME.` and six letters or digits, for
    /// names that a run writes.
    pub fn remove_leftovers(&self) -> Result<()> {
        for written in WRITTEN.iter().chain(&tokenizer::FILES).map(|name| self.dir.join(name)) {
            let (Some(folder), Some(name)) = (written.parent(), written.file_name()) else { continue };
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.is_file() && is_leftover(&path, &name.to_string_lossy()) {
                    fs::remove_file(&path).map_err(TrainError::io(&path))?;
                }
            }
        }
        Ok(())
    }
}

fn is_leftover(path: &Path, written: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let suffix = name.strip_prefix('.').and_then(|name| name.strip_prefix(written)?.strip_prefix('.'));
    // Of six random letters and digits, hardly ever are all small letters: that is a word, such as `backup`.
    suffix.is_some_and(|suffix| {
        suffix.len() == SUFFIX
            && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && !suffix.bytes().all(|byte| byte.is_ascii_lowercase())
    })
}

impl Drop for RunLock {
    /// Without a state nothing remains of the lock: neither its file, nor directories that were made for it.
    fn drop(&mut self) {
        if !state::path(&self.dir).exists() {
            _ = fs::remove_file(&self.path);
            // Only empty ones can be removed.
            self.made.iter().for_each(|dir| _ = fs::remove_dir(dir));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a/b");
        let lock = RunLock::take(&dir).unwrap();
        let error = RunLock::take(&dir).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        drop(lock);
        assert!(!folder.path().join("a").exists());
        drop(RunLock::take(&dir).unwrap());
        fs::create_dir_all(&dir).unwrap();
        drop(RunLock::take(&dir).unwrap());
        assert!(dir.is_dir() && !dir.join("last").exists(), "what was there before stays");
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(RunLock::take(&folder.path().join("file")).is_err());
    }

    #[test]
    fn only_our_own_leftovers_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let lock = RunLock::take(folder.path()).unwrap();
        let ours = [
            "last/.state.safetensors.a1B2c3",
            ".model.safetensors.ZZZZZZ",
            ".config.json.000000",
            ".vocab.txt.a1B2c3",
        ];
        let others = [
            "last/state.safetensors",
            "last/.state.safetensors.backup",
            "last/.state.safetensors.a1B2c3d",
            "last/.state.safetensors.a1B2c",
            "last/.state.safetensors.a1-2c3",
            ".state.safetensors.a1B2c3",
            "model.safetensors.a1B2c3",
            ".notes.txt.a1B2c3",
        ];
        for name in ours.iter().chain(&others) {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        lock.remove_leftovers().unwrap();
        assert!(ours.iter().all(|name| !folder.path().join(name).exists()));
        assert!(others.iter().all(|name| folder.path().join(name).exists()));
    }
}
