//! `gpt2 chat` through pipes: one message, lines of messages, histories, and bad input.

mod common;

use common::assistant::{CHAT, TALK, train};
use common::{Folder, TINY, text};
use serde_json::Value;

fn assistant() -> Folder {
    let folder = Folder::new();
    train(&folder);
    folder
}

fn answers(folder: &Folder, flags: &str, input: &str) -> Vec<String> {
    let run = folder.run_with_input(&format!("{CHAT} {flags}"), input.as_bytes());
    assert!(run.ok, "{}", run.stderr);
    run.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn each_line_is_a_message_and_each_reply_a_line() {
    let folder = assistant();
    let questions: String = TALK.iter().map(|(question, _)| format!("{question}\n")).collect();
    let want: Vec<&str> = TALK.iter().map(|(_, answer)| *answer).collect();
    assert_eq!(answers(&folder, "", &questions), want);
    // Without the last newline, with those of Windows, and with empty lines, which are told.
    let run = folder.run_with_input(CHAT, "\u{feff}hello\r\n\r\n  \n你好".as_bytes());
    assert_eq!((run.stdout.as_str(), run.ok), ("good morning\n早上好\n", true));
    assert!(run.stderr.contains("line 2 is empty and is passed over"), "{}", run.stderr);
    // What looks like a command is a message like any other.
    assert_eq!(answers(&folder, "--no-history --json", "/quit\nhello\n").len(), 2);
    assert!(folder.run_with_input(CHAT, b"").stdout.is_empty());
}

#[test]
fn one_message_and_its_answer() {
    let folder = assistant();
    assert_eq!(folder.succeeds(&format!("{CHAT} -p hello")), "good morning\n");
    let run = folder.run(&format!("{CHAT} -p 你好 --json"));
    let value: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        (
            value["text"].as_str(),
            value["finish_reason"].as_str(),
            value["dropped_turns"].as_u64(),
            value["seed"].as_u64()
        ),
        (Some("早上好"), Some("eot"), Some(0), Some(1))
    );
    let tokens = |name: &str| value["timings"][name].as_u64().unwrap();
    let ids = value["ids"].as_array().unwrap().len() as u64;
    assert_eq!(value["context_tokens"].as_u64().unwrap(), tokens("prompt_tokens") + ids);
    assert!(
        run.stderr.contains("has no chat template") && run.stderr.contains("gpt2 finetune"),
        "{}",
        run.stderr
    );
    // The seed and the settings are what they are for `gpt2 generate`.
    let warm = "chat -m m --no-history -p hello --json --temperature 3 --top-k 0 -n 30 --seed";
    let text = |seed: u32| {
        serde_json::from_str::<Value>(&folder.succeeds(&format!("{warm} {seed}"))).unwrap()["ids"].clone()
    };
    assert_eq!(text(5), text(5));
    assert_ne!(text(5), text(6));
}

#[test]
fn a_long_conversation_drops_its_oldest_turns_and_says_so() {
    let folder = assistant();
    let input: String = TALK.iter().cycle().take(14).map(|(question, _)| format!("{question}\n")).collect();
    let flags = "--json --system fox -n 20";
    let run = folder.run_with_input(&format!("{CHAT} {flags}"), input.as_bytes());
    assert!(run.ok, "{}", run.stderr);
    let lines: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let dropped: Vec<u64> = lines.iter().map(|line| line["dropped_turns"].as_u64().unwrap()).collect();
    assert!(dropped.len() == 14 && dropped.is_sorted() && dropped[0] == 0 && dropped[13] > 3, "{dropped:?}");
    for line in &lines {
        assert!(line["timings"]["prompt_tokens"].as_u64().unwrap() + 20 <= 128, "{line}");
    }
    assert!(
        run.stderr.contains(
            "[the context of 128 tokens is full: the oldest turn is left out; the system prompt stays]"
        ),
        "{}",
        run.stderr
    );
    // All is kept in the history, what was dropped from the context as well.
    assert_eq!(messages(&folder), 28);
}

fn messages(folder: &Folder) -> i64 {
    let db = rusqlite::Connection::open(folder.path("h.sqlite")).unwrap();
    db.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).unwrap()
}

#[test]
fn histories_that_cannot_be_used_do_not_stop_the_chat() {
    let folder = assistant();
    folder.write("damaged", "not a database, but something else, and long enough: ".repeat(50));
    folder.write("h.sqlite", "");
    for (history, part) in [
        ("damaged", "damaged is damaged, or is no database"),
        ("m", "cannot open m"),
        ("talk.jsonl/x", "cannot make talk.jsonl/x"),
    ] {
        let run = folder.run(&format!("chat -m m --temperature 0 --history {history} -p hello"));
        assert_eq!((run.stdout.as_str(), run.ok), ("good morning\n", true), "{}", run.stderr);
        assert!(
            run.stderr.contains("this conversation is not kept") && run.stderr.contains(part),
            "{}",
            run.stderr
        );
    }
    // One that another process holds all the time.
    folder.succeeds(&format!("{CHAT} -p hello"));
    let db = rusqlite::Connection::open(folder.path("h.sqlite")).unwrap();
    db.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let run = folder.run(&format!("{CHAT} -p hello"));
    assert!(run.ok && run.stderr.contains("locked by another process"), "{}", run.stderr);
    drop(db);
    assert_eq!(messages(&folder), 2);
    folder.succeeds(&format!("{CHAT} -p hello --no-history"));
    assert_eq!(messages(&folder), 2);
    // Without a home there is no place for one, which is told.
    let mut command = folder.command("chat -m m --temperature 0 -p hello");
    command.env("XDG_DATA_HOME", folder.path("talk.jsonl"));
    let run = folder.finish(command, b"");
    assert!(run.ok && run.stderr.contains("this conversation is not kept"), "{}", run.stderr);
}

