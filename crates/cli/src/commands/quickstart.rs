//! `gpt2 quickstart`: from nothing to a model that writes, in about two minutes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use data::batches::Batches;
use data::corpus::{self, Split, check::Checker};
use data::prepare::Options;
use data::read::Source;
use generate::{Request, Sampling};
use models::Gpt2;
use serde_json::json;
use tokenizer::{Lang, Tokenizer};
use train::{Measured, Outcome, Run, RunLock, StepReport, TrainError, Validation};

use crate::input::{self, duration, grouped};
use crate::minutes;
use crate::output::note;
use crate::plan::{self, Corpus};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::signals::StopFlag;

/// Bytes of stories to train on, in each language, and to validate on.
const TRAIN_BYTES: usize = 5_500_000;
const VAL_BYTES: usize = 150_000;
/// Steps that are made however short the time is.
const FEWEST_STEPS: u64 = 40;
/// Stories to score, at most.
const MOST_CHECKED: usize = 100_000;
/// Seconds between two lines that the model writes during training.
const LINE_SECONDS: f64 = 10.0;

/// Train a small model from nothing in about two minutes, and watch it learn to write
///
/// Needs no files: it writes small stories, learns a vocabulary, prepares shards, trains a GPT-2 on them, measures
/// it on stories about heroes, goals and places it has not seen together, and lets it tell one.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  gpt2 quickstart\n  gpt2 quickstart --lang zh --minutes 5 --out out/zh")]
pub struct Args {
    /// Minutes to train; becomes a number of steps, which is printed and saved
    #[arg(long, value_name = "M", default_value_t = 2.0)]
    minutes: f64,
    /// Train this number of steps instead; the same number gives the same bytes
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    max_steps: Option<u64>,
    /// Language of the stories: en, zh or both
    #[arg(long, value_name = "LANG", default_value = "en", value_parser = ["en", "zh", "both"])]
    lang: String,
    /// Directory to write
    #[arg(long, value_name = "DIR", default_value = "out/quickstart")]
    out: PathBuf,
    /// Replace what is in the directory
    #[arg(long)]
    force: bool,
    /// Start of all random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write N stories at the end and score them: do names and endings hold, is anything copied?
    #[arg(long, value_name = "N", default_value_t = 0)]
    check: usize,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    minutes::check(args.minutes)?;
    ensure!(args.max_steps != Some(0), "--max-steps 0: it must be at least 1");
    ensure!(args.check <= MOST_CHECKED, "--check {}: at most {MOST_CHECKED}", args.check);
    let start = Instant::now();
    let lock = RunLock::take(&args.out).with_context(|| format!("--out {}", args.out.display()))?;
    if args.force {
        super::train::remove_old_state(&args.out)?;
    } else {
        refuse_existing(&args.out)?;
    }
    lock.remove_leftovers()?;
    let langs: &[Lang] = match args.lang.as_str() {
        "en" => &[Lang::En],
        "zh" => &[Lang::Zh],
        _ => &[Lang::En, Lang::Zh],
    };
    let stories = write_stories(&args, langs)?;
    let tokenizer = learn_vocabulary(&args, &stories)?;
    let mut settings = settings(&args);
    let corpus = prepare(&args, &stories, &tokenizer, &mut settings)?;
    let (mut run, max_steps) = start_run(&args, corpus, &mut settings, start)?;

    let stop = StopFlag::install()?;
    let mut progress = Progress::new(max_steps, &stop);
    let mut last_line: Option<Instant> = None;
    let (lang, seed) = (langs.to_vec(), args.seed);
    let writer = tokenizer.clone();
    progress.after_step = Box::new(move |report: &StepReport, model: &Gpt2, print: &dyn Fn(&str)| {
        let due = last_line.is_none_or(|last| last.elapsed().as_secs_f64() >= LINE_SECONDS);
        if due && report.step < report.max_steps {
            last_line = Some(Instant::now());
            let lang = lang[report.step as usize % lang.len()];
            if let Ok(line) = write_line(model, &writer, lang, seed) {
                print(&format!("  step {:>5}  {line}", report.step));
            }
        }
    });
    let outcome = run.run(&mut progress);
    progress.finish();
    drop(progress);
    let outcome = outcome?;
    if !outcome.finished {
        note!("stopped after {} steps; what was learnt is in {}", outcome.step, args.out.display());
        return Ok(());
    }
    let model = Gpt2::load(&args.out)?;
    report(&args, &outcome, &model, &tokenizer, langs, &stories, &stop)
}

/// As `train` does, but a quickstart cannot be resumed.
fn refuse_existing(out: &Path) -> Result<()> {
    match Run::refuse_existing(out) {
        Err(TrainError::Exists { dir, what }) => {
            bail!("{} already holds {what}; choose another --out, or replace it with --force", dir.display())
        }
        other => Ok(other?),
    }
}

/// Where the stories of one language are.
struct Stories {
    lang: Lang,
    train: PathBuf,
    val: PathBuf,
}

