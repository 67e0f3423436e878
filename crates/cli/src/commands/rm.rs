//! `gpt2 rm`: removes a downloaded model.

use anyhow::Result;
use hub::{Hub, Name};

use crate::input::size;
use crate::output::say;

/// Remove a downloaded model
///
/// NAME@REVISION removes one revision, and only those of its files that no other revision uses.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  gpt2 rm gpt2-xl\n  gpt2 rm org/name@old-branch")]
pub struct Args {
    /// Name of the model, as `gpt2 ls` shows it; with @REVISION, only that one is removed
    #[arg(value_name = "NAME")]
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    // Whatever is in the cache may be removed: a word alone can be no typing mistake for a download.
    let name = Name::parse(&args.name).or_else(|error| {
        let word = format!("hf:{}", args.name.trim_start_matches("hf:"));
        Name::parse(&word).map_err(|_| error)
    })?;
    let removed = Hub::from_env()?.remove(&name)?;
    if args.json {
        return super::print_json(&removed);
    }
    let revisions = match removed.revisions.len() {
        1 => "1 revision".to_owned(),
        n => format!("{n} revisions"),
    };
    say!("removed {} ({revisions}): {} are free again", removed.name, size(removed.freed))
}
