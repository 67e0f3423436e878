//! `gpt2 serve`: what can be seen of it. Metrics, the log, and the file of settings, each through the binary.

mod common;

use std::collections::BTreeMap;
use std::io::Read;

use common::server::Server;
use common::{Folder, TINY, text};
use serde_json::{Value, json};

const KEY: &str = "sk-a-key-that-is-long-enough-for-a-test";
const OTHER: &str = "sk-another-key-that-is-long-enough-for-one";
const SECRET: &str = "rosebud";

/// A folder with a model.
fn tiny() -> Folder {
    let folder = Folder::new();
    folder.write("fox.txt", text());
    let shape = TINY.replace("--n-ctx 16", "--n-ctx 512");
    let flags =
        format!("train --data fox.txt --val-fraction 0 --tokenizer bpe:257 {shape} --max-steps 1 --out m");
    folder.succeeds(&flags);
    folder
}

fn post(server: &Server, path: &str, headers: &[&str], body: &Value) -> common::server::Answer {
    server.with("POST", path, headers, &body.to_string())
}

/// The numbers of `/metrics`, by name with labels.
fn metrics(server: &Server) -> BTreeMap<String, f64> {
    let answer = server.with("GET", "/metrics", &["Accept: text/plain"], "");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"), "{answer:?}");
    assert!(answer.body.ends_with("# EOF\n"));
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        })
        .collect()
}

#[test]
fn metrics_have_the_names_that_others_read() {
    let folder = tiny();
    folder.write("keys", format!("alice: {KEY} requests=3"));
    let server = Server::start(&folder, "-m fox=m --api-key-file keys --metrics-open --kv-budget 1MB");
    let bearer = format!("Authorization: Bearer {KEY}");
    let asked = json!({ "model": "fox", "prompt": "abcde", "max_tokens": 9, "min_tokens": 9, "n": 2 });
    let got = post(&server, "/v1/completions", &[&bearer], &asked);
    assert_eq!(got.status, 200, "{got:?}");
    let written = got.json()["usage"]["completion_tokens"].as_u64().unwrap() as f64;
    assert_eq!(
        post(&server, "/v1/completions", &[&bearer], &json!({ "model": "x", "prompt": "a" })).status,
        404
    );
    assert_eq!(server.post("/v1/completions", &asked).status, 401);
    assert_eq!(post(&server, "/tokenize", &[&bearer], &json!({ "prompt": "abc" })).status, 200);
    assert_eq!(post(&server, "/tokenize", &[&bearer], &json!({ "prompt": "abc" })).status, 429);
    let limited = "gpt2_rate_limited_total{key=\"alice\",kind=\"requests\"}";
    server.wait_until(|server| metrics(server).contains_key(limited));
    let now = metrics(&server);
    let is = |name: &str, value: f64| {
        assert_eq!(now.get(name), Some(&value), "{name} in {now:#?}");
    };
    // What vLLM's readers look for, to the letter.
    is("vllm:num_requests_running{model_name=\"fox\"}", 0.0);
    is("vllm:num_requests_waiting{model_name=\"fox\"}", 0.0);
    is("vllm:kv_cache_usage_perc{model_name=\"fox\"}", 0.0);
    let completions = |status: u16, model: &str| {
        format!(
            "gpt2_requests_total{{route=\"/v1/completions\",method=\"POST\",status=\"{status}\",model=\"{model}\"}}"
        )
    };
    is(&completions(200, "fox"), 1.0);
    is(&completions(404, ""), 1.0);
    is(&completions(401, ""), 1.0);
    is(limited, 1.0);
    is("gpt2_key_usage_total{key=\"alice\",kind=\"requests\"}", 4.0);
    is("gpt2_key_usage_total{key=\"alice\",kind=\"prompt_tokens\"}", 5.0);
    is("gpt2_key_usage_total{key=\"alice\",kind=\"written_tokens\"}", written);
    is("gpt2_written_tokens_total{model=\"fox\"}", written);
    is("gpt2_texts_total{model=\"fox\",finish=\"length\"}", 2.0);
    is("gpt2_time_to_first_token_seconds_count{model=\"fox\"}", 2.0);
    is("gpt2_time_per_token_seconds_count{model=\"fox\"}", 2.0);
    is("gpt2_queue_seconds_count{model=\"fox\"}", 2.0);
    is("gpt2_texts_running{model=\"fox\"}", 0.0);
    is("gpt2_build_info{version=\"0.1.0\"}", 1.0);
    let steps = now["gpt2_engine_steps_total{model=\"fox\"}"];
    is("gpt2_batch_size_count{model=\"fox\"}", steps);
    assert!(now["gpt2_batch_size_sum{model=\"fox\"}"] > steps, "two texts in a step");
    assert!(now["gpt2_engine_busy_seconds_total{model=\"fox\"}"] > 0.0);
    assert!(now["gpt2_kv_blocks{model=\"fox\"}"] > 0.0);
    assert!(now["gpt2_request_duration_seconds_count{route=\"/v1/completions\"}"] == 3.0);
    if cfg!(target_os = "linux") {
        assert!(now["process_resident_memory_bytes"] > 1e6);
    }
    let open = server.with("GET", "/metrics", &["Accept: application/openmetrics-text;version=1.0.0"], "");
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    // A route that a client made up is none of its own.
    assert_eq!(server.get("/made/up").status, 404);
    server.wait_until(|server| metrics(server).keys().any(|name| name.contains("route=\"none\"")));
    assert!(!metrics(&server).keys().any(|name| name.contains("made")));
}