fn write_stories(args: &Args, langs: &[Lang]) -> Result<Vec<Stories>> {
    let dir = args.out.join("stories");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    langs
        .iter()
        .map(|&lang| {
            let name = if lang == Lang::En { "english" } else { "chinese" };
            let [train, val] = ["train", "val"].map(|split| dir.join(format!("{name}-{split}.jsonl")));
            let count = write_jsonl(&train, corpus::corpus(lang, Split::Train, args.seed, TRAIN_BYTES))?;
            write_jsonl(&val, corpus::corpus(lang, Split::Val, args.seed, VAL_BYTES))?;
            note!("wrote {} small stories to {}", grouped(count), train.display());
            Ok(Stories { lang, train, val })
        })
        .collect()
}

fn write_jsonl(path: &Path, stories: impl Iterator<Item = String>) -> Result<u64> {
    let write = || -> std::io::Result<u64> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        let mut count = 0;
        for story in stories {
            writeln!(file, "{}", json!({ "text": story }))?;
            count += 1;
        }
        file.flush()?;
        Ok(count)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn learn_vocabulary(args: &Args, stories: &[Stories]) -> Result<Tokenizer> {
    let size = 1536 * stories.len();
    let paths: Vec<PathBuf> = stories.iter().map(|stories| stories.train.clone()).collect();
    let learn = input::Learn::Bpe(size);
    let tokenizer = learn.learn_from(input::documents(&paths, None)?)?;
    tokenizer.save(&args.out)?;
    note!("learnt a vocabulary of {} tokens", grouped(tokenizer.vocab_size() as u64));
    Ok(tokenizer)
}

/// The recipe of the small model.
fn settings(args: &Args) -> Settings {
    Settings {
        data: vec![args.out.join("shards").display().to_string()],
        sequences: Some("documents".into()),
        n_layer: Some(2),
        n_head: Some(4),
        n_embd: Some(128),
        n_ctx: Some(256),
        batch: Some(2),
        grad_accum: Some(4),
        optimizer: Some("muon".into()),
        lr: Some(1e-2),
        min_lr: Some(1e-4),
        schedule: Some("linear".into()),
        warmup_steps: Some(60),
        beta2: Some(0.99),
        weight_decay: Some(0.05),
        save_interval: Some(0),
        seed: Some(args.seed),
        ..Settings::default()
    }
}

fn prepare(
    args: &Args,
    stories: &[Stories],
    tokenizer: &Tokenizer,
    settings: &mut Settings,
) -> Result<Corpus> {
    let out = args.out.join("shards");
    let source = |path: &PathBuf| Source { path: path.clone(), weight: None };
    let train: Vec<Source> = stories.iter().map(|stories| source(&stories.train)).collect();
    let encoding = data::read::encoding(None)?;
    let threads = tensor::pool::threads();
    let options = Options { encoding, val_fraction: 0.0, threads, out: &out, force: true };
    let summary = data::prepare::prepare(&train, tokenizer, &options, |_, _| {})?;
    let val: Vec<Source> = stories.iter().map(|stories| source(&stories.val)).collect();
    let mut held = data::shards::ShardWriter::new(&out, "val", tokenizer.vocab_size());
    for part in data::prepare::tokenize(&val, tokenizer, encoding, threads)?.0 {
        held.push(&part.tokens.to_vec()?)?;
    }
    let n_held = held.finish()?;
    let (train, held) = (grouped(summary.train_tokens as u64), grouped(n_held as u64));
    note!("prepared {train} tokens to train on, {held} to validate on");
    plan::corpus(settings, Some(&args.out))
}

/// Fixes the run's length, and builds it.
fn start_run(args: &Args, corpus: Corpus, settings: &mut Settings, start: Instant) -> Result<(Run, u64)> {
    let max_steps = match args.max_steps {
        Some(steps) => steps,
        None => {
            let all = (&*settings, &corpus, args.out.as_path());
            minutes::steps(args.minutes, start, all, |steps, _| eval_interval(steps))?.max(FEWEST_STEPS)
        }
    };
    settings.max_steps = Some(max_steps);
    settings.eval_interval = Some(eval_interval(max_steps));
    let model = plan::model(settings, &corpus.tokenizer)?;
    let batcher = plan::batcher(settings, &corpus, model.config().n_ctx)?;
    let config = plan::train_config(settings, model.config().n_embd, batcher.sequences_per_epoch())?;
    let (parameters, threads) = (grouped(model.config().n_params() as u64), tensor::pool::threads());
    note!("a GPT-2 of {parameters} parameters, {threads} threads");
    note!("{max_steps} steps (--max-steps {max_steps} --seed {} makes the same model again)", args.seed);
    super::train::save_settings(&args.out, "train.toml", settings)?;
    let caller = serde_json::to_value(plan::absolute(settings)?)?;
    let val = corpus.val.map(Validation::Tokens);
    Ok((Run::new(model, corpus.tokenizer, batcher, val, config, &args.out, caller)?, max_steps))
}

/// Four validations, however long it trains.
fn eval_interval(max_steps: u64) -> u64 {
    max_steps.div_ceil(4).max(1)
}

fn request(tokenizer: &Tokenizer, prompt: &str, seed: u64, max_tokens: Option<usize>) -> Result<Request> {
    let sampling = Sampling { temperature: 0.8, seed, ..Sampling::default() };
    // Every story it has seen came after an end-of-text.
    let prompt = [tokenizer.eot()].into_iter().chain(tokenizer.encode(prompt)?).collect();
    Ok(Request { prompt, max_tokens, sampling, ..Request::default() })
}

/// The beginning of a story as the model would tell it now, on one line.
fn write_line(model: &Gpt2, tokenizer: &Tokenizer, lang: Lang, seed: u64) -> Result<String> {
    let prompt = opening(lang);
    let request = request(tokenizer, prompt, seed, Some(28))?;
    let text = generate::generate(model, tokenizer, &request, &mut |_| true)?.text;
    Ok(format!("{prompt}{}…", text.replace('\n', " ").trim_end_matches('\u{fffd}')))
}

fn opening(lang: Lang) -> &'static str {
    match lang {
        Lang::En => "Once",
        Lang::Zh => "从前",
    }
}

