//! The fields of OpenAI's routes: each does what it says, streamed or not, and agrees with the other commands.

mod common;

use common::server::Server;
use common::{Folder, text};
use serde_json::{Value, json};

/// A model without sense, whose texts differ with the seed.
fn tiny() -> Folder {
    let folder = Folder::new();
    folder.write("fox.txt", text());
    folder.succeeds(
        "train --data fox.txt --val-fraction 0 --tokenizer bpe:300 --n-layer 1 --n-head 2 --n-embd 16 --n-ctx 256 --batch 4 \
         --seed 3 --max-steps 4 --out m",
    );
    folder
}

fn with(mut body: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// A completion, which must succeed.
#[track_caller]
fn complete(server: &Server, fields: Value) -> Value {
    let got = server.post("/v1/completions", &with(json!({ "model": "m", "seed": 1 }), fields));
    assert_eq!(got.status, 200, "{}", got.body);
    got.json()
}

fn texts(answer: &Value) -> Vec<&str> {
    answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect()
}

/// What a stream says of each choice, put together: text, tokens, log-probabilities, offsets, and why it ended.
fn put_together(events: &[Value], n: usize) -> Vec<Value> {
    let mut choices = vec![json!({ "text": "", "finish_reason": null, "logprobs": null }); n];
    for choice in events.iter().flat_map(|event| event["choices"].as_array().unwrap()) {
        let whole = &mut choices[choice["index"].as_u64().unwrap() as usize];
        assert!(whole["finish_reason"].is_null(), "nothing comes after the end");
        let text = whole["text"].as_str().unwrap().to_owned() + choice["text"].as_str().unwrap();
        whole["text"] = text.into();
        whole["finish_reason"] = choice["finish_reason"].clone();
        if let Some(lists) = choice["logprobs"].as_object() {
            if whole["logprobs"].is_null() {
                whole["logprobs"] =
                    json!({ "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [] });
            }
            for (name, values) in lists.iter().filter(|(_, values)| !values.is_null()) {
                let list = whole["logprobs"][name].as_array_mut().unwrap();
                list.extend(values.as_array().unwrap().iter().cloned());
            }
        }
    }
    choices
}

#[test]
fn prompts_come_in_four_forms() {
    let folder = tiny();
    let server = Server::start(&folder, "-m m");
    let ids = |text: &str| {
        let got = server.post("/tokenize", &json!({ "prompt": text })).json();
        assert_eq!(got["count"].as_u64().unwrap() as usize, got["tokens"].as_array().unwrap().len());
        assert_eq!(got["max_model_len"], 256);
        let back = server.post("/detokenize", &json!({ "model": "m", "tokens": got["tokens"] })).json();
        assert_eq!(back["prompt"], text);
        got["tokens"].clone()
    };
    let (fox, chinese) = (ids("The fox"), ids("从前有"));
    let one = |prompt: Value| texts(&complete(&server, json!({ "prompt": prompt })))[0].to_owned();
    let (a, b) = (one(json!("The fox")), one(json!("从前有")));
    assert_ne!(a, b);
    assert_eq!(one(fox.clone()), a);
    for prompt in [json!(["The fox", "从前有"]), json!([fox, chinese])] {
        let both = complete(&server, json!({ "prompt": prompt, "n": 1 }));
        assert_eq!(texts(&both), [a.as_str(), &b]);
        let tokens = fox.as_array().unwrap().len() + chinese.as_array().unwrap().len();
        assert_eq!(both["usage"]["prompt_tokens"], tokens);
        assert_eq!(both["choices"][1]["index"], 1);
    }
    // Without a prompt a new text begins.
    let none = complete(&server, json!({}));
    assert_eq!(none["usage"]["prompt_tokens"], 1);
    assert_eq!(none["usage"]["completion_tokens"], 16);
    assert_eq!(texts(&none)[0], one(json!("")));
}

#[test]
fn several_texts_have_seeds_of_their_own_and_the_best_are_the_likeliest() {
    let folder = tiny();
    let server = Server::start(&folder, "-m m");
    let asked = json!({ "prompt": "The fox", "n": 4, "max_tokens": 12, "logprobs": 0 });
    let four = complete(&server, asked.clone());
    for (k, text) in texts(&four).into_iter().enumerate() {
        let alone = complete(&server, json!({ "prompt": "The fox", "max_tokens": 12, "seed": 1 + k }));
        assert_eq!(texts(&alone)[0], text);
    }
    assert_eq!(four["usage"]["completion_tokens"], 48);
    let mean = |choice: &Value| {
        let all = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        all.iter().map(|x| x.as_f64().unwrap()).sum::<f64>() / all.len() as f64
    };
    let mut ranked: Vec<Value> = four["choices"].as_array().unwrap().clone();
    ranked.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    let best = complete(&server, json!({ "prompt": "The fox", "n": 2, "best_of": 4, "max_tokens": 12 }));
    assert_eq!(texts(&best), [ranked[0]["text"].as_str().unwrap(), ranked[1]["text"].as_str().unwrap()]);
    assert!(best["choices"][0]["logprobs"].is_null());
    assert_eq!(best["usage"]["completion_tokens"], 48);
    // Streamed, they come side by side.
    let body = with(json!({ "model": "m", "seed": 1, "stream": true, "logprobs": 0 }), asked);
    let events = server.post("/v1/completions", &body).events();
    let streamed = put_together(&events, 4);
    for (whole, streamed) in four["choices"].as_array().unwrap().iter().zip(&streamed) {
        assert_eq!(
            (&whole["text"], &whole["finish_reason"]),
            (&streamed["text"], &streamed["finish_reason"])
        );
    }
}

#[test]
fn log_probabilities_have_exact_positions() {
    let folder = tiny();
    let server = Server::start(&folder, "-m m");
    let prompt = "Once upon a 从前 time 🦊";
    folder.write("prompt.txt", prompt);
    let flags = "generate -m m --json -f prompt.txt -n 20 --seed 7 --temperature 1 --top-k 0 --logprobs 3";
    let want: Value = serde_json::from_str(&folder.succeeds(flags)).unwrap();
    let asked = json!({ "prompt": prompt, "max_tokens": 20, "seed": 7, "logprobs": 3, "echo": true });
    let got = complete(&server, asked.clone());
    let (choice, lists) = (&got["choices"][0], &got["choices"][0]["logprobs"]);
    assert_eq!(choice["text"], prompt.to_owned() + want["text"].as_str().unwrap());
    let known =
        want["prompt_logprobs"].as_array().unwrap().iter().chain(want["logprobs"].as_array().unwrap());
    let known: Vec<f64> = known.map(|token| token["logprob"].as_f64().unwrap()).collect();
    let told = lists["token_logprobs"].as_array().unwrap();
    assert!(told[0].is_null() && lists["top_logprobs"][0].is_null());
    // The end of a text, which was drawn, too, comes after its tokens.
    let told: Vec<f64> = told[1..].iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(told[..known.len()], known);
    assert_eq!(told.len() - known.len(), usize::from(want["finish_reason"] == "eot"));
    let (tokens, offsets) = (lists["tokens"].as_array().unwrap(), lists["text_offset"].as_array().unwrap());
    let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
    for (token, offset) in tokens.iter().zip(offsets).take(known.len() + 1) {
        let (token, offset) = (token.as_str().unwrap(), offset.as_u64().unwrap() as usize);
        if !token.starts_with("bytes:") {
            let there: String = text[offset..].iter().take(token.chars().count()).collect();
            assert_eq!(there, token);
        }
    }
    for (top, told) in lists["top_logprobs"].as_array().unwrap()[1..].iter().zip(&told) {
        let top = top.as_object().unwrap();
        assert!((3..=4).contains(&top.len()) && top.values().any(|x| x.as_f64() == Some(*told)), "{top:?}");
    }
    // As evaluation harnesses ask: a prompt of tokens, and nothing or one token more.
    let ids = server.post("/tokenize", &json!({ "prompt": prompt })).json()["tokens"].clone();
    let n = ids.as_array().unwrap().len();
    for more in [0, 1] {
        let asked = json!({ "prompt": [ids.clone()], "max_tokens": more, "logprobs": 1, "echo": true, "temperature": 0 });
        let got = complete(&server, asked);
        let lists = &got["choices"][0]["logprobs"];
        let told = lists["token_logprobs"].as_array().unwrap();
        assert_eq!(told.len(), n + more, "one for each token, the end of a text included");
        let told: Vec<f64> = told[1..n].iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!(told, known[..n - 1]);
        assert_eq!(got["usage"]["prompt_tokens"], n);
    }
}

#[test]
fn streams_tell_the_same_tokens_as_answers_in_one_piece() {
    let folder = tiny();
    let server = Server::start(&folder, "-m m");
    for seed in 0..12 {
        for stop in [json!(null), json!("o"), json!(["fox", "。", "e "])] {
            let body = json!({
                "model": "m", "prompt": "The fox", "max_tokens": 40, "seed": seed, "logprobs": 2, "stop": stop,
            });
            let whole = server.post("/v1/completions", &body).json()["choices"][0].clone();
            let events = server.post("/v1/completions", &with(body, json!({ "stream": true }))).events();
            let streamed = put_together(&events, 1).remove(0);
            for name in ["text", "finish_reason", "logprobs"] {
                assert_eq!(whole[name], streamed[name], "{name}, seed {seed}, until {stop}");
            }
            let chars = whole["text"].as_str().unwrap().chars().count();
            let offsets = whole["logprobs"]["text_offset"].as_array().unwrap();
            assert!(offsets.iter().all(|offset| offset.as_u64().unwrap() as usize <= chars));
        }
    }
    let chat = json!({
        "model": "m", "messages": [{ "role": "user", "content": "fox" }], "max_completion_tokens": 30, "seed": 3,
        "logprobs": true, "top_logprobs": 2,
    });
    let whole = server.post("/v1/chat/completions", &chat).json();
    let events = server.post("/v1/chat/completions", &with(chat, json!({ "stream": true }))).events();
    let tokens = events
        .iter()
        .flat_map(|event| event["choices"][0]["logprobs"]["content"].as_array().cloned().unwrap_or_default());
    assert_eq!(json!(tokens.collect::<Vec<_>>()), whole["choices"][0]["logprobs"]["content"]);
    let first = &whole["choices"][0]["logprobs"]["content"][0];
    assert!(first["bytes"].is_array() && first["top_logprobs"].as_array().unwrap().len() == 2, "{first}");
}

#[test]
fn texts_are_held_to_a_form() {
    let folder = tiny();
    let server = Server::start(&folder, "-m m");
    let schema = json!({
        "type": "object", "properties": { "name": { "type": "string", "maxLength": 8 }, "age": { "type": "integer" } },
        "required": ["name", "age"], "additionalProperties": false,
    });
    folder.write("schema.json", schema.to_string());
    let want = folder.succeeds(
        "generate -m m -p fox --json --json-schema schema.json -n 60 --seed 5 --temperature 1 --top-k 0",
    );
    let want: Value = serde_json::from_str(&want).unwrap();
    let format = json!({ "type": "json_schema", "json_schema": { "name": "person", "strict": true, "schema": schema } });
    let asked = json!({ "prompt": "fox", "max_tokens": 60, "seed": 5, "response_format": format });
    let got = complete(&server, asked);
    assert_eq!(texts(&got)[0], want["text"].as_str().unwrap());
    let made: Value = serde_json::from_str(texts(&got)[0]).unwrap();
    assert!(made["name"].is_string() && made["age"].is_i64(), "{made}");
    let chat = |format: Value, tokens: usize| {
        server.post(
            "/v1/chat/completions",
            &json!({
                "model": "m", "messages": [{ "role": "user", "content": "fox" }], "seed": 2, "max_tokens": tokens,
                "response_format": format,
            }),
        )
    };
    let got = chat(json!({ "type": "json_object" }), 40).json();
    let made: Value =
        serde_json::from_str(got["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert!(made.is_object());
    assert_eq!(chat(json!({ "type": "text" }), 5).status, 200);
    let too_short = chat(format, 3);
    assert_eq!((too_short.status, &too_short.json()["error"]["param"]), (400, &json!("response_format")));
    for wrong in [
        json!({ "type": "xml" }),
        json!({ "type": "json_object", "schema": {} }),
        json!({ "type": "json_schema" }),
        json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "nothing" } } }),
    ] {
        assert_eq!(chat(wrong.clone(), 40).status, 400, "{wrong}");
    }
}

#[test]
fn prompts_that_begin_alike_are_computed_once_and_said_to_be() {
    let folder = tiny();
    let server = Server::start(&folder, "-m m");
    let prompt: Vec<u32> = (0..150).map(|at| 10 + at * 7 % 90).collect();
    let cached = |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let asked = json!({ "prompt": prompt, "max_tokens": 5 });
    let (first, again) = (complete(&server, asked.clone()), complete(&server, asked));
    assert_eq!((cached(&first), cached(&again)), (0, 128), "whole blocks of 64");
    assert_eq!(texts(&first), texts(&again));
    assert_eq!(again["usage"]["prompt_tokens"], 150);
}

#[test]
fn choices_change_texts_as_they_do_elsewhere() {
    let folder = tiny();
    let server = Server::start(&folder, "-m m");
    let flags = "generate -m m --json -p fox -n 25 --seed 4 --temperature 0.9 --top-k 30 --top-p 0.9 --min-p 0.01 --repeat-penalty 1.2 \
                 --presence-penalty 0.5 --frequency-penalty 0.25 --logit-bias 30=2 --logit-bias 31=-50 --min-tokens 3";
    let want: Value = serde_json::from_str(&folder.succeeds(flags)).unwrap();
    let got = complete(
        &server,
        json!({
            "prompt": "fox", "max_tokens": 25, "seed": 4, "temperature": 0.9, "top_k": 30, "top_p": 0.9, "min_p": 0.01,
            "repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.25, "logit_bias": { "30": 2, "31": -50 },
            "min_tokens": 3, "user": "somebody", "suffix": null, "best_of": null,
        }),
    );
    assert_eq!(texts(&got)[0], want["text"].as_str().unwrap());
    // Without a seed, texts differ.
    let free = || complete(&server, json!({ "prompt": "fox", "seed": null }))["choices"][0]["text"].clone();
    let free: Vec<Value> = (0..5).map(|_| free()).collect();
    assert!(free.iter().any(|text| *text != free[0]), "{free:?}");
}

#[test]
fn vectors_tell_texts_apart() {
    let folder = tiny();
    let server = Server::start(&folder, "-m m");
    let vectors = |fields: Value| {
        let got = server.post("/v1/embeddings", &with(json!({ "model": "m" }), fields));
        assert_eq!(got.status, 200, "{}", got.body);
        got.json()
    };
    let vector = |answer: &Value, at: usize| -> Vec<f64> {
        answer["data"][at]["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let both = vectors(json!({ "input": ["The fox said", "从前有一只狐狸"] }));
    let (a, b) = (vector(&both, 0), vector(&both, 1));
    assert_eq!(a.len(), 16);
    assert!((a.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5);
    assert_ne!(a, b);
    assert_eq!(vector(&vectors(json!({ "input": "从前有一只狐狸" })), 0), b);
    let ids = server.post("/tokenize", &json!({ "prompt": "The fox said" })).json()["tokens"].clone();
    assert_eq!(vector(&vectors(json!({ "input": ids, "encoding_format": "float" })), 0), a);
    let coded = vectors(json!({ "input": "The fox said", "encoding_format": "base64" }));
    // 16 numbers of 4 bytes.
    assert_eq!(coded["data"][0]["embedding"].as_str().unwrap().len(), (64usize.div_ceil(3)) * 4);
    assert_eq!(coded["usage"]["total_tokens"], coded["usage"]["prompt_tokens"]);
    for (fields, param) in [
        (json!({ "input": "a", "dimensions": 8 }), "dimensions"),
        (json!({ "input": "" }), "input"),
        (json!({ "input": [] }), "input"),
        (json!({ "input": vec![7; 300] }), "input"),
        (json!({ "input": "a", "encoding_format": "hex" }), "encoding_format"),
    ] {
        let got = server.post("/v1/embeddings", &with(json!({ "model": "m" }), fields));
        assert_eq!((got.status, got.json()["error"]["param"].as_str()), (400, Some(param)), "{}", got.body);
    }
}

#[test]
fn the_document_lists_the_fields_that_there_are() {
    let folder = tiny();
    let server = Server::start(&folder, "-m m --history chats.sqlite");
    let document = server.get("/openapi.json").json();
    let mut tried = 0;
    for (path, route) in document["paths"].as_object().unwrap() {
        let Some(body) =
            route["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str()
        else {
            // There is a model of this name, and no conversation.
            let want = if path == "/app/chats/{id}" { 404 } else { 200 };
            assert_eq!(server.get(&path.replace("{id}", "m")).status, want, "{path}");
            continue;
        };
        let schema = document.pointer(body.trim_start_matches('#')).unwrap();
        let fields = schema["properties"].as_object().unwrap();
        let needed = schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        let mut least = json!({});
        // A text and a conversation exclude each other, and a text needs either.
        let needed = needed.chain((path == "/tokenize").then_some("prompt"));
        needed.for_each(|name| least[name] = fields[name]["example"].clone());
        for (name, field) in fields.iter().filter(|(_, field)| field.get("example").is_some()) {
            tried += 1;
            let got = server.post(path, &with(least.clone(), json!({ name: field["example"] })));
            assert_eq!(got.status, 200, "{path} with {name}: {}", got.body);
        }
        let got = server.post(path, &with(least, json!({ "no_such_field": 1 })));
        assert_eq!((got.status, &got.json()["error"]["param"]), (400, &json!("no_such_field")), "{path}");
    }
    assert!(tried > 60, "{tried}");
}
