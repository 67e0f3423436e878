//! `gpt2 serve`: models behind HTTP, for programs that speak OpenAI's API.

mod app;
mod config;
mod guards;
mod load;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use models::Dtype;
use serve::{ServeError, Settings, State};

use self::app::AppArgs;
pub use self::config::with_file;
use self::guards::GuardArgs;
use self::load::Plan;
use crate::input;
use crate::output::{note, printable};
use crate::plan::{self, free_memory};
use crate::signals;

/// Serve models over HTTP: OpenAI's API for programs, and a web page for people
///
/// The page is at the server's address, with a chat, a writing desk, a summary desk and the probability of each token.
/// Clients of OpenAI's work as they are: give them http://HOST:PORT/v1 as base URL. The model's id is its directory's or hub's name,
/// unless another is given.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  gpt2 serve -m out/assistant\n  \
    gpt2 serve -m small=out/small -m large=gpt2-large --dtype q8 --port 9000\n  \
    gpt2 serve -m out/assistant --adapter polite=out/polite\n  \
    curl http://127.0.0.1:8080/v1/completions -H \"Content-Type: application/json\" \\\n    \
    -d '{\"model\": \"assistant\", \"prompt\": \"Once\", \"max_tokens\": 20}'\n\n\
    Ctrl-C or SIGTERM lets running requests end and takes no others; a second one ends at once. SIGHUP reads keys and certificate \
    again.")]
