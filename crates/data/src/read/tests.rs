//! Files as they come, good and bad.

use super::*;
use std::io::Write;

fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn texts(path: &Path, label: Option<&str>) -> Result<Vec<String>> {
    read(path, encoding(label)?)?.map(|piece| piece.map(|piece| piece.text)).collect()
}

#[track_caller]
fn refused(name: &str, bytes: &[u8], parts: &[&str]) {
    let (_dir, path) = file(name, bytes);
    let error = texts(&path, None).unwrap_err().to_string();
    for part in parts.iter().chain(&[name]) {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

#[test]
fn each_kind() {
    let (_dir, path) = file("a.txt", "\u{feff}héllo\r\nworld".as_bytes());
    assert_eq!(texts(&path, None).unwrap(), ["héllo\r\nworld"]);
    let (_dir, path) = file("a.jsonl", b"{\"text\": \"one\"}\n\n{\"text\": \"two\", \"id\": 2}");
    assert_eq!(texts(&path, None).unwrap(), ["one", "two"]);
    let (_dir, path) = file("a.json", br#"[{"text": "one"}, "two"]"#);
    assert_eq!(texts(&path, None).unwrap(), ["one", "two"]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"packed").unwrap();
    let (_dir, path) = file("A.TXT.gz", &packed.finish().unwrap());
    assert_eq!(texts(&path, None).unwrap(), ["packed"]);
}

#[test]
fn other_encodings() {
    let (_dir, path) = file("a.txt", b"\xc4\xe3\xba\xc3");
    assert_eq!(texts(&path, Some("gb18030")).unwrap(), ["你好"]);
    let (_dir, path) = file("a.txt", b"\xff\xfeh\0i\0");
    assert_eq!(texts(&path, Some("utf-16le")).unwrap(), ["hi"]);
    assert!(encoding(Some("klingon")).unwrap_err().to_string().contains("klingon"));
}

#[test]
fn bad_files_are_named_with_the_place() {
    refused("a.txt", b"good \xff bad", &["UTF-8", "byte 5", "--encoding"]);
    refused("a.txt", "cut 世".as_bytes().split_last().unwrap().1, &["byte 4"]);
    refused("a.txt", b"", &["no text"]);
    refused("a.jsonl", b"{\"text\": \"one\"}\n{\"text\": ", &["line 2", "byte 16"]);
    refused("a.jsonl", b"{\"body\": \"one\"}\n", &["line 1", "no field `text`", "`body`"]);
    refused("a.jsonl", b"{\"text\": 3}\n", &["line 1", "not a string"]);
    refused("a.jsonl", b"{\"text\": \"\xff\"}\n", &["byte 10"]);
    refused("a.jsonl", b"\n\n", &["no text"]);
    refused("a.json", b"[\n{\"text\": }]", &["line 2"]);
    refused("a.json", b"[]", &["no text"]);
    refused("a.json", b"", &["no text"]);
    refused("a.json", b"[{}]", &["document 1", "the object is empty"]);
    refused("a.pdf", b"x", &[".jsonl"]);
    refused("a.txt.gz", b"not packed", &["gzip"]);
    assert!(texts(Path::new("/no/such/file.txt"), None).unwrap_err().to_string().contains("No such file"));
    assert!(texts(tempfile::tempdir().unwrap().path(), None).unwrap_err().to_string().contains("text files"));
}

#[test]
fn a_packed_file_that_is_cut_off_is_named_with_the_byte() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    (0..3000u32).for_each(|i| packed.write_all(crate::mix(1, 2, i.into()).to_string().as_bytes()).unwrap());
    let packed = packed.finish().unwrap();
    let cut = packed.len() / 2;
    refused("a.txt.gz", &packed[..cut], &[&format!("beyond byte {cut}"), "cut off"]);
    refused("a.jsonl.gz", &packed[..10], &["beyond byte 10"]);
}

#[test]
fn shards_are_not_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut shards = crate::shards::ShardWriter::new(dir.path(), "train", 10);
    shards.push(&[1, 2]).unwrap();
    shards.finish().unwrap();
    assert!(texts(dir.path(), None).unwrap_err().to_string().contains("needs text"));
}

#[test]
fn weights() {
    assert_eq!(Source::parse("a.txt=2.5").unwrap(), Source { path: "a.txt".into(), weight: Some(2.5) });
    assert_eq!(Source::parse("a.txt").unwrap().weight, None);
    for bad in ["a.txt=", "a.txt=-1", "a.txt=x", "a.txt=inf"] {
        assert!(Source::parse(bad).unwrap_err().to_string().contains(bad));
    }
}

/// Cutting anywhere `safe_cut` allows must leave the pattern's pieces as they were.
#[test]
fn cuts_fall_between_pieces() {
    let alphabet: Vec<char> = "ab'lrevest 1\n\t\r .。世界é\u{3000}".chars().collect();
    for seed in 0..3000u64 {
        let text: String =
            (0..30).map(|i| alphabet[(crate::mix(seed, i, 1) % alphabet.len() as u64) as usize]).collect();
        let whole: Vec<&str> = pieces(&text, Pattern::Gpt2).collect();
        for (end, _) in text.char_indices().skip(1) {
            if let Some(cut) = safe_cut(&text[..end]) {
                let parts: Vec<&str> =
                    pieces(&text[..cut], Pattern::Gpt2).chain(pieces(&text[cut..], Pattern::Gpt2)).collect();
                assert_eq!(parts, whole, "{text:?} seen to {end}, cut at {cut}");
            }
        }
    }
}

#[test]
fn a_long_text_comes_in_pieces_that_give_the_same_tokens() {
    let line = "It's the 3rd line,  isn't it?\r\n\r\n\tIndented 世界。";
    for text in [line.repeat(60_000), "世界，你好。".repeat(200_000), "x".repeat(3 * BLOCK)] {
        let (_dir, path) = file("a.txt", text.as_bytes());
        let parts = texts(&path, None).unwrap();
        assert_eq!(parts.concat(), text);
        let cut: Vec<&str> = parts.iter().flat_map(|part| pieces(part, Pattern::Gpt2)).collect();
        assert!(cut == pieces(&text, Pattern::Gpt2).collect::<Vec<_>>());
        assert!(parts.len() > 1 || text.starts_with('x'));
    }
}
