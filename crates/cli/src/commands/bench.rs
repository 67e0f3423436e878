//! `gpt2 bench`: the machine's own limits, and training measured against them.

mod infer;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use data::Tokens;
use data::batches::{Batcher, Mode};
use models::{Gpt2, Gpt2Config, Init, LoraConfig};
use serde_json::json;
use tensor::peak::{self, Peaks};
use tensor::{Precision, isa, pool, timing};
use tokenizer::Tokenizer;
use train::optimizer::{AdamConfig, OptimizerConfig};
use train::schedule::{Decay, Schedule};
use train::{Objective, Run, TrainConfig};

use crate::output::{note, say};

/// Measure how fast this machine computes, and how near training comes to that
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gpt2 bench peak\n  gpt2 bench train --preset gpt2 --batch 4 --seq 256\n  gpt2 bench infer --preset gpt2 --dtype q8"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// The machine's limits: arithmetic in registers, and reading memory
    #[command(after_help = "Example:\n  gpt2 bench peak --json")]
    Peak {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Whole training steps on random tokens: batch, forward, backward, clipping, optimiser
    #[command(after_help = "Examples:\n  \
        gpt2 bench train --preset gpt2 --batch 4 --seq 256 --json\n  \
        gpt2 bench train --n-layer 4 --n-head 4 --n-embd 128 --vocab 65 --batch 12 --seq 64 --steps 200\n  \
        gpt2 bench train --preset gpt2 --lora r=8,alpha=16\n  \
        GPT2_TIMING=1 gpt2 bench train --preset gpt2 --batch 4 --seq 256")]
    Train(TrainArgs),
    /// Generation: reading a prompt, writing one text, writing many at once
    #[command(after_help = "Examples:\n  \
        gpt2 bench infer -m out/model --json\n  \
        gpt2 bench infer --preset gpt2 --dtype q8 --only tg128,batch --batches 8,32")]
    Infer(infer::Args),
}

#[derive(clap::Args, Debug)]
struct TrainArgs {
    /// Shape of the model: gpt2, gpt2-medium, gpt2-mini, …
    #[arg(long, value_name = "NAME", default_value = "gpt2")]
    preset: String,
    /// Transformer blocks, instead of the preset's
    #[arg(long, value_name = "N")]
    n_layer: Option<usize>,
    /// Attention heads, instead of the preset's
    #[arg(long, value_name = "N")]
    n_head: Option<usize>,
    /// Width, instead of the preset's
    #[arg(long, value_name = "N")]
    n_embd: Option<usize>,
    /// Size of the vocabulary, instead of the preset's
    #[arg(long, value_name = "N")]
    vocab: Option<usize>,
    /// Sequences a step
    #[arg(long, value_name = "N", default_value_t = 4)]
    batch: usize,
    /// Tokens a sequence
    #[arg(long, value_name = "N", default_value_t = 256)]
    seq: usize,
    /// Dropout everywhere
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    dropout: f32,
    /// Steps that are measured, after one that is not
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: u32,
    /// adamw or muon
    #[arg(long, value_name = "NAME", default_value = "adamw", value_parser = ["adamw", "muon"])]
    optimizer: String,
    /// Type of the products: f32, bf16, or auto: bf16 where the CPU multiplies it
    #[arg(long, value_name = "TYPE", default_value = "auto", value_parser = ["auto", "f32", "bf16"])]
    precision: String,
    /// Train a low-rank adapter beside frozen weights, instead of all: r=8,alpha=16,targets=c_attn+c_proj
    #[arg(long, value_name = "SETTINGS")]
    lora: Option<LoraConfig>,
    /// Keep only what goes into each block, and compute the rest again on the way back
    #[arg(long)]
    recompute: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    match args.what {
        What::Peak { json } => print_peaks(json),
        What::Train(args) => bench_train(&args),
        What::Infer(args) => infer::run(args, offline),
    }
}

fn print_peaks(json: bool) -> Result<()> {
    let peaks = peak::measure();
    let (threads, isa) = (pool::threads(), isa::current().name());
    if json {
        let mut all = peaks_json(&peaks);
        (all["threads"], all["isa"]) = (json!(threads), json!(isa));
        return super::print_json(&all);
    }
    let Peaks { f32_gflops, mem_read_gb_s, .. } = peaks;
    let narrow = |rate: Option<f64>, what| rate.map_or(String::new(), |rate| format!(", {rate:.0} {what}"));
    say!(
        "{threads} threads, {isa}: {f32_gflops:.0} GFLOP/s (f32){}{}, {mem_read_gb_s:.1} GB/s read from memory",
        narrow(peaks.bf16_gflops, "GFLOP/s (bf16)"),
        narrow(peaks.int8_gops, "GOP/s (int8)"),
    )?;
    Ok(())
}

/// What the machine can do; null where it lacks the instructions.
fn peaks_json(peaks: &Peaks) -> serde_json::Value {
    let Peaks { f32_gflops, bf16_gflops, int8_gops, mem_read_gb_s } = *peaks;
    json!({
        "f32_gflops": f32_gflops, "bf16_gflops": bf16_gflops, "int8_gops": int8_gops, "mem_read_gb_s": mem_read_gb_s,
    })
}

