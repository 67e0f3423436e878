//! `gpt2 convert`: a model in another format, checked against what it came from.

pub(super) mod check;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use models::checkpoint::{self, Format, Found, GgufType, HfOptions, LlmcType};
use models::{Dtype, Gpt2, Gpt2Config};
use serde_json::{Value, json};
use tensor::Activation;
use tokenizer::Tokenizer;

use self::check::{Check, Side, probe};
use crate::input;
use crate::model::Located;
use crate::output::{note, printable, say, token_names};
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
    /// Low-rank adapter to merge into the model first: a directory with adapter_config.json
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Let TO be replaced
    #[arg(long)]
    force: bool,
    /// With --to hf: largest file of weights, in bytes [default: 5000000000]
    #[arg(long, value_name = "BYTES")]
    shard_bytes: Option<u64>,
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

    /// The most that logits may differ by (root mean square), as a part of their spread: about four times the most that was
    /// seen, of 16 models of PyTorch with a few values each, trained ones of 0.6 and 29 million, and random ones up to
    /// GPT-2 124M: f16 0.0012, bf16 0.013, q8_0 0.017, q4_0 0.25. Logits that have nothing to do with the model's differ by
    /// 1.4.
    fn tolerance(self) -> f64 {
        match self {
            Kind::F32 => 0.0,
            Kind::F16 => 0.005,
            Kind::Bf16 => 0.05,
            Kind::Q8 => 0.07,
            Kind::Q4 => 0.9,
        }
    }
}

/// The largest file of weights where no other size was asked for, in bytes.
const SHARD_BYTES: u64 = 5_000_000_000;

/// What the tanh formula in place of the exact GELU adds to a tolerance. Models of two layers showed 0.0003 at most.
const GELU_TOLERANCE: f64 = 0.005;

impl To {
    /// The types that the format has a place for.
    fn kinds(self) -> &'static [Kind] {
        match self {
            To::Hf | To::Pt => &[Kind::F32, Kind::F16, Kind::Bf16],
            To::Llmc => &[Kind::F32, Kind::Bf16],
            To::Gguf => &[Kind::F32, Kind::F16, Kind::Bf16, Kind::Q8, Kind::Q4],
        }
    }

    fn name(self) -> &'static str {
        match self {
            To::Hf => "hf",
            To::Gguf => "gguf",
            To::Llmc => "llmc",
            To::Pt => "pt",
        }
    }

    fn ensure_has(self, kind: Kind) -> Result<()> {
        let names: Vec<&str> = self.kinds().iter().map(|kind| kind.name()).collect();
        ensure!(
            self.kinds().contains(&kind),
            "--type {}: --to {} has {}",
            kind.name(),
            self.name(),
            names.join(", ")
        );
        Ok(())
    }
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    args.kind.map_or(Ok(()), |kind| args.to.ensure_has(kind))?;
    ensure!(args.shard_bytes != Some(0), "--shard-bytes 0: give a number of bytes, as 5000000000");
    if args.shard_bytes.is_some() && args.to != To::Hf {
        note!("note: --shard-bytes changes nothing: only --to hf writes weights into several files");
    }
    let located = Located::of(&args.from, args.adapter.as_deref(), offline)?;
    let from = located.path.clone();
    refuse_overwriting(&args, &from)?;
    let found = checkpoint::find(&from)?;
    refuse_own_files(&args, &from, &found)?;
    checkpoint::assumptions(&from)?.iter().for_each(|assumed| note!("note: {assumed}"));
    let mut model = match located.adapter {
        None => {
            Gpt2::open_exact(&from).with_context(|| format!("cannot load a model from {}", from.display()))?
        }
        Some(_) => {
            let mut model = located.open_alone(Some(Dtype::F32))?;
            model.merge_adapter()?;
            model
        }
    };
    model.check_finite()?;
    let kind = kind(&args, &model);
    let mut tolerance = kind.tolerance();
    // nanoGPT's. To be refused for it would help nobody.
    if matches!(args.to, To::Gguf | To::Llmc) && model.config().activation_function == Activation::Gelu {
        note!(
            "note: the model has the exact GELU, and {} knows only the tanh formula for it, which is at most 5e-4 away: \
             what will be computed there is nearly the same, not the same",
            args.to.name()
        );
        model.set_activation(Activation::GeluNew);
        tolerance += GELU_TOLERANCE;
    }
    let tokenizer = tokenizer(&args, &located, &model);
    let ids = probe(tokenizer.as_ref(), args.probe.as_deref(), model.config())?;
    let staged = Staged::beside(&args.target)?;
    note!("[writing {}, {}]", args.target.display(), kind.name());
    let merged = located.adapter.as_ref().map(|_| model.clone());
    write(&model, tokenizer.as_ref(), kind, &staged, &args, &located)
        .with_context(|| format!("cannot write {}", args.target.display()))?;
    let ends = Ends::of(model.config(), staged.path(), tokenizer.as_ref())
        .context("what was written cannot be read; nothing is kept")?;
    drop(model);

    let before = match &merged {
        Some(merged) => Side::of_model(merged, &ids)?,
        None => Side::of(&from, &ids)?,
    };
    drop(merged);
    ensure!(
        before.logits.iter().all(|logit| logit.is_finite()),
        "{} computes logits that are not numbers, so nothing can be compared; nothing is kept",
        from.display()
    );
    let after = Side::of(staged.path(), &ids).context("what was written cannot be read; nothing is kept")?;
    let check = Check::new(&before, &after);
    check.ensure_within(tolerance, kind)?;
    commit(staged, &args)?;
    ends.note_changes(args.to, tokenizer.as_ref());
    if args.json {
        return super::print_json(&json!({
            "from": { "path": from.display().to_string(), "format": found.format.name(), "sha256": before.sha256 },
            "to": { "path": args.target.display().to_string(), "format": args.to.name(), "sha256": after.sha256 },
            "type": kind.name(),
            "tokens": ids.len(),
            "max_logit_difference": check.most,
            "mean_logit_difference_of_spread": check.mean,
            "tolerance": tolerance,
            "top1_agreement": check.agreement,
            "same_weights": before.sha256 == after.sha256,
            "end_tokens": { "before": ends.before, "after": ends.after },
        }));
    }
    say!("max |Δlogit|      {:.3e}  ({:.2e} of the logits' spread on average)", check.most, check.mean)?;
    say!("top-1 agreement   {:.1} % of {} tokens", 100.0 * check.agreement, ids.len())?;
    say!("weights before    sha256:{}", before.sha256)?;
    let same = if before.sha256 == after.sha256 { "the same" } else { "rounded" };
    say!("weights after     sha256:{}  ({same})", after.sha256)
}