/// The lines of the log that are about requests.
fn lines(server: &Server) -> Vec<Value> {
    let messages = server.messages();
    let all = messages
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    // Until the models are there, a probe is told of, too.
    all.filter(|line| line["message"] == "request" && line["path"] != "/health").collect()
}

/// The line of a request with a key, once it is there: lines come in the order in which all is known of a request.
fn line(server: &Server, key: &str, path: &str, status: u16) -> Value {
    let find = || {
        lines(server)
            .into_iter()
            .find(|line| line["key"] == key && line["path"] == path && line["status"] == status)
    };
    server.wait_until(|_| find().is_some());
    find().unwrap()
}

#[test]
fn desks_pay_for_what_they_read_and_write() {
    let folder = tiny();
    let third = "a-third-key-of-somebody-else";
    folder.write("keys", format!("alice: {KEY} tokens=60\nbob: {OTHER}\ncarol: {third} tokens=60"));
    let server = Server::start(&folder, "-m fox=m --api-key-file keys --metrics-open --log-format json");
    let [alice, bob, carol] = [KEY, OTHER, third].map(|key| format!("Authorization: Bearer {key}"));
    let text = "The fox ran home. ".repeat(10);
    let asked = json!({ "model": "fox", "text": text, "seed": 1 });
    assert_eq!(post(&server, "/app/summarize", &[&alice], &asked).events().last().unwrap()["type"], "done");
    // More was read than a minute's tokens: nothing is left, and the next job has to wait.
    let left = |server: &Server, key: &str| {
        let answer = server.with("GET", "/v1/models", &[key], "");
        answer.header("x-ratelimit-remaining-tokens").unwrap().parse::<u64>().unwrap()
    };
    server.wait_until(|server| left(server, &alice) == 0);
    let topic = json!({ "model": "fox", "recipe": "weather", "topic": "Leeds: rain", "seed": 1 });
    for (path, asked) in [("/app/summarize", &asked), ("/app/write", &topic)] {
        let refused = post(&server, path, &[&alice], asked);
        assert_eq!(
            (refused.status, &refused.json()["error"]["type"]),
            (429, &json!("tokens")),
            "{refused:?}"
        );
        let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(!message.contains("max_tokens"), "{message}");
    }
    let prompt = json!({ "prompt": format!("{}\nTL;DR:", text.trim_end()) });
    let read = post(&server, "/tokenize", &[&bob], &prompt).json()["count"].as_u64().unwrap();
    let paid = line(&server, "alice", "/app/summarize", 200);
    let written = paid["tokens"].as_u64().unwrap();
    assert_eq!((&paid["prompt_tokens"], &paid["model"]), (&json!(read), &json!("fox")));
    let now = metrics(&server);
    for (kind, tokens) in [("prompt", read), ("written", written)] {
        assert!(tokens > 0);
        assert_eq!(
            now[&format!("gpt2_key_usage_total{{key=\"alice\",kind=\"{kind}_tokens\"}}")],
            tokens as f64
        );
        assert_eq!(now[&format!("gpt2_{kind}_tokens_total{{model=\"fox\"}}")], tokens as f64);
    }
    assert_eq!(post(&server, "/app/write", &[&bob], &topic).events().last().unwrap()["type"], "done");
    // Who leaves pays for what was done by then, and did so while it was done.
    let long = json!({ "model": "fox", "text": text.repeat(1000) }).to_string();
    let head = format!("POST /app/summarize HTTP/1.1\r\nHost: {}\r\n{carol}\r\n", server.address());
    let length = long.len();
    let mut stream = server
        .send(&format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{long}"));
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains("\"part\"") {
        let mut some = [0; 1024];
        let n = stream.read(&mut some).unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&got));
        got.extend(&some[..n]);
    }
    assert_eq!(left(&server, &carol), 0);
    assert_eq!(post(&server, "/app/summarize", &[&carol], &asked).status, 429);
    drop(stream);
    let document = line(&server, "bob", "/app/write", 200);
    let summary = line(&server, "carol", "/app/summarize", 200);
    assert_eq!((&document["cancelled"], &summary["cancelled"]), (&Value::Null, &json!(true)));
    for paid in [document, summary] {
        let [read, written] = ["prompt_tokens", "tokens"].map(|name| paid[name].as_u64().unwrap());
        assert!((1..100_000).contains(&read) && written > 0, "{paid}");
    }
}