fn report(
    args: &Args,
    outcome: &Outcome,
    model: &Gpt2,
    tokenizer: &Tokenizer,
    langs: &[Lang],
    stories: &[Stories],
    stop: &StopFlag,
) -> Result<()> {
    if let Some(Measured::Text(val)) = &outcome.val {
        note!(
            "\nOn stories it has never seen: loss {:.3} ± {:.3}, perplexity {:.2}, {:.1} % of the next tokens right.\n",
            val.loss,
            val.loss_stderr,
            val.perplexity,
            100.0 * val.accuracy
        );
    }
    if !args.json {
        for &lang in langs {
            tell(model, tokenizer, opening(lang), args.seed)?;
        }
    }
    let scores = (args.check > 0).then(|| check(args, model, tokenizer, stories, stop)).transpose()?;
    let out = args.out.display();
    note!("\nTrained for {} in {} steps. Everything is in {out}:", duration(outcome.seconds), outcome.step);
    note!(
        "  config.json, model.safetensors, tokenizer.json   the model, as Hugging Face's transformers reads it"
    );
    note!("  loss.svg, metrics.jsonl, events/                 how it learnt");
    note!("  stories/, shards/, train.toml                    what it learnt from, and how");
    note!("Next:");
    note!("  gpt2 generate -m {out} --temperature 0.8");
    note!("  gpt2 eval -m {out} --by-document --data {}", stories[0].val.display());
    note!("  gpt2 train --data YOUR.txt --tokenizer bpe:4000 --out out/yours");
    if args.json {
        return super::print_json(&json!({
            "out": out.to_string(), "steps": outcome.step, "seconds": outcome.seconds, "val": outcome.val, "check": scores,
        }));
    }
    Ok(())
}

/// Streams a story to standard output.
fn tell(model: &Gpt2, tokenizer: &Tokenizer, opening: &str, seed: u64) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut failed = Ok(());
    let request = request(tokenizer, opening, seed, None)?;
    write!(out, "{opening}")?;
    generate::generate(model, tokenizer, &request, &mut |piece| {
        failed = write!(out, "{piece}").and_then(|()| out.flush());
        failed.is_ok()
    })?;
    failed?;
    Ok(writeln!(out, "\n")?)
}

/// Lets the model tell stories and scores them.
fn check(
    args: &Args,
    model: &Gpt2,
    tokenizer: &Tokenizer,
    stories: &[Stories],
    stop: &StopFlag,
) -> Result<serde_json::Value> {
    let mut scores = serde_json::Map::new();
    let mut told: Vec<(String, bool)> = Vec::new();
    let wanted = args.check * stories.len();
    for i in 0.. {
        let enough = stories
            .iter()
            .all(|s| told.iter().filter(|(text, _)| Lang::of(text) == s.lang).count() >= args.check);
        if enough || i >= 4 * wanted as u64 || stop.is_set() {
            break;
        }
        let result =
            generate::generate(model, tokenizer, &request(tokenizer, "", 1000 + i, None)?, &mut |_| true)?;
        told.push((result.text, result.finish == generate::Finish::Eot));
    }
    for Stories { lang, train, .. } in stories {
        let corpus = input::documents(std::slice::from_ref(train), None)?.collect::<Result<Vec<_>, _>>()?;
        let checker = Checker::new(*lang, corpus.into_iter());
        let mine = told.iter().filter(|(text, _)| Lang::of(text) == *lang).take(args.check);
        let summary = checker.report(mine.map(|(text, finished)| (text.as_str(), *finished)));
        let name = lang.to_string();
        note!(
            "{name}: of {} stories, {} keep to their names and end properly; {} stand in the corpus; the longest passage shared with it: {:?}",
            summary.stories,
            summary.good,
            summary.in_corpus,
            summary.longest_shared
        );
        let score = json!({
            "stories": summary.stories, "good": summary.good, "names_kept": summary.names_kept,
            "ends_properly": summary.ends_properly, "in_corpus": summary.in_corpus, "longest_shared": summary.longest_shared,
        });
        scores.insert(name, score);
    }
    Ok(scores.into())
}
