//! Hostile files of PyTorch: each is refused, or read as what it honestly holds; none panics, hangs or takes memory for
//! what it only claims.
//!
//! The allocator counts, so that every case is held to a limit. Files that once went wrong stay as tests of their own.
#![forbid(unsafe_code)]

use std::alloc::System;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cap::Cap;
use models::{Gpt2, ModelError, checkpoint};
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// What any file may take besides what its bytes allow: names of the layers that a config may claim.
const FIXED: usize = 32 << 20;
/// For each byte of a file: the value and the vector that an opcode makes, their copies as vectors grow, and two copies of
/// the tensors.
const PER_BYTE: usize = 128;

/// One case at a time, so that what is counted is its own.
static ALONE: Mutex<()> = Mutex::new(());

/// Opens a file of these bytes, beside a config, and holds it to its memory.
fn open(name: &str, bytes: &[u8]) -> Result<Gpt2, ModelError> {
    let alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::copy(golden("config.json"), dir.path().join("config.json")).unwrap();
    fs::write(&path, bytes).unwrap();
    let before = MEMORY.total_allocated();
    let model = Gpt2::open(&path, None);
    _ = checkpoint::read_nano_gpt_chars(&path);
    let taken = MEMORY.total_allocated() - before;
    drop(alone);
    assert!(taken < FIXED + PER_BYTE * bytes.len(), "{taken} bytes of memory for {} of file", bytes.len());
    model
}

#[track_caller]
fn refused(bytes: &[u8], says: &str) {
    let error = open("model.pt", bytes).unwrap_err().to_string();
    assert!(error.contains(says), "the error does not say {says:?}: {error}");
    assert!(error.len() < 1000, "an error of {} bytes", error.len());
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/torch").join(name)
}

/// A zip file with these files, as torch.save would write it.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = rawzip::ZipArchiveWriter::new(Vec::new());
    for (name, bytes) in files {
        let path = rawzip::path::EntryPath::verbatim(name.as_bytes());
        let (mut file, config) = zip.new_file(path).start().unwrap();
        let mut data = config.wrap(&mut file);
        data.write_all(bytes).unwrap();
        let (_, descriptor) = data.finish().unwrap();
        file.finish(descriptor).unwrap();
    }
    zip.finish().unwrap()
}

fn pickled(pickle: &[u8]) -> Vec<u8> {
    zip(&[("archive/data.pkl", pickle), ("archive/data/0", &[0; 64]), ("archive/version", b"3\n")])
}

fn files_of(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let archive = rawzip::ZipArchive::from_slice(bytes).unwrap();
    let file = |record: rawzip::ZipFileHeaderRecord| {
        let data = archive.get_entry(record.wayfinder()).unwrap().data().to_vec();
        (String::from_utf8(record.file_path().as_bytes().to_vec()).unwrap(), data)
    };
    archive.entries().map(|record| file(record.unwrap())).collect()
}

fn zip_again(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    zip(&files)
}

/// Replaces the only occurrence of `from`.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).expect("it is there");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn code_is_named_and_not_executed() {
    let says = "asks for Python's `posix.system`, which no weights need; nothing was executed";
    let marker = tempfile::tempdir().unwrap();
    let command = format!("touch {}", marker.path().join("executed").display());
    let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let call = [&b"\x80\x02cposix\nsystem\n"[..], &text(&command), b"\x85R."].concat();
    refused(&pickled(&call), says);
    refused(&call, says);
    let stacked =
        [b"\x80\x04", &text("posix")[..], &text("system"), b"\x93", &text(&command), b"\x85R."].concat();
    refused(&pickled(&stacked), says);
    refused(&pickled(b"(S'true'\niposix\nsystem\n."), says);
    for global in [
        "builtins\neval",
        "torch.storage\n_load_from_bytes",
        "torch\nload",
        "os\nsystem",
        "torch._utils\n__dict__",
    ] {
        refused(&pickled(format!("c{global}\n.").as_bytes()), &global.replace('\n', "."));
    }
    refused(&pickled(&[b"c", &[b'x'; 100_000][..], b"\ny\n."].concat()), "xxx");
    assert_eq!(fs::read_dir(marker.path()).unwrap().count(), 0);
}

