//! Adapters through the real binary: `--adapter` wherever a model runs, `gpt2 merge`, and what is refused.

mod common;

use std::fs;

use common::{Folder, TINY, assistant, text};
use models::{Gpt2, LoraConfig};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A model `m`, and an adapter `ad` that changes what it computes.
fn adapted(settings: &str) -> Folder {
    let folder = Folder::new();
    folder.write("a.txt", text());
    folder.write("b.txt", &text()[..1000]);
    folder.succeeds(&format!("train --data a.txt --tokenizer char {TINY} --max-steps 20 --out m"));
    add(&folder, settings, "ad");
    folder
}

fn add(folder: &Folder, settings: &str, dir: &str) {
    let mut model = Gpt2::load(&folder.path("m")).unwrap();
    model.add_lora(&settings.parse::<LoraConfig>().unwrap(), 1).unwrap();
    for (name, tensor) in model.trainable_mut() {
        if name.contains("lora_") {
            tensor.data_mut().iter_mut().enumerate().for_each(|(i, x)| *x += 0.4 * (i as f32).sin());
        }
    }
    model.save_adapter(&folder.path(dir), "m").unwrap();
}

#[test]
fn models_run_with_their_adapter_and_merged() {
    let folder = adapted("r=3,alpha=12,targets=all-linear");
    let loss = |args: &str| {
        json(&folder.succeeds(&format!("eval --data b.txt --json {args}")))["loss"].as_f64().unwrap()
    };
    let write = |args: &str| folder.succeeds(&format!("generate -n 12 --seed 1 -p Once {args}"));
    let plain = loss("-m m");
    let with = loss("-m m --adapter ad");
    assert!((with - plain).abs() > 0.05, "{with} and {plain}");
    // An adapter in the place of the model names it.
    assert_eq!(loss("-m ad"), with);
    assert_eq!(write("-m ad"), write("-m m --adapter ad"));
    let merged = json(&folder.succeeds("merge -m m --adapter ad --out merged --json"));
    assert!(merged["mean_logit_difference_of_spread"].as_f64().unwrap() < 1e-5, "{merged}");
    assert!((loss("-m merged") - with).abs() < 1e-5);
    assert_eq!(write("-m merged --temperature 0"), write("-m ad --temperature 0"));
    assert_eq!(folder.read("m/tokenizer.json"), folder.read("merged/tokenizer.json"));
    for (dtype, most) in [("f32", 0.0), ("f16", 0.02), ("bf16", 0.05), ("q8", 0.05), ("q4", 0.4)] {
        let loss = loss(&format!("-m m --adapter ad --dtype {dtype}"));
        assert!((loss - with).abs() <= most, "{dtype}: {loss}, not {with}");
    }
    // Commands that write a model merge first.
    folder.succeeds("quantize -m m --adapter ad --to f32 --out wide");
    assert_eq!(loss("-m wide"), loss("-m merged"));
    folder.succeeds("convert ad plain --to hf");
    assert_eq!(loss("-m plain"), loss("-m merged"));
    let shown = json(&folder.succeeds("show -m ad --json"));
    assert_eq!((&shown["adapter"]["r"], &shown["adapter"]["alpha"]), (&3.into(), &12.0.into()));
    assert!(folder.succeeds("show -m m --adapter ad").contains("rank 3, alpha 12, beside attn.c_attn"));
    assert!(json(&folder.succeeds("show -m m --json"))["adapter"].is_null());
}

#[test]
fn many_at_once_and_guesses_give_the_same_texts() {
    let folder = adapted("r=3,alpha=12,targets=c_attn+c_proj");
    folder.write("p.jsonl", "{\"prompt\": \"Once\"}\n{\"prompt\": \"The fox\"}\n{\"prompt\": \"早上\"}\n");
    let texts = |name: &str, flags: &str| {
        folder.succeeds(&format!("generate -m ad -n 10 --seed 4 --input p.jsonl --output {name} {flags}"));
        folder.read(name)
    };
    let want = texts("one.jsonl", "--batch 1 --threads 1");
    let text = |lines: &str| lines.lines().map(|line| json(line)["text"].clone()).collect::<Vec<_>>();
    assert_eq!(text(&texts("three.jsonl", "--batch 3 --threads 2")), text(&want));
    let write = |flags: &str| folder.succeeds(&format!("generate -m ad -n 12 --seed 1 -p Once {flags}"));
    assert_eq!(write("--lookup 0"), write("--lookup 8"));
}

