//! Small runs from beginning to end.

use super::*;
use crate::optimizer::{AdamConfig, OptimizerConfig};
use crate::schedule::{Decay, Schedule};
use data::Tokens;
use data::batches::{Batcher, Mode};
use models::{Dropouts, Gpt2Config, Init};
use tensor::Precision;

const TEXT: &str = "the cat sat on the mat and the dog sat on the log. ";

fn config(max_steps: u64) -> TrainConfig {
    let adam = AdamConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    TrainConfig {
        batch: 4,
        grad_accum: 1,
        max_steps,
        steps_per_epoch: 10,
        optimizer: OptimizerConfig::AdamW(adam),
        schedule: Schedule { lr: 1e-2, warmup_steps: 5, decay: Decay::Cosine { min_lr: 1e-3 } },
        clip_norm: Some(1.0),
        clip_value: None,
        seed: 3,
        eval_interval: 1000,
        precision: Precision::F32,
        recompute: false,
        eval_tokens: 1000,
        documents: false,
        save_interval: 0,
        objective: Objective::Likelihood,
        eval_first: false,
        patience: None,
    }
}

fn run_in(dir: &Path, config: TrainConfig) -> Run {
    let text = TEXT.repeat(40);
    let tokenizer = Tokenizer::train_chars([&text]).unwrap();
    let tokens = Tokens::new(tokenizer.encode(&text).unwrap());
    let mut shape = Gpt2Config::new(2, 2, 16, 16, tokenizer.vocab_size());
    shape.dropout = Dropouts::all(0.1);
    let model = Gpt2::new(shape, Init::Gpt2, 1).unwrap();
    let (train, val) = tokens.split_end(0.1);
    let batcher = Batcher::new(vec![(train, None)], config.batch, 16, 5, Mode::Stream).unwrap();
    Run::new(model, tokenizer, batcher, Some(Validation::Tokens(val)), config, dir, serde_json::Value::Null)
        .unwrap()
}

/// Every weight's bits.
fn bits(run: &Run) -> Vec<u32> {
    run.model.parameters().iter().flat_map(|(_, tensor)| tensor.data().iter().map(|x| x.to_bits())).collect()
}

/// Keeps the losses, and asks to stop after some steps.
#[derive(Default)]
struct Watch {
    losses: Vec<f64>,
    stop_after: Option<usize>,
}

impl Observer for Watch {
    fn on_step(&mut self, report: &StepReport, _: &Gpt2) {
        self.losses.push(report.loss);
    }
    fn should_stop(&mut self) -> bool {
        self.stop_after == Some(self.losses.len())
    }
}

#[test]
fn it_learns_and_keeps_the_best_model() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run_in(dir.path(), TrainConfig { eval_interval: 50, ..config(200) });
    let mut watch = Watch::default();
    let outcome = run.run(&mut watch).unwrap();
    let val = outcome.val.unwrap();
    assert!(watch.losses[0] > 2.5 && val.loss() < 0.5, "{} {}", watch.losses[0], val.loss());
    assert!((val.loss() - outcome.best.unwrap().0).abs() < 1e-6);
    assert!(outcome.finished && dir.path().join("loss.svg").exists());
    assert!(Run::refuse_existing(dir.path()).unwrap_err().to_string().contains("--force"));
}

#[test]
fn a_resumed_run_has_the_bits_of_one_that_never_stopped() {
    let [straight_dir, dir] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut straight = run_in(straight_dir.path(), config(30));
    let mut want = Watch::default();
    straight.run(&mut want).unwrap();

    let mut first = Watch { stop_after: Some(13), ..Watch::default() };
    let outcome = run_in(dir.path(), config(30)).run(&mut first).unwrap();
    assert!(!outcome.finished && outcome.step == 13);
    let mut second = Watch::default();
    let mut resumed = run_in(dir.path(), config(30));
    resumed.resume().unwrap();
    resumed.run(&mut second).unwrap();

    assert_eq!([first.losses, second.losses].concat(), want.losses);
    assert!(bits(&resumed) == bits(&straight));
    let lines = |dir: &Path| std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap().lines().count();
    assert_eq!(lines(dir.path()), lines(straight_dir.path()));
}

