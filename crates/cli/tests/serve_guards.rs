//! `gpt2 serve`: who may come in. Keys, limits, names, origins, TLS, each through the binary.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use common::server::{Answer, Server, answer};
use common::{Folder, TINY, text};
use serde_json::json;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const KEY: &str = "sk-a-key-that-is-long-enough-for-a-test";
const OTHER: &str = "sk-another-key-that-is-long-enough-for-one";

/// A folder with a model.
fn tiny() -> Folder {
    let folder = Folder::new();
    folder.write("fox.txt", text());
    let flags =
        format!("train --data fox.txt --val-fraction 0 --tokenizer bpe:257 {TINY} --max-steps 1 --out m");
    folder.succeeds(&flags);
    folder
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}")
}

fn write(server: &Server, key: &str, max_tokens: usize) -> Answer {
    let body = json!({ "model": "m", "prompt": "abc", "max_tokens": max_tokens });
    server.with("POST", "/v1/completions", &[&bearer(key)], &body.to_string())
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], code, "{answer:?}");
    assert!(answer.json()["error"]["message"].is_string() && answer.json()["error"]["type"].is_string());
}

#[cfg(unix)]
fn hang_up(server: &Server) {
    let id = server.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
}

#[test]
#[cfg(unix)]
fn only_keys_of_the_file_come_in() {
    let folder = tiny();
    let made = folder.run("key alice --requests-per-minute 500");
    assert!(
        made.ok && made.stdout.starts_with("alice: sha256:") && made.stdout.ends_with(" requests=500\n"),
        "{}",
        made.stdout
    );
    let alice = made.stderr.trim().rsplit(' ').next().unwrap().to_owned();
    let hashed = folder.run_with_input("key bob --stdin", format!("{KEY}\n").as_bytes());
    assert!(hashed.ok && hashed.stderr.is_empty() && !hashed.stdout.contains(KEY), "{}", hashed.stderr);
    folder.write("keys", format!("# keys\n{}{}", made.stdout, hashed.stdout));
    let server = Server::start(&folder, "-m m --api-key-file keys");
    assert!(!server.messages().contains("in the clear"), "{}", server.messages());
    let none = server.get("/v1/models");
    refused(&none, 401, "invalid_api_key");
    assert_eq!(none.header("www-authenticate"), Some("Bearer realm=\"gpt2\""));
    for wrong in [OTHER, "x", &KEY[1..], &format!("{KEY}x"), ""] {
        let answer = server.with("GET", "/v1/models", &[&bearer(wrong)], "");
        refused(&answer, 401, "invalid_api_key");
    }
    refused(&server.with("GET", "/v1/models", &[&bearer(KEY), &bearer(KEY)], ""), 401, "invalid_api_key");
    for key in [KEY, &alice] {
        assert_eq!(server.with("GET", "/v1/models", &[&bearer(key)], "").status, 200);
        assert_eq!(write(&server, key, 1).status, 200);
    }
    // Without a key: whether it lives, but not what it does.
    assert_eq!(server.get("/health").status, 200);
    refused(&server.get("/metrics"), 401, "invalid_api_key");
    assert_eq!(server.with("GET", "/metrics", &[&bearer(KEY)], "").status, 200);
    for path in ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/detokenize"] {
        refused(&server.post(path, &json!({})), 401, "invalid_api_key");
    }
    // Read again: one key goes, another comes. It is in the clear, which is told at a start.
    folder.write("keys", format!("carol: {OTHER}"));
    hang_up(&server);
    server.wait_until(|server| server.with("GET", "/v1/models", &[&bearer(OTHER)], "").status == 200);
    refused(&server.with("GET", "/v1/models", &[&bearer(KEY)], ""), 401, "invalid_api_key");
    // A file that is wrong changes nothing.
    folder.write("keys", "carol: short");
    hang_up(&server);
    server.wait_until(|server| server.messages().contains("the keys stay as they were"));
    assert!(server.messages().contains("line 1: the key has 5 characters"), "{}", server.messages());
    assert_eq!(server.with("GET", "/v1/models", &[&bearer(OTHER)], "").status, 200);
    drop(server);
    folder.write("keys", format!("carol: {OTHER}"));
    let server = Server::start(&folder, "-m m --api-key-file keys --metrics-open");
    assert!(server.messages().contains("keys in the clear"), "{}", server.messages());
    assert_eq!(server.get("/metrics").status, 200);
}

