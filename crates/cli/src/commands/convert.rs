//! `gpt2 convert`: a model in another format, checked against what it came from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use models::checkpoint::{self, GgufType, HfOptions, LlmcType};
use models::{Dtype, Gpt2, Pass};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokenizer::Tokenizer;

use crate::input;
use crate::output::{note, printable, say};
use crate::staging::Staged;

/// Write a model in another format, and check it
///
/// Reads model directories of Hugging Face (safetensors or PyTorch), files of PyTorch and nanoGPT (.pt), llm.c (.bin) and
/// GGUF, and models of the hub by name. What was written is read again, and both models are run on a probe text: if they
/// differ more than the type of numbers explains, nothing is left behind.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gpt2 convert out/model model.gguf --to gguf --type q8_0    for llama.cpp and Ollama\n  \
    gpt2 convert ckpt.pt my-model --to hf                      a nanoGPT for transformers"
)]
pub struct Args {
    /// The model: a directory, a file, or a name on the hub
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// What to write: a directory for hf, a file for the others
    #[arg(value_name = "TO")]
    target: PathBuf,
    /// The format: hf (a directory for transformers), gguf (llama.cpp, Ollama), llmc (llm.c's .bin) or pt (PyTorch's state
    /// dict)
    #[arg(long, value_name = "FORMAT")]
    to: To,
    /// Type of the numbers [default: as they are, or the nearest that loses nothing]
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
    /// Let TO be replaced
    #[arg(long)]
    force: bool,
    /// With --to hf: largest file of weights, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 5_000_000_000)]
    shard_bytes: u64,
    /// Text that both models are run on, instead of a built-in one
    #[arg(long, value_name = "TEXT")]
    probe: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A format to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    Hf,
    Gguf,
    Llmc,
    Pt,
}

/// A type of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8,
    #[value(name = "q4_0")]
    Q4,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::F32 => "f32",
            Kind::F16 => "f16",
            Kind::Bf16 => "bf16",
            Kind::Q8 => "q8_0",
            Kind::Q4 => "q4_0",
        }
    }

    /// The type that has the bits of a model as it is.
    fn of(dtype: Dtype) -> Kind {
        match dtype {
            Dtype::F32 => Kind::F32,
            Dtype::F16 => Kind::F16,
            Dtype::Bf16 => Kind::Bf16,
            Dtype::Q8 => Kind::Q8,
            Dtype::Q4 => Kind::Q4,
        }
    }

    /// Our type with as many bits.
    fn dtype(self) -> Dtype {
        match self {
            Kind::F32 => Dtype::F32,
            Kind::F16 => Dtype::F16,
            Kind::Bf16 => Dtype::Bf16,
            Kind::Q8 => Dtype::Q8,
            Kind::Q4 => Dtype::Q4,
        }
    }

    /// The most that logits may differ by on average, as a part of their spread: several times what GPT-2s of all sizes
    /// show, and a fraction of what a matrix that is turned or in the wrong place does.
    fn tolerance(self) -> f64 {
        match self {
            Kind::F32 => 0.0,
            Kind::F16 => 0.005,
            Kind::Bf16 => 0.03,
            Kind::Q8 => 0.06,
            Kind::Q4 => 0.6,
        }
    }
}

