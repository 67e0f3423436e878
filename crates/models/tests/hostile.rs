//! Files that lie: golden files and ones made up, changed at random. Whatever they say, there is a model or an error; no
//! panic, no hang, and no memory set aside for what a file only claims.

use std::alloc::System;
use std::path::Path;

use cap::Cap;
use models::Gpt2;
use models::checkpoint::{load_config, read_metadata, read_tokenizer};
use proptest::prelude::*;

const FILES: [&str; 7] = [
    "gguf/f32.gguf",
    "gguf/bf16.gguf",
    "gguf/q8_0.gguf",
    "gguf/q4_0.gguf",
    "gguf/quants.gguf",
    "llmc/f32.bin",
    "llmc/bf16.bin",
];
/// Bytes at the beginning of a file that changes fall on most often: the header, for the most part.
const HEAD: usize = 12_000;

/// What may be set aside at most, for files of 100 kB.
const MOST: usize = 32 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)).unwrap()
}

/// Reads the file in every way there is.
fn read(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    let results = [
        Gpt2::open(&path, None).map(drop),
        Gpt2::load(&path).map(drop),
        load_config(&path).map(drop),
        read_tokenizer(&path).map(drop),
        read_metadata(&path).map(drop),
    ];
    // An error must be one that can be told.
    results.into_iter().filter_map(Result::err).for_each(|error| assert!(!error.to_string().is_empty()));
    assert!(ALLOCATOR.max_allocated() < MOST, "{} bytes were set aside", ALLOCATOR.max_allocated());
}

/// One change of a file.
#[derive(Clone, Debug)]
enum Change {
    Byte(usize, u8),
    U32(usize, u32),
    U64(usize, u64),
    /// Some bytes again, at another place.
    Copy(usize, usize, usize),
    /// Some bytes away.
    Cut(usize, usize),
    End(usize),
}

fn place() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..64usize, 8 => 0..HEAD, 1 => any::<usize>()]
}

/// Numbers that lengths and offsets go wrong at, and small ones.
fn number() -> impl Strategy<Value = u64> {
    let edges = [
        0,
        1,
        31,
        32,
        33,
        255,
        1 << 31,
        (1 << 32) - 1,
        1 << 32,
        1 << 62,
        (1 << 63) - 1,
        1 << 63,
        u64::MAX - 31,
        u64::MAX,
    ];
    prop_oneof![proptest::sample::select(edges.to_vec()), 0..70_000u64, (0..64u32).prop_map(|bits| 1 << bits)]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (place(), number()).prop_map(|(at, n)| Change::U32(at, n as u32)),
        (place(), number()).prop_map(|(at, n)| Change::U64(at, n)),
        (place(), place(), 1..200usize).prop_map(|(from, to, n)| Change::Copy(from, to, n)),
        (place(), 1..200usize).prop_map(|(at, n)| Change::Cut(at, n)),
        place().prop_map(Change::End),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let len = bytes.len().max(1);
    let mut put = |at: usize, new: &[u8]| {
        let at = at % len;
        bytes.iter_mut().skip(at).zip(new).for_each(|(byte, new)| *byte = *new);
    };
    match *change {
        Change::Byte(at, byte) => put(at, &[byte]),
        Change::U32(at, n) => put(at, &n.to_le_bytes()),
        Change::U64(at, n) => put(at, &n.to_le_bytes()),
        Change::Copy(from, to, n) => {
            let part: Vec<u8> = bytes.iter().skip(from % len).take(n).copied().collect();
            let to = to % len;
            bytes.iter_mut().skip(to).zip(part).for_each(|(byte, new)| *byte = new);
        }
        Change::Cut(at, n) => {
            let at = (at % len).min(bytes.len());
            bytes.drain(at..(at + n).min(bytes.len()));
        }
        Change::End(at) => bytes.truncate(at % len),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn changed_files_are_read_or_refused(file in 0..FILES.len(), changes in prop::collection::vec(change(), 1..4)) {
        let mut bytes = golden(FILES[file]);
        changes.iter().for_each(|change| apply(&mut bytes, change));
        read(&bytes);
    }

    #[test]
    fn anything_behind_the_magic_is_read_or_refused(is_gguf: bool, rest in prop::collection::vec(any::<u8>(), 0..2000)) {
        let start: &[u8] = if is_gguf { b"GGUF\x03\0\0\0" } else { &20240326i32.to_le_bytes() };
        read(&[start, &rest].concat());
    }
}
