//! `gpt2 generate --json-schema` and `--grammar`: what is written is what was asked for, or an error says why not.

mod common;

use common::{Folder, TINY, text};
use serde_json::{Value, json};

/// A folder with a model `m` that has learnt a little, and no JSON.
fn trained() -> Folder {
    let folder = Folder::new();
    folder.write("a.txt", text());
    let longer = TINY.replace("--n-ctx 16", "--n-ctx 128");
    folder.succeeds(&format!(
        "train --data a.txt --tokenizer bpe:300 {longer} --lr 0.01 --max-steps 20 --out m"
    ));
    let person = json!({
        "type": "object", "required": ["名字", "城市", "age"], "additionalProperties": false, "properties": {
            "名字": { "type": "string" }, "城市": { "enum": ["长安", "洛阳", "成都"] }, "age": { "type": "integer", "minimum": 0 }
        }
    });
    folder.write("person.json", person.to_string());
    folder.write("verse.lark", "start: LINE \"，\" LINE \"。\"\nLINE: /[春眠不觉晓]{5}/\n");
    folder
}

#[test]
fn json_and_verses_from_a_model_that_knows_neither() {
    let folder = trained();
    let write = "generate -m m -p Once --json-schema person.json -n 70 --seed 3 --json";
    for flags in
        ["--samples 4", "--temperature 0", "--temperature 5 --top-k 0", "--top-p 0.5", "--repeat-penalty 1.3"]
    {
        for line in folder.succeeds(&format!("{write} {flags}")).lines() {
            let got: Value = serde_json::from_str(line).unwrap();
            let person = got["text"].as_str().unwrap();
            let person: Value =
                serde_json::from_str(person).unwrap_or_else(|error| panic!("{error}: {person}"));
            assert!(person["名字"].is_string() && person["age"].is_number(), "{person}");
        }
    }
    let streamed = folder.succeeds("generate -m m --grammar verse.lark --seed 1");
    let lines: Vec<&str> = streamed.trim_end().split(['，', '。']).collect();
    assert!(
        lines[..2]
            .iter()
            .all(|line| line.chars().count() == 5 && line.chars().all(|c| "春眠不觉晓".contains(c)))
    );
}

#[test]
fn drafts_threads_and_batches_change_no_text() {
    let folder = trained();
    let write = "generate -m m -p Once --json-schema person.json -n 60 --seed 8 --json";
    let texts = |flags: &str| -> Vec<Value> {
        let untimed = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            _ = line.as_object_mut().unwrap().remove("timings");
            line
        };
        folder.succeeds(&format!("{write} {flags}")).lines().map(untimed).collect()
    };
    let want = texts("--samples 3 --lookup 0 --threads 1");
    for more in ["--lookup 8", "--draft m", "--threads 2"] {
        assert!(texts(&format!("--samples 3 {more}")) == want, "{more}");
    }
    let person: Value = serde_json::from_str(&folder.read("person.json")).unwrap();
    let lines: Vec<String> = (0..5)
        .map(|i| match i {
            0..3 => json!({ "prompt": "Once", "max_tokens": 60, "seed": 8 + i, "json_schema": person }),
            3 => json!({ "prompt": "Once", "max_tokens": 60, "json_schema": { "type": "sting" } }),
            _ => json!({ "prompt": "Once", "max_tokens": 3, "seed": 1, "json_schema": person }),
        })
        .map(|line| line.to_string())
        .collect();
    folder.write("in.jsonl", lines.join("\n"));
    folder.succeeds("generate -m m --input in.jsonl --output out.jsonl --batch 3");
    let out: Vec<Value> =
        folder.read("out.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (got, want) in out.iter().zip(&want) {
        assert_eq!(got["text"], want["text"]);
    }
    assert!(out[3]["error"].as_str().unwrap().contains("sting"), "{}", out[3]);
    assert!(out[4]["error"].as_str().unwrap().contains("at least"), "{}", out[4]);
}

#[test]
fn what_cannot_be_held_to_is_an_error() {
    let folder = trained();
    let try_schema = |schema: &[u8], parts: &[&str]| {
        folder.write("bad.json", schema);
        folder.fails(
            "generate -m m -n 50 --json-schema bad.json",
            &[&["--json-schema bad.json"], parts].concat(),
        );
    };
    try_schema(b"", &["empty"]);
    try_schema(b"{\"type\":", &["not JSON"]);
    try_schema(b"\xff\xfe", &["UTF-8"]);
    try_schema(b"{\"type\":\"array\",\"uniqueItems\":true}", &["uniqueItems"]);
    try_schema(b"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", &["cannot be followed"]);
    try_schema(b"{\"type\":\"string\",\"minLength\":100000}", &["no text was found"]);
    let try_grammar = |grammar: &str, parts: &[&str]| {
        folder.write("bad.lark", grammar);
        folder.fails("generate -m m -n 50 --grammar bad.lark", &[&["--grammar bad.lark"], parts].concat());
    };
    try_grammar("start: \"a\"\nb ]", &["2"]);
    try_grammar("start: a\na: a \"x\"", &["no text"]);
    try_grammar(&format!("start: {}", "(".repeat(100_000)), &["brackets"]);
    folder.fails("generate -m m --json-schema absent.json", &["absent.json", "cannot read"]);
    folder.fails("generate -m m -n 5 --json-schema person.json", &["needs about", "no more than 5"]);
    folder.fails("generate -m m -n 0 --json-schema person.json", &["needs about"]);
    folder.fails("generate -m m --overflow slide --json-schema person.json", &["max-tokens"]);
    folder.fails(
        "generate -m m -n 60 --json-schema person.json --min-tokens 60 --logit-bias 90=-inf",
        &["constraint"],
    );
    for flags in ["--grammar verse.lark --json-schema person.json", "--beams 2 --json-schema person.json"] {
        let got = folder.run(&format!("generate -m m -n 50 {flags}"));
        assert!(!got.ok && got.stderr.contains("cannot be used with"), "{flags}: {}", got.stderr);
    }
}
