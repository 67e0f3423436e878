//! What must be refused, each with its own message, and nothing lost.

mod common;

use common::{Folder, TINY, text};

fn trained() -> Folder {
    let folder = Folder::new();
    folder.write("a.txt", text());
    folder.succeeds(&format!("train --data a.txt --tokenizer char {TINY} --max-steps 2 --out m"));
    folder
}

#[test]
fn data() {
    let folder = Folder::new();
    folder.write("empty.txt", "");
    folder.write("short.txt", "tiny");
    folder.write("bad.txt", b"fine \xff not");
    folder.write("a.txt", text());
    let train = |rest: &str| format!("train {TINY} --out out {rest}");
    folder.fails(&train(""), &["--data"]);
    folder.fails(&train("--data none.txt"), &["none.txt", "No such file"]);
    folder.fails(&train("--data empty.txt"), &["empty.txt", "no text"]);
    folder.fails(&train("--data short.txt --tokenizer char"), &["needs 17"]);
    folder.fails(&train("--data bad.txt"), &["bad.txt", "byte 5"]);
    folder.fails(&train("--data a.txt=0"), &["positive number"]);
    folder.fails(&train("--data ."), &["gpt2 prepare"]);
    folder.write("empty.json", "");
    folder.write("nothing.json", "[{}]");
    folder.fails(&train("--data empty.json"), &["empty.json", "no text"]);
    folder.fails(&train("--data nothing.json"), &["nothing.json", "the object is empty"]);
    folder.fails(&train("--data a.txt --tokenizer word:99999999"), &["at most 16,777,216"]);
    folder.fails(&train("--data a.txt --encoding klingon"), &["klingon"]);
    folder.fails(&train("--data a.txt --tokenizer bpe:12"), &["too small", "257"]);
    folder.fails(&train("--data a.txt --tokenizer bpe:x"), &["bpe:8000"]);
    folder.fails(&train("--data a.txt --tokenizer nowhere"), &["nowhere", "gpt2", "char", "word:N", "bpe:N"]);
    assert!(!folder.exists("out/model.safetensors"));
}

