//! Adapters: what is trained, gradients against finite differences, the same bits everywhere, merging, files.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use models::checkpoint::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, write_tensors};
use models::{Batch, Dropouts, Dtype, Gpt2, Gpt2Config, Init, KvCache, LoraConfig, Pass};
use serde_json::{Value, json};
use tensor::random::Stream;
use tensor::{Grads, Precision, pool};

const IDS: [u32; 8] = [3, 1, 4, 1, 5, 9, 2, 6];
const TARGETS: [u32; 8] = [1, 4, 1, 5, 9, 2, 6, 5];
const BATCH: Batch = Batch { ids: &IDS, targets: &TARGETS, weights: &[1.0; 8], batch: 2, lens: None };

fn base() -> Gpt2 {
    Gpt2::new(Gpt2Config::new(2, 2, 32, 16, 41), Init::Gpt2, 7).unwrap()
}

fn config(text: &str) -> LoraConfig {
    text.parse().unwrap()
}

/// A model whose adapters do something: B is not zero.
fn adapted(text: &str) -> Gpt2 {
    let mut model = base();
    model.add_lora(&config(text), 3).unwrap();
    for (slot, (name, tensor)) in model.trainable_mut().into_iter().enumerate() {
        if name.ends_with("lora_B.weight") {
            let stream = Stream::new(5, slot as u32, 0);
            tensor.data_mut().iter_mut().enumerate().for_each(|(i, x)| *x = 0.3 * stream.normal(i as u64));
        }
    }
    model
}

fn logits(model: &Gpt2) -> Vec<f32> {
    model.logits(&IDS, 2, &mut Pass::eval()).unwrap().data().to_vec()
}

fn gradients(model: &Gpt2, precision: Precision, recompute: bool) -> (f64, Grads) {
    let pass = Pass::train(model.zero_grads(), 11, 0).precision(precision).recompute(recompute);
    let loss = model.loss(&BATCH, pass).unwrap();
    (loss.value, loss.backward().unwrap())
}

fn near(got: &[f32], want: &[f32], most: f32) {
    assert_eq!(got.len(), want.len());
    let spread = want.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let off = got.iter().zip(want).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(off <= most * spread, "off by {off} of {spread}");
}

#[test]
fn a_new_adapter_changes_nothing_and_is_all_that_is_trained() {
    let mut model = base();
    let before = logits(&model);
    assert_eq!(model.trainable().len(), model.parameters().len());
    let lora = config("r=4,alpha=8,targets=c_attn+mlp.c_proj");
    model.add_lora(&lora, 1).unwrap();
    assert_eq!(logits(&model), before);
    let got: Vec<_> = model.trainable().iter().map(|(n, t)| (n.clone(), t.shape().to_vec())).collect();
    assert_eq!(got, lora.shapes(model.config()));
    let got: Vec<_> = model.trainable_mut().iter().map(|(n, t)| (n.clone(), t.shape().to_vec())).collect();
    assert_eq!(got, lora.shapes(model.config()));
    let grads = model.zero_grads();
    let values: usize = (0..grads.len()).map(|slot| grads.slot(slot).len()).sum();
    assert_eq!(values, lora.n_params(model.config()));
    // A is spread as PEFT's: uniform in ±1/√in.
    let (_, a) = model.trainable()[0].clone();
    let most = a.data().iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert!(most <= 1.0 / 32f32.sqrt() && most > 0.9 / 32f32.sqrt(), "{most}");
    assert!(model.add_lora(&lora, 1).unwrap_err().to_string().contains("merge it first"));
    let error = model.save(Path::new("nowhere")).unwrap_err().to_string();
    assert!(error.contains("leave out the model's adapter") && !Path::new("nowhere").exists(), "{error}");
}

/// Every trained value, by a central difference of the loss.
#[test]
fn gradients_are_those_of_finite_differences() {
    for text in ["r=2,alpha=4,targets=all-linear,dropout=0.2", "r=3,targets=c_proj,embeddings=true"] {
        let mut model = adapted(text);
        model.set_dropout(Dropouts { embd: 0.1, attn: 0.1, resid: 0.1 });
        let (_, grads) = gradients(&model, Precision::F32, false);
        let loss = |model: &Gpt2| gradients(model, Precision::F32, false).0;
        for slot in 0..model.trainable().len() {
            let len = model.trainable()[slot].1.len();
            for i in (0..len).step_by(1 + len / 7) {
                let mut at = |step: f32| {
                    model.trainable_mut()[slot].1.data_mut()[i] += step;
                    let value = loss(&model);
                    model.trainable_mut()[slot].1.data_mut()[i] -= step;
                    value
                };
                let want = (at(1e-2) - at(-1e-2)) / 2e-2;
                let got = f64::from(grads.slot(slot)[i]);
                let name = &model.trainable()[slot].0;
                assert!(
                    (got - want).abs() <= 2e-3 * (1.0 + want.abs()),
                    "{text} {name}[{i}]: {got}, not {want}"
                );
            }
        }
    }
}

