//! The cache as `huggingface_hub` lays it out: what is there, and how something new is put there.
//!
//! A repository is a folder `models--org--name`. In it `blobs/CHECKSUM` are files, `snapshots/COMMIT/NAME` are links to
//! them, and `refs/BRANCH` holds a commit.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;

use crate::name::{is_commit, is_hex};
use crate::select::{ADAPTER, CONFIG, WEIGHTS, Weights, is_gguf, shards, weights_of};
use crate::{HubError, Name, Result};

/// The fewest digits that stand for a commit.
const SHORTEST_COMMIT: usize = 7;
/// The largest config.json and list of weights that are read, in bytes.
const LARGEST_JSON: u64 = 64 << 20;

/// What is wanted of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Weights, config and tokenizer.
    Model,
    /// The tokenizer's files.
    Tokenizer,
}

/// A revision of a repository on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name in the cache, which may be another one of the same model.
    pub name: Name,
    /// The commit.
    pub commit: String,
    /// The directory, or the file in it if the model is one GGUF file.
    pub path: PathBuf,
    /// Bytes that were downloaded for it just now.
    pub downloaded: u64,
}

/// A cache directory.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    pub root: PathBuf,
}

impl Cache {
    /// The folder of a repository.
    pub fn repo(&self, name: &Name) -> PathBuf {
        self.root.join(folder(name))
    }

    /// The directory of a commit.
    pub fn snapshot(&self, name: &Name, commit: &str) -> PathBuf {
        self.repo(name).join("snapshots").join(commit)
    }

    /// The file with this checksum.
    pub fn blob(&self, name: &Name, etag: &str) -> PathBuf {
        self.repo(name).join("blobs").join(etag)
    }

    /// The folder of the locks of a repository.
    pub fn locks(&self, name: &Name) -> PathBuf {
        self.root.join(".locks").join(folder(name))
    }

    /// A revision in the cache, under this or the model's other name, in which `is_there` holds.
    pub fn find(&self, name: &Name, is_there: impl Fn(&Path) -> bool) -> Option<Snapshot> {
        let names = [Some(name.clone()), name.alias()];
        names.into_iter().flatten().find_map(|name| {
            let commit = self.commit(&name)?;
            let dir = self.snapshot(&name, &commit);
            is_there(&dir).then(|| Snapshot { name, commit, path: path(&dir), downloaded: 0 })
        })
    }

    /// The commit that a name's revision stood for when it was downloaded.
    pub fn commit(&self, name: &Name) -> Option<String> {
        let revision = name.revision_or_main();
        if is_commit(revision) {
            return self.snapshot(name, revision).is_dir().then(|| revision.to_owned());
        }
        let text = fs::read_to_string(self.repo(name).join("refs").join(revision)).ok();
        let commit = text.map(|text| text.trim().to_owned()).filter(|commit| is_commit(commit));
        commit.or_else(|| {
            let is_short = revision.len() >= SHORTEST_COMMIT && is_hex(revision);
            let mut found = self.commits(name).into_iter().filter(|commit| commit.starts_with(revision));
            let only = if is_short { found.next() } else { None };
            only.filter(|_| found.next().is_none())
        })
    }

    /// The commits that there are directories for.
    pub fn commits(&self, name: &Name) -> Vec<String> {
        let entries = fs::read_dir(self.repo(name).join("snapshots")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_commit(name))
            .collect()
    }

    /// Lets a file of a commit be the blob of this checksum.
    pub fn link(&self, name: &Name, commit: &str, file: &str, etag: &str) -> Result<()> {
        let dir = self.snapshot(name, commit);
        fs::create_dir_all(&dir).map_err(HubError::io(&dir))?;
        let link = dir.join(file);
        match fs::remove_file(&link) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(HubError::io(&link)(error)),
            _ => {}
        }
        match symlink(etag, &link, &self.blob(name, etag)) {
            // Another process was quicker.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            result => result.map_err(HubError::io(&link)),
        }
    }

    /// Notes which commit the name's revision stands for.
    pub fn write_ref(&self, name: &Name, commit: &str) -> Result<()> {
        let revision = name.revision_or_main();
        if revision == commit {
            return Ok(());
        }
        let path = self.repo(name).join("refs").join(revision);
        if fs::read_to_string(&path).is_ok_and(|text| text == commit) {
            return Ok(());
        }
        let write = || {
            fs::create_dir_all(path.parent().expect("it lies in refs"))?;
            let mut file = AtomicWriteFile::open(&path)?;
            file.write_all(commit.as_bytes())?;
            file.commit()
        };
        write().map_err(HubError::io(&path))
    }
}

/// `models--org--name`.
pub(crate) fn folder(name: &Name) -> String {
    format!("models--{}", name.repo().replace('/', "--"))
}

/// Whether a directory holds all that is wanted. A model's small files are downloaded before its weights, but Python's
/// libraries may have left out the tokenizer.
pub(crate) fn is_whole(dir: &Path, wanted: Wanted) -> bool {
    match wanted {
        Wanted::Tokenizer => has_tokenizer(dir),
        Wanted::Model if has_lone_weights(dir) => true,
        Wanted::Model => has_weights(dir) && has_tokenizer(dir),
    }
}

/// Whether a directory holds a model's config and all its weights, or weights that need none.
pub(crate) fn has_weights(dir: &Path) -> bool {
    let is_there = |name: &&'static str| match weights_of(name) {
        Weights::File(file) => dir.join(file).is_file(),
        Weights::Index(file) => {
            let files = read_json(&dir.join(file)).and_then(|text| shards(&text).ok());
            files.is_some_and(|files| files.iter().all(|file| dir.join(file).is_file()))
        }
    };
    has_lone_weights(dir) || (dir.join(CONFIG).is_file() && WEIGHTS.iter().any(is_there))
}

/// Whether a directory holds a GGUF file or an adapter.
fn has_lone_weights(dir: &Path) -> bool {
    !ggufs(dir).is_empty() || ADAPTER.iter().all(|file| dir.join(file).is_file())
}

fn has_tokenizer(dir: &Path) -> bool {
    let has = |name: &str| dir.join(name).is_file();
    has("tokenizer.json") || (has("vocab.json") && has("merges.txt")) || has("vocab.txt")
}

/// The type of model that config.json names, if there is one and it does.
pub(crate) fn kind(dir: &Path) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(&read_json(&dir.join(CONFIG))?).ok()?;
    Some(json["model_type"].as_str()?.to_owned())
}

/// The bytes of a JSON file that is not absurdly long.
pub(crate) fn read_json(path: &Path) -> Option<Vec<u8>> {
    let is_short = fs::metadata(path).ok()?.len() <= LARGEST_JSON;
    is_short.then(|| fs::read(path).ok()).flatten()
}

fn ggufs(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| is_gguf(name) && dir.join(name).is_file()).collect()
}

/// The directory itself, or the one GGUF file that is the model.
pub(crate) fn path(dir: &Path) -> PathBuf {
    match ggufs(dir).as_slice() {
        [one] if !WEIGHTS.iter().any(|name| dir.join(name).is_file()) => dir.join(one),
        _ => dir.to_owned(),
    }
}

#[cfg(unix)]
fn symlink(etag: &str, link: &Path, _blob: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(Path::new("../../blobs").join(etag), link)
}

/// Links take a privilege on Windows; without it the file itself moves into the snapshot, as Python's library does.
#[cfg(windows)]
fn symlink(etag: &str, link: &Path, blob: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(Path::new(r"..\..\blobs").join(etag), link)
        .or_else(|_| fs::rename(blob, link))
}