/// Asks to stop when it is asked for the n-th time.
struct StopAt(usize);

impl Observer for StopAt {
    fn should_stop(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 == 0
    }
}

#[test]
fn a_validation_can_be_stopped_and_is_made_up_for() {
    let config = || TrainConfig { eval_interval: 4, eval_tokens: 100, ..config(10) };
    let straight_dir = tempfile::tempdir().unwrap();
    let mut straight = run_in(straight_dir.path(), config());
    let want = straight.run(&mut ()).unwrap();
    let lines = |dir: &Path| {
        let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
        let lines = text.lines().filter_map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["time"].take();
            line.get("val/loss").is_some().then_some(line)
        });
        lines.collect::<Vec<_>>()
    };
    let loss = |outcome: &Outcome| outcome.val.as_ref().map(Measured::loss);
    let asked = 100 - 1;
    // In the validations after steps 4 and 8, in the one after the last, and in that of the best model at the end.
    for (at, step) in [(4 + 9, 4), (8 + asked + 1, 8), (10 + 2 * asked + 70, 10), (10 + 3 * asked + 7, 10)] {
        let dir = tempfile::tempdir().unwrap();
        let outcome = run_in(dir.path(), config()).run(&mut StopAt(at)).unwrap();
        let at_the_end = at > 10 + 3 * asked;
        assert!(outcome.val.is_none());
        assert_eq!((outcome.step, outcome.finished), (step, at_the_end), "{at}");
        let mut resumed = run_in(dir.path(), config());
        resumed.resume().unwrap();
        let outcome = resumed.run(&mut ()).unwrap();
        assert_eq!((outcome.best, loss(&outcome), outcome.finished), (want.best, loss(&want), true), "{at}");
        assert!(bits(&resumed) == bits(&straight));
        assert_eq!(lines(dir.path()), lines(straight_dir.path()), "{at}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let weights = [1, 2, 3].map(|threads| {
        tensor::pool::set_threads(threads);
        let dir = tempfile::tempdir().unwrap();
        let mut run = run_in(dir.path(), config(10));
        run.run(&mut ()).unwrap();
        bits(&run)
    });
    assert!(weights[0] == weights[1] && weights[0] == weights[2]);
}

#[test]
fn accumulated_batches_equal_one_large_batch() {
    let no_dropout = |mut run: Run| {
        run.model.set_dropout(Dropouts::default());
        run
    };
    let dir = tempfile::tempdir().unwrap();
    let mut large = no_dropout(run_in(dir.path(), config(5)));
    let mut small = no_dropout(run_in(dir.path(), TrainConfig { batch: 2, grad_accum: 2, ..config(5) }));
    for _ in 0..5 {
        let (large, small) = (large.train_step().unwrap(), small.train_step().unwrap());
        assert!((large.loss - small.loss).abs() < 1e-5, "{} {}", large.loss, small.loss);
        assert!((large.grad_norm - small.grad_norm).abs() < 1e-4 * large.grad_norm);
    }
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run_in(dir.path(), config(30));
    for _ in 0..3 {
        run.train_step().unwrap();
    }
    let good = bits(&run);
    run.config.schedule = Schedule { lr: 1e30, warmup_steps: 0, decay: Decay::Constant };
    run.train_step().unwrap(); // sends the weights to where the next loss overflows
    let wild = bits(&run);
    let error = run.run(&mut ()).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
    assert!(bits(&run) == wild && good != wild);
    assert!(error.to_string().contains("at step 5; no state had been saved yet"), "{error}");
    assert!(!state::path(dir.path()).exists());
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = run_in(dir.path(), config(5)).resume().unwrap_err().to_string();
    assert!(error.contains("nothing to resume"), "{error}");
    run_in(dir.path(), config(5)).run(&mut ()).unwrap();
    let other = TrainConfig { clip_norm: None, ..config(5) };
    assert!(run_in(dir.path(), other).resume().unwrap_err().to_string().contains("settings"));
    let mut judged_otherwise = run_in(dir.path(), config(5));
    let other = Validation::Tokens(Tokens::new(vec![1, 2, 3]));
    judged_otherwise.progress.val_hash = Some(other.fingerprint().unwrap());
    assert!(judged_otherwise.resume().unwrap_err().to_string().contains("held-out data"));
    // A state of before the hash was kept.
    let mut progress = state::load_progress(dir.path()).unwrap();
    progress.val_hash = None;
    let old = run_in(dir.path(), config(5));
    state::save(dir.path(), &old.model, &old.optimizer, &progress).unwrap();
    run_in(dir.path(), config(9)).resume().unwrap();
    let path = state::path(dir.path());
    let bytes = std::fs::read(&path).unwrap();
    for damage in [&bytes[..bytes.len() - 10], &bytes[..4], b"{}"] {
        std::fs::write(&path, damage).unwrap();
        assert!(run_in(dir.path(), config(5)).resume().is_err());
    }
}

