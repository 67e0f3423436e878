//! GGUF and llm.c: what others wrote and what we write (`tests/golden/{gguf,llmc}/make.py`), held bit for bit; and what
//! is refused.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use models::checkpoint::{
    self, GgufTokenizer, GgufType, LlmcType, read_metadata, read_tensors, read_tokenizer, save_gguf,
    save_llmc,
};
use models::{Dtype, Gpt2, Gpt2Config, Init, ModelError, Pass};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn values(model: &Gpt2) -> HashMap<String, Vec<f32>> {
    model.parameters().into_iter().map(|(name, tensor)| (name, tensor.decoded().into_owned())).collect()
}

fn logits(model: &Gpt2) -> Vec<f32> {
    model.logits(&[3, 1, 4, 1, 5], 1, &mut Pass::eval()).unwrap().data().to_vec()
}

fn says<T>(result: Result<T, ModelError>, parts: &[&str]) {
    let error = result.err().expect("an error").to_string();
    for part in parts {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

/// The source's values, as rounded by a type of 16 bits.
fn source(folder: &str, round: impl Fn(&str, f32) -> f32) -> HashMap<String, Vec<f32>> {
    let (tensors, _) = read_tensors(&golden(folder).join("source.safetensors")).unwrap();
    let rounded = tensors.into_iter().map(|(name, (_, values))| {
        let values = values.into_iter().map(|x| round(&name, x)).collect();
        (name, values)
    });
    rounded.collect()
}

fn bf16(x: f32) -> f32 {
    tensor::bf16::from_f32(x).to_f32()
}

fn is_matrix(name: &str) -> bool {
    name.ends_with("weight") && !name.contains("ln_") && name != "wpe.weight"
}

#[test]
fn gguf_models_are_read_bit_for_bit() {
    type Round = fn(f32) -> f32;
    let cases: [(&str, Dtype, Round); 3] = [
        ("f32", Dtype::F32, |x| x),
        ("f16", Dtype::F16, |x| tensor::f16::from_f32(x).to_f32()),
        ("bf16", Dtype::Bf16, bf16),
    ];
    for (name, dtype, round) in cases {
        let path = golden(&format!("gguf/{name}.gguf"));
        let want = source("gguf", |name, x| if is_matrix(name) { round(x) } else { x });
        let (trained, opened) = (Gpt2::load(&path).unwrap(), Gpt2::open(&path, None).unwrap());
        assert!(values(&trained) == want, "{name}");
        assert!(values(&opened) == want, "{name}");
        assert_eq!((trained.dtype(), opened.dtype()), (Dtype::F32, dtype));
        assert_eq!(opened.config(), &checkpoint::load_config(&path).unwrap());
        let config = opened.config();
        assert_eq!((config.n_layer, config.n_head, config.n_ctx, config.eot), (2, 4, 12, Some(269)));
        // The same arithmetic as the same weights from elsewhere.
        assert_eq!(logits(&opened), logits(&trained.to_dtype(dtype).unwrap()), "{name}");
    }
}

#[test]
fn gguf_blocks_are_ours_with_the_same_numbers() {
    for (name, dtype) in [("q8_0", Dtype::Q8), ("q4_0", Dtype::Q4)] {
        let path = golden(&format!("gguf/{name}.gguf"));
        let (trained, opened) = (Gpt2::load(&path).unwrap(), Gpt2::open(&path, None).unwrap());
        assert_eq!(opened.dtype(), dtype);
        assert!(values(&trained) == values(&opened), "{name}");
        let want = source("gguf", |_, x| x);
        for (name, got) in values(&trained) {
            let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
            let change = norm(&mut got.iter().zip(&want[&name]).map(|(a, b)| a - b));
            let most = if !is_matrix(&name) {
                0.0
            } else if dtype == Dtype::Q8 || name == "wte.weight" {
                0.01
            } else {
                0.12
            };
            assert!(change <= most * norm(&mut want[&name].iter().copied()), "{name}: {change}");
        }
    }
}

/// Everything behind the header, whose metadata differ in their order.
fn tensors_of(path: &Path) -> HashMap<String, (String, Vec<u8>)> {
    let model = Gpt2::load(path).unwrap();
    let bits = |values: Vec<f32>| values.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect();
    values(&model).into_iter().map(|(name, values)| (name, (String::new(), bits(values)))).collect()
}

#[test]
fn gguf_is_written_as_the_gguf_package_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let original = Gpt2::load(&golden("gguf/f32.gguf")).unwrap();
    let tokenizer = read_tokenizer(&golden("gguf/f32.gguf")).unwrap().unwrap();
    for kind in GgufType::ALL {
        let path = dir.path().join(format!("{}.gguf", kind.name()));
        save_gguf(&original, &path, kind, Some(&tokenizer), &[("general.name", "tiny")]).unwrap();
        let theirs = golden(&format!("gguf/{}.gguf", kind.name()));
        assert!(tensors_of(&path) == tensors_of(&theirs), "{}", kind.name());
        assert_eq!(read_tokenizer(&path).unwrap().as_ref(), Some(&tokenizer));
        assert_eq!(checkpoint::load_config(&path).unwrap(), *original.config());
        // Opened as it is and written again, it is the same file.
        let again = dir.path().join("again.gguf");
        let opened = Gpt2::open(&path, None).unwrap();
        save_gguf(&opened, &again, kind, Some(&tokenizer), &[("general.name", "tiny")]).unwrap();
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap(), "{}", kind.name());
        let metadata: HashMap<_, _> = read_metadata(&path).unwrap().into_iter().collect();
        assert_eq!(metadata["general.name"], "tiny");
        assert_eq!(metadata["tokenizer.ggml.tokens"], "an array of 270");
    }
}

