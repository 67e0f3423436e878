//! ggml's types held to the `gguf` package (`tests/golden/gguf/make.py`), and files that mix them.

use std::path::{Path, PathBuf};

use tensor::weights::Form;

use super::file::{ALIGNMENT, parse};
use super::types::GgmlType;
use super::write::{Entry, Keys, describe, write_file};
use super::*;
use crate::{Dtype, Gpt2, Init};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gguf").join(name)
}

#[test]
fn blocks_are_decoded_and_made_as_the_gguf_package_does_it() {
    let path = golden("quants.gguf");
    let bytes = std::fs::read(&path).unwrap();
    let header = parse(&path, &bytes).unwrap();
    let find = |name: &str| {
        let tensor = header.tensors.iter().find(|tensor| tensor.name == name).unwrap();
        (tensor.kind.unwrap(), &bytes[tensor.range.clone()])
    };
    let mut decoded = 0;
    for tensor in header.tensors.iter().filter(|tensor| !tensor.name.contains(['.', 's'])) {
        let (kind, blocks) = find(tensor.name);
        assert_eq!(kind.name(), tensor.name);
        let (_, want) = find(&format!("{}.f32", tensor.name));
        let values = kind.decode(blocks);
        assert_eq!(bytemuck::cast_slice::<f32, u8>(&values), want, "{}", tensor.name);
        decoded += 1;
    }
    assert_eq!(decoded, 8);
    let source = GgmlType::F32.decode(find("source").1);
    for kind in [GgmlType::F32, GgmlType::F16, GgmlType::Bf16, GgmlType::Q8_0, GgmlType::Q4_0] {
        let name =
            if kind == GgmlType::F32 { "source".to_owned() } else { format!("source.{}", kind.name()) };
        assert!(kind.encode(&source) == find(&name).1, "{}", kind.name());
    }
}

/// Blocks with any numbers, and scales that make weights of a usual size.
fn random_blocks(kind: GgmlType, values: usize, seed: u64) -> Vec<u8> {
    let stream = tensor::random::Stream::new(seed, 0, 0);
    if kind.block() == 1 {
        return kind.encode(&(0..values as u64).map(|i| 0.1 * stream.normal(i)).collect::<Vec<_>>());
    }
    let n = values / kind.block() * kind.block_bytes();
    let mut bytes: Vec<u8> = (0..n as u64).map(|i| (1e3 * stream.normal(i)) as i32 as u8).collect();
    for block in bytes.chunks_exact_mut(kind.block_bytes()) {
        let halves: &[usize] = match kind {
            GgmlType::Q6K => &[208],
            GgmlType::Q8_0 | GgmlType::Q4_0 | GgmlType::Q5_0 => &[0],
            _ => &[0, 2],
        };
        for &at in halves {
            block[at..at + 2].copy_from_slice(&tensor::f16::from_f32(0.001).to_le_bytes());
        }
    }
    bytes
}

const WIDTH: usize = 256;

/// A model file whose matrices have types of their own: `kind` gives each, by our name.
fn write_mixed(path: &Path, kind: impl Fn(&str) -> GgmlType) -> Gpt2Config {
    let mut config = Gpt2Config::new(2, 4, WIDTH, 8, 40);
    config.n_inner = WIDTH;
    let mut keys = Keys::default();
    keys.text("general.architecture", "gpt2");
    describe(&mut keys, &config);
    let entries: Vec<Entry> = (1..)
        .zip(config.shapes())
        .map(|(seed, (name, mut shape))| {
            let is_matrix = shape.len() == 2 && name != "wpe.weight";
            let kind = if is_matrix { kind(&name) } else { GgmlType::F32 };
            if is_matrix && name != TABLE {
                shape.reverse();
            }
            let values = shape.iter().product();
            let bytes = Box::new(move || Ok(random_blocks(kind, values, seed)));
            Entry { name: their_name(&name).unwrap(), shape, kind, bytes }
        })
        .collect();
    write_file(path, &keys, &entries).unwrap();
    config
}

