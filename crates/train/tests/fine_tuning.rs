//! Fine-tuning from beginning to end: examples whose answers are learnt, validation on answers, early stopping.
#![forbid(unsafe_code)]

mod common;

use std::path::Path;

use common::{Watch, bits, config};
use data::example::Example;
use data::packed::{Limits, Packed};
use models::{Dropouts, Gpt2, Gpt2Config, Init};
use tensor::Precision;
use tokenizer::Tokenizer;
use train::schedule::{Decay, Schedule};
use train::{Measured, Run, TrainConfig, Validation};

const N_CTX: usize = 24;
const VOCAB: u32 = 20;

/// An example whose answer is its prompt again, after a token that asks for it.
fn example(i: u32) -> Example {
    let prompt: Vec<u32> = (0..2 + i % 5).map(|t| (i * 7 + t * (3 + i % 4)) % (VOCAB - 1)).collect();
    let ids = [&prompt[..], &[VOCAB - 1], &prompt[..]].concat();
    Example { is_answer: (0..ids.len()).map(|at| at > prompt.len()).collect(), ids }
}

fn examples(from: u32, n: u32) -> Vec<Example> {
    (from..from + n).map(example).collect()
}

fn model(dropout: f32) -> Gpt2 {
    let mut shape = Gpt2Config::new(2, 2, 32, N_CTX, VOCAB as usize);
    shape.dropout = Dropouts::all(dropout);
    Gpt2::new(shape, Init::Gpt2, 1).unwrap()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::train_chars(["abcdefghijklmnopqrs"]).unwrap()
}

fn run_in(dir: &Path, config: TrainConfig, dropout: f32) -> Run {
    let limits = Limits { examples: 8, tokens: 60 };
    let batches = Packed::examples(examples(0, 60), limits, N_CTX, 5).unwrap();
    let val = Some(Validation::Examples(examples(1000, 20)));
    let caller = serde_json::Value::Null;
    Run::new(model(dropout), tokenizer(), batches, val, config, dir, caller).unwrap()
}

#[test]
fn it_learns_answers_and_says_what_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let settings = TrainConfig { eval_interval: 100, eval_first: true, grad_accum: 2, ..config(300) };
    let mut watch = Watch::default();
    let outcome = run_in(dir.path(), settings, 0.0).run(&mut watch).unwrap();
    let (before, after) = (outcome.before.unwrap(), outcome.val.unwrap());
    assert!((before.loss - f64::from(VOCAB).ln()).abs() < 0.1, "{before:?}");
    assert!(after.loss() < 0.8 * before.loss && after.accuracy() > before.accuracy, "{before:?} {after:?}");
    let Measured::Answers(report) = &watch.evals[0].report else { panic!("{:?}", watch.evals[0]) };
    assert_eq!((watch.evals[0].step, report.loss, report.examples), (0, before.loss, 20));
    let answers: usize = (1000..1020).map(|i| 2 + i % 5).sum();
    assert_eq!(report.tokens, answers);
    // The best model is what the directory holds.
    let kept = Gpt2::load(dir.path()).unwrap();
    let again = eval::answers::evaluate(&kept, &examples(1000, 20)).unwrap();
    assert_eq!(again.loss, after.loss());
}

#[test]
fn a_resumed_run_has_the_bits_of_one_that_never_stopped() {
    let [straight_dir, dir] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let settings = || TrainConfig { eval_interval: 4, eval_first: true, grad_accum: 2, ..config(20) };
    let mut straight = run_in(straight_dir.path(), settings(), 0.1);
    let mut want = Watch::default();
    let straight_outcome = straight.run(&mut want).unwrap();

    let mut first = Watch { stop_after: Some(9), ..Watch::default() };
    assert_eq!(run_in(dir.path(), settings(), 0.1).run(&mut first).unwrap().step, 9);
    let mut resumed = run_in(dir.path(), settings(), 0.1);
    resumed.resume().unwrap();
    let mut second = Watch::default();
    let outcome = resumed.run(&mut second).unwrap();
    assert_eq!([first.losses, second.losses].concat(), want.losses);
    assert!(bits(&resumed) == bits(&straight));
    assert_eq!(first.evals.len() + second.evals.len(), want.evals.len());
    assert_eq!((outcome.before, outcome.best), (straight_outcome.before, straight_outcome.best));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for precision in [Precision::F32, Precision::Bf16] {
        let weights = [1, 2, 3].map(|threads| {
            tensor::pool::set_threads(threads);
            let dir = tempfile::tempdir().unwrap();
            let settings = TrainConfig { precision, grad_accum: 2, ..config(8) };
            let mut run = run_in(dir.path(), settings, 0.1);
            run.run(&mut ()).unwrap();
            bits(&run)
        });
        assert!(weights[0] == weights[1] && weights[0] == weights[2], "{precision}");
    }
}

