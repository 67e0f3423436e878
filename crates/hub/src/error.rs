//! What can go wrong between a name and a directory, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::KNOWN;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, HubError>;

/// An error of the hub, of the way to it, or of the cache.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Text that names no model.
    #[error("`{name}` names no model of the hub: {reason}{}", sizes(.name))]
    Name {
        /// What was given.
        name: String,
        /// Why it is none, and what would be.
        reason: String,
    },
    /// No place for downloads.
    #[error("no place for downloads is known: set HF_HOME to a directory")]
    NoHome,
    /// A setting that cannot be.
    #[error("{variable} is `{value}`: it must be {want}")]
    Setting {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        want: &'static str,
    },
    /// The hub does not answer.
    #[error(
        "cannot reach {endpoint} ({reason}). Behind a firewall, name a mirror in HF_ENDPOINT or a proxy in HTTPS_PROXY; \
         --offline takes what was downloaded before; or put config.json, model.safetensors and the tokenizer's files \
         into a directory by hand, and give its path"
    )]
    NoNetwork {
        /// The server.
        endpoint: String,
        /// What failed.
        reason: String,
    },
    /// Not downloaded, and no downloads wanted.
    #[error(
        "{name} is not in {}, or not whole, and downloads are turned off (--offline, GPT2_OFFLINE or HF_HUB_OFFLINE); turn \
         them on once, or copy a cache from elsewhere and name its directory in HF_HUB_CACHE", .cache.display()
    )]
    Offline {
        /// The name.
        name: String,
        /// The cache.
        cache: PathBuf,
    },
    /// Nothing of this name is in the cache.
    #[error("{name} is not in {}; `gpt2 ls` shows what is", .cache.display())]
    NotCached {
        /// The name.
        name: String,
        /// The cache.
        cache: PathBuf,
    },
    /// No such model, or a private one.
    #[error(
        "{endpoint} has no model `{repo}`, or it is private: check the name, or set HF_TOKEN to a token that may read it{}",
        sizes(.repo)
    )]
    NoModel {
        /// The server.
        endpoint: String,
        /// The repository.
        repo: String,
    },
    /// No such branch, tag or commit.
    #[error(
        "{repo} has no revision `{revision}`: name a branch, a tag or a whole commit, or leave @{revision} out"
    )]
    NoRevision {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
    },
    /// A model whose terms must be accepted first.
    #[error(
        "{repo} is given only to those who accepted its terms: do so at {endpoint}/{repo}, then set HF_TOKEN to a token of \
         yours from {endpoint}/settings/tokens"
    )]
    Gated {
        /// The server.
        endpoint: String,
        /// The repository.
        repo: String,
    },
    /// A token that the hub does not take.
    #[error(
        "{endpoint} does not accept the token in HF_TOKEN (or in HF_HOME/token) for {repo}: renew it, or remove it"
    )]
    Token {
        /// The server.
        endpoint: String,
        /// The repository.
        repo: String,
    },
    /// A failure that the server reports.
    #[error("{url} answers {status}{}; {}", said(.message), advice(*.status))]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP's number.
        status: u16,
        /// What the server says about it, if anything.
        message: String,
    },
    /// An answer that cannot be understood.
    #[error(
        "{url}: the answer is not the hub's ({reason}); is HF_ENDPOINT right, or is a login page in between?"
    )]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file name that leads elsewhere.
    #[error(
        "{repo} holds a file named {file:?}, which could be written outside its directory; nothing was downloaded"
    )]
    HostileName {
        /// The repository.
        repo: String,
        /// The file's name.
        file: String,
    },
    /// A repository without weights that can be read.
    #[error(
        "{repo} has no weights that can be read here (model.safetensors, pytorch_model.bin, one .gguf, or an adapter): \
         take another model, or convert it with transformers"
    )]
    NoWeights {
        /// The repository.
        repo: String,
    },
    /// More than one GGUF file.
    #[error(
        "{repo} has several .gguf files: {}; download one from {url}/NAME, and give its path", .files.join(", ")
    )]
    SeveralFiles {
        /// The repository.
        repo: String,
        /// The files.
        files: Vec<String>,
        /// Where they are, without their names.
        url: String,
    },
    /// A model of another kind.
    #[error("{repo} is a model of type `{kind}`, which cannot be run here; its weights were not downloaded")]
    OtherKind {
        /// The repository.
        repo: String,
        /// What its config.json calls it.
        kind: String,
    },
    /// A list of files that is not to be understood, such as the index of weights in several files.
    #[error("{}: {reason}; download it again after `gpt2 rm {repo}`, or take another model", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The repository.
        repo: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A download that is not what the hub promised.
    #[error(
        "{file} was damaged on the way: its checksum is {got}, but the hub says {want}. It was removed; try again"
    )]
    Checksum {
        /// The file.
        file: String,
        /// The checksum of what came.
        got: String,
        /// The hub's.
        want: String,
    },
    /// A connection that was cut again and again.
    #[error(
        "the download of {file} was cut at {at} of {size} bytes ({reason}); what came is kept: the same command goes on \
         from there"
    )]
    Cut {
        /// The file.
        file: String,
        /// Bytes that are there.
        at: u64,
        /// Bytes of the whole.
        size: u64,
        /// What happened last.
        reason: String,
    },
    /// No space for a download.
    #[error(
        "the disk is full: {} needs {left} more bytes; free some (`gpt2 ls`, `gpt2 rm NAME`), or set HF_HOME to another \
         disk. What came is kept: the same command goes on from there", .path.display()
    )]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// Bytes that are missing.
        left: u64,
    },
    /// A model that another process is downloading.
    #[error("another process is downloading {name}; wait for it, or stop it")]
    Busy {
        /// The name.
        name: String,
    },
    /// A directory that is a link to another place.
    #[error("{} is a link to another place; remove that by hand", .path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// A file of the cache that cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl HubError {
    /// For `map_err` at a file operation.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> HubError + '_ {
        move |source| HubError::Io { path: path.to_owned(), source }
    }
}

/// Text of a server as it may be shown: not long, and nothing in it that a terminal acts upon.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// What GPT-2's sizes are called, where one of them may be meant.
fn sizes(name: &str) -> String {
    if !name.to_ascii_lowercase().contains("gpt") {
        return String::new();
    }
    format!("; GPT-2 is there as {}", KNOWN.map(|(name, _)| name).join(", "))
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

fn advice(status: u16) -> &'static str {
    match status {
        429 => "too many requests: wait a few minutes, or set HF_TOKEN",
        500.. => "the server has a problem: try later, or name a mirror in HF_ENDPOINT",
        _ => "is HF_ENDPOINT right?",
    }
}
