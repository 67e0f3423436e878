//! Files of PyTorch: every way of saving one model gives the same weights, and PyTorch reads what we write.
//!
//! `tests/golden/torch_files.py` made the files. `GPT2_PYTHON` names a Python that has torch, to load ours.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io::Write};

use models::{Dtype, Gpt2, Gpt2Config, Init, Pass, checkpoint};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/torch").join(name)
}

type Values = Vec<(String, Vec<f32>)>;

fn values(model: &Gpt2) -> Values {
    let tensors = model.parameters().into_iter();
    tensors.map(|(name, tensor)| (name, tensor.decoded().into_owned())).collect()
}

/// The weights of the model that all `hf_*` files hold, rounded to a type.
fn want(dtype: Dtype) -> Values {
    let mut model = Gpt2::load(&golden("")).unwrap();
    if dtype != Dtype::F32 {
        for (_, tensor) in model.parameters_mut() {
            let round = |x: f32| match dtype {
                Dtype::F16 => tensor::f16::from_f32(x).to_f32(),
                _ => tensor::bf16::from_f32(x).to_f32(),
            };
            tensor.data_mut().iter_mut().for_each(|x| *x = round(*x));
        }
    }
    values(&model)
}

#[track_caller]
fn check(path: &Path, dtype: Dtype) {
    let want = want(dtype);
    let opened = Gpt2::open(path, None).unwrap();
    assert_eq!(opened.dtype(), dtype, "{}", path.display());
    assert!(values(&opened) == want, "{}: weights differ when opened", path.display());
    assert!(values(&Gpt2::load(path).unwrap()) == want, "{}: weights differ when loaded", path.display());
}

#[test]
fn all_containers_and_wrappers_hold_the_same_weights() {
    for name in ["hf_zip.bin", "hf_legacy.bin", "hf_bare_parameters.pt", "hf_wrapped_legacy.pth", "hf_f64.pt"]
    {
        check(&golden(name), Dtype::F32);
    }
    check(&golden("hf_views.pt"), Dtype::F32);
    check(&golden("hf_f16.pt"), Dtype::F16);
    check(&golden("hf_bf16.pt"), Dtype::Bf16);
}

#[test]
fn a_directory_may_hold_files_of_pytorch() {
    check(&golden("sharded"), Dtype::F32);
    for file in ["hf_zip.bin", "hf_legacy.bin"] {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(golden("config.json"), dir.path().join("config.json")).unwrap();
        fs::copy(golden(file), dir.path().join("pytorch_model.bin")).unwrap();
        check(dir.path(), Dtype::F32);
    }
    let dir = tempfile::tempdir().unwrap();
    fs::copy(golden("nano_bias.pt"), dir.path().join("ckpt.pt")).unwrap();
    let (found, want) = (Gpt2::load(dir.path()).unwrap(), Gpt2::load(&golden("nano_bias.pt")).unwrap());
    assert!(values(&found) == values(&want));
}