/// The tokens that end texts, before and after.
struct Ends {
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Ends {
    fn of(before: &Gpt2Config, written: &Path, tokenizer: Option<&Tokenizer>) -> Result<Ends> {
        let ends = |config: &Gpt2Config| match tokenizer {
            Some(tokenizer) => generate::end_tokens(config, tokenizer),
            None => config.end_tokens().to_vec(),
        };
        Ok(Ends { before: ends(before), after: ends(&checkpoint::load_config(written)?) })
    }

    /// Says what a format has no place for.
    fn note_changes(&self, to: To, tokenizer: Option<&Tokenizer>) {
        let names = |from: &[u32], without: &[u32]| {
            let ids: Vec<u32> = from.iter().copied().filter(|id| !without.contains(id)).collect();
            token_names(&ids, tokenizer)
        };
        let (lost, gained) = (names(&self.before, &self.after), names(&self.after, &self.before));
        if !lost.is_empty() {
            note!(
                "note: {} has no place for all tokens that end what the model writes: texts will not end at {lost}",
                to.name()
            );
        }
        if !gained.is_empty() {
            note!("note: texts will end at {gained}, too, which {} always names", to.name());
        }
    }
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

/// Refuses to write over the files that the model is read from, and those that make a model of them.
fn refuse_own_files(args: &Args, from: &Path, found: &Found) -> Result<()> {
    let (whole, target) = (|path: &Path| path.canonicalize().ok(), &args.target);
    let own = checkpoint::files(found)?;
    let is_own = match args.to {
        // Its files would get the names of those.
        To::Hf => found.format == Format::Safetensors && whole(target) == found.path.parent().and_then(whole),
        _ => {
            let beside = super::quantize::beside().map(|name| from.join(name));
            whole(target).is_some() && own.into_iter().chain(beside).any(|file| whole(&file) == whole(target))
        }
    };
    ensure!(!is_own, "{} is where the model itself lies; choose another", target.display());
    Ok(())
}

/// The type to write: what was asked for, or what the format has a place for and loses nothing.
fn kind(args: &Args, model: &Gpt2) -> Kind {
    let as_it_is = Kind::of(model.dtype());
    let keeps_all = args.to.kinds().contains(&as_it_is)
        && (!matches!(args.to, To::Hf | To::Llmc) || is_all(model, as_it_is.dtype()));
    args.kind.unwrap_or(if keeps_all { as_it_is } else { Kind::F32 })
}

/// Whether all numbers of a model are of this type, those of its norms and biases, too, which may be wider.
fn is_all(model: &Gpt2, dtype: Dtype) -> bool {
    let same = |x: f32| match dtype {
        Dtype::F16 => tensor::f16::from_f32(x).to_f32() == x,
        Dtype::Bf16 => tensor::bf16::from_f32(x).to_f32() == x,
        _ => true,
    };
    model.parameters().iter().all(|(_, tensor)| tensor.decoded().iter().all(|&x| same(x)))
}

/// The model's tokenizer. A model can be converted without.
fn tokenizer(args: &Args, located: &Located, model: &Gpt2) -> Option<Tokenizer> {
    let (from, vocab_size) = (&located.path, model.config().vocab_size);
    let tokenizer = match located.tokenizer(model) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            note!("warning: no tokenizer goes with the model: {}", printable(&format!("{error:#}")));
            return None;
        }
    };
    let tokens = tokenizer.vocab_size();
    if tokens > vocab_size {
        note!(
            "warning: the tokenizer of {} has {tokens} tokens, but the model {vocab_size}; it is not used",
            from.display()
        );
        return None;
    }
    if matches!(args.to, To::Llmc | To::Pt) {
        note!("note: this format has no place for the tokenizer; keep that of {}", from.display());
    }
    Some(tokenizer)
}

