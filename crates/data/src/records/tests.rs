//! Shapes, tables, options, errors with their line, what is dropped, and how records become tokens.

use serde_json::json;

use super::examples::{Tokenize, examples, pairs};
use super::*;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read_text(name: &str, text: &str, options: &Options) -> Result<File> {
    read(&folder(&[(name, text)]).path().join(name), options)
}

/// Records of one row each as `role: text` lines; of preferences both.
fn said(row: serde_json::Value, options: &Options) -> Vec<String> {
    let file = read_text("a.jsonl", &row.to_string(), options).unwrap();
    assert_eq!(file.dropped.total(), 0, "{row}: {:?}", file.dropped);
    let told = |messages: &[Message]| {
        let lines: Vec<String> =
            messages.iter().map(|message| format!("{}: {}", message.role, message.content)).collect();
        lines.join(" | ")
    };
    let record = |record: &Record| match record {
        Record::Conversation(conversation) => vec![told(&conversation.messages)],
        Record::Choice(both) => both.iter().map(|messages| told(messages)).collect(),
    };
    file.records.iter().flat_map(|(_, one)| record(one)).collect()
}

fn fails(name: &str, text: &str, options: &Options) -> String {
    read_text(name, text, options).unwrap_err().to_string()
}

#[test]
fn every_shape() {
    let hi = "user: Hi | assistant: Hello";
    let options = Options::default();
    for (row, want) in [
        (
            json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}),
            hi,
        ),
        (
            json!({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": " Hello\n"}]}),
            hi,
        ),
        (json!({"turns": [{"speaker": "user", "text": "Hi"}, {"speaker": "system", "text": "Hello"}]}), hi),
        (json!({"turns": ["Hi", "Hello"]}), hi),
        (json!({"messages": [{"content": "Hi", "facts": []}, {"content": "Hello"}]}), hi),
        (json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]), hi),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, {"role": "bot", "content": "Hello"}]}),
            hi,
        ),
        (json!({"prompt": "Hi", "completion": "Hello"}), hi),
        (json!({"question": "Hi", "answer": "Hello", "id": 3}), hi),
        (json!({"instruction": "Hi", "input": "", "output": "Hello"}), hi),
        (json!({"instruction": "Add", "input": "1, 2", "output": 3}), "user: Add\n\n1, 2 | assistant: 3"),
        (
            json!({"system": "Be kind", "prompt": "Hi", "completion": "Hello"}),
            "system: Be kind | user: Hi | assistant: Hello",
        ),
        (json!({"text": "A fox ran.", "summary": "Fox"}), "user: Summarize:\nA fox ran. | assistant: Fox"),
        (json!({"text": "狐狸跑了。", "summary": "狐狸"}), "user: 概括：\n狐狸跑了。 | assistant: 狐狸"),
        (
            json!({"title": "Fox", "text": "A fox ran."}),
            "user: Write the article: Fox | assistant: A fox ran.",
        ),
        (json!({"title": "狐狸", "text": "狐狸跑了。"}), "user: 按标题写文章：狐狸 | assistant: 狐狸跑了。"),
    ] {
        assert_eq!(said(row, &options), [want]);
    }
    let row = json!({"title": "t", "text": "A fox ran.", "summaries": ["Fox", "Ran"]});
    let want = ["Fox", "Ran"].map(|answer| format!("user: Summarize:\nA fox ran. | assistant: {answer}"));
    assert_eq!(said(row, &options), want);
}

