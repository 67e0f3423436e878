//! Requests to the hub: redirects, the token, and what refusals mean.

use std::io::Read;
use std::time::Duration;
use std::{fs, io};

use serde::Deserialize;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

use crate::error::shown;
use crate::name::is_commit;
use crate::{HubError, Name, Result};

/// Redirects that are followed.
const HOPS: usize = 10;
/// The largest list of files that is read, in bytes.
const LONGEST_LIST: u64 = 64 << 20;

/// The largest file there may be, in bytes: so that sums of sizes stay numbers.
const LARGEST_FILE: u64 = 1 << 42;

/// A token for the hub, which is never printed.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// A token as it stands in a variable or a file; `None` for an empty one.
    pub fn new(text: &str) -> Option<Token> {
        let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
        (!text.is_empty()).then_some(Token(text))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A connection to the hub, and to where it redirects.
pub(crate) struct Client {
    agent: Agent,
    /// `https://huggingface.co`, or a mirror; without a slash at its end.
    endpoint: String,
    token: Option<Token>,
}

/// A commit of a repository, and the files in it.
pub(crate) struct Listing {
    pub commit: String,
    pub files: Vec<String>,
}

/// What the hub says of a file without sending it.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    /// The file's name among the blobs: SHA-256 of large files, git's SHA-1 of others.
    pub etag: String,
    /// Bytes.
    pub size: u64,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Client {
    /// `patience` is how long a server may be silent.
    pub fn new(endpoint: &str, token: Option<Token>, patience: Duration) -> Result<Client> {
        let tls = TlsConfig::builder().root_certs(root_certs()?).build();
        // A mirror on this machine is not reached by way of another.
        let is_here = ["127.", "localhost", "[::1]"]
            .iter()
            .any(|host| endpoint.split("://").nth(1).is_some_and(|endpoint| endpoint.starts_with(host)));
        let config = Agent::config_builder()
            .proxy(if is_here { None } else { Proxy::try_from_env() })
            .http_status_as_error(false)
            .max_redirects(0) // by hand: a token must not follow to another host
            .user_agent(concat!("gpt2/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(patience))
            .timeout_recv_response(Some(patience))
            .timeout_per_read(Some(patience))
            .timeout_per_write(Some(patience))
            .tls_config(tls);
        Ok(Client { agent: config.build().new_agent(), endpoint: endpoint.to_owned(), token })
    }

    /// The files of a revision.
    pub fn list(&self, name: &Name) -> Result<Listing> {
        let (repo, revision) = (name.repo(), encode(name.revision_or_main()));
        let url = format!("{}/api/models/{repo}/revision/{revision}", self.endpoint);
        let (_, mut response) = self.follow(Method::GET, &url, None, false)?;
        self.check(name, &url, &response)?;
        let answer = |reason: String| HubError::Answer { url: url.clone(), reason };
        let text = response.body_mut().with_config().limit(LONGEST_LIST).read_to_vec();
        let text = text.map_err(|error| answer(error.to_string()))?;
        let info: Info = serde_json::from_slice(&text).map_err(|error| answer(error.to_string()))?;
        if !is_commit(&info.sha) {
            return Err(answer(format!("`{}` is no commit", shown(&info.sha))));
        }
        let files = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Listing { commit: info.sha, files })
    }

    /// Checksum and size of a file of a commit.
    pub fn meta(&self, name: &Name, commit: &str, file: &str) -> Result<Meta> {
        let url = self.file_url(name, commit, file);
        let (url, response) = self.follow(Method::HEAD, &url, None, true)?;
        if !response.status().is_redirection() {
            self.check(name, &url, &response)?;
        }
        let answer = |reason: String| HubError::Answer { url: url.clone(), reason };
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(other) = header("x-repo-commit").filter(|got| *got != commit) {
            return Err(answer(format!("commit {commit} was asked for, {} came", shown(other))));
        }
        let etag = header("x-linked-etag").or(header("etag")).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if etag.is_empty() || etag.len() > 128 || etag.starts_with('.') || !etag.chars().all(is_safe) {
            return Err(answer(format!("`{}` is no checksum of {file}", shown(etag))));
        }
        let length = if response.status().is_redirection() { None } else { header("content-length") };
        let size = header("x-linked-size").or(length).and_then(|size| size.parse().ok());
        let size = size.filter(|size| *size <= LARGEST_FILE);
        let size = size.ok_or_else(|| answer(format!("the size of {file} is not said")))?;
        Ok(Meta { etag: etag.to_owned(), size })
    }

    /// The bytes of a file from `start` on. The server may send them all; so the place where they start comes, too.
    pub fn open(&self, name: &Name, commit: &str, file: &str, start: u64) -> Result<(u64, Body)> {
        let url = self.file_url(name, commit, file);
        let (url, response) = self.follow(Method::GET, &url, (start > 0).then_some(start), false)?;
        self.check(name, &url, &response)?;
        let from = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get("content-range").and_then(|range| range.to_str().ok());
                let from =
                    range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
                from.filter(|from| *from == start).ok_or_else(|| HubError::Answer {
                    url,
                    reason: format!("bytes from {start} on were asked for, {range:?} came"),
                })?
            }
            _ => 0,
        };
        Ok((from, response.into_body()))
    }

    /// Where a file of a commit is.
    pub fn file_url(&self, name: &Name, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.endpoint, name.repo(), encode(file))
    }

    /// Sends a request, and again to where it is redirected; with `stay`, not away from a hub that has said what it knows of
    /// the file. The token goes to the hub alone.
    fn follow(
        &self,
        method: Method,
        url: &str,
        start: Option<u64>,
        stay: bool,
    ) -> Result<(String, Response<Body>)> {
        let mut url = url.to_owned();
        for _ in 0..HOPS {
            let response = self.send(&method, &url, start)?;
            let location = response.headers().get("location").and_then(|to| to.to_str().ok());
            let Some(location) = location.filter(|_| response.status().is_redirection()) else {
                return Ok((url, response));
            };
            let next = join(&url, location).ok_or_else(|| HubError::Answer {
                url: url.clone(),
                reason: format!("it redirects to `{}`", shown(location)),
            })?;
            let is_told = response.headers().contains_key("x-linked-size");
            if stay && is_told && !self.is_hub(&next) {
                return Ok((url, response));
            }
            url = next;
        }
        Err(HubError::Answer { url, reason: format!("more than {HOPS} redirects") })
    }

    fn send(&self, method: &Method, url: &str, start: Option<u64>) -> Result<Response<Body>> {
        let build = || {
            let mut request = Request::builder().method(method.clone()).uri(url);
            if let Some(Token(token)) = self.token.as_ref().filter(|_| self.is_hub(url)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if let Some(start) = start {
                request = request.header("range", format!("bytes={start}-"));
            }
            request
                .body(())
                .map_err(|error| HubError::Answer { url: url.to_owned(), reason: error.to_string() })
        };
        let result = match self.agent.run(build()?) {
            // A connection that was kept for the next request may have been closed meanwhile: once more, on a new one.
            Err(ureq::Error::Io(error)) if was_closed(&error) => self.agent.run(build()?),
            result => result,
        };
        result.map_err(|error| self.unreachable(url, &error))
    }

    fn unreachable(&self, url: &str, error: &ureq::Error) -> HubError {
        let reason = match error {
            ureq::Error::Timeout(_) => "no answer in time".to_owned(),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::Protocol(_) => {
                return HubError::Answer { url: url.to_owned(), reason: error.to_string() };
            }
            error => error.to_string(),
        };
        HubError::NoNetwork { endpoint: origin(url).unwrap_or(url).to_owned(), reason }
    }

    fn is_hub(&self, url: &str) -> bool {
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        origin(url).zip(origin(&self.endpoint)).is_some_and(|(a, b)| same(a, b))
    }

    /// An error for an answer that is none.
    fn check(&self, name: &Name, url: &str, response: &Response<Body>) -> Result<()> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let (code, repo) = (header("x-error-code").unwrap_or_default(), name.repo().to_owned());
        let endpoint = self.endpoint.clone();
        Err(match (status.as_u16(), code) {
            _ if !self.is_hub(url) => self.status(url, status, header("x-error-message")),
            (401 | 403 | 404, "GatedRepo") => HubError::Gated { endpoint, repo },
            (404, "RevisionNotFound") => {
                HubError::NoRevision { repo, revision: name.revision_or_main().to_owned() }
            }
            (404, "EntryNotFound") => self.status(url, status, header("x-error-message")),
            (401 | 403, "") if self.token.is_some() => HubError::Token { endpoint, repo },
            (401 | 404, _) => HubError::NoModel { endpoint, repo },
            (403, _) => HubError::Gated { endpoint, repo },
            _ => self.status(url, status, header("x-error-message")),
        })
    }

    fn status(&self, url: &str, status: StatusCode, message: Option<&str>) -> HubError {
        // Where files are stored, the rest of the address is a signature.
        let url = url.split('?').next().unwrap_or(url).to_owned();
        HubError::Status { url, status: status.as_u16(), message: shown(message.unwrap_or_default()) }
    }
}