#[test]
fn a_tokenizer_beside_the_adapter_wins() {
    let folder = adapted("r=2,embeddings=true");
    // The same tokens, with a chat template of their own.
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(folder.path(&format!("m/{name}")), folder.path(&format!("ad/{name}"))).unwrap();
    }
    let mut config = json(&folder.read("ad/tokenizer_config.json"));
    config["chat_template"] = "{{ messages }}".into();
    folder.write("ad/tokenizer_config.json", config.to_string());
    assert_eq!(json(&folder.succeeds("show -m ad --json"))["chat_template"], "{{ messages }}");
    folder.succeeds("merge -m ad --out merged");
    assert_eq!(folder.read("merged/tokenizer_config.json"), folder.read("ad/tokenizer_config.json"));
    folder.succeeds("quantize -m ad --to q8 --out q8");
    assert_eq!(folder.read("q8/tokenizer_config.json"), folder.read("ad/tokenizer_config.json"));
}

#[test]
fn what_does_not_go_together_is_refused() {
    let folder = adapted("r=2");
    folder.fails("generate -m m --adapter nowhere", &["--adapter nowhere", "no such directory"]);
    folder.fails("generate -m m --adapter m", &["adapter_config.json", "missing"]);
    folder.fails("merge -m m --out x", &["m is no adapter", "--adapter DIR"]);
    folder.succeeds("quantize -m m --to q8 --out q8");
    folder.fails("eval -m q8 --adapter ad --data b.txt", &["type q8", "--dtype"]);
    folder.fails("merge -m q8 --adapter ad --out x", &["type q8"]);
    // A model of another width.
    let wide = TINY.replace("--n-embd 16", "--n-embd 24");
    folder.succeeds(&format!("train --data a.txt --tokenizer char {wide} --max-steps 1 --out wide"));
    let parts = ["ad", "h.0.attn.c_attn.lora_A.weight", "[2, 16]", "[2, 24]", "another model"];
    folder.fails("generate -m wide --adapter ad", &parts);
    // Places that are taken.
    folder.fails("merge -m ad --out m", &["--out m", "choose another"]);
    folder.fails("merge -m ad --out ad", &["where the model or its adapter lies"]);
    folder.fails("merge -m ad --out wide", &["training run"]);
    folder.succeeds("merge -m ad --out merged");
    folder.fails("merge -m ad --out merged", &["already holds a model", "--force"]);
    folder.succeeds("merge -m ad --out merged --force");
    folder.fails("merge -m ad --out a.txt", &["a.txt is a file"]);
    folder.fails("quantize -m ad --to q8 --out ad", &["adapter itself"]);
    // A base that is not there.
    let config = folder.read("ad/adapter_config.json");
    folder.write("ad/adapter_config.json", config.replace("\"m\"", "\"/no/such/base\""));
    folder.fails("generate -m ad", &["/no/such/base", "-m MODEL --adapter ad"]);
    folder.succeeds("generate -m m --adapter ad -n 3");
    folder.write("ad/adapter_config.json", config.replace("\"m\"", "null"));
    folder.fails("generate -m ad", &["does not say of which model", "-m MODEL --adapter ad"]);
    let dora = config.replace("\"use_dora\": false", "\"use_dora\": true");
    folder.write("ad/adapter_config.json", dora);
    folder.fails("generate -m m --adapter ad", &["use_dora", "DoRA"]);
    let leftovers = fs::read_dir(folder.path("."))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(".part"));
    assert_eq!(leftovers.count(), 0, "nothing half made is left");
}

#[test]
fn training_an_adapter_is_measured() {
    let folder = Folder::new();
    let shape = "--n-layer 2 --n-head 2 --n-embd 32 --vocab 65 --batch 2 --seq 16 --steps 2 --json";
    let trained = |flags: &str| json(&folder.succeeds(&format!("bench train {shape} {flags}")));
    let (all, adapter) = (trained(""), trained("--lora r=2,alpha=4,targets=c_attn+c_fc"));
    assert_eq!(adapter["parameters"], 2 * (2 * (32 + 96) + 2 * (32 + 128)));
    assert!(all["parameters"].as_u64() > adapter["parameters"].as_u64());
    assert!(adapter["loss"].as_f64().unwrap() > 0.0);
    folder.fails(&format!("bench train {shape} --lora r=2,targets=q_proj"), &["q_proj", "attn.c_attn"]);
    let typed = folder.run(&format!("bench train {shape} --lora rank=2"));
    assert!(!typed.ok && typed.stderr.contains("one of r, alpha"), "{}", typed.stderr);
}