impl To {
    /// The types that the format has a place for.
    fn kinds(self) -> &'static [Kind] {
        match self {
            To::Hf | To::Pt => &[Kind::F32, Kind::F16, Kind::Bf16],
            To::Llmc => &[Kind::F32, Kind::Bf16],
            To::Gguf => &[Kind::F32, Kind::F16, Kind::Bf16, Kind::Q8, Kind::Q4],
        }
    }
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    let from = input::model_path(&args.from, offline)?;
    refuse_overwriting(&args, &from)?;
    let found = checkpoint::find(&from)?;
    checkpoint::assumptions(&from)?.iter().for_each(|assumed| note!("note: {assumed}"));
    let model =
        Gpt2::open_exact(&from).with_context(|| format!("cannot load a model from {}", from.display()))?;
    model.check_finite()?;
    let kind = kind(&args, model.dtype())?;
    let tokenizer = tokenizer(&args, &from, model.config().vocab_size)?;
    let staged = Staged::beside(&args.target)?;
    note!("[writing {}, {}]", args.target.display(), kind.name());
    write(&model, tokenizer.as_ref(), kind, &staged, &args, &from)
        .with_context(|| format!("cannot write {}", args.target.display()))?;
    drop(model);

    let ids = probe(tokenizer.as_ref(), args.probe.as_deref(), &checkpoint::load_config(&from)?)?;
    let before = Side::of(&from, &ids)?;
    ensure!(
        before.logits.iter().all(|logit| logit.is_finite()),
        "the model's own logits are no numbers: its weights are too large, since the file is damaged or training went wrong; \
         nothing is kept"
    );
    let after = Side::of(staged.path(), &ids)?;
    let check = Check::new(&before, &after, ids.len());
    ensure!(
        check.mean <= kind.tolerance(),
        "what was written is not the same model: logits differ by {:.2e} of their spread on average, and {} explains \
         {:.2e} at most; nothing is kept",
        check.mean,
        kind.name(),
        kind.tolerance()
    );
    staged.commit(if args.to == To::Hf { checkpoint::WEIGHTS } else { "" })?;
    if args.json {
        return super::print_json(&json!({
            "from": { "path": from, "format": found.format.name(), "sha256": before.sha256 },
            "to": { "path": args.target, "format": args.to.to_possible_value().map(|v| v.get_name().to_owned()),
                    "sha256": after.sha256 },
            "type": kind.name(),
            "tokens": ids.len(),
            "max_logit_difference": check.most,
            "mean_logit_difference_of_spread": check.mean,
            "tolerance": kind.tolerance(),
            "top1_agreement": check.agreement,
            "same_weights": before.sha256 == after.sha256,
        }));
    }
    say!("max |Δlogit|      {:.3e}  ({:.2e} of the logits' spread on average)", check.most, check.mean)?;
    say!("top-1 agreement   {:.1} % of {} tokens", 100.0 * check.agreement, ids.len())?;
    say!("weights before    sha256:{}", before.sha256)?;
    let same = if before.sha256 == after.sha256 { "the same" } else { "rounded" };
    say!("weights after     sha256:{}  ({same})", after.sha256)
}

fn refuse_overwriting(args: &Args, from: &Path) -> Result<()> {
    let (to, target) = (args.target.display(), &args.target);
    let whole = |path: &Path| path.canonicalize().ok();
    ensure!(
        whole(target).is_none() || whole(target) != whole(from),
        "{to} is the model itself; choose another"
    );
    if args.to != To::Hf {
        ensure!(!target.is_dir(), "{to} is a directory; name the file to write");
        ensure!(
            !target.exists() || target.is_file(),
            "{to} is no file that could be replaced; choose another"
        );
        ensure!(
            args.force || !target.exists(),
            "{to} is already there; choose another, or replace it with --force"
        );
        return Ok(());
    }
    ensure!(!target.is_file(), "{to} is a file; name a directory");
    ensure!(
        !target.join("last").exists(),
        "{to} holds a training run, which would no longer fit the model; choose another"
    );
    if !args.force && checkpoint::find(target).is_ok() {
        bail!("{to} already holds a model; choose another directory, or replace it with --force");
    }
    Ok(())
}

/// The type to write: what was asked for, or what the format has a place for and loses nothing.
fn kind(args: &Args, dtype: Dtype) -> Result<Kind> {
    let kinds = args.to.kinds();
    let as_it_is = Kind::of(dtype);
    let kind = args.kind.unwrap_or(if kinds.contains(&as_it_is) { as_it_is } else { Kind::F32 });
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    ensure!(kinds.contains(&kind), "--type {}: this format has {}", kind.name(), names.join(", "));
    Ok(kind)
}

/// The model's tokenizer. Formats without a place for it can do without.
fn tokenizer(args: &Args, from: &Path, vocab_size: usize) -> Result<Option<Tokenizer>> {
    match input::tokenizer_of(from, vocab_size) {
        Ok(tokenizer) => {
            if matches!(args.to, To::Llmc | To::Pt) {
                note!("note: this format has no place for the tokenizer; keep that of {}", from.display());
            }
            Ok(Some(tokenizer))
        }
        Err(error) => {
            note!("warning: no tokenizer goes with the model: {}", printable(&format!("{error:#}")));
            Ok(None)
        }
    }
}

