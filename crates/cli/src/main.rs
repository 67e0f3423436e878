//! The `gpt2` command: parses, runs one subcommand, prints one error chain, chooses the exit code.
//!
//! Results go to stdout, progress and messages to stderr. Each subcommand is a file of [`commands`].
#![forbid(unsafe_code)]

mod commands;
mod constrain;
mod download;
mod examples;
mod input;
mod lines;
mod minutes;
mod model;
mod output;
mod part;
mod plan;
mod progress;
mod settings;
mod signals;
mod staging;

use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: tensor::LargePages = tensor::LargePages;

/// GPT-2, whole: from raw text to a trained model that writes, on an ordinary CPU.
#[derive(Parser)]
#[command(name = "gpt2", version, max_term_width = 110)]
#[command(after_help = "Every flag can also be set by an environment variable: GPT2_THREADS for --threads, \
    and so on; the flag wins.\nGPT2_ISA=portable|avx2|avx512|avx512vnni|avx512bf16|amx forces an instruction set; \
    GPT2_TIMING=1 shows where a benchmark's time goes.\n\n\
    Start here:  gpt2 quickstart")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Threads to compute with [default: all cores]
    #[arg(short, long, global = true, value_name = "N", help_heading = "Global options")]
    threads: Option<usize>,
    /// Download nothing: take models of the hub from the cache, or fail
    #[arg(long, global = true, help_heading = "Global options")]
    offline: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Train a small model from nothing in about two minutes, and watch it learn to write
    Quickstart(commands::quickstart::Args),
    /// Turn text into token shards
    Prepare(commands::prepare::Args),
    /// Train a model on your text
    Train(Box<commands::train::Args>),
    /// Teach a model to answer: chat, instructions, summaries, articles, preferences
    Finetune(Box<commands::finetune::Args>),
    /// Write text with a model
    Generate(Box<commands::generate::Args>),
    /// Summarise texts with a model
    Summarize(Box<commands::summarize::Args>),
    /// Talk to a model
    Chat(Box<commands::chat::Args>),
    /// Write a document by a recipe: article, product copy, report, story, code …
    Write(Box<commands::write::Args>),
    /// Serve models over HTTP: OpenAI's API, for programs
    Serve(Box<commands::serve::Args>),
    /// Make an API key for gpt2 serve
    Key(commands::key::Args),
    /// Measure loss, perplexity, bits per byte and accuracy on a text
    Eval(commands::eval::Args),
    /// Bring a model into fewer bits, and measure what that costs
    Quantize(commands::quantize::Args),
    /// Write a model in another format, and check it
    Convert(commands::convert::Args),
    /// Make one model of a model and its low-rank adapter, and check it
    Merge(commands::merge::Args),
    /// Show what a model is
    Show(commands::show::Args),
    /// Train and use tokenizers
    Tokenizer(commands::tokenizer::Args),
    /// Measure how fast this machine computes, and how near training comes to that
    Bench(commands::bench::Args),
    /// Download a model from the hub, or what is new of it
    Pull(commands::pull::Args),
    /// List the downloaded models that can be run
    Ls(commands::ls::Args),
    /// Remove a downloaded model
    Rm(commands::rm::Args),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note!("error: {}", output::printable(&chain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes on one line. Many causes are already told by the error above them.
fn chain(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

fn run() -> anyhow::Result<()> {
    let typed: Vec<_> = std::env::args_os().collect();
    let command = commands::serve::with_file(with_environment(Cli::command()), &typed)?;
    let Cli { command, threads, offline } = match Cli::from_arg_matches(&command.get_matches_from(typed)) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    tensor::isa::init()?;
    if let Some(threads) = threads {
        anyhow::ensure!((1..=1024).contains(&threads), "--threads {threads}: give a number from 1 to 1024");
        tensor::pool::set_threads(threads);
    }
    match command {
        Command::Quickstart(args) => commands::quickstart::run(args),
        Command::Prepare(args) => commands::prepare::run(args, offline),
        Command::Train(args) => commands::train::run(*args, offline),
        Command::Finetune(args) => commands::finetune::run(*args, offline),
        Command::Generate(args) => commands::generate::run(*args, offline),
        Command::Summarize(args) => commands::summarize::run(*args, offline),
        Command::Chat(args) => commands::chat::run(*args, offline),
        Command::Write(args) => commands::write::run(*args, offline),
        Command::Serve(args) => commands::serve::run(*args, offline),
        Command::Key(args) => commands::key::run(args),
        Command::Eval(args) => commands::eval::run(args, offline),
        Command::Quantize(args) => commands::quantize::run(args, offline),
        Command::Convert(args) => commands::convert::run(args, offline),
        Command::Merge(args) => commands::merge::run(args, offline),
        Command::Show(args) => commands::show::run(args, offline),
        Command::Tokenizer(args) => commands::tokenizer::run(args, offline),
        Command::Bench(args) => commands::bench::run(args, offline),
        Command::Pull(args) => commands::pull::run(args, offline),
        Command::Ls(args) => commands::ls::run(args),
        Command::Rm(args) => commands::rm::run(args),
    }
}

/// Gives every flag, of every subcommand, its environment variable.
fn with_environment(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let id = arg.get_id().as_str();
        if arg.get_long().is_none() || matches!(id, "help" | "version") {
            return arg;
        }
        let name = format!("GPT2_{}", id.to_uppercase());
        let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let arg = arg.env(name).hide_env(true);
        if is_switch { arg.value_parser(FalseyValueParser::new()) } else { arg }
    });
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_environment))
}
