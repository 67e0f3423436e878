//! The page of `gpt2 serve`, its desks and its history, through the real binary. `page.rs` drives it in a browser.

mod common;

use common::server::{Answer, Server};
use common::{Folder, text};
use serde_json::{Value, json};

const ID: &str = "00112233445566778899aabbccddeeff";

/// A model without sense, whose context holds a recipe's prompts.
fn model() -> Folder {
    let folder = Folder::new();
    folder.write("fox.txt", text());
    folder.succeeds(
        "train --data fox.txt --val-fraction 0 --tokenizer bpe:300 --n-layer 1 --n-head 2 --n-embd 16 --n-ctx 512 --batch 1 \
         --seed 3 --max-steps 4 --out m",
    );
    folder
}

fn with_body(server: &Server, method: &str, path: &str, body: &Value) -> Answer {
    let text = server.post_text(path, &body.to_string());
    server.request(&text.replacen("POST", method, 1))
}

fn chat(title: &str) -> Value {
    json!({
        "title": title, "model": "m", "system": "", "created": "2026-01-31T12:00:00.000Z", "updated": "2026-01-31T12:00:00.000Z",
        "leaf": 1,
        "messages": [{ "parent": null, "role": "user", "content": "<b>hello</b>" }, { "parent": 0, "role": "assistant", "content": "hi" }],
    })
}

#[test]
fn the_page_comes_from_inside_and_is_fenced_in() {
    let folder = model();
    let server = Server::start(&folder, "-m m");
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("inline"), "{policy}");
    // Whatever it names is there.
    let named = page.body.split("\"/page/").skip(1).map(|part| part.split('"').next().unwrap());
    for name in named {
        assert_eq!(server.get(&format!("/page/{name}")).status, 200, "{name}");
    }
    // What the browser has is not sent again.
    let script = server.get("/page/main.js");
    assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
    let tag = script.header("etag").unwrap();
    let again = format!(
        "GET /page/main.js HTTP/1.1\r\nHost: {}\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n",
        server.address()
    );
    assert_eq!(server.request(&again).status, 304);
    let missing = server.get("/page/../Cargo.toml");
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &json!("unknown_url")));
    let config = server.get("/app/config").json();
    assert_eq!((&config["history"], &config["api_key"]), (&json!(false), &json!(false)));
    let models = server.get("/app/models").json();
    assert_eq!(models["models"][0], json!({ "id": "m", "parent": null, "n_ctx": 512, "template": false }));

    let server = Server::start(&folder, "-m m --no-page");
    for path in ["/", "/page/main.js", "/app/config", "/app/recipes"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    assert_eq!(server.get("/v1/models").status, 200);
    assert!(!server.get("/openapi.json").body.contains("\"/app/"));
}

#[test]
fn documents_are_those_of_gpt2_write() {
    let folder = model();
    let server = Server::start(&folder, "-m m");
    let recipes = server.get("/app/recipes").json();
    let names: Vec<&str> =
        recipes["recipes"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"weather") && names.contains(&"headline-article"), "{names:?}");
    let topic = "Leeds: rain";
    let mut command = folder.command("write weather -m m --seed 7 --best-of 2 --json");
    command.args(["--topic", topic]);
    let want: Value = serde_json::from_str(&folder.finish(command, b"").stdout).unwrap();
    let asked = json!({ "model": "m", "recipe": "weather", "topic": topic, "seed": 7, "best_of": 2 });
    let events = server.post("/app/write", &asked).events();
    let of =
        |kind: &str| events.iter().filter(|event| event["type"] == kind).cloned().collect::<Vec<Value>>();
    let steps = of("step");
    assert_eq!(steps.len(), 2);
    for (step, want) in steps.iter().zip(want["steps"].as_array().unwrap()) {
        assert_eq!(
            (&step["name"], &step["text"], &step["passed"]),
            (&want["name"], &want["text"], &want["passed"])
        );
        let failed = step["warnings"].as_array().unwrap().iter().filter(|one| one["kind"] == "check").count();
        assert_eq!(failed == 0, step["passed"] == true);
    }
    assert_eq!(events.last().unwrap()["markdown"], want["text"]);
    assert_eq!(events.last().unwrap()["seed"], 7);
    // The drafts of an attempt are its text before it is cut.
    let drafts: String = of("draft")
        .iter()
        .filter(|draft| draft["step"] == "forecast" && draft["attempt"] == 0)
        .map(|draft| draft["piece"].as_str().unwrap().to_owned())
        .collect();
    assert!(drafts.contains(want["steps"][0]["attempts"][0]["text"].as_str().unwrap()), "{drafts}");

    for (change, param) in [
        (json!({ "recipe": "none" }), json!("recipe")),
        (json!({ "model": "none" }), json!("model")),
        (json!({ "topic": " " }), json!("topic")),
        (json!({ "inputs": { "tone": "dry" } }), json!("inputs")),
        (json!({ "best_of": 9 }), json!("best_of")),
        (json!({ "lang": "fr" }), json!("lang")),
        (json!({ "seed": -1 }), json!("seed")),
        (json!({ "script": "x" }), Value::Null),
    ] {
        let mut wrong = asked.clone();
        wrong.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = server.post("/app/write", &wrong);
        assert!((400..500).contains(&answer.status), "{answer:?}");
        assert!(param.is_null() || answer.json()["error"]["param"] == param, "{answer:?}");
    }
    // What is found out later comes as the last event.
    let long = json!({ "model": "m", "recipe": "weather", "topic": "rain ".repeat(600), "seed": 7 });
    let body = server.post("/app/write", &long).body;
    assert!(body.contains("context_length_exceeded") && !body.contains("[DONE]"), "{body}");
}