#[test]
fn our_blocks_keep_their_numbers_in_gguf() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let model = Gpt2::new(Gpt2Config::new(2, 2, 64, 16, 50), Init::Gpt2, 1).unwrap();
    for (dtype, kind) in
        [(Dtype::Q8, GgufType::Q8_0), (Dtype::Q4, GgufType::Q4_0), (Dtype::Q4, GgufType::Q8_0)]
    {
        let ours = model.to_dtype(dtype).unwrap();
        save_gguf(&ours, &path, kind, None, &[]).unwrap();
        let back = Gpt2::open(&path, None).unwrap();
        assert!(values(&back) == values(&ours), "{dtype} as {}", kind.name());
        if dtype == Dtype::Q8 {
            assert_eq!(logits(&back), logits(&ours));
        }
    }
}

#[test]
fn widths_that_are_no_blocks_are_written_in_f16() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let mut config = Gpt2Config::new(2, 2, 40, 16, 50);
    config.n_inner = 64;
    let model = Gpt2::new(config, Init::Gpt2, 1).unwrap();
    save_gguf(&model, &path, GgufType::Q4_0, None, &[]).unwrap();
    let back = Gpt2::load(&path).unwrap();
    for (name, values) in values(&back) {
        let parameters = model.parameters();
        let (_, want) = parameters.iter().find(|(other, _)| *other == name).unwrap();
        let round = |x: f32| if is_matrix(&name) { tensor::f16::from_f32(x).to_f32() } else { x };
        let same = values.iter().zip(want.data()).all(|(&got, &want)| got == round(want));
        assert_eq!(same, !name.ends_with("mlp.c_proj.weight"), "{name}");
    }
    assert!(read_tokenizer(&path).unwrap().is_none());
}