#[test]
fn keys_have_limits() {
    let folder = tiny();
    folder.write("keys", format!("few: {KEY}\nmany: {OTHER} requests=1000 tokens=14\n"));
    let server = Server::start(&folder, "-m m --api-key-file keys --requests-per-minute 2");
    // What looks something up is free.
    for _ in 0..3 {
        let answer = server.with("GET", "/v1/models", &[&bearer(KEY)], "");
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining-requests")), (200, Some("2")));
    }
    let first = write(&server, KEY, 1);
    assert_eq!((first.status, first.header("x-ratelimit-limit-requests")), (200, Some("2")));
    assert_eq!(first.header("x-ratelimit-remaining-requests"), Some("1"));
    assert_eq!(write(&server, KEY, 1).status, 200);
    let third = write(&server, KEY, 1);
    refused(&third, 429, "rate_limit_exceeded");
    assert_eq!(third.json()["error"]["type"], "requests");
    let seconds: u64 = third.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&seconds), "{third:?}");
    // The other key has its own, of tokens: 3 of the prompt, and those that are written.
    let answer = write(&server, OTHER, 5);
    assert_eq!((answer.status, answer.header("x-ratelimit-limit-tokens")), (200, Some("14")));
    let used = answer.json()["usage"]["total_tokens"].as_u64().unwrap();
    let left =
        |answer: &Answer| answer.header("x-ratelimit-remaining-tokens").unwrap().parse::<u64>().unwrap();
    server.wait_until(|server| left(&server.with("GET", "/v1/models", &[&bearer(OTHER)], "")) >= 14 - used);
    let second = write(&server, OTHER, 11);
    refused(&second, 429, "rate_limit_exceeded");
    assert_eq!(second.json()["error"]["type"], "tokens");
    assert!(second.json()["error"]["message"].as_str().unwrap().contains("may have 14"), "{second:?}");
    assert_eq!(write(&server, OTHER, 1).status, 200, "a smaller one");
}

#[test]
fn a_browser_cannot_be_tricked() {
    let folder = tiny();
    let server = Server::start(&folder, "-m m --allow-host chat.example");
    let port = server.address().rsplit(':').next().unwrap();
    let get = |headers: &[&str]| server.with("GET", "/v1/models", headers, "");
    for own in ["localhost", "127.0.0.1", "[::1]", "chat.example", "app.localhost"] {
        assert_eq!(get(&[&format!("Host: {own}:{port}")]).status, 200, "{own}");
    }
    for path in ["/v1/models", "/health", "/metrics", "/nothing"] {
        let hostile = server.with("GET", path, &["Host: evil.example"], "");
        refused(&hostile, 403, "host_not_allowed");
    }
    refused(&get(&["Host: 127.0.0.1.evil.example"]), 403, "host_not_allowed");
    assert_eq!(server.request("GET /health HTTP/1.0\r\n\r\n").status, 400);
    assert_eq!(get(&[&format!("Origin: http://{}", server.address())]).status, 200);
    for origin in ["http://evil.example", "null", "http://localhost:1"] {
        refused(&get(&[&format!("Origin: {origin}")]), 403, "origin_not_allowed");
        let asked = [&*format!("Origin: {origin}"), "Access-Control-Request-Method: POST"];
        let asked = server.with("OPTIONS", "/v1/completions", &asked, "");
        assert_eq!((asked.status, asked.header("access-control-allow-origin")), (403, None));
    }
    // Careful headers are on everything, refusals too.
    for answer in [get(&[]), get(&["Host: evil.example"]), server.get("/nothing")] {
        assert!(answer.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
        assert!(answer.header("x-request-id").is_some());
    }
}

#[test]
fn pages_that_were_named_may_ask() {
    let folder = tiny();
    folder.write("keys", format!("a: {KEY}"));
    let server = Server::start(&folder, "-m m --api-key-file keys --cors https://app.example");
    let origin = "Origin: https://app.example";
    // A browser asks before it sends a key, and without one.
    let ask = [
        origin,
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: authorization, content-type",
    ];
    let asked = server.with("OPTIONS", "/v1/chat/completions", &ask, "");
    assert_eq!(
        (asked.status, asked.header("access-control-allow-origin")),
        (200, Some("https://app.example"))
    );
    assert!(asked.header("access-control-allow-headers").unwrap().contains("authorization"), "{asked:?}");
    assert!(asked.header("access-control-allow-methods").unwrap().contains("POST"), "{asked:?}");
    let got = server.with("GET", "/v1/models", &[origin, &bearer(KEY)], "");
    assert_eq!((got.status, got.header("access-control-allow-origin")), (200, Some("https://app.example")));
    assert!(got.header("access-control-expose-headers").unwrap().contains("retry-after"), "{got:?}");
    assert_eq!(got.header("access-control-allow-credentials"), None);
    refused(
        &server.with("GET", "/v1/models", &["Origin: https://b.example", &bearer(KEY)], ""),
        403,
        "origin_not_allowed",
    );
    folder.fails("serve -m m --port 0 --cors app.example", &["app.example", "is no origin"]);
}

/// A request over TLS, and the certificate that the server showed.
fn over_tls(server: &Server, pem: &str) -> Result<Answer, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = builder.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(server.address())?);
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // A server may close without saying so.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    Ok(answer(&bytes))
}