fn was_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Mozilla's certificates, or those in the file that SSL_CERT_FILE names, as networks with a proxy of their own need.
fn root_certs() -> Result<RootCerts> {
    let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) else {
        return Ok(RootCerts::WebPki);
    };
    let mut pem = Vec::new();
    let read = fs::File::open(&path).and_then(|file| file.take(LONGEST_LIST).read_to_end(&mut pem));
    read.map_err(HubError::io(path.as_ref()))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let value = path.to_string_lossy().into_owned();
        return Err(HubError::Setting {
            variable: "SSL_CERT_FILE",
            value,
            want: "a file of certificates (PEM)",
        });
    }
    Ok(RootCerts::Specific(certificates.into()))
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<&str> {
    let after = url.find("://")? + 3;
    let end = url[after..].find(['/', '?', '#']).map_or(url.len(), |end| after + end);
    Some(&url[..end])
}

/// Where a redirect leads. Not from `https` to what anybody on the way can read or change.
fn join(base: &str, location: &str) -> Option<String> {
    let origin = origin(base)?;
    let scheme = origin.split(':').next()?;
    let next = if location.starts_with("https://") || location.starts_with("http://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{origin}{location}")
    } else if location.split(['/', '?']).next()?.contains(':') {
        return None;
    } else {
        let path = base.split(['?', '#']).next()?;
        let folder = &path[..path.rfind('/').filter(|end| *end >= origin.len())?];
        format!("{folder}/{location}")
    };
    (scheme != "https" || next.starts_with("https://")).then_some(next)
}

