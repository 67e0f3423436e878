//! `gpt2 key`: a key for `gpt2 serve`.

use std::io::{BufRead, IsTerminal, Read};

use anyhow::{Context, Result, ensure};
use serve::keys;
use serve::rate::Limits;

use crate::output::{note, say};

/// Make an API key for gpt2 serve
///
/// Prints the line for the file of keys, which holds only a hash, and shows the key itself once, on standard error.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gpt2 key alice >> keys\n  gpt2 key batch --requests-per-minute 60 --tokens-per-minute 20000 >> keys\n  \
    gpt2 key alice --stdin < secret >> keys\n  gpt2 serve -m out/assistant --api-key-file keys\n\n\
    A line of the file is `NAME: sha256:HASH`, then `requests=N` and `tokens=N`, a minute, where the key has limits of its own. \
    Lines that begin with # are remarks. To take a key back, remove its line, and send the server SIGHUP."
)]
pub struct Args {
    /// Name of the key: what logs and metrics call it
    #[arg(value_name = "NAME")]
    name: String,
    /// Requests that the key may make in a minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_minute: Option<u32>,
    /// Tokens that the key may use in a minute, of prompts and answers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    tokens_per_minute: Option<u32>,
    /// Read a key that there is already from standard input, instead of making one
    #[arg(long)]
    stdin: bool,
}

pub fn run(args: Args) -> Result<()> {
    let key = match args.stdin {
        true => read()?,
        false => keys::new_key().context("the system gives no random numbers")?,
    };
    let limits = Limits { requests: args.requests_per_minute, tokens: args.tokens_per_minute };
    say!("{}", keys::line(&args.name, &key, limits)?)?;
    if !args.stdin {
        note!("the key of {}, which is shown only this once: {key}", args.name);
    }
    Ok(())
}

fn read() -> Result<String> {
    let input = std::io::stdin();
    if input.is_terminal() {
        note!("the key, on one line:");
    }
    let mut line = String::new();
    // No key is as long; but what is given may never end.
    input.lock().take(1 << 16).read_line(&mut line).context("cannot read the key from standard input")?;
    let key = line.trim();
    ensure!(!key.contains(char::is_whitespace), "a key has no spaces; give one line with the key alone");
    Ok(key.to_owned())
}