#[test]
fn indexes_name_files_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"] {
        fs::copy(golden("sharded").join(name), dir.path().join(name)).unwrap();
    }
    let index = fs::read_to_string(golden("sharded/pytorch_model.bin.index.json")).unwrap();
    let refused = |change: &dyn Fn(String) -> String, says: &str| {
        fs::write(dir.path().join("pytorch_model.bin.index.json"), change(index.clone())).unwrap();
        let error = Gpt2::open(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    let renamed =
        |name: &'static str| move |index: String| index.replace("pytorch_model-00001-of-00002.bin", name);
    for name in ["../pytorch_model-00001-of-00002.bin", "a/b.bin", "..", ".", "", "C:x"] {
        refused(&renamed(name), "no plain file name");
    }
    #[cfg(unix)]
    {
        let whole = golden("sharded/pytorch_model-00001-of-00002.bin").canonicalize().unwrap();
        std::os::unix::fs::symlink(whole, dir.path().join("link.bin")).unwrap();
        refused(&renamed("link.bin"), "a link to another place");
        // Nobody ever writes to it, and who opens it would wait.
        if std::process::Command::new("mkfifo").arg(dir.path().join("pipe.bin")).status().is_ok() {
            refused(&renamed("pipe.bin"), "missing");
        }
    }
    refused(&|index| index.replace("pytorch_model-00001", "pytorch_model-00003"), "pytorch_model-00003");
    refused(&|index| index.replace("transformer.ln_f.bias", "transformer.ln_g.bias"), "ln_g.bias");
    refused(&|index| index.replace("weight_map", "weights"), "weight_map");
    refused(&|index| index[1..].to_owned(), "index.json");
}

/// The model of nanoGPT: names, matrices that lie the other way, and biases that may be missing.
#[test]
fn nano_gpt_is_the_same_function() {
    for name in ["nano_bias", "nano_no_bias"] {
        let path = golden(&format!("{name}.pt"));
        let model = Gpt2::load(&path).unwrap();
        let config = model.config();
        let shape = [config.n_layer, config.n_head, config.n_embd, config.n_ctx, config.vocab_size];
        assert_eq!(shape, [2, 2, 8, 10, 19]);
        assert_eq!(config.dropout, models::Dropouts::all(0.2));
        let golden = golden(&format!("{name}.safetensors"));
        let (theirs, _) = checkpoint::read_tensors(&golden).unwrap();
        for (name, tensor) in model.parameters() {
            let Some((shape, values)) = theirs.get(&format!("transformer.{name}")) else {
                assert!(tensor.data().iter().all(|&x| x == 0.0), "{name} is not in the file, but not 0");
                assert!(path.ends_with("nano_no_bias.pt") && name.ends_with(".bias"), "{name} is missing");
                continue;
            };
            if shape.len() == 1 || name.starts_with('w') {
                assert_eq!(tensor.data(), values, "{name}");
                continue;
            }
            let (rows, cols) = (shape[0], shape[1]);
            assert_eq!(tensor.shape(), [cols, rows], "{name}");
            let turned: Vec<f32> = (0..rows * cols).map(|i| values[i % rows * cols + i / rows]).collect();
            assert_eq!(tensor.data(), turned, "{name}");
        }
        let ids: Vec<u32> = theirs["ids"].1.iter().map(|&id| id as u32).collect();
        let logits = model.logits(&ids, 1, &mut Pass::eval()).unwrap();
        let wrong =
            logits.data().iter().zip(&theirs["logits"].1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(wrong < 2e-5, "{name}: logits differ by {wrong}");
        let notes = checkpoint::assumptions(&path).unwrap();
        assert!(notes.len() == 1 && notes[0].contains("\"gelu\""), "{notes:?}");
    }
}

#[test]
fn characters_of_nano_gpt() {
    let chars = checkpoint::read_nano_gpt_chars(&golden("meta.pkl")).unwrap();
    let mut want: Vec<char> = "\n !$&',-.3:;?é中文ABCabcxyz".chars().collect();
    want.sort_unstable();
    let found: Vec<(String, u32)> = want.iter().enumerate().map(|(i, c)| (c.to_string(), i as u32)).collect();
    assert_eq!(chars, found);
}

/// Writes a state dict as PyTorch would: the config that is in ours goes under a name that nobody looks for.
fn save_without_config(model: &Gpt2, path: &Path) {
    checkpoint::save_torch(model, path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    let name = b"archive/config.json";
    let places: Vec<usize> =
        (0..bytes.len() - name.len()).filter(|&at| bytes[at..].starts_with(name)).collect();
    assert_eq!(places.len(), 2, "its own header, and the directory");
    places.into_iter().for_each(|at| bytes[at..at + name.len()].copy_from_slice(b"archive/nothing.txt"));
    fs::write(path, bytes).unwrap();
}

#[test]
fn without_a_config_the_shapes_say_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.pt");
    let config = Gpt2Config { n_inner: 100, ..Gpt2Config::new(3, 2, 128, 12, 23) };
    let model = Gpt2::new(config.clone(), Init::Gpt2, 1).unwrap();
    save_without_config(&model, &path);
    let found = Gpt2::open(&path, None).unwrap();
    assert_eq!(*found.config(), config);
    assert!(values(&found) == values(&model));
    let notes = checkpoint::assumptions(&path).unwrap();
    assert_eq!(notes, ["the file does not say the number of heads: 2 are taken, of 64 columns each"]);

    let odd = Gpt2::new(Gpt2Config::new(1, 2, 40, 12, 23), Init::Gpt2, 1).unwrap();
    save_without_config(&odd, &path);
    let error = Gpt2::open(&path, None).unwrap_err().to_string();
    assert!(error.contains("`n_head`") && error.contains("config.json"), "{error}");
    // With a config in it or beside it, that is read.
    checkpoint::save_torch(&odd, &path).unwrap();
    assert_eq!(Gpt2::open(&path, None).unwrap().config(), odd.config());
    save_without_config(&odd, &path);
    fs::write(dir.path().join("config.json"), odd.config().to_json().to_string()).unwrap();
    assert!(values(&Gpt2::open(&path, None).unwrap()) == values(&odd));
    assert!(checkpoint::assumptions(&path).unwrap().is_empty());
}

#[test]
fn what_we_write_we_read_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.pt");
    let model = Gpt2::new(Gpt2Config::new(2, 1, 64, 40, 51), Init::Gpt2, 3).unwrap();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let model = model.to_dtype(dtype).unwrap();
        checkpoint::save_torch(&model, &path).unwrap();
        let first = fs::read(&path).unwrap();
        let found = Gpt2::open(&path, None).unwrap();
        assert_eq!(found.dtype(), dtype);
        assert!(values(&found) == values(&model), "{dtype}");
        checkpoint::save_torch(&found, &path).unwrap();
        assert!(first == fs::read(&path).unwrap(), "{dtype}: other bytes the second time");
        let entries = entries(&first);
        assert!(entries.iter().all(|entry| entry.start % 64 == 0), "{dtype}: what is not aligned");
        // The output layer takes no room of its own.
        assert_eq!(
            entries.iter().filter(|entry| entry.name.contains("/data/")).count(),
            model.parameters().len()
        );
    }
    let error = checkpoint::save_torch(&model.to_dtype(Dtype::Q8).unwrap(), &path).unwrap_err().to_string();
    assert!(error.contains("q8"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was left beside the file");
}

struct Entry {
    name: String,
    start: u64,
    bytes: Vec<u8>,
}

fn entries(zip: &[u8]) -> Vec<Entry> {
    let archive = rawzip::ZipArchive::from_slice(zip).unwrap();
    let entry = |record: rawzip::ZipFileHeaderRecord| {
        let entry = archive.get_entry(record.wayfinder()).unwrap();
        let name = String::from_utf8(record.file_path().as_bytes().to_vec()).unwrap();
        Entry { name, start: entry.compressed_data_range().0, bytes: entry.data().to_vec() }
    };
    archive.entries().map(|record| entry(record.unwrap())).collect()
}

#[test]
fn big_endian_files_are_turned() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(golden("config.json"), dir.path().join("config.json")).unwrap();
    for (name, size, dtype) in
        [("hf_zip.bin", 4, Dtype::F32), ("hf_bf16.pt", 2, Dtype::Bf16), ("hf_f64.pt", 8, Dtype::F32)]
    {
        let mut zip = rawzip::ZipArchiveWriter::new(Vec::new());
        for mut entry in entries(&fs::read(golden(name)).unwrap()) {
            if entry.name.contains("/data/") {
                entry.bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
            } else if entry.name.ends_with("/byteorder") {
                entry.bytes = b"big".to_vec();
            }
            let (mut file, config) = zip.new_file(&*entry.name).start().unwrap();
            let mut data = config.wrap(&mut file);
            data.write_all(&entry.bytes).unwrap();
            let (_, descriptor) = data.finish().unwrap();
            file.finish(descriptor).unwrap();
        }
        let path = dir.path().join(name);
        fs::write(&path, zip.finish().unwrap()).unwrap();
        check(&path, dtype);
    }
}

/// Loads with `weights_only=True`, mapped and not, and says sums and types; checks that the table is the output layer.
const ASK: &str = "
import json, sys, torch
answer = []
for mmap in (False, True):
    state = torch.load(sys.argv[1], weights_only=True, mmap=mmap)
    assert state['lm_head.weight'].data_ptr() == state['transformer.wte.weight'].data_ptr()
    answer.append({k: [str(v.dtype), v.double().flatten().tolist()] for k, v in state.items()})
assert answer[0] == answer[1]
print(json.dumps(answer[0]))
";

#[test]
fn pytorch_loads_what_we_write() {
    let Ok(python) = env::var("GPT2_PYTHON") else {
        eprintln!(
            "SKIPPED: GPT2_PYTHON does not name a Python with torch, so our .pt files were not checked"
        );
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.pt");
    let model = Gpt2::new(Gpt2Config::new(2, 3, 36, 20, 33), Init::Gpt2, 3).unwrap();
    for (dtype, theirs) in
        [(Dtype::F32, "torch.float32"), (Dtype::F16, "torch.float16"), (Dtype::Bf16, "torch.bfloat16")]
    {
        let model = model.to_dtype(dtype).unwrap();
        checkpoint::save_torch(&model, &path).unwrap();
        let out = Command::new(&python).args(["-c", ASK]).arg(&path).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let mut found: HashMap<String, (String, Vec<f32>)> = serde_json::from_slice(&out.stdout).unwrap();
        let table = found.remove("lm_head.weight").unwrap();
        assert_eq!(table, found["transformer.wte.weight"]);
        for (name, want) in values(&model) {
            let (kind, values) = found.remove(&format!("transformer.{name}")).unwrap();
            assert!(values == want, "{name} differs in {dtype}");
            assert!(kind == theirs || kind == "torch.float32", "{name} is {kind}");
        }
        assert!(found.is_empty());
    }
}