/// The gradients by the adapters are those that they have beside trained weights: B's is the weight's, seen through A.
#[test]
fn gradients_agree_with_those_of_the_weights() {
    let mut model = base();
    let (_, full) = gradients(&model, Precision::F32, false);
    let slot = model.parameters().iter().position(|(name, _)| name == "h.1.mlp.c_fc.weight").unwrap();
    let dw = full.slot(slot).to_vec(); // (in, out)
    model.add_lora(&config("r=2,alpha=6,targets=h.1.mlp.c_fc"), 3).unwrap();
    let (_, grads) = gradients(&model, Precision::F32, false);
    let a = model.trainable()[0].1.data().to_vec(); // (r, in)
    let want: Vec<f32> = (0..2 * 128)
        .map(|i| 3.0 * (0..32).map(|k| a[i / 128 * 32 + k] * dw[k * 128 + i % 128]).sum::<f32>())
        .collect();
    near(grads.slot(1), &want, 1e-5);
    assert!(grads.slot(0).iter().all(|&g| g == 0.0), "A has no gradient while B is zero");
}

#[test]
fn bits_do_not_depend_on_threads_or_on_keeping() {
    let mut model = adapted("r=5,targets=all-linear,dropout=0.1,embeddings=true");
    model.set_dropout(Dropouts { embd: 0.1, attn: 0.1, resid: 0.1 });
    for precision in [Precision::F32, Precision::Bf16] {
        let all = |recompute| {
            let (loss, grads) = gradients(&model, precision, recompute);
            (loss, (0..grads.len()).map(|slot| grads.slot(slot).to_vec()).collect::<Vec<_>>())
        };
        let want = all(false);
        assert!(want.0.is_finite() && want.1.iter().flatten().any(|&g| g != 0.0));
        for threads in [1, 2, 3] {
            pool::set_threads(threads);
            assert!(all(false) == want, "{precision} with {threads} threads");
            assert!(all(true) == want, "{precision} with {threads} threads, computed again");
        }
    }
}

#[test]
fn bfloat16_is_near() {
    let model = adapted("r=4,targets=all-linear");
    let [(wide, want), (near_loss, got)] =
        [Precision::F32, Precision::Bf16].map(|precision| gradients(&model, precision, false));
    assert!((wide - near_loss).abs() < 0.01 * wide, "{near_loss}, not {wide}");
    (0..want.len()).for_each(|slot| near(got.slot(slot), want.slot(slot), 0.06));
}

#[test]
fn decoding_with_a_cache_gives_the_bits_of_the_whole_in_every_type() {
    let model = adapted("r=4,targets=all-linear");
    let wide = logits(&model);
    for dtype in Dtype::ALL {
        let model = model.to_dtype(dtype).unwrap();
        assert_eq!(model.lora(), Some(&config("r=4,targets=all-linear")));
        let full = model.logits(&IDS, 1, &mut Pass::eval()).unwrap();
        for chunks in [vec![8], vec![1; 8], vec![3, 5]] {
            let (mut cache, mut start): (KvCache, usize) = (model.cache(), 0);
            for n in chunks {
                let got = model.last_logits(&IDS[start..start + n], &mut Pass::cached(&mut cache)).unwrap();
                start += n;
                assert_eq!(got, full.data()[(start - 1) * 41..start * 41], "{dtype} after {start}");
            }
        }
        let most = match dtype {
            Dtype::F32 => 0.0,
            Dtype::Q4 => 0.5,
            _ => 0.06,
        };
        near(&logits(&model), &wide, most);
    }
}

/// Large channels are shared out between norms and layers before they are rounded; the adapter sees the same.
#[test]
fn blocks_are_made_with_the_adapter_in_place() {
    let mut model = adapted("r=4,alpha=16,targets=c_attn+c_fc");
    for (name, tensor) in model.parameters_mut() {
        if name.contains("ln_") && name.ends_with("weight") {
            tensor.data_mut().iter_mut().step_by(5).for_each(|w| *w *= 30.0);
        }
    }
    let want = logits(&model);
    assert_eq!(logits(&model.equalised().unwrap()), want, "powers of two change no bit");
    near(&logits(&model.to_dtype(Dtype::Q8).unwrap()), &want, 0.06);
}

