//! `gpt2 merge`: an adapter and the model that it belongs to become one model.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use models::checkpoint::{self, HfOptions};
use models::{Dtype, Gpt2};
use serde_json::json;

use super::convert::check::{Check, Side, probe};
use super::convert::copy_beside;
use crate::input;
use crate::model::Located;
use crate::output::{note, say};
use crate::staging::Staged;

/// Make one model of a model and its low-rank adapter, and check it
///
/// The adapter's products are added to the weights, in f32, and the result is a Hugging Face directory with its tokenizer,
/// which every command takes and transformers loads. What was written is read again and run on a probe text: if it differs
/// from the model with its adapter, nothing is left behind.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gpt2 merge -m gpt2 --adapter out/adapter --out out/merged\n  gpt2 merge -m out/adapter --out out/merged"
)]
pub struct Args {
    /// Model: a directory, a file, or a name on the hub; or the directory of the adapter, which names its model
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// The adapter: a directory with adapter_config.json and adapter_model.safetensors
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Directory for the new model
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Let --out replace a model
    #[arg(long)]
    force: bool,
    /// Text that both models are run on, instead of a built-in one
    #[arg(long, value_name = "TEXT")]
    probe: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The most that logits may differ by (root mean square), as a part of their spread: sums of another order, in `f32`. Models
/// of 1 to 12 layers showed 1e-6 at most.
const TOLERANCE: f64 = 1e-4;

pub fn run(args: Args, offline: bool) -> Result<()> {
    let located = Located::of(&args.model, args.adapter.as_deref(), offline)?;
    let Some(adapter) = &located.adapter else {
        bail!("{} is no adapter; give one: --adapter DIR", args.model.display());
    };
    refuse_overwriting(&args, &located)?;
    let (model, tokenizer) = located.open(Some(Dtype::F32))?;
    let ids = probe(Some(&tokenizer), args.probe.as_deref(), model.config())?;
    let before = Side::of_model(&model, &ids)?;
    ensure!(
        before.logits.iter().all(|logit| logit.is_finite()),
        "{} with {} computes logits that are not numbers, so nothing can be compared; nothing is kept",
        located.path.display(),
        adapter.display()
    );
    let mut merged = model;
    merged.merge_adapter()?;
    let staged = Staged::beside(&args.out)?;
    note!("[writing {}, f32]", args.out.display());
    write(&merged, &located, &staged, &args)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    drop(merged);
    let written = Gpt2::load(staged.path()).context("what was written cannot be read; nothing is kept")?;
    let check = Check::new(&before, &Side::of_model(&written, &ids)?);
    let is_within = check.mean <= TOLERANCE;
    ensure!(
        is_within,
        "the merged model is not the model with its adapter: logits differ by {:.2e} of their spread on average, and sums of \
         another order explain {TOLERANCE:.0e} at most; nothing is kept. Weights that an adapter outweighs by orders of \
         magnitude cannot be merged",
        check.mean
    );
    // What lies there of another tokenizer would be read with this one.
    let stale = super::quantize::beside().filter(|name| !staged.path().join(name).exists());
    let stale: Vec<_> = stale.map(|name| args.out.join(name)).filter(|file| file.is_file()).collect();
    staged.commit(checkpoint::WEIGHTS)?;
    for file in stale {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    if args.json {
        return super::print_json(&json!({
            "path": args.out.display().to_string(),
            "tokens": ids.len(),
            "max_logit_difference": check.most,
            "mean_logit_difference_of_spread": check.mean,
            "tolerance": TOLERANCE,
            "top1_agreement": check.agreement,
        }));
    }
    say!("max |Δlogit|      {:.3e}  ({:.2e} of the logits' spread on average)", check.most, check.mean)?;
    say!("top-1 agreement   {:.1} % of {} tokens", 100.0 * check.agreement, ids.len())
}

/// Refuses an output that is the model or the adapter itself, a training run, or another model without `--force`.
fn refuse_overwriting(args: &Args, located: &Located) -> Result<()> {
    let (out, whole) = (args.out.display(), |path: &Path| path.canonicalize().ok());
    let own = [Some(&located.path), located.adapter.as_ref()].into_iter().flatten();
    for path in own {
        ensure!(
            whole(&args.out).is_none() || whole(&args.out) != whole(path),
            "--out {out} is where the model or its adapter lies; choose another directory"
        );
    }
    ensure!(!args.out.is_file(), "--out {out} is a file; name a directory");
    ensure!(
        !args.out.join("last").exists(),
        "{out} holds a training run, which would no longer fit the model; choose another --out"
    );
    let is_taken = checkpoint::find(&args.out).is_ok() || checkpoint::is_adapter(&args.out);
    ensure!(
        args.force || !is_taken,
        "{out} already holds a model or an adapter; choose another --out, or replace it with --force"
    );
    // Parts of a larger model would lie beside the new file, and be read instead of it.
    ensure!(
        !args.out.join(checkpoint::INDEX).exists(),
        "{out} holds a model in several files, which would stay; remove it, or choose another --out"
    );
    Ok(())
}

fn write(merged: &Gpt2, located: &Located, staged: &Staged, args: &Args) -> Result<()> {
    let last =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let adapter = located.adapter.as_deref().map(last).unwrap_or_default();
    let options = HfOptions {
        dtype: Dtype::F32,
        // One file, so that what is replaced is one file, too.
        shard_bytes: u64::MAX,
        name: last(&args.out),
        origin: Some(format!(
            "Made from `{}` and the adapter `{adapter}` by `gpt2 merge`.",
            last(&located.path)
        )),
    };
    checkpoint::save_hf(merged, staged.path(), &options)?;
    let found = checkpoint::find(&located.path)?;
    let beside = input::files_beside(&found, &located.path);
    let copied = beside.as_deref().map_or(Ok(false), |dir| copy_beside(dir, staged.path()))?;
    if !located.copy_own_files(merged, staged.path())? && !copied {
        located.tokenizer(merged)?.save(staged.path())?;
    }
    Ok(())
}