#[test]
fn preferences() {
    let options = Options::default();
    let want = ["user: Hi | assistant: Hello", "user: Hi | assistant: Go away"];
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    for row in [
        json!({"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"}),
        json!({"instruction": "Hi", "input": "", "output": "Hello", "chosen": "Hello", "rejected": "Go away"}),
        json!({"prompt": [turn("user", "Hi")], "chosen": [turn("assistant", "Hello")], "rejected": [turn("assistant", "Go away")]}),
        json!({"chosen": [turn("user", "Hi"), turn("assistant", "Hello")], "rejected": [turn("user", "Hi"), turn("assistant", "Go away")]}),
        json!({"prompt": "Hi", "chosen": [turn("user", "Hi"), turn("assistant", "Hello")], "rejected": [turn("user", "Hi"), turn("assistant", "Go away")]}),
    ] {
        assert_eq!(said(row, &options), want);
    }
    let says = |row: serde_json::Value| fails("a.jsonl", &row.to_string(), &options);
    assert!(says(json!({"prompt": "Hi", "chosen": "Hello"})).contains("not `rejected`"));
    assert!(says(json!({"chosen": "a", "rejected": "b"})).contains("no `prompt`"));
    let same = json!({"prompt": "Hi", "chosen": "Hello", "rejected": "Hello "}).to_string();
    let file = read_text("a.jsonl", &same, &options).unwrap();
    assert_eq!(file.dropped.counts().collect::<Vec<_>>(), [("both answers the same", 1)]);
}

#[test]
fn what_the_options_change() {
    let system = Options { system: Some("Be kind".into()), ..Options::default() };
    let row = json!({"prompt": "Hi", "completion": "Hello"});
    assert_eq!(said(row, &system), ["system: Be kind | user: Hi | assistant: Hello"]);
    let row = json!({"system": "Be rude", "prompt": "Hi", "completion": "Hello"});
    assert_eq!(said(row, &system), ["system: Be rude | user: Hi | assistant: Hello"]);
    let own = Instructions::all("Short, please: {text} Thanks.").unwrap();
    let own = Options { instructions: own, ..Options::default() };
    let row = json!({"text": "A fox", "summary": "Fox"});
    assert_eq!(said(row, &own), ["user: Short, please: A fox Thanks. | assistant: Fox"]);
    assert!(Instructions::all("Short!").unwrap_err().to_string().contains("{text}"));
    let roles = Options { roles: "Ann=user,Bea=assistant".parse().unwrap(), ..Options::default() };
    let row = json!({"turns": [{"speaker": "Ann", "text": "Hi"}, {"speaker": "Bea", "text": "Hello"}]});
    assert_eq!(said(row.clone(), &roles), ["user: Hi | assistant: Hello"]);
    assert!(fails("a.jsonl", &row.to_string(), &system).contains("--roles Ann=user"));
    let columns = Options { columns: "prompt=q,completion=a".parse().unwrap(), ..Options::default() };
    assert_eq!(said(json!({"q": "Hi", "a": "Hello"}), &columns), ["user: Hi | assistant: Hello"]);
    // Files of other shapes may stand beside.
    assert_eq!(
        said(json!({"prompt": "Hi", "completion": "Hello"}), &columns),
        ["user: Hi | assistant: Hello"]
    );
    let said = fails("a.jsonl", &json!({"x": "Hi", "a": "Hello"}).to_string(), &columns);
    assert!(said.contains("asks for `q`") && said.contains("`x`, `a`"), "{said}");
}

