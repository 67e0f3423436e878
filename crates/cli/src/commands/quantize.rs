//! `gpt2 quantize`: brings a model into fewer bits, and measures what that costs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use compress::{Calibration, Comparison, Side};
use data::Tokens;
use models::{Dtype, Gpt2, checkpoint};
use serde_json::json;
use tokenizer::Tokenizer;

use crate::input;
use crate::model::Located;
use crate::output::{note, say};
use crate::staging::Staged;

/// Bring a model into fewer bits, and measure what that costs
///
/// Weights become half precision (f16), bfloat16 (bf16), or blocks of 8 or 4 bits (q8, q4). The result is a whole model
/// directory that every command takes; `gpt2 train --init` goes on from it in f32. Norms, biases and positions stay f32.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gpt2 quantize -m out/model --to q8 --out out/model-q8 --report test.txt\n  \
    gpt2 quantize -m out/model --to q4 --out out/model-q4 --calibrate train.txt --report test.txt"
)]
pub struct Args {
    /// Model: a directory, a file, or a name on the hub such as gpt2 or ORG/NAME
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// Low-rank adapter to merge into the model first: a directory with adapter_config.json
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Type of the weights: f32, f16, bf16, q8 or q4
    #[arg(long, value_name = "TYPE", value_parser = input::dtype)]
    to: Dtype,
    /// Directory for the new model
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Let --out replace a model
    #[arg(long)]
    force: bool,
    /// Round so that what layers compute on these texts changes least; never those of the report
    #[arg(long, value_name = "FILE", num_args = 1..)]
    calibrate: Vec<PathBuf>,
    /// Measure the model before and after on these texts
    #[arg(long, value_name = "FILE", num_args = 1..)]
    report: Vec<PathBuf>,
    /// Measure again with three channels of each norm X times as large, as large models have them
    #[arg(long, value_name = "X", requires = "report")]
    outliers: Option<f32>,
    /// Distance of the report's windows [default: the model's context]
    #[arg(long, value_name = "N", requires = "report")]
    stride: Option<usize>,
    /// Encoding of the texts [default: utf-8]
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    let located = Located::of(&args.model, args.adapter.as_deref(), offline)?;
    let args = Args { model: located.path.clone(), adapter: located.adapter.clone(), ..args };
    refuse_overwriting(&args)?;
    if let Some(factor) = args.outliers {
        ensure!(factor.is_finite() && factor > 0.0, "--outliers {factor}: give a positive number, as 20");
    }
    let (mut model, tokenizer) = located.open(Some(Dtype::F32))?;
    if model.lora().is_some() {
        model.merge_adapter()?;
    }
    if let Some(stride) = args.stride {
        let n_ctx = model.config().n_ctx;
        ensure!(
            (1..=n_ctx).contains(&stride),
            "--stride {stride}: it must be 1 to the model's context of {n_ctx}"
        );
    }
    let report = tokens(&args.report, &args, &tokenizer)?;
    let calibrate = tokens(&args.calibrate, &args, &tokenizer)?;
    let quantised = quantise(&model, calibrate.as_ref(), &args)?;
    write(&quantised, &tokenizer, &located, &args)?;
    let (before, after) = (model.weight_bytes(), quantised.weight_bytes());
    note!("[{}: {}, {}]", args.out.display(), args.to, input::size(after as u64));
    let Some(report) = report else {
        return match args.json {
            true => super::print_json(&json!({ "dtype": args.to, "bytes": after, "f32_bytes": before })),
            false => Ok(()),
        };
    };
    let plain = compare(&model, &quantised, &report, args.stride)?;
    if !args.json {
        print(&plain)?;
    }
    let mut all = json!({ "dtype": args.to, "bytes": after, "f32_bytes": before, "report": plain });
    if let Some(factor) = args.outliers {
        let model = compress::with_outliers(&model, factor)?;
        let outliers = compare(&model, &quantise(&model, calibrate.as_ref(), &args)?, &report, args.stride)?;
        if !args.json {
            say!("\nwith three channels of each norm {factor} times as large:")?;
            print(&outliers)?;
        }
        all["outliers"] = json!(outliers);
    }
    if args.json { super::print_json(&all) } else { Ok(()) }
}

/// Refuses an output that would replace the model itself, a training run, or another model without `--force`.
fn refuse_overwriting(args: &Args) -> Result<()> {
    let (out, whole) = (args.out.display(), |path: &Path| path.canonicalize().ok());
    ensure!(
        whole(&args.out).is_none() || whole(&args.out) != whole(&args.model),
        "--out {out} is the model itself; choose another directory"
    );
    ensure!(
        args.adapter.is_none()
            || whole(&args.out).is_none()
            || whole(&args.out) != args.adapter.as_deref().and_then(whole),
        "--out {out} is the adapter itself; choose another directory"
    );
    let shared =
        args.calibrate.iter().find(|path| args.report.iter().any(|other| whole(path) == whole(other)));
    if let Some(path) = shared {
        bail!("{} is in --calibrate and in --report; a report on it would say too little", path.display());
    }
    ensure!(
        !args.out.join("last").exists(),
        "{out} holds a training run, which would no longer fit the model; choose another --out"
    );
    let weights = [checkpoint::WEIGHTS, checkpoint::INDEX];
    if !args.force && weights.iter().any(|name| args.out.join(name).exists()) {
        bail!("{out} already holds a model; choose another --out, or replace it with --force");
    }
    Ok(())
}