#[test]
fn merged_weights_compute_the_same() {
    for text in ["r=4,alpha=8", "r=4,alpha=8,targets=all-linear,rslora=true"] {
        let model = adapted(text);
        let mut merged = model.clone();
        merged.merge_adapter().unwrap();
        assert!(merged.lora().is_none() && logits(&merged) != logits(&base()));
        near(&logits(&merged), &logits(&model), 1e-5);
        // All weights are trained again.
        let (_, grads) = gradients(&merged, Precision::F32, false);
        assert!((0..grads.len()).all(|slot| grads.slot(slot).iter().any(|&g| g != 0.0)));
        assert_eq!(merged.trainable().len(), merged.parameters().len());
        let error = model.to_dtype(Dtype::Q8).unwrap().merge_adapter().unwrap_err().to_string();
        assert!(error.contains("merged into weights of type q8"), "{error}");
    }
}

#[test]
fn files_bring_the_same_adapter_back() {
    let dir = tempfile::tempdir().unwrap();
    for text in [
        "r=4,alpha=3,dropout=0.25",
        "r=2,targets=attn.c_proj+mlp.c_fc,rslora=true",
        "targets=c_proj,embeddings=true",
    ] {
        let mut model = adapted(text);
        if config(text).embeddings {
            model.trainable_mut()[0].1.data_mut()[5] = 0.5;
        }
        model.save_adapter(dir.path(), "some/base").unwrap();
        assert_eq!(models::checkpoint::base_of_adapter(dir.path()).unwrap().as_deref(), Some("some/base"));
        let mut read = base();
        read.load_adapter(dir.path()).unwrap();
        assert_eq!(read.lora(), Some(&LoraConfig { base: "some/base".into(), ..config(text) }));
        assert_eq!(logits(&read), logits(&model), "{text}");
        assert!(gradients(&read, Precision::F32, false).0 == gradients(&model, Precision::F32, false).0);
        let mut trained = model.clone();
        trained.trainable_mut().into_iter().for_each(|(_, tensor)| tensor.data_mut().fill(0.1));
        assert_eq!(logits(&trained.load_trained(dir.path()).unwrap()), logits(&model), "{text}");
        // In place of another.
        let mut other = adapted("r=1,targets=c_fc");
        other.load_adapter(dir.path()).unwrap();
        assert_eq!(logits(&other), logits(&model), "{text}");
    }
    let error = base().save_adapter(dir.path(), "x").unwrap_err().to_string();
    assert!(error.contains("no adapter"), "{error}");
}

