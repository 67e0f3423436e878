//! `gpt2 generate`: writes text with a model.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use generate::{Finish, Generation, Request, Sampling};
use models::Dtype;
use serde_json::json;

use crate::input;
use crate::output::note;

/// Write text with a model
///
/// The text is streamed to standard output as it is decided, after the prompt. Messages go to standard error.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gpt2 generate -m out/model -p \"Once upon a time\" -n 200 --temperature 0.8 --top-k 40\n  \
    echo \"从前有一只\" | gpt2 generate -m out/model -f - --seed 1"
)]
pub struct Args {
    /// Model directory
    #[arg(short, long, value_name = "DIR")]
    model: PathBuf,
    /// Type to bring the weights into: f32, f16, bf16, q8 or q4 [default: as stored]
    #[arg(long, value_name = "TYPE", value_parser = input::dtype)]
    dtype: Option<Dtype>,
    /// Text to continue; without one the model starts a new text
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Read the prompt from a file, or from standard input for -; one newline at its end is dropped
    #[arg(short, long, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// Tokens to write at most [default: until the text ends or the context is full]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Tokens to write at least
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_tokens: usize,
    /// Spread of the choices: 0 always takes the most likely token, 1 follows the model's probabilities
    #[arg(long, value_name = "X", default_value_t = 0.8)]
    temperature: f32,
    /// Choose among the K most likely tokens; 0 means all
    #[arg(long, value_name = "K", default_value_t = 40)]
    top_k: usize,
    /// Choose among the most likely tokens that together have this probability; 1 means all
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Start of the random numbers [default: random, and reported]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End the text before this string; may be given several times. \n and \t are understood
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Texts to write; number k uses seed + k
    #[arg(long, value_name = "N", default_value_t = 1)]
    samples: u64,
    /// Names of special tokens in the prompt stand for those tokens
    #[arg(long)]
    parse_special: bool,
    /// One line of JSON for each text, instead of streaming
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    ensure!(args.samples > 0, "--samples 0: ask for at least 1");
    if let Some(most) = args.max_tokens {
        ensure!(
            args.min_tokens <= most,
            "--min-tokens {} is more than -n {most} allows; lower the one or raise the other",
            args.min_tokens
        );
    }
    let (model, tokenizer) = input::open_model(&args.model, args.dtype)?;
    let prompt = match (&args.prompt, &args.file) {
        (Some(prompt), _) => prompt.clone(),
        (None, Some(path)) => input::read_prompt(path)?,
        (None, None) => String::new(),
    };
    let ids = if args.parse_special {
        tokenizer.encode_with_special(&prompt)?
    } else {
        tokenizer.encode(&prompt)?
    };
    let seed = input::seed(args.seed);
    for sample in 0..args.samples {
        let seed = seed.wrapping_add(sample);
        let sampling = Sampling { temperature: args.temperature, top_k: args.top_k, top_p: args.top_p, seed };
        let request = Request {
            prompt: ids.clone(),
            max_tokens: args.max_tokens,
            min_tokens: args.min_tokens,
            stop: args.stop.iter().map(|stop| stop.replace("\\n", "\n").replace("\\t", "\t")).collect(),
            sampling,
        };
        if args.json {
            let result = generate::generate(&model, &tokenizer, &request, &mut |_| true)?;
            print_result(&result, seed)?;
        } else {
            stream(&model, &tokenizer, &request, &prompt)?;
        }
    }
    Ok(())
}

fn print_result(result: &Generation, seed: u64) -> Result<()> {
    super::print_json(&json!({
        "text": result.text, "ids": result.ids, "finish_reason": result.finish, "seed": seed, "timings": result.timings,
    }))
}

fn stream(
    model: &models::Gpt2,
    tokenizer: &tokenizer::Tokenizer,
    request: &Request,
    prompt: &str,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut failed = None;
    let mut started = false;
    let result = generate::generate(model, tokenizer, request, &mut |piece| {
        let head = if started { "" } else { prompt };
        started = true;
        let written = write!(out, "{head}{piece}").and_then(|()| out.flush());
        failed = written.err();
        failed.is_none()
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if !started {
        write!(out, "{prompt}")?;
    }
    writeln!(out)?;
    let why = match result.finish {
        Finish::Eot => "the text ended",
        Finish::Stop => "a stop string came",
        Finish::Length => "the asked number of tokens is reached",
        Finish::Context => "the context is full",
        Finish::Cancelled => "cancelled",
    };
    let timings = result.timings;
    note!(
        "[{why}: {} tokens, {:.0} tokens/s, first after {:.0} ms, seed {}]",
        timings.tokens,
        timings.tokens_per_second,
        timings.prompt_ms,
        request.sampling.seed
    );
    Ok(())
}