/// A part of a path in a URL, with everything else than plain characters as `%XX`.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let base = "https://hub.example:8/org/name/resolve/main/a.json?x=/y";
        for (location, want) in [
            ("/b", Some("https://hub.example:8/b")),
            ("b?z", Some("https://hub.example:8/org/name/resolve/main/b?z")),
            ("//cdn.example/b", Some("https://cdn.example/b")),
            ("https://cdn.example/b", Some("https://cdn.example/b")),
            ("http://cdn.example/b", None),
            ("ftp://cdn.example/b", None),
            ("file:/etc/passwd", None),
        ] {
            assert_eq!(join(base, location).as_deref(), want, "{location}");
        }
        assert_eq!(join("http://a", "b"), None);
        assert_eq!(join("http://a/", "http://b/").as_deref(), Some("http://b/"));
    }

    #[test]
    fn the_token_goes_to_the_hub_alone() {
        let token = Token::new(" secret\n");
        assert_eq!(format!("{token:?}"), "Some(Token(…))");
        assert!(Token::new(" \n").is_none());
        let client = Client::new("https://hub.example", token, Duration::from_secs(1)).unwrap();
        assert!(client.is_hub("https://Hub.example/a?b") && client.is_hub("https://hub.example"));
        for other in [
            "http://hub.example/a",
            "https://hub.example.evil/a",
            "https://hub.example@evil/a",
            "https://evil/https://hub.example/",
            "https://hub.example:8443/a",
            "hub.example",
        ] {
            assert!(!client.is_hub(other), "{other}");
        }
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(encode("a b?ü.gguf"), "a%20b%3F%C3%BC.gguf");
    }
}