fn quantise(model: &Gpt2, calibrate: Option<&Tokens>, args: &Args) -> Result<Gpt2> {
    note!("[converting to {}]", args.to);
    let mut calibration = calibrate.map(|tokens| Calibration::new(model, tokens)).transpose()?;
    compress::quantise(model, args.to, calibration.as_mut())
        .with_context(|| format!("cannot bring {} into {}", args.model.display(), args.to))
}

/// The texts one after the other, with the end of each but the last.
fn tokens(paths: &[PathBuf], args: &Args, tokenizer: &Tokenizer) -> Result<Option<Tokens>> {
    if paths.is_empty() {
        return Ok(None);
    }
    let (encoding, threads) = (data::read::encoding(args.encoding.as_deref())?, tensor::pool::threads());
    let parts =
        paths.iter().map(|path| Ok(data::prepare::tokens_of_file(path, tokenizer, encoding, threads)?.0));
    let all = Tokens::concat(&parts.collect::<Result<Vec<_>>>()?)?;
    Ok(Some(all.slice(0..all.len() - 1)))
}

/// What makes a model directory beside the weights.
pub fn beside() -> impl Iterator<Item = &'static str> {
    [checkpoint::CONFIG, checkpoint::GENERATION_CONFIG].into_iter().chain(tokenizer::FILES)
}

/// Writes the directory, whole or not at all.
fn write(model: &Gpt2, tokenizer: &Tokenizer, located: &Located, args: &Args) -> Result<()> {
    let staged = Staged::beside(&args.out)?;
    model.save(staged.path()).with_context(|| format!("cannot write {}", args.out.display()))?;
    if args.model.is_file() {
        tokenizer.save(staged.path())?;
        return staged.commit(checkpoint::WEIGHTS);
    }
    // An adapter may have brought more tokens, which the model's own config does not know.
    let skipped = if args.adapter.is_some() { checkpoint::CONFIG } else { "" };
    let names = beside().filter(|name| *name != skipped);
    for file in names.map(|name| args.model.join(name)).filter(|file| file.is_file()) {
        let copy = staged.path().join(file.file_name().expect("it has one of these names"));
        fs::copy(&file, copy).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    located.copy_own_files(model, staged.path())?;
    staged.commit(checkpoint::WEIGHTS)
}

fn compare(before: &Gpt2, after: &Gpt2, tokens: &Tokens, stride: Option<usize>) -> Result<Comparison> {
    let mut said = std::time::Instant::now();
    let mut on_window = |done, all| {
        if said.elapsed().as_secs() >= 10 {
            said = std::time::Instant::now();
            note!("[window {done} of {all}]");
        }
    };
    Ok(compress::compare(before, after, tokens, (None, stride), &mut on_window)?)
}

/// The table for people.
fn print(comparison: &Comparison) -> Result<()> {
    let Comparison { before, after, .. } = comparison;
    let line = |name: &str, cell: &dyn Fn(&Side) -> String, rest: &str| {
        let text = format!("{name:<16}{:<20}{:<20}{rest}", cell(before), cell(after));
        say!("{}", text.trim_end())
    };
    let percent = |x: f64, error: f64| format!("{:.2} ± {:.2} %", 100.0 * x, 100.0 * error);
    let Comparison { perplexity_change, perplexity_change_stderr, .. } = comparison;
    let change = format!("{:+.3} ± {:.3} %", 100.0 * perplexity_change, 100.0 * perplexity_change_stderr);
    line("", &|side| side.dtype.clone(), "")?;
    line("perplexity", &|side| format!("{:.3} ± {:.3}", side.perplexity, side.perplexity_stderr), &change)?;
    line("accuracy", &|side| percent(side.accuracy, side.accuracy_stderr), "")?;
    let smaller = format!("{:.2} times smaller", before.bytes as f64 / after.bytes as f64);
    line("size", &|side| input::size(side.bytes as u64), &smaller)?;
    let faster = format!("{:.2} times as fast", after.tokens_per_second / before.tokens_per_second);
    line("tokens/s", &|side| input::grouped(side.tokens_per_second as u64), &faster)?;
    say!("KL divergence   {:.6} ± {:.1e} nats a token", comparison.kl, comparison.kl_stderr)?;
    say!("same first      {} of the tokens", percent(comparison.agreement, comparison.agreement_stderr))?;
    note!("[{} tokens, {} windows of {}]", comparison.tokens, comparison.windows, comparison.context);
    Ok(())
}