#[test]
fn what_gguf_cannot_say_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let mut model = Gpt2::new(Gpt2Config::new(1, 2, 32, 16, 50), Init::Gpt2, 1).unwrap();
    let tokenizer = GgufTokenizer { tokens: vec!["a".into(); 51], types: vec![1; 51], ..Default::default() };
    says(save_gguf(&model, &path, GgufType::F32, Some(&tokenizer), &[]), &["51 tokens", "model 50"]);
    let twice = [("general.name", "a"), ("general.name", "b")];
    says(save_gguf(&model, &path, GgufType::F32, None, &twice), &["general.name"]);
    says(save_gguf(&model, &path, GgufType::F32, None, &[("gpt2.block_count", "7")]), &["gpt2.block_count"]);
    set(&mut model, "h.0.mlp.c_fc.weight", 7, 70000.0);
    says(
        save_gguf(&model, &path, GgufType::F16, None, &[]),
        &["h.0.mlp.c_fc.weight", "value 7", "70000", "F16"],
    );
    set(&mut model, "h.0.mlp.c_fc.weight", 7, f32::NAN);
    for kind in GgufType::ALL {
        says(save_gguf(&model, &path, kind, None, &[]), &["h.0.mlp.c_fc.weight", "NaN"]);
    }
    says(save_llmc(&model, &path, LlmcType::Bf16), &["h.0.mlp.c_fc.weight", "NaN"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something is left behind");
}

fn set(model: &mut Gpt2, name: &str, at: usize, value: f32) {
    for (other, tensor) in model.parameters_mut() {
        if other == name {
            tensor.data_mut()[at] = value;
        }
    }
}

#[test]
fn a_tokenizer_that_is_smaller_than_the_model_is_filled_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let model = Gpt2::new(Gpt2Config::new(1, 2, 32, 16, 4), Init::Gpt2, 1).unwrap();
    let tokenizer = GgufTokenizer {
        tokens: vec!["a".into(), "é".into()],
        types: vec![1, 3],
        chat_template: Some("{{ x }}".into()),
        ..Default::default()
    };
    save_gguf(&model, &path, GgufType::F32, Some(&tokenizer), &[]).unwrap();
    let back = read_tokenizer(&path).unwrap().unwrap();
    assert_eq!(back.tokens, ["a", "é", "[PAD2]", "[PAD3]"]);
    assert_eq!(back.types, [1, 3, 5, 5]);
    assert_eq!(back.chat_template.as_deref(), Some("{{ x }}"));
}

#[test]
fn llmc_models_are_read_and_written_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let kinds = [(LlmcType::F32, "f32", (|x| x) as fn(f32) -> f32), (LlmcType::Bf16, "bf16", bf16)];
    for (kind, name, round) in kinds {
        let theirs = golden(&format!("llmc/{name}.bin"));
        let want = source("llmc", |_, x| round(x));
        let (trained, opened) = (Gpt2::load(&theirs).unwrap(), Gpt2::open(&theirs, None).unwrap());
        assert!(values(&trained) == want, "{kind:?}");
        assert!(values(&opened) == want, "{kind:?}");
        let config = trained.config();
        assert_eq!((config.vocab_size, config.n_ctx, config.n_layer, config.eot), (130, 9, 3, None));
        assert_eq!(*config, checkpoint::load_config(&theirs).unwrap());
        for model in [&trained, &opened] {
            let ours = dir.path().join("ours.bin");
            save_llmc(model, &ours, kind).unwrap();
            assert!(std::fs::read(&ours).unwrap() == std::fs::read(&theirs).unwrap(), "{kind:?}");
        }
    }
}

#[test]
fn a_model_goes_round_through_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let model = Gpt2::new(Gpt2Config::new(2, 3, 12, 10, 50257), Init::Gpt2, 7).unwrap();
    let (hf, bin, gguf) =
        (dir.path().join("hf"), dir.path().join("model.bin"), dir.path().join("model.gguf"));
    model.save(&hf).unwrap();
    save_llmc(&Gpt2::load(&hf).unwrap(), &bin, LlmcType::F32).unwrap();
    save_gguf(&Gpt2::load(&bin).unwrap(), &gguf, GgufType::F32, None, &[]).unwrap();
    let back = Gpt2::load(&gguf).unwrap();
    assert_eq!(back.config().eot, Some(50256));
    back.save(&dir.path().join("again")).unwrap();
    let weights = |dir: &str| std::fs::read(dir_of(&hf, dir)).unwrap();
    assert!(weights("hf") == weights("again"));
}

fn dir_of(hf: &Path, name: &str) -> PathBuf {
    hf.with_file_name(name).join(checkpoint::WEIGHTS)
}

#[test]
fn what_llmc_cannot_say_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    let mut config = Gpt2Config::new(1, 2, 32, 16, 50);
    config.n_inner = 64;
    let model = Gpt2::new(config.clone(), Init::Gpt2, 1).unwrap();
    says(save_llmc(&model, &path, LlmcType::F32), &["n_inner", "64"]);
    config.n_inner = 128;
    config.layer_norm_epsilon = 1e-3;
    let model = Gpt2::new(config, Init::Gpt2, 1).unwrap();
    says(save_llmc(&model, &path, LlmcType::F32), &["layer_norm_epsilon", "0.001"]);
    assert!(!path.exists());
}

