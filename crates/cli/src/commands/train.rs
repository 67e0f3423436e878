//! `gpt2 train`: trains a model on text.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use data::batches::Batches;
use data::read::Source;
use models::{Gpt2Config, checkpoint};
use serde_json::json;
use tensor::timing;
use train::{Measured, Outcome, Run, RunLock, TrainConfig, Validation};

use crate::input::{self, duration, grouped};
use crate::minutes;
use crate::output::{self, note, plus_minus, say};
use crate::plan::{self, Corpus};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::signals::StopFlag;

/// Steps that make a run.
const FEWEST_STEPS: u64 = 3;
/// Share of the measured peak that training is expected to reach, for the estimate of time.
const EXPECTED_SHARE: f64 = 0.55;

/// Train a model on your text
///
/// DIR receives the best model, its tokenizer, train.toml (all settings), metrics.jsonl, TensorBoard events, loss.svg,
/// and in DIR/last the state from which --resume goes on. Ctrl-C saves and stops.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    gpt2 train --data novel.txt --tokenizer bpe:4000 --preset gpt2-mini --epochs 3 --out out/novel\n  \
    gpt2 train --config configs/shakespeare-char-cpu.toml --data shakespeare.txt --out out/shakespeare\n  \
    gpt2 train --data novel.txt --minutes 60 --out out/hour\n  \
    gpt2 train --resume --out out/novel")]
pub struct Args {
    /// Directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Recipe: a TOML file with any of these settings; flags win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Go on with the run in DIR, exactly as if it had never stopped
    #[arg(long, conflicts_with = "force")]
    resume: bool,
    /// Replace a model or run in DIR
    #[arg(long)]
    force: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    let start = Instant::now();
    let (mut settings, saved) = match args.resume {
        true => (resumed_settings(&args)?, Some(args.out.as_path())),
        false => (typed_settings(&args)?, None),
    };
    let lock = RunLock::take(&args.out).with_context(|| format!("--out {}", args.out.display()))?;
    if !args.force && !args.resume {
        Run::refuse_existing(&args.out)?;
    }
    plan::from_hub(&mut settings, offline)?;
    plan::check(&settings)?;
    refuse_own_sources(&args, &settings)?;
    lock.remove_leftovers()?;
    let corpus = plan::corpus(&mut settings, saved)?;
    if let Some(minutes) = settings.minutes.take() {
        note!("timing the first steps …");
        let asked = settings.eval_interval;
        let interval = |steps, epoch| plan::eval_interval(asked, steps, epoch);
        let steps = minutes::steps(minutes, start, (&settings, &corpus, &args.out), interval)?;
        ensure!(
            steps >= FEWEST_STEPS,
            "--minutes {minutes}: reading the data, timing and validating leave time for {steps} steps; give more, or --max-steps"
        );
        settings.max_steps = Some(steps);
    }
    let model = plan::model(&mut settings, &corpus.tokenizer)?;
    let batcher = plan::batcher(&mut settings, &corpus, model.config().n_ctx)?;
    let config = plan::train_config(&mut settings, model.config().n_embd, batcher.sequences_per_epoch())?;
    announce(&settings, &corpus, model.config(), &config)?;
    if args.force {
        remove_old_state(&args.out)?;
    }

    let caller = serde_json::to_value(plan::absolute(&settings)?)?;
    let val = corpus.val.map(Validation::Tokens);
    let mut run = Run::new(model, corpus.tokenizer, batcher, val, config.clone(), &args.out, caller)?;
    if args.resume {
        run.resume()?;
        ensure_further(run.step(), config.max_steps)?;
        note!("resuming after step {} of {}", run.step(), config.max_steps);
    }
    save_settings(&args.out, "train.toml", &settings)?;
    // From here on there is something to lose; before, Ctrl-C simply ends the process.
    let stop = StopFlag::install()?;
    let mut progress = Progress::new(config.max_steps, &stop);
    let start = Instant::now();
    let result = run.run(&mut progress);
    progress.finish();
    if timing::enabled() {
        let wall = start.elapsed().as_secs_f64();
        note!("{}", timing::report(&timing::take(), wall, &tensor::peak::measure()).trim_end());
    }
    report(&args, &result?)
}

/// Refuses a length that a run has passed already.
pub fn ensure_further(step: u64, max_steps: u64) -> Result<()> {
    ensure!(
        step <= max_steps,
        "--max-steps {max_steps}: this run has made {step} steps already; ask for more"
    );
    Ok(())
}

/// Refuses to write over what the run is made from.
fn refuse_own_sources(args: &Args, settings: &Settings) -> Result<()> {
    let whole = |path: &Path| path.canonicalize().ok();
    let Some(out) = whole(&args.out) else { return Ok(()) };
    let init = settings.init.as_ref().map(PathBuf::from);
    ensure!(
        args.resume || init.as_deref().and_then(whole).as_ref() != Some(&out),
        "--out {} is the model to start from; choose another directory",
        args.out.display()
    );
    let sources = settings.data.iter().filter_map(|spec| Some(Source::parse(spec).ok()?.path));
    // With --force, a run may be made anew from its own recipe.
    let recipe = args.config.clone().filter(|_| !args.force);
    let sources = sources.chain(settings.val_data.clone()).chain(recipe);
    let written = ["train.toml", "metrics.jsonl", "loss.svg"].map(|name| whole(&out.join(name)));
    match sources.filter_map(|path| whole(&path)).find(|path| written.contains(&Some(path.clone()))) {
        Some(path) => bail!("{} would be written over; choose another --out", path.display()),
        None => Ok(()),
    }
}

