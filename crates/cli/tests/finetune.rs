//! `gpt2 finetune` as a user runs it: English and Chinese, full weights, adapters and preferences, and what is refused.

mod common;

use common::{Folder, text};

const SMALL: &str = "--n-layer 1 --n-head 2 --n-embd 16 --n-ctx 96 --batch 4 --seed 3";
const TUNE: &str = "finetune -m m --seed 5 --precision f32";

/// A folder with a model `m` of English and Chinese, and examples in `chat.jsonl`.
fn trained() -> Folder {
    let folder = Folder::new();
    folder.write("a.txt", text());
    folder.succeeds(&format!("train --data a.txt --tokenizer bpe:300 {SMALL} --max-steps 2 --out m"));
    let lines: Vec<String> = (0..40)
        .map(|i| match i % 2 {
            0 => format!("{{\"prompt\": \"Where is fox {i}?\", \"completion\": \"In the wood.\"}}"),
            _ => format!("{{\"turns\": [\"狐狸{i}在哪里？\", \"在树林里。\"]}}"),
        })
        .collect();
    folder.write("chat.jsonl", lines.join("\n"));
    folder
}

#[test]
fn full_weights_learn_english_and_chinese() {
    let folder = trained();
    let flags = "--data chat.jsonl --lr 0.01 --max-steps 30 --batch 8 --val-fraction 0.2";
    let out = folder.succeeds(&format!("{TUNE} {flags} --out tuned --json"));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let loss = |when: &str| report[when]["loss"].as_f64().unwrap();
    assert!(loss("after") < 0.8 * loss("before"), "{report}");
    for file in ["model.safetensors", "tokenizer_config.json", "finetune.toml", "README.md", "metrics.jsonl"]
    {
        assert!(folder.exists(&format!("tuned/{file}")), "{file}");
    }
    assert!(folder.read("tuned/tokenizer_config.json").contains("im_start"));
    assert!(folder.read("tuned/README.md").contains("`chat.jsonl`"));
    // The vocabulary has grown by the two tokens of ChatML, and the same seed gives the same bytes.
    folder.succeeds(&format!("{TUNE} {flags} --out again -t 1"));
    let bytes = |dir: &str| std::fs::read(folder.path(dir).join("model.safetensors")).unwrap();
    assert!(bytes("tuned") == bytes("again"));
    folder.fails(&format!("{TUNE} {flags} --out tuned"), &["tuned", "a model"]);
    folder.fails(&format!("{TUNE} {flags} --out m --force"), &["model to start from"]);
}

#[test]
fn a_resumed_run_is_the_straight_one() {
    let folder = trained();
    let flags = "--data chat.jsonl --schedule constant --warmup-steps 0 --eval-interval 2 --patience 0";
    folder.succeeds(&format!("{TUNE} {flags} --max-steps 6 --out straight"));
    folder.succeeds(&format!("{TUNE} {flags} --max-steps 3 --out halved"));
    folder.fails("finetune --resume --out halved --lr 1", &["leave out everything"]);
    folder.succeeds("finetune --resume --out halved --max-steps 6");
    let last = |dir: &str| folder.read(&format!("{dir}/metrics.jsonl")).lines().last().unwrap().to_owned();
    let loss = |dir: &str| serde_json::from_str::<serde_json::Value>(&last(dir)).unwrap()["val/loss"].clone();
    assert!(loss("straight").is_number() && loss("straight") == loss("halved"));
}

#[test]
fn an_adapter() {
    let folder = trained();
    folder.succeeds(&format!("{TUNE} --data chat.jsonl --lora r=2,alpha=4 --max-steps 3 --out adapter"));
    assert!(
        folder.exists("adapter/adapter_model.safetensors") && folder.exists("adapter/adapter_config.json")
    );
    assert!(!folder.exists("adapter/model.safetensors"));
    assert!(folder.read("adapter/README.md").contains("--adapter adapter"));
    folder.fails(&format!("{TUNE} --data chat.jsonl --lora q=2 --out b"), &["--lora q=2"]);
    let again = "finetune -m adapter --data chat.jsonl --out b";
    folder.fails(again, &["adapter is an adapter", "first", "gpt2 merge -m adapter --out DIR"]);
}

