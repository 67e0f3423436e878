//! From a name to a directory: in the cache, or downloaded into it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cache::{Cache, has_weights, is_whole, kind, path, read_json};
use crate::client::{Client, Listing, Token};
use crate::download::Download;
use crate::error::shown;
use crate::select::{Weights, select, shards};
use crate::shelf::{self, Cached, Removed};
use crate::{HubError, Name, Result, Snapshot, Wanted};

const ENDPOINT: &str = "https://huggingface.co";
/// Types of models that can be run.
pub(crate) const KINDS: [&str; 1] = ["gpt2"];
/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where models come from and where they are kept.
#[derive(Clone, Debug)]
pub struct Hub {
    cache: Cache,
    endpoint: String,
    token: Option<Token>,
    offline: bool,
    patience: Duration,
}

/// What happens on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The server is asked for a model.
    Asking {
        /// The server.
        endpoint: &'a str,
    },
    /// Weights are about to be downloaded.
    Start {
        /// Bytes of all that were not there, those of earlier tries included.
        bytes: u64,
    },
    /// So many of these bytes are there.
    At(u64),
    /// Another process downloads this file.
    Waiting {
        /// The file.
        file: &'a str,
    },
    /// The connection was cut, and is tried again.
    Cut {
        /// The file.
        file: &'a str,
        /// What happened.
        reason: &'a str,
    },
    /// The server gave no checksum of this file.
    Unchecked {
        /// The file.
        file: &'a str,
    },
}

impl Hub {
    /// As the environment says: `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, and the older names
    /// of these.
    pub fn from_env() -> Result<Hub> {
        Hub::from_vars(|name| std::env::var_os(name))
    }

