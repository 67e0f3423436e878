//! Texts of small random models are what their constraint asks for, whatever is drawn, and depend on nothing else.

use std::sync::Arc;

use generate::constraint::{Constraint, Vocabulary};
use generate::{
    EngineSettings, GenerateError, Generation, Overflow, Request, Sampling, Speculation, TextEvent, Texts,
};
use models::{Gpt2, Gpt2Config, Init};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizer::Tokenizer;

const TEXT: &str = r#"{"name": "李白", "city": "长安", "age": 42, "tags": ["诗人", "poet"]} hello world, 你好世界 "#;
const N_CTX: usize = 300;

/// Tokens that cut characters and words anywhere, and a model that knows nothing.
fn model(seed: u64) -> (Gpt2, Tokenizer) {
    let tokenizer = Tokenizer::train_bpe([TEXT.repeat(3)], 330).unwrap();
    let config = Gpt2Config::new(2, 2, 16, N_CTX, tokenizer.vocab_size());
    (Gpt2::new(config, Init::Xavier, seed).unwrap(), tokenizer)
}

/// All texts, written together.
fn write(
    model: &Gpt2,
    tokenizer: &Tokenizer,
    requests: &[Request],
    batch: usize,
    speculation: Speculation,
    step_tokens: usize,
) -> Vec<Result<Generation, GenerateError>> {
    let settings = EngineSettings { speculation, step_tokens, ..EngineSettings::for_batch(model, batch) };
    let mut texts = Texts::new(model, tokenizer, settings).unwrap();
    let ids: Vec<_> = requests.iter().map(|request| texts.add(request).unwrap()).collect();
    let mut done = std::collections::HashMap::new();
    while !texts.is_idle() {
        for event in texts.step().unwrap() {
            if let TextEvent::Done(id, result) = event {
                done.insert(id, result);
            }
        }
    }
    ids.iter().map(|id| done.remove(id).unwrap()).collect()
}

fn one(model: &Gpt2, tokenizer: &Tokenizer, request: &Request) -> Result<Generation, GenerateError> {
    write(model, tokenizer, std::slice::from_ref(request), 1, Speculation::Off, 512).remove(0)
}

fn request(constraint: &Arc<Constraint>, max_tokens: usize, temperature: f32, seed: u64) -> Request {
    Request {
        constraint: Some(Arc::clone(constraint)),
        max_tokens: Some(max_tokens),
        sampling: Sampling { temperature, seed, ..Sampling::default() },
        ..Request::default()
    }
}

/// Schemas that leave a model without sense much room to go wrong.
fn schemas() -> Vec<Value> {
    vec![
        json!({ "type": "string" }),
        json!({ "type": "array" }),
        json!({ "type": "number" }),
        json!({ "type": "integer", "minimum": 10, "maximum": 99 }),
        json!(true),
        json!({ "enum": ["李白", "杜甫", "王维", 7, null, {"a": ["诗"]}] }),
        json!({ "type": "object" }),
        json!({ "type": "string", "minLength": 5, "maxLength": 9 }),
        json!({ "type": "string", "pattern": "^[a-f]{3}-[0-9]{4}$" }),
        json!({ "type": "string", "format": "date" }),
        json!({ "type": "array", "items": { "type": "string", "minLength": 2 }, "minItems": 3 }),
        json!({
            "type": "object", "required": ["名字", "age", "tags"], "additionalProperties": false,
            "properties": {
                "名字": { "type": "string" }, "age": { "type": "integer", "minimum": 0 }, "note": { "type": "string" },
                "tags": { "type": "array", "items": { "enum": ["诗人", "poet", "词人"] }, "minItems": 1, "maxItems": 4 }
            }
        }),
        json!({
            "$defs": { "tree": {
                "type": "object", "required": ["value", "children"], "additionalProperties": false,
                "properties": {
                    "value": { "type": "string" }, "children": { "type": "array", "items": { "$ref": "#/$defs/tree" } }
                }
            } },
            "$ref": "#/$defs/tree"
        }),
        json!({ "anyOf": [{ "type": "array", "items": { "type": "array" }, "minItems": 2 }, { "const": "无" }] }),
    ]
}

#[track_caller]
fn check(schema: &Value, got: &Generation) {
    let value: Value = serde_json::from_str(&got.text).unwrap_or_else(|error| panic!("{schema}: {error}: {got:?}"));
    assert!(jsonschema::is_valid(schema, &value), "{schema}\n{}", got.text);
}

#[test]
fn json_is_whole_whatever_the_model_draws() {
    for seed in [1, 2] {
        let (model, tokenizer) = model(seed);
        let vocabulary = Vocabulary::new(&tokenizer).unwrap();
        for schema in schemas() {
            let constraint = Arc::new(Constraint::json_schema(&vocabulary, &schema.to_string()).unwrap());
            for (max_tokens, temperature) in [(80, 1.0), (200, 0.0), (60, 5.0), (120, 100.0)] {
                let got = one(&model, &tokenizer, &request(&constraint, max_tokens, temperature, seed)).unwrap();
                if std::env::var("SHOW").is_ok() {
                    println!("{schema}\n  {max_tokens} {temperature} {:?} {} {}", got.finish, got.ids.len(), got.text);
                }
                check(&schema, &got);
                assert!(got.ids.len() <= max_tokens);
            }
        }
    }
}
