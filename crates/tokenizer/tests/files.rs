//! Files that are wrong, each in its way, and what is said about them; and files that come back as they were.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tokenizer::{END_OF_TEXT, Tokenizer, TokenizerError};

const TEXT: &str = "the cat and the hat and the 猫 and the 帽子, isn't it?\n";

fn small() -> Tokenizer {
    Tokenizer::train_bpe([TEXT], 270).unwrap()
}

/// Saves a small vocabulary, changes one of its files as JSON, and returns what loading says.
#[track_caller]
fn refused(file: &str, change: impl FnOnce(&mut Value)) -> String {
    let dir = tempfile::tempdir().unwrap();
    small().save(dir.path()).unwrap();
    let path = dir.path().join(file);
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(&path, json.to_string()).unwrap();
    let path = if file == "vocab.json" { path } else { dir.path().to_owned() };
    Tokenizer::load(&path).unwrap_err().to_string()
}

#[track_caller]
fn check(got: &str, want: &str) {
    assert!(got.contains(want), "want {want:?} in {got:?}");
}

#[test]
fn tokenizers_are_compared_by_what_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let words = |size| Tokenizer::train_words([TEXT], size).unwrap();
    let all = [small(), Tokenizer::gpt2(), Tokenizer::train_chars([TEXT]).unwrap(), words(8), words(9)];
    for (i, one) in all.iter().enumerate() {
        let saved = dir.path().join(i.to_string());
        one.save(&saved).unwrap();
        let loaded = Tokenizer::load(&saved).unwrap();
        for (j, other) in all.iter().enumerate() {
            assert_eq!(loaded.is_same_as(other), i == j, "{} and {}", one.describe(), other.describe());
        }
        if saved.join("merges.txt").exists() {
            let pair = Tokenizer::load(&saved.join("vocab.json")).unwrap();
            assert!(pair.is_same_as(one), "{} from vocab.json and merges.txt", one.describe());
        }
    }
    // As many tokens, of other text.
    assert!(!small().is_same_as(&Tokenizer::train_bpe(["another text about other things"], 270).unwrap()));
}

#[test]
fn ids_that_are_not_one_to_one() {
    for (file, at) in [("vocab.json", ""), ("tokenizer.json", "/model/vocab")] {
        let set = |token: &str, id: Value| refused(file, |json| json.pointer_mut(at).unwrap()[token] = id);
        check(&set("a", json!(5)), "id 5 is given twice");
        check(&set("new", json!(271)), "there is no token with id 270, but \"new\" has id 271");
        check(&set("new", json!(u64::MAX)), "there is no token with id 270");
        check(&set("new", json!(-1)), "token \"new\" has the id -1");
        check(&set("new", json!(1.5)), "has the id 1.5");
        check(&set("new", json!("7")), "has the id \"7\"");
    }
    let two = refused("tokenizer.json", |json| json["added_tokens"][0]["id"] = json!(3));
    check(&two, "token \"<|endoftext|>\" has two ids");
    let twice = refused("tokenizer.json", |json| {
        let new = |id: u32| json!({ "content": "new", "id": id });
        json["added_tokens"].as_array_mut().unwrap().extend([new(270), new(271)]);
    });
    check(&twice, "the added token \"new\" is given twice");
}

#[test]
fn merges_and_tokens_that_do_not_fit() {
    let merges = |merge: Value| refused("tokenizer.json", |json| json["model"]["merges"][0] = merge);
    check(&merges(json!(["t", "hx"])), "a merge names \"hx\", which is no token");
    check(&merges(json!(["a", "z"])), "a merge names \"az\", which is no token");
    check(&merges(json!("ab")), "the merge \"ab\" is not a pair");
    check(&merges(json!(["a", "b", "c"])), "is not a pair");
    check(&merges(json!([1, 2])), "is not a pair");
    check(&merges(json!(["<|end", "oftext|>"])), "which is no token");
    check(&refused("tokenizer.json", |json| json["model"]["merges"] = json!(null)), "no `model.merges`");
    // "Ā" stands for byte 0.
    let without_zero = refused("vocab.json", |json| {
        let id = json.as_object_mut().unwrap().remove("Ā").unwrap();
        json["ĀĀ"] = id;
    });
    check(&without_zero, "there is no token for byte 0x00");
    check(&refused("vocab.json", |json| json["世"] = json!(270)), "not written in the byte-level alphabet");
    check(&refused("vocab.json", |json| *json = json!({})), "the vocabulary is empty");
    check(&refused("vocab.json", |json| *json = json!([])), "a table of tokens and ids is needed");
    check(&refused("vocab.json", |json| *json = json!([1])), "vocab.json: invalid type: integer `1`");
}

