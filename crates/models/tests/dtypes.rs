//! Every type of weights: saved and opened, decoded in portions, and refused where the file is not what it says.

use std::collections::BTreeMap;
use std::path::Path;

use models::{Batch, Dtype, Gpt2, Gpt2Config, Init, Pass};
use serde_json::{Map, Value, json};

/// Widths that are no multiples of 32, and one that is.
fn models() -> Vec<Gpt2> {
    let shapes = [(3, 12, 33), (2, 40, 50), (4, 64, 95)];
    let model = |(n_head, n_embd, vocab)| {
        Gpt2::new(Gpt2Config::new(2, n_head, n_embd, 80, vocab), Init::Gpt2, 7).unwrap()
    };
    shapes.into_iter().map(model).collect()
}

fn ids(model: &Gpt2, n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * i + 3 * i) % model.config().vocab_size as u32).collect()
}

fn logits(model: &Gpt2, ids: &[u32]) -> Vec<f32> {
    model.logits(ids, 1, &mut Pass::eval()).unwrap().data().to_vec()
}

#[test]
fn cached_decoding_equals_the_full_forward_bit_for_bit() {
    for model in models() {
        let (c, v) = (model.config().n_embd, model.config().vocab_size);
        let dir = tempfile::tempdir().unwrap();
        model.save(dir.path()).unwrap();
        for dtype in Dtype::ALL {
            let model = Gpt2::open(dir.path(), Some(dtype)).unwrap();
            let ids = ids(&model, 70);
            let full = logits(&model, &ids);
            for chunks in [vec![70], vec![1; 70], vec![63, 1, 1, 5], vec![7; 10], vec![33, 37]] {
                let (mut cache, mut start) = (model.cache(), 0);
                for n in chunks {
                    let got =
                        model.last_logits(&ids[start..start + n], &mut Pass::cached(&mut cache)).unwrap();
                    start += n;
                    assert_eq!(
                        got,
                        full[(start - 1) * v..start * v],
                        "{dtype}, width {c}: after {start}, {n} at once"
                    );
                }
            }
        }
    }
}

#[test]
fn scores_and_logits_are_of_one_arithmetic() {
    for model in models() {
        for dtype in Dtype::ALL {
            let model = model.to_dtype(dtype).unwrap();
            let (all, v) = (ids(&model, 41), model.config().vocab_size);
            let (ids, targets) = (&all[..40], &all[1..]);
            let batch = Batch { ids, targets, weights: &[1.0; 40], batch: 2, lens: Some(&[30, 10]) };
            let scores = model.scores(&batch).unwrap();
            let mut rows = logits(&model, &ids[..30]);
            rows.extend(logits(&model, &ids[30..]));
            for (i, row) in rows.chunks_exact(v).enumerate() {
                let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                let want = sum.ln() - f64::from(row[targets[i] as usize]);
                assert!(
                    (f64::from(scores.loss[i]) - want).abs() < 1e-5,
                    "{dtype}: {} and {want}",
                    scores.loss[i]
                );
            }
        }
    }
}

#[test]
fn what_is_saved_is_what_opening_the_original_in_that_type_gives() {
    for model in models() {
        let dir = tempfile::tempdir().unwrap();
        let [original, saved] = ["f32", "other"].map(|name| dir.path().join(name));
        model.save(&original).unwrap();
        let ids = ids(&model, 50);
        for dtype in Dtype::ALL {
            let made = model.to_dtype(dtype).unwrap();
            made.save(&saved).unwrap();
            let opened = Gpt2::open(&saved, None).unwrap();
            let converted = Gpt2::open(&original, Some(dtype)).unwrap();
            assert_eq!([opened.dtype(), converted.dtype()], [dtype; 2]);
            assert_eq!(opened.weight_bytes(), made.weight_bytes());
            let want = logits(&made, &ids);
            assert_eq!(logits(&opened, &ids), want, "{dtype}, saved and opened");
            assert_eq!(logits(&converted, &ids), want, "{dtype}, converted");
            // To be trained, it is decoded.
            let trained = Gpt2::load(&saved).unwrap();
            assert_eq!(trained.dtype(), Dtype::F32);
            for ((name, a), (_, b)) in trained.parameters().iter().zip(opened.parameters()) {
                assert_eq!(a.data(), &*b.decoded(), "{dtype}, {name}");
            }
        }
    }
}

