//! The flags that say who may come in, and what is written down.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use serve::Guards;
use serve::cors::Origins;
use serve::hosts::Hosts;
use serve::keys::KeyRing;
use serve::log::{self, Flush, Format};
use serve::rate::Limits;
use serve::tls::Tls;

/// Who may come in, and what is written down.
#[derive(clap::Args, Debug)]
pub struct GuardArgs {
    /// File of keys, which `gpt2 key` makes; each request must then have one, as `Authorization: Bearer KEY` [default: no keys]
    #[arg(long, value_name = "FILE", help_heading = "Who may come in")]
    api_key_file: Option<PathBuf>,
    /// Requests that a key may make in a minute, unless the file says otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Who may come in")]
    requests_per_minute: Option<u32>,
    /// Tokens that a key may use in a minute, of prompts and answers, unless the file says otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Who may come in")]
    tokens_per_minute: Option<u32>,
    /// Let everyone read /metrics, without a key
    #[arg(long, help_heading = "Who may come in")]
    metrics_open: bool,
    /// Name under which the server may be asked, such as the one that a proxy passes on. May be given several times [default: on
    /// 127.0.0.1 only this machine's names, elsewhere any]
    #[arg(long, value_name = "NAME", help_heading = "Who may come in")]
    allow_host: Vec<String>,
    /// Origin whose pages may ask, such as `https://app.example`, or * for all. May be given several times [default: none]
    #[arg(long, value_name = "ORIGIN", help_heading = "Who may come in")]
    cors: Vec<String>,
    /// Certificate for TLS, in PEM: the server's first, then those that signed it
    #[arg(long, value_name = "FILE", help_heading = "Who may come in")]
    tls_cert: Option<PathBuf>,
    /// Key of the certificate, in PEM
    #[arg(long, value_name = "FILE", help_heading = "Who may come in")]
    tls_key: Option<PathBuf>,
    /// How the log is written: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"], help_heading = "Log")]
    log_format: String,
    /// What is logged: error, warn, info (a line a request) or debug (those for /health and /metrics, too)
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = ["error", "warn", "info", "debug"], help_heading = "Log")]
    log_level: String,
    /// Write what is sent into the log, prompts included
    #[arg(long, help_heading = "Log")]
    log_prompts: bool,
}

impl GuardArgs {
    /// Whether messages must be JSON, too.
    pub fn is_json(&self) -> bool {
        self.log_format == "json"
    }

    /// Writes the log from now on, until what is returned is dropped.
    pub fn start_log(&self) -> Result<Flush> {
        let format = if self.is_json() { Format::Json } else { Format::Text };
        Ok(log::init(format, self.log_level.parse()?, self.log_prompts)?)
    }

    /// Reads keys and certificates.
    pub fn open(&self, host: &str, address: SocketAddr) -> Result<Guards> {
        let others = Limits { requests: self.requests_per_minute, tokens: self.tokens_per_minute };
        ensure!(
            self.api_key_file.is_some() || others == Limits::default(),
            "--requests-per-minute and --tokens-per-minute are limits of keys; give a file of keys with --api-key-file"
        );
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Some(Tls::open(cert, key)?),
            (None, None) => None,
            _ => bail!("--tls-cert and --tls-key belong together; give both"),
        };
        Ok(Guards {
            keys: self.api_key_file.as_deref().map(|path| KeyRing::open(path, others)).transpose()?,
            hosts: Hosts::new(host, address.ip().is_loopback(), &self.allow_host),
            origins: Origins::of(&self.cors)?,
            tls,
            metrics_open: self.metrics_open,
            log_prompts: self.log_prompts,
            ..Guards::default()
        })
    }

    /// What whoever runs the server should know.
    pub fn advice(&self, guards: &Guards, address: SocketAddr) -> Vec<String> {
        let is_far = !address.ip().is_loopback();
        let mut all: Vec<String> = guards.keys.iter().filter_map(KeyRing::advice).collect();
        if is_far && guards.keys.is_none() {
            all.push(
                "whoever reaches this address may use the server; --api-key-file asks for keys".to_owned(),
            );
        }
        if is_far && guards.keys.is_some() && guards.tls.is_none() {
            all.push("keys and texts are not encrypted on their way; use --tls-cert and --tls-key, or a proxy that does".to_owned());
        }
        if self.log_prompts {
            all.push("the log holds what people send".to_owned());
        }
        all
    }
}
