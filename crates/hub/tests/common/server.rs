//! A server on this machine that speaks the hub's routes, and a second one, of another origin, where large files are.
//!
//! It can cut connections, send wrong bytes and refuse, and it remembers what it was asked.
#![allow(dead_code)] // each test uses a part

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// A commit as the tests name it: forty times this digit.
pub fn commit(digit: char) -> String {
    digit.to_string().repeat(40)
}

/// A file of a repository.
#[derive(Clone)]
pub struct File {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    /// Stored on the second server.
    pub large: bool,
}

pub fn small(name: &'static str, bytes: impl Into<Vec<u8>>) -> File {
    File { name, bytes: bytes.into(), large: false }
}

pub fn large(name: &'static str, bytes: impl Into<Vec<u8>>) -> File {
    File { name, bytes: bytes.into(), large: true }
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub token: Option<String>,
    pub range: Option<String>,
    /// By the second server.
    pub elsewhere: bool,
}

#[derive(Default)]
pub struct State {
    /// Files by repository and commit.
    repos: BTreeMap<(String, String), Vec<File>>,
    /// Commits by repository and branch.
    branches: BTreeMap<(String, String), String>,
    /// Repositories that have moved.
    pub moved: BTreeMap<String, String>,
    pub asked: Vec<Asked>,
    /// Bytes after which the next answers with large files are cut.
    pub cuts: Vec<usize>,
    /// Large files come with a wrong byte.
    pub corrupt: bool,
    /// Large files always come whole.
    pub no_ranges: bool,
    /// The next large file stops, and the connection stays open.
    pub stall: bool,
    /// What every request for the hub's own routes is answered with, and the hub's code for it.
    pub refuse: Option<(u16, &'static str)>,
    /// The body that every list is answered with.
    pub list: Option<String>,
    /// What the hub's own routes want to be asked with.
    pub wants_token: Option<&'static str>,
    /// ETags of small files, instead of the checksums.
    pub etag: Option<&'static str>,
    /// The size that is said of large files, instead of the true one.
    pub size: Option<&'static str>,
    /// Only the second server knows sizes and checksums of large files.
    pub silent: bool,
    /// Where large files redirect to, instead of the second server.
    pub location: Option<String>,
}

#[derive(Clone)]
pub struct Server {
    pub url: String,
    elsewhere: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start() -> Server {
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        let cdn = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let server = Server { url: url(&hub), elsewhere: url(&cdn), state: Arc::default() };
        for (listener, elsewhere) in [(hub, false), (cdn, true)] {
            let server = server.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let server = server.clone();
                    std::thread::spawn(move || server.serve(stream, elsewhere));
                }
            });
        }
        server
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets `branch` of a repository be a commit with these files.
    pub fn add(&self, repo: &str, branch: &str, commit: &str, files: &[File]) {
        let mut state = self.state();
        state.repos.insert((repo.to_owned(), commit.to_owned()), files.to_vec());
        state.branches.insert((repo.to_owned(), branch.to_owned()), commit.to_owned());
    }

    /// The requests since this was last asked.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().asked)
    }

    /// Answers one request after the other.
    fn serve(&self, stream: TcpStream, elsewhere: bool) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(asked) = read_request(&mut reader, elsewhere) {
            self.state().asked.push(asked.clone());
            let answer = self.answer(&asked);
            if write_answer(&stream, &asked, answer).is_none() {
                return;
            }
        }
    }

    fn answer(&self, asked: &Asked) -> Answer {
        let mut state = self.state();
        let path = asked.path.split('?').next().unwrap().trim_start_matches('/').to_owned();
        if asked.elsewhere {
            return state.blob(&path, asked);
        }
        if let Some((status, code)) = state.refuse {
            return Answer::new(status)
                .header("X-Error-Code", code)
                .header("X-Error-Message", "no, for a test");
        }
        if state.wants_token.is_some_and(|token| asked.token.as_deref() != Some(&format!("Bearer {token}"))) {
            return Answer::new(401).header("X-Error-Code", "RepoNotFound");
        }
        if let Some((old, new)) = state.moved.iter().find(|(old, _)| {
            path.starts_with(&format!("api/models/{old}/")) || path.starts_with(&format!("{old}/"))
        }) {
            return Answer::new(307).header("Location", &format!("/{}", path.replacen(old, new, 1)));
        }
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["api", "models", repo @ .., "revision", revision] => state.info(&repo.join("/"), revision),
            ["api", "models", repo @ .., "tree", revision] => state.tree(&repo.join("/"), revision),
            [repo @ .., "resolve", revision, file] => {
                state.file(&repo.join("/"), revision, file, asked, &self.elsewhere)
            }
            _ => Answer::new(404),
        }
    }
}

impl State {
    fn commit(&self, repo: &str, revision: &str) -> Result<String, Answer> {
        let revision = revision.replace("%2F", "/");
        let key = |revision: &str| (repo.to_owned(), revision.to_owned());
        if self.repos.contains_key(&key(&revision)) {
            return Ok(revision);
        }
        let has_repo = self.repos.keys().any(|(known, _)| known == repo);
        let code = if has_repo { "RevisionNotFound" } else { "RepoNotFound" };
        let status = if has_repo { 404 } else { 401 };
        let commit = self.branches.get(&key(&revision)).cloned();
        commit.ok_or_else(|| Answer::new(status).header("X-Error-Code", code))
    }

