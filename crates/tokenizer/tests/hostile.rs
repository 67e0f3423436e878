//! Files that were changed at random: they load or are refused, and what loads encodes and decodes. Nothing panics,
//! hangs, or asks for memory that the file does not account for.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tokenizer::Tokenizer;

const ROUNDS: usize = 120;

/// Numbers that look random and are always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// A value that readers do not expect.
fn odd(random: &mut Random) -> Value {
    let all = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(7),
        json!(1e300),
        json!(u64::MAX),
        json!(u32::MAX),
        json!(""),
        json!("▁"),
        json!("##"),
        json!("a\u{301}世"),
        json!("<0x41>"),
        json!("(a|a)*$"),
        json!([]),
        json!([[]]),
        json!({}),
        json!({ "type": "Sequence", "decoders": [], "normalizers": [], "pretokenizers": [] }),
        json!({ "String": "" }),
        json!({ "Regex": "(a*)*b|" }),
    ];
    all[random.below(all.len())].clone()
}

/// Changes one place: a value becomes another, goes, or comes twice.
fn change(value: &mut Value, random: &mut Random) {
    // Small parts are worth more looks than a vocabulary of hundreds.
    let deeper = random.below(5) > 0;
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let n = random.below(map.len());
            let key = map.keys().nth(n).unwrap().clone();
            match random.below(12) {
                0 => _ = map.remove(&key),
                1 => _ = map.insert(format!("{key}x"), odd(random)),
                _ => change(&mut map[&key], random),
            }
        }
        Value::Array(list) if deeper && !list.is_empty() => {
            let n = random.below(list.len());
            match random.below(12) {
                0 => _ = list.remove(n),
                1 => list.push(list[n].clone()),
                _ => change(&mut list[n], random),
            }
        }
        other => *other = odd(random),
    }
}

/// Changes some bytes of a file that need not be JSON afterwards.
fn garble(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes.truncate(at),
            1 => _ = bytes.splice(at..at, b"\n\n".iter().copied()).count(),
            2 => bytes.extend_from_within(at..),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.below(256) as u8;
                }
            }
        }
    }
}

/// Loads a directory and, if that works, uses it. Says whether it did.
fn try_it(dir: &Path) -> bool {
    let Ok(tokenizer) = Tokenizer::load(dir) else { return false };
    for text in ["", "fox and  owl 世界\n", "[CLS]é👩‍👩‍👧\0▁<new>", &"ab ".repeat(200), &"z".repeat(300)]
    {
        let _ = tokenizer.unknown(text);
        let _ = tokenizer.encode_with_special(text);
        if let Ok(ids) = tokenizer.encode(text) {
            let whole = tokenizer.decode(&ids).unwrap();
            let mut decoding = Default::default();
            let one_by_one: Vec<u8> = ids
                .iter()
                .flat_map(|&id| tokenizer.decode_next(&mut decoding, id).unwrap().into_owned())
                .collect();
            assert_eq!(String::from_utf8_lossy(&one_by_one), whole);
        }
    }
    let all: Vec<u32> = (0..tokenizer.vocab_size() as u32).collect();
    tokenizer.decode_bytes(&all).unwrap();
    assert!((tokenizer.eot() as usize) < all.len() && (tokenizer.bos() as usize) < all.len());
    let _ = tokenizer.chat_template();
    true
}

#[test]
fn changed_files_load_or_are_refused() {
    let golden: Value = serde_json::from_str(include_str!("golden/kinds.json")).unwrap();
    let mut random = Random(5);
    for kind in golden["kinds"].as_array().unwrap() {
        let files = kind["files"].as_object().unwrap();
        let (mut loaded, mut refused) = (0, 0);
        for round in 0..ROUNDS {
            let dir = tempfile::tempdir().unwrap();
            let chosen = random.below(files.len());
            for (i, (name, content)) in files.iter().enumerate() {
                let mut content = content.clone();
                if i == chosen && round % 2 == 0 {
                    change(&mut content, &mut random);
                }
                let mut bytes =
                    content.as_str().map_or_else(|| content.to_string(), str::to_owned).into_bytes();
                if i == chosen && round % 2 == 1 {
                    garble(&mut bytes, &mut random);
                }
                fs::write(dir.path().join(name), bytes).unwrap();
            }
            if try_it(dir.path()) { loaded += 1 } else { refused += 1 }
        }
        // Both happen, or the changes are too tame or too wild to try anything.
        assert!(loaded > 0 && refused > 0, "{}: {loaded} loaded, {refused} refused", kind["name"]);
    }
}

#[test]
fn changed_files_of_our_own_load_or_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(6);
    Tokenizer::train_bpe(["the cat and the hat and the 猫"], 280).unwrap().save(dir.path()).unwrap();
    let names = ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"];
    let files = names.map(|name| fs::read(dir.path().join(name)).unwrap());
    for round in 0..4 * ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let chosen = random.below(names.len());
        let with_json = round % 4 < 2;
        for (i, (name, bytes)) in names.iter().zip(&files).enumerate() {
            let mut bytes = bytes.clone();
            if i == chosen {
                match serde_json::from_slice::<Value>(&bytes) {
                    Ok(mut json) if round % 2 == 0 => {
                        change(&mut json, &mut random);
                        bytes = json.to_string().into_bytes();
                    }
                    _ => garble(&mut bytes, &mut random),
                }
            }
            if with_json || *name != "tokenizer.json" {
                fs::write(dir.path().join(name), bytes).unwrap();
            }
        }
        try_it(dir.path());
    }
}

/// Files without contents may claim any length.
#[test]
fn absurdly_long_files_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let gpt2 = Tokenizer::gpt2();
    for name in ["tokenizer_config.json", "tokenizer.json", "merges.txt"] {
        gpt2.save(dir.path()).unwrap();
        fs::File::create(dir.path().join(name)).unwrap().set_len(1 << 36).unwrap();
        if name == "merges.txt" {
            fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        }
        let error = Tokenizer::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("more than 256 MB"), "{error}");
    }
}
