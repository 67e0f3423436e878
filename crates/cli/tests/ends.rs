//! The tokens that end what a model writes: read from its files, kept by every command that writes a model, and obeyed by every
//! command that writes text.

mod common;

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Folder, TINY, text};
use serde_json::{Value, json};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A folder with a model `m` of English and Chinese.
fn trained() -> Folder {
    let folder = Folder::new();
    folder.write("a.txt", text());
    let wider = TINY.replace("--n-ctx 16", "--n-ctx 64");
    folder.succeeds(&format!("train --data a.txt --tokenizer bpe:300 {wider} --max-steps 3 --out m"));
    folder
}

/// A copy of a model with other end tokens in its `generation_config.json`.
fn copy(folder: &Folder, from: &str, to: &str, generation: Option<Value>) {
    fs::create_dir_all(folder.path(to)).unwrap();
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
    ] {
        if folder.exists(&format!("{from}/{name}")) {
            fs::copy(folder.path(from).join(name), folder.path(to).join(name)).unwrap();
        }
    }
    if let Some(generation) = generation {
        folder.write(&format!("{to}/generation_config.json"), generation.to_string());
    }
}

/// The tokens that a command writes, and why the text ended.
fn written(folder: &Folder, args: &str) -> (Vec<u64>, String) {
    let out = parse(&folder.succeeds(args));
    let ids = out["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    (ids, out["finish_reason"].as_str().unwrap().to_owned())
}

const WRITE: &str = "generate -p Once -n 12 --seed 5 --json";

#[test]
fn texts_end_where_the_files_say() {
    let folder = trained();
    let (all, finish) = written(&folder, &format!("{WRITE} -m m"));
    assert_eq!((all.len(), &*finish), (12, "length"));
    let first = |id: u64| all.iter().position(|&other| other == id).unwrap();
    let (late, early) = (all[8], all[4]);
    let eot = parse(&folder.read("m/config.json"))["eos_token_id"].as_u64().unwrap();
    let cases = [
        (json!({ "eos_token_id": late }), first(late)),
        (json!({ "eos_token_id": [late, early, 99999] }), first(late).min(first(early))),
        (json!({ "eos_token_id": [late, eot], "temperature": 0.1 }), first(late)),
        (json!({ "eos_token_id": [] }), 12),
        (json!({ "eos_token_id": 99999 }), 12),
        (json!({}), 12),
    ];
    for (generation, len) in cases {
        copy(&folder, "m", "n", Some(generation.clone()));
        let want = if len < 12 { "eot" } else { "length" };
        for args in [format!("{WRITE} -m n"), format!("{WRITE} -m n --lookup 3")] {
            assert_eq!(
                written(&folder, &args),
                (all[..len].to_vec(), want.to_owned()),
                "{generation} {args}"
            );
        }
    }
    // The list in config.json holds where nothing else is said.
    copy(&folder, "m", "c", None);
    let mut config = parse(&folder.read("c/config.json"));
    config["eos_token_id"] = json!([eot, early]);
    folder.write("c/config.json", config.to_string());
    assert_eq!(written(&folder, &format!("{WRITE} -m c")), (all[..first(early)].to_vec(), "eot".to_owned()));
    // Many at once, one of which asks for a longer text.
    copy(&folder, "m", "n", Some(json!({ "eos_token_id": [early] })));
    folder.write("p.jsonl", "{\"prompt\": \"Once\"}\n");
    folder.succeeds("generate -m n --input p.jsonl --output out.jsonl -n 12 --seed 5");
    assert_eq!(parse(&folder.read("out.jsonl"))["finish_reason"], "eot");
    let longer = written(&folder, &format!("{WRITE} -m n --min-tokens 12"));
    assert!(longer.0.len() == 12 && !longer.0.contains(&early), "{longer:?}");
    // What ends texts there is no end here: only the tokens that are named.
    let (ids, finish) = written(&folder, &format!("{WRITE} -m n --logit-bias {eot}=1000"));
    assert_eq!((ids, &*finish), (vec![eot; 12], "length"));
    // Beams end there, too.
    let beams = format!("generate -p Once -n 6 --beams 2 --json --logit-bias {early}=1000 -m");
    assert_eq!(parse(&folder.succeeds(&format!("{beams} n")))["ended"], true);
    assert_eq!(parse(&folder.succeeds(&format!("{beams} m")))["ended"], false);
    let shown = parse(&folder.succeeds("show -m c --json"));
    assert_eq!(shown["end_tokens"], json!([eot, early]));
    assert!(folder.succeeds("show -m c").contains(&format!("texts end with \"<|endoftext|>\" ({eot}), \"")));
}

#[test]
fn what_is_no_end_token_is_refused() {
    let folder = trained();
    let million: Vec<u32> = (0..1_000_000).collect();
    for (text, parts) in [
        (r#"{"eos_token_id": -1}"#.to_owned(), ["names -1, which is no token", "leave it out"]),
        (r#"{"eos_token_id": "<|im_end|>"}"#.to_owned(), ["<|im_end|>", "which is no token"]),
        (r#"{"eos_token_id": [1, 2.5]}"#.to_owned(), ["names 2.5", "which is no token"]),
        (json!({ "eos_token_id": million }).to_string(), ["more than 1 MB", "no such file needs"]),
        (json!({ "eos_token_id": million[..100] }).to_string(), ["a list of 100", "at most 64"]),
        ("[]".to_owned(), ["one object of settings", "delete it"]),
        ("eos_token_id: 5".to_owned(), ["generation_config.json", "line 1"]),
    ] {
        copy(&folder, "m", "n", None);
        folder.write("n/generation_config.json", &text);
        let start: String = text.chars().take(40).collect();
        for command in [format!("{WRITE} -m n"), "show -m n".to_owned()] {
            folder.fails(&command, &["n/generation_config.json"][..usize::from(!text.contains(",98,"))]);
            folder.fails(&command, &parts);
        }
        assert!(folder.exists("n"), "{start}");
    }
}

/// Examples of a few turns.
fn examples(folder: &Folder) {
    let lines: Vec<String> =
        (0..20).map(|i| format!("{{\"prompt\": \"狐狸 {i}?\", \"completion\": \"In the wood.\"}}")).collect();
    folder.write("chat.jsonl", lines.join("\n"));
}

#[test]
fn models_that_learnt_to_end_turns_end_texts_there() {
    let folder = trained();
    examples(&folder);
    let tune = "finetune -m m --data chat.jsonl --seed 1 --max-steps 2 --batch 4 --precision f32";
    folder.succeeds(&format!("{tune} --out chat"));
    let eot = parse(&folder.read("m/config.json"))["eos_token_id"].as_u64().unwrap();
    let end = 301; // <|im_start|> and <|im_end|> come after the 300 tokens
    let generation =
        |dir: &str| parse(&folder.read(&format!("{dir}/generation_config.json")))["eos_token_id"].clone();
    assert_eq!(generation("chat"), json!([end, eot]));
    let ends = |dir: &str| parse(&folder.succeeds(&format!("show -m {dir} --json")))["end_tokens"].clone();
    let ends_at_turns = |dir: &str| {
        let biased = format!("generate -p Once -n 5 --seed 1 --json --logit-bias {end}=1000 -m {dir}");
        assert_eq!(written(&folder, &biased), (vec![], "eot".to_owned()), "{dir}");
    };
    ends_at_turns("chat");
    // Every way that a model goes.
    folder.succeeds("quantize -m chat --to q8 --out q8");
    folder.succeeds("convert chat bf16 --to hf --type bf16");
    folder.succeeds("convert chat m.gguf --to gguf");
    folder.succeeds("convert m.gguf again --to hf");
    folder.succeeds("train --data a.txt --init chat --tokenizer chat --max-steps 1 --batch 2 --out more");
    folder.succeeds("quantize -m m.gguf --to f16 --out from-gguf");
    for dir in ["q8", "bf16", "m.gguf", "again", "more", "from-gguf"] {
        let mut got: Vec<u64> = ends(dir).as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        got.sort();
        assert_eq!(got, [eot.min(end), eot.max(end)], "{dir}");
        ends_at_turns(dir);
    }
    // Two formats have no place for them, which is said.
    for (file, format) in [("m.bin", "llmc"), ("m.pt", "pt")] {
        let run = folder.run(&format!("convert chat {file} --to {format} --json"));
        let want = format!(
            "{format} has no place for all tokens that end what the model writes: texts will not end at \"<|im_end|>\" ({end})"
        );
        assert!(run.ok && run.stderr.contains(&want), "{}", run.stderr);
        assert_eq!(parse(&run.stdout)["end_tokens"], json!({ "before": [end, eot], "after": [eot] }));
    }
    let run = folder.run("convert chat same --to hf");
    assert!(run.ok && !run.stderr.contains("has no place"), "{}", run.stderr);
    // An adapter with embeddings of its own brings them along.
    folder.succeeds(&format!("{tune} --lora r=2,embeddings=true --out ad"));
    assert_eq!(ends("ad"), json!([end, eot]));
    ends_at_turns("ad");
    folder.succeeds("merge -m ad --out merged");
    folder.succeeds("quantize -m ad --to q8 --out ad-q8");
    folder.succeeds("convert ad ad.gguf --to gguf");
    for dir in ["merged", "ad-q8", "ad.gguf"] {
        ends_at_turns(dir);
    }
    assert_eq!((generation("merged"), generation("ad-q8")), (json!([end, eot]), json!([end, eot])));
    // One without has lines of text, which end as before.
    folder.succeeds(&format!("{tune} --lora r=2 --out lines"));
    assert_eq!(ends("lines"), json!([eot]));
}

/// GGUF has three keys for them, of which the first is the tokenizer's.
#[test]
fn what_gguf_has_no_place_for_is_said() {
    let folder = trained();
    let eot = parse(&folder.read("m/config.json"))["eos_token_id"].as_u64().unwrap();
    copy(&folder, "m", "n", Some(json!({ "eos_token_id": [3, 4, 5] })));
    let run = folder.run("convert n n.gguf --to gguf --json");
    assert!(run.ok, "{}", run.stderr);
    assert_eq!(parse(&run.stdout)["end_tokens"], json!({ "before": [3, 4, 5], "after": [eot, 3, 4] }));
    assert!(run.stderr.contains("texts will not end at") && run.stderr.contains("(5)"), "{}", run.stderr);
    assert!(
        run.stderr.contains(&format!("texts will end at \"<|endoftext|>\" ({eot}), too")),
        "{}",
        run.stderr
    );
}

#[test]
fn transformers_stops_at_the_same_tokens() {
    let Ok(python) = env::var("GPT2_PYTHON") else {
        eprintln!(
            "SKIPPED: GPT2_PYTHON does not name a Python with transformers, so its ends were not compared"
        );
        return;
    };
    let folder = trained();
    examples(&folder);
    folder.succeeds(
        "finetune -m m --data chat.jsonl --seed 1 --max-steps 2 --batch 4 --precision f32 --out chat",
    );
    const N: usize = 14;
    let write =
        |dir: &str| written(&folder, &format!("generate -m {dir} -p Once -n {N} --temperature 0 --json"));
    let (all, _) = write("m");
    let eot = parse(&folder.read("m/config.json"))["eos_token_id"].as_u64().unwrap();
    let mut dirs = vec!["m".to_owned(), "chat".to_owned()];
    for (i, ends) in
        [json!(all[5]), json!([all[9], all[3]]), json!([all[2], 50256]), json!([eot]), json!([eot, all[7]])]
            .into_iter()
            .enumerate()
    {
        let dir = format!("n{i}");
        copy(&folder, "m", &dir, Some(json!({ "bos_token_id": eot, "eos_token_id": ends })));
        dirs.push(dir);
    }
    for (dir, ends) in [("c1", json!(all[5])), ("c2", json!([all[9], all[3]]))] {
        copy(&folder, "m", dir, None);
        let mut config = parse(&folder.read(&format!("{dir}/config.json")));
        config["eos_token_id"] = ends;
        folder.write(&format!("{dir}/config.json"), config.to_string());
        dirs.push(dir.to_owned());
    }
    let prompt = folder.run_with_input("tokenizer encode --tokenizer m --json", b"Once").stdout;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ask_ends.py");
    let mut command = Command::new(python);
    command.arg(script).args([prompt.trim(), &N.to_string()]).args(dirs.iter().map(|dir| folder.path(dir)));
    let run = folder.finish(command, b"");
    assert!(run.ok, "{}", run.stderr);
    let theirs = parse(&run.stdout);
    let mut stopped = 0;
    for (dir, theirs) in dirs.iter().zip(theirs.as_array().unwrap()) {
        let theirs: Vec<u64> = theirs.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        let (ours, finish) = write(dir);
        // Their text holds the token that ended it.
        match &*finish {
            "eot" => assert_eq!(ours, theirs[..theirs.len() - 1], "{dir}"),
            _ => assert_eq!((ours, N), (theirs.clone(), theirs.len()), "{dir}"),
        }
        stopped += usize::from(finish == "eot");
    }
    assert!(stopped >= 5, "{stopped}");
}
