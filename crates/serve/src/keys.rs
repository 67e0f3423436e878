//! API keys: who may come in, and under which name.
//!
//! The file has a key a line, as its SHA-256. A plain hash is right for keys, and would be wrong for passwords: a key is 256
//! random bits, which nobody finds by trying, so that a slow hash would only cost each request its time. For that reason keys
//! that are short enough to be guessed are refused wherever they are seen. A request's key is hashed, too, and held to all of
//! the file's hashes, each to its last byte, so that the time tells nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use thiserror::Error;

use crate::account::Account;
use crate::app::Caller;
use crate::error::ApiError;
use crate::guards::Guards;
use crate::rate::Limits;

/// Characters that a key has at least.
pub const LEAST: usize = 20;
const HASHED: &str = "sha256:";

/// A key, of which only its hash is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What it is called in logs and metrics.
    pub name: String,
    /// What may be asked for with it.
    pub limits: Limits,
    digest: [u8; 32],
}

/// What is wrong with a line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Wrong {
    /// It has no name.
    #[error("a line is `NAME: sha256:HASH`; `gpt2 key NAME` makes one")]
    Shape,
    /// A name that is none.
    #[error("a name has 1 to 64 letters, digits, dots, dashes and underscores")]
    Name,
    /// A name for the second time.
    #[error("the name `{0}` is there already; give each key a name of its own")]
    TwoNames(String),
    /// A key for the second time.
    #[error("this key is also that of `{0}`; make another with `gpt2 key NAME`")]
    TwoKeys(String),
    /// A hash that is none.
    #[error("after `sha256:` come 64 hexadecimal digits; `gpt2 key NAME` makes such a line")]
    Hash,
    /// A key that can be guessed.
    #[error("the key has {0} characters, which can be guessed; `gpt2 key NAME` makes a good one")]
    Short(usize),
    /// What stands behind the key.
    #[error("`{0}` is no limit; write `requests=N` or `tokens=N`, a minute, with N from 1 to 4294967295")]
    Limit(String),
}

/// Why there are no keys.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("cannot read the keys in {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of it is wrong.
    #[error("{path}, line {line}: {wrong}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        wrong: Wrong,
    },
    /// It has no keys.
    #[error("{0} has no keys, so that nobody could come in; make one with `gpt2 key NAME`")]
    Empty(PathBuf),
}

/// All keys of a file.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    keys: Vec<Arc<Key>>,
    /// Names of keys that are there in the clear.
    clear: Vec<String>,
}

