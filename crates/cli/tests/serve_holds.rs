//! `gpt2 serve` under load and in trouble: the same answers in a crowd, full queues, clients that leave or dawdle, and its end.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::server::{Answer, Server, answer};
use common::{Folder, text};
use serde_json::{Value, json};

/// A model without sense, with room for long texts.
fn tiny(n_layer: usize, n_ctx: usize) -> Folder {
    let folder = Folder::new();
    folder.write("fox.txt", text());
    let flags = "train --data fox.txt --val-fraction 0 --tokenizer bpe:300 --n-head 2 --batch 1 --seed 3 --max-steps 1 --out m";
    folder.succeeds(&format!("{flags} --n-layer {n_layer} --n-embd {} --n-ctx {n_ctx}", 16 * n_layer));
    folder
}

/// A request that takes a while.
fn long(stream: bool) -> Value {
    json!({ "model": "m", "prompt": "fox", "max_tokens": 4000, "min_tokens": 4000, "seed": 1, "stream": stream })
}

/// Numbers without state, for tests.
fn random(at: u64, below: u64) -> u64 {
    let mut x = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) % below
}

fn text_of(answer: &Answer, stream: bool) -> String {
    assert_eq!(answer.status, 200, "{}", answer.body);
    if stream {
        let events = answer.events();
        return events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
    }
    answer.json()["choices"][0]["text"].as_str().unwrap().to_owned()
}

#[test]
fn a_request_has_the_same_answer_alone_in_a_crowd_streamed_or_not_and_from_gpt2_generate() {
    let folder = tiny(1, 256);
    let server = Server::start(&folder, "-m m --batch 5 --queue 100");
    let words = ["The fox said", "从前有一只", "Once upon a time there was a fox. The fox", "Good", ""];
    let wanted: Vec<(Value, String)> = (0..10u64)
        .map(|k| {
            let (prompt, seed) = (words[k as usize % words.len()], k);
            let (tokens, temperature) = (5 + random(k, 60), ["0", "0.7", "1", "1.5"][k as usize % 4]);
            let (top_k, top_p) = ([0, 40, 3][k as usize % 3], ["1", "0.9"][k as usize % 2]);
            let flags = format!("-n {tokens} --temperature {temperature} --top-k {top_k} --top-p {top_p} --seed {seed}");
            let mut command = folder.command(&format!("generate -m m --json {flags}"));
            command.args(["-p", prompt]);
            let made: Value = serde_json::from_str(&folder.finish(command, b"").stdout).unwrap();
            let body = json!({
                "model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": temperature.parse::<f64>().unwrap(),
                "top_k": top_k, "top_p": top_p.parse::<f64>().unwrap(), "seed": seed,
            });
            (body, made["text"].as_str().unwrap().to_owned())
        })
        .collect();
    for (body, text) in &wanted {
        assert_eq!(text_of(&server.post("/v1/completions", body), false), *text, "alone: {body}");
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Others come, and some leave before they have what they asked for.
        for client in 0..4u64 {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                for at in (0..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                    let dice = 1000 * client + at;
                    let prompt: Vec<u64> = (0..1 + random(dice, 150)).map(|at| random(dice + at, 200)).collect();
                    let body = json!({
                        "model": "m", "prompt": prompt, "max_tokens": 1 + random(dice, 90), "stream": at % 2 == 0,
                        "n": 1 + at % 3, "echo": at % 5 == 0, "logprobs": 2,
                    });
                    let mut socket = server.send(&server.post_text("/v1/completions", &body.to_string()));
                    if random(dice, 3) > 0 {
                        _ = socket.read_to_end(&mut Vec::new());
                    }
                }
            });
        }
        let clients: Vec<_> = (0..3usize)
            .map(|client| {
                let (server, wanted) = (&server, &wanted);
                scope.spawn(move || {
                    for round in 0..2 * wanted.len() {
                        let (body, text) = &wanted[(round + client) % wanted.len()];
                        let mut body = body.clone();
                        let stream = (round + client) % 2 == 0;
                        body["stream"] = stream.into();
                        let got = server.post("/v1/completions", &body);
                        assert_eq!(text_of(&got, stream), *text, "in a crowd: {body}");
                    }
                })
            })
            .collect();
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|result| result.unwrap());
    });
}

#[test]
fn a_slow_reader_keeps_nobody_waiting_and_loses_nothing() {
    let folder = tiny(2, 4096);
    let server = Server::start(&folder, "-m m --batch 2 --queue 4");
    let mut body = long(true);
    body["logprobs"] = 20.into(); // many bytes for each token, more than the system holds for a socket
    let mut slow = server.send(&server.post_text("/v1/completions", &body.to_string()));
    let whole = text_of(&server.post("/v1/completions", &long(false)), false);
    for _ in 0..3 {
        // All are served beside it, and after it.
        assert_eq!(text_of(&server.post("/v1/completions", &long(true)), true), whole);
    }
    let mut bytes = Vec::new();
    slow.read_to_end(&mut bytes).unwrap();
    assert_eq!(text_of(&answer(&bytes), true), whole);
}