fn bench_train(args: &TrainArgs) -> Result<()> {
    ensure!(args.seq > 0 && args.batch > 0, "--seq and --batch: at least 1 each");
    let preset = Gpt2Config::preset(&args.preset)?;
    let mut config = Gpt2Config::new(
        args.n_layer.unwrap_or(preset.n_layer),
        args.n_head.unwrap_or(preset.n_head),
        args.n_embd.unwrap_or(preset.n_embd),
        preset.n_ctx.max(args.seq),
        args.vocab.unwrap_or(preset.vocab_size),
    );
    config.dropout = models::Dropouts { embd: args.dropout, attn: args.dropout, resid: args.dropout };
    config.validate()?;
    let recipe = recipe(args)?;
    let precision = recipe.precision;
    let cost = match &args.lora {
        Some(lora) => {
            lora.validate_for(&config)?;
            train::config::lora_cost(&config, lora, &recipe, args.seq)
        }
        None => train::config::cost(&config, &recipe, args.seq),
    };
    crate::plan::ensure_fits(cost.bytes as u64)?;
    let peaks = peak::measure();

    let mut model = Gpt2::new(config.clone(), Init::Gpt2, 1)?;
    args.lora.iter().try_for_each(|lora| model.add_lora(lora, 1))?;
    let batcher = Batcher::new(
        vec![(random_tokens(args, config.vocab_size), None)],
        args.batch,
        args.seq,
        1,
        Mode::Stream,
    )?;
    // Only `Run::run` writes to a directory.
    let mut run = Run::new(model, Tokenizer::gpt2(), batcher, None, recipe, Path::new(""), json!(null))?;
    run.train_step()?; // faults in memory and wakes the threads
    timing::take();
    let start = Instant::now();
    let mut ms = Vec::new();
    let mut loss = 0.0;
    for _ in 0..args.steps {
        let before = Instant::now();
        loss = run.train_step()?.loss;
        ms.push(1e3 * before.elapsed().as_secs_f64());
    }
    if timing::enabled() {
        note!("{}", timing::report(&timing::take(), start.elapsed().as_secs_f64(), &peaks).trim_end());
    }
    ms.sort_by(f64::total_cmp);
    let (median, best, worst) = (ms[ms.len() / 2], ms[0], ms[ms.len() - 1]);
    let tok_per_sec = 1e3 * (args.batch * args.seq) as f64 / median;
    let gflops = tok_per_sec * cost.flops_per_token / 1e9;
    let peak = match precision {
        Precision::F32 => peaks.f32_gflops,
        Precision::Bf16 => peaks.bf16_gflops.unwrap_or(peaks.f32_gflops),
    };
    let (fraction, rss) = (gflops / peak, peak_rss());
    let (threads, isa) = (pool::threads(), isa::current().name());
    if args.json {
        return super::print_json(&json!({
            "tok_per_sec": tok_per_sec, "gflops": gflops, "peak_fraction": fraction, "peak_rss_bytes": rss,
            "ms_per_step": median, "ms_best": best, "ms_worst": worst, "steps": args.steps, "loss": loss,
            "threads": threads, "isa": isa, "precision": precision, "recompute": args.recompute, "lora": args.lora,
            "parameters": cost.parameters,
            "peaks": peaks_json(&peaks),
        }));
    }
    say!(
        "{} × {} tokens, {} trained values, {threads} threads, {isa}, {precision}: {tok_per_sec:.0} tokens/s, {median:.1} ms a step ({best:.1} to {worst:.1}), {gflops:.0} GFLOP/s ({:.0} % of the peak of {:.0}), {} of memory",
        args.batch,
        args.seq,
        crate::input::grouped(cost.parameters as u64),
        100.0 * fraction,
        peak,
        rss.map_or("an unknown amount".into(), |rss| format!("{:.2} GB", rss as f64 / 1e9)),
    )?;
    Ok(())
}

fn recipe(args: &TrainArgs) -> Result<TrainConfig> {
    let precision = crate::plan::precision(&args.precision)?;
    let adam = AdamConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let optimizer = match args.optimizer.as_str() {
        "muon" => OptimizerConfig::Muon { momentum: 0.95, adam },
        _ => OptimizerConfig::AdamW(adam),
    };
    Ok(TrainConfig {
        batch: args.batch,
        grad_accum: 1,
        max_steps: u64::from(args.steps) + 1,
        steps_per_epoch: u64::from(args.steps) + 1,
        optimizer,
        schedule: Schedule { lr: 1e-4, warmup_steps: 0, decay: Decay::Constant },
        clip_norm: Some(1.0),
        clip_value: None,
        seed: 1,
        precision,
        recompute: args.recompute,
        eval_interval: 1,
        eval_tokens: 0,
        documents: false,
        save_interval: 0,
        objective: Objective::Likelihood,
        eval_first: false,
        patience: None,
    })
}

/// As many tokens as the first steps need, evenly spread over the vocabulary; further ones see them again.
fn random_tokens(args: &TrainArgs, vocab_size: usize) -> Tokens {
    let n = (args.batch * (args.steps.min(100) as usize + 2) + 1) * args.seq + 1;
    let stream = tensor::random::Stream::new(1, 0, 0);
    Tokens::new(
        (0..n as u64).map(|i| (stream.uniform(i) * vocab_size as f32) as u32 % vocab_size as u32).collect(),
    )
}

/// The most memory that this process has had, in bytes, where the system tells.
fn peak_rss() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
