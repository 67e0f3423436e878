//! Every switch of `config.json` that changes GPT-2's arithmetic, held to transformers: `tests/golden/make_switches.py`
//! makes the cases.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use models::checkpoint::read_tensors;
use models::{Batch, Dtype, Gpt2, Pass, Run, Tap};
use tensor::{Precision, Tensor};

/// Largest difference, over the spread of the values compared.
const NEAR: f32 = 1e-5;

struct Case {
    name: String,
    dir: PathBuf,
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Case {
    fn all() -> Vec<Case> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/switches");
        let dirs = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut cases: Vec<Case> = dirs
            .map(|dir| {
                let (tensors, _) = read_tensors(&dir.join("golden.safetensors")).unwrap();
                Case { name: dir.file_name().unwrap().to_str().unwrap().to_owned(), dir, tensors }
            })
            .collect();
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(cases.len() >= 12, "the golden cases are there");
        cases
    }

    fn values(&self, name: &str) -> &[f32] {
        &self.tensors.get(name).unwrap_or_else(|| panic!("{}: no `{name}`", self.name)).1
    }

    /// (B, T) tokens.
    fn tokens(&self, name: &str) -> Vec<Vec<u32>> {
        let width = self.tensors[name].0[1];
        self.values(name).chunks(width).map(|row| row.iter().map(|&id| id as u32).collect()).collect()
    }

    #[track_caller]
    fn near(&self, what: &str, got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len(), "{}: {what}", self.name);
        let (low, high) = want.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
        let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs() / (high - low).max(1e-3));
        let worst = worst.fold(0.0, |most, x| if x.is_nan() || x > most { x } else { most });
        assert!(worst <= NEAR, "{}: {what} differs by {worst:.1e} of its spread", self.name);
    }
}

#[derive(Debug, Default)]
struct Streams(Vec<Vec<f32>>);

impl Tap for Streams {
    fn see(&mut self, _weight: &str, _x: &Tensor) {}

    fn see_stream(&mut self, layer: usize, x: &Tensor) {
        assert_eq!(layer, self.0.len());
        self.0.push(x.data().to_vec());
    }
}

#[test]
fn logits_hidden_states_loss_and_gradients_are_those_of_transformers() {
    for case in Case::all() {
        let model = Gpt2::load(&case.dir).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let rows = case.tokens("ids");
        let ids = rows.concat();
        let mut streams = Streams::default();
        let hidden = model.hidden(&ids, rows.len(), &mut Pass::eval().tapped(&mut streams)).unwrap();
        for (layer, stream) in streams.0.iter().enumerate() {
            case.near(&format!("hidden {layer}"), stream, case.values(&format!("hidden.{layer}")));
        }
        let last = format!("hidden.{}", model.config().n_layer);
        case.near(&last, hidden.data(), case.values(&last));
        let logits = model.logits(&ids, rows.len(), &mut Pass::eval()).unwrap();
        case.near("logits", logits.data(), case.values("logits"));

        let seen: Vec<u32> = rows.iter().flat_map(|row| row[..row.len() - 1].to_vec()).collect();
        let targets: Vec<u32> = rows.iter().flat_map(|row| row[1..].to_vec()).collect();
        let weights = vec![1.0 / targets.len() as f32; targets.len()];
        let batch = Batch { ids: &seen, targets: &targets, weights: &weights, batch: rows.len(), lens: None };
        let want = case.values("loss")[0];
        for recompute in [false, true] {
            let pass = Pass::train(model.zero_grads(), 0, 0).recompute(recompute);
            let loss = model.loss(&batch, pass).unwrap();
            assert!((loss.value as f32 - want).abs() < 1e-5, "{}: {} {want}", case.name, loss.value);
            let grads = loss.backward().unwrap();
            for (slot, (name, _)) in model.parameters().iter().enumerate() {
                case.near(
                    &format!("gradient of {name}"),
                    grads.slot(slot),
                    case.values(&format!("grad.{name}")),
                );
            }
        }
        // The same function in bfloat16, as near as its 8 bits allow.
        let half = Pass::train(model.zero_grads(), 0, 0).precision(Precision::Bf16);
        let loss = model.loss(&batch, half).unwrap().value as f32;
        assert!((loss - want).abs() < 0.03 * want, "{}: {loss} in bfloat16, not {want}", case.name);
        let scores = model.scores(&batch).unwrap();
        let mean = scores.loss.iter().sum::<f32>() / scores.loss.len() as f32;
        assert!((mean - want).abs() < 1e-5, "{}: {mean}, not {want}", case.name);
    }
}

/// Decoding from a cache, both rows in one batch.
#[test]
fn the_greedy_continuation_is_that_of_transformers() {
    for case in Case::all() {
        let model = Gpt2::open(&case.dir, None).unwrap();
        let (prompts, want) = (case.tokens("ids"), case.tokens("greedy"));
        let mut caches = [model.cache(), model.cache()];
        let mut next = prompts;
        let mut got = vec![Vec::<u32>::new(); 2];
        while got[0].len() < want[0].len() {
            let ids = next.concat();
            let rows = [next[0].len() - 1, ids.len() - 1];
            let lens = [next[0].len(), next[1].len()];
            let runs = caches.iter_mut().zip(lens).map(|(cache, tokens)| Run { cache, tokens }).collect();
            let logits = model.logits_of(&ids, &mut Pass::batch(runs), &rows).unwrap();
            let best = |row: &[f32]| {
                (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as u32
            };
            next = logits.data().chunks(model.config().vocab_size).map(|row| vec![best(row)]).collect();
            got.iter_mut().zip(&next).for_each(|(got, next)| got.extend(next));
        }
        assert_eq!(got, want, "{}", case.name);
    }
}

#[test]
fn every_type_of_weights_decodes_in_portions_and_is_saved() {
    for case in Case::all() {
        let ids = case.tokens("ids")[0].clone();
        let want = Gpt2::load(&case.dir).unwrap().logits(&ids, 1, &mut Pass::eval()).unwrap();
        for dtype in Dtype::ALL {
            let model = Gpt2::open(&case.dir, Some(dtype)).unwrap();
            let full = model.logits(&ids, 1, &mut Pass::eval()).unwrap();
            let v = model.config().vocab_size;
            for portion in [1, 5, 7] {
                let mut cache = model.cache();
                for (i, ids) in ids.chunks(portion).enumerate() {
                    let got = model.last_logits(ids, &mut Pass::cached(&mut cache)).unwrap();
                    let end = i * portion + ids.len();
                    assert_eq!(got, full.data()[(end - 1) * v..end * v], "{} {dtype}", case.name);
                }
            }
            let square = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>();
            let error: Vec<f32> = full.data().iter().zip(want.data()).map(|(a, b)| a - b).collect();
            let most = if dtype == Dtype::Q4 { 0.1 } else { 5e-3 };
            assert!(square(&error) < most * square(want.data()), "{} {dtype}", case.name);
            let dir = tempfile::tempdir().unwrap();
            model.save(dir.path()).unwrap();
            let again = Gpt2::open(dir.path(), None).unwrap();
            assert_eq!((again.config(), again.dtype()), (model.config(), dtype));
            let again = again.logits(&ids, 1, &mut Pass::eval()).unwrap();
            assert_eq!(again.data(), full.data(), "{} {dtype}, saved and opened", case.name);
        }
    }
}
