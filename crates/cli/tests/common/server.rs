//! A server for tests: `gpt2 serve` as a process, and a client on a plain socket, which can also misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::Folder;

/// A server that ends with the test.
pub struct Server {
    child: Child,
    address: String,
    messages: Arc<Mutex<String>>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The events of a stream; the last is `[DONE]`.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let mut events: Vec<&str> = self.body.split("\n\n").filter(|event| !event.is_empty()).collect();
        assert_eq!(events.pop(), Some("data: [DONE]"), "{self:?}");
        let event = |event: &&str| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        events.iter().map(event).collect()
    }
}

impl Server {
    /// Starts `gpt2 serve` with words separated by white space, on a free port, and waits until it is ready.
    #[track_caller]
    pub fn start(folder: &Folder, args: &str) -> Server {
        let server = Server::begin(folder.command(&format!("serve --port 0 {args}")));
        server.wait_until(|server| server.get("/health").status == 200);
        server
    }

    /// Starts a server, and waits until it listens.
    #[track_caller]
    pub fn begin(mut command: Command) -> Server {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let messages = Arc::new(Mutex::new(String::new()));
        let mut address = None;
        while address.is_none() {
            let mut line = String::new();
            let n = lines.read_line(&mut line).unwrap();
            *messages.lock().unwrap() += &line;
            assert_ne!(n, 0, "the server ended: {}", messages.lock().unwrap());
            // A line of its own, or the message of a line of JSON.
            let said = line.split_once("listening on http").and_then(|(_, rest)| rest.split_once("://"));
            address = said.and_then(|(_, at)| Some(at.trim_end().split('"').next()?.to_owned()));
        }
        let rest = messages.clone();
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
                *rest.lock().unwrap() += &std::mem::take(&mut line);
            }
        });
        Server { child, address: address.unwrap(), messages }
    }

    /// What it has said so far.
    pub fn messages(&self) -> String {
        self.messages.lock().unwrap().clone()
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn wait_until(&self, is_so: impl Fn(&Server) -> bool) {
        while !is_so(self) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end.
    pub fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.messages())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(&self.post_text(path, &body.to_string()))
    }

    /// The text of a request with a body.
    pub fn post_text(&self, path: &str, body: &str) -> String {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: \
             close\r\n\r\n{body}",
            self.address,
            body.len()
        )
    }

    /// A request with more headers, each a line.
    pub fn with(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let host = format!("Host: {}", self.address);
        let is_host = |line: &&str| line.to_ascii_lowercase().starts_with("host:");
        let mut lines: Vec<&str> = headers.to_vec();
        if !headers.iter().any(is_host) {
            lines.push(&host);
        }
        let lines = lines.join("\r\n");
        self.request(&format!(
            "{method} {path} HTTP/1.1\r\n{lines}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: \
             close\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Sends a request as it stands, and reads the whole answer.
    #[track_caller]
    pub fn request(&self, text: &str) -> Answer {
        let mut stream = self.send(text);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        answer(&bytes)
    }

    /// Sends a request as it stands.
    pub fn send(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Reads an answer, whole or in chunks.
#[track_caller]
pub fn answer(bytes: &[u8]) -> Answer {
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| {
        panic!("no answer: {:?}", String::from_utf8_lossy(bytes));
    });
    let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut rest = &bytes[at + 4..];
    let mut body = Vec::new();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        loop {
            let end = rest.windows(2).position(|two| two == b"\r\n").expect("the length of a chunk");
            let len = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
            body.extend_from_slice(&rest[end + 2..end + 2 + len]);
            rest = &rest[end + 2 + len + 2..];
            if len == 0 {
                break;
            }
        }
    } else {
        body = rest.to_vec();
    }
    Answer { status, head, body: String::from_utf8(body).unwrap() }
}
