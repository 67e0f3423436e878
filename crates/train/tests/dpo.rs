//! Preference tuning held to PyTorch: ten steps of `train::Run` on pairs, against `tests/golden/dpo.py`. And that what
//! the start thinks of the pairs is kept, so that a run goes on as if it had never stopped.
#![forbid(unsafe_code)]

#[path = "../../../tests/golden/golden.rs"]
mod golden;

mod common;

use std::path::Path;

use common::{Watch, bits, config};
use data::example::{Example, Pair};
use data::packed::{Limits, Packed};
use models::{Dropouts, Gpt2};
use serde::Deserialize;
use tensor::Precision;
use tokenizer::Tokenizer;
use train::optimizer::{AdamConfig, OptimizerConfig};
use train::schedule::{Decay, Schedule};
use train::{Measured, Objective, Observer, Run, TrainConfig, Validation};

#[derive(Deserialize)]
struct Golden {
    settings: Settings,
    pairs: Vec<GoldenPair>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Settings {
    beta: f64,
    lr: f32,
    betas: [f32; 2],
    eps: f32,
    weight_decay: f32,
}

#[derive(Deserialize)]
struct GoldenPair {
    prompt: Vec<u32>,
    chosen: Vec<u32>,
    rejected: Vec<u32>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    accuracy: f64,
    margin: f64,
    grad_norm: f64,
}

fn golden() -> Golden {
    let path = golden::folder("dpo.json");
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

fn pairs(golden: &Golden) -> Vec<Pair> {
    let example = |prompt: &[u32], answer: &[u32]| Example {
        ids: [prompt, answer].concat(),
        is_answer: [vec![false; prompt.len()], vec![true; answer.len()]].concat(),
    };
    let pair = |pair: &GoldenPair| Pair {
        chosen: example(&pair.prompt, &pair.chosen),
        rejected: example(&pair.prompt, &pair.rejected),
    };
    golden.pairs.iter().map(pair).collect()
}

/// A run that sees every pair in each step, `batch` of them at a time.
fn run_in(dir: &Path, golden: &Golden, batch: usize, change: impl Fn(&mut TrainConfig)) -> Run {
    let Settings { beta, lr, betas: [beta1, beta2], eps, weight_decay } = golden.settings;
    let mut config = config(10);
    config.grad_accum = golden.pairs.len() / batch;
    config.objective = Objective::Dpo { beta };
    config.optimizer = OptimizerConfig::AdamW(AdamConfig { beta1, beta2, eps, weight_decay });
    config.schedule = Schedule { lr, warmup_steps: 0, decay: Decay::Constant };
    config.clip_norm = None;
    change(&mut config);
    let model = Gpt2::load(&golden::folder("deep")).unwrap();
    let limits = Limits { examples: batch, tokens: usize::MAX };
    let batches = Packed::pairs(pairs(golden), limits, model.config().n_ctx, 3).unwrap();
    let held_out = Some(Validation::Pairs(pairs(golden)));
    let tokenizer = Tokenizer::train_chars(["ab"]).unwrap();
    Run::new(model, tokenizer, batches, held_out, config, dir, serde_json::Value::Null).unwrap()
}

#[test]
fn ten_steps_agree_with_pytorch() {
    let golden = golden();
    for batch in [8, 2] {
        let dir = tempfile::tempdir().unwrap();
        let mut run = run_in(dir.path(), &golden, batch, |_| {});
        let mut worst = 0.0f64;
        for (number, want) in golden.steps.iter().enumerate() {
            let got = run.train_step().unwrap();
            let rewards = got.rewards.unwrap();
            for (what, got, want) in [
                ("loss", got.loss, want.loss),
                ("accuracy", rewards.accuracy, want.accuracy),
                ("margin", rewards.margin, want.margin),
                ("gradient norm", got.grad_norm, want.grad_norm),
            ] {
                worst = worst.max((got - want).abs());
                assert!(
                    (got - want).abs() < 1e-4 * (1.0 + want.abs()),
                    "step {number}: the {what} is {got}, but PyTorch's is {want}"
                );
            }
        }
        eprintln!("{batch} pairs at a time: ten steps differ by at most {worst:.1e}");
    }
}

#[test]
fn no_answer_is_better_than_another_before_the_first_step() {
    let golden = golden();
    for precision in [Precision::F32, Precision::Bf16] {
        let dir = tempfile::tempdir().unwrap();
        // The start is scored in the order of the batches, which is not that of the steps that follow.
        let mut run = run_in(dir.path(), &golden, 1, |config| config.precision = precision);
        let step = run.train_step().unwrap();
        let rewards = step.rewards.unwrap();
        assert_eq!((step.loss, rewards.margin, rewards.accuracy), (2f64.ln(), 0.0, 0.0), "{precision}");
    }
}

#[test]
fn held_out_pairs_are_judged_the_same_way() {
    let (golden, dir) = (golden(), tempfile::tempdir().unwrap());
    let mut run = run_in(dir.path(), &golden, 8, |config| {
        (config.eval_interval, config.eval_first, config.max_steps) = (1, true, 9);
    });
    let mut watch = Watch::default();
    let outcome = run.run(&mut watch).unwrap();
    // The held-out pairs are those it learns from, so a validation says what the next step does.
    for (got, want) in watch.evals.iter().zip(&golden.steps) {
        let Measured::Preferences(report) = &got.report else { panic!("{got:?}") };
        assert!((report.loss - want.loss).abs() < 1e-4, "{report:?}, not {}", want.loss);
        assert!((report.margin - want.margin).abs() < 1e-3 && report.accuracy == want.accuracy);
        assert_eq!(report.pairs, 8);
    }
    assert_eq!(watch.evals.len(), 10);
    assert!((outcome.before.unwrap().loss - 2f64.ln()).abs() < 1e-9);
    assert!((outcome.val.unwrap().loss() - golden.steps[9].loss).abs() < 1e-4);
    let log = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    assert_eq!(log.matches("\"rewards/margin\"").count(), 9);
    assert_eq!(log.matches("\"val/rewards/accuracy\"").count(), 10);
}

#[test]
fn a_resumed_run_is_held_to_the_model_it_began_with() {
    let golden = golden();
    let [straight_dir, dir] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let change = |config: &mut TrainConfig| config.eval_interval = 2;
    let mut straight = run_in(straight_dir.path(), &golden, 2, change);
    let mut want = Watch::default();
    let straight_outcome = straight.run(&mut want).unwrap();

    let mut first = Watch { stop_after: Some(5), ..Watch::default() };
    assert!(!run_in(dir.path(), &golden, 2, change).run(&mut first).unwrap().finished);
    let mut resumed = run_in(dir.path(), &golden, 2, change);
    resumed.resume().unwrap();
    let mut second = Watch::default();
    let outcome = resumed.run(&mut second).unwrap();
    assert!(second.prepared == 0, "the pairs were scored again");
    assert_eq!([first.losses, second.losses].concat(), want.losses);
    assert!(bits(&resumed) == bits(&straight));
    assert_eq!(outcome.val.unwrap().loss(), straight_outcome.val.unwrap().loss());
}

#[test]
fn stopping_while_the_start_is_scored_can_be_resumed() {
    struct Stop;
    impl Observer for Stop {
        fn should_stop(&mut self) -> bool {
            true
        }
    }
    let (golden, dir) = (golden(), tempfile::tempdir().unwrap());
    let outcome = run_in(dir.path(), &golden, 2, |_| {}).run(&mut Stop).unwrap();
    assert!(!outcome.finished && outcome.step == 0 && outcome.val.is_none());
    let mut resumed = run_in(dir.path(), &golden, 2, |_| {});
    resumed.resume().unwrap();
    let mut watch = Watch::default();
    assert!(resumed.run(&mut watch).unwrap().finished);
    assert_eq!((watch.prepared, watch.losses[0]), (8, 2f64.ln()));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let golden = golden();
    for precision in [Precision::F32, Precision::Bf16] {
        let weights = [1, 2, 3].map(|threads| {
            tensor::pool::set_threads(threads);
            let dir = tempfile::tempdir().unwrap();
            let mut run = run_in(dir.path(), &golden, 4, |config| config.precision = precision);
            run.run(&mut ()).unwrap();
            bits(&run)
        });
        assert!(weights[0] == weights[1] && weights[0] == weights[2], "{precision}");
    }
}

#[test]
fn a_beta_that_cannot_be_is_refused() {
    for beta in [0.0, -0.1, f64::NAN, f64::INFINITY] {
        let config = TrainConfig { objective: Objective::Dpo { beta }, ..config(3) };
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with("--beta is"), "{error}");
    }
}

#[test]
fn dropout_does_not_reach_what_the_start_thinks() {
    let (golden, dir) = (golden(), tempfile::tempdir().unwrap());
    let mut model = Gpt2::load(&golden::folder("deep")).unwrap();
    model.set_dropout(Dropouts::all(0.3));
    let limits = Limits { examples: 8, tokens: usize::MAX };
    let batches = Packed::pairs(pairs(&golden), limits, model.config().n_ctx, 3).unwrap();
    let config = TrainConfig { objective: Objective::Dpo { beta: 0.5 }, eval_first: true, ..config(1) };
    let tokenizer = Tokenizer::train_chars(["ab"]).unwrap();
    let val = Some(Validation::Pairs(pairs(&golden)));
    let mut run =
        Run::new(model, tokenizer, batches, val, config, dir.path(), serde_json::Value::Null).unwrap();
    let mut watch = Watch::default();
    let outcome = run.run(&mut watch).unwrap();
    assert_eq!(outcome.before.unwrap().loss, 2f64.ln());
    assert!(watch.losses[0] != 2f64.ln());
}