/// The small assistant `m`, and an adapter `ad` with which it has learnt to say other things: in words that `m` knows, since
/// beside a frozen table no token can become likely that never was.
fn taught(lora: &str) -> Folder {
    let folder = Folder::new();
    assistant::train(&folder);
    let line = |(asked, answer): (&str, &str)| {
        serde_json::json!({ "prompt": asked, "completion": answer }).to_string() + "\n"
    };
    folder.write(
        "other.jsonl",
        [("hello", "a red fox"), ("你好", "一只狐狸"), ("who are you", "good morning")].map(line).concat(),
    );
    folder.succeeds(&format!(
        "finetune -m m --data other.jsonl --val-fraction 0 --lora {lora} --lr 0.01 --max-steps 300 --batch 3 --seed 1 --out ad"
    ));
    folder
}

#[test]
fn applications_talk_with_adapters() {
    for (lora, has_chatml) in
        [("r=8,targets=all-linear", false), ("r=8,targets=all-linear,embeddings=true", true)]
    {
        let folder = taught(lora);
        let plain = folder.succeeds("chat -m m --no-history --temperature 0 -p hello");
        assert_eq!(plain, "good morning\n");
        for model in ["-m m --adapter ad", "-m ad"] {
            let chat = folder
                .run_with_input(&format!("chat {model} --no-history --temperature 0"), "hello\n".as_bytes());
            assert_eq!((chat.stdout.as_str(), chat.ok), ("a red fox\n", true), "{lora}: {}", chat.stderr);
            let chat = folder.run(&format!("chat {model} --no-history --temperature 0 -p 你好"));
            assert_eq!(chat.stdout, "一只狐狸\n", "{lora}: {}", chat.stderr);
            // The template that lies beside the adapter is the one that it has learnt.
            assert!(!chat.stderr.contains("no chat template"), "{}", chat.stderr);
            let asked = folder.succeeds(&format!("generate {model} --temperature 0 --chat -p hello"));
            assert_eq!(asked, "a red fox\n");
        }
        let show = json(&folder.succeeds("show -m ad --json"));
        let template = show["chat_template"].as_str().unwrap();
        assert_eq!(template.contains("im_start"), has_chatml, "{template}");
    }
}

#[test]
fn applications_write_and_summarize_with_adapters() {
    let folder = taught("r=8,targets=all-linear");
    let recipe = "about = 'A word'\n[[step]]\nname = 'word'\nprompt = 'Word: '\nask = '{topic}'\ntemperature = 0.0\nretries = 0\n";
    folder.write("word.toml", recipe);
    folder.write("topics.csv", "topic\nhello\n你好\n");
    let write = |args: &str| json(&folder.succeeds(&format!("write word.toml --json {args}")));
    let [with, alone] = ["-m m --adapter ad", "-m m"]
        .map(|model| write(&format!("{model} --topic hello"))["steps"][0].clone());
    assert_eq!((&with["text"], &with["chat"]), (&"a red fox".into(), &true.into()));
    assert_eq!(alone["chat"], false, "the base has no template");
    folder.succeeds("write word.toml -m ad --input topics.csv --json --out words.jsonl");
    let words: Vec<Value> =
        folder.read("words.jsonl").lines().map(|line| json(line)["text"].clone()).collect();
    assert_eq!(words, ["a red fox\n", "一只狐狸\n"]);
    // The instruction alone is the text to be summarised: it is answered as the adapter has learnt.
    let summary = |args: &str| {
        json(&folder.succeeds(&format!(
            "summarize --text hello --temperature 0 --instruction {{text}} --json {args}"
        )))["summary"]
            .clone()
    };
    assert_eq!(summary("-m m --adapter ad"), "a red fox");
    assert_eq!(summary("-m ad"), "a red fox");
    assert_eq!(summary("-m m --ask template"), "good morning");
    // What is missing or wrong is told as everywhere.
    for command in ["chat --no-history -p a", "summarize --text a", "write word.toml --topic a"] {
        folder
            .fails(&format!("{command} -m m --adapter nowhere"), &["--adapter nowhere", "no such directory"]);
        folder.fails(&format!("{command} -m m --adapter m"), &["adapter_config.json", "missing"]);
    }
    assert!(folder.run("write --list").ok && folder.run("write --show product").ok);
    assert!(folder.run("write word.toml --topic a").stderr.contains("--model <MODEL>"));
}