#[test]
fn bombs_of_values_are_small() {
    // Lists in lists in lists.
    refused(&pickled(&[&b"]".repeat(400_000)[..], &b"a".repeat(399_999), b"."].concat()), "no dictionary");
    refused(&pickled(&b"(".repeat(2_000_000)), "steps");
    refused(&pickled(&[&b"N".repeat(2_000_000)[..], b"."].concat()), "steps");
    // Each list holds the one before it twice.
    let doubled = b"]q\x00".iter().copied().chain(b"]h\x00h\x00\x86aq\x00".repeat(1000));
    refused(&pickled(&doubled.chain(*b".").collect::<Vec<u8>>()), "no dictionary");
    // One long list, copied into a dictionary time and again.
    let pairs = [&b"](NN\x86q\x01"[..], &b"h\x01".repeat(1000), b"e\x85q\x02"].concat();
    let copies = [&pairs[..], &b"ccollections\nOrderedDict\nh\x02R".repeat(10_000), b"."].concat();
    refused(&pickled(&copies), "more copies of a list than it has bytes");
    // A dictionary and a list that hold themselves.
    refused(&pickled(b"}q\x00X\x05\x00\x00\x00modelh\x00s."), "no tensors by name");
    refused(&pickled(b"]q\x00h\x00a."), "no dictionary");
}

#[test]
fn lengths_that_lie_are_refused() {
    let huge = u64::MAX.to_le_bytes();
    for opcode in [0x8d, 0x8e, 0x96] {
        refused(&pickled(&[&[opcode][..], &huge, b"abc."].concat()), "ends in the middle");
        refused(
            &pickled(&[&[opcode][..], &(1u64 << 40).to_le_bytes(), b"abc."].concat()),
            "ends in the middle",
        );
    }
    for opcode in [0x8b, b'X', b'T', b'B'] {
        refused(&pickled(&[&[opcode][..], &[255; 4], b"abc."].concat()), "ends in the middle");
        refused(&pickled(&[&[opcode][..], &i32::MAX.to_le_bytes(), b"abc."].concat()), "ends in the middle");
    }
    for (pickle, says) in [
        (&b""[..], "ends in the middle"),
        (b"\x80", "ends in the middle"),
        (b".", "finds nothing on the stack"),
        (b"(.", "finds nothing on the stack"),
        (b"h\x07.", "unset memo"),
        (b"t.", "never began"),
        (b"}(Nu.", "a key without a value"),
        (b"N(a.", "finds nothing on the stack"),
        (b"NNa.", "no list"),
        (b"NNR.", "no function"),
        (b"\x82\x01.", "opcode"),
        (b"X\x01\x00\x00\x00\xff.", "UTF-8"),
        (b"I12three\n.", "a number that is none"),
    ] {
        refused(&pickled(pickle), says);
    }
}