fn typed_settings(args: &Args) -> Result<Settings> {
    let mut settings = match &args.config {
        Some(path) => args.settings.clone().over_recipe(path)?,
        None => args.settings.clone(),
    };
    settings.seed = Some(input::seed(settings.seed));
    Ok(settings)
}

/// The settings of the run in the directory; only its length may be changed.
fn resumed_settings(args: &Args) -> Result<Settings> {
    let progress = train::state::load_progress(&args.out)?;
    let saved: Settings =
        serde_json::from_value(progress.caller).context("the saved settings are not readable")?;
    let typed = serde_json::to_value(&args.settings)?;
    let others: Vec<&String> = typed
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .filter(|name| !["max-steps", "data", "val-data"].contains(&name.as_str()))
        .collect();
    ensure!(
        others.is_empty() && args.config.is_none(),
        "--resume goes on with the saved settings; leave out everything but --out, --max-steps and, if the files moved, --data and --val-data"
    );
    args.settings.clone().over(saved)
}

/// Before step one: what will run, and what it costs.
fn announce(settings: &Settings, corpus: &Corpus, model: &Gpt2Config, config: &TrainConfig) -> Result<()> {
    let cost = train::config::cost(model, config, model.n_ctx);
    let tokens: usize = corpus.sources.iter().map(|(tokens, _)| tokens.len()).sum();
    let held = corpus.val.as_ref().map_or(0, |val| val.len());
    note!("settings:");
    for line in toml::to_string(settings)?.lines() {
        note!("  {line}");
    }
    note!("data:       {} tokens to train on, {} held out", grouped(tokens as u64), grouped(held as u64));
    let unit = if corpus.tokenizer.kind() == "words" { "words" } else { "tokens" };
    note!("vocabulary: {} {unit} ({})", grouped(model.vocab_size as u64), corpus.tokenizer.kind());
    note!("model:      {} parameters", grouped(cost.parameters as u64));
    let per_step = (config.batch * config.grad_accum * model.n_ctx) as f64;
    let peak = tensor::peak::measure().f32_gflops * 1e9;
    let seconds = config.max_steps as f64 * per_step * cost.flops_per_token / (EXPECTED_SHARE * peak);
    let memory = cost.bytes + corpus.memory() as f64;
    note!(
        "cost:       about {:.2} GB of memory ({:.2} GB of it tokens), about {} for {} steps of {} tokens",
        memory / 1e9,
        corpus.memory() as f64 / 1e9,
        duration(seconds),
        grouped(config.max_steps),
        grouped(per_step as u64)
    );
    // The tokens have their memory already.
    plan::ensure_fits(cost.bytes as u64)?;
    Ok(())
}

/// Keeps the resolved settings with the model, as a recipe.
pub fn save_settings(dir: &Path, name: &str, settings: &impl serde::Serialize) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    output::save(&dir.join(name), toml::to_string(settings)?.as_bytes())
}

/// With --force, an older run must not be found by a later --resume.
pub fn remove_old_state(dir: &Path) -> Result<()> {
    let files =
        [checkpoint::WEIGHTS, checkpoint::INDEX, checkpoint::ADAPTER_WEIGHTS].map(|name| dir.join(name));
    for path in files.into_iter().chain([train::state::path(dir)]) {
        if path.exists() {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    let events = dir.join("events");
    if events.is_dir() {
        std::fs::remove_dir_all(&events).with_context(|| format!("cannot remove {}", events.display()))?;
    }
    Ok(())
}

fn report(args: &Args, outcome: &Outcome) -> Result<()> {
    let out = args.out.display();
    if let Some(Measured::Text(val)) = &outcome.val {
        let bits = match val.bytes {
            Some(_) => format!("{:.3} bits a byte", val.bits_per_byte),
            None => "bits a byte not known".to_owned(),
        };
        note!(
            "best model on all held-out text: loss {}, perplexity {:.2}, {bits}, accuracy {:.1} %",
            plus_minus(val.loss, val.loss_stderr),
            val.perplexity,
            100.0 * val.accuracy
        );
        super::eval::note_unknown(val);
    }
    let time = duration(outcome.seconds);
    if outcome.finished && outcome.val.is_none() && outcome.best.is_some() {
        note!("stopped before the best model was judged; for its figures: gpt2 train --resume --out {out}");
    }
    if outcome.finished {
        note!("{} steps in {time}; next: gpt2 generate -m {out} -p \"…\"", outcome.step);
    } else {
        note!(
            "stopped after {} steps ({time}), state saved; go on with: gpt2 train --resume --out {out}",
            outcome.step
        );
    }
    if args.json {
        return super::print_json(&json!({
            "out": out.to_string(), "steps": outcome.step, "finished": outcome.finished, "seconds": outcome.seconds,
            "best": outcome.best.map(|(loss, step)| json!({ "val_loss": loss, "step": step })), "val": outcome.val,
        }));
    }
    say!("{out}")?;
    Ok(())
}
