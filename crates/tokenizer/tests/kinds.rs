//! Vocabularies that are not GPT-2's: ids and text as transformers and tokenizers give them. The files were made by
//! `tests/golden/tokenizer_kinds.py`.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use serde_json::Value;
use tokenizer::{Decoding, Tokenizer, TokenizerError, Utf8Stream};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/kinds.json")).unwrap()
}

fn texts(golden: &Value) -> Vec<&str> {
    golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn write(kind: &Value, dir: &Path) {
    for (name, content) in kind["files"].as_object().unwrap() {
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        fs::write(dir.join(name), text).unwrap();
    }
}

#[track_caller]
fn kind(name: &str) -> (tempfile::TempDir, Tokenizer) {
    let golden = golden();
    let kind = golden["kinds"].as_array().unwrap().iter().find(|kind| kind["name"] == name).unwrap();
    let dir = tempfile::tempdir().unwrap();
    write(kind, dir.path());
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    (dir, tokenizer)
}

/// Whether no spaces stand around a character, where WordPiece joins words.
fn is_tight(char: char) -> bool {
    matches!(char, '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{323AF}'
        | '\u{2014}' | '\u{2015}' | '\u{2026}' | '\u{2E80}'..='\u{2FDF}' | '\u{3000}'..='\u{30FF}'
        | '\u{31F0}'..='\u{31FF}' | '\u{FE30}'..='\u{FE4F}' | '\u{FF00}'..='\u{FFEF}')
}

/// Their text without the spaces that we do not write.
fn tightened(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let beside = |i: usize| {
        let before = i.checked_sub(1).and_then(|i| chars.get(i));
        before.into_iter().chain(chars.get(i + 1)).any(|&char| is_tight(char))
    };
    (0..chars.len()).filter(|&i| chars[i] != ' ' || !beside(i)).map(|i| chars[i]).collect()
}

#[test]
fn ids_and_text_are_theirs() {
    let golden = golden();
    for kind in golden["kinds"].as_array().unwrap() {
        let name = kind["name"].as_str().unwrap();
        let dir = tempfile::tempdir().unwrap();
        write(kind, dir.path());
        let loaded = Tokenizer::load(dir.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let copy = dir.path().join("copy");
        loaded.save(&copy).unwrap();
        let saved = Tokenizer::load(&copy).unwrap_or_else(|error| panic!("{name}, saved: {error}"));
        assert!(saved.is_same_as(&loaded), "{name}");
        for tokenizer in [&loaded, &saved] {
            assert_eq!(tokenizer.vocab_size() as u64, kind["size"].as_u64().unwrap(), "{name}");
            assert_eq!(tokenizer.prefix(), ids(&kind["prefix"]), "{name}");
            if let Some(unk) = kind["unk"].as_u64() {
                assert_eq!(tokenizer.unknown_token(), Some(unk as u32), "{name}");
            }
            for (i, text) in texts(&golden).into_iter().enumerate() {
                let want = ids(&kind["ids"][i]);
                assert_eq!(tokenizer.encode_with_special(text).unwrap(), want, "{name}: {text:?}");
                assert_eq!(
                    tokenizer.encode(text).unwrap(),
                    ids(&kind["plain"][i]),
                    "{name}, plain: {text:?}"
                );
                let theirs = kind["texts"][i].as_str().unwrap();
                let theirs = if name.starts_with("bert") { tightened(theirs) } else { theirs.to_owned() };
                assert_eq!(tokenizer.decode(&want).unwrap(), theirs, "{name}: {text:?}");
            }
        }
    }
}

/// Wherever a text is cut between prompt and continuation, token by token it is what it is as a whole.
#[test]
fn a_stream_of_tokens_is_the_whole_text() {
    let golden = golden();
    for kind in golden["kinds"].as_array().unwrap() {
        let name = kind["name"].as_str().unwrap();
        let dir = tempfile::tempdir().unwrap();
        write(kind, dir.path());
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        for row in kind["plain"].as_array().unwrap() {
            let ids = ids(row);
            let whole = tokenizer.decode(&ids).unwrap();
            for cut in [0, ids.len() / 3, ids.len() / 2, ids.len()] {
                let (prompt, rest) = ids.split_at(cut);
                let mut stream = Utf8Stream::default();
                let mut text = stream.push(&tokenizer.decode_bytes(prompt).unwrap());
                let mut decoding: Decoding = tokenizer.decoding_after(prompt);
                for &id in rest {
                    text += &stream.push(&tokenizer.decode_next(&mut decoding, id).unwrap());
                }
                assert_eq!(text + &stream.finish(), whole, "{name}, cut at {cut}");
            }
        }
    }
}

#[test]
fn chinese_bert_starts_with_cls_and_ends_with_sep() {
    let (_dir, bert) = kind("bert");
    let id =
        |name: &str| (0..bert.vocab_size() as u32).find(|&id| bert.decode(&[id]).unwrap() == name).unwrap();
    assert_eq!((bert.eot(), bert.bos(), bert.prefix()), (id("[SEP]"), id("[CLS]"), &[id("[CLS]")][..]));
    let prompt = bert.encode_prompt("这是很久之前的事情了", false).unwrap();
    assert_eq!((prompt.len(), prompt[0]), (11, id("[CLS]")));
    assert_eq!(bert.encode_prompt("[CLS]这", true).unwrap(), bert.encode_prompt("这", false).unwrap());
    assert_eq!(bert.encode_prompt("", false).unwrap(), [id("[CLS]")]);
    assert_eq!(bert.decode(&prompt[1..]).unwrap(), "这是很久之前的事情了");
    let mixed = bert.encode("The fox, 狐狸 and 3 owls。").unwrap();
    assert_eq!(bert.decode(&mixed).unwrap(), "the fox,狐狸and 3 owls。");
    assert_eq!(bert.changes().len(), 3, "{:?}", bert.changes());
}

#[test]
fn what_has_no_token_is_found() {
    let (_dir, bert) = kind("bert");
    let text = "狐狸鑫 fox😀 焱";
    assert_eq!(bert.unknown(text), Some((6, '鑫')));
    assert_eq!(bert.unknown_stretches(text), [6..9, 10..17, 18..21]);
    assert_eq!(bert.unknown("fox😀"), Some((3, '😀')));
    assert_eq!(bert.unknown("fox 狐狸"), None);
    let (_dir, unigram) = kind("unigram");
    assert_eq!(unigram.unknown("fox 鑫淼 fox"), Some((4, '鑫')));
    assert_eq!(unigram.unknown_lens("fox 鑫淼 fox"), [6]);
    let (_dir, bytes) = kind("byte fallback");
    assert_eq!(
        (bytes.unknown("鑫😀"), bytes.decode(&bytes.encode("鑫😀").unwrap()).unwrap()),
        (None, "鑫😀".into())
    );
    let error = bert.encode_bytes(b"fox\xff").unwrap_err();
    assert!(matches!(error, TokenizerError::NotUtf8 { byte: 0xff, offset: 3 }), "{error}");
}

/// Without a token for the unknown the crate would leave characters out.
#[test]
fn nothing_is_left_out() {
    let (dir, _) = kind("metaspace bpe");
    let path = dir.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    json["model"]["unk_token"] = Value::Null;
    fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::load(&path).unwrap();
    assert!(tokenizer.encode("fox and owl").is_ok());
    let error = tokenizer.encode("fox 鑫").unwrap_err();
    assert!(matches!(error, TokenizerError::UnknownChar { char: '鑫', offset: 4 }), "{error}");
}

#[test]
fn lengths_that_a_file_asks_for_cut_nothing_off() {
    let (dir, before) = kind("unigram");
    let path = dir.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    json["truncation"] =
        serde_json::json!({ "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 });
    json["padding"] = serde_json::json!({
        "strategy": { "Fixed": 1_000_000_000_000_u64 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "<unk>",
    });
    fs::write(&path, json.to_string()).unwrap();
    let text = "The fox found a lantern";
    assert_eq!(Tokenizer::load(&path).unwrap().encode(text).unwrap(), before.encode(text).unwrap());
}

#[test]
fn chat_templates_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let small = Tokenizer::train_bpe(["some text"], 260).unwrap();
    small.save(dir.path()).unwrap();
    let config = dir.path().join("tokenizer_config.json");
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let named = serde_json::json!([{ "name": "tools", "template": "t" }, { "name": "default", "template": "{{ x }}" }]);
    for (template, want) in [("one".into(), "one"), (named, "{{ x }}")] {
        json["chat_template"] = template;
        fs::write(&config, json.to_string()).unwrap();
        let loaded = Tokenizer::load(dir.path()).unwrap();
        assert_eq!(loaded.chat_template(), Some(want));
        let copy = dir.path().join(format!("copy of {}", want.len()));
        loaded.save(&copy).unwrap();
        assert_eq!(Tokenizer::load(&copy).unwrap().chat_template(), Some(want));
        let saved: Value =
            serde_json::from_str(&fs::read_to_string(copy.join("tokenizer_config.json")).unwrap()).unwrap();
        assert_eq!(saved["chat_template"], json["chat_template"]);
    }
    fs::write(dir.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(Tokenizer::load(dir.path()).unwrap().chat_template(), Some("file"));
    assert_eq!(small.chat_template(), None);
}

/// A file that another program wrote stays as it is, to the byte.
#[test]
fn saving_keeps_files() {
    let (dir, tokenizer) = kind("bert with an added token");
    let copy = dir.path().join("copy");
    tokenizer.save(&copy).unwrap();
    for name in ["vocab.txt", "added_tokens.json"] {
        assert_eq!(fs::read(copy.join(name)).unwrap(), fs::read(dir.path().join(name)).unwrap(), "{name}");
    }
    let (dir, tokenizer) = kind("unigram");
    let copy = dir.path().join("copy");
    tokenizer.save(&copy).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        assert_eq!(fs::read(copy.join(name)).unwrap(), fs::read(dir.path().join(name)).unwrap(), "{name}");
    }
}

/// Special tokens are added to every kind, found in text that asks for them, and come back from files.
#[test]
fn special_tokens_are_added_and_saved() {
    let golden = golden();
    let texts = texts(&golden);
    let mut all: Vec<Tokenizer> =
        golden["kinds"].as_array().unwrap().iter().map(|one| kind(one["name"].as_str().unwrap()).1).collect();
    all.push(Tokenizer::gpt2());
    all.push(Tokenizer::train_bpe(&texts, 300).unwrap());
    all.push(Tokenizer::train_chars(&texts).unwrap());
    all.push(Tokenizer::train_words(&texts, 100).unwrap());
    for before in all {
        let what = before.describe();
        let after = before
            .with_special_tokens(&["<|im_start|>", "<|im_end|>"])
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let n = before.vocab_size();
        assert_eq!(after.vocab_size(), n + 2, "{what}");
        assert_eq!(after.with_special_tokens(&["<|im_end|>"]).unwrap().vocab_size(), n + 2, "{what}");
        let dir = tempfile::tempdir().unwrap();
        let with_chat = after.clone().with_chat_template(Some("{{ 1 }}".to_owned()));
        with_chat.save(dir.path()).unwrap();
        let loaded = Tokenizer::load(dir.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(loaded.chat_template(), Some("{{ 1 }}"), "{what}");
        for tokenizer in [&after, &loaded] {
            assert_eq!(
                (tokenizer.special_id("<|im_start|>"), tokenizer.special_id("<|im_end|>")),
                (Some(n as u32), Some(n as u32 + 1)),
                "{what}"
            );
            assert_eq!(tokenizer.eot(), before.eot(), "{what}");
            let word = texts.iter().find_map(|text| text.split_whitespace().next()).unwrap();
            let ids = tokenizer.encode_with_special(&format!("<|im_start|>{word}<|im_end|>")).unwrap();
            assert_eq!((ids[0], ids[ids.len() - 1]), (n as u32, n as u32 + 1), "{what}");
            for text in &texts {
                assert_eq!(tokenizer.encode(text).ok(), before.encode(text).ok(), "{what}: {text}");
            }
        }
    }
}