#[test]
fn tensors_that_lie_are_refused() {
    // float storage 0 of 16 numbers; offset, shape and stride to come.
    let tensor = |offset: &str, shape: &str, stride: &str| {
        let ints = |ints: &str| ints.split_whitespace().map(|int| format!("I{int}\n")).collect::<String>();
        let (shape, stride) = (ints(shape), ints(stride));
        let storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI16\ntQ";
        let tensor =
            format!("ctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n({shape}t({stride}tI00\nNtR");
        pickled(format!("}}S'wte.weight'\n{tensor}s.").as_bytes())
    };
    let outside = "does not lie within its storage";
    refused(&tensor("0", "4 5", "5 1"), outside);
    refused(&tensor("1", "4 4", "4 1"), outside);
    refused(&tensor("17", "", ""), outside);
    refused(&tensor("16", "", ""), outside);
    refused(&tensor("0", "2", "9223372036854775807"), outside);
    refused(&tensor("0", "9223372036854775807 9223372036854775807", "0 0"), outside);
    refused(&tensor("9223372036854775807", "2", "1"), outside);
    refused(&tensor("0", "1099511627776", "0"), "more memory than the file has bytes");
    let cannot = "has a shape, strides or an offset that cannot be";
    refused(&tensor("-1", "4", "1"), cannot);
    refused(&tensor("0", "-4", "1"), cannot);
    refused(&tensor("0", "4", "-1"), cannot);
    refused(&tensor("0", "4 4", "1"), cannot);
    refused(&tensor("0", "1 1 1 1 1 1 1 1 1", "1 1 1 1 1 1 1 1 1"), cannot);
    // What is honest is read, and is too little for a model.
    refused(&tensor("0", "4 4", "4 1"), "tensor `");
    let with_storage = |from: &str, to: &str| {
        let mut files = files_of(&tensor("0", "4 4", "4 1"));
        files[0].1 = replaced(&files[0].1, from.as_bytes(), to.as_bytes());
        zip_again(&files)
    };
    refused(&with_storage("I16\n", "I17\n"), "shorter than it says");
    refused(&with_storage("I16\n", "I-1\n"), "shorter than it says");
    refused(&with_storage("I16\n", "I4611686018427387905\n"), "shorter than it says");
    refused(&with_storage("S'0'", "S'7'"), "which is not there");
    refused(&with_storage("S'0'", "S'../0'"), "which is not there");
    refused(&with_storage("S'storage'", "S'module'"), "no storage of a known kind");
}

/// `model_args` with sizes that no tensor has.
#[test]
fn shapes_that_are_only_claimed_take_no_memory() {
    let claim = |from: &[u8], to: &[u8]| {
        let mut files = files_of(&fs::read(golden("nano_no_bias.pt")).unwrap());
        let pickle = files.iter_mut().find(|(name, _)| name.ends_with("data.pkl")).unwrap();
        let key = [&(from.len() as u32).to_le_bytes()[..], from].concat();
        let at =
            pickle.1.windows(key.len()).rposition(|window| window == key).expect("it is there") + key.len();
        let value = (at..).find(|&at| pickle.1[at] == b'K').expect("a number of one byte");
        pickle.1.splice(value..value + 2, to.iter().copied());
        zip_again(&files)
    };
    refused(&claim(b"n_layer", b"M\x00\x10"), "is missing");
    refused(&claim(b"n_layer", b"J\xff\xff\xff\x7f"), "`n_layer` is 2147483647");
    refused(&claim(b"n_layer", b"J\xff\xff\xff\xff"), "`n_layer` is 0");
    refused(&claim(b"n_layer", b"G\x7f\xf8\x00\x00\x00\x00\x00\x00"), "`n_layer` is 0");
    // As a number of numpy, which it is read as.
    let numpy = |bytes: &[u8]| {
        let dtype = b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n(S'i8'\nI00\nI01\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb";
        let text =
            [&b"c_codecs\nencode\nX"[..], &(bytes.len() as u32).to_le_bytes(), bytes, b"S'latin1'\n\x86R"];
        [&dtype[..], &text.concat(), b"\x86R"].concat()
    };
    refused(&claim(b"n_layer", &numpy(b"\x71\x00\x00\x01\x00\x00\x00\x00")), "`n_layer` is 16777329");
    // Of a wrong length it is no number, and the shapes say it.
    assert!(open("model.pt", &claim(b"n_layer", &numpy(&[7; 9]))).is_ok());
    assert!(open("model.pt", &claim(b"n_layer", &numpy(&[7; 1000]))).is_ok());
    refused(&claim(b"n_head", b"K\x03"), "`n_embd` is 8");
    refused(&claim(b"n_embd", b"J\x00\x00\x01\x00"), "has shape");
    refused(&claim(b"vocab_size", b"J\x00\x00\x00\x01"), "has 19 rows");
    refused(&claim(b"block_size", b"J\x00\x00\x00\x01"), "has shape");
}

/// Offsets in a central directory's record.
const METHOD: usize = 10;
const ATTRIBUTES: usize = 38;

#[test]
fn strange_zip_files_are_refused() {
    let pickle: (&str, &[u8]) = ("archive/data.pkl", b"}.");
    for name in ["../x", "archive/../../x", "/etc/x", "a//b", "a\\b", "C:x", "archive/data/..", "./x", "x/"] {
        let file = zip(&[pickle, (name, b"1")]);
        // A name that says a directory is one of the plain ones that PyTorch never writes.
        refused(&file, "which is no plain name");
    }
    refused(
        &zip(&[pickle, ("archive/data/0", b"1"), ("archive/data/0", b"2")]),
        "holds `archive/data/0` twice",
    );
    refused(&zip(&[pickle, ("other/data.pkl", b"}.")]), "several `data.pkl`");
    refused(&zip(&[("archive/data/0", b"1")]), "without `data.pkl`");
    refused(&zip(&[pickle, ("archive/byteorder", b"middle")]), "order of bytes");

    let whole = zip(&[pickle, ("archive/data/0", &[7; 1000])]);
    let records: Vec<usize> = (0..whole.len()).filter(|&at| whole[at..].starts_with(b"PK\x01\x02")).collect();
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[records[1] + at..][..bytes.len()].copy_from_slice(bytes);
        file
    };
    refused(&changed(METHOD, &8u16.to_le_bytes()), "compressed or encrypted");
    refused(&changed(8, &1u16.to_le_bytes()), "compressed or encrypted");
    let mut link = changed(ATTRIBUTES, &(0o120_777u32 << 16).to_le_bytes());
    link[records[1] + 5] = 3; // made on Unix
    refused(&link, "is a link");
    // Sizes: 20 is the compressed one, 24 the other.
    refused(&changed(24, &u32::MAX.to_le_bytes()), "");
    refused(&changed(24, &(1u32 << 30).to_le_bytes()), "compressed or encrypted");
    refused(
        &changed(20, &[(1u32 << 30).to_le_bytes(), (1u32 << 30).to_le_bytes()].concat()),
        "damaged or cut off",
    );
    refused(&changed(20, &[1010u32.to_le_bytes(), 1010u32.to_le_bytes()].concat()), "");
    // Both files at one place.
    refused(&changed(42, &0u32.to_le_bytes()), "lie over each other");
    let mut fewer = whole.clone();
    let end = whole.len() - 22;
    fewer[end + 8..end + 12].copy_from_slice(&[9, 0, 9, 0]);
    refused(&fewer, "says 9 files");
    for len in [0, 3, 4, 30, whole.len() / 2, whole.len() - 1] {
        assert!(open("model.pt", &whole[..len]).is_err());
    }
}

