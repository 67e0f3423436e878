//! `gpt2 bench infer`: how fast prompts are read and texts written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use generate::{Engine, EngineSettings, Event, Overflow, Processors, Sampling, Task};
use models::{Dtype, Gpt2, Gpt2Config, Init, KvCache, KvPool, Pass};
use serde_json::json;
use tensor::random::Stream;
use tensor::{isa, peak, pool, timing};

use super::{peak_rss, peaks_json};
use crate::model::Located;
use crate::output::{note, say};
use crate::plan::free_memory;

/// Tokens of the prompt that is read, of that before a text, and of the text.
const READ: usize = 512;
const BEFORE: usize = 128;
const WRITTEN: usize = 128;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Model: a directory, a file, or a name on the hub such as gpt2 or ORG/NAME
    #[arg(short, long, value_name = "MODEL", conflicts_with = "preset")]
    model: Option<PathBuf>,
    /// Low-rank adapter to run it with: a directory with adapter_config.json
    #[arg(long, value_name = "DIR", requires = "model")]
    adapter: Option<PathBuf>,
    /// Random weights of this shape, instead of a model
    #[arg(long, value_name = "NAME", default_value = "gpt2")]
    preset: String,
    /// Type of the weights: f32, f16, bf16, q8 or q4 [default: as stored, f32 for random ones]
    #[arg(long, value_name = "TYPE", value_parser = crate::input::dtype)]
    dtype: Option<Dtype>,
    /// What to measure, of pp512 (reading a prompt), tg128 (writing one text), batch (writing many)
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = ["pp512", "tg128", "batch"], value_parser = ["pp512", "tg128", "batch"])]
    only: Vec<String>,
    /// Texts that are written at once, one number after the other
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = [1, 4, 8, 16, 32])]
    batches: Vec<usize>,
    /// Times that each is measured; the best counts least: the median is given
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeat: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    ensure!(args.repeat > 0, "--repeat 0: ask for at least 1");
    ensure!(args.batches.iter().all(|batch| (1..=512).contains(batch)), "--batches: 1 to 512 texts each");
    let located =
        args.model.as_ref().map(|model| Located::of(model, args.adapter.as_deref(), offline)).transpose()?;
    let args = &args;
    let peaks = peak::measure();
    let start = Instant::now();
    let model = match &located {
        Some(located) => located.open_alone(args.dtype)?,
        None => {
            let model = Gpt2::new(Gpt2Config::preset(&args.preset)?, Init::Gpt2, 1)?;
            model.to_dtype(args.dtype.unwrap_or_default())?
        }
    };
    let load_ms = 1e3 * start.elapsed().as_secs_f64();
    check(args, &model)?;
    if let Some(located) = &located {
        // Counts towards the first token; a model that has none can be measured all the same.
        _ = located.tokenizer(&model);
    }
    let eight = random_ids(&model, 8, 0);
    let mut cache = KvCache::of(&KvPool::new(model.config(), model.precision(), usize::MAX));
    model.last_logits(&eight, &mut Pass::cached(&mut cache))?;
    let first_token_ms = 1e3 * start.elapsed().as_secs_f64();
    timing::take();
    let begun = Instant::now();

    let wanted = |what: &str| args.only.iter().any(|only| only == what);
    let median = |measure: &dyn Fn() -> Result<f64>| -> Result<f64> {
        let mut rates = (0..args.repeat).map(|_| measure()).collect::<Result<Vec<_>>>()?;
        rates.sort_by(f64::total_cmp);
        Ok(rates[rates.len() / 2])
    };
    let pool = KvPool::new(model.config(), model.precision(), usize::MAX);
    let pp512 = wanted("pp512").then(|| median(&|| read(&model, &pool))).transpose()?;
    let tg128 = wanted("tg128").then(|| median(&|| write(&model, 1))).transpose()?;
    let mut batch = BTreeMap::new();
    for &size in args.batches.iter().filter(|_| wanted("batch")) {
        batch.insert(size, median(&|| write(&model, size))?);
    }
    if timing::enabled() {
        note!("{}", timing::report(&timing::take(), begun.elapsed().as_secs_f64(), &peaks).trim_end());
    }

    let bytes = bytes_a_token(&model);
    let mem_fraction = tg128.map(|rate| rate * bytes / 1e9 / peaks.mem_read_gb_s);
    let (threads, isa, rss) = (pool::threads(), isa::current().name(), peak_rss());
    if args.json {
        let batch: BTreeMap<String, f64> =
            batch.iter().map(|(size, rate)| (size.to_string(), *rate)).collect();
        return crate::commands::print_json(&json!({
            "pp512": pp512, "tg128": tg128, "batch": batch, "load_ms": load_ms, "first_token_ms": first_token_ms,
            "peak_rss_bytes": rss, "weight_bytes_per_token": bytes, "dtype": model.dtype(), "threads": threads, "isa": isa,
            "mem_fraction": mem_fraction, "peaks": peaks_json(&peaks),
        }));
    }
    say!("{} weights, {threads} threads, {isa}; tokens a second:", model.dtype())?;
    if let Some(rate) = pp512 {
        say!("  {rate:8.0}  reading a prompt of {READ}")?;
    }
    if let (Some(rate), Some(fraction)) = (tg128, mem_fraction) {
        let percent = 100.0 * fraction;
        say!(
            "  {rate:8.1}  writing one text ({percent:.0} % of what memory allows if nothing stays in the cache)"
        )?;
    }
    for (size, rate) in &batch {
        say!("  {rate:8.0}  writing {size} at once")?;
    }
    let memory = rss.map_or("an unknown amount".into(), |rss| format!("{:.2} GB", rss as f64 / 1e9));
    say!(
        "first token after {first_token_ms:.0} ms ({load_ms:.0} of them to open the model); {memory} of memory"
    )?;
    Ok(())
}