#[test]
fn files_that_mix_types_run_in_one_and_are_trained_exactly() {
    use GgmlType::{Bf16, F16, F32, Q4_0, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let cases: [(&[GgmlType], GgmlType, Dtype, Form); 8] = [
        (&[Q4K, Q6K], Q6K, Dtype::Bf16, Form::Bf16),
        (&[Q5K, Q5_0, Q8_0], Q8_0, Dtype::Bf16, Form::Blocks(tensor::blocks::BlockFormat::Q8)),
        (&[Q4_0], Q6K, Dtype::Q4, Form::Bf16),
        (&[Q4_0], Q4_0, Dtype::Q4, Form::Blocks(tensor::blocks::BlockFormat::Q4)),
        (&[Q8_0], F16, Dtype::Q8, Form::F16),
        (&[Q8_0, Q4_0], F32, Dtype::Bf16, Form::F32),
        (&[Bf16, Q5_1], Bf16, Dtype::Bf16, Form::Bf16),
        (&[F16, Q8_0], Bf16, Dtype::F32, Form::Bf16),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mixed.gguf");
    for (linear, table, dtype, form) in cases {
        let of = |name: &str| match name {
            TABLE => table,
            _ if name.contains("h.1.mlp") => linear[linear.len() - 1],
            _ if name.contains("attn") => linear[0],
            _ => linear[linear.len() / 2],
        };
        let config = write_mixed(&path, of);
        let (trained, opened) = (Gpt2::load(&path).unwrap(), Gpt2::open(&path, None).unwrap());
        assert_eq!((trained.config(), opened.config()), (&config, &config));
        assert_eq!(opened.dtype(), dtype, "{linear:?}");
        assert_eq!(opened.parameters()[0].1.weights().unwrap().form(), form, "{table:?}");
        for (seed, ((name, tensor), (_, opened))) in
            (1..).zip(trained.parameters().iter().zip(opened.parameters()))
        {
            let shape = tensor.shape();
            let is_matrix = shape.len() == 2 && name != "wpe.weight";
            let kind = if is_matrix { of(name) } else { F32 };
            let lies = kind.decode(&random_blocks(kind, tensor.len(), seed));
            let is_turned = is_matrix && name != TABLE;
            let at = |i: usize| if is_turned { i % shape[1] * shape[0] + i / shape[1] } else { i };
            for (i, &got) in tensor.data().iter().enumerate() {
                assert_eq!(got.to_bits(), lies[at(i)].to_bits(), "{linear:?}, {name} [{i}]");
            }
            let exact = opened.weights().is_none_or(|weights| weights.form() != Form::Bf16);
            for (&x, &y) in tensor.data().iter().zip(&*opened.decoded()) {
                let want = if exact { x } else { tensor::bf16::from_f32(x).to_f32() };
                assert_eq!(y, want, "{linear:?}, {name}");
            }
        }
        // A type that is asked for is made from the exact values.
        let (asked, want) =
            (Gpt2::open(&path, Some(Dtype::F16)).unwrap(), trained.to_dtype(Dtype::F16).unwrap());
        if dtype == Dtype::Bf16 {
            for ((name, a), (_, b)) in asked.parameters().iter().zip(want.parameters()) {
                assert!(a.decoded() == b.decoded(), "{name}");
            }
        }
        let mut pass = crate::Pass::eval();
        assert!(opened.logits(&[1, 39, 7], 1, &mut pass).unwrap().data().iter().all(|x| x.is_finite()));
    }
}

#[test]
fn an_output_layer_of_its_own_is_not_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let model = Gpt2::new(Gpt2Config::new(1, 2, 8, 4, 20), Init::Gpt2, 1).unwrap();
    let write = |output: Vec<u8>| {
        let mut keys = Keys::default();
        keys.text("general.architecture", "gpt2");
        describe(&mut keys, model.config());
        let tensors = model.parameters().into_iter();
        let mut entries: Vec<Entry> =
            tensors.map(|(name, tensor)| Entry::of(name, tensor, write::GgufType::F32).unwrap()).collect();
        let bytes = Box::new(move || Ok(output.clone()));
        let (name, shape) = (OUTPUT.0.to_owned(), vec![20, 8]);
        entries.push(Entry { name, shape, kind: GgmlType::F32, bytes });
        write_file(&path, &keys, &entries).unwrap();
    };
    let table: Vec<u8> = bytemuck::cast_slice(model.parameters()[0].1.data()).to_vec();
    write(table.clone());
    let read = Gpt2::load(&path).unwrap();
    assert!(read.config().tie_word_embeddings);
    assert_eq!(read.parameters()[0].1.data(), model.parameters()[0].1.data());
    let mut other = table;
    other[5] ^= 1;
    write(other.clone());
    let read = Gpt2::load(&path).unwrap();
    assert!(!read.config().tie_word_embeddings);
    // Written again, it is there again.
    write::save_gguf(&read, &path, write::GgufType::F32, None, &[]).unwrap();
    let read = Gpt2::load(&path).unwrap();
    let head = read.parameters().into_iter().find(|(name, _)| name == OUTPUT.1).unwrap().1;
    assert_eq!(bytemuck::cast_slice::<f32, u8>(head.data()), other);
}

#[test]
fn scales_that_are_no_numbers_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    for kind in [GgmlType::Q8_0, GgmlType::Q4K] {
        write_mixed(&path, |_| kind);
        let mut bytes = std::fs::read(&path).unwrap();
        let range = {
            let header = parse(&path, &bytes).unwrap();
            header.tensors.iter().find(|tensor| tensor.name == "blk.1.ffn_up.weight").unwrap().range.clone()
        };
        bytes[range.start..range.start + 2].copy_from_slice(&0x7c00u16.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        for error in [Gpt2::load(&path), Gpt2::open(&path, None)].map(|model| model.unwrap_err().to_string())
        {
            assert!(error.contains("`h.1.mlp.c_fc.weight`") && error.contains("damaged"), "{error}");
        }
    }
}

/// A header with these metadata and tensors: name, dimensions, type, offset.
fn header(metadata: &[&[u8]], tensors: &[(&str, &[u64], u32, u64)]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut bytes = [&b"GGUF\x03\0\0\0"[..], &(tensors.len() as u64).to_le_bytes()].concat();
    bytes.extend((metadata.len() as u64).to_le_bytes());
    metadata.iter().for_each(|entry| bytes.extend(*entry));
    for (name, dims, kind, offset) in tensors {
        bytes.extend(text(name));
        bytes.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT) + 256, 0);
    bytes
}

