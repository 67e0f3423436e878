//! `gpt2 eval --answers FILE --replies N`: losses of answers, and replies that are counted and kept, by a model that was
//! fine-tuned on four questions until it knew them by heart.

mod common;

use common::{Folder, text};
use serde_json::{Value, json};

/// Questions, and what the model learns to answer; one in the other language.
const TALK: [(&str, &str); 4] =
    [("hello", "good morning"), ("who are you", "a fox"), ("你好", "早上好"), ("fox in Chinese", "狐狸")];

fn example(question: &str, answer: &str) -> String {
    json!({ "prompt": question, "completion": answer }).to_string() + "\n"
}

/// A folder with the questions in `talk.jsonl` and a model `tuned` that has learnt them.
fn tuned() -> Folder {
    let folder = Folder::new();
    folder.write("a.txt", text());
    folder.write("talk.jsonl", TALK.map(|(question, answer)| example(question, answer)).concat());
    folder.succeeds(
        "train --data a.txt --tokenizer bpe:300 --n-layer 1 --n-head 2 --n-embd 48 --n-ctx 64 --batch 4 --seed 3 \
         --max-steps 2 --out m",
    );
    folder.succeeds(
        "finetune -m m --data talk.jsonl --val-fraction 0 --batch 4 --lr 0.01 --max-steps 120 --seed 5 --precision f32 \
         --out tuned",
    );
    folder
}

