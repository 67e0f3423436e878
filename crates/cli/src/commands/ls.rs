//! `gpt2 ls`: the models that were downloaded.

use anyhow::Result;
use hub::{Cached, Hub};

use crate::input::size;
use crate::output::{note, say};

/// List the downloaded models that can be run
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  gpt2 ls --json")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let hub = Hub::from_env()?;
    let models = hub.list()?;
    if args.json {
        return super::print_json(&models);
    }
    if models.is_empty() {
        note!("no models in {}; `gpt2 pull gpt2` downloads the smallest GPT-2", hub.cache().display());
        return Ok(());
    }
    let width = |cell: &dyn Fn(&Cached) -> String, title: &str| {
        models.iter().map(|model| cell(model).chars().count()).max().unwrap_or(0).max(title.len())
    };
    let (name, revision) = (width(&|model| model.name.clone(), "NAME"), width(&revision_of, "REVISION"));
    say!("{:name$}  {:revision$}  {:>9}  PATH", "NAME", "REVISION", "SIZE")?;
    for model in &models {
        let rest = if model.whole { "" } else { "  (not whole: gpt2 pull goes on with it)" };
        say!(
            "{:name$}  {:revision$}  {:>9}  {}{rest}",
            model.name,
            revision_of(model),
            size(model.size),
            model.path.display()
        )?;
    }
    Ok(())
}

/// Branches and tags, and the beginning of the commit.
fn revision_of(model: &Cached) -> String {
    let commit = &model.revision[..10];
    if model.refs.is_empty() { commit.to_owned() } else { format!("{} ({commit})", model.refs.join(", ")) }
}