#[test]
fn parts_that_cannot_be_reproduced() {
    let with =
        |part: &str, value: Value| refused("tokenizer.json", |json| *json.pointer_mut(part).unwrap() = value);
    check(&with("/model/type", json!("Other")), "a model of type Other is not supported");
    check(&with("/model/dropout", json!(0.1)), "`dropout` 0.1");
    check(&with("/decoder", json!({ "type": "CTC" })), "the decoder {\"type\":\"CTC\"} is not supported");
    check(&with("/post_processor", json!({ "type": "Other" })), "the post_processor Other is not supported");
    check(&with("/normalizer", json!({ "type": "Other" })), "tokenizer.json: ");
    check(&with("/pre_tokenizer", json!({ "type": "Other" })), "tokenizer.json: ");
    let template = json!({ "type": "TemplateProcessing", "single": [{ "SpecialToken": { "id": "<s>" } }] });
    check(&with("/post_processor", template), "the post_processor does not say what \"<s>\" is");
    let cls = json!({ "type": "RobertaProcessing", "cls": ["<s>", 270], "sep": ["</s>", 1] });
    check(&with("/post_processor", cls), "the post_processor names an id that no token has");
    check(&with("/added_tokens/0/content", json!("")), "has no content or no id");
    check(&with("/added_tokens/0", json!(7)), "has no content or no id");
    let charsmap = json!({ "type": "Precompiled", "precompiled_charsmap": "/////w==" });
    check(&with("/normalizer", charsmap), "its trie is longer than it");
    let contradiction = refused("tokenizer_config.json", |json| json["add_prefix_space"] = json!(true));
    check(&contradiction, "`add_prefix_space` contradicts tokenizer_config.json");
}

/// What only the parts of the file that our own reader lacks make of text, Hugging Face's crate does.
#[test]
fn parts_that_hugging_faces_crate_runs() {
    let loaded = |change: &dyn Fn(&mut Value)| {
        let dir = tempfile::tempdir().unwrap();
        small().save(dir.path()).unwrap();
        let path = dir.path().join("tokenizer.json");
        let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut json);
        fs::write(&path, json.to_string()).unwrap();
        Tokenizer::load(&path).unwrap()
    };
    let composed = loaded(&|json| json["normalizer"] = json!({ "type": "NFC" }));
    assert_eq!(composed.encode("e\u{301}").unwrap(), small().encode("é").unwrap());
    assert_eq!((composed.kind(), composed.changes().len()), ("byte-level BPE", 1));
    let template = json!({
        "type": "TemplateProcessing", "single": [{ "SpecialToken": { "id": "t" } }, { "Sequence": { "id": "A" } }],
        "special_tokens": { "t": { "id": "t", "ids": [5], "tokens": ["t"] } },
    });
    let prefixed = loaded(&|json| json["post_processor"] = template.clone());
    assert_eq!((prefixed.prefix(), prefixed.bos(), prefixed.eot()), (&[5][..], 5, 269));
    let dir = tempfile::tempdir().unwrap();
    prefixed.save(dir.path()).unwrap();
    assert!(Tokenizer::load(dir.path()).unwrap().is_same_as(&prefixed) && !prefixed.is_same_as(&small()));
}