#[test]
fn preferences() {
    let folder = trained();
    let pairs: Vec<String> = (0..20)
        .map(|i| format!("{{\"prompt\": \"早上好 {i}\", \"chosen\": \"早上好！\", \"rejected\": \"fox\"}}"))
        .collect();
    folder.write("pairs.jsonl", pairs.join("\n"));
    let out = folder.succeeds(&format!("{TUNE} --data pairs.jsonl --lr 0.001 --max-steps 8 --out p --json"));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(
        report["after"]["loss"].as_f64().unwrap() < report["before"]["loss"].as_f64().unwrap(),
        "{report}"
    );
    folder.fails(
        &format!("{TUNE} --data pairs.jsonl chat.jsonl --out q"),
        &["pairs.jsonl", "chat.jsonl", "first"],
    );
    folder.fails(&format!("{TUNE} --data chat.jsonl --beta 0.2 --out q"), &["--beta 0.2"]);
}

#[test]
fn what_is_said_at_the_end_fits_what_was_done() {
    let folder = trained();
    folder.write("one.jsonl", r#"{"prompt": "Where?", "completion": "zqxjvkw 998877 zqxjvkw"}"#);
    let flags = "--eval-interval 1 --schedule constant --warmup-steps 0 --max-steps 3";
    let run = folder.run(&format!("{TUNE} --data chat.jsonl --val one.jsonl {flags} --lr 0.3 --out worse"));
    assert!(run.ok && !run.stderr.contains("NaN"), "{}", run.stderr);
    let want = "no validation was better than the model that it started from, so that is what worse holds";
    assert!(run.stderr.contains(want), "{}", run.stderr);
    let card = folder.read("worse/README.md");
    assert!(card.contains("No validation was better") && !card.contains("NaN"), "{card}");
    // Of pairs, before the first step no answer has gained anything.
    let pair = |i: usize| {
        format!("{{\"prompt\": \"早上好 {i}\", \"chosen\": \"早上好！\", \"rejected\": \"fox\"}}\n")
    };
    folder.write("pairs.jsonl", (0..12).map(pair).collect::<String>());
    folder.write("pair.jsonl", pair(99));
    let run = folder.run(&format!("{TUNE} --data pairs.jsonl --val pair.jsonl {flags} --lr 0.001 --out p"));
    assert!(run.ok && !run.stderr.contains("NaN") && !run.stderr.contains("accuracy"), "{}", run.stderr);
    for part in [
        "held-out pairs: loss 0.6931 before, ",
        "the chosen answer has gained more than the rejected one in ",
    ] {
        assert!(run.stderr.contains(part), "{}", run.stderr);
    }
    assert!(!run.stderr.contains("no validation was better"), "{}", run.stderr);
    let card = folder.read("p/README.md");
    assert!(card.contains("| on held-out pairs |") && card.contains("| chosen answer gained more"), "{card}");
}

#[test]
fn a_dry_run_says_what_it_sees_and_writes_nothing() {
    let folder = trained();
    folder.write("faq.csv", "问题,回答\n早上好,您好！\n再见,\n早上好,您好！\n");
    let command = folder
        .command(&format!("{TUNE} --data faq.csv --columns prompt=问题,completion=回答 --dry-run --json"));
    let done = folder.finish(command, b"");
    assert!(done.ok, "{}", done.stderr);
    for part in [
        "2 prompts with completions",
        "1 empty answer",
        "line 3",
        "⟦您好！<|im_end|>⟧",
        "ChatML",
        "by heart",
        "nothing was trained",
    ] {
        let part = part.replace("2 prompts", "3 prompts");
        assert!(done.stderr.contains(&part), "{part}: {}", done.stderr);
    }
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(report["data"]["counts"]["examples"], 1);
    assert_eq!(report["data"]["dropped"]["duplicate"], 1);
    assert!(!folder.exists("out"));
}

#[test]
fn bad_input() {
    let folder = trained();
    let fails = |flags: &str, parts: &[&str]| folder.fails(&format!("{TUNE} --out out {flags}"), parts);
    let line = |text: &str| folder.write("x.jsonl", text);
    fails("", &["--data"]);
    fails("--data none.jsonl", &["none.jsonl", "No such file"]);
    fails("--data a.txt", &["a.txt", "gpt2 train"]);
    line("");
    fails("--data x.jsonl", &["x.jsonl", "no text"]);
    line("{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": ");
    fails("--data x.jsonl", &["x.jsonl: line 2", "not JSON"]);
    line("{\"text\": \"only\"}");
    fails("--data x.jsonl", &["line 1", "gpt2 train"]);
    line("{\"a\": 1}");
    fails("--data x.jsonl", &["`a`", "--columns"]);
    line(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"user\", \"content\": \"b\"}, {\"role\": \"assistant\", \"content\": \"c\"}]}",
    );
    fails("--data x.jsonl", &["nothing is left", "1 roles out of order", "line 1"]);
    line("{\"messages\": []}");
    fails("--data x.jsonl", &["nothing is left", "1 no assistant turn"]);
    line("{\"prompt\": \"a\", \"completion\": \"\"}");
    fails("--data x.jsonl", &["1 empty answer"]);
    folder.write("x.csv", "question,reply\na,b\n");
    fails(
        "--data x.csv --columns prompt=question,completion=answer",
        &["line 2", "`answer`", "`question`, `reply`"],
    );
    folder.write("x.csv", b"\x89PNG\r\n\x1a\n\0\0");
    fails("--data x.csv", &["x.csv", "byte 0"]);
    fails("--data chat.jsonl --roles boss", &["--roles boss"]);
    fails("--data chat.jsonl --max-length 4000", &["--max-length 4000", "96"]);
    fails("--data chat.jsonl --max-length 5", &["nothing is left", "too long"]);
    fails("--data chat.jsonl --val-fraction 2", &["--val-fraction"]);
    fails("--data chat.jsonl --instruction Short", &["{text}"]);
    fails("--data chat.jsonl --lr=-1", &["--lr"]);
    folder.fails("finetune --data chat.jsonl --out out", &["-m MODEL"]);
    folder.fails("finetune --resume --out out", &["out"]);
    assert!(!folder.exists("out/model.safetensors"));
}

/// The command that a run names at its end.
#[track_caller]
fn next(folder: &Folder, args: &str) -> String {
    let run = folder.run(&format!("{TUNE} --max-steps 2 --val-fraction 0 {args}"));
    assert!(run.ok, "{args}: {}", run.stderr);
    let (_, next) = run.stderr.rsplit_once("next: ").unwrap_or_else(|| panic!("{}", run.stderr));
    next.trim().to_owned()
}

#[test]
fn what_is_named_at_the_end_works_word_for_word() {
    let folder = Folder::new();
    folder.write("a.txt", text());
    // An untrained model's headline may be a hundred tokens of broken characters, each three tokens of U+FFFD in
    // the next prompt.
    let longer = SMALL.replace("--n-ctx 96", "--n-ctx 1024");
    folder.succeeds(&format!("train --data a.txt --tokenizer bpe:300 {longer} --max-steps 2 --out m"));
    let rows = |line: &dyn Fn(usize) -> String| (0..6).map(|i| line(i) + "\n").collect::<String>();
    folder
        .write("chat.jsonl", rows(&|i| format!("{{\"prompt\":\"狐狸{i}？\",\"completion\":\"早上好。\"}}")));
    folder.write(
        "sums.jsonl",
        rows(&|i| format!("{{\"text\":\"The fox said {i}.\",\"summary\":\"fox {i}\"}}")),
    );
    folder.write("news.csv", format!("title,text\n{}", rows(&|i| format!("狐狸{i},从前有一只狐狸{i}。"))));
    folder.write("FILE", "Once upon a time there was a fox.");
    let lora = "--lora r=2,targets=all-linear";
    for (args, want) in [
        ("--data chat.jsonl --out c", "gpt2 chat -m c"),
        ("--data chat.jsonl --out cl --lora r=2", "gpt2 chat -m m --adapter cl"),
        ("--data chat.jsonl --out ce --lora r=2,embeddings=true", "gpt2 chat -m m --adapter ce"),
        ("--data sums.jsonl --out s", "gpt2 summarize -m s FILE"),
        (&format!("--data sums.jsonl --out sl {lora}"), "gpt2 summarize -m m --adapter sl FILE"),
        (
            "--data sums.jsonl --out si --instruction Kurz:{text}",
            "gpt2 summarize -m si --instruction 'Kurz:{text}' FILE",
        ),
        ("--data news.csv --out n", "gpt2 write headline-article -m n --topic TEXT"),
        (
            &format!("--data news.csv --out nl {lora}"),
            "gpt2 write headline-article -m m --adapter nl --topic TEXT",
        ),
        ("--data news.csv --out ni --instruction Schreib:{text}", "gpt2 chat -m ni"),
    ] {
        let named = next(&folder, args);
        assert_eq!(named, want);
        let words = named.strip_prefix("gpt2 ").unwrap().replace('\'', "");
        let mut command = folder.command(&words);
        command.env("XDG_DATA_HOME", folder.path("home"));
        let run = folder.finish(command, "你好\n".as_bytes());
        assert!(run.ok, "{named}: {}", run.stderr);
        let out = args.split_once("--out ").unwrap().1.split(' ').next().unwrap();
        assert!(folder.read(&format!("{out}/README.md")).contains(want), "{named}");
    }
}