impl Keys {
    /// Reads lines; where a line sets no limits, it has those of `others`. An error comes with its line, from 1.
    pub fn parse(text: &str, others: Limits) -> Result<Keys, (usize, Wrong)> {
        let mut all = Keys::default();
        for (at, line) in text.lines().enumerate() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            if !line.is_empty() && !line.starts_with('#') {
                all.add(line, others).map_err(|wrong| (at + 1, wrong))?;
            }
        }
        Ok(all)
    }

    fn add(&mut self, line: &str, others: Limits) -> Result<(), Wrong> {
        let (name, rest) = line.split_once(':').ok_or(Wrong::Shape)?;
        let (name, mut words) = (name.trim(), rest.split_whitespace());
        check_name(name)?;
        let value = words.next().ok_or(Wrong::Shape)?;
        let digest = match value.strip_prefix(HASHED) {
            Some(hex) => from_hex(hex).ok_or(Wrong::Hash)?,
            None => {
                self.clear.push(name.to_owned());
                digest(check_key(value)?)
            }
        };
        let mut limits = others;
        for word in words {
            let wrong = || Wrong::Limit(word.to_owned());
            let (what, number) = word.split_once('=').ok_or_else(wrong)?;
            let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
            match what {
                "requests" => limits.requests = Some(number),
                "tokens" => limits.tokens = Some(number),
                _ => return Err(wrong()),
            }
        }
        for known in &self.keys {
            if known.name == name {
                return Err(Wrong::TwoNames(name.to_owned()));
            }
            if known.digest == digest {
                return Err(Wrong::TwoKeys(known.name.clone()));
            }
        }
        self.keys.push(Arc::new(Key { name: name.to_owned(), limits, digest }));
        Ok(())
    }

    /// The key that this is.
    pub fn find(&self, key: &str) -> Option<&Arc<Key>> {
        let (digest, mut found) = (digest(key), u64::MAX);
        for (at, known) in (0..).zip(&self.keys) {
            found.conditional_assign(&at, known.digest.ct_eq(&digest));
        }
        self.keys.get(usize::try_from(found).ok()?)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// The keys of a file, which can be read anew while the server runs.
#[derive(Debug)]
pub struct KeyRing {
    path: PathBuf,
    others: Limits,
    keys: RwLock<Arc<Keys>>,
}

impl KeyRing {
    /// Reads the file; where a line sets no limits, it has those of `others`.
    pub fn open(path: &Path, others: Limits) -> Result<KeyRing, KeysError> {
        let keys = RwLock::new(Arc::new(read(path, others)?));
        Ok(KeyRing { path: path.to_owned(), others, keys })
    }

    /// Reads the file again, and gives the number of keys; if it is wrong, the old ones stay.
    pub fn reload(&self) -> Result<usize, KeysError> {
        let keys = read(&self.path, self.others)?;
        let len = keys.len();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(len)
    }

    /// The keys as they are now.
    pub fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What its owner should know: keys in the clear, in a file that others may read.
    pub fn advice(&self) -> Option<String> {
        let keys = self.keys();
        let first = keys.clear.first()?;
        let open = if others_may_read(&self.path) { ", and others may read it" } else { "" };
        Some(format!(
            "{} holds keys in the clear{open}, that of `{first}` for one; `gpt2 key {first} --stdin` makes a line with its hash",
            self.path.display()
        ))
    }
}

fn read(path: &Path, others: Limits) -> Result<Keys, KeysError> {
    let text =
        fs::read_to_string(path).map_err(|source| KeysError::Read { path: path.to_owned(), source })?;
    let keys = Keys::parse(&text, others).map_err(|(line, wrong)| KeysError::Line {
        path: path.to_owned(),
        line,
        wrong,
    })?;
    if keys.is_empty() { Err(KeysError::Empty(path.to_owned())) } else { Ok(keys) }
}

#[cfg(unix)]
fn others_may_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn others_may_read(_: &Path) -> bool {
    false
}

/// A new key.
pub fn new_key() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(format!("sk-{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

/// The line of a key in the file.
pub fn line(name: &str, key: &str, limits: Limits) -> Result<String, Wrong> {
    check_name(name)?;
    let hex: String = digest(check_key(key)?).iter().map(|byte| format!("{byte:02x}")).collect();
    let limit = |what: &str, limit: Option<u32>| limit.map_or(String::new(), |n| format!(" {what}={n}"));
    let limits = limit("requests", limits.requests) + &limit("tokens", limits.tokens);
    Ok(format!("{name}: {HASHED}{hex}{limits}"))
}

fn check_name(name: &str) -> Result<(), Wrong> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if (1..=64).contains(&name.len()) && name.chars().all(is_fine) { Ok(()) } else { Err(Wrong::Name) }
}

fn check_key(key: &str) -> Result<&str, Wrong> {
    let len = key.chars().count();
    if len < LEAST { Err(Wrong::Short(len)) } else { Ok(key) }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Lets in who has a key, within its limits.
pub(crate) async fn require(State(guards): State<Arc<Guards>>, mut request: Request, next: Next) -> Response {
    let Some(ring) = &guards.keys else { return next.run(request).await };
    let key = match bearer(request.headers()).map(|key| ring.keys().find(key).cloned()) {
        Some(Some(key)) => key,
        None => return refuse("there is no API key; send the header `Authorization: Bearer KEY`", ""),
        Some(None) => {
            return refuse("the API key is not one of this server's", ", error=\"invalid_token\"");
        }
    };
    Account::current().belongs_to(&key);
    request.extensions_mut().insert(Caller(key.name.clone()));
    // What only looks something up is free.
    let is_work = !matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = match guards.rates.ask(&key, is_work) {
        Ok(()) => next.run(request).await,
        Err(denied) => {
            Account::current().denied(denied.what);
            ApiError::from(denied).into_response()
        }
    };
    guards.rates.tell(&key, response.headers_mut());
    response
}

/// The key of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, key) = all.next()?.to_str().ok()?.split_once(' ')?;
    let is_only = all.next().is_none();
    (is_only && scheme.eq_ignore_ascii_case("bearer")).then(|| key.trim())
}

fn refuse(message: &str, more: &str) -> Response {
    let error = ApiError::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message);
    let mut response = error.code("invalid_api_key").into_response();
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer realm=\"gpt2\"{more}")) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "sk-a-key-that-is-long-enough";

    #[test]
    fn lines_are_read() {
        let others = Limits { requests: Some(9), tokens: None };
        let hashed = line("bob", "sk-another-key-of-some-length", Limits::default()).unwrap();
        let text = format!("# keys\n\nalice: {SECRET} tokens=500  # hers\n  {hashed} requests=3 \n");
        let keys = Keys::parse(&text, others).unwrap();
        assert_eq!(keys.len(), 2);
        let alice = keys.find(SECRET).unwrap();
        assert_eq!((&*alice.name, alice.limits.requests, alice.limits.tokens), ("alice", Some(9), Some(500)));
        let bob = keys.find("sk-another-key-of-some-length").unwrap();
        assert_eq!((&*bob.name, bob.limits.requests, bob.limits.tokens), ("bob", Some(3), None));
        assert!(keys.find("sk-").is_none() && keys.find("").is_none());
        assert_eq!(keys.clear, ["alice"]);
        assert!(!format!("{keys:?}").contains(SECRET));
    }

    #[test]
    fn wrong_lines_are_refused_with_their_number() {
        let wrong = |text: &str| Keys::parse(text, Limits::default()).unwrap_err();
        assert_eq!(wrong("\nalice"), (2, Wrong::Shape));
        assert_eq!(wrong("alice:"), (1, Wrong::Shape));
        assert_eq!(wrong(&format!("a b: {SECRET}")), (1, Wrong::Name));
        assert_eq!(wrong("alice: secret"), (1, Wrong::Short(6)));
        assert_eq!(wrong("alice: sha256:12"), (1, Wrong::Hash));
        assert_eq!(wrong(&format!("alice: sha256:{}", "é".repeat(32))), (1, Wrong::Hash));
        assert_eq!(wrong(&format!("a: {SECRET}\na: {SECRET}x")), (2, Wrong::TwoNames("a".into())));
        assert_eq!(wrong(&format!("a: {SECRET}\nb: {SECRET}")), (2, Wrong::TwoKeys("a".into())));
        for limit in ["requests", "requests=0", "tokens=-1", "words=3", "tokens=99999999999"] {
            let line = format!("a: {SECRET} {limit}");
            assert_eq!(wrong(&line), (1, Wrong::Limit(limit.into())));
        }
    }

    #[test]
    fn new_keys_are_good_and_differ() {
        let (one, other) = (new_key().unwrap(), new_key().unwrap());
        assert!(one != other && one.len() == 46 && one.starts_with("sk-"));
        let line = line("a", &one, Limits { requests: None, tokens: Some(7) }).unwrap();
        assert!(line.ends_with(" tokens=7") && !line.contains(&one));
        let keys = Keys::parse(&line, Limits::default()).unwrap();
        assert_eq!((keys.find(&one).unwrap().limits.tokens, keys.find(&other)), (Some(7), None));
    }

    #[test]
    fn one_bearer_alone_is_a_key() {
        let headers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            });
            headers
        };
        assert_eq!(bearer(&headers(&["bearer  x"])), Some("x"));
        for wrong in [&[][..], &["x"], &["Basic x"], &["Bearer x", "Bearer y"]] {
            assert_eq!(bearer(&headers(wrong)), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_file_that_becomes_wrong_leaves_the_old_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let open = || KeyRing::open(&path, Limits::default());
        assert!(matches!(open(), Err(KeysError::Read { .. })));
        fs::write(&path, "# nobody").unwrap();
        assert!(matches!(open(), Err(KeysError::Empty(_))));
        fs::write(&path, format!("a: {SECRET}")).unwrap();
        let ring = open().unwrap();
        assert!(ring.advice().unwrap().contains("in the clear"));
        fs::write(&path, "a: short").unwrap();
        assert!(ring.reload().unwrap_err().to_string().contains("line 1: the key has 5 characters"));
        assert!(ring.keys().find(SECRET).is_some());
        fs::write(&path, line("b", SECRET, Limits::default()).unwrap()).unwrap();
        assert_eq!(ring.reload().unwrap(), 1);
        assert_eq!(ring.keys().find(SECRET).unwrap().name, "b");
        assert_eq!(ring.advice(), None);
    }
}