#[test]
fn the_log_tells_of_requests_and_not_of_texts() {
    let folder = tiny();
    folder.write("keys", format!("alice: {KEY}"));
    let server = Server::start(&folder, "-m fox=m --api-key-file keys --log-format json");
    let bearer = format!("Authorization: Bearer {KEY}");
    let asked = json!({ "model": "fox", "prompt": SECRET, "max_tokens": 4, "min_tokens": 4, "stream": true });
    let got = post(&server, "/v1/completions", &[&bearer, "X-Request-Id: my-id-7"], &asked);
    assert_eq!((got.status, got.header("x-request-id")), (200, Some("my-id-7")));
    let chat =
        json!({ "model": "fox", "messages": [{ "role": "user", "content": SECRET }], "max_tokens": 1 });
    let got =
        post(&server, &format!("/v1/chat/completions?q={SECRET}"), &[&bearer, "X-Request-Id: my id"], &chat);
    let made = got.header("x-request-id").unwrap().to_owned();
    assert!(got.status == 200 && made.starts_with("req-"), "{got:?}");
    let wrong = json!({ "model": "fox", "prompt": { SECRET: SECRET } });
    assert_eq!(post(&server, "/v1/completions", &[&bearer], &wrong).status, 400);
    assert_eq!(server.get("/v1/models").status, 401);
    server.wait_until(|server| lines(server).len() == 4);
    let streamed = line(&server, "alice", "/v1/completions", 200);
    assert_eq!((&streamed["id"], &streamed["level"]), (&json!("my-id-7"), &json!("INFO")));
    assert_eq!((&streamed["method"], &streamed["model"]), (&json!("POST"), &json!("fox")));
    assert_eq!(streamed["client"], "127.0.0.1");
    assert_eq!((&streamed["prompt_tokens"], &streamed["tokens"]), (&json!(SECRET.len()), &json!(4)));
    assert!(
        streamed["ms"].as_f64().unwrap() > 0.0
            && streamed["timestamp"].is_string()
            && streamed["cancelled"].is_null()
    );
    assert_eq!(line(&server, "alice", "/v1/chat/completions", 200)["id"], made);
    assert_eq!(line(&server, "alice", "/v1/completions", 400).get("model"), None);
    assert!(lines(&server).iter().any(|line| line["status"] == 401 && line.get("key").is_none()));
    assert!(!server.messages().contains(SECRET) && !server.messages().contains(KEY), "{}", server.messages());
}