fn write(
    model: &Gpt2,
    tokenizer: Option<&Tokenizer>,
    kind: Kind,
    staged: &Staged,
    args: &Args,
    from: &Path,
) -> Result<()> {
    let (path, name) = (staged.path(), args.target.file_stem().unwrap_or_default().to_string_lossy());
    let origin =
        from.file_name().map_or_else(|| from.display().to_string(), |name| name.to_string_lossy().into());
    match (args.to, kind) {
        (To::Hf, _) => {
            let options = HfOptions {
                dtype: kind.dtype(),
                shard_bytes: args.shard_bytes,
                name: name.clone().into_owned(),
                origin: Some(format!("Converted from `{origin}` by `gpt2 convert`.")),
            };
            checkpoint::save_hf(model, path, &options)?;
            let copied = from.is_dir() && copy_tokenizer(from, path)?;
            if let (false, Some(tokenizer)) = (copied, tokenizer) {
                tokenizer.save(path)?;
            }
        }
        (To::Gguf, kind) => {
            let gguf = GgufType::from_name(kind.name()).expect("GGUF has all types");
            let metadata = [("general.name", &*name)];
            let chat = tokenizer.and_then(|tokenizer| tokenizer.chat_template().map(str::to_owned));
            let inside = tokenizer.map(|tokenizer| generate::gguf::inside(tokenizer, chat)).transpose()?;
            checkpoint::save_gguf(model, path, gguf, inside.as_ref(), &metadata)?;
        }
        (To::Llmc, Kind::Bf16) => checkpoint::save_llmc(model, path, LlmcType::Bf16)?,
        (To::Llmc, _) => checkpoint::save_llmc(model, path, LlmcType::F32)?,
        (To::Pt, kind) if kind.dtype() == model.dtype() => checkpoint::save_torch(model, path)?,
        (To::Pt, kind) => {
            let exact = model.to_dtype(kind.dtype())?;
            checkpoint::save_torch(&exact, path)?;
        }
    }
    Ok(())
}

/// Copies the tokenizer's files as they are; whether there were any.
fn copy_tokenizer(from: &Path, to: &Path) -> Result<bool> {
    let mut any = false;
    for name in super::quantize::BESIDE
        .iter()
        .filter(|name| !name.contains("config.json") || name.contains("tokenizer"))
    {
        let file = from.join(name);
        if file.is_file() {
            fs::copy(&file, to.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
            any |= ["tokenizer.json", "vocab.json", "vocab.txt"].contains(name);
        }
    }
    Ok(any)
}

/// Tokens that both models are run on: a text's, and some from all over the vocabulary.
fn probe(tokenizer: Option<&Tokenizer>, text: Option<&str>, config: &models::Gpt2Config) -> Result<Vec<u32>> {
    const MOST: usize = 128;
    const TEXT: &str = "The model was trained on 8 million documents. 从前有一只小猫，它喜欢在花园里玩。\n\n\"Yes,\" she said.";
    let spread = (0..32u64).map(|i| (i * 7919 % config.vocab_size as u64) as u32);
    let mut ids: Vec<u32> = spread.collect();
    if let Some(tokenizer) = tokenizer {
        match tokenizer.encode(text.unwrap_or(TEXT)) {
            Ok(of_text) => ids.splice(0..0, of_text.into_iter().take(MOST)).for_each(drop),
            // A vocabulary of characters need not have those of the built-in text.
            Err(_) if text.is_none() => {}
            Err(error) => return Err(error).context("--probe"),
        }
    }
    ids.truncate(config.n_ctx);
    Ok(ids)
}

/// A model's answers to the probe, and its weights in short.
struct Side {
    logits: Vec<f32>,
    sha256: String,
    vocab_size: usize,
}

impl Side {
    fn of(path: &Path, ids: &[u32]) -> Result<Side> {
        let model =
            Gpt2::load(path).with_context(|| format!("cannot load a model from {}", path.display()))?;
        let mut hash = Sha256::new();
        for (name, tensor) in model.parameters() {
            hash.update(format!("{name} {:?}\n", tensor.shape()));
            tensor.data().chunks(1 << 16).for_each(|part| hash.update(bytemuck::cast_slice::<f32, u8>(part)));
        }
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let logits = model.logits(ids, 1, &mut Pass::eval())?.data().to_vec();
        Ok(Side { logits, sha256, vocab_size: model.config().vocab_size })
    }
}

/// How far two models are apart on the probe.
struct Check {
    /// The largest difference of a logit.
    most: f64,
    /// The root mean square of the differences over the spread (standard deviation) of the logits.
    mean: f64,
    /// Part of the positions where the most likely token is the same.
    agreement: f64,
}

impl Check {
    fn new(before: &Side, after: &Side, positions: usize) -> Check {
        if before.vocab_size != after.vocab_size {
            return Check { most: f64::INFINITY, mean: f64::INFINITY, agreement: 0.0 };
        }
        let pairs = || before.logits.iter().zip(&after.logits).map(|(&a, &b)| (f64::from(a), f64::from(b)));
        let n = before.logits.len() as f64;
        let mean = pairs().map(|(a, _)| a).sum::<f64>() / n;
        let spread = (pairs().map(|(a, _)| (a - mean).powi(2)).sum::<f64>() / n).sqrt();
        let error = (pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>() / n).sqrt();
        let first = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)));
        let rows = |side: &Side| side.logits.chunks(side.vocab_size).map(first).collect::<Vec<_>>();
        let same = rows(before).iter().zip(rows(after)).filter(|(a, b)| **a == *b).count();
        Check {
            most: pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max),
            mean: if error == 0.0 { 0.0 } else { error / spread },
            agreement: same as f64 / positions as f64,
        }
    }
}
