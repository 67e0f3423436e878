//! `--json-schema` and `--grammar` of `gpt2 generate`, `chat` and `write`, and recipes that hold their steps to a form: what is written is what was asked for, or an error says why not.

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

fn person(text: &str) -> Value {
    let person: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(person["名字"].is_string() && person["age"].is_number(), "{person}");
    person
}

#[test]
fn every_reply_of_a_chat_is_held_to_the_form() {
    let folder = trained();
    let chat = "chat -m m --no-history --seed 2 -n 70";
    let talk =
        folder.run_with_input(&format!("{chat} --json-schema person.json"), "hello\n你好\n".as_bytes());
    assert!(talk.ok, "{}", talk.stderr);
    assert_eq!(talk.stdout.lines().map(person).count(), 2);
    let one = folder.succeeds(&format!("{chat} --grammar verse.lark -p 春 --json"));
    let one: Value = serde_json::from_str(&one).unwrap();
    let text = one["text"].as_str().unwrap();
    assert!(text.chars().count() == 12 && text.ends_with('。'), "{text}");
    folder.fails(
        &format!("{chat} -n 5 -p a --json-schema person.json").replace("-n 70 ", ""),
        &["needs about"],
    );
    folder.fails(&format!("{chat} -p a --json-schema absent.json"), &["absent.json", "cannot read"]);
}

/// A verse in the topic's language, and facts as JSON.
const RECIPE: &str = r#"
about = "A verse, and what it is about"
[[step]]
name = "verse"
prompt = "{topic}\n"
max-tokens = 30
[step.grammar]
en = 'start: "a " ("fox" | "owl") "."'
zh = """
start: LINE "。"
LINE: /[春眠不觉晓]{5}/
"""
[[step]]
name = "facts"
prompt = "{verse}\n"
max-tokens = 60
keep = "code json"
[step.json-schema]
type = "object"
required = ["b", "a"]
additionalProperties = false
properties = { b = { type = "integer", minimum = 0 }, a = { enum = ["x", "狐狸"] } }
"#;

fn write(folder: &Folder, args: &str) -> Value {
    let out = folder.succeeds(&format!("write {args} -m m --seed 4 --json"));
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[test]
fn steps_of_a_recipe_are_held_to_their_forms() {
    let folder = trained();
    folder.write("facts.toml", RECIPE);
    for topic in ["fox", "狐狸"] {
        let got = write(&folder, &format!("facts.toml --topic {topic}"));
        let [verse, facts] = [0, 1].map(|k| got["steps"][k]["text"].as_str().unwrap().to_owned());
        if topic == "fox" {
            assert!(["a fox.", "a owl."].contains(&&*verse), "{verse}");
        } else {
            assert!(verse.chars().count() == 6 && verse.ends_with('。'), "{verse}");
        }
        let value: Value = serde_json::from_str(&facts).unwrap_or_else(|error| panic!("{error}: {facts}"));
        assert!(value["b"].is_number() && ["x", "狐狸"].contains(&value["a"].as_str().unwrap()), "{value}");
        assert!(facts.starts_with("{\"b\""), "properties come in the schema's order: {facts}");
        assert!(got["text"].as_str().unwrap().contains("```json\n{\"b\""), "{}", got["text"]);
        assert_eq!(got["warnings"], serde_json::json!([]));
    }
    // Many at once, drafts and candidates: each is the document alone.
    folder.write("ideas.csv", "topic,seed\nfox,4\n狐狸,4\n");
    folder.succeeds("write facts.toml -m m --input ideas.csv --json --batch 2 --out many.jsonl");
    let many = folder.read("many.jsonl");
    for (line, topic) in many.lines().zip(["fox", "狐狸"]) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["text"], write(&folder, &format!("facts.toml --topic {topic}"))["text"]);
    }
    assert_eq!(many.lines().count(), 2);
    write(&folder, "facts.toml --topic fox --best-of 3");
}

#[test]
fn a_form_takes_the_place_of_a_recipes_own() {
    let folder = trained();
    let own = "about = 'Two'\n[[step]]\nname = 'one'\nprompt = '{topic}: '\nend = 'line'\nmax = 4\nmax-tokens = 20\n\
        [[step]]\nname = 'two'\nprompt = '{one}'\nbegin = 'Once'\nmin = 90\nmax-tokens = 70\ndrop-unfinished = true\n\
        check = { whole-sentences = true, same-language = true }\n";
    folder.write("own.toml", own);
    let two = |got: &Value| got["steps"][1]["text"].as_str().unwrap().to_owned();
    let got = write(&folder, "own.toml --topic 狐狸 --json-schema person.json");
    person(&two(&got));
    assert_eq!(got["steps"][1]["passed"], true, "{got}");
    // Other steps, and in place of a form that the recipe has.
    folder.write("facts.toml", RECIPE);
    let got = write(&folder, "facts.toml --topic fox --grammar verse.lark --set verse.grammar=start:\"owl\"");
    assert_eq!(got["steps"][0]["text"], "owl");
    assert!(two(&got).ends_with('。'), "{got}");
    let set = folder.succeeds("write own.toml -m m --topic fox --json --set one.json-schema={\"const\":[1]}");
    assert!(set.contains("[1]"), "{set}");
}

#[test]
fn forms_that_a_recipe_cannot_have() {
    let folder = trained();
    let step = |keys: &str| {
        folder.write("r.toml", format!("about = 'a'\n[[step]]\nname = 's'\nprompt = 'p'\n{keys}\n"));
    };
    let fails = |keys: &str, parts: &[&str]| {
        step(keys);
        folder.fails("write r.toml -m m --topic a", &[&["r.toml", "step `s`"], parts].concat());
    };
    fails("grammar = 'start: \"a\"'\njson-schema = {}", &["one of them"]);
    for (key, name) in [("begin = 'a'", "`begin`"), ("end = 'line'", "`end`"), ("max = 3", "`max`")] {
        fails(&format!("grammar = 'start: \"a\"'\n{key}"), &[name, "json-schema or grammar"]);
    }
    fails("grammar = 'start: a ]'", &["grammar"]);
    fails("grammar = ''", &["empty"]);
    fails("json-schema = '{'", &["not JSON"]);
    fails("json-schema = 3", &["a number"]);
    fails("json-schema = { type = 'array', uniqueItems = true }", &["uniqueItems"]);
    fails("json-schema = { type = 'string', minLength = 20 }\nmax-tokens = 3", &["needs about"]);
    step("grammar = { en = 'start: \"a\"' }");
    folder.fails("write r.toml -m m --topic a", &["r.toml", "line ", "both `en` and `zh`"]);
    step("");
    folder.write("bad.json", "{");
    folder.fails(
        "write r.toml -m m --topic a --json-schema bad.json",
        &["step `s`", "--json-schema bad.json", "not JSON"],
    );
    folder.fails("write r.toml -m m --topic a --json-schema absent.json", &["absent.json"]);
}
