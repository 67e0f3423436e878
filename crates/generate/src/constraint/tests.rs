//! What compiles, what is refused and why, and what is accepted.

use super::*;
use tokenizer::Tokenizer;

/// Every byte is a token.
fn bytes() -> Vocabulary {
    Vocabulary::new(&Tokenizer::train_bpe(["hello hello"], 260).unwrap()).unwrap()
}

#[track_caller]
fn refused(made: Result<Constraint, ConstraintError>, parts: &[&str]) {
    let error = made.expect_err("a constraint that should be refused").to_string();
    assert!(!error.contains('\n') && !error.contains("backtrace"), "{error}");
    for part in parts {
        assert!(error.contains(part), "the error does not say {part:?}: {error}");
    }
}

fn schema(text: &str) -> Result<Constraint, ConstraintError> {
    Constraint::json_schema(&bytes(), text)
}

fn grammar(text: &str) -> Result<Constraint, ConstraintError> {
    Constraint::grammar(&bytes(), text)
}

#[test]
fn schemas_accept_what_fulfils_them() {
    let person = r#"{"type": "object", "required": ["名"], "additionalProperties": false,
        "properties": {"名": {"type": "string", "maxLength": 3}, "age": {"type": "integer", "minimum": 0}}}"#;
    let person = schema(person).unwrap();
    for good in [r#"{"名":"李白"}"#, r#"{"名": "李白", "age": 61}"#, r#"{"名":"\n","age":0}"#] {
        assert!(person.accepts(good), "{good}");
    }
    for bad in [
        "",
        "{}",
        r#"{"名":"李白的诗"}"#,
        r#"{"名":"a","age":-1}"#,
        r#"{"名":"a"}}"#,
        r#"{"名" : "a"}"#,
        r#"{"名":"a""#,
    ] {
        assert!(!person.accepts(bad), "{bad}");
    }
    assert!(schema("true").unwrap().accepts("[1, null, {}]"));
    assert_eq!(schema(r#"{"enum": ["诗"]}"#).unwrap().shortest, "\"诗\"".as_bytes());
}

#[test]
fn grammars_and_regular_expressions() {
    let sum =
        grammar("start: term (\"+\" term)*\nterm: NUMBER | \"(\" start \")\"\nNUMBER: /[0-9]+/").unwrap();
    assert!(sum.accepts("1+(2+30)") && !sum.accepts("1+") && !sum.accepts("(1"));
    assert_eq!(sum.shortest.len(), 1);
    let verse = Constraint::regex(&bytes(), "[天地]{2}，(玄|黄)?").unwrap();
    assert!(verse.accepts("天地，玄") && verse.accepts("地地，") && !verse.accepts("天地"));
}

#[test]
fn what_is_wrong_with_a_schema_is_said() {
    refused(schema(""), &["schema is empty"]);
    refused(schema(" \n"), &["schema is empty"]);
    refused(schema("{"), &["not JSON", "line 1"]);
    refused(schema("[]"), &["an array", "object, true or false"]);
    refused(schema("7"), &["a number"]);
    refused(schema("false"), &["schema cannot be followed", "false"]);
    refused(schema(r#"{"type": "strin"}"#), &["strin"]);
    refused(schema(r#"{"type": "array", "uniqueItems": true}"#), &["uniqueItems"]);
    refused(schema(r#"{"type": "object", "properties": {"a": {"not": {}}}}"#), &["not"]);
    refused(schema(r##"{"$ref": "#/$defs/absent"}"##), &["absent"]);
    refused(schema(r#"{"$ref": "https://example.org/schema.json"}"#), &["example.org"]);
    refused(schema(r#"{"x-guidance": {"lenient": true}}"#), &["x-guidance"]);
    refused(schema(r#"{"type": "string", "pattern": "("}"#), &["schema cannot be followed"]);
    refused(schema(r#"{"type": "integer", "minimum": 5, "maximum": 4}"#), &["minimum"]);
    refused(schema(r#"{"oneOf": [{"type": "string"}, {"maxLength": 5}]}"#), &["oneOf"]);
    refused(schema(&("[".repeat(100_000))), &["not JSON"]);
    refused(schema(&format!("\"{}\"", "a".repeat(MOST_BYTES))), &["bytes"]);
}

#[test]
fn what_is_wrong_with_a_grammar_is_said() {
    refused(grammar(""), &["grammar is empty"]);
    refused(grammar("hello"), &["grammar cannot be followed"]);
    refused(grammar("start: \"a\"\nb: ]"), &["2"]);
    refused(grammar("start: missing"), &["missing"]);
    refused(grammar("other: \"a\""), &["start"]);
    refused(grammar("start: a\na: \"x\" a"), &["no text was found"]);
    refused(grammar("start: /[a-z]+(?=b)/"), &["grammar cannot be followed"]);
    refused(grammar("start: a\na[max_tokens=5]: /[a-z]+/"), &["max_tokens"]);
    refused(grammar("start: a\na[temperature=0.5]: /[a-z]+/"), &["temperature"]);
    refused(grammar("start: a \"x\"\na[stop=\"!\"]: /[a-z]+/"), &["stop"]);
    refused(grammar("start: <|endoftext|>"), &["grammar"]);
    refused(grammar("start: \u{0}"), &["grammar cannot be followed"]);
    refused(Constraint::regex(&bytes(), "(a"), &["regular expression cannot be followed"]);
    refused(Constraint::regex(&bytes(), "[b-a]"), &["regular expression"]);
}

/// Grammars made to exhaust the stack, memory or time: an error or a constraint, but never a panic.
#[test]
fn hostile_grammars_end() {
    let deep = format!("start: {}\"a\"{}", "(".repeat(50_000), ")".repeat(50_000));
    refused(grammar(&deep), &["brackets"]);
    refused(Constraint::regex(&bytes(), &deep[7..]), &["brackets"]);
    let chain: String = (0..20_000).map(|i| format!("r{i}: \"a\" r{}\n", i + 1)).collect();
    _ = grammar(&format!("start: r0\n{chain}r20000: \"b\"")).map(|_| ());
    let lexemes: String = (0..5_000).map(|i| format!("R{i}: \"a\" R{}\n", i + 1)).collect();
    _ = grammar(&format!("start: R0\n{lexemes}R5000: \"b\"")).map(|_| ());
    let circle = grammar("start: A\nA: B\nB: A");
    refused(circle, &["grammar"]);
    for hard in ["start: /a{1000000000}/", "start: /((a{1000}){1000}){1000}/", "start: \"a\"{1000000000}"] {
        _ = grammar(hard).map(|_| ());
    }
    _ = grammar("start: /(a|b)*a(a|b){200}/").map(|_| ());
    _ = grammar(&format!("start: /{}/", "a?".repeat(5000))).map(|_| ());
    _ = grammar(&format!("start: /a{}/", "*".repeat(20_000))).map(|_| ());
    _ = grammar(&format!("start: \"a\"{}", "?".repeat(20_000))).map(|_| ());
    for hard in [
        r#"{"type": "string", "minLength": 1000000000}"#,
        r#"{"type": "string", "maxLength": 18446744073709551615}"#,
        r#"{"type": "array", "items": {"type": "null"}, "minItems": 1000000000}"#,
        r#"{"type": "number", "multipleOf": 1e-300}"#,
        r#"{"type": "integer", "minimum": -1e308, "maximum": 1e308}"#,
        r##"{"$ref": "#"}"##,
        r##"{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}"##,
        r##"{"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}}"##,
    ] {
        _ = schema(hard).map(|_| ());
    }
    let mut nested = "true".to_owned();
    (0..40).for_each(|_| nested = format!(r#"{{"type": "array", "items": {nested}, "minItems": 2}}"#));
    _ = schema(&nested).map(|_| ());
    let names: Vec<String> = (0..2000).map(|i| format!(r#""p{i}": {{"type": "string"}}"#)).collect();
    assert!(
        schema(&format!(r#"{{"type": "object", "properties": {{{}}}}}"#, names.join(",")))
            .unwrap()
            .accepts("{}")
    );
}

#[test]
fn vocabularies_without_bytes_of_their_own_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "##s", "世", "界"];
    std::fs::write(dir.path().join("vocab.txt"), words.join("\n")).unwrap();
    let bert = Tokenizer::load(dir.path()).unwrap();
    let error = Vocabulary::new(&bert).unwrap_err().to_string();
    assert!(error.contains("WordPiece") && error.contains("byte-level BPE"), "{error}");
}