#[test]
fn a_client_that_leaves_is_told_of_and_pays_for_what_was_written() {
    let folder = tiny();
    let server = Server::start(&folder, "-m fox=m --log-format json");
    let body = json!({ "model": "fox", "prompt": "abc", "max_tokens": 500, "min_tokens": 500, "stream": true, "n": 8 });
    let mut stream = server.send(&server.post_text("/v1/completions", &body.to_string()));
    std::io::Read::read_exact(&mut stream, &mut [0; 200]).unwrap();
    drop(stream);
    server.wait_until(|server| lines(server).len() == 1);
    let line = &lines(&server)[0];
    assert_eq!((&line["status"], &line["cancelled"]), (&json!(200), &json!(true)), "{line}");
    let written = line["tokens"].as_u64().unwrap();
    assert!((1..4000).contains(&written), "{line}");
    assert_eq!(metrics(&server)["gpt2_written_tokens_total{model=\"fox\"}"], written as f64);
    assert_eq!(metrics(&server)["gpt2_requests_cancelled_total{route=\"/v1/completions\"}"], 1.0);
}

#[test]
fn prompts_are_logged_where_that_is_asked_for() {
    let folder = tiny();
    let server = Server::start(&folder, "-m fox=m --log-prompts --log-level debug");
    let asked = json!({ "model": "fox", "prompt": SECRET, "max_tokens": 1 });
    assert_eq!(server.post("/v1/completions", &asked).status, 200);
    server.wait_until(|server| server.messages().contains(SECRET));
    assert!(server.messages().contains("the log holds what people send"), "{}", server.messages());
    // Probes are told of at this level only.
    server.wait_until(|server| server.messages().contains("path=\"/health\""));
}

#[test]
fn settings_come_from_flags_then_the_environment_then_a_file() {
    let folder = tiny();
    folder.write("keys", format!("alice: {KEY}"));
    folder.write("serve.toml", "model = [\"file=m\"]\nport = 0\nmetrics-open = true\nmax-tokens-limit = 3\nlog-format = \"json\"\napi-key-file = \"keys\"\n");
    let most = |command: std::process::Command| {
        let server = Server::begin(command);
        server.wait_until(|server| server.get("/health").status == 200);
        let bearer = format!("Authorization: Bearer {KEY}");
        let models = server.with("GET", "/v1/models", &[&bearer], "").json();
        let name = models["data"][0]["id"].as_str().unwrap().to_owned();
        let asked = json!({ "model": name, "prompt": "a", "max_tokens": 100 });
        let got = post(&server, "/v1/completions", &[&bearer], &asked);
        assert_eq!(server.get("/metrics").status, 200);
        (name, got.json()["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    let (name, says) = most(folder.command("serve --config serve.toml"));
    assert!(name == "file" && says.contains('3'), "{name}: {says}");
    let mut command = folder.command("serve --config serve.toml");
    let (_, says) = most({
        command.env("GPT2_MAX_TOKENS_LIMIT", "7");
        command
    });
    assert!(says.contains('7'), "{says}");
    let mut command = folder.command("serve --config serve.toml -m flag=m --max-tokens-limit 9");
    let (name, says) = most({
        command.env("GPT2_MAX_TOKENS_LIMIT", "7");
        command
    });
    assert!(name == "flag" && says.contains('9'), "{name}: {says}");
    folder.write("wrong.toml", "model = [\"m\"]\n\nprot = 0\n");
    folder.fails(
        "serve --config wrong.toml",
        &["wrong.toml, line 3", "no setting `prot`", "did you mean `port`?"],
    );
    folder.write("wrong.toml", "port = \"many\"\n");
    folder.fails("serve -m m --config wrong.toml", &["wrong.toml, line 1", "many"]);
    folder.fails("serve -m m --config none.toml", &["--config", "cannot read none.toml"]);
}
