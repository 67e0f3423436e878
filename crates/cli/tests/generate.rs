//! `gpt2 generate`: what changes a text, what must not, and files of prompts.

mod common;

use common::{Folder, TINY, assistant, text};
use serde_json::Value;

/// A folder with a model `m` that has learnt a little.
fn trained() -> Folder {
    let folder = Folder::new();
    folder.write("a.txt", text());
    let longer = TINY.replace("--n-ctx 16", "--n-ctx 64");
    folder.succeeds(&format!(
        "train --data a.txt --tokenizer bpe:300 {longer} --lr 0.01 --max-steps 60 --out m"
    ));
    folder
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A line of JSON without what differs from run to run.
fn untimed(text: &str) -> Vec<Value> {
    let mut lines = lines(text);
    lines.iter_mut().for_each(|line| _ = line.as_object_mut().unwrap().remove("timings"));
    lines
}

const WRITE: &str = "generate -m m -p Once --json --min-tokens 40 -n 40 --seed 5";

#[test]
fn drafts_and_threads_change_no_text() {
    let folder = trained();
    for flags in
        ["", "--temperature 0", "--top-p 0.9 --repeat-penalty 1.2", "--overflow slide --keep 3 -n 150"]
    {
        let write = format!(
            "{} {flags}",
            if flags.contains("-n ") { WRITE.replace("-n 40 ", "") } else { WRITE.into() }
        );
        let want = untimed(&folder.succeeds(&format!("{write} --lookup 0 --threads 1")));
        for more in [
            "--lookup 8",
            "--lookup 18446744073709551615",
            "--draft m",
            "--draft m --lookup 3 --threads 2",
            "--threads 2",
        ] {
            assert!(untimed(&folder.succeeds(&format!("{write} {more}"))) == want, "{flags} {more}");
        }
    }
}

#[test]
fn a_text_in_a_batch_is_the_text_alone() {
    let folder = trained();
    let prompts = ["Once", "The fox said", "从前有一只", "", "Once upon a time there was a fox. The fox"];
    let line =
        |(k, prompt): (usize, &&str)| format!("{}\n", serde_json::json!({ "prompt": prompt, "seed": 7 * k }));
    folder.write("p.jsonl", prompts.iter().enumerate().map(line).collect::<String>());
    for flags in ["", "--lookup 0", "--overflow slide -n 90", "--draft m", "--logprobs 2 -n 9"] {
        let alone: Vec<Value> = (prompts.iter().enumerate())
            .flat_map(|(k, prompt)| {
                let seed = 7 * k;
                let write = format!("generate -m m --json --seed {seed} -f - {flags}");
                untimed(&folder.run_with_input(&write, prompt.as_bytes()).stdout)
            })
            .collect();
        for batch in [1, 2, 16] {
            folder.succeeds(&format!(
                "generate -m m --input p.jsonl --output {batch}.jsonl --batch {batch} {flags}"
            ));
            let mut got = untimed(&folder.read(&format!("{batch}.jsonl")));
            for (k, line) in got.iter_mut().enumerate() {
                let line = line.as_object_mut().unwrap();
                line.remove("settings").unwrap();
                assert_eq!(
                    (line.remove("index"), line.remove("prompt")),
                    (Some(k.into()), Some(prompts[k].into()))
                );
            }
            assert!(got == alone, "{flags}, batches of {batch}");
            std::fs::remove_file(folder.path(&format!("{batch}.jsonl"))).unwrap();
        }
    }
}

#[test]
fn beams_do_not_depend_on_threads() {
    let folder = trained();
    let search = "generate -m m -p Once --beams 4 --samples 3 -n 12 --json";
    let one = folder.succeeds(&format!("{search} --threads 1"));
    assert_eq!(folder.succeeds(&format!("{search} --threads 2")), one);
    let scores: Vec<f64> = lines(&one).iter().map(|line| line["score"].as_f64().unwrap()).collect();
    assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    let greedy = lines(&folder.succeeds("generate -m m -p Once --temperature 0 -n 12 --json"));
    assert_eq!(
        lines(&folder.succeeds("generate -m m -p Once --beams 1 -n 12 --json"))[0]["ids"],
        greedy[0]["ids"]
    );
}

#[test]
fn log_probabilities_are_of_the_tokens_that_were_chosen() {
    let folder = trained();
    let prompt = "The fox";
    let write = "generate -m m -f - --temperature 0 --logprobs 3 --json -n 10 --min-tokens 10";
    let got = &lines(&folder.run_with_input(write, prompt.as_bytes()).stdout)[0];
    let (ids, known) = (got["ids"].as_array().unwrap(), got["logprobs"].as_array().unwrap());
    assert_eq!((ids.len(), known.len()), (10, 10));
    for (id, known) in ids.iter().zip(known) {
        assert_eq!((&known["id"], known["top"].as_array().unwrap().len()), (id, 3));
        // The most likely token was chosen, unless that was the end of the text, which had to wait.
        let top: Vec<_> =
            known["top"].as_array().unwrap().iter().map(|top| (&top["id"], &top["logprob"])).collect();
        assert!(top.contains(&(id, &known["logprob"])), "{known}");
        assert!(known["logprob"].as_f64().unwrap() <= 0.0);
    }
    // What was written, given as a prompt, has the same probabilities.
    let whole = [prompt, got["text"].as_str().unwrap()].concat();
    let again = &lines(
        &folder.run_with_input("generate -m m -f - --logprobs 3 --json -n 0", whole.as_bytes()).stdout,
    )[0];
    let of_prompt = again["prompt_logprobs"].as_array().unwrap();
    if of_prompt[of_prompt.len() - 10..].iter().map(|x| &x["id"]).eq(ids) {
        assert_eq!(of_prompt[of_prompt.len() - 10..], known[..]);
    }
    let first = got["prompt_logprobs"].as_array().unwrap();
    assert_eq!(
        first[..],
        of_prompt[..first.len()],
        "the first token has none, the others do not know what follows"
    );
}

#[test]
fn a_context_that_slides_writes_on_and_tells() {
    let folder = trained();
    let slide = "generate -m m -p Once --overflow slide --keep 4 --min-tokens 200 -n 200 --seed 1";
    let run = folder.run(slide);
    assert!(run.ok && run.stderr.contains("tokens in its middle are forgotten"), "{}", run.stderr);
    let told = &lines(&folder.succeeds(&format!("{slide} --json")))[0];
    assert!(told["ids"].as_array().unwrap().len() == 200 && told["forgotten"].as_u64() > Some(100), "{told}");
    // Of a prompt that is longer than the context, too.
    folder.write("long.txt", text());
    let told = &lines(&folder.succeeds("generate -m m -f long.txt --overflow slide -n 1 --json"))[0];
    let prompt = told["timings"]["prompt_tokens"].as_u64().unwrap();
    assert!(told["forgotten"].as_u64().unwrap() > prompt - 64, "{told}");
    let run = folder.run("generate -m m -f long.txt --overflow slide -n 1");
    assert!(run.ok && run.stderr.contains("are forgotten"), "{}", run.stderr);
}

#[test]
fn every_type_of_weights_writes() {
    let folder = trained();
    let write = |dtype: &str| untimed(&folder.succeeds(&format!("{WRITE} --dtype {dtype}")));
    assert!(write("f32") == untimed(&folder.succeeds(WRITE)), "they are stored so");
    for dtype in ["f16", "bf16", "q8", "q4"] {
        assert_eq!(write(dtype)[0]["ids"].as_array().unwrap().len(), 40, "{dtype}");
    }
    folder.fails(&format!("{WRITE} --dtype q5"), &["f32, f16, bf16, q8, q4"]);
}

const BATCH: &str = "generate -m m --input p.jsonl --output o.jsonl --seed 3 --batch 3 -n 8";

#[test]
fn a_file_of_prompts_is_gone_on_with() {
    let folder = trained();
    folder.write("p.jsonl", "{\"prompt\":\"Once\"}\r\n\n  \n{\"prompt\":\"☃\",\"max_tokens\":99}\n{\"prompt\":\"The\",\"seed\":9}\n{\"prompt\":\"从前\"}");
    let run = folder.run(BATCH);
    assert!(run.ok && run.stderr.contains("1 of the prompts could not be continued"), "{}", run.stderr);
    let whole = folder.read("o.jsonl");
    let want = untimed(&whole);
    assert!(want.len() == 4 && want[1]["error"].as_str().unwrap().contains("99"), "{whole}");
    // Cut anywhere, within a character or a line: it is the same in the end.
    for cut in (0..whole.len()).step_by(41) {
        std::fs::write(folder.path("o.jsonl"), &whole.as_bytes()[..cut]).unwrap();
        folder.succeeds(BATCH);
        assert!(untimed(&folder.read("o.jsonl")) == want, "cut at {cut}");
    }
    // The seed of the first run is found again, and another one is refused.
    let two: String = whole.split_inclusive('\n').take(2).collect();
    folder.write("o.jsonl", &two);
    folder.succeeds(&BATCH.replace("--seed 3 ", ""));
    assert!(untimed(&folder.read("o.jsonl")) == want);
    folder.fails(&BATCH.replace("--seed 3", "--seed 4"), &["begun with --seed 3"]);
}

#[test]
fn an_output_that_is_not_ours_is_left_alone() {
    let folder = trained();
    let one = "{\"prompt\":\"Once\"}";
    folder.write("p.jsonl", one);
    let others = [
        "my notes",
        "my notes\n",
        "\n",
        one,
        "{\"index\":0,\"prompt\":\"Twice\",",
        "{\"index\":0,\"prompt\":\"Once\",\"ids\":[1\n",
    ];
    for other in others {
        folder.write("o.jsonl", other);
        folder.fails(BATCH, &["o.jsonl, line 1", "name another --output"]);
        assert_eq!(folder.read("o.jsonl"), other);
    }
    folder.fails(&BATCH.replace("o.jsonl", "p.jsonl"), &["p.jsonl, line 1"]);
    assert_eq!(folder.read("p.jsonl"), one);
    folder.fails(&BATCH.replace("o.jsonl", "m"), &["not a file", "--output"]);
    folder.fails(&BATCH.replace("o.jsonl", "/dev/full"), &["not a file"]);
    folder.fails(&BATCH.replace("o.jsonl", "nowhere/o.jsonl"), &["nowhere/o.jsonl"]);
    let held = std::fs::File::create(folder.path("held.jsonl")).unwrap();
    held.lock().unwrap();
    folder.fails(&BATCH.replace("o.jsonl", "held.jsonl"), &["another process is writing held.jsonl"]);
}

#[test]
fn messages_are_answered_through_the_chat_template() {
    let folder = Folder::new();
    assistant::train(&folder);
    let asked = folder.run("generate -m m --temperature 0 --chat -p hello");
    assert_eq!((asked.stdout.as_str(), asked.ok), ("good morning\n", true), "{}", asked.stderr);
    assert!(asked.stderr.contains("no chat template"), "{}", asked.stderr);
    let from_file = folder.run_with_input("generate -m m --temperature 0 --chat -f -", "你好\n".as_bytes());
    assert_eq!(from_file.stdout, "早上好\n");
    let one = lines(&folder.succeeds("generate -m m --temperature 0 --chat -p 你是谁 --json")).remove(0);
    assert_eq!((&one["text"], &one["finish_reason"]), (&"一只狐狸".into(), &"eot".into()));

    let turn = |role: &str, content: &str| serde_json::json!({ "role": role, "content": content });
    let talk = [turn("user", "hello"), turn("assistant", "good morning"), turn("user", "who are you")];
    let rows = [
        serde_json::json!({ "messages": [turn("user", "你好")] }),
        serde_json::json!({ "messages": talk, "seed": 7, "max_tokens": 30 }),
        serde_json::json!({ "prompt": "User: hello\nAssistant: good" }),
        serde_json::json!({ "messages": [turn("user", "hello")], "stop": [" morning"] }),
        serde_json::json!({ "messages": [turn("user", &"hello ".repeat(200))] }),
    ];
    folder.write("p.jsonl", rows.map(|row| row.to_string() + "\n").concat());
    let batch = "generate -m m --temperature 0 --input p.jsonl --output o.jsonl --seed 3 --batch 2";
    folder.succeeds(batch);
    let whole = folder.read("o.jsonl");
    let head = "{\"index\":0,\"messages\":[{\"role\":\"user\",\"content\":\"你好\"}],";
    assert!(whole.starts_with(head), "{whole}");
    let got = lines(&whole);
    let texts: Vec<&str> = got.iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(texts, ["早上好", "a red fox", " morning", "good"]);
    assert_eq!((&got[1]["messages"], &got[1]["seed"]), (&serde_json::json!(talk), &7.into()));
    assert!(got[4]["error"].as_str().unwrap().contains("context"), "{}", got[4]);
    // What was begun is gone on with, wherever it stopped.
    for cut in (0..whole.len()).step_by(97) {
        std::fs::write(folder.path("o.jsonl"), &whole.as_bytes()[..cut]).unwrap();
        folder.succeeds(batch);
        assert_eq!(untimed(&folder.read("o.jsonl")), untimed(&whole), "cut at {cut}");
    }
    // With --chat, prompts are messages, and lines say so.
    folder.write("p.jsonl", "{\"prompt\":\"你好\"}\n");
    folder.fails(&format!("{batch} --chat"), &["o.jsonl, line 2"]);
    folder.succeeds(&format!("{} --chat", batch.replace("o.jsonl", "c.jsonl")));
    assert!(folder.read("c.jsonl").starts_with(head));
    assert_eq!(lines(&folder.read("c.jsonl"))[0]["text"], "早上好");
}

#[test]
fn messages_that_cannot_be_answered() {
    let folder = trained();
    folder.fails("generate -m m --chat", &["--chat", "-p"]);
    for (line, parts) in [
        (r#"{"messages":[]}"#, &["line 1", "no messages"][..]),
        (r#"{"messages":[{"role":"user","content":" "}]}"#, &["message 1 (user) is empty"]),
        (
            r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
            &["the assistant's"],
        ),
        (r#"{"messages":[{"role":"boss","content":"a"}]}"#, &["`boss`"]),
        (r#"{"messages":[{"role":"user"}]}"#, &["line 1", "content"]),
        (r#"{"messages":"a"}"#, &["line 1", "each line is an object"]),
        (r#"{"prompt":"a","messages":[{"role":"user","content":"a"}]}"#, &["either"]),
        (r#"{"max_tokens":3}"#, &["either", "\"messages\""]),
    ] {
        folder.write("p.jsonl", line);
        folder.fails(BATCH, parts);
        assert!(!folder.exists("o.jsonl"));
    }
    folder.write("p.jsonl", "{\"prompt\":\"\"}");
    folder.fails(&format!("{BATCH} --chat"), &["line 1", "empty"]);
    for flags in ["--chat -p a --beams 2", "--chat -p a --parse-special"] {
        let got = folder.run(&format!("generate -m m {flags}"));
        assert!(!got.ok && got.stderr.contains("cannot be used with"), "{flags}: {}", got.stderr);
    }
}