#[test]
fn fewer_bits_are_near() {
    for model in models() {
        let ids = ids(&model, 60);
        let want = logits(&model, &ids);
        let spread = want.iter().map(|x| x * x).sum::<f32>();
        for (dtype, most) in [(Dtype::F16, 1e-4), (Dtype::Bf16, 1e-4), (Dtype::Q8, 1e-3), (Dtype::Q4, 4e-2)] {
            let got = logits(&model.to_dtype(dtype).unwrap(), &ids);
            let error = got.iter().zip(&want).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / spread;
            assert!(error < most, "{dtype}: {error}");
        }
    }
}

#[test]
fn equalising_keeps_every_bit() {
    for mut model in models() {
        for (name, tensor) in model.parameters_mut() {
            if name.contains("ln_1.weight") {
                tensor.data_mut()[1] = 60.0;
            }
        }
        let equal = model.equalised().unwrap();
        let large = |model: &Gpt2| model.parameters()[2].1.data().iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert!(large(&equal) < large(&model) / 4.0, "{} of {}", large(&equal), large(&model));
        let ids = ids(&model, 30);
        assert_eq!(logits(&equal, &ids), logits(&model, &ids));
    }
}

/// A safetensors file, taken apart.
struct File {
    header: Map<String, Value>,
    data: BTreeMap<String, Vec<u8>>,
}

impl File {
    fn read(dir: &Path) -> File {
        let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
        header.remove("__metadata__");
        let at = |entry: &Value, i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize + 8 + len;
        let data =
            header.iter().map(|(name, entry)| (name.clone(), bytes[at(entry, 0)..at(entry, 1)].to_vec()));
        let data = data.collect();
        File { header, data }
    }

    fn write(&mut self, dir: &Path) {
        let mut all = Vec::new();
        for (name, data) in &self.data {
            let offsets = json!([all.len(), all.len() + data.len()]);
            self.header[name]["data_offsets"] = offsets;
            all.extend_from_slice(data);
        }
        let header = serde_json::to_vec(&self.header).unwrap();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &all].concat();
        std::fs::write(dir.join("model.safetensors"), bytes).unwrap();
    }
}

const MATRIX: &str = "transformer.h.1.mlp.c_fc.weight";

/// Opens a model of this type, after a change to its file, and gives the error of running it, and of training it.
fn refused(dtype: Dtype, change: impl Fn(&mut File)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let model = Gpt2::new(Gpt2Config::new(2, 2, 64, 16, 50), Init::Gpt2, 1).unwrap();
    model.to_dtype(dtype).unwrap().save(dir.path()).unwrap();
    let mut file = File::read(dir.path());
    change(&mut file);
    file.write(dir.path());
    let error = Gpt2::open(dir.path(), None).unwrap_err().to_string();
    assert!(Gpt2::load(dir.path()).is_err(), "training takes what running refuses: {error}");
    error
}

#[track_caller]
fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "the error does not say {part:?}: {error}");
    }
}

