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

const TEXT: &str =
    r#"{"name": "李白", "city": "长安", "age": 42, "tags": ["诗人", "poet"]} hello world, 你好世界 "#;
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
    let value: Value =
        serde_json::from_str(&got.text).unwrap_or_else(|error| panic!("{schema}: {error}: {got:?}"));
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
                let got =
                    one(&model, &tokenizer, &request(&constraint, max_tokens, temperature, seed)).unwrap();
                if std::env::var("SHOW").is_ok() {
                    println!(
                        "{schema}\n  {max_tokens} {temperature} {:?} {} {}",
                        got.finish,
                        got.ids.len(),
                        got.text
                    );
                }
                check(&schema, &got);
                assert!(got.ids.len() <= max_tokens);
            }
        }
    }
}

/// The text is the same alone, in any company, in any portions of the prompt, and with guesses.
#[test]
fn company_and_drafts_change_nothing() {
    let (model, tokenizer) = model(3);
    let vocabulary = Vocabulary::new(&tokenizer).unwrap();
    let draft = Arc::new(Gpt2::new(model.config().clone(), Init::Xavier, 3).unwrap());
    let mut requests = Vec::new();
    for (i, schema) in schemas().iter().enumerate() {
        let constraint = Arc::new(Constraint::json_schema(&vocabulary, &schema.to_string()).unwrap());
        let prompt = tokenizer.encode(&TEXT[..20].repeat(1 + i % 3)).unwrap();
        let temperature = [0.0, 1.0, 3.0][i % 3];
        requests.push(Request { prompt, ..request(&constraint, 60, temperature, i as u64) });
        requests.push(Request {
            constraint: None,
            max_tokens: Some(30),
            ..requests[requests.len() - 1].clone()
        });
    }
    let ids = |results: Vec<Result<Generation, GenerateError>>| -> Vec<_> {
        results.into_iter().map(|result| result.map(|got| (got.ids, got.text, got.finish)).unwrap()).collect()
    };
    let alone: Vec<_> =
        requests.iter().flat_map(|request| ids(vec![one(&model, &tokenizer, request)])).collect();
    let guesses = [
        Speculation::Off,
        Speculation::Lookup { most: 8 },
        Speculation::Model { model: Arc::clone(&draft), most: 4 },
    ];
    for (batch, step_tokens) in [(3, 512), (28, 7), (28, 512)] {
        for speculation in &guesses {
            let got = ids(write(&model, &tokenizer, &requests, batch, speculation.clone(), step_tokens));
            assert!(got == alone, "batch {batch}, {speculation:?}");
        }
    }
}