/// Moves what was written to its place, and removes what lies there of a model before it that would be read instead, or
/// with it.
fn commit(staged: Staged, args: &Args) -> Result<()> {
    let target = &args.target;
    if args.to != To::Hf {
        return staged.commit("");
    }
    let is_sharded = staged.path().join(checkpoint::INDEX).exists();
    let weights = if is_sharded { checkpoint::INDEX } else { checkpoint::WEIGHTS };
    let mut stale = Vec::new();
    if checkpoint::find(target).is_ok() {
        stale.extend(super::quantize::beside().map(|name| target.join(name)));
    } else if target.join(CARD).exists() {
        // Somebody's own; it is not of a model that is replaced.
        fs::remove_file(staged.path().join(CARD))?;
    }
    for (name, format) in
        [(checkpoint::WEIGHTS, Format::Safetensors), (checkpoint::INDEX, Format::Safetensors)]
    {
        let path = target.join(name);
        if path.is_file() {
            // A list that cannot be read names no files.
            stale.extend(checkpoint::files(&Found { format, path: path.clone() }).unwrap_or_default());
            stale.push(path);
        }
    }
    stale.retain(|file| file.file_name().is_some_and(|name| !staged.path().join(name).exists()));
    staged.commit(weights)?;
    for file in stale.into_iter().filter(|file| file.exists()) {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(())
}

fn write(
    model: &Gpt2,
    tokenizer: Option<&Tokenizer>,
    kind: Kind,
    staged: &Staged,
    args: &Args,
    located: &Located,
) -> Result<()> {
    let from = located.path.as_path();
    let path = staged.path();
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    // A name on the hub says more than where its snapshot lies.
    let origin = if args.from.exists() { last(from) } else { None };
    let origin = origin.unwrap_or_else(|| args.from.display().to_string());
    match (args.to, kind) {
        (To::Hf, _) => {
            let options = HfOptions {
                dtype: kind.dtype(),
                shard_bytes: args.shard_bytes.unwrap_or(SHARD_BYTES),
                name: last(&args.target).unwrap_or_default(),
                origin: Some(format!("Converted from `{origin}` by `gpt2 convert`.")),
            };
            checkpoint::save_hf(model, path, &options)?;
            let beside = input::files_beside(&checkpoint::find(from)?, from);
            let copied = beside.as_deref().map_or(Ok(false), |dir| copy_beside(dir, path))?;
            let copied = located.copy_own_files(model, path)? || copied;
            if let (false, Some(tokenizer)) = (copied, tokenizer) {
                tokenizer.save(path)?;
            }
        }
        (To::Gguf, kind) => {
            let gguf = GgufType::from_name(kind.name()).expect("GGUF has all types");
            let Gpt2Config { n_embd, n_inner, .. } = model.config();
            if kind.dtype().is_blocks() && !(n_embd.is_multiple_of(32) && n_inner.is_multiple_of(32)) {
                note!(
                    "note: matrices of {n_embd} or {n_inner} inputs that are not whole blocks of 32 stay f16"
                );
            }
            let name = args.target.file_stem().unwrap_or_default().to_string_lossy();
            let metadata = [("general.name", &*name)];
            let inside = tokenizer.map(generate::gguf::inside).transpose()?;
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

/// The model card.
const CARD: &str = "README.md";
/// What a config says of tokens and is nothing to the arithmetic.
const KEPT: [&str; 5] =
    ["bos_token_id", "eos_token_id", "pad_token_id", "initializer_range", "task_specific_params"];

/// Copies the files of the tokenizer and of generation as they are, and what the config says of tokens; whether there was
/// a tokenizer.
pub(super) fn copy_beside(from: &Path, to: &Path) -> Result<bool> {
    let mut any = false;
    for name in super::quantize::beside().filter(|name| *name != checkpoint::CONFIG) {
        let file = from.join(name);
        if file.is_file() {
            fs::copy(&file, to.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
            any |= tokenizer::DEFINING_FILES.contains(&name);
        }
    }
    let read = |dir: &Path| -> Option<Value> {
        serde_json::from_slice(&fs::read(dir.join(checkpoint::CONFIG)).ok()?).ok()
    };
    if let (Some(old), Some(mut new)) = (read(from), read(to)) {
        // A token beyond the vocabulary is one of transformers' own, where the model did not say.
        let is_token = |value: &Value| value.as_u64().is_none_or(|id| Some(id) < new["vocab_size"].as_u64());
        let kept = KEPT.iter().filter_map(|&name| Some((name, old.get(name)?)));
        let kept: Vec<_> = kept.filter(|(_, value)| is_token(value)).collect();
        kept.into_iter().for_each(|(name, value)| new[name] = value.clone());
        fs::write(to.join(checkpoint::CONFIG), format!("{new:#}\n"))
            .with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(any)
}