#[test]
fn strange_old_files_are_refused() {
    let whole = fs::read(golden("hf_legacy.bin")).unwrap();
    for len in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        assert!(open("model.bin", &whole[..len]).is_err(), "cut off at {len}");
    }
    refused(&replaced(&whole, &[0x6c, 0xfc, 0x9c], &[0x6c, 0xfc, 0x9d]), "not one that torch.save wrote");
    refused(&replaced(&whole, &[0xe9, 0x03], &[0xe8, 0x03]), "protocol");
    refused(b"\x80\x02}.", "not one that torch.save wrote");
    // The first storage's number of elements: 19 × 8.
    refused(&replaced(&whole, &152u64.to_le_bytes(), &u64::MAX.to_le_bytes()), "cut off");
    refused(&replaced(&whole, &152u64.to_le_bytes(), &(1u64 << 61).to_le_bytes()), "cut off");
    refused(b"what", "like no model that is known");
    refused(b"", "the file is empty");
}

#[test]
fn strange_character_tables_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta.pkl");
    for (stoi, says) in [
        ("S'a'\nI0\nsS'b'\nI2\ns", "does not number"),
        ("S'a'\nI0\nsS'b'\nI0\ns", "does not number"),
        ("S'a'\nI0\nsS'a'\nI1\ns", "does not number"),
        ("", "does not number"),
        ("S'a'\nI-1\ns", "texts to ids"),
        ("I1\nI0\ns", "texts to ids"),
        ("S'a'\nI99999999999\ns", "texts to ids"),
    ] {
        fs::write(&path, format!("}}S'stoi'\n}}{stoi}s.")).unwrap();
        let error = checkpoint::read_nano_gpt_chars(&path).unwrap_err().to_string();
        assert!(error.contains(says), "{stoi:?}: {error}");
    }
    fs::write(&path, "}.").unwrap();
    assert!(checkpoint::read_nano_gpt_chars(&path).unwrap_err().to_string().contains("stoi"));
}