#[test]
fn headers_that_lie_are_refused() {
    let says = |bytes: &[u8], part: &str| {
        let error = parse(Path::new("x"), bytes).unwrap_err().to_string();
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    };
    let key = |key: &str, kind: u32, value: &[u8]| {
        [&(key.len() as u64).to_le_bytes()[..], key.as_bytes(), &kind.to_le_bytes(), value].concat()
    };
    let alignment = |n: u32| header(&[&key("general.alignment", 4, &n.to_le_bytes())], &[("a", &[8], 0, 0)]);
    assert!(parse(Path::new("x"), &alignment(64)).is_ok());
    says(&alignment(0), "`general.alignment` is 0");
    says(&alignment(48), "`general.alignment` is 48");
    says(&alignment(1 << 31), "but the file has");
    let array = |kind: u32, len: u64, values: &[u8]| {
        let head = [&kind.to_le_bytes()[..], &len.to_le_bytes(), values].concat();
        header(&[&key("k", 9, &head)], &[])
    };
    assert!(parse(Path::new("x"), &array(4, 2, &[0; 8])).is_ok());
    says(&array(4, u64::MAX / 2, &[]), "k takes");
    says(&array(8, u64::MAX, &[0; 80]), "left");
    says(&array(9, 1, &array(9, 1, &[])), "array of arrays");
    says(&array(13, 1, &[]), "type 13");
    says(&header(&[&key("k", 7, &[2])], &[]), "neither true nor false");
    says(&header(&[&key("k", 8, b"\x01\0\0\0\0\0\0\0\xff")], &[]), "UTF-8");
    says(&header(&[&key("k", 0, &[1]), &key("k", 0, &[1])], &[]), "`k` twice");
    let tensors = |tensors: &[(&str, &[u64], u32, u64)]| header(&[], tensors);
    assert!(parse(Path::new("x"), &tensors(&[("b", &[8], 0, 32), ("a", &[8], 0, 0)])).is_ok());
    says(&tensors(&[("a", &[9], 0, 0), ("b", &[8], 0, 32)]), "`a` and `b` overlap");
    says(&tensors(&[("a", &[8], 0, 0), ("b", &[8], 0, 0)]), "overlap");
    says(&tensors(&[("a", &[8], 0, 0), ("a", &[8], 0, 32)]), "`a` is there twice");
    says(&tensors(&[("a", &[8], 0, 4)]), "no multiple of 32");
    says(&tensors(&[("a", &[8], 0, 1 << 63)]), "but the file has");
    says(&tensors(&[("a", &[8], 0, u64::MAX - 31)]), "but the file has");
    says(&tensors(&[("a", &[1 << 40, 1 << 40], 0, 0)]), "cannot have the shape");
    says(&tensors(&[("a", &[u64::MAX], 0, 0)]), "cannot have the shape");
    says(&tensors(&[("a", &[33], 8, 0)]), "cannot have the shape");
    says(&tensors(&[("a", &[1 << 20], 0, 0)]), "but the file has");
    says(&tensors(&[("a", &[1; 5], 0, 0)]), "5 dimensions");
}

#[test]
fn an_output_layer_of_its_own_does_not_widen_the_linear_layers() {
    let config = Gpt2Config { tie_word_embeddings: false, ..Gpt2Config::new(1, 2, 32, 8, 50) };
    let model = Gpt2::new(config, Init::Gpt2, 3).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("untied.gguf");
    write::save_gguf(&model, &path, write::GgufType::Q4_0, None, &[]).unwrap();
    assert_eq!(Gpt2::open(&path, None).unwrap().dtype(), Dtype::Q4);
    assert_eq!(Gpt2::open_exact(&path).unwrap().dtype(), Dtype::Q4);
}