#[test]
fn wrong_numbers_of_blocks_are_refused() {
    // A (64, 256) matrix: 8 panels of 2 blocks.
    let reshape = |shape: Value, len: usize| {
        move |file: &mut File| {
            file.header[MATRIX]["shape"] = shape.clone();
            file.data.get_mut(MATRIX).unwrap().resize(len, 0);
        }
    };
    let all = ["h.1.mlp.c_fc.weight", "64 × 256", "[8, 2, 1088]", "[8, 2, 576]", "gpt2 quantize"];
    for shape in
        [[8, 3, 1088], [7, 2, 1088], [9, 2, 1088], [2, 8, 1088], [8, 2, 1089], [8, 2, 577], [1088, 2, 8]]
    {
        says(&refused(Dtype::Q8, reshape(json!(shape), shape.iter().product())), &all);
    }
    says(&refused(Dtype::Q4, reshape(json!([0, 2, 576]), 0)), &all);
    says(
        &refused(Dtype::Q8, reshape(json!([17408]), 17408)),
        &["h.1.mlp.c_fc.weight", "U8", "gpt2 quantize"],
    );
    says(&refused(Dtype::Q8, reshape(json!([8, 2, 1088, 1]), 17408)), &["h.1.mlp.c_fc.weight", "U8"]);
    let panels = ["h.1.mlp.c_fc.weight", "64 × 256", "[8, 32, 32, 2]", "gpt2 quantize"];
    for shape in [[8, 31, 32, 2], [32, 8, 32, 2], [8, 32, 2, 32]] {
        let len = 2 * shape.iter().product::<usize>();
        says(&refused(Dtype::Bf16, reshape(json!(shape), len)), &panels);
    }
}

#[test]
fn scales_that_cannot_be_are_refused() {
    let scale = |at: usize, bits: u16| {
        move |file: &mut File| {
            file.data.get_mut(MATRIX).unwrap()[at..at + 2].copy_from_slice(&bits.to_le_bytes());
        }
    };
    let (nan, infinite, negative_zero) = (0x7e00, 0xfc00, 0x8000);
    for dtype in [Dtype::Q8, Dtype::Q4] {
        says(
            &refused(dtype, scale(0, nan)),
            &["`h.1.mlp.c_fc.weight`", "block 0 of column 0 is NaN", "damaged"],
        );
        says(&refused(dtype, scale(6, infinite)), &["column 3 is -inf", "damaged"]);
        says(&refused(dtype, scale(62, negative_zero)), &["block 0 of column 31 is -0.0", "damaged"]);
    }
}

#[test]
fn files_that_are_cut_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = Gpt2::new(Gpt2Config::new(2, 2, 64, 16, 50), Init::Gpt2, 1).unwrap();
    for dtype in Dtype::ALL {
        model.to_dtype(dtype).unwrap().save(dir.path()).unwrap();
        let path = dir.path().join("model.safetensors");
        let whole = std::fs::read(&path).unwrap();
        for len in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            for error in
                [Gpt2::open(dir.path(), None), Gpt2::load(dir.path())].map(|m| m.unwrap_err().to_string())
            {
                says(&error, &["model.safetensors", "copy or download it again"]);
            }
        }
    }
}

#[test]
fn types_that_do_not_go_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = Gpt2::new(Gpt2Config::new(2, 2, 64, 16, 50), Init::Gpt2, 1).unwrap();
    model.to_dtype(Dtype::Q4).unwrap().save(dir.path()).unwrap();
    let other = File::read(dir.path());
    let exchanged = |file: &mut File| {
        file.header[MATRIX] = other.header[MATRIX].clone();
        file.data.insert(MATRIX.to_owned(), other.data[MATRIX].clone());
    };
    model.to_dtype(Dtype::Q8).unwrap().save(dir.path()).unwrap();
    let mut file = File::read(dir.path());
    exchanged(&mut file);
    file.write(dir.path());
    let error = Gpt2::open(dir.path(), None).unwrap_err().to_string();
    says(&error, &["`h.1.mlp.c_fc.weight`", "q4", "q8", "gpt2 quantize"]);
    let unknown = refused(Dtype::F32, |file| file.header[MATRIX]["dtype"] = json!("I32"));
    says(&unknown, &["h.1.mlp.c_fc.weight", "I32", "float32"]);
}

#[test]
fn weights_that_are_no_numbers_are_not_made_into_blocks() {
    let mut model = Gpt2::new(Gpt2Config::new(1, 2, 64, 16, 50), Init::Gpt2, 1).unwrap();
    for (name, tensor) in model.parameters_mut() {
        if name == "h.0.mlp.c_proj.weight" {
            tensor.data_mut()[5] = f32::NAN;
        }
    }
    let error = model.to_dtype(Dtype::Q4).unwrap_err().to_string();
    says(&error, &["`h.0.mlp.c_proj.weight`", "not finite"]);
}