/// A change to a file; places are shares of its length.
#[derive(Clone, Debug)]
enum Change {
    Flip(f64, u8),
    Cut(f64),
    Number(f64, u64, usize),
    Repeat(f64, usize, usize),
    Remove(f64, usize),
    Insert(f64, Vec<u8>),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |share: &f64| ((bytes.len() as f64 * share) as usize).min(bytes.len().saturating_sub(1));
        match self {
            _ if bytes.is_empty() => {}
            Change::Flip(at, bit) => {
                let at = place(at);
                bytes[at] ^= 1 << (bit % 8);
            }
            Change::Cut(at) => bytes.truncate(place(at)),
            Change::Number(at, number, size) => {
                let at = place(at);
                let end = (at + size).min(bytes.len());
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
            Change::Repeat(at, len, times) => {
                let at = place(at);
                let part = bytes[at..(at + len).min(bytes.len())].repeat(*times);
                bytes.splice(at..at, part);
            }
            Change::Remove(at, len) => {
                let at = place(at);
                bytes.drain(at..(at + len).min(bytes.len()));
            }
            Change::Insert(at, part) => {
                let at = place(at);
                bytes.splice(at..at, part.iter().copied());
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let place = || 0.0..1.0;
    let number = prop_oneof![
        any::<u64>(),
        any::<u8>().prop_map(u64::from),
        prop::sample::select(vec![u64::MAX, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 40, 0])
    ];
    let opcodes = prop::sample::select(b"(.0122FIJKLMNQRSTUVXabcdghijlopqrstu}])eBCG\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98".to_vec());
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, bit)| Change::Flip(at, bit)),
        place().prop_map(Change::Cut),
        (place(), number, 1..=8usize).prop_map(|(at, number, size)| Change::Number(at, number, size)),
        (place(), 1..200usize, 1..50usize).prop_map(|(at, len, times)| Change::Repeat(at, len, times)),
        (place(), 1..200usize).prop_map(|(at, len)| Change::Remove(at, len)),
        (place(), prop::collection::vec(opcodes, 1..20)).prop_map(|(at, part)| Change::Insert(at, part)),
    ]
}

/// `GPT2_FUZZ_CASES` asks for more than the short run.
#[test]
fn changed_files_do_no_harm() {
    const FILES: [&str; 8] = [
        "hf_zip.bin",
        "hf_legacy.bin",
        "hf_f64.pt",
        "hf_views.pt",
        "hf_bare_parameters.pt",
        "hf_wrapped_legacy.pth",
        "nano_no_bias.pt",
        "meta.pkl",
    ];
    let files = FILES.map(|name| fs::read(golden(name)).unwrap());
    let cases =
        std::env::var("GPT2_FUZZ_CASES").map_or(1500, |cases| cases.parse().expect("a number of cases"));
    // What goes wrong is kept beside this file, and tried first from then on.
    let kept = FileFailurePersistence::Direct("tests/hostile_torch.regressions");
    let config = Config { cases, failure_persistence: Some(Box::new(kept)), ..Config::default() };
    let changes = prop::collection::vec(change(), 1..4);
    // Half of the changes are made to what a zip file holds, so that the zip file stays whole.
    let case = (0..FILES.len(), any::<bool>(), changes);
    let result = TestRunner::new(config).run(&case, |(file, inside, changes)| {
        let mut bytes = files[file].clone();
        if inside && bytes.starts_with(b"PK") {
            let mut inner = files_of(&bytes);
            let pickle = inner.iter_mut().find(|(name, _)| name.ends_with("data.pkl")).unwrap();
            changes.iter().for_each(|change| change.apply(&mut pickle.1));
            bytes = zip_again(&inner);
        } else {
            changes.iter().for_each(|change| change.apply(&mut bytes));
        }
        // Refused, or read: a change may hit what no weight needs.
        _ = open(FILES[file], &bytes);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