#[test]
#[cfg(unix)]
fn connections_are_encrypted() {
    let folder = tiny();
    let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (first, second) = (made(), made());
    folder.write("cert.pem", first.cert.pem());
    folder.write("key.pem", first.signing_key.serialize_pem());
    let server = Server::begin(folder.command("serve -m m --port 0 --tls-cert cert.pem --tls-key key.pem"));
    assert!(server.messages().contains("listening on https://"), "{}", server.messages());
    let pem = first.cert.pem();
    server.wait_until(|server| over_tls(server, &pem).unwrap().status == 200);
    // Who does not speak TLS, or says nothing, is no trouble for others.
    let mut plain = server.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let silent = server.send("");
    let mut said = Vec::new();
    _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    assert_eq!(over_tls(&server, &pem).unwrap().status, 200);
    drop(silent);
    // Another certificate, while it runs.
    folder.write("cert.pem", second.cert.pem());
    folder.write("key.pem", second.signing_key.serialize_pem());
    hang_up(&server);
    server.wait_until(|server| over_tls(server, &second.cert.pem()).is_ok_and(|answer| answer.status == 200));
    assert!(over_tls(&server, &pem).is_err(), "the first is gone");
    folder.write("key.pem", "nothing");
    hang_up(&server);
    server.wait_until(|server| server.messages().contains("the certificate stays as it was"));
    assert_eq!(over_tls(&server, &second.cert.pem()).unwrap().status, 200);
    drop(server);
    folder.fails("serve -m m --port 0 --tls-cert cert.pem", &["--tls-cert and --tls-key belong together"]);
    folder.fails("serve -m m --port 0 --tls-cert cert.pem --tls-key key.pem", &["key.pem", "no private key"]);
    folder.fails("serve -m m --port 0 --tls-cert cert.pem --tls-key none.pem", &["none.pem"]);
}

#[test]
fn what_is_wrong_with_keys_is_told_at_the_start() {
    let folder = tiny();
    let serve = "serve -m m --port 0";
    folder.fails(&format!("{serve} --api-key-file none"), &["cannot read the keys in none"]);
    folder.write("keys", "# nobody\n");
    folder.fails(&format!("{serve} --api-key-file keys"), &["keys has no keys", "gpt2 key NAME"]);
    folder.write("keys", format!("a: {KEY}\nb: {KEY}"));
    folder.fails(&format!("{serve} --api-key-file keys"), &["keys, line 2", "also that of `a`"]);
    folder.write("keys", format!("a: {KEY} speed=3"));
    folder.fails(&format!("{serve} --api-key-file keys"), &["keys, line 1", "`speed=3` is no limit"]);
    folder.fails(&format!("{serve} --tokens-per-minute 5"), &["--api-key-file"]);
    folder.fails("key a/b", &["a name has 1 to 64 letters"]);
    let short = folder.run_with_input("key a --stdin", b"secret");
    assert!(!short.ok && short.stderr.contains("6 characters, which can be guessed"), "{}", short.stderr);
}

#[test]
fn each_key_has_a_history_of_its_own() {
    let folder = tiny();
    folder.write("keys", format!("a: {KEY}\nb: {OTHER}"));
    let server = Server::start(&folder, "-m m --api-key-file keys --history chats.sqlite");
    assert_eq!(server.get("/app/config").json()["api_key"], true);
    assert_eq!(server.get("/").status, 200, "the page itself is open");
    refused(&server.get("/app/chats"), 401, "invalid_api_key");
    // The document says which routes need a key.
    for (path, route) in server.get("/openapi.json").json()["paths"].as_object().unwrap() {
        let needs_key = route["get"]["security"].is_array();
        assert!(route["get"].is_null() || (server.get(path).status == 401) == needs_key, "{path}");
    }
    let date = "2026-01-31T12:00:00.000Z";
    let chat = json!({
        "title": "mine", "model": "m", "system": "", "created": date, "updated": date, "leaf": 0,
        "messages": [{ "parent": null, "role": "user", "content": "hello" }],
    });
    let path = format!("/app/chats/{}", "0123456789abcdef".repeat(2));
    let written = json!({ "version": 0, "chat": chat }).to_string();
    let kept = server.with("PUT", &path, &[&bearer(KEY)], &written);
    assert_eq!(kept.status, 200, "{kept:?}");
    let list = |key: &str| server.with("GET", "/app/chats", &[&bearer(key)], "").json()["chats"].clone();
    assert_eq!((list(KEY).as_array().unwrap().len(), list(OTHER)), (1, json!([])));
    assert_eq!(server.with("GET", &path, &[&bearer(OTHER)], "").status, 404);
}