    fn info(&self, repo: &str, revision: &str) -> Answer {
        if let Some(list) = &self.list {
            return Answer::new(200).body(list.as_bytes());
        }
        let commit = match self.commit(repo, revision) {
            Ok(commit) => commit,
            Err(answer) => return answer,
        };
        let files = &self.repos[&(repo.to_owned(), commit.clone())];
        let siblings: Vec<_> =
            files.iter().map(|file| serde_json::json!({ "rfilename": file.name })).collect();
        let info = serde_json::json!({ "id": repo, "sha": commit, "private": false, "siblings": siblings });
        Answer::new(200).body(info.to_string().as_bytes())
    }

    fn tree(&self, repo: &str, revision: &str) -> Answer {
        let commit = match self.commit(repo, revision) {
            Ok(commit) => commit,
            Err(answer) => return answer,
        };
        let entry = |file: &File| {
            let (size, oid) = (file.bytes.len(), git_sha1(&file.bytes));
            let mut entry =
                serde_json::json!({ "type": "file", "path": file.name, "size": size, "oid": oid });
            if file.large {
                entry["lfs"] =
                    serde_json::json!({ "oid": sha256(&file.bytes), "size": size, "pointerSize": 130 });
            }
            entry
        };
        let tree: Vec<_> = self.repos[&(repo.to_owned(), commit)].iter().map(entry).collect();
        Answer::new(200).body(serde_json::Value::from(tree).to_string().as_bytes())
    }

    fn file(&self, repo: &str, revision: &str, file: &str, asked: &Asked, elsewhere: &str) -> Answer {
        let commit = match self.commit(repo, revision) {
            Ok(commit) => commit,
            Err(answer) => return answer,
        };
        let files = &self.repos[&(repo.to_owned(), commit.clone())];
        let Some(File { bytes, large, .. }) = files.iter().find(|known| known.name == file) else {
            return Answer::new(404).header("X-Error-Code", "EntryNotFound").header("X-Repo-Commit", &commit);
        };
        if !large {
            let etag = self.etag.map_or_else(|| git_sha1(bytes), str::to_owned);
            let answer =
                Answer::new(200).header("X-Repo-Commit", &commit).header("ETag", &format!("W/\"{etag}\""));
            return answer.part(bytes, asked);
        }
        let sha256 = sha256(bytes);
        let location = format!("{elsewhere}/{sha256}?signature=x");
        if self.silent {
            return Answer::new(302).header("Location", &location);
        }
        Answer::new(302)
            .header("X-Repo-Commit", &commit)
            .header("X-Linked-Etag", &format!("\"{sha256}\""))
            .header("X-Linked-Size", &self.size.map_or(bytes.len().to_string(), str::to_owned))
            .header("Location", self.location.as_ref().unwrap_or(&location))
    }

    /// A large file, as the second server sends it.
    fn blob(&mut self, etag: &str, asked: &Asked) -> Answer {
        let mut all = self.repos.values().flatten();
        let Some(file) = all.find(|file| file.large && sha256(&file.bytes) == etag) else {
            return Answer::new(403);
        };
        let mut bytes = file.bytes.clone();
        if self.corrupt {
            *bytes.last_mut().unwrap() ^= 1;
        }
        let asked = Asked { range: asked.range.clone().filter(|_| !self.no_ranges), ..asked.clone() };
        let cut = if self.cuts.is_empty() { None } else { Some(self.cuts.remove(0)) };
        let stall = std::mem::take(&mut self.stall);
        Answer { cut, stall, ..Answer::new(200).header("ETag", &format!("\"{etag}\"")).part(&bytes, &asked) }
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    cut: Option<usize>,
    stall: bool,
}

impl Answer {
    fn new(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new(), cut: None, stall: false }
    }

    fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn body(mut self, body: &[u8]) -> Answer {
        self.body = body.to_vec();
        self
    }

    /// The bytes that were asked for.
    fn part(self, bytes: &[u8], asked: &Asked) -> Answer {
        let range = asked.range.as_ref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        let Some(start) = range.map(|start| start.parse::<usize>().unwrap()) else { return self.body(bytes) };
        let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
        Answer { status: 206, ..self }.header("Content-Range", &range).body(&bytes[start..])
    }
}

fn read_request(reader: &mut BufReader<TcpStream>, elsewhere: bool) -> Option<Asked> {
    let mut line = String::new();
    let mut next = |line: &mut String| {
        line.clear();
        reader.read_line(line).ok().filter(|read| *read > 0)
    };
    next(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut asked = Asked { method, path, token: None, range: None, elsewhere };
    loop {
        next(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { return Some(asked) };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => asked.token = Some(value.trim().to_owned()),
            "range" => asked.range = Some(value.trim().to_owned()),
            _ => {}
        }
    }
}

/// `None` when the connection is of no more use.
fn write_answer(mut stream: &TcpStream, asked: &Asked, answer: Answer) -> Option<()> {
    let Answer { status, headers, body, cut, stall } = answer;
    let mut head =
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\n", body.len());
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    stream.write_all((head + "\r\n").as_bytes()).ok()?;
    if asked.method == "HEAD" {
        return Some(());
    }
    let end = if stall { Some(body.len() / 2) } else { cut };
    stream.write_all(&body[..end.unwrap_or(body.len()).min(body.len())]).ok()?;
    stream.flush().ok()?;
    if stall {
        // Until the other side goes away.
        _ = std::io::Read::read(&mut stream, &mut [0]);
    }
    if end.is_some() {
        _ = stream.shutdown(std::net::Shutdown::Both);
        return None;
    }
    Some(())
}

pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

pub fn git_sha1(bytes: &[u8]) -> String {
    format!("{:x}", Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}