#[test]
fn personas_are_ours_or_ones_own() {
    let folder = assistant();
    let big = "train --data talk.jsonl --tokenizer gpt2 --n-layer 1 --n-head 2 --n-embd 16 --n-ctx 1024 --max-steps 1 --batch 1 --out big";
    folder.succeeds(big);
    let prompt_tokens = |flags: &str, lang: &str| {
        let mut command = folder.command(&format!("chat -m big --no-history -p hello --json -n 5 {flags}"));
        command
            .env("XDG_CONFIG_HOME", folder.path("config"))
            .env("LC_ALL", lang)
            .env("HOME", folder.path(""));
        let run = folder.finish(command, b"");
        assert!(run.ok, "{}", run.stderr);
        serde_json::from_str::<Value>(&run.stdout).unwrap()["timings"]["prompt_tokens"].as_u64().unwrap()
    };
    let none = prompt_tokens("", "C");
    let (en, zh) = (
        prompt_tokens("--persona support --lang en", "C"),
        prompt_tokens("--persona support --lang zh", "C"),
    );
    assert!(none + 50 < zh.min(en) && zh != en, "{none} {zh} {en}");
    assert_eq!(prompt_tokens("--persona support", "zh_CN.UTF-8"), zh);
    assert_eq!(prompt_tokens("--persona support", "de_DE.UTF-8"), en);
    // A file, and one that is found by its name.
    folder.write("p.toml", "system = \"hello\"");
    std::fs::create_dir_all(folder.path("config/gpt2/personas")).unwrap();
    folder.write("config/gpt2/personas/mine.toml", "system = \"hello\"");
    let own = prompt_tokens("--system hello", "C");
    assert_eq!(prompt_tokens("--persona p.toml", "C"), own);
    if cfg!(target_os = "linux") {
        assert_eq!(prompt_tokens("--persona mine", "C"), own);
    }
    folder.write("bad.toml", "sytem = \"x\"");
    folder.fails("chat -m m --persona bad.toml -p hello", &["bad.toml", "sytem"]);
    folder.fails(
        "chat -m m --persona nobody -p hello",
        &["no persona `nobody`", "support, consult, companion"],
    );
    folder.fails("chat -m m --persona no/where.toml -p hello", &["cannot read no/where.toml"]);
    folder.fails("chat -m m --persona support --system x -p hello", &["--persona", "--system"]);
}

#[test]
fn bad_input_is_told() {
    let folder = assistant();
    folder.fails("chat -m nowhere -p hello", &["nowhere"]);
    folder.fails("chat -m m -p   --no-history", &["-p"]);
    let mut empty = folder.command("chat -m m --no-history");
    empty.args(["-p", " \n"]);
    let run = folder.finish(empty, b"");
    assert!(!run.ok && run.stderr.contains("the message is empty"), "{}", run.stderr);
    folder.fails("chat -m m -p hello -n 0", &["--max-tokens 0", "1 to 127"]);
    folder.fails("chat -m m -p hello -n 128", &["--max-tokens 128", "1 to 127"]);
    folder.fails("chat -m m -p hello --temperature=-1", &["temperature"]);
    folder.fails("chat -m m -p hello --logprobs 2", &["--json"]);
    let long = "a".repeat(200);
    folder.fails(
        &format!("chat -m m --no-history -p {long}"),
        &["the message has 200 tokens", "context is 128"],
    );
    let bad = |input: &[u8], parts: &[&str]| {
        let run = folder.run_with_input("chat -m m --temperature 0 --no-history", input);
        assert!(!run.ok && run.stdout == "good morning\n", "{}{}", run.stdout, run.stderr);
        assert!(parts.iter().all(|part| run.stderr.contains(part)), "{}", run.stderr);
    };
    bad(b"hello\n\xff\xfe\n", &["line 2 of standard input is not UTF-8 at byte 0"]);
    bad(format!("hello\n{long}\n").as_bytes(), &["line 2 of standard input", "200 tokens"]);
    bad(&[b"hello\n".to_vec(), vec![b'x'; 17 << 20]].concat(), &["line 2", "longer than any message"]);
}

#[test]
fn logprobs_come_with_json() {
    let folder = Folder::new();
    folder.write("a.txt", text());
    folder.succeeds(&format!(
        "train --data a.txt --tokenizer bpe:300 {} --max-steps 1 --out m",
        TINY.replace("--n-ctx 16", "--n-ctx 64")
    ));
    let out = folder.succeeds("chat -m m --no-history -p fox --json --logprobs 2 -n 5 --seed 2");
    let value: Value = serde_json::from_str(&out).unwrap();
    let (ids, logprobs) = (value["ids"].as_array().unwrap(), value["logprobs"].as_array().unwrap());
    assert!(
        !ids.is_empty() && ids.len() == logprobs.len() && logprobs[0]["top"].as_array().unwrap().len() == 2
    );
}
