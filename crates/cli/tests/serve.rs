//! `gpt2 serve`: OpenAI's routes, against the commands that write the same texts.

mod common;

use common::assistant::{TALK, train};
use common::server::Server;
use common::{Folder, text};
use models::{Gpt2, LoraConfig};
use serde_json::{Value, json};

/// A model without sense, whose texts differ with the seed.
fn tiny() -> Folder {
    let folder = Folder::new();
    folder.write("fox.txt", text());
    folder.succeeds(
        "train --data fox.txt --val-fraction 0 --tokenizer bpe:300 --n-layer 1 --n-head 2 --n-embd 16 --n-ctx 64 --batch 4 \
         --seed 3 --max-steps 4 --out m",
    );
    folder
}

/// The text of `gpt2 generate --json`.
fn generated(folder: &Folder, flags: &str) -> Value {
    serde_json::from_str(&folder.succeeds(&format!("generate -m m --json {flags}"))).unwrap()
}

#[test]
fn texts_are_those_of_gpt2_generate() {
    let folder = tiny();
    let server = Server::start(&folder, "-m m");
    for (seed, temperature) in [(1, 1.0), (2, 0.7), (3, 0.0)] {
        let flags = format!("-p Once -n 30 --seed {seed} --temperature {temperature} --top-k 0");
        let want = generated(&folder, &flags);
        let mut asked = json!({
            "model": "m", "prompt": "Once", "max_tokens": 30, "seed": seed, "temperature": temperature,
        });
        let got = server.post("/v1/completions", &asked);
        assert_eq!(got.status, 200, "{}", got.body);
        let got = got.json();
        assert_eq!(got["choices"][0]["text"], want["text"]);
        assert_eq!(got["usage"]["completion_tokens"], want["timings"]["tokens"]);
        assert_eq!(got["usage"]["prompt_tokens"], want["timings"]["prompt_tokens"]);
        asked["stream"] = true.into();
        let events = server.post("/v1/completions", &asked).events();
        let pieces: String =
            events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
        assert_eq!(pieces, want["text"].as_str().unwrap());
        assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], got["choices"][0]["finish_reason"]);
    }
}