fn json_of(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// The replies that were kept, one a line.
fn kept(folder: &Folder, file: &str) -> Vec<Value> {
    folder.read(file).lines().map(json_of).collect()
}

#[test]
fn losses_and_replies_are_counted() {
    let folder = tuned();
    let command = "eval -m tuned --answers talk.jsonl --replies 4 --temperature 0 --seed 7";
    let report = json_of(&folder.succeeds(&format!("{command} --json --replies-out r.jsonl")));
    assert!(report["loss"].as_f64().is_some_and(|loss| loss < 0.3), "{report}");
    assert_eq!(report["accuracy"], 1.0, "{report}");
    assert_eq!(report["examples"], 4);
    for key in ["loss_stderr", "perplexity", "accuracy_stderr", "tokens"] {
        assert!(report[key].is_number(), "{key}: {report}");
    }
    assert!(report["data"].is_object(), "{report}");
    let replies = &report["replies"];
    let counts = json!({
        "replies": 4, "ended": 4, "in_language": 3, "ok": 3, "too_long": 0, "seed": 7, "temperature": 0.0,
        "max_tokens": 200,
    });
    assert_eq!(replies, &counts);

    let kept = kept(&folder, "r.jsonl");
    assert_eq!(kept.len(), 4);
    for (i, (line, (question, answer))) in kept.iter().zip(TALK).enumerate() {
        let want = json!({
            "file": "talk.jsonl", "line": i + 1, "prompt": question, "reply": answer, "reference": answer,
            "finish": "eot", "ended": true, "in_language": i != 3, "ok": i != 3,
        });
        assert_eq!(line, &want);
    }

    let shown = folder.run(command);
    assert!(shown.ok, "{}", shown.stderr);
    assert!(shown.stdout.starts_with("loss "), "{}", shown.stdout);
    let line = "replies          4: 4 ended their turn, 3 in the prompt's language, 3 both\n";
    assert!(shown.stdout.ends_with(line), "{}", shown.stdout);
    assert!(shown.stderr.contains("of the answers of 4 examples") && shown.stderr.contains("[seed 7]"));
    // Without --replies nothing is written.
    let report = json_of(&folder.succeeds("eval -m tuned --answers talk.jsonl --json"));
    assert_eq!(report.get("replies"), None);
}

#[test]
fn replies_depend_on_their_seed_alone() {
    let folder = tuned();
    let command =
        "eval -m tuned --answers talk.jsonl --replies 4 --temperature 2 --max-tokens 20 --replies-out";
    folder.succeeds(&format!("{command} a.jsonl --seed 1 --batch 1 --threads 1"));
    folder.succeeds(&format!("{command} b.jsonl --seed 1 --batch 4 --threads 2"));
    folder.succeeds(&format!("{command} c.jsonl --seed 2"));
    assert_eq!(folder.read("a.jsonl"), folder.read("b.jsonl"));
    assert_ne!(folder.read("a.jsonl"), folder.read("c.jsonl"));
    // The first reply is the same alone.
    folder.write("same.jsonl", example("hello", "good morning"));
    let other = "eval -m tuned --answers same.jsonl --replies 1 --temperature 2 --max-tokens 20 --seed 1 --replies-out";
    folder.succeeds(&format!("{other} d.jsonl"));
    assert_eq!(kept(&folder, "d.jsonl")[0]["reply"], kept(&folder, "a.jsonl")[0]["reply"]);
}

#[test]
fn unfinished_replies_and_questions_without_room_are_told() {
    let folder = tuned();
    let cut = "eval -m tuned --answers talk.jsonl --replies 2 --temperature 0 --max-tokens 1 --json";
    let replies = &json_of(&folder.succeeds(cut))["replies"];
    assert_eq!((&replies["replies"], &replies["ended"], &replies["ok"]), (&json!(2), &json!(0), &json!(0)));

    // The files are asked in turn, each question once; one fills the context.
    folder.write("more.jsonl", example("hello", "again") + &example(&"fox ".repeat(80), "too long"));
    let run = folder.run(
        "eval -m tuned --answers more.jsonl talk.jsonl --replies 9 --temperature 0 --seed 1 --replies-out r.jsonl",
    );
    assert!(run.ok, "{}", run.stderr);
    assert!(
        run.stderr.contains("[1 examples were passed over, which leave no room for a reply]"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.contains("[the files ask 4 different things: fewer than --replies 9]"),
        "{}",
        run.stderr
    );
    let prompts: Vec<Value> = kept(&folder, "r.jsonl").iter().map(|line| line["prompt"].clone()).collect();
    assert_eq!(prompts, ["hello", "who are you", "你好", "fox in Chinese"]);
    assert_eq!(kept(&folder, "r.jsonl")[0]["file"], "more.jsonl");
}

#[test]
fn preferences_are_measured_and_asked() {
    let folder = tuned();
    let pairs = TALK.map(|(question, answer)| {
        json!({ "prompt": question, "chosen": answer, "rejected": "1 2 3" }).to_string() + "\n"
    });
    folder.write("pairs.jsonl", pairs.concat());
    let report = json_of(
        &folder.succeeds("eval -m tuned --answers pairs.jsonl --replies 4 --temperature 0 --seed 1 --json"),
    );
    assert_eq!((&report["likelier"], &report["pairs"]), (&json!(1.0), &json!(4)), "{report}");
    assert!(report["margin"].as_f64().is_some_and(|margin| margin > 1.0), "{report}");
    assert!(report["chosen"]["loss"].as_f64() < report["rejected"]["loss"].as_f64(), "{report}");
    assert_eq!(report["replies"]["ended"], 4);
    let shown = folder.succeeds("eval -m tuned --answers pairs.jsonl");
    assert!(shown.starts_with("chosen likelier  100.00 ± 0.00 % of 4 pairs\n"), "{shown}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = tuned();
    folder.write("empty.jsonl", "");
    folder.write("broken.jsonl", "{\"prompt\": \"a\"\n");
    folder.write("odd.jsonl", "{\"body\": \"a\"}\n");
    folder.write("long.jsonl", example(&"fox ".repeat(80), "too long"));
    folder.write("there.jsonl", "kept\n");
    folder.write("pairs.jsonl", "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n");
    let answers = "eval -m tuned --answers";
    for (what, parts) in [
        ("missing.jsonl --replies 1", &["missing.jsonl"][..]),
        ("empty.jsonl", &["empty.jsonl"]),
        ("broken.jsonl", &["broken.jsonl", "line 1"]),
        ("odd.jsonl", &["odd.jsonl", "body"]),
        ("long.jsonl --replies 1", &["nothing is left to measure"]),
        ("talk.jsonl pairs.jsonl", &["measure on them one after the other"]),
        ("talk.jsonl --replies 0", &["--replies 0: ask for 1 to 1000000"]),
        ("talk.jsonl --replies 1000001", &["--replies 1000001"]),
        ("talk.jsonl --replies -1", &["'-1'"]),
        ("talk.jsonl --replies 1 --max-tokens 0", &["--max-tokens 0"]),
        ("talk.jsonl --replies 1 --temperature=-1", &["temperature"]),
        ("talk.jsonl --replies 1 --temperature NaN", &["temperature"]),
        ("talk.jsonl --seed 1", &["--replies"]),
        ("talk.jsonl --replies-out r.jsonl", &["--replies"]),
        ("talk.jsonl --replies 1 --batch 0", &["--batch 0"]),
        ("talk.jsonl --replies 1 --replies-out there.jsonl", &["there.jsonl", "--force"]),
        ("talk.jsonl --replies 1 --replies-out talk.jsonl --force", &["is the text itself"]),
        ("talk.jsonl --replies 1 --replies-out no/r.jsonl", &["cannot write no/r.jsonl"]),
        ("talk.jsonl --data a.txt", &["--data"]),
    ] {
        folder.fails(&format!("{answers} {what}"), parts);
    }
    assert_eq!(folder.read("there.jsonl"), "kept\n");
    folder.fails("eval -m tuned --data a.txt --replies 1", &["--answers"]);
    folder.succeeds(&format!("{answers} talk.jsonl --replies 1 --replies-out there.jsonl --force"));
    assert_eq!(kept(&folder, "there.jsonl").len(), 1);
}