/// Sends long requests until so many are taken by a server that takes no more.
fn fill(server: &Server, streams: &[bool]) -> Vec<TcpStream> {
    let probe = json!({ "model": "m", "prompt": "fox", "max_tokens": 1 });
    loop {
        let sockets: Vec<TcpStream> = streams
            .iter()
            .map(|&stream| server.send(&server.post_text("/v1/completions", &long(stream).to_string())))
            .collect();
        // A probe may have been there first, so that one of them is refused: then all are sent again.
        let is_refused = |socket: &TcpStream| {
            let mut head = [0; 12];
            socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let answered = socket.peek(&mut head).is_ok_and(|n| n == 12);
            socket.set_read_timeout(None).unwrap();
            answered && &head != b"HTTP/1.1 200"
        };
        while !sockets.iter().any(is_refused) {
            let refused = server.post("/v1/completions", &probe);
            if refused.status == 429 && !sockets.iter().any(is_refused) {
                assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1, "{refused:?}");
                assert_eq!(refused.json()["error"]["code"], "queue_full");
                return sockets;
            }
        }
        drop(sockets);
        server.wait_until(|server| server.post("/v1/completions", &probe).status == 200);
    }
}

#[test]
fn limits_are_kept() {
    let folder = tiny(2, 4096);
    let server = Server::start(
        &folder,
        "-m m --request-timeout 1 --body-limit 2kB --max-tokens-limit 4000 --kv-budget 1GB --connections 20",
    );
    let wait = json!({ "model": "m", "prompt": "fox", "max_tokens": 4001 });
    let got = server.post("/v1/completions", &wait);
    assert_eq!((got.status, &got.json()["error"]["param"]), (400, &json!("max_tokens")));
    let large = json!({ "model": "m", "prompt": "fox ".repeat(600) });
    assert_eq!(server.post("/v1/completions", &large).status, 413);
    // A body that is larger than its head says, in chunks.
    let chunks = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\
                  Connection: close\r\n\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 1000, " ".repeat(1000));
    assert_eq!(server.request(&format!("{chunks}{}0\r\n\r\n", chunk.repeat(3))).status, 413);
    // What is no HTTP at all, or is never finished, does no harm.
    let half: Vec<_> = (0..5).map(|_| server.send("POST /v1/completions HTTP/1.1\r\nContent-Le")).collect();
    let mut garbage = server.send("\u{1}\u{2}garbage\r\n\r\n");
    _ = garbage.flush();
    assert_eq!(server.get("/health").status, 200);
    drop(half);
}

#[cfg(unix)]
#[test]
fn sigterm_lets_running_requests_end_and_takes_no_others() {
    let folder = tiny(2, 4096);
    let server = Server::start(&folder, "-m m --batch 2 --queue 0 --drain-seconds 600");
    let want = text_of(&server.post("/v1/completions", &long(false)), false);
    let running = fill(&server, &[true, false]);
    signal(&server, "TERM");
    server.wait_until(|server| server.messages().contains("ending"));
    let health = server.get("/health");
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("draining")));
    let late = server.post("/v1/completions", &json!({ "model": "m", "prompt": "a" }));
    assert_eq!((late.status, &late.json()["error"]["code"]), (503, &json!("shutting_down")));
    for (mut socket, stream) in running.into_iter().zip([true, false]) {
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        assert_eq!(text_of(&answer(&bytes), stream), want);
    }
    let (status, messages) = server.end();
    assert!(status.success() && !messages.contains("dropped"), "{status}: {messages}");
}

#[cfg(unix)]
#[test]
fn a_second_signal_ends_at_once() {
    let folder = tiny(2, 4096);
    let server = Server::start(&folder, "-m m");
    let mut running = server.send(&server.post_text("/v1/completions", &long(true).to_string()));
    running.read_exact(&mut [0; 1]).unwrap();
    signal(&server, "INT");
    server.wait_until(|server| server.messages().contains("ending"));
    signal(&server, "INT");
    let (status, messages) = server.end();
    assert_eq!(status.code(), Some(130), "{messages}");
}

#[cfg(unix)]
fn signal(server: &Server, name: &str) {
    let sent =
        std::process::Command::new("kill").args([format!("-{name}"), server.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn what_cannot_be_served_is_said_at_once() {
    let folder = tiny(1, 64);
    folder.fails("serve -m nowhere/else --offline", &["nowhere/else"]);
    folder.fails("serve -m m -m m", &["two models are called m"]);
    folder.fails("serve -m m --adapter m", &["give it a name"]);
    folder.fails("serve -m m --batch 0", &["--batch 0"]);
    folder.fails("serve -m m --host nowhere.invalid", &["there is no such address"]);
    let server = Server::start(&folder, "-m a=m -m b=m --kv-budget 1kB");
    server.wait_until(|server| server.messages().contains("--kv-budget leaves b less"));
    assert_eq!(server.get("/v1/models").json()["data"].as_array().unwrap().len(), 2);
    assert_eq!(server.get("/v1/models/b").json()["id"], "b");
    let port = server.address().rsplit(':').next().unwrap().to_owned();
    folder.fails(&format!("serve -m m --port {port}"), &["cannot listen on 127.0.0.1"]);
    // A model that is damaged.
    folder.write("m/model.safetensors", "nothing");
    folder.fails("serve -m m --port 0", &["model.safetensors"]);
}