    /// As these variables say.
    pub fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Result<Hub> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let user = var("HOME").or_else(|| var("USERPROFILE")).map(PathBuf::from);
        let dir = |name: &str| var(name).map(|value| expand(PathBuf::from(value), user.as_deref()));
        let home = dir("HF_HOME")
            .or_else(|| Some(dir("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(user.as_ref()?.join(".cache").join("huggingface")));
        let root = dir("HF_HUB_CACHE")
            .or_else(|| dir("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(home.as_ref()?.join("hub")))
            .ok_or(HubError::NoHome)?;
        let root = std::path::absolute(&root).map_err(HubError::io(&root))?;
        let text = |name: &str| var(name).map(|value| value.to_string_lossy().into_owned());
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
            let file = dir("HF_TOKEN_PATH").or_else(|| Some(home.as_ref()?.join("token")))?;
            fs::read_to_string(file).ok()
        });
        let is_true = |name: &str| {
            text(name)
                .is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
        };
        Ok(Hub {
            cache: Cache { root },
            endpoint: endpoint(text("HF_ENDPOINT"))?,
            token: token.and_then(|token| Token::new(&token)),
            offline: is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE"),
            patience: PATIENCE,
        })
    }

    /// The same, but nothing is downloaded if `offline`.
    pub fn with_offline(self, offline: bool) -> Hub {
        Hub { offline: self.offline || offline, ..self }
    }

    /// The same, but servers may be silent for another time than 30 seconds.
    pub fn with_patience(self, patience: Duration) -> Hub {
        Hub { patience, ..self }
    }

    /// The directory of the cache.
    pub fn cache(&self) -> &Path {
        &self.cache.root
    }

    /// The directory of a model or a tokenizer: from the cache if all of it is there, else downloaded. What is in the cache
    /// is not compared with the hub; [`Hub::pull`] does that.
    pub fn get(&self, name: &Name, wanted: Wanted, on: &mut dyn FnMut(Event)) -> Result<Snapshot> {
        if let Some(found) = self.cache.find(name, |dir| is_whole(dir, wanted)) {
            return Ok(found);
        }
        match self.pull(name, wanted, on) {
            // Python's libraries may have downloaded the weights alone.
            Err(error @ (HubError::Offline { .. } | HubError::NoNetwork { .. }))
                if wanted == Wanted::Model =>
            {
                self.cache.find(name, has_weights).ok_or(error)
            }
            result => result,
        }
    }

    /// Asks the hub what the revision is today, and downloads what is not there yet.
    pub fn pull(&self, name: &Name, wanted: Wanted, on: &mut dyn FnMut(Event)) -> Result<Snapshot> {
        if self.offline {
            let found = self.cache.find(name, |dir| is_whole(dir, wanted));
            let (name, cache) = (name.to_string(), self.cache.root.clone());
            return found.ok_or(HubError::Offline { name, cache });
        }
        on(Event::Asking { endpoint: &self.endpoint });
        let client = Client::new(&self.endpoint, self.token.clone(), self.patience)?;
        let Listing { commit, files } = client.list(name)?;
        let url = client.file_url(name, &commit, "");
        let selection = select(name.repo(), &files, wanted, url.trim_end_matches('/'))?;
        let pull = Pull { hub: self, client: &client, name, commit: &commit };
        // What is said about progress is said of the weights.
        let quiet = |event: Event, on: &mut dyn FnMut(Event)| match event {
            Event::Start { .. } | Event::At(_) | Event::Waiting { .. } => {}
            event => on(event),
        };
        let mut downloaded = pull.files(&selection.small, &mut |event| quiet(event, on))?;
        pull.refuse_other_kinds()?;
        let weights = match selection.weights {
            None => Vec::new(),
            Some(Weights::File(file)) => vec![file],
            Some(Weights::Index(file)) => {
                downloaded += pull.files(&[file.to_owned()], &mut |event| quiet(event, on))?;
                pull.shards(file, &files)?
            }
        };
        downloaded += pull.files(&weights, on)?;
        self.cache.write_ref(name, &commit)?;
        let path = path(&pull.dir());
        Ok(Snapshot { name: name.clone(), commit, path, downloaded })
    }

    /// The models in the cache that can be run.
    pub fn list(&self) -> Result<Vec<Cached>> {
        shelf::list(&self.cache)
    }

    /// Removes a model from the cache, or one revision of it if the name has one.
    pub fn remove(&self, name: &Name) -> Result<Removed> {
        shelf::remove(&self.cache, name)
    }
}

/// The download of a commit.
struct Pull<'a> {
    hub: &'a Hub,
    client: &'a Client,
    name: &'a Name,
    commit: &'a str,
}

impl Pull<'_> {
    fn dir(&self) -> PathBuf {
        self.hub.cache.snapshot(self.name, self.commit)
    }

    /// Downloads files that are not there, and returns the bytes that came.
    fn files(&self, files: &[String], on: &mut dyn FnMut(Event)) -> Result<u64> {
        let cache = &self.hub.cache;
        let mut missing = Vec::new();
        for file in files.iter().filter(|file| !self.dir().join(file).exists()) {
            missing.push((file, self.client.meta(self.name, self.commit, file)?));
        }
        if !missing.is_empty() {
            on(Event::Start { bytes: missing.iter().map(|(_, meta)| meta.size).sum() });
        }
        let (mut before, mut came) = (0, 0);
        for (file, meta) in missing {
            let (etag, size) = (meta.etag.clone(), meta.size);
            let download = Download {
                client: self.client,
                name: self.name,
                commit: self.commit,
                file,
                meta,
                blob: cache.blob(self.name, &etag),
                lock: cache.locks(self.name).join(format!("{etag}.lock")),
                pause: self.hub.patience / 30,
            };
            came += download.run(before, on)?;
            cache.link(self.name, self.commit, file, &etag)?;
            before += size;
            on(Event::At(before));
        }
        Ok(came)
    }