/// A rate at which the model only gets worse.
fn harmful() -> Schedule {
    Schedule { lr: 0.5, warmup_steps: 0, decay: Decay::Constant }
}

#[test]
fn patience_ends_a_run_that_does_not_get_better_and_the_best_model_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let settings = TrainConfig {
        eval_interval: 2,
        eval_first: true,
        patience: Some(3),
        schedule: harmful(),
        ..config(100)
    };
    let mut run = run_in(dir.path(), settings.clone(), 0.0);
    let outcome = run.run(&mut Watch::default()).unwrap();
    assert!(outcome.finished && outcome.stopped_early, "{outcome:?}");
    let (best_loss, best_step) = outcome.best.unwrap();
    assert_eq!(outcome.step, best_step + 2 * 3);
    assert_eq!(outcome.val.unwrap().loss(), best_loss);
    if best_step == 0 {
        let kept = Gpt2::load(dir.path()).unwrap();
        assert!(kept.parameters().iter().zip(model(0.0).parameters()).all(|(a, b)| a.1.data() == b.1.data()));
    }
    // Resumed, it has nothing left to do.
    let mut again = run_in(dir.path(), settings, 0.0);
    again.resume().unwrap();
    let mut watch = Watch::default();
    let second = again.run(&mut watch).unwrap();
    assert!(second.stopped_early && watch.losses.is_empty() && second.step == outcome.step);
}

#[test]
fn patience_that_is_never_tried_makes_all_steps() {
    let dir = tempfile::tempdir().unwrap();
    let settings = TrainConfig { eval_interval: 5, patience: Some(100), ..config(20) };
    let outcome = run_in(dir.path(), settings, 0.0).run(&mut ()).unwrap();
    assert!(outcome.finished && !outcome.stopped_early && outcome.step == 20 && outcome.before.is_none());
}

#[test]
fn patience_needs_something_to_judge_by() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { examples: 8, tokens: 60 };
    for val in [None, Some(Validation::Examples(Vec::new()))] {
        let batches = Packed::examples(examples(0, 9), limits, N_CTX, 5).unwrap();
        let settings = TrainConfig { patience: Some(2), ..config(3) };
        let error =
            Run::new(model(0.0), tokenizer(), batches, val, settings, dir.path(), serde_json::Value::Null)
                .err()
                .unwrap()
                .to_string();
        assert!(error.contains("--patience is 2") && error.contains("held-out"), "{error}");
    }
    let error = TrainConfig { patience: Some(0), ..config(3) }.validate().unwrap_err().to_string();
    assert!(error.contains("--patience is 0"), "{error}");
}

/// The step averages over the answers' tokens of all its batches, however they are cut.
#[test]
fn accumulated_batches_equal_one_large_batch() {
    let dir = tempfile::tempdir().unwrap();
    let run = |batch: usize, grad_accum| {
        let limits = Limits { examples: batch, tokens: usize::MAX };
        let batches = Packed::examples(examples(0, 60), limits, N_CTX, 5).unwrap();
        let settings = TrainConfig { grad_accum, ..config(5) };
        Run::new(model(0.0), tokenizer(), batches, None, settings, dir.path(), serde_json::Value::Null)
            .unwrap()
    };
    let (mut large, mut small) = (run(12, 1), run(3, 4));
    for _ in 0..5 {
        let (large, small) = (large.train_step().unwrap(), small.train_step().unwrap());
        assert!((large.loss - small.loss).abs() < 1e-5, "{} {}", large.loss, small.loss);
        assert!((large.grad_norm - small.grad_norm).abs() < 1e-4 * large.grad_norm);
    }
}

#[test]
fn a_part_of_the_validation_data_judges_between_steps() {
    let dir = tempfile::tempdir().unwrap();
    let settings = TrainConfig { eval_tokens: 30, eval_interval: 2, eval_first: true, ..config(4) };
    let mut watch = Watch::default();
    let outcome = run_in(dir.path(), settings, 0.0).run(&mut watch).unwrap();
    let on = |report: &Measured| match report {
        Measured::Answers(report) => report.examples,
        other => panic!("{other:?}"),
    };
    assert!(watch.evals.iter().all(|eval| on(&eval.report) < 5));
    assert_eq!((watch.evals.len(), on(&outcome.val.unwrap())), (3, 20));
    assert_ne!(outcome.before.unwrap().loss, watch.evals[0].report.loss());
}