#[test]
fn a_failing_save_keeps_the_old_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run_in(dir.path(), config(5));
    run.run(&mut ()).unwrap();
    let path = state::path(dir.path());
    let before = std::fs::read(&path).unwrap();
    // A directory where the new file should go cannot be replaced by it.
    std::fs::rename(&path, dir.path().join("kept")).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(run.save(&mut ()).is_err());
    assert_eq!(std::fs::read(dir.path().join("kept")).unwrap(), before);
}

#[test]
fn an_infinite_gradient_is_not_hidden_by_clipping_its_elements() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run_in(dir.path(), TrainConfig { clip_value: Some(1.0), ..config(5) });
    run.grads.slot_mut(0)[0] = f32::INFINITY;
    let error = run.check(1.0, 1.0).unwrap_err().to_string();
    assert!(
        error.contains("gradient's length is inf") && error.contains("no state had been saved"),
        "{error}"
    );
}

#[test]
fn a_run_that_blows_up_does_not_touch_the_last_good_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run_in(dir.path(), TrainConfig { eval_interval: 1000, ..config(3) });
    run.run(&mut ()).unwrap();
    let before = std::fs::read(state::path(dir.path())).unwrap();
    for (eval_interval, step) in [(1000, 5), (1, 4)] {
        let mut again = run_in(dir.path(), TrainConfig { eval_interval: 1000, ..config(3) });
        again.resume().unwrap();
        again.config.max_steps = 9;
        again.config.eval_interval = eval_interval;
        again.config.schedule = Schedule { lr: f32::MAX, warmup_steps: 0, decay: Decay::Constant };
        let error = again.run(&mut ()).unwrap_err().to_string();
        assert!(error.contains(&format!("at step {step}; the state of step 3 is kept")), "{error}");
        assert!(std::fs::read(state::path(dir.path())).unwrap() == before);
    }
}

#[test]
fn a_state_that_the_last_step_has_ruined_is_not_saved() {
    let kept = tempfile::tempdir().unwrap();
    run_in(kept.path(), config(3)).run(&mut ()).unwrap();
    let names = ["last/state.safetensors", "model.safetensors"];
    let files = || names.map(|name| std::fs::read(kept.path().join(name)).unwrap());
    let before = files();
    // The weights are still finite at 1e30, and no more at the largest rate with a decay of 10.
    for (lr, weight_decay, what) in [(1e30, 0.1, "loss after the update"), (f32::MAX, 10.0, "weight")] {
        let adam = AdamConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay };
        let mut run = run_in(kept.path(), config(3));
        run.resume().unwrap();
        run.config.max_steps = 4;
        run.val = None;
        run.optimizer = Optimizer::new(OptimizerConfig::AdamW(adam), &run.model);
        run.config.schedule = Schedule { lr, warmup_steps: 0, decay: Decay::Constant };
        let error = run.run(&mut ()).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("at step 4; the state of step 3 is kept"), "{error}");
        assert!(files() == before);
    }
}