#[test]
fn shards_of_another_tokenizer() {
    let folder = Folder::new();
    folder.write("a.txt", text());
    folder.write("b.txt", "Quite another text, with quite other pairs. 完全不同的文字。".repeat(80));
    folder.succeeds("prepare --data a.txt --tokenizer bpe:300 --out a");
    folder.succeeds("prepare --data b.txt --tokenizer bpe:300 --out b");
    let fails = |flags: &str, parts: &[&str]| {
        folder.fails(&format!("train {TINY} --max-steps 1 --out out {flags}"), parts);
    };
    let all = ["another tokenizer", "byte-level BPE, 300 tokens", "gpt2 prepare"];
    let with = |more: [&'static str; 2]| [&all[..], &more].concat();
    fails("--data a b", &with(["b was prepared", "in use (a:"]));
    fails("--data a --tokenizer b", &with(["a was prepared", "in use (b:"]));
    fails("--data a --tokenizer gpt2", &with(["a was prepared", "50257 tokens"]));
    fails("--data a.txt --tokenizer bpe:300 --val-data b", &with(["b was prepared", "bpe:300"]));
    folder.succeeds(&format!("train --data a.txt --tokenizer a --val-data a {TINY} --max-steps 1 --out m"));
    folder.fails(
        "train --data b --init m --batch 2 --max-steps 1 --out out",
        &with(["b was prepared", "in use (m:"]),
    );
    // Another tokenizer is noticed when the shards change under a run, too.
    folder.succeeds(&format!("train --data a {TINY} --max-steps 2 --out run"));
    folder.succeeds("prepare --data b.txt --tokenizer bpe:300 --out a --force");
    folder.fails("train --resume --max-steps 3 --out run", &with(["a was prepared", "that of the run"]));
}

#[test]
fn commands_that_need_text_refuse_shards() {
    let folder = trained();
    folder.succeeds("prepare --data a.txt --tokenizer char --out shards");
    for command in
        ["eval -m m --data shards", "tokenizer train --data shards --out t", "tokenizer stats --data shards"]
    {
        folder.fails(command, &["shards", "needs text"]);
    }
}

#[test]
fn tables_overwrite_nothing() {
    let folder = trained();
    folder.write("notes.tsv", "mine");
    let eval = |rest: &str| format!("eval -m m --data a.txt --per-token {rest}");
    folder.fails(&eval("a.txt"), &["a.txt", "the text itself"]);
    folder.fails(&eval("./m/../a.txt --force"), &["the text itself"]);
    folder.fails(&eval("notes.tsv"), &["notes.tsv", "--force"]);
    assert!(folder.read("a.txt") == text() && folder.read("notes.tsv") == "mine");
    folder.succeeds(&eval("notes.tsv --force"));
    assert!(folder.read("notes.tsv").starts_with("position"));
}

/// All of these are found before the data is looked for, which is not there.
#[test]
fn settings_are_checked_first() {
    let folder = Folder::new();
    folder.write("file", "");
    let fails = |flags: &str, parts: &[&str]| folder.fails(&format!("train --data none.txt {flags}"), parts);
    fails("--out out --optimizer lion", &["adamw"]);
    fails("--out out --schedule cosinus", &["cosine"]);
    fails("--out out --schedule step --schedule-per week", &["epoch"]);
    fails("--out out --sequences lines", &["documents"]);
    fails("--out out --n-embd 10 --n-head 3", &["`n_embd` is 10"]);
    fails("--out out --dropout 1.5", &["--dropout 1.5", "below 1"]);
    fails("--out out --epochs 0", &["--epochs 0"]);
    fails("--out out --batch 0", &["--batch"]);
    fails("--out out --clip-norm -1", &[]);
    fails("--out out --init nowhere", &["--init nowhere", "no such directory", "xavier"]);
    fails("--out file", &["--out file"]);
    fails("--out out", &["none.txt"]);
    assert!(!folder.exists("out"), "a run that never began leaves nothing");
    folder.fails("prepare --data none.txt --tokenizer bpe:300 --out file", &["file"]);
}

#[test]
fn settings() {
    let folder = Folder::new();
    folder.write("a.txt", text());
    let fails = |flags: &str, parts: &[&str]| {
        folder.fails(&format!("train --data a.txt --tokenizer char --n-ctx 8 --out out {flags}"), parts);
    };
    fails("--n-embd 10 --n-head 3", &["`n_embd` is 10", "9 or 12"]);
    fails("--n-head 0", &["`n_head` is 0"]);
    fails("--lr nan", &["--lr"]);
    fails("--lr -1", &[]);
    fails("--batch 0", &["--batch"]);
    fails("--grad-accum 0", &["--grad-accum"]);
    fails("--max-steps 0", &["--max-steps"]);
    fails("--dropout 1.5", &["--dropout 1.5", "below 1"]);
    fails("--schedule cosinus", &["cosine"]);
    fails("--optimizer lion", &["adamw"]);
    fails("--val-fraction 1", &["--val-fraction"]);
    fails("--preset gpt5", &["gpt2-medium"]);
    fails("--n-layer 4000 --n-embd 60000 --n-head 1", &["GB of memory"]);
    folder.write("wrong.toml", "learning-rate = 1");
    fails("--config wrong.toml", &["learning-rate", "wrong.toml"]);
    for value in ["nan", "inf", "-inf"] {
        folder.write("wrong.toml", format!("lr = {value}"));
        fails("--config wrong.toml", &["wrong.toml", "--lr"]);
    }
    folder.write("right.toml", "lr = 0.1");
    fails("--config right.toml --lr nan", &["--lr"]);
    folder.fails("quickstart --minutes 1e300 --out q", &["--minutes 1e300", "10000"]);
    let forced = folder.command("tokenizer encode").env("GPT2_ISA", "sse9").output().unwrap();
    assert!(!forced.status.success() && String::from_utf8_lossy(&forced.stderr).contains("sse9"));
}

#[test]
fn prompts() {
    let folder = trained();
    let long = "a".repeat(17);
    folder.fails(&format!("generate -m m -p {long}"), &["17", "16"]);
    folder.fails("generate -m m -p Once -n 13", &["4 tokens", "13", "16"]);
    folder.fails(&format!("generate -m m -p {} -n 3", "a".repeat(16)), &["fill", "16", "shorten"]);
    folder.fails("generate -m m -p Once --min-tokens 10 -n 5", &["--min-tokens 10", "-n 5"]);
    folder.fails("generate -m m -p Once --temperature -1", &[]);
    folder.fails("generate -m m -p Once --temperature nan", &["temperature"]);
    folder.fails("generate -m m -p Once --top-p 0", &["top-p"]);
    folder.fails("generate -m m -p ☃", &["☃", "byte 0"]);
    folder.fails("generate -m m -p Once --samples 0", &["--samples"]);
    folder.fails("generate -m nowhere -p Once", &["nowhere", "no file or directory"]);
    let decoded = folder.run_with_input("tokenizer decode", b"[50257]");
    assert!(
        !decoded.ok && decoded.stderr.contains("50257") && decoded.stderr.contains("50256"),
        "{}",
        decoded.stderr
    );
    assert!(!folder.run_with_input("tokenizer decode", b"[1, -1]").ok);
}

/// What is out of range, what contradicts itself, and what no machine could hold.
#[test]
fn flags_of_generate() {
    let folder = trained();
    let fails = |flags: &str, parts: &[&str]| folder.fails(&format!("generate -m m -p Once {flags}"), parts);
    let most = u64::MAX;
    fails(&format!("-n {most}"), &["context is 16", "at most 12"]);
    fails(&format!("-n {most} --overflow slide --keep {most}"), &["keep at most 12"]);
    fails("-n 30 --overflow slide --keep 13", &["keep at most 12"]);
    fails("--keep 3", &["--keep 3", "--overflow slide"]);
    fails(&format!("-n 3 --beams {most}"), &["GB of memory", "beams"]);
    fails("-n 3 --beams 0", &["at least 1"]);
    fails("-n 3 --beams 2 --samples 3", &["3 texts", "2 beams"]);
    fails("-n 0 --beams 2", &["at least 1"]);
    fails("-n 13 --beams 2", &["at most 12"]);
    for ignored in ["--draft m", "--lookup 2", "--temperature 1", "--top-p 0.5", "--logprobs 1 --json"] {
        fails(&format!("--beams 2 {ignored}"), &["cannot be used with", "--beams"]);
    }
    fails("--beams 2 --stop a", &["--stop-token"]);
    fails("--beams 2 --overflow slide", &["--overflow slide"]);
    fails("--length-penalty 2", &["--beams"]);
    fails("--early-stopping true", &["--beams"]);
    fails("--logprobs 3", &["--json"]);
    fails("--draft m --lookup 0", &["--lookup 0", "--draft"]);
    fails("--draft nowhere", &["nowhere"]);
    fails("--stop-token 99999", &["99999", "vocabulary"]);
    fails("--logit-bias 99999=1", &["99999", "vocabulary"]);
    fails("--logit-bias 5", &["50256=-5"]);
    fails("--logit-bias 5=nan", &["NaN"]);
    folder.write("a.txt", "abcd ".repeat(90));
    folder.succeeds(&format!("train --data a.txt --tokenizer char {TINY} --max-steps 1 --out other"));
    fails("--draft other", &["--draft other", "vocabulary", "same family"]);
    #[cfg(unix)]
    fails("--json-schema /dev/zero", &["/dev/zero has more than"]);
    // What would fail for every prompt of a file is said once, before anything is written.
    folder.write("p.jsonl", "{\"prompt\":\"Once\"}");
    let fails = |flags: &str, parts: &[&str]| {
        folder.fails(&format!("generate -m m --input p.jsonl --output o.jsonl {flags}"), parts);
        assert!(!folder.exists("o.jsonl"), "{flags}");
    };
    fails("--stop-token 99999", &["99999", "vocabulary"]);
    fails("-n 16", &["-n 16", "--overflow slide"]);
    fails("--overflow slide --keep 13", &["--keep 13", "at most 12"]);
    fails("--batch 0", &["--batch 0", "1 to 512"]);
    fails("--batch 513", &["--batch 513", "1 to 512"]);
    fails("--beams 2", &["cannot be used with"]);
    fails("--top-p 0", &["top-p"]);
}

#[test]
fn files_of_prompts() {
    let folder = trained();
    let fails = |lines: &[u8], parts: &[&str]| {
        folder.write("p.jsonl", lines);
        folder.fails("generate -m m --input p.jsonl --output o.jsonl", &[&["p.jsonl"], parts].concat());
        assert!(!folder.exists("o.jsonl"));
    };
    fails(b"", &["no prompts"]);
    fails(b"\n  \r\n", &["no prompts"]);
    fails(b"{\"prompt\":\"Once\"}\n{\"promt\":\"a\"}", &["line 2", "promt"]);
    fails(b"{}", &["line 1", "give either a \"prompt\" or \"messages\""]);
    fails(b"{\"prompt\":5}", &["line 1", "string"]);
    fails(b"{\"prompt\":\"a\",\"seed\":-1}", &["line 1", "-1"]);
    fails(b"{\"prompt\":\"\xff\"}", &["byte 11"]);
    fails(b"Once", &["line 1", "object such as"]);
    let nowhere = "generate -m m --input nowhere.jsonl --output o.jsonl";
    folder.fails(nowhere, &["nowhere.jsonl"]);
    let piped = folder.run_with_input("generate -m m --input - --output o.jsonl", b"{\"prompt\":\"Once\"}");
    assert!(piped.ok && folder.read("o.jsonl").lines().count() == 1, "{}", piped.stderr);
}

#[test]
fn what_a_run_is_made_from_is_not_written_over() {
    let folder = trained();
    let train = format!("train {TINY} --tokenizer char --max-steps 2");
    let whole = std::fs::read(folder.path("m/model.safetensors")).unwrap();
    folder.fails(
        "train --data a.txt --init m --max-steps 2 --out m --force",
        &["m is the model to start from"],
    );
    assert!(std::fs::read(folder.path("m/model.safetensors")).unwrap() == whole);
    std::fs::create_dir(folder.path("mine")).unwrap();
    folder.write("mine/train.toml", "max-steps = 2\n");
    folder.fails(
        "train --config mine/train.toml --data a.txt --tokenizer char --out mine",
        &["mine/train.toml would be written over"],
    );
    assert_eq!(folder.read("mine/train.toml"), "max-steps = 2\n");
    // A resumed run that is refused leaves the recipe as it is.
    folder.succeeds(&format!("{train} --data a.txt --out r"));
    let recipe = folder.read("r/train.toml");
    folder.write("b.txt", text() + "more");
    folder.fails("train --resume --out r --data b.txt --max-steps 4", &["not what this run began with"]);
    folder.fails("train --resume --out r --val-data b.txt --max-steps 4", &["held-out data"]);
    folder.fails("train --resume --out r --max-steps 1", &["has made 2 steps already"]);
    assert_eq!(folder.read("r/train.toml"), recipe);
    folder.succeeds(&format!("{train} --data a.txt=1 b.txt=1 --out w"));
    folder.fails("train --resume --out w --data a.txt=1 b.txt=9 --max-steps 4", &["other weights"]);
    folder.fails("convert m m/tokenizer.json --to pt --force", &["where the model itself lies"]);
    // A model's tokenizer is not replaced by that of shards.
    folder.fails("prepare --data a.txt --tokenizer gpt2 --out m", &["holds a model"]);
    folder.succeeds("prepare --data a.txt --tokenizer gpt2 --out shards");
    folder.fails("prepare --data a.txt --tokenizer gpt2 --out shards", &["prepared data"]);
    folder.write("ideas.csv", "topic\na bridge\n");
    folder.fails("write story -m m --input ideas.csv --out ideas.csv --json --force", &["holds the ideas"]);
}

#[test]
fn a_file_of_prompts_is_gone_on_with_by_the_same_flags_and_model() {
    let folder = trained();
    folder.write("p.jsonl", "{\"prompt\": \"Once\"}\n{\"prompt\": \"The\"}\n");
    let generate = "generate --input p.jsonl --output o.jsonl --seed 1 -n 3 -m";
    folder.succeeds(&format!("{generate} m"));
    let whole = folder.read("o.jsonl");
    let first = whole.lines().next().unwrap().to_owned() + "\n";
    folder.write("o.jsonl", &first);
    folder.succeeds(&format!("train --data a.txt --tokenizer char {TINY} --max-steps 3 --out other"));
    for rest in ["m --temperature 0", "m --top-k 3", "m --dtype bf16", "other"] {
        folder.fails(&format!("{generate} {rest}"), &["another model or other flags"]);
        assert_eq!(folder.read("o.jsonl"), first, "{rest}");
    }
    folder.succeeds(&format!("{generate} m --batch 1"));
    let untimed = |text: String| {
        text.lines().map(|line| line.split_once("\"timings\"").unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(untimed(folder.read("o.jsonl")), untimed(whole));
}

#[cfg(unix)]
#[test]
fn links_stay_links() {
    let folder = trained();
    let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, folder.path(at)).unwrap();
    let is_link = |at: &str| folder.path(at).symlink_metadata().unwrap().is_symlink();
    link("behind.pt", "link.pt");
    folder.succeeds("convert m link.pt --to pt");
    folder.succeeds("convert m link.pt --to pt --force");
    assert!(is_link("link.pt") && folder.path("behind.pt").is_file());
    std::fs::create_dir(folder.path("volume")).unwrap();
    link("volume", "data");
    folder.succeeds("quantize -m m --to q8 --out data");
    assert!(is_link("data") && folder.exists("volume/model.safetensors"));
    // A directory that is there can be filled from within.
    std::fs::create_dir(folder.path("here")).unwrap();
    let mut inside = folder.command("quantize -m ../m --to q8 --out .");
    inside.current_dir(folder.path("here"));
    assert!(folder.finish(inside, b"").ok && folder.exists("here/model.safetensors"));
    let left = std::fs::read_dir(folder.path("here")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_str().unwrap().starts_with('.')));
}

#[test]
fn benches_of_inference() {
    let folder = trained();
    let fails = |flags: &str, parts: &[&str]| folder.fails(&format!("bench infer -m m {flags}"), parts);
    fails("--repeat 0", &["--repeat 0"]);
    fails("--batches 0", &["1 to 512"]);
    fails(&format!("--batches {}", u64::MAX), &["1 to 512"]);
    fails("--only tg128", &["context is 16", "256"]);
    fails("", &["context is 16", "512", "--only tg128,batch"]);
    fails("--preset gpt2", &["--preset"]);
    folder.fails("bench infer --preset gpt5", &["gpt2-medium"]);
}

#[test]
fn hostile_model_files() {
    let folder = trained();
    let path = folder.path("m/model.safetensors");
    let good = std::fs::read(&path).unwrap();
    let config = folder.read("m/config.json");
    let mut huge_header = good.clone();
    huge_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut one_nan = good.clone();
    let end = one_nan.len();
    one_nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    for damage in [&good[..good.len() / 2], &good[..7], &[], &huge_header] {
        std::fs::write(&path, damage).unwrap();
        folder.fails("generate -m m -p Once", &["safetensors"]);
    }
    std::fs::write(&path, &one_nan).unwrap();
    folder.fails("eval -m m --data a.txt", &["damaged"]);
    // Matrices that are computed from where they lie are looked through once something is wrong.
    let matrix = model_with_nan(&good, "transformer.h.0.mlp.c_proj.weight");
    std::fs::write(&path, &matrix).unwrap();
    for command in ["eval -m m --data a.txt", "generate -m m -p Once", "generate -m m -p Once --json"] {
        folder.fails(command, &["`h.0.mlp.c_proj.weight`", "NaN", "damaged"]);
    }
    std::fs::write(&path, &good).unwrap();
    let changes = [
        ("\"n_embd\": 16", "\"n_embd\": 18", "shape"),
        ("\"n_layer\": 1", "\"n_layer\": 2", "missing"),
        ("\"n_layer\": 1", "\"n_layer\": 99999999999", "n_layer"),
        ("\"n_embd\": 16", "\"n_embd\": -16", "n_embd"),
        ("gelu_new", "xielu", "activation_function"),
        ("\"scale_attn_weights\": true", "\"scale_attn_weights\": 1", "scale_attn_weights"),
        ("{", "", "m/config.json"),
    ];
    for (from, to, want) in changes {
        folder.write("m/config.json", config.replacen(from, to, 1));
        folder.fails("generate -m m -p Once", &[want]);
    }
    folder.write("m/config.json", &config);
    folder.succeeds("generate -m m -p Once -n 2");
    folder.write("m/tokenizer.json", "{\"model\": {\"vocab\": {\"a\": 0, \"b\": 7}}}");
    folder.fails("generate -m m -p Once", &["tokenizer.json"]);
}

/// A safetensors file with NaN as the first number of a tensor.
fn model_with_nan(file: &[u8], tensor: &str) -> Vec<u8> {
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
    let start = 8 + header + json[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    let mut file = file.to_vec();
    file[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    file
}

#[test]
fn conversions_that_cannot_be_checked_leave_nothing() {
    let folder = Folder::new();
    folder.write("a.txt", text());
    folder.succeeds(&format!("train --out m --data a.txt --tokenizer bpe:300 --max-steps 1 {TINY}"));
    let weights = folder.path("m/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].chunks_exact_mut(4).for_each(|value| value.copy_from_slice(&1e30f32.to_le_bytes()));
    std::fs::write(&weights, bytes).unwrap();
    folder.fails("convert m new.gguf --to gguf", &["logits that are not numbers", "nothing is kept"]);
    let left: Vec<_> = std::fs::read_dir(folder.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    #[cfg(unix)]
    folder.fails("convert m /dev/null --to gguf --force", &["/dev/null", "no file that could be replaced"]);
}

/// What a file says of itself must not steer the terminal.
#[cfg(unix)]
#[test]
fn escapes_are_shown_and_not_obeyed() {
    let folder = Folder::new();
    folder.write("a.txt", text());
    folder.succeeds(&format!("train --out m --data a.txt --tokenizer bpe:300 --max-steps 1 {TINY}"));
    // The file's name becomes the model's.
    folder.succeeds("convert m \u{1b}[31mred.gguf --to gguf");
    std::fs::rename(folder.path("\u{1b}[31mred.gguf"), folder.path("red.gguf")).unwrap();
    let shown = folder.succeeds("show -m red.gguf");
    assert!(shown.contains("name           \\u{1b}[31mred") && !shown.contains('\u{1b}'), "{shown}");
    folder.write("red.pt", b"\x80\x02c\x1b[31mos\nsystem\n.");
    folder.fails("show -m red.pt", &["`\\u{1b}[31mos.system`", "nothing was executed"]);
}