/// A small schema of any kind.
fn any_schema() -> impl Strategy<Value = Value> {
    let words = || proptest::sample::subsequence(vec!["诗", "poet", "a\"b", "é", "🙂", "长安城"], 1..=4);
    let leaf = prop_oneof![
        Just(json!({ "type": "string" })),
        Just(json!({ "type": ["number", "null"] })),
        Just(json!({ "type": "boolean" })),
        (0..6usize, 0..6usize)
            .prop_map(|(a, b)| json!({ "type": "string", "minLength": a, "maxLength": a + b })),
        (-50..50i64, 0..1000i64)
            .prop_map(|(a, b)| json!({ "type": "integer", "minimum": a, "maximum": a + b })),
        words().prop_map(|words| json!({ "enum": words })),
        words().prop_map(|words| json!({ "const": words[0] })),
    ];
    leaf.prop_recursive(3, 12, 4, move |inner| {
        let fields = vec((proptest::sample::select(vec!["a", "名", "b c", "城市"]), inner.clone(), any::<bool>()), 0..4);
        prop_oneof![
            (inner.clone(), 0..3usize, 0..3usize)
                .prop_map(|(items, a, b)| json!({ "type": "array", "items": items, "minItems": a, "maxItems": a + b })),
            inner.clone().prop_map(|items| json!({ "type": "array", "items": items })),
            (fields, any::<bool>()).prop_map(|(fields, open)| {
                let properties: serde_json::Map<String, Value> =
                    fields.iter().map(|(name, schema, _)| (name.to_string(), schema.clone())).collect();
                let mut required: Vec<_> = fields.iter().filter(|field| field.2).map(|field| field.0).collect();
                required.sort_unstable();
                required.dedup();
                json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": open })
            }),
            vec(inner, 1..3).prop_map(|any| json!({ "anyOf": any })),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the schema, the seed, the temperature and the limit: valid, or refused because nothing short enough is.
    #[test]
    fn any_schema_is_fulfilled(
        schema in any_schema(), seed in any::<u64>(), max_tokens in 1..150usize,
        temperature in prop_oneof![Just(0.0f32), Just(1.0), Just(20.0)],
    ) {
        let (model, tokenizer) = model(seed);
        let vocabulary = Vocabulary::new(&tokenizer).unwrap();
        let constraint = Arc::new(Constraint::json_schema(&vocabulary, &schema.to_string()).unwrap());
        let request = request(&constraint, max_tokens, temperature, seed);
        let mut texts = Texts::new(&model, &tokenizer, EngineSettings::for_batch(&model, 1)).unwrap();
        match texts.add(&request) {
            Ok(_) => check(&schema, &one(&model, &tokenizer, &request).unwrap()),
            Err(error) => prop_assert!(error.to_string().contains("needs about"), "{}", error),
        }
    }

    /// Grammars that are no JSON, with loops that a model without sense would never leave.
    #[test]
    fn grammars_are_followed(which in 0..6usize, seed in any::<u64>(), max_tokens in 12..80usize) {
        let grammar = [
            "start: \"(\" start \")\" | \"-\" start | /[0-9]{3}/",
            "start: line+\nline: /[^\\n]*/ \"\\n\"",
            "start: \"春\" (\"眠\" | \"晓\")* \"。\"",
            "start: a | b\na: \"[\" (start (\",\" start)*)? \"]\"\nb: \"{\" start \"}\"",
            "start: \"if \" WORD \" then \" start | \"stop\"\nWORD: /[a-z]+/",
            "start: %json {\"type\": \"array\", \"items\": {\"enum\": [\"诗\", 1]}} \"!\"",
        ][which];
        let (model, tokenizer) = model(seed);
        let vocabulary = Vocabulary::new(&tokenizer).unwrap();
        let constraint = Arc::new(Constraint::grammar(&vocabulary, grammar).unwrap());
        let got = one(&model, &tokenizer, &request(&constraint, max_tokens, 1.0, seed)).unwrap();
        prop_assert!(constraint.accepts(&got.text), "{}: {}", grammar, got.text);
    }
}

/// A required key in Chinese after one in ASCII that need not be there; and texts of many words.
#[test]
fn a_text_is_found_by_a_key_that_is_not_ascii_and_over_many_words() {
    let integers = |least: i64, most: i64| json!({ "type": "integer", "minimum": least, "maximum": most });
    let two = |items: Value| json!({ "type": "array", "items": items, "minItems": 2, "maxItems": 2 });
    let cities = json!({
        "type": "object",
        "properties": {
            "a": two(integers(0, 7)),
            "b c": { "type": "array", "items": integers(-1, 200) },
            "城市": { "type": ["number", "null"] },
        },
        "required": ["a", "城市"],
        "additionalProperties": true,
    });
    let (model, tokenizer) = model(0);
    let vocabulary = Vocabulary::new(&tokenizer).unwrap();
    for schema in [cities, two(two(integers(0, 7)))] {
        let constraint = Arc::new(Constraint::json_schema(&vocabulary, &schema.to_string()).unwrap());
        check(&schema, &one(&model, &tokenizer, &request(&constraint, 60, 0.0, 0)).unwrap());
    }
}

/// Characters, words in pieces of SentencePiece: what the vocabulary cannot write is never begun.
#[test]
fn vocabularies_of_characters_never_come_to_a_dead_end() {
    let tokenizer = Tokenizer::train_chars(["{}[]\",:0123 诗人李白杜甫abc"]).unwrap();
    let config = Gpt2Config::new(1, 2, 16, 100, tokenizer.vocab_size());
    let model = Gpt2::new(config, Init::Xavier, 5).unwrap();
    let vocabulary = Vocabulary::new(&tokenizer).unwrap();
    let schema = json!({ "type": "object", "required": ["诗人", "b"], "additionalProperties": false, "properties": {
        "诗人": { "enum": ["李白", "王维", "杜甫"] }, "b": { "type": "array", "items": { "type": ["string", "null"] } }
    } });
    let constraint = Arc::new(Constraint::json_schema(&vocabulary, &schema.to_string()).unwrap());
    for seed in 0..10 {
        check(&schema, &one(&model, &tokenizer, &request(&constraint, 60, 2.0, seed)).unwrap());
    }
    let error = Constraint::json_schema(&vocabulary, r#"{"const": "王"}"#).unwrap_err().to_string();
    assert!(error.contains("vocabulary can write"), "{error}");
}

#[test]
fn limits_stops_and_bans_meet_constraints() {
    let (model, tokenizer) = model(7);
    let vocabulary = Vocabulary::new(&tokenizer).unwrap();
    let digits = Arc::new(Constraint::regex(&vocabulary, "[0-9]+(; [0-9]+)*").unwrap());
    // A stop string ends the text where it may end, and is text elsewhere.
    let stop = Request { stop: vec![";".into(), "; 1".into()], ..request(&digits, 60, 1.0, 1) };
    let got = one(&model, &tokenizer, &stop).unwrap();
    assert!(digits.accepts(&got.text) && !got.text.contains(';'), "{got:?}");
    let quoted = Arc::new(Constraint::regex(&vocabulary, "<[;a]{9}>").unwrap());
    let got =
        one(&model, &tokenizer, &Request { constraint: Some(Arc::clone(&quoted)), ..stop.clone() }).unwrap();
    assert!(quoted.accepts(&got.text), "{got:?}");
    // No room, or none at all.
    let refuse = |request: Request| {
        let mut texts = Texts::new(&model, &tokenizer, EngineSettings::for_batch(&model, 1)).unwrap();
        texts.add(&request).expect_err("it cannot be met").to_string()
    };
    assert!(refuse(request(&quoted, 5, 1.0, 1)).contains("no more than 5"));
    assert!(refuse(request(&digits, 0, 1.0, 1)).contains("at least 1"));
    let slide =
        Request { overflow: Overflow::Slide { keep: 0 }, max_tokens: None, ..request(&digits, 1, 1.0, 1) };
    assert!(refuse(slide.clone()).contains("max-tokens"));
    let long = Request { max_tokens: Some(500), ..slide };
    assert!(digits.accepts(&one(&model, &tokenizer, &long).unwrap().text));
    // Bans that leave nothing are told, and so is a text that ends before it may.
    let two = Arc::new(Constraint::grammar(&vocabulary, "start: \"ab\" | \"ac\"").unwrap());
    let mut banned = request(&two, 9, 1.0, 1);
    banned.sampling.processors.bad_words =
        ["a", "ab", "ac"].map(|word| tokenizer.encode(word).unwrap()).into();
    let error = one(&model, &tokenizer, &banned).unwrap_err().to_string();
    assert!(error.contains("the constraint allows some"), "{error}");
    let error = one(&model, &tokenizer, &Request { min_tokens: 5, ..request(&two, 9, 1.0, 1) }).unwrap_err();
    assert!(error.to_string().contains("min-new-tokens"), "{error}");
    // A token that ends texts is no part of one.
    let ends = tokenizer.encode("b").unwrap()[0];
    let mut stopped = request(&two, 9, 1.0, 1);
    stopped.sampling.processors.stop_tokens = vec![ends];
    for seed in 0..4 {
        stopped.sampling.seed = seed;
        let got = one(&model, &tokenizer, &stopped).unwrap();
        assert!(two.accepts(&got.text) && !got.ids.contains(&ends), "{got:?}");
    }
    // Log-probabilities are the model's own.
    let mut known = request(&two, 9, 1.0, 1);
    known.sampling.logprobs = Some(3);
    let got = one(&model, &tokenizer, &known).unwrap();
    let logprobs = got.logprobs.unwrap();
    assert_eq!(logprobs.len(), got.ids.len());
    assert!(logprobs[0].logprob < -1.0 && logprobs[0].top.len() == 3, "{logprobs:?}");
}