#[test]
fn asking_for_the_next_loss_changes_no_bit() {
    let [rarely, often] = [0, 1].map(|save_interval| {
        let dir = tempfile::tempdir().unwrap();
        let mut run = run_in(dir.path(), TrainConfig { save_interval, ..config(6) });
        run.run(&mut ()).unwrap();
        bits(&run)
    });
    assert!(rarely == often);
}

#[test]
fn numbers_survive_the_state_bit_for_bit() {
    for i in 0..20_000u64 {
        let x = 0.3 + (i as f64 * 0.618_033_988_749_894_9).fract() * 5.0;
        let y: f64 = serde_json::from_str(&serde_json::to_string(&x).unwrap()).unwrap();
        assert_eq!(x.to_bits(), y.to_bits());
    }
}

#[test]
fn a_state_with_a_place_in_other_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run_in(dir.path(), config(3));
    run.run(&mut ()).unwrap();
    run.progress.position.used = vec![1, 2];
    run.save(&mut ()).unwrap();
    let error = run_in(dir.path(), config(3)).resume().unwrap_err().to_string();
    assert!(error.contains("number of sources"), "{error}");
}

#[test]
fn resuming_a_finished_run_adds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let uneven = || TrainConfig { eval_interval: 2, ..config(5) };
    let first = run_in(dir.path(), uneven()).run(&mut ()).unwrap();
    let metrics = || std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    let before = metrics();
    let mut again = run_in(dir.path(), uneven());
    again.resume().unwrap();
    let second = again.run(&mut ()).unwrap();
    assert_eq!(before, metrics());
    assert!(second.finished && second.val.unwrap().loss() == first.val.unwrap().loss());
}

#[test]
fn the_cost_of_huge_batches_does_not_wrap_around() {
    let model = Gpt2Config::new(2, 2, 16, 16, 100);
    let cost = |batch| config::cost(&model, &TrainConfig { batch, ..config(1) }, 16).bytes;
    assert!(cost(1 << 60) > cost(8));
}

#[test]
fn muon_resumes_with_the_bits_of_a_run_that_never_stopped() {
    let adam = AdamConfig { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 };
    let muon = || TrainConfig { optimizer: OptimizerConfig::Muon { momentum: 0.95, adam }, ..config(8) };
    let [straight_dir, dir] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut straight = run_in(straight_dir.path(), muon());
    straight.run(&mut ()).unwrap();
    run_in(dir.path(), muon()).run(&mut Watch { stop_after: Some(3), ..Watch::default() }).unwrap();
    let mut resumed = run_in(dir.path(), muon());
    resumed.resume().unwrap();
    resumed.run(&mut ()).unwrap();
    assert!(bits(&resumed) == bits(&straight));
}

#[test]
fn ten_steps_have_the_same_bits_at_any_number_of_threads() {
    for precision in [Precision::F32, Precision::Bf16] {
        let mut first = None;
        for threads in [1, 2, 3] {
            tensor::pool::set_threads(threads);
            let dir = tempfile::tempdir().unwrap();
            let mut run = run_in(dir.path(), TrainConfig { precision, grad_accum: 2, ..config(10) });
            run.run(&mut ()).unwrap();
            let bits = bits(&run);
            assert!(first.get_or_insert_with(|| bits.clone()) == &bits, "{precision}, {threads} threads");
        }
    }
}

#[test]
fn computing_blocks_again_changes_no_bit() {
    for precision in [Precision::F32, Precision::Bf16] {
        let [kept, again] = [false, true].map(|recompute| {
            let dir = tempfile::tempdir().unwrap();
            let mut run =
                run_in(dir.path(), TrainConfig { precision, recompute, grad_accum: 2, ..config(6) });
            run.run(&mut ()).unwrap();
            bits(&run)
        });
        assert!(kept == again, "{precision}");
    }
}