/// Refuses what the context or the memory does not hold.
fn check(args: &Args, model: &Gpt2) -> Result<()> {
    let wanted = |what: &str| args.only.iter().any(|only| only == what);
    let (config, longest) = (model.config(), if wanted("pp512") { READ } else { BEFORE + WRITTEN });
    ensure!(
        config.n_ctx >= longest,
        "the model's context is {}, but {longest} tokens are needed; take another model{}",
        config.n_ctx,
        if longest == READ { ", or --only tg128,batch" } else { "" }
    );
    let texts = args.batches.iter().filter(|_| wanted("batch")).max().copied().unwrap_or(1);
    let kept = KvPool::blocks_for(BEFORE + WRITTEN) * KvPool::new(config, model.precision(), 0).block_bytes();
    let (read, logits) = (BEFORE * 16 * config.n_embd, config.vocab_size); // what a step computes, in f32
    let (need, free) = ((texts * (kept + 4 * (read + logits))) as u64, free_memory().unwrap_or(u64::MAX));
    ensure!(
        need <= free,
        "{texts} texts at once need about {:.2} GB of memory, but {:.2} GB are free; give smaller --batches",
        need as f64 / 1e9,
        free as f64 / 1e9
    );
    Ok(())
}

fn random_ids(model: &Gpt2, n: usize, seed: u64) -> Vec<u32> {
    let (stream, vocab) = (Stream::new(seed, 0, 0), model.config().vocab_size as u32);
    (0..n as u64).map(|i| (stream.uniform(i) * vocab as f32) as u32 % vocab).collect()
}

/// Bytes of weights that a token needs: tables that are looked up only do not count.
fn bytes_a_token(model: &Gpt2) -> f64 {
    let is_tied = model.config().tie_word_embeddings;
    let bytes = |(name, tensor): (String, &tensor::Tensor)| match tensor.weights() {
        _ if name == "wpe.weight" || (name == "wte.weight" && !is_tied) => 0,
        Some(weights) => weights.bytes().len(),
        None => 4 * tensor.len(),
    };
    model.parameters().into_iter().map(bytes).sum::<usize>() as f64
}

/// Reads a prompt, until the next token could be drawn.
fn read(model: &Gpt2, pool: &KvPool) -> Result<f64> {
    let ids = random_ids(model, READ, 1);
    let mut cache = KvCache::of(pool);
    let start = Instant::now();
    model.last_logits(&ids, &mut Pass::cached(&mut cache))?;
    Ok(READ as f64 / start.elapsed().as_secs_f64())
}

/// Writes `batch` texts at once, each after a prompt of its own; the prompts' time does not count, drawing does.
fn write(model: &Gpt2, batch: usize) -> Result<f64> {
    let vocab_size = model.config().vocab_size;
    let settings = EngineSettings { step_tokens: batch * BEFORE, ..EngineSettings::for_batch(model, batch) };
    let mut engine = Engine::new(model, vocab_size, &[vocab_size as u32 - 1], settings)?;
    for k in 0..batch as u64 {
        let processors = Processors { min_new_tokens: WRITTEN, ..Processors::NONE };
        let sampling = Sampling { temperature: 0.8, top_k: 40, seed: k, processors, ..Sampling::default() };
        let prompt = random_ids(model, BEFORE, 2 + k);
        let overflow = Overflow::Refuse;
        engine.add(Task {
            prompt,
            max_new: WRITTEN,
            sampling,
            prompt_logprobs: None,
            logprobs_from: 0,
            overflow,
            constraint: None,
        })?;
    }
    engine.step()?; // reads the prompts, and draws each text's first token
    let (start, mut tokens) = (Instant::now(), 0);
    while !engine.is_idle() {
        tokens += engine.step()?.iter().filter(|event| matches!(event, Event::Token(..))).count();
    }
    Ok(tokens as f64 / start.elapsed().as_secs_f64())
}