#[test]
fn tables() {
    let options = Options::default();
    let two = |file: Result<File>| {
        let file = file.unwrap();
        file.records
            .into_iter()
            .map(|(line, record)| match record {
                Record::Conversation(one) => {
                    (line, one.messages[0].content.clone(), one.messages[1].content.clone())
                }
                Record::Choice(_) => panic!("no choice"),
            })
            .collect::<Vec<_>>()
    };
    let row = |line, a: &str, b: &str| (line, a.to_owned(), b.to_owned());
    let csv = "\u{feff}prompt,completion\r\n\"Hi, you\nthere\",Hello\r\n你好,\"您\"\"好\"\"\"\r\n";
    assert_eq!(
        two(read_text("a.csv", csv, &options)),
        [row(2, "Hi, you\nthere", "Hello"), row(4, "你好", "您\"好\"")]
    );
    assert_eq!(two(read_text("a.csv", "prompt;completion\nHi;Hello\n", &options)), [row(2, "Hi", "Hello")]);
    let named =
        Options { columns: "prompt=question,completion=answer".parse().unwrap(), ..Options::default() };
    assert_eq!(two(read_text("a.csv", "answer,id,question\nHello,1,Hi\n", &named)), [row(2, "Hi", "Hello")]);
    let error = fails("a.csv", "reply,question\nHello,Hi\n", &named);
    assert!(
        error.contains("line 2")
            && error.contains("asks for `answer`")
            && error.contains("`reply`, `question`"),
        "{error}"
    );
    let numbered = Options { columns: "prompt=1,completion=2".parse().unwrap(), ..Options::default() };
    assert_eq!(
        two(read_text("a.tsv", "\"Hi\" he said\tHello\tx\n", &numbered)),
        [row(1, "\"Hi\" he said", "Hello")]
    );
    assert!(fails("a.tsv", "Hi\n", &numbered).contains("asks for `2`"));
    let error = fails("a.csv", "prompt,completion\nHi,Hello\nHi\n", &options);
    assert!(error.contains("line 3") && error.contains("1 cells"), "{error}");
    let open = "prompt,completion\nHi,5\" of \"it\"\nHi,\"He said \"\"no\"\"\nYo,Yes\n";
    let error = fails("a.csv", open, &options);
    assert!(error.contains("line 3") && error.contains("never ends"), "{error}");
    let error = fails("a.csv", "prompt,completion,prompt\nHi,Hello,Yo\n", &options);
    assert!(error.contains("line 1") && error.contains("two columns are called `prompt`"), "{error}");
    let skipping = Options { skip_bad: true, ..Options::default() };
    let file = read_text("a.csv", "prompt,completion\nHi,Hello\nHi\nYo,Yes\n", &skipping).unwrap();
    assert_eq!((file.records.len(), file.dropped.total()), (2, 1));
    assert!(fails("a.csv", "prompt,completion\n", &options).contains("no text"));
}

#[test]
fn lists_and_streams_of_json() {
    let options = Options::default();
    let list =
        "[\n {\"prompt\": \"a\",\n  \"completion\": \"b\"},\n {\"prompt\": \"c\", \"completion\": \"d\"}]";
    let lines: Vec<u64> =
        read_text("a.json", list, &options).unwrap().records.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 4]);
    let one = "{\"prompt\": \"a\", \"completion\": \"b\"}";
    assert_eq!(read_text("a.json", one, &options).unwrap().records.len(), 1);
    assert_eq!(read_text("a.json", &format!("{one}\n{one}\n"), &options).unwrap().records.len(), 2);
    let limited = Options { limit: Some(1), ..Options::default() };
    let file = read_text("a.jsonl", &format!("{one}\n\n{one}\n"), &limited).unwrap();
    assert!(file.records.len() == 1 && file.has_more);
}