/// A golden file, changed and opened.
fn changed(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<Gpt2, ModelError> {
    let mut bytes = std::fs::read(golden(name)).unwrap();
    change(&mut bytes);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    std::fs::write(&path, bytes).unwrap();
    Gpt2::open(&path, None)
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let at = bytes.windows(from.len()).position(|window| window == from).expect("it is there");
    bytes[at..at + to.len()].copy_from_slice(to);
}

#[test]
fn gguf_that_is_not_what_it_says_is_refused() {
    let f32 = "gguf/f32.gguf";
    let damaged = |change: &dyn Fn(&mut Vec<u8>), parts: &[&str]| {
        says(changed(f32, |bytes| change(bytes)), &[parts, &["not a whole GGUF file"]].concat());
    };
    let put = |at: usize, value: u64| {
        move |bytes: &mut Vec<u8>| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes())
    };
    damaged(&put(8, u64::MAX), &["left"]);
    damaged(&put(16, u64::MAX), &[]);
    damaged(&put(24, u64::MAX / 2), &["key of the metadata"]);
    damaged(&|bytes| bytes.truncate(bytes.len() - 64), &["output_norm.bias", "but the file has"]);
    damaged(&|bytes| bytes.truncate(20), &["left"]);
    damaged(&|bytes| replace(bytes, b"gpt2.block_count", b"gpt2.block_c\xffunt"), &["UTF-8"]);
    damaged(&|bytes| replace(bytes, b"gpt2.block_count", b"gpt2.block_clunt"), &["no `gpt2.block_count`"]);
    damaged(
        &|bytes| replace(bytes, b"blk.0.attn_norm.weight", b"blk.1.attn_norm.weight"),
        &["twice", "blk.1.attn_norm.weight"],
    );
    let version =
        |version: u32| move |bytes: &mut Vec<u8>| bytes[4..8].copy_from_slice(&version.to_le_bytes());
    changed(f32, version(2)).unwrap();
    says(changed(f32, version(1)), &["version 1"]);
    says(changed(f32, version(3u32.swap_bytes())), &["big-endian"]);
    let architecture =
        |bytes: &mut Vec<u8>| replace(bytes, b"\x04\0\0\0\0\0\0\0gpt2", b"\x04\0\0\0\0\0\0\0bert");
    says(changed(f32, architecture), &["general.architecture", "\"bert\""]);
    says(
        changed(f32, |bytes| replace(bytes, b"blk.0.attn_norm.weight", b"blk.0.attn_rope.weight")),
        &["blk.0.attn_rope.weight"],
    );
    says(
        changed("gguf/q8_0.gguf", |bytes| {
            // The type of the embedding table: number 8 becomes 10, Q2_K.
            let name = b"token_embd.weight";
            let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 20;
            assert_eq!(bytes[at], 8);
            bytes[at] = 10;
        }),
        &["wte.weight", "Q2_K"],
    );
    says(changed(f32, |bytes| bytes.clear()), &["the file is empty"]);
}

#[test]
fn llmc_that_is_not_what_it_says_is_refused() {
    let put = |at: usize, value: i32| {
        changed("llmc/f32.bin", |bytes| bytes[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes()))
    };
    says(put(1, 2), &["version 2", "3 (f32) and 5"]);
    says(put(1, 5), &["not a whole llm.c", "bytes"]);
    says(put(4, i32::MAX), &["n_layer"]);
    says(put(3, -5), &["vocab_size"]);
    says(put(7, 129), &["130 tokens", "129"]);
    says(put(7, i32::MAX), &["asks for"]);
    says(changed("llmc/f32.bin", |bytes| bytes.truncate(500)), &["500 bytes"]);
    says(changed("llmc/f32.bin", |bytes| bytes.push(0)), &["asks for"]);
}

#[test]
fn tokenizers_of_other_kinds_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let with = |from: &[u8], to: &[u8]| {
        let mut bytes = std::fs::read(golden("gguf/f32.gguf")).unwrap();
        replace(&mut bytes, from, to);
        std::fs::write(&path, bytes).unwrap();
        read_tokenizer(&path)
    };
    says(with(b"gpt-2", b"qwen2"), &["tokenizer.ggml.pre", "qwen2", "gpt-2"]);
    says(
        with(b"l\x08\0\0\0\x04\0\0\0\0\0\0\0gpt2", b"l\x08\0\0\0\x04\0\0\0\0\0\0\0bert"),
        &["tokenizer.ggml.model", "bert"],
    );
}
