//! Small runs from beginning to end.

use super::*;
use crate::optimizer::{AdamConfig, OptimizerConfig};
use crate::schedule::{Decay, Schedule};
use data::batches::Mode;
use models::{Dropouts, Gpt2Config, Init};

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
        eval_tokens: 1000,
        documents: false,
        save_interval: 0,
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
    Run::new(model, tokenizer, batcher, Some(val), config, dir, serde_json::Value::Null).unwrap()
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
    assert!(watch.losses[0] > 2.5 && val.loss < 0.5, "{} {}", watch.losses[0], val.loss);
    assert!((val.loss - outcome.best.unwrap().0).abs() < 1e-6);
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
    assert!(error.to_string().contains("at step") && state::path(dir.path()).exists());
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = run_in(dir.path(), config(5)).resume().unwrap_err().to_string();
    assert!(error.contains("nothing to resume"), "{error}");
    run_in(dir.path(), config(5)).run(&mut ()).unwrap();
    let other = TrainConfig { clip_norm: None, ..config(5) };
    assert!(run_in(dir.path(), other).resume().unwrap_err().to_string().contains("settings"));
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
