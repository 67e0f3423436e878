//! `gpt2 summarize`: texts and files of both languages, rounds, references, and what is refused.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Command;

use common::{Folder, TINY, text};
use serde_json::{Value, json};

/// A folder with a model `m` of 64 positions that has learnt a little.
fn trained() -> Folder {
    let folder = Folder::new();
    folder.write("a.txt", text());
    let longer = TINY.replace("--n-ctx 16", "--n-ctx 64");
    folder.succeeds(&format!(
        "train --data a.txt --tokenizer bpe:400 {longer} --lr 0.01 --max-steps 60 --out m"
    ));
    folder
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

const ENGLISH: &str = "Once upon a time there was a fox. The fox said, \"Good morning!\" It ran home.";
const CHINESE: &str = "从前有一只狐狸。狐狸说：“早上好！”它回家了。";

#[test]
fn texts_files_and_standard_input() {
    let folder = trained();
    folder.write("en.txt", ENGLISH);
    folder.write("zh.txt", CHINESE);
    let from_file = folder.succeeds("summarize -m m en.txt --seed 3");
    let from_input = folder.run_with_input("summarize -m m - --seed 3", ENGLISH.as_bytes());
    assert!(from_input.ok, "{}", from_input.stderr);
    assert_eq!(from_input.stdout, from_file);
    assert!(!from_file.trim().is_empty());
    assert!(from_input.stderr.contains("[standard input: all of its"), "{}", from_input.stderr);
    assert!(from_input.stderr.contains("stand in the text"), "{}", from_input.stderr);
    let told = |stderr: &str, what: &str| stderr.lines().filter(|line| line.contains(what)).count();
    assert_eq!(told(&from_input.stderr, "were read, at once; of "), 1, "{}", from_input.stderr);

    let all = folder.run("summarize -m m en.txt zh.txt --seed 3");
    assert!(all.ok, "{}", all.stderr);
    assert!(
        all.stdout.starts_with(&format!("==> en.txt <==\n{from_file}\n==> zh.txt <==\n")),
        "{}",
        all.stdout
    );
    // Of many texts it is told once, at the end.
    assert_eq!(told(&all.stderr, "were read"), 1, "{}", all.stderr);
    let chars = ENGLISH.chars().count() + CHINESE.chars().count();
    let line = format!("[2 texts: all of their {chars} characters were read; of ");
    assert!(all.stderr.contains(&line), "{}", all.stderr);
    assert!(all.stderr.contains("words or characters, pairs and triples"), "{}", all.stderr);
    assert!(all.stderr.contains("numbers or names of "), "{}", all.stderr);
    assert_eq!(told(&all.stderr, "en.txt"), 0, "{}", all.stderr);
    let mut command = folder.command("summarize -m m --seed 3 --json --text");
    command.arg(CHINESE);
    let chinese = folder.finish(command, b"");
    let value = &lines(&chinese.stdout)[0];
    assert_eq!(value["read"]["chars"], CHINESE.chars().count());
    assert_eq!(value["read"]["sentences"], 3);
    assert!(value["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{value}");
    assert!(value["unfound"].is_array() && value["overlap"]["copied"].is_array(), "{value}");
}

#[test]
fn long_texts_go_in_rounds_and_depend_on_nothing_else() {
    let folder = trained();
    folder.write("long.txt", format!("{ENGLISH} ").repeat(8));
    folder.write(
        "texts.jsonl",
        (1..5).map(|n| json!({ "text": CHINESE.repeat(n) }).to_string() + "\n").collect::<String>(),
    );
    let command = "summarize -m m long.txt texts.jsonl --json --seed 4 -n 12 --temperature 1";
    let want = folder.succeeds(&format!("{command} --batch 1 --lookup 0 --threads 1"));
    let values = lines(&want);
    assert_eq!(values.len(), 5);
    assert!(values[0]["read"]["rounds"].as_array().unwrap().len() > 1, "{}", values[0]);
    assert_eq!(values[3]["name"], "texts.jsonl, line 3");
    for flags in ["--batch 16", "--lookup 3 --threads 2", "--batch 2 --top-k 2"] {
        assert_eq!(folder.succeeds(&format!("{command} {flags}")), want, "{flags}");
    }
    assert_ne!(folder.succeeds(&command.replace("--seed 4", "--seed 5")), want);
}

#[test]
fn a_tuned_model_is_asked_through_its_template() {
    let folder = trained();
    let template = "{% for m in messages %}{{ m.content }}\\n{% endfor %}";
    let path = folder.path("m").join("tokenizer_config.json");
    let mut config: Value =
        std::fs::read(&path).map_or(json!({}), |bytes| serde_json::from_slice(&bytes).unwrap());
    let base = folder.succeeds("summarize -m m a.txt --seed 1 -n 8 --json");
    config["chat_template"] = json!(template.replace("\\n", "\n"));
    std::fs::write(&path, config.to_string()).unwrap();
    let tuned = folder.succeeds("summarize -m m a.txt --seed 1 -n 8 --json");
    assert_ne!(tuned, base);
    assert_eq!(folder.succeeds("summarize -m m a.txt --seed 1 -n 8 --json --ask tldr"), base);
    // Without a seed's help: a tuned model takes the most likely tokens.
    let summary = |out: &str| lines(out)[0]["summary"].clone();
    assert_eq!(summary(&folder.succeeds("summarize -m m a.txt --seed 2 -n 8 --json")), summary(&tuned));
}

#[test]
fn an_extract_has_sentences_of_the_text_and_nothing_else() {
    let folder = trained();
    let texts = [ENGLISH, CHINESE, &format!("{ENGLISH} And 7 crows sang all night long. ").repeat(6), "One."];
    let rows: String = texts.iter().map(|text| json!({ "text": text }).to_string() + "\n").collect();
    folder.write("texts.jsonl", rows);
    let command = "summarize -m m texts.jsonl --extract --max-sentences 2 --json";
    let out = folder.succeeds(&format!("{command} --batch 1 --threads 1"));
    for flags in ["", "--batch 3", "--seed 7 --threads 2"] {
        let again = folder.succeeds(&format!("{command} {flags}"));
        let without_seed = |out: &str| -> Vec<Value> {
            let mut values = lines(out);
            values.iter_mut().for_each(|value| _ = value.as_object_mut().unwrap().remove("seed"));
            values
        };
        assert_eq!(without_seed(&again), without_seed(&out), "{flags}");
    }
    let values = lines(&out);
    assert_eq!(values.len(), 4);
    for (value, text) in values.iter().zip(texts) {
        let chosen = value["extract"].as_array().unwrap();
        assert!((1..=2).contains(&chosen.len()), "{value}");
        let bytes = |one: &Value, end: &str| one["bytes"][end].as_u64().unwrap() as usize;
        let said: Vec<&str> =
            chosen.iter().map(|one| &text[bytes(one, "start")..bytes(one, "end")]).collect();
        assert_eq!(value["summary"], said.join("\n"));
        let places: Vec<u64> = chosen.iter().map(|one| one["sentence"].as_u64().unwrap()).collect();
        assert!(
            places.is_sorted() && places.iter().all(|&at| at < value["read"]["sentences"].as_u64().unwrap())
        );
        for one in chosen {
            for key in ["score", "logprob"] {
                assert!(one[key].as_f64().is_some_and(|mean| mean < 0.0), "{one}");
            }
        }
        assert_eq!((&value["unfound"], &value["is_cut_off"]), (&json!([]), &json!(false)));
    }
    assert!(values[2]["read"]["rounds"].as_array().unwrap().len() > 1, "{}", values[2]);

    folder.write("en.txt", ENGLISH);
    let shown = folder.run("summarize -m m en.txt --extract");
    assert_eq!(
        shown.stdout,
        "Once upon a time there was a fox.\nThe fox said, \"Good morning!\"\nIt ran home.\n"
    );
    assert!(shown.stderr.contains("were read, at once; 3 of 3 sentences chosen]"), "{}", shown.stderr);
    assert!(!shown.stderr.contains("seed"), "nothing is random: {}", shown.stderr);
    let short = folder.succeeds("summarize -m m en.txt --extract --ratio 0.3");
    assert!(short.len() * 2 < ENGLISH.len() && ENGLISH.contains(short.trim()), "{short}");

    referenced(&folder);
    let scored = lines(&folder.succeeds("summarize -m m refs.jsonl --extract --json --seed 1"));
    assert!(
        scored[2]["rouge"]["summary"]["mean"]["rouge1"]["f1"].as_f64().is_some_and(|f1| f1 > 0.2),
        "{scored:?}"
    );
    folder.fails("summarize -m m en.txt --extract --temperature 1", &["--extract", "--temperature"]);
    folder.fails("summarize -m m en.txt --extract --top-k 3", &["--extract", "--top-k"]);
}

#[test]
fn damaged_weights_are_named() {
    let folder = trained();
    folder.write("en.txt", ENGLISH);
    let path = folder.path("m").join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let names: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let at = header + names["transformer.wte.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    for flags in ["", "--extract"] {
        folder.fails(&format!("summarize -m m en.txt {flags}"), &["wte.weight"]);
    }
}

/// Texts whose first three sentences are their summaries.
fn referenced(folder: &Folder) {
    let lead = "One fox ran. Two crows sang. Three owls slept.";
    let chinese = "狐狸来了。乌鸦唱歌。猫头鹰睡了。";
    let all = [
        json!({ "text": format!("{lead} The rest is 1 long story. It went on. And on."), "summary": lead }),
        json!({ "text": format!("{chinese}后来下雪了。第二年也是。"), "summaries": ["别的", chinese] }),
    ];
    folder.write("refs.jsonl", all.map(|value| value.to_string() + "\n").concat());
}

#[test]
fn references_give_rouge_of_the_model_and_of_sentences() {
    let folder = trained();
    referenced(&folder);
    let out = folder.succeeds("summarize -m m refs.jsonl --json --seed 1");
    let values = lines(&out);
    assert_eq!(values.len(), 3);
    assert_eq!(values[1]["rouge"]["units"], "char");
    let table = &values[2]["rouge"];
    assert_eq!(table["lead"]["mean"]["rougeLsum"]["f1"], 1.0);
    assert_eq!(table["lead"]["stderr"]["rouge2"]["f1"], 0.0);
    assert!(table["random"]["mean"]["rouge2"]["f1"].as_f64().is_some_and(|f1| f1 < 1.0), "{table}");
    let shown = folder.succeeds("summarize -m m refs.jsonl --seed 1");
    assert!(shown.contains("rougeLsum") && shown.contains("\nlead       100.00 ± 0.00"), "{shown}");
    assert!(shown.contains("2 texts, counted in words, or characters where the text is Chinese"), "{shown}");

    folder.write("en.txt", ENGLISH);
    folder.write("refs.txt", "A fox said good morning.\n");
    let shown = folder.succeeds("summarize -m m en.txt --references refs.txt --seed 1");
    assert!(shown.contains("1 texts, counted in words") && shown.contains("±    ?"), "{shown}");
    folder.fails("summarize -m m refs.jsonl --references refs.txt", &["for 1 texts, but there are 2"]);
    folder.write("none.jsonl", "{\"text\": \"a\"}\n");
    folder.fails("summarize -m m en.txt --references none.jsonl", &["line 1", "no \"summary\""]);
    folder.write("gap.txt", "one\n\ntwo\n");
    folder.fails("summarize -m m en.txt --references gap.txt", &["line 2: the line is empty"]);
}

#[test]
fn rouge_score_agrees_with_what_is_shown() {
    let Ok(python) = std::env::var("GPT2_PYTHON") else {
        eprintln!(
            "SKIPPED: GPT2_PYTHON does not name a Python with rouge-score, so ROUGE was held to golden cases only"
        );
        return;
    };
    let folder = trained();
    referenced(&folder);
    let out = folder.succeeds("summarize -m m refs.jsonl --json --seed 1");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ask_rouge.py");
    let mut command = Command::new(python);
    command.arg(script).arg(folder.path("refs.jsonl"));
    let theirs = folder.finish(command, out.as_bytes());
    assert!(theirs.ok, "{}", theirs.stderr);
    let theirs = &lines(&theirs.stdout)[0];
    assert_eq!((&theirs["n"], &theirs["worst"]), (&json!(2), &json!(0.0)), "{theirs}");
}

#[test]
fn results_go_to_a_new_file() {
    let folder = trained();
    folder.write("en.txt", ENGLISH);
    let want = folder.succeeds("summarize -m m en.txt --seed 1 --json");
    assert_eq!(folder.succeeds("summarize -m m en.txt --seed 1 --json --out s.jsonl"), "");
    assert_eq!(folder.read("s.jsonl"), want);
    folder.fails("summarize -m m en.txt --out s.jsonl", &["it is there already"]);
    folder.fails("summarize -m m en.txt --out no/s.jsonl", &["cannot write no/s.jsonl"]);
    let names = std::fs::read_dir(folder.path(".")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().contains(".part")));
}

#[cfg(unix)]
#[test]
fn a_signal_keeps_what_is_done() {
    let folder = trained();
    let all: String =
        (0..400).map(|i| json!({ "text": format!("{ENGLISH} {i}").repeat(6) }).to_string() + "\n").collect();
    folder.write("many.jsonl", all);
    let mut child = folder.spawn("summarize -m m many.jsonl --json --batch 2 --seed 1");
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    out.read_line(&mut text).unwrap();
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    out.read_to_string(&mut text).unwrap();
    let end = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(end.stderr).unwrap();
    assert!(end.status.success(), "{stderr}");
    let n = lines(&text).len();
    assert!(
        (1..400).contains(&n) && stderr.contains(&format!("stopped after {n} of 400 texts")),
        "{n}: {stderr}"
    );
}

#[test]
fn what_cannot_be_summarised_is_refused() {
    let folder = trained();
    folder.write("empty.txt", " \n");
    folder.write("binary.txt", b"GIF89a\x00\x01");
    folder.write("latin.txt", b"caf\xe9");
    folder.write("no-text.jsonl", "{\"text\": \"a b\"}\n{\"body\": \"a\"}\n");
    folder.write("broken.jsonl", "{\"text\": \"a b\"}\n{\"text\": \n");
    folder.write("hollow.jsonl", "{\"text\": \" \"}\n");
    folder.write("odd.jsonl", "{\"text\": \"a\", \"summary\": 3}\n");
    folder.write("none.json", "[]");
    folder.write("cut.txt.gz", b"\x1f\x8b\x08\x00");
    for (what, parts) in [
        ("empty.txt", &["empty.txt is empty; there is nothing to summarise"][..]),
        ("binary.txt", &["not a text", "byte 6"]),
        ("latin.txt", &["not UTF-8 at byte 3"]),
        ("missing.txt", &["cannot read missing.txt"]),
        ("m", &["m is a directory"]),
        ("no-text.jsonl", &["line 2: there is no \"text\""]),
        ("broken.jsonl", &["line 2: not JSON"]),
        ("hollow.jsonl", &["line 1: the text is empty"]),
        ("odd.jsonl", &["line 1", "\"summary\" is not a string"]),
        ("none.json", &["the list is empty"]),
        ("cut.txt.gz", &["cannot read cut.txt.gz"]),
        ("a.txt --ratio 1.5", &["--ratio 1.5"]),
        ("a.txt --max-sentences 0", &["--max-sentences 0"]),
        ("a.txt -n 0", &["--max-tokens 0"]),
        ("a.txt -n 99999999999", &["does not hold the instruction"]),
        ("a.txt --batch 0", &["--batch 0"]),
        ("a.txt --top-p 7", &["top-p"]),
        ("a.txt --references missing", &["--references", "cannot read missing"]),
        ("- -", &["- stands for standard input once"]),
    ] {
        folder.fails(&format!("summarize -m m {what}"), parts);
    }
    for what in ["missing.txt", "a.txt --references missing.txt"] {
        let missing = folder.run(&format!("summarize -m m {what}")).stderr;
        assert_eq!(missing.matches("missing.txt").count(), 1, "it is named once: {missing}");
    }
    let nothing = folder.run_with_input("summarize -m m -", b"");
    assert!(!nothing.ok && nothing.stderr.contains("standard input is empty"), "{}", nothing.stderr);
}