#[test]
fn what_is_wrong_has_its_line() {
    let options = Options::default();
    let good = "{\"prompt\": \"a\", \"completion\": \"b\"}\n";
    for (name, text, says) in [
        ("a.jsonl", format!("{good}\n{{\"prompt\": "), vec!["line 3", "not JSON"]),
        ("a.jsonl", format!("{good}[1"), vec!["line 2", "not JSON"]),
        ("a.json", "[\n{},\n{]".into(), vec!["line 3", "not JSON"]),
        ("a.json", "[\n\n{}]".into(), vec!["line 3", "the fields none"]),
        ("a.jsonl", format!("{good}7\n"), vec!["line 2", "a number; an object"]),
        ("a.jsonl", "{\"text\": \"x\"}".into(), vec!["line 1", "gpt2 train"]),
        ("a.jsonl", "{\"a\": 1, \"b\": 2}".into(), vec!["`a`, `b`", "--columns"]),
        (
            "a.jsonl",
            "{\"prompt\": null, \"completion\": \"b\"}".into(),
            vec!["`completion`", "empty: `prompt`"],
        ),
        ("a.jsonl", "{\"prompt\": {}, \"completion\": \"b\"}".into(), vec!["`prompt` is an object"]),
        ("a.jsonl", "{\"messages\": \"hi\"}".into(), vec!["not a list of turns"]),
        ("a.jsonl", "{\"messages\": [{\"role\": \"user\"}]}".into(), vec!["turn 1 has no text"]),
        (
            "a.jsonl",
            "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, \"b\"]}".into(),
            vec!["turn 2 does not say who"],
        ),
        ("a.txt", "hello".into(), vec!["gpt2 train"]),
        ("a.jsonl", "".into(), vec!["no text"]),
        ("a.json", "[]".into(), vec!["no text"]),
        ("a.csv", "".into(), vec!["no text"]),
    ] {
        let error = fails(name, &text, &options);
        assert!(says.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
    let folder = folder(&[]);
    let path = folder.path().join("a.csv");
    for (bytes, says) in [
        (&b"\xff\xfep\0r\0"[..], "--encoding utf-16le"),
        (b"\xfe\xff\0p", "utf-16be"),
        (b"\x89PNG\r\n\x1a\n", "byte 0"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path, &options).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    std::fs::write(&path, encoding_rs::GB18030.encode("prompt,completion\n你好,您好\n").0).unwrap();
    assert!(read(&path, &options).is_err());
    let chinese = Options { encoding: encoding_rs::GB18030, ..Options::default() };
    assert_eq!(read(&path, &chinese).unwrap().records.len(), 1);
    assert!(read(folder.path(), &options).unwrap_err().to_string().contains("is a directory"));
}

#[test]
fn what_cannot_be_learnt_from_is_counted() {
    let turns = |names: &str| {
        let turn = |c: char| match c {
            'u' => json!({"role": "user", "content": "x"}),
            'a' => json!({"role": "assistant", "content": "y"}),
            's' => json!({"role": "system", "content": "z"}),
            'e' => json!({"role": "assistant", "content": " "}),
            _ => json!({"role": "user", "content": ""}),
        };
        json!({"messages": names.chars().map(turn).collect::<Vec<_>>()})
    };
    for (names, reason) in [
        ("ue", "empty answer"),
        ("na", "empty message"),
        ("u", "no assistant turn"),
        ("", "no assistant turn"),
        ("su", "no assistant turn"),
        ("uua", "roles out of order"),
        ("uaa", "roles out of order"),
        ("usa", "roles out of order"),
        ("ssua", "roles out of order"),
    ] {
        let file = read_text("a.jsonl", &turns(names).to_string(), &Options::default()).unwrap();
        assert_eq!(file.dropped.counts().collect::<Vec<_>>(), [(reason, 1)], "{names}");
        assert!(file.dropped.lines().next().unwrap().contains("line 1"));
    }
    for (names, left_off) in [("ua", 0), ("sua", 0), ("aua", 0), ("uau", 1)] {
        let file = read_text("a.jsonl", &turns(names).to_string(), &Options::default()).unwrap();
        assert_eq!((file.records.len(), file.left_off), (1, left_off), "{names}");
    }
}

/// A template of one token a byte, with one before each turn: 256 for the system, 257 the user, 258 the assistant.
fn bytes(messages: &[Message]) -> std::result::Result<(Vec<u32>, Vec<bool>), String> {
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for message in messages {
        let role = ["system", "user", "assistant"].iter().position(|role| *role == message.role).unwrap();
        ids.push(256 + role as u32);
        mask.push(false);
        ids.extend(message.content.bytes().map(u32::from));
        mask.extend(message.content.bytes().map(|_| role == 2));
    }
    if ids.contains(&u32::from(b'#')) { Err("no # please".into()) } else { Ok((ids, mask)) }
}

fn tokenize(max_length: usize) -> Tokenize<'static> {
    Tokenize { render: &bytes, max_length, cut_long: false, train_on_all: false, threads: 2 }
}

fn text_of(ids: &[u32]) -> String {
    ids.iter().map(|&id| char::from_u32(id).filter(|_| id < 256).unwrap_or('|')).collect()
}

#[test]
fn examples_fit_and_are_told_apart() {
    let lines = [
        json!({"prompt": "ab", "completion": "cd"}),
        json!({"prompt": "ab", "completion": "cd"}),
        json!({"turns": ["a", "b", "c", "d", "eeeeeeeee", "f"]}),
        json!({"prompt": "aaaaaaaaaaaaaa", "completion": "c"}),
        json!({"prompt": "#", "completion": "c"}),
    ];
    let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
    let files = [read_text("a.jsonl", &text.join("\n"), &Options::default()).unwrap()];
    let set = examples(&files, &tokenize(10));
    let texts: Vec<String> = set.items.iter().map(|example| text_of(&example.ids)).collect();
    assert_eq!((texts, set.shortened), (vec!["|ab|cd".to_owned(), "|a|b|c|d".to_owned()], 1));
    assert_eq!(set.items[0].is_answer, [false, false, false, false, true, true]);
    let counts: Vec<(&str, usize)> = set.dropped.counts().collect();
    assert_eq!(counts, [("duplicate", 1), ("refused by the chat template", 1), ("too long", 1)]);
    assert!(set.dropped.lines().any(|line| line.contains("line 5") && line.contains("no # please")));
    let all = examples(&files, &Tokenize { train_on_all: true, ..tokenize(10) });
    assert_eq!(all.items[0].is_answer, [false, true, true, true, true, true]);
    assert_eq!(pairs(&files, &tokenize(10)).items, []);
}

#[test]
fn documents_are_cut_only_if_asked() {
    let text = "One. Two. Three is much longer than that.";
    let rows = [
        json!({"text": text, "summary": "S"}),
        json!({"title": "T", "text": text}),
        json!({"instruction": "I", "input": text, "output": "O"}),
        json!({"prompt": text, "completion": "C"}),
    ];
    let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    let files = [read_text(
        "a.jsonl",
        &rows.join("\n"),
        &Options {
            instructions: Instructions::all("<{text}>").unwrap(),
            system: Some("Sys".into()),
            ..Options::default()
        },
    )
    .unwrap()];
    let whole = examples(&files, &tokenize(30));
    assert_eq!((whole.items.len(), whole.dropped.total()), (0, 4));
    let cut = examples(&files, &Tokenize { cut_long: true, ..tokenize(30) });
    let texts: Vec<String> = cut.items.iter().map(|example| text_of(&example.ids)).collect();
    assert_eq!(texts, ["|Sys|<One. Two.>|S", "|Sys|<T>|One. Two.", "|Sys|I\n\nOne. Two.|O"]);
    assert_eq!((cut.cut, cut.dropped.total()), (3, 1));
}

#[test]
fn pairs_are_about_what_differs() {
    let turns = |answers: [&str; 2]| {
        json!([
            {"role": "user", "content": "a"}, {"role": "assistant", "content": answers[0]},
            {"role": "user", "content": "b"}, {"role": "assistant", "content": answers[1]},
        ])
    };
    let row = json!({"chosen": turns(["xx", "yy"]), "rejected": turns(["xx", "z"])}).to_string();
    let files = [read_text("a.jsonl", &row, &Options::default()).unwrap()];
    let set = pairs(&files, &tokenize(12));
    let marked = |example: &crate::example::Example| -> String {
        let ids = example.ids.iter().zip(&example.is_answer).filter(|(_, answer)| **answer);
        text_of(&ids.map(|(id, _)| *id).collect::<Vec<_>>())
    };
    assert_eq!((marked(&set.items[0].chosen), marked(&set.items[0].rejected)), ("yy".into(), "z".into()));
    assert_eq!(pairs(&files, &tokenize(9)).dropped.counts().collect::<Vec<_>>(), [("too long", 1)]);
}

#[test]
fn prompts_are_held_out_together() {
    let rows: Vec<String> = (0..100)
        .map(|i| json!({"prompt": format!("prompt {}", i / 4), "completion": format!("{i}")}).to_string())
        .collect();
    let files = [read_text("a.jsonl", &rows.join("\n"), &Options::default()).unwrap()];
    let split = |fraction, seed| examples(&files, &tokenize(99)).split(fraction, seed);
    let (train, held) = split(0.1, 7);
    assert_eq!((train.len(), held.len()), (88, 12));
    let prompt =
        |example: &crate::example::Example| text_of(&example.ids).split('|').nth(1).unwrap().to_owned();
    assert!(held.iter().all(|one| !train.iter().any(|other| prompt(one) == prompt(other))));
    assert_eq!(split(0.1, 7).1, held);
    assert_ne!(split(0.1, 8).1, held);
    assert_eq!(split(0.0, 7).1.len(), 0);
    assert_eq!(split(0.99, 7).0.len(), 4);
    let one = [read_text("a.jsonl", &rows[0], &Options::default()).unwrap()];
    assert_eq!(examples(&one, &tokenize(99)).split(0.5, 1).0.len(), 1);
}
