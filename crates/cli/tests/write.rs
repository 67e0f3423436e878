//! `gpt2 write`: documents by recipes, in English and Chinese, one and many.

mod common;

use std::sync::LazyLock;

use common::{Folder, TINY, text};
use serde_json::Value;

/// A recipe of two steps, the second of which uses the first.
const PAIR: &str = r#"
about = { en = "A title and a text", zh = "题目和文字" }
[inputs.tone]
about = "How it sounds"
default = { en = "plain", zh = "平实" }
[[step]]
name = "title"
prompt = { en = "About {topic}, {tone}\nTitle:", zh = "关于{topic}，{tone}\n题目：" }
end = "line"
max-tokens = 12
retries = 1
keep = "heading 1"
[[step]]
name = "body"
prompt = { en = "{title}\n\n", zh = "{title}\n\n" }
begin = { en = "Once upon a time", zh = "从前" }
max-tokens = 30
min-tokens = 10
retries = 1
drop-unfinished = true
"#;

/// A folder with a model `m` that has learnt a little, and the recipe `pair.toml`. The model is trained once.
fn folder() -> Folder {
    static TRAINED: LazyLock<Folder> = LazyLock::new(|| {
        let folder = Folder::new();
        folder.write("a.txt", text().repeat(4));
        let long = TINY.replace("--n-ctx 16", "--n-ctx 2048").replace("--batch 4", "--batch 1");
        let train = format!("train --data a.txt --tokenizer bpe:300 {long} --lr 0.01 --max-steps 30 --out m");
        folder.succeeds(&train);
        folder
    });
    let folder = Folder::new();
    std::fs::create_dir(folder.path("m")).unwrap();
    for entry in std::fs::read_dir(TRAINED.path("m")).unwrap() {
        let from = entry.unwrap().path();
        if from.is_file() {
            std::fs::copy(&from, folder.path("m").join(from.file_name().unwrap())).unwrap();
        }
    }
    folder.write("pair.toml", PAIR);
    folder
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn one(folder: &Folder, args: &str) -> Value {
    lines(&folder.succeeds(&format!("write {args} -m m --json"))).remove(0)
}

#[test]
fn steps_feed_each_other_and_are_told() {
    let folder = folder();
    for (topic, lang, prompt) in
        [("fox", "en", "About fox, plain\nTitle:"), ("狐狸", "zh", "关于狐狸，平实\n题目：")]
    {
        let got = one(&folder, &format!("pair.toml --topic {topic} --seed 5"));
        assert_eq!((&got["recipe"], &got["lang"], &got["seed"]), (&"pair".into(), &lang.into(), &5.into()));
        assert_eq!(got["inputs"]["topic"], topic);
        let [title, body] = &got["steps"].as_array().unwrap()[..] else { panic!("{got}") };
        assert_eq!((&title["prompt"], &title["chat"]), (&prompt.into(), &false.into()));
        assert_eq!(body["prompt"].as_str().unwrap(), format!("{}\n\n", title["text"].as_str().unwrap()));
        let text = body["text"].as_str().unwrap();
        assert!(text.starts_with(if lang == "en" { "Once upon a time" } else { "从前" }), "{text}");
        let heading = title["text"].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(got["text"].as_str().unwrap(), format!("# {heading}\n\n{text}\n"));
        for step in [title, body] {
            let attempts = step["attempts"].as_array().unwrap();
            let kept = &attempts[step["kept"].as_u64().unwrap() as usize];
            assert_eq!(
                (&kept["text"], step["passed"] == true),
                (&step["text"], kept["failed"] == serde_json::json!([]))
            );
            assert!(kept["tokens"].as_u64().unwrap() <= step["max_tokens"].as_u64().unwrap());
            assert!(kept["mean_logprob"].as_f64().is_none_or(|mean| mean < 0.0));
        }
        // The same as Markdown, on one thread; another text for another seed.
        let shown = folder.succeeds(&format!("write pair.toml -m m --topic {topic} --seed 5 --threads 1"));
        assert_eq!(shown, got["text"].as_str().unwrap());
        assert_ne!(one(&folder, &format!("pair.toml --topic {topic} --seed 6"))["text"], got["text"]);
        let other = if lang == "en" { "zh" } else { "en" };
        assert_eq!(one(&folder, &format!("pair.toml --topic {topic} --lang {other}"))["lang"], other);
    }
    let toned = one(&folder, "pair.toml --topic fox --var tone=merry");
    assert_eq!(toned["steps"][0]["prompt"], "About fox, merry\nTitle:");
}

/// An attempt is what `gpt2 generate` writes for its prompt and seed, and its mean log-probability is that of its tokens.
#[test]
fn attempts_can_be_written_again() {
    let folder = folder();
    let got = one(&folder, "pair.toml --topic fox --seed 5 --best-of 3");
    let body = &got["steps"][1];
    let prompt = format!("{}Once upon a time", body["prompt"].as_str().unwrap());
    for attempt in body["attempts"].as_array().unwrap() {
        let seed = &attempt["seed"];
        let write = format!("generate -m m -f - --seed {seed} -n 30 --min-tokens 10 --json --logprobs 0");
        let again = &lines(&folder.run_with_input(&write, prompt.as_bytes()).stdout)[0];
        let (whole, text) = (again["text"].as_str().unwrap(), attempt["text"].as_str().unwrap());
        assert!(format!("Once upon a time{whole}").starts_with(text), "{text}\n{whole}");
        let n = attempt["tokens"].as_u64().unwrap() as usize;
        let logprobs = again["logprobs"].as_array().unwrap()[..n].iter();
        let mean = logprobs.map(|token| token["logprob"].as_f64().unwrap()).sum::<f64>() / n as f64;
        assert!(n > 0 && (mean - attempt["mean_logprob"].as_f64().unwrap()).abs() < 1e-6, "{mean} {attempt}");
    }
}

#[test]
fn the_most_likely_of_those_that_pass_is_kept() {
    let folder = folder();
    let got = one(&folder, "pair.toml --topic fox --seed 1 --best-of 6 --set title.check.one-line=true");
    for step in got["steps"].as_array().unwrap() {
        let attempts = step["attempts"].as_array().unwrap();
        let rank = |attempt: &Value| {
            let failed = attempt["failed"].as_array().unwrap().len();
            (std::cmp::Reverse(failed), attempt["mean_logprob"].as_f64().unwrap_or(f64::NEG_INFINITY))
        };
        let kept = rank(&attempts[step["kept"].as_u64().unwrap() as usize]);
        assert!(attempts.len().is_multiple_of(6), "{step}");
        assert!(attempts.iter().all(|attempt| rank(attempt) <= kept), "{step}");
    }
    // The first candidate is the one that is written alone.
    let alone = one(&folder, "pair.toml --topic fox --seed 1");
    assert_eq!(alone["steps"][0]["attempts"][0]["text"], got["steps"][0]["attempts"][0]["text"]);
}

#[test]
fn what_passes_no_check_is_kept_with_a_warning() {
    let folder = folder();
    folder.write(
        "no.toml",
        PAIR.replace("end = \"line\"", "end = \"line\"\nmin = 99\ncheck = { contains = ['{topic}!'] }"),
    );
    let finished = folder.run("write no.toml -m m --topic fox --seed 2 --json --set title.retries=3");
    assert!(finished.ok);
    let got = &lines(&finished.stdout)[0];
    let title = &got["steps"][0];
    assert_eq!((title["attempts"].as_array().unwrap().len(), &title["passed"]), (4, &false.into()));
    let seeds: std::collections::BTreeSet<_> =
        title["attempts"].as_array().unwrap().iter().map(|attempt| attempt["seed"].as_u64()).collect();
    assert_eq!(seeds.len(), 4, "each attempt has a seed of its own");
    let warning = "step `title`: no text of 4 passes its checks; the best one fails ";
    assert!(got["warnings"][0].as_str().unwrap().starts_with(warning), "{got}");
    for part in ["min (", "contains (it does not say \"fox!\")"] {
        assert!(got["warnings"][0].as_str().unwrap().contains(part), "{got}");
    }
    // Of bytes that are no character it is told, whatever the recipe asks for, and the text is tried again.
    for attempt in title["attempts"].as_array().unwrap() {
        let fails =
            attempt["failed"].as_array().unwrap().iter().any(|one| one["check"] == "whole-characters");
        assert_eq!(fails, attempt["text"].as_str().unwrap().contains('\u{fffd}'), "{attempt}");
    }
    assert!(finished.stderr.contains(warning), "{}", finished.stderr);
    // A check that most texts pass needs fewer.
    let easy =
        one(&folder, "pair.toml --topic fox --seed 2 --set title.retries=3 --set title.max-tokens=300");
    assert!(easy["steps"][0]["attempts"].as_array().unwrap().len() <= 4);
}

const IDEAS: &str =
    "topic,tone,seed,lang\nfox,merry,11,\n\"a fox, \"\"red\"\"\",,,\n狐狸,活泼,7,\nowl,,,zh\ntea,dry,3,en\n";

#[test]
fn a_document_among_many_is_the_document_alone() {
    let folder = folder();
    folder.write("ideas.csv", IDEAS);
    let alone: Vec<Value> = [
        ("fox", "--var tone=merry --seed 11"),
        ("", "--seed 101"),
        ("狐狸", "--var tone=活泼 --seed 7"),
        ("owl", "--lang zh --seed 103"),
        ("tea", "--var tone=dry --lang en --seed 3"),
    ]
    .map(|(topic, more)| {
        let mut command = folder.command(&format!("write pair.toml -m m --json {more} --best-of 2 --topic"));
        command.arg(if topic.is_empty() { "a fox, \"red\"" } else { topic });
        let finished = folder.finish(command, b"");
        assert!(finished.ok, "{}", finished.stderr);
        lines(&finished.stdout).remove(0)
    })
    .into();
    for batch in [1, 3, 8] {
        let write =
            format!("write pair.toml -m m --input ideas.csv --json --seed 100 --best-of 2 --batch {batch}");
        let mut got = lines(&folder.succeeds(&write));
        for (k, (line, alone)) in got.iter_mut().zip(&alone).enumerate() {
            let line = line.as_object_mut().unwrap();
            assert_eq!(line.remove("index"), Some(k.into()));
            // The version tells the settings, of which the language is one.
            line.insert("version".into(), alone["version"].clone());
            assert_eq!(&Value::Object(line.clone()), alone, "batches of {batch}");
        }
        assert_eq!(got.len(), 5);
        folder.succeeds(&format!("{write} --out {batch}.jsonl"));
    }
    assert_eq!(folder.read("1.jsonl"), folder.read("8.jsonl"));
    // The same from tabs and from JSON.
    folder.write("t.tsv", "\u{feff}topic\ttone\nfox\tmerry\n");
    folder.write("t.jsonl", "{\"topic\": \"fox\", \"tone\": \"merry\"}\n\n");
    let [tsv, jsonl] = ["t.tsv", "t.jsonl"].map(|file| {
        folder.succeeds(&format!("write pair.toml -m m --input {file} --json --seed 11 --best-of 2"))
    });
    assert_eq!((&tsv, &lines(&tsv)[0]["text"]), (&jsonl, &alone[0]["text"]));
}

#[test]
fn many_documents_are_gone_on_with() {
    let folder = folder();
    folder.write("ideas.csv", IDEAS);
    let write = "write pair.toml -m m --input ideas.csv";
    folder.succeeds(&format!("{write} --seed 4 --out all"));
    let names: Vec<String> = lines(&folder.read("all/index.jsonl"))
        .iter()
        .map(|line| line["file"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["0001-fox.md", "0002-a-fox-red.md", "0003-狐狸.md", "0004-owl.md", "0005-tea.md"]);
    let index = folder.read("all/index.jsonl");
    let all = || names.iter().map(|name| folder.read(&format!("all/{name}"))).collect::<Vec<_>>();
    let docs = all();
    assert!(docs.iter().all(|doc| doc.starts_with("# ")));
    // Killed after the second document was written, but not yet told; and within a line.
    let (first, rest) = index.split_once('\n').unwrap();
    for begun in ["", &rest[..9]] {
        folder.write("all/index.jsonl", format!("{first}\n{begun}"));
        names[2..].iter().for_each(|name| std::fs::remove_file(folder.path(&format!("all/{name}"))).unwrap());
        let finished = folder.run(&format!("{write} --out all --seed 4"));
        assert!(finished.ok && finished.stderr.contains("1 of 5 are there already"), "{}", finished.stderr);
        assert_eq!(folder.read("all/index.jsonl"), index);
        assert_eq!(all(), docs);
    }
    // Other settings, other ideas and texts of others are not written over.
    folder.fails(
        &format!("{write} --out all --seed 4 --temperature 0.5"),
        &["line 1", "is not what this recipe"],
    );
    folder.fails(&format!("{write} --out all --seed 5"), &["was begun with --seed 4"]);
    folder.write("all/index.jsonl", format!("{first}\n"));
    folder.fails(&format!("{write} --out all --seed 4"), &["0003-狐狸.md is there already", "--force"]);
    names[2..].iter().for_each(|name| std::fs::remove_file(folder.path(&format!("all/{name}"))).unwrap());
    folder.write("all/0002-a-fox-red.md", "mine");
    folder.fails(
        &format!("{write} --out all --seed 4"),
        &["0002-a-fox-red.md is there already, and is another text"],
    );
    assert_eq!(folder.read("all/0002-a-fox-red.md"), "mine");
    folder.succeeds(&format!("{write} --out all --seed 4 --force"));
    assert_eq!(folder.read("all/0002-a-fox-red.md"), docs[1]);
}

#[test]
fn a_document_that_does_not_fit_is_told_in_its_line() {
    let folder = folder();
    let long = "fox ".repeat(3000);
    folder.write(
        "ideas.jsonl",
        format!("{{\"topic\": \"fox\"}}\n{{\"topic\": \"{long}\"}}\n{{\"topic\": \"owl\"}}\n"),
    );
    let finished = folder.run("write pair.toml -m m --input ideas.jsonl --json --seed 1");
    let got = lines(&finished.stdout);
    assert!(finished.ok && got.len() == 3 && got[0]["text"].is_string() && got[2]["text"].is_string());
    assert!(got[1]["error"].as_str().unwrap().contains("step `title`: its prompt has"), "{}", got[1]);
    assert!(finished.stderr.contains("1 documents could not be written"), "{}", finished.stderr);
}

#[test]
fn all_recipes_that_come_along_write_in_both_languages() {
    let folder = folder();
    let names: Vec<String> = lines(&folder.succeeds("write --list --json"))
        .iter()
        .map(|line| line["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 7);
    for name in names {
        for (topic, lang) in [("fox", "en"), ("狐狸", "zh")] {
            let got =
                one(&folder, &format!("{name} --topic {topic} --seed 1 --retries 0 --set *.max-tokens=6"));
            assert_eq!(got["lang"], lang, "{name}");
            let prompt = got["steps"][0]["prompt"].as_str().unwrap();
            assert!(prompt.contains(topic) && !prompt.contains(['{', '}']), "{name}: {prompt}");
        }
    }
}

#[test]
fn recipes_of_ones_own_have_names() {
    let folder = folder();
    let run = |args: &str| {
        let mut command = folder.command(args);
        command.env("XDG_CONFIG_HOME", folder.path("config"));
        folder.finish(command, b"")
    };
    std::fs::create_dir_all(folder.path("config/gpt2/recipes")).unwrap();
    folder.write("config/gpt2/recipes/mine.toml", PAIR);
    folder.write("config/gpt2/recipes/bad.toml", "about = 1");
    let list = run("write --list").stdout;
    assert!(list.contains("mine") && list.contains("A title and a text (yours)"), "{list}");
    assert!(list.contains("cannot be used: line 1: "), "{list}");
    let got = run("write mine -m m --topic fox --json");
    assert!(got.ok && lines(&got.stdout)[0]["recipe"] == "mine", "{}", got.stderr);
    assert_eq!(run("write --show mine").stdout.trim(), PAIR.trim());
    let product = run("write --show product").stdout;
    folder.write("config/gpt2/recipes/product.toml", product.replace("bullet points", "points of mine"));
    assert!(run("write --list").stdout.contains("points of mine"), "one's own wins");
}

#[test]
fn files_are_whole_and_not_written_over() {
    let folder = folder();
    let write = "write pair.toml -m m --topic fox --seed 5";
    let shown = folder.succeeds(write);
    folder.succeeds(&format!("{write} --out fox.md"));
    assert_eq!(folder.read("fox.md"), shown);
    folder.fails(&format!("{write} --out fox.md --temperature 0.5"), &["fox.md is there already", "--force"]);
    folder.succeeds(&format!("{write} --out fox.md --force --json"));
    assert_eq!(lines(&folder.read("fox.md"))[0]["text"], shown);
    std::fs::create_dir(folder.path("dir")).unwrap();
    folder.fails(&format!("{write} --out dir"), &["this is a directory"]);
    folder.fails(&format!("{write} --out none/fox.md"), &["cannot write none/fox.md"]);
}

#[test]
fn bad_recipes_and_flags() {
    let folder = folder();
    let write = "write pair.toml -m m --topic fox";
    folder.fails("write prduct -m m --topic fox", &["no recipe prduct", "did you mean product?"]);
    folder.fails("write zzzz -m m --topic fox", &["no recipe zzzz", "headline-article"]);
    folder.fails("write none.toml -m m --topic fox", &["cannot read none.toml"]);
    folder.fails(
        "write pair -m m --topic fox",
        &["no recipe pair", "a file pair.toml is here", "give that as pair.toml"],
    );
    folder.fails("write --dtype q8 --show product", &["--model"]);
    folder.fails("write --adapter m --list", &["--model"]);
    folder.write("latin.toml", b"about = '\xe9'");
    folder.fails("write latin.toml -m m --topic fox", &["latin.toml: not UTF-8 at byte 9"]);
    folder.write("key.toml", PAIR.replace("end = ", "ends = "));
    folder.fails("write key.toml -m m --topic fox", &["the recipe key.toml: line 9: unknown field `ends`"]);
    folder.write("place.toml", PAIR.replace("{title}\\n\\n", "{titel}"));
    folder.fails("write place.toml -m m --topic fox", &["line 15: {titel} in step `body` is no input"]);
    folder.write("tone.toml", PAIR.replace("default = { en = \"plain\", zh = \"平实\" }", ""));
    folder.fails("write tone.toml -m m --topic fox", &["asks for `tone`, which has no value"]);
    folder.fails(&format!("{write} --var mood=x"), &["no input `mood`; it has tone"]);
    folder.fails(&format!("{write} --var tone"), &["give a name and a value"]);
    folder.fails(&format!("{write} --var tone=a --var tone=b"), &["given twice"]);
    folder.fails(&format!("{write} --var topic=a"), &["--topic"]);
    folder.fails(&format!("{write} --set title.heat=1"), &["title.heat=1: unknown field `heat`"]);
    folder.fails(&format!("{write} --set head.end=line"), &["no step `head`; it has title, body"]);
    folder.fails(&format!("{write} --temperature=-1"), &["step `title`", "temperature"]);
    folder.fails(&format!("{write} --top-p 2"), &["step `title`"]);
    folder.fails(&format!("{write} --retries 18446744073709551615"), &["step `title`", "at most 100"]);
    folder.fails(&format!("{write} --best-of 0"), &["--best-of 0"]);
    folder.fails(&format!("{write} --best-of 18446744073709551615"), &["at most 512"]);
    folder.fails(&format!("{write} --lang fr"), &["choose en or zh"]);
    folder.fails(&format!("{write} --force"), &["--out"]);
    folder.fails("write pair.toml --topic fox", &["--model"]);
    folder.fails("write pair.toml -m m", &["--topic"]);
    let mut empty = folder.command("write pair.toml -m m --topic");
    empty.arg(" ");
    assert!(folder.finish(empty, b"").stderr.contains("the topic is empty"));
    let mut long = folder.command("write pair.toml -m m --topic");
    long.arg("fox ".repeat(3000));
    assert!(folder.finish(long, b"").stderr.contains("step `title`: its prompt has"));
    // What cannot all be had is said, and not refused.
    let finished = folder.run(&format!("{write} --set body.max-tokens=9000000000000000000 --set body.max=9"));
    assert!(
        finished.ok && finished.stderr.contains("step `body`: the model's context has room for"),
        "{}",
        finished.stderr
    );
}

#[test]
fn bad_tables() {
    let folder = folder();
    let write = "write pair.toml -m m --json --input";
    for (name, bytes, want) in [
        ("a.csv", &b"title,tone\nx,y\n"[..], "no column `topic`, but title, tone"),
        ("b.csv", b"topic,tone\nx\n", "b.csv"),
        ("c.csv", b"topic,topic\nx,y\n", "two columns are called \"topic\""),
        ("d.csv", b"topic\n", "d.csv holds no topics"),
        ("e.csv", b"", "e.csv"),
        ("f.csv", b"topic,seed\nx,1\ny,many\n", "f.csv, line 3: the seed \"many\" is no whole number"),
        ("g.csv", b"topic,tone\nx,y\n ,z\n", "g.csv, line 3: the topic is empty"),
        ("h.csv", b"topic\n\xff\n", "h.csv: not UTF-8 at byte 6"),
        (
            "i.jsonl",
            b"{\"topic\": \"x\"}\n{\"tone\": \"y\"}\n",
            "line 2: there is no column `topic`, but tone",
        ),
        ("j.jsonl", b"[1]\n", "line 1: each line is an object"),
        ("k.jsonl", b"{\"topic\": [1]}\n", "line 1: `topic` is no text"),
        ("l.txt", b"fox\n", "give a .csv, .tsv or .jsonl file"),
        ("m.csv", b"topic,lang\nx,fr\n", "m.csv, line 2: "),
    ] {
        folder.write(name, bytes);
        folder.fails(&format!("{write} {name}"), &[want]);
    }
    folder.fails(&format!("{write} none.csv"), &["cannot read none.csv"]);
    folder.fails("write pair.toml -m m --input a.csv", &["add --out DIR"]);
    folder.write("tone.toml", PAIR.replace("default = { en = \"plain\", zh = \"平实\" }", ""));
    folder.write("n.csv", "topic\nfox\n");
    folder.fails("write tone.toml -m m --json --input n.csv", &["n.csv, line 2", "asks for `tone`"]);
    folder.write("o.csv", "topic,mood\nfox,dark\n");
    let finished = folder.run(&format!("{write} o.csv"));
    assert!(finished.ok && finished.stderr.contains("no input for the columns mood"), "{}", finished.stderr);
}

/// A model with a chat template of its own is asked; others continue.
#[test]
fn chat_models_are_asked() {
    let folder = folder();
    folder.write(
        "ask.toml",
        PAIR.replace(
            "end = \"line\"",
            "end = \"line\"\nask = { en = \"A title for {topic}?\", zh = \"{topic}？\" }",
        ),
    );
    let base = one(&folder, "ask.toml --topic fox --seed 1");
    assert_eq!(
        (&base["steps"][0]["chat"], &base["steps"][0]["prompt"]),
        (&false.into(), &"About fox, plain\nTitle:".into())
    );
    let plain = one(&folder, "ask.toml --topic fox --seed 1 --chat always");
    assert_eq!(
        (&plain["steps"][0]["chat"], &plain["steps"][0]["prompt"]),
        (&true.into(), &"A title for fox?".into())
    );
    assert_eq!(plain["steps"][1]["chat"], false, "a step without `ask` is continued");
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";
    folder.write("m/tokenizer_config.json", serde_json::json!({ "chat_template": template }).to_string());
    let own = one(&folder, "ask.toml --topic fox --seed 1");
    assert_eq!(own["steps"][0]["chat"], true);
    // What it is asked is the template's text, which a base model could have been given.
    let text = "user: A title for fox?\nassistant:";
    let seed = &own["steps"][0]["attempts"][0]["seed"];
    let again =
        folder.run_with_input(&format!("generate -m m -f - -n 12 --seed {seed} --json"), text.as_bytes());
    let again = lines(&again.stdout)[0]["text"].as_str().unwrap().trim().to_owned();
    assert!(again.starts_with(own["steps"][0]["attempts"][0]["text"].as_str().unwrap()), "{again}");
    assert_eq!(one(&folder, "ask.toml --topic fox --seed 1 --chat never")["steps"], base["steps"]);
}

/// Ctrl-C keeps what is done, and a rerun makes the file that an undisturbed run makes.
#[cfg(unix)]
#[test]
fn a_stopped_table_is_gone_on_with() {
    let folder = folder();
    let ideas = (0..60).map(|k| format!("fox {k}\n")).collect::<String>();
    folder.write("ideas.csv", format!("topic\n{ideas}"));
    let write = "write pair.toml -m m --input ideas.csv --json --batch 2 --set body.max-tokens=200 --set body.min-tokens=200 --out";
    let mut child = folder.spawn(&format!("{write} cut.jsonl --seed 3"));
    while std::fs::read_to_string(folder.path("cut.jsonl")).unwrap_or_default().lines().count() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert!(child.wait().unwrap().success(), "an asked-for stop is a success");
    let there = lines(&folder.read("cut.jsonl")).len();
    assert!((2..60).contains(&there), "stopped after {there} of 60");
    folder.succeeds(&format!("{write} cut.jsonl"));
    folder.succeeds(&format!("{write} whole.jsonl --seed 3"));
    assert!(folder.read("cut.jsonl") == folder.read("whole.jsonl"));
}