/// An adapter's files, changed by `change`, and what loading them says.
fn refused(change: impl FnOnce(&mut Value, &mut Vec<(String, Vec<usize>, Vec<f32>)>)) -> String {
    let dir = tempfile::tempdir().unwrap();
    adapted("r=4").save_adapter(dir.path(), "base").unwrap();
    let path = dir.path().join(ADAPTER_CONFIG);
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let weights = dir.path().join(ADAPTER_WEIGHTS);
    let read = models::checkpoint::read_tensors(&weights).unwrap().0;
    let mut tensors: Vec<_> = read.into_iter().map(|(name, (shape, values))| (name, shape, values)).collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    change(&mut json, &mut tensors);
    fs::write(&path, json.to_string()).unwrap();
    let views = tensors.iter().map(|(name, shape, values)| (name.clone(), &shape[..], &values[..]));
    write_tensors(&weights, views, Default::default()).unwrap();
    let mut model = base();
    let before = logits(&model);
    match model.load_adapter(dir.path()) {
        Ok(()) => "accepted".to_owned(),
        Err(error) => {
            assert!(
                model.lora().is_none() && logits(&model) == before,
                "a refused adapter leaves the model alone"
            );
            error.to_string()
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    assert_eq!(refused(|_, _| ()), "accepted");
    let field = |name: &'static str, value: Value| refused(|json, _| json[name] = value);
    for (name, value, part) in [
        ("use_dora", json!(true), "DoRA"),
        ("peft_type", json!("IA3"), "only LoRA"),
        ("peft_type", Value::Null, "`peft_type` is null"),
        ("bias", json!("lora_only"), "trained biases"),
        ("lora_bias", json!(true), "biases of adapters"),
        ("init_lora_weights", json!("pissa"), "plain LoRA"),
        ("layer_replication", json!([[0, 1]]), "repeats layers"),
        ("trainable_token_indices", json!([3]), "single rows"),
        ("rank_pattern", json!({"c_(attn|proj)": 4}), "regular expressions"),
        ("r", json!(0), "`r` is 0"),
        ("r", json!(1e300), "whole number"),
        ("r", json!(5), "needs [5, 32]"),
        ("lora_alpha", json!("much"), "must be a number"),
        ("lora_dropout", json!(1.5), "below 1"),
        ("target_modules", json!(["c_attn", "c_fc"]), "h.0.mlp.c_fc.lora_A.weight` is missing"),
        ("target_modules", json!([3]), "list of names"),
    ] {
        let error = field(name, value.clone());
        assert!(error.contains(part), "{name} {value}: {error}");
    }
    let a = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight";
    let named = |from: &'static str, to: &'static str| {
        refused(move |_, tensors| tensors.iter_mut().for_each(|(name, ..)| *name = name.replace(from, to)))
    };
    for (from, to, part) in [
        ("h.1.", "h.7.", "of layer 7, but this model has 2"),
        ("h.1.attn.c_attn", "h.1.attn.q_proj", "q_proj"),
        ("h.1.attn.c_attn.lora_B", "h.1.attn.c_attn.lora_magnitude_vector", "magnitude"),
        ("lora_B", "lora_C", "not adapted here"),
        ("lora", "adapter", "not adapted here"),
    ] {
        let error = named(from, to);
        assert!(error.contains(part), "{from} → {to}: {error}");
    }
    let error = refused(|_, tensors| tensors[0].1 = vec![2, 64]);
    assert!(error.contains(a) && error.contains("[2, 64]") && error.contains("another model"), "{error}");
    let error = refused(|_, tensors| tensors[0].2[3] = f32::NAN);
    assert!(error.contains(a) && error.contains("NaN"), "{error}");
    let error = refused(|json, tensors| {
        json["target_modules"] = json!("all-linear");
        tensors.iter_mut().for_each(|(name, ..)| *name = name.replace("h.1", "h.7"));
    });
    assert!(error.contains("of layer 7, but this model has 2"), "{error}");
    let error = refused(|_, tensors| {
        tensors.push(("base_model.model.transformer.wte.weight".into(), vec![41, 16], vec![0.0; 41 * 16]));
    });
    assert!(error.contains("wte.weight` has shape [41, 16]"), "{error}");
}

#[test]
fn damaged_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = |dir: &Path| base().load_adapter(dir).unwrap_err().to_string();
    assert!(error(dir.path()).contains("`adapter_config.json` is missing"));
    adapted("r=4").save_adapter(dir.path(), "base").unwrap();
    let (config, weights) = (dir.path().join(ADAPTER_CONFIG), dir.path().join(ADAPTER_WEIGHTS));
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    assert!(error(dir.path()).contains("adapter_model.safetensors"));
    fs::write(&weights, [0xff; 40]).unwrap();
    assert!(error(dir.path()).contains("not a whole safetensors file"));
    fs::remove_file(&weights).unwrap();
    fs::write(dir.path().join("adapter_model.bin"), [0; 4]).unwrap();
    assert!(error(dir.path()).contains("writes safetensors"));
    for text in ["", "[]", "{", "nul\u{0}"] {
        fs::write(&config, text).unwrap();
        assert!(error(dir.path()).contains("adapter_config.json"), "{text:?}");
    }
    let mut model = adapted("r=2").to_dtype(Dtype::Q4).unwrap();
    let refused = model.load_adapter(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("--dtype"), "{refused}");
}

/// A grown vocabulary goes with the adapter.
#[test]
fn a_larger_table_comes_along() {
    let dir = tempfile::tempdir().unwrap();
    adapted("r=4,embeddings=true").save_adapter(dir.path(), "base").unwrap();
    let weights = dir.path().join(ADAPTER_WEIGHTS);
    let mut tensors = models::checkpoint::read_tensors(&weights).unwrap().0;
    let table = tensors.get_mut("base_model.model.transformer.wte.weight").unwrap();
    table.0[0] = 43;
    table.1.extend([0.25; 64]);
    let views = tensors.iter().map(|(name, (shape, values))| (name.clone(), &shape[..], &values[..]));
    write_tensors(&weights, views, Default::default()).unwrap();
    let mut model = base();
    model.load_adapter(dir.path()).unwrap();
    assert_eq!((model.config().vocab_size, model.trainable()[0].1.shape()), (43, &[43, 32][..]));
    assert_eq!(model.logits(&[42, 41], 1, &mut Pass::eval()).unwrap().shape(), [1, 2, 43]);
    assert!(model.logits(&[43], 1, &mut Pass::eval()).is_err());
}