#[test]
fn answers_are_those_that_were_learnt() {
    let folder = Folder::new();
    train(&folder);
    let server = Server::start(&folder, "-m fox=m");
    assert!(server.messages().contains("note: fox has no chat template"), "{}", server.messages());
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], "fox");
    assert!(models["data"][0]["chat_template"].as_str().unwrap().contains("User:"), "{models}");
    for (question, answer) in TALK {
        let mut asked = json!({
            "model": "fox", "messages": [{ "role": "user", "content": question }], "temperature": 0,
        });
        let got = server.post("/v1/chat/completions", &asked).json();
        let choice = &got["choices"][0];
        assert_eq!(choice["message"], json!({ "role": "assistant", "content": answer, "refusal": null }));
        assert_eq!(choice["finish_reason"], "stop");
        asked["stream"] = true.into();
        asked["stream_options"] = json!({ "include_usage": true });
        let mut events = server.post("/v1/chat/completions", &asked).events();
        let usage = events.pop().unwrap();
        assert_eq!(
            (&usage["choices"], &usage["usage"]["total_tokens"]),
            (&json!([]), &got["usage"]["total_tokens"])
        );
        let delta =
            |event: &Value| event["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
        assert_eq!(events.iter().map(delta).collect::<String>(), answer);
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    }
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let folder = tiny();
    let server = Server::start(&folder, "-m m");
    let refused = |path: &str, body: Value, status: u16, param: &str, part: &str| {
        let got = server.post(path, &body);
        let error = &got.json()["error"];
        assert_eq!((got.status, error["param"].as_str().unwrap_or("")), (status, param), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{body}: {error}");
        assert!(error["type"].is_string() && error.get("code").is_some(), "{error}");
    };
    let completion = |name: &str, value: Value, part: &str| {
        let mut body = json!({ "model": "m", "prompt": "Once" });
        body[name] = value;
        refused("/v1/completions", body, 400, name, part);
    };
    completion("suffix", json!("end"), "`suffix` is not supported");
    completion("temperature", json!("hot"), "temperature");
    completion("temperature", json!(-1), "temperature is -1");
    completion("top_p", json!(0), "top-p");
    completion("n", json!(0), "ask for 1 to 128");
    completion("max_token", json!(3), "there is no field `max_token`");
    completion("stop", json!([""]), "empty");
    completion("logit_bias", json!({ "9999999": 1 }), "out of range");
    completion("logit_bias", json!({ "x": 1 }), "no number");
    completion("prompt", json!([9999999]), "vocabulary");
    completion("prompt", json!({}), "a string, a list of strings");
    completion("stream_options", json!({ "include_usage": true }), "stream");
    refused("/v1/completions", json!({ "model": "x", "prompt": "a" }), 404, "model", "`m`");
    let chat = json!({ "model": "m", "messages": [{ "role": "user", "content": "a" }], "tools": [{}] });
    refused("/v1/chat/completions", chat, 400, "tools", "tools are not offered");
    let image = json!([{ "type": "image_url", "image_url": {} }]);
    let chat = json!({ "model": "m", "messages": [{ "role": "user", "content": image }] });
    refused("/v1/chat/completions", chat, 400, "messages[0].content[0].type", "must be \"text\"");
    // Both numbers are told.
    let long = json!({ "model": "m", "prompt": vec![5; 60], "max_tokens": 5 });
    refused("/v1/completions", long.clone(), 400, "prompt", "60 tokens and 5 more");
    assert_eq!(server.post("/v1/completions", &long).json()["error"]["code"], "context_length_exceeded");
    // What is no JSON, or no route.
    let got = server.request(&server.post_text("/v1/completions", "{"));
    assert_eq!((got.status, got.json()["error"]["type"].as_str()), (400, Some("invalid_request_error")));
    assert_eq!(server.get("/v1/nothing").status, 404);
    assert_eq!(server.get("/v1/completions").status, 405);
    let plain = server.post_text("/v1/completions", "{}").replace("application/json", "text/plain");
    assert_eq!(server.request(&plain).status, 415);
}

#[test]
fn adapters_are_models_of_their_own_name() {
    let folder = tiny();
    let mut model = Gpt2::load(&folder.path("m")).unwrap();
    model.add_lora(&"r=3,alpha=12,targets=all-linear".parse::<LoraConfig>().unwrap(), 1).unwrap();
    for (name, tensor) in model.trainable_mut().into_iter().filter(|(name, _)| name.contains("lora_")) {
        let scale = if name.contains("lora_A") { 0.4 } else { 0.5 };
        tensor.data_mut().iter_mut().enumerate().for_each(|(i, x)| *x += scale * (i as f32).sin());
    }
    model.save_adapter(&folder.path("ad"), "m").unwrap();
    let want = |flags: &str| {
        let flags = format!("generate -p Once -n 20 --seed 1 --temperature 1 --top-k 0 --json {flags}");
        let made: Value = serde_json::from_str(&folder.succeeds(&flags)).unwrap();
        made["text"].clone()
    };
    for dtype in ["", "--dtype bf16", "--dtype q8"] {
        let server = Server::start(&folder, &format!("-m m --adapter polite=ad {dtype}"));
        let text = |model: &str| {
            let body = json!({ "model": model, "prompt": "Once", "max_tokens": 20, "seed": 1 });
            server.post("/v1/completions", &body).json()["choices"][0]["text"].clone()
        };
        let (base, polite) = (text("m"), text("polite"));
        assert_eq!(base, want(&format!("-m m {dtype}")), "{dtype}");
        assert_eq!(polite, want(&format!("-m m --adapter ad {dtype}")), "{dtype}");
        assert_ne!(base, polite);
        let told = server.get("/v1/models/polite").json();
        assert_eq!((&told["parent"], &told["id"]), (&json!("m"), &json!("polite")));
    }
    folder.fails("serve -m m -m b=m --adapter polite=ad", &["there are several models"]);
    folder.fails("serve -m m --adapter m=ad", &["two models are called m"]);
}

#[test]
fn a_conversation_is_never_shortened() {
    let folder = tiny();
    let server = Server::start(&folder, "-m m");
    let turn = |role: &str| json!({ "role": role, "content": "Once upon a time there was a fox." });
    let messages: Vec<Value> = (0..9).map(|at| turn(["user", "assistant"][at % 2])).collect();
    let got = server.post("/v1/chat/completions", &json!({ "model": "m", "messages": messages }));
    let error = &got.json()["error"];
    assert_eq!(
        (got.status, &error["code"], &error["param"]),
        (400, &json!("context_length_exceeded"), &json!("messages"))
    );
    let tokens = server.post("/tokenize", &json!({ "messages": messages })).json()["count"].as_u64().unwrap();
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&format!("{tokens} tokens")) && message.contains("64 tokens"), "{message}");
    // Without a limit, an answer may fill what is left.
    let short = json!({ "model": "m", "messages": [turn("user")], "min_tokens": 1, "seed": 1, "logit_bias": { "299": -100 } });
    let got = server.post("/v1/chat/completions", &short).json();
    let (usage, reason) = (&got["usage"], &got["choices"][0]["finish_reason"]);
    assert!(usage["total_tokens"] == 64 || reason == "stop", "{got}");
}