pub struct Args {
    /// Model: a directory, a file, or a name on the hub, with a name of its own if wanted. May be given several times
    #[arg(short, long, value_name = "[NAME=]MODEL", required = true)]
    model: Vec<String>,
    /// Low-rank adapter of the model, served beside it under a name of its own. May be given several times
    #[arg(long, value_name = "NAME=DIR")]
    adapter: Vec<String>,
    /// Type of the weights to run with: f32, f16, bf16, q8 or q4 [default: as stored]
    #[arg(long, value_name = "TYPE", value_parser = input::dtype)]
    dtype: Option<Dtype>,
    /// Address to listen on; 0.0.0.0 is all of this machine's
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one, which is told
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// Texts of a model that are written at once
    #[arg(long, value_name = "N", default_value_t = 32, help_heading = "Limits")]
    batch: usize,
    /// Memory for keys and values of all models, such as 2GB [default: what all texts need at full length and half as much again, but at most half of what is free]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Limits")]
    kv_budget: Option<u64>,
    /// Texts of a model that may wait for their turn; more are refused with status 429
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Limits")]
    queue: usize,
    /// Tokens that a request may ask for [default: what the context holds]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_tokens_limit: Option<usize>,
    /// Seconds that a request may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600, help_heading = "Limits")]
    request_timeout: u64,
    /// Size of a request
    #[arg(long, value_name = "SIZE", default_value = "4MB", value_parser = size, help_heading = "Limits")]
    body_limit: u64,
    /// Connections that may be open
    #[arg(long, value_name = "N", default_value_t = 1024, help_heading = "Limits")]
    connections: usize,
    /// Seconds that running requests may take to end after Ctrl-C or SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = "Limits")]
    drain_seconds: u64,
    #[command(flatten)]
    app: AppArgs,
    #[command(flatten)]
    guards: GuardArgs,
    /// File of settings with the names of these flags, which win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A message of the server's: a line for people, or one of the log where all must be JSON.
macro_rules! tell {
    ($is_json:expr, $($text:tt)*) => {
        match $is_json {
            true => tracing::info!("{}", format_args!($($text)*)),
            false => note!($($text)*),
        }
    };
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    let start = Instant::now();
    plan::ensure_batch(args.batch)?;
    ensure!(args.max_tokens_limit != Some(0), "--max-tokens-limit 0: allow at least 1");
    ensure!(args.request_timeout > 0, "--request-timeout 0: allow at least 1 second");
    let connections = 1..=1 << 20;
    ensure!(
        connections.contains(&args.connections),
        "--connections {}: allow 1 to {}",
        args.connections,
        1 << 20
    );
    let plan = Plan::of(&args.model, &args.adapter, args.dtype, offline)?;
    let mut app = args.app.open()?;
    let listener = listen(&args.host, args.port)?;
    let address = listener.local_addr()?;
    let _flush = args.guards.start_log()?;
    let guards = Arc::new(args.guards.open(&args.host, address)?);
    let is_json = args.guards.is_json();
    tell!(is_json, "listening on {}://{address}", if guards.tls.is_some() { "https" } else { "http" });
    for advice in args.guards.advice(&guards, address) {
        tell!(is_json, "note: {advice}");
    }
    app.api_key = guards.keys.is_some();
    let state = State::with_app(args.settings(), app);
    let draining = state.clone();
    signals::on_end(move || {
        tell!(
            is_json,
            "ending: running requests are finished, and no others taken; the same signal again ends at once"
        );
        draining.drain();
    })?;
    let reloading = guards.clone();
    signals::on_hangup(move || reloading.reload())?;
    let loaded = move || plan.open();
    let budget = args.kv_budget;
    let dropped =
        serve::run(listener, state, guards, loaded, move |state| ready(state, budget, start, is_json));
    let dropped = dropped.map_err(|error| match error {
        ServeError::Load(error) => error,
        ServeError::Start(error) => {
            anyhow::Error::from(error).context("the models were loaded, but cannot be run")
        }
        ServeError::System(error) => {
            anyhow::Error::from(error).context("the system refuses what a server needs")
        }
    })?;
    if dropped > 0 {
        tell!(is_json, "{dropped} requests were dropped, since they did not end in {} s", args.drain_seconds);
    }
    Ok(())
}

impl Args {
    fn settings(&self) -> Settings {
        // A part of what is free, since there are also the weights and what a step computes.
        let kv_bytes = self.kv_budget.unwrap_or_else(|| free_memory().map_or(1 << 30, |free| free / 2));
        Settings {
            batch: self.batch,
            kv_bytes,
            queue: self.queue,
            max_tokens: self.max_tokens_limit,
            request_timeout: Duration::from_secs(self.request_timeout),
            body_limit: usize::try_from(self.body_limit).unwrap_or(usize::MAX),
            drain: Duration::from_secs(self.drain_seconds),
            connections: self.connections,
        }
    }
}

fn listen(host: &str, port: u16) -> Result<TcpListener> {
    use std::net::ToSocketAddrs;
    let addresses = (host, port).to_socket_addrs();
    let addresses: Vec<SocketAddr> =
        addresses.with_context(|| format!("--host {host}: there is no such address"))?.collect();
    TcpListener::bind(&addresses[..]).with_context(|| {
        format!("cannot listen on {host}:{port}; choose another place with --host and --port")
    })
}

/// Says what is served.
fn ready(state: &State, budget: Option<u64>, start: Instant, is_json: bool) {
    let budget = budget.map(|bytes| bytes / state.models().len().max(1) as u64);
    for served in state.models() {
        let name = printable(served.name());
        tell!(
            is_json,
            "serving {name}: {} weights, a context of {} tokens",
            served.model().dtype(),
            served.n_ctx()
        );
        let least = plan::text_bytes(served.model());
        if budget.is_some_and(|bytes| bytes < least) {
            tell!(
                is_json,
                "note: --kv-budget leaves {name} less than one text of full length needs; it has {:.1} MB, as much as that needs",
                least as f64 / 1e6
            );
        }
        if served.is_plain() {
            tell!(
                is_json,
                "note: {name} has no chat template, so that turns are written as `User: …` and `Assistant: …`; `gpt2 finetune` makes \
                 a base model an assistant"
            );
        }
    }
    tell!(is_json, "ready after {:.2} s", start.elapsed().as_secs_f64());
}

/// A size in bytes, such as 500MB, 2GB or 1.5GiB.
fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 7] = [
        ("kib", 1024.0),
        ("mib", 1_048_576.0),
        ("gib", 1_073_741_824.0),
        ("kb", 1e3),
        ("mb", 1e6),
        ("gb", 1e9),
        ("b", 1.0),
    ];
    let lower = text.trim().to_ascii_lowercase();
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((lower.strip_suffix(unit)?, *bytes)));
    let (number, unit) = unit.unwrap_or((&lower, 1.0));
    let number = number.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0);
    number.map(|number| (number * unit) as u64).ok_or_else(|| "give a size such as 500MB or 2GB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("500MB"), Ok(500_000_000));
        assert_eq!(size("1.5 GiB"), Ok(1_610_612_736));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["", "GB", "-1GB", "1TBX", "nan", "infGB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