#[test]
fn vocab_txt_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let error = |text: &[u8]| {
        fs::write(dir.path().join("vocab.txt"), text).unwrap();
        Tokenizer::load(dir.path()).unwrap_err().to_string()
    };
    check(&error(b"[UNK]\na\nb\na\n"), "lines 2 and 4 are the same token, \"a\"");
    check(&error(b"[UNK]\n\xff\n"), "it is not UTF-8 at byte 6");
    check(&error(b"a\n"), "there is no token <|endoftext|>");
    check(&error(b"a\n[SEP]\n"), "the unk_token \"[UNK]\" is no token of the vocabulary");
    check(&error(b""), "the vocabulary is empty");
    fs::write(dir.path().join("tokenizer_config.json"), "{\"tokenizer_class\": \"XLNetTokenizer\"}").unwrap();
    check(&error(b"a\n[SEP]\n[UNK]\n"), "vocab.txt with `tokenizer_class` XLNetTokenizer is not supported");
}

#[test]
fn added_tokens_beside_vocab_json() {
    let dir = tempfile::tempdir().unwrap();
    small().save(dir.path()).unwrap();
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    fs::write(dir.path().join("added_tokens.json"), "{\"<pad>\": 270, \"catfish\": 271}").unwrap();
    fs::write(dir.path().join("special_tokens_map.json"), "{\"pad_token\": \"<pad>\"}").unwrap();
    let loaded = Tokenizer::load(dir.path()).unwrap();
    assert_eq!((loaded.vocab_size(), loaded.encode("catfish").unwrap()), (272, vec![271]));
    assert_eq!(loaded.encode_with_special("<pad>").unwrap(), [270]);
    assert!(!loaded.encode("<pad>").unwrap().contains(&270));
    let flags = json!({ "added_tokens_decoder": { "270": { "content": "<mask>", "lstrip": true, "special": true,
        "rstrip": false, "single_word": false, "normalized": false }, "271": { "content": "b", "lstrip": false,
        "special": false, "rstrip": false, "single_word": false, "normalized": true } } });
    fs::remove_file(dir.path().join("added_tokens.json")).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), flags.to_string()).unwrap();
    // Each name once: "b" is in the vocabulary with another id.
    check(&Tokenizer::load(dir.path()).unwrap_err().to_string(), "token \"b\" has two ids");
    let flags = flags.to_string().replace("\"b\"", "\"bird\"");
    fs::write(dir.path().join("tokenizer_config.json"), flags).unwrap();
    let loaded = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(
        loaded.encode_with_special("the  <mask>bird").unwrap(),
        [&small().encode("the").unwrap()[..], &[270, 271]].concat()
    );
    assert_eq!(loaded.encode("the cat").unwrap(), small().encode("the cat").unwrap());
}

#[test]
fn files_that_are_missing_or_no_json() {
    let dir = tempfile::tempdir().unwrap();
    let error = |path: &Path| Tokenizer::load(path).unwrap_err().to_string();
    check(&error(dir.path()), "holds no tokenizer");
    check(&error(&dir.path().join("absent")), "holds no tokenizer");
    let path = dir.path().join("tokenizer.json");
    for text in ["", "{", "{\"model\":", "\u{0}", "[[[["] {
        fs::write(&path, text).unwrap();
        assert!(matches!(Tokenizer::load(&path), Err(TokenizerError::Format { .. })), "{text:?}");
    }
    fs::write(&path, "[".repeat(100_000)).unwrap();
    check(&error(&path), "recursion limit");
    fs::write(&path, b"{\"model\": \"\xff\"}").unwrap();
    check(&error(&path), "invalid unicode");
    fs::write(&path, "{}").unwrap();
    check(&error(&path), "it has no `model`");
    fs::remove_file(&path).unwrap();
    small().save(dir.path()).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(dir.path().join("merges.txt"), "#version: 0.2\nt h\nthe\n").unwrap();
    check(&error(dir.path()), "line 3 is not a pair of tokens");
    fs::remove_file(dir.path().join("merges.txt")).unwrap();
    check(&error(&dir.path().join("vocab.json")), "merges.txt");
}