#[test]
fn summaries_are_those_of_gpt2_summarize() {
    let folder = model();
    let server = Server::start(&folder, "-m m");
    let source = "The fox came home at 7. It slept. ".repeat(80);
    let mut command = folder.command("summarize -m m --seed 5 --json");
    command.args(["--text", &source]);
    let want: Value = serde_json::from_str(&folder.finish(command, b"").stdout).unwrap();
    let events = server.post("/app/summarize", &json!({ "model": "m", "text": source, "seed": 5 })).events();
    let last = events.last().unwrap();
    assert_eq!((&last["summary"], &last["unfound"]), (&want["summary"], &want["unfound"]));
    assert_eq!((&last["chars"], &last["sentences"]), (&want["read"]["chars"], &want["read"]["sentences"]));
    let parts = want["read"]["rounds"][0]["parts"].as_u64().unwrap();
    assert!(parts > 1);
    assert_eq!(last["parts"], parts);
    let read: Vec<u64> = events
        .iter()
        .filter(|event| event["type"] == "part")
        .map(|event| event["done"].as_u64().unwrap())
        .collect();
    assert_eq!(read[..parts as usize], (1..=parts).collect::<Vec<_>>());
    let pieces: String =
        last["pieces"].as_array().unwrap().iter().map(|piece| piece["text"].as_str().unwrap()).collect();
    assert_eq!(last["summary"], pieces);

    let empty = server.post("/app/summarize", &json!({ "model": "m", "text": " \n" }));
    assert_eq!((empty.status, &empty.json()["error"]["param"]), (400, &json!("text")));
    let body = server.post("/app/summarize", &json!({ "model": "m", "text": "a", "ratio": 2 })).body;
    assert!(body.contains("\"param\":\"ratio\""), "{body}");
}

#[test]
fn a_reader_who_leaves_frees_the_desk() {
    let folder = model();
    let server = Server::start(&folder, "-m m --request-timeout 3600");
    let long = json!({ "model": "m", "text": "The fox came home. ".repeat(100_000) });
    let begin = || server.send(&server.post_text("/app/summarize", &long.to_string()));
    let first = begin();
    drop(first);
    // Were it still read, this would wait for minutes.
    let answer = server.post("/app/summarize", &json!({ "model": "m", "text": "The fox." }));
    assert_eq!(answer.events().last().unwrap()["type"], "done");
}

#[test]
fn conversations_are_kept_and_read_again() {
    let folder = model();
    let server = Server::start(&folder, "-m m --history h.sqlite");
    assert_eq!(server.get("/app/config").json()["history"], true);
    let path = format!("/app/chats/{ID}");
    let put = |version: u64, title: &str| {
        with_body(&server, "PUT", &path, &json!({ "version": version, "chat": chat(title) }))
    };
    assert_eq!(put(0, "first").json(), json!({ "version": 1 }));
    assert_eq!(put(1, "second").json(), json!({ "version": 2 }));
    let late = put(1, "late");
    assert_eq!((late.status, &late.json()["error"]["code"]), (409, &json!("changed")));
    let list = server.get("/app/chats").json();
    assert_eq!(
        list["chats"],
        json!([{ "id": ID, "version": 2, "title": "second", "updated": "2026-01-31T12:00:00.000Z" }])
    );
    drop(server);

    let server = Server::start(&folder, "-m m --history h.sqlite");
    assert_eq!(server.get(&path).json(), json!({ "version": 2, "chat": chat("second") }));
    let mut wrong = chat("x");
    wrong["messages"][1]["parent"] = json!(7);
    let answer = with_body(&server, "PUT", &path, &json!({ "version": 2, "chat": wrong }));
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("chat.messages[1].parent")));
    let answer = with_body(&server, "PUT", "/app/chats/../../x", &json!({ "version": 0, "chat": chat("x") }));
    assert!(answer.status == 400 || answer.status == 404, "{answer:?}");
    // One that is too large is refused by its length.
    let large = server
        .post_text(&path, "{")
        .replacen("POST", "PUT", 1)
        .replace("Length: 1\r\n", "Length: 5000000\r\n");
    assert_eq!(server.request(&large).status, 413);
    assert_eq!(with_body(&server, "DELETE", &path, &json!({})).status, 204);
    assert_eq!(with_body(&server, "DELETE", &path, &json!({})).status, 404);
    assert_eq!(server.get(&path).status, 404);
    let nonsense = server.get("/app/chats/%ff");
    assert_eq!(
        (nonsense.status, nonsense.json()["error"]["type"].as_str()),
        (400, Some("invalid_request_error"))
    );
    drop(server);

    // Without a file nothing is kept, and says so.
    let server = Server::start(&folder, "-m m");
    let answer = with_body(&server, "PUT", &path, &json!({ "version": 0, "chat": chat("x") }));
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!("no_history")));
}

#[test]
fn a_history_that_is_not_ours_is_refused() {
    let folder = model();
    folder.write("text.sqlite", "this is no database, but a text of some length".repeat(40));
    folder.fails(
        "serve -m m --port 0 --history text.sqlite",
        &["text.sqlite is damaged, or is no database", "--history"],
    );
    // That of `gpt2 chat` is another.
    folder.succeeds("chat -m m -p hello -n 4 --history chat.sqlite");
    folder.fails("serve -m m --port 0 --history chat.sqlite", &["database of another program"]);
    folder.fails("serve -m m --port 0 --no-page --history h.sqlite", &["--no-page"]);
}