    /// Large weights that could not be run are not even downloaded.
    fn refuse_other_kinds(&self) -> Result<()> {
        match kind(&self.dir()) {
            Some(kind) if !KINDS.contains(&kind.as_str()) => {
                Err(HubError::OtherKind { repo: self.name.repo().to_owned(), kind: shown(&kind) })
            }
            _ => Ok(()),
        }
    }

    /// The files that a list of weights names, which must be among those of the repository.
    fn shards(&self, index: &str, files: &[String]) -> Result<Vec<String>> {
        let path = self.dir().join(index);
        let damaged =
            |reason| HubError::Damaged { path: path.clone(), repo: self.name.repo().to_owned(), reason };
        let text = read_json(&path).ok_or_else(|| damaged("it cannot be read".to_owned()))?;
        let shards: Vec<String> = shards(&text).map_err(damaged)?.into_iter().collect();
        match shards.iter().find(|shard| !files.contains(shard)) {
            Some(shard) => Err(damaged(format!("it names {shard}, which the repository does not have"))),
            None => Ok(shards),
        }
    }
}

/// `~/…` as the user means it.
fn expand(path: PathBuf, user: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), user) {
        (Ok(rest), Some(user)) => user.join(rest),
        _ => path,
    }
}

/// The server's address without a slash at its end.
fn endpoint(value: Option<String>) -> Result<String> {
    let Some(value) = value else { return Ok(ENDPOINT.to_owned()) };
    let url = value.trim().trim_end_matches('/');
    let host = url.strip_prefix("https://").or(url.strip_prefix("http://"));
    let is_plain = |c: char| c.is_ascii_graphic() && !"?#\\\"<>".contains(c);
    match host {
        Some(host) if !host.is_empty() && !host.starts_with('/') && host.chars().all(is_plain) => {
            Ok(url.to_owned())
        }
        _ => Err(HubError::Setting {
            variable: "HF_ENDPOINT",
            value,
            want: "an address such as https://hf-mirror.com",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(vars: &[(&str, &str)]) -> Result<Hub> {
        Hub::from_vars(|name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_environment_says_where() {
        let root = |vars: &[(&str, &str)]| hub(vars).unwrap().cache.root;
        assert_eq!(root(&[("HOME", "/u")]), Path::new("/u/.cache/huggingface/hub"));
        assert_eq!(root(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(root(&[("HOME", "/u"), ("HF_HOME", "~/h")]), Path::new("/u/h/hub"));
        assert_eq!(root(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
        assert_eq!(root(&[("HUGGINGFACE_HUB_CACHE", "/c"), ("HF_HOME", "")]), Path::new("/c"));
        assert!(matches!(hub(&[]), Err(HubError::NoHome)));
    }

    #[test]
    fn the_environment_says_how() {
        let base = ("HF_HOME", "/nowhere");
        let plain = hub(&[base]).unwrap();
        assert_eq!((plain.endpoint.as_str(), plain.offline, plain.token.is_some()), (ENDPOINT, false, false));
        let set =
            hub(&[base, ("HF_ENDPOINT", "http://m:8/x/"), ("HF_HUB_OFFLINE", "yes"), ("HF_TOKEN", "t")])
                .unwrap();
        assert_eq!((set.endpoint.as_str(), set.offline, set.token.is_some()), ("http://m:8/x", true, true));
        assert!(!hub(&[base, ("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        for bad in ["mirror", "ftp://m", "https://", "https:///x", "https://m?x", "http://a b"] {
            assert!(matches!(hub(&[base, ("HF_ENDPOINT", bad)]), Err(HubError::Setting { .. })), "{bad}");
        }
    }

    #[test]
    fn the_token_may_lie_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        fs::write(folder.path().join("token"), "hf_x\n").unwrap();
        assert!(hub(&[("HF_HOME", home)]).unwrap().token.is_some());
        let missing = folder.path().join("none");
        assert!(
            hub(&[("HF_HOME", home), ("HF_TOKEN_PATH", missing.to_str().unwrap())]).unwrap().token.is_none()
        );
    }
}