#[test]
fn another_name_for_end_of_text() {
    let dir = tempfile::tempdir().unwrap();
    small().save(dir.path()).unwrap();
    let path = dir.path().join("tokenizer.json");
    let renamed = fs::read_to_string(&path).unwrap().replace(END_OF_TEXT, "</s>");
    fs::write(&path, renamed).unwrap();
    let error = Tokenizer::load(dir.path()).unwrap_err().to_string();
    check(&error, "there is no token <|endoftext|>, nor does tokenizer_config.json name another");
    let config = dir.path().join("tokenizer_config.json");
    for eos in [json!("</s>"), json!({ "content": "</s>" })] {
        fs::write(&config, json!({ "eos_token": eos }).to_string()).unwrap();
        assert_eq!(Tokenizer::load(dir.path()).unwrap().eot(), 269);
    }
}

#[test]
fn saving_and_loading_keeps_everything() {
    let all = [
        small(),
        Tokenizer::gpt2(),
        Tokenizer::train_chars([TEXT]).unwrap(),
        Tokenizer::train_words([TEXT], 12).unwrap(),
    ];
    for tokenizer in all {
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save(dir.path()).unwrap();
        let mut places = vec![dir.path().to_owned(), dir.path().join("tokenizer.json")];
        if tokenizer.kind() == "byte-level BPE" {
            places.push(dir.path().join("vocab.json"));
            places.push(dir.path().join("merges.txt"));
        }
        for place in places {
            let loaded = Tokenizer::load(&place).unwrap();
            let facts = |t: &Tokenizer| (t.kind(), t.vocab_size(), t.eot(), t.is_lossless());
            assert_eq!(facts(&loaded), facts(&tokenizer), "{}", place.display());
            assert_eq!(loaded.encode(TEXT).unwrap(), tokenizer.encode(TEXT).unwrap());
            let special = format!("{END_OF_TEXT}{TEXT}{END_OF_TEXT}");
            assert_eq!(
                loaded.encode_with_special(&special).unwrap(),
                tokenizer.encode_with_special(&special).unwrap()
            );
            for id in 0..tokenizer.vocab_size() as u32 {
                assert_eq!(loaded.token_bytes(id), tokenizer.token_bytes(id));
            }
        }
        // A second save replaces the first and leaves nothing else behind.
        tokenizer.save(dir.path()).unwrap();
        let n_files = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(n_files, if tokenizer.kind() == "byte-level BPE" { 4 } else { 2 });
    }
}

#[test]
fn a_folder_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = small().save(&file.join("inside")).unwrap_err();
    assert!(matches!(error, TokenizerError::Io { .. }), "{error}");
}

#[test]
fn sizes_that_are_too_small() {
    let error = Tokenizer::train_bpe([TEXT], 256).unwrap_err().to_string();
    check(&error, "a vocabulary of 256 tokens is too small");
    check(&error, "ask for at least 257");
    check(&Tokenizer::train_bpe([""; 3], 300).unwrap_err().to_string(), "there is no text");
    let bytes = Tokenizer::train_bpe([TEXT], 257).unwrap();
    assert_eq!((bytes.vocab_size(), bytes.encode(TEXT).unwrap().len()), (257, TEXT.len()));
    let all = Tokenizer::train_bpe([TEXT], 100_000).unwrap();
    assert!(all.vocab_size() < 400 && all.eot() as usize == all.vocab_size() - 1, "{}", all.vocab_size());
}

#[test]
fn characters_of_others_come_back_from_their_files() {
    let chars = ["\n", " ", "a", "b", "世"].map(String::from);
    let tokenizer = Tokenizer::from_chars(chars).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.eot()), (5, 0));
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path()).unwrap();
    let loaded = Tokenizer::load(dir.path()).unwrap();
    assert!(loaded.is_same_as(&tokenizer));
    assert_eq!(loaded.encode("a\nb 世").unwrap(), [2, 0, 3, 1, 4]);
    assert!(Tokenizer::from_chars([]).is_err());
}
