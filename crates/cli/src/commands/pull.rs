//! `gpt2 pull`: downloads a model.

use anyhow::Result;
use hub::Name;
use serde_json::json;

use crate::download;
use crate::output::{note, say};

/// Download a model from the hub, or what is new of it
///
/// Names: gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, ORG/NAME, any of them with @REVISION, hf:NAME. Models lie
/// where Python's libraries look for them, below HF_HOME; HF_ENDPOINT names a mirror, HF_TOKEN opens private models.
/// A download that was cut goes on where it stood.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  gpt2 pull gpt2\n  gpt2 pull uer/gpt2-chinese-cluecorpussmall@main\n  \
    HF_ENDPOINT=https://hf-mirror.com gpt2 pull gpt2-medium")]
pub struct Args {
    /// Name of the model: gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2 or ORG/NAME; each also with @REVISION
    #[arg(value_name = "NAME")]
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    let name = Name::parse(&args.name)?;
    let snapshot = download::pull(&name, offline)?;
    if args.json {
        return super::print_json(&json!({
            "name": snapshot.name.repo(), "revision": snapshot.commit, "downloaded": snapshot.downloaded,
            "path": snapshot.path,
        }));
    }
    if snapshot.downloaded == 0 {
        note!("everything of {name} was there already");
    }
    say!("{}", snapshot.path.display())
}
