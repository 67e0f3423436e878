//! From what was typed to what will run: every default filled, every rule checked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use data::Tokens;
use data::batches::{Batcher, Mode};
use data::read::Source;
use generate::{EngineSettings, Speculation};
use models::{Dropouts, Gpt2, Gpt2Config, Init, KvPool};
use tensor::Precision;
use tokenizer::{Tokenizer, TokenizerError};
use train::optimizer::{AdamConfig, OptimizerConfig};
use train::schedule::{Decay, Period, Schedule};
use train::{Objective, TrainConfig};

use crate::input::{self, Learn};
use crate::minutes;
use crate::output::note;
use crate::settings::Settings;

/// The shape used where none is asked for.
const DEFAULT_PRESET: &str = "gpt2-mini";
/// Tokens of the validation data scored between steps.
const EVAL_TOKENS: usize = 1 << 17;

/// Text as tokens.
pub struct Corpus {
    pub tokenizer: Tokenizer,
    pub sources: Vec<(Tokens, Option<f64>)>,
    pub val: Option<Tokens>,
}

impl Corpus {
    /// Bytes of memory that the tokens keep.
    pub fn memory(&self) -> usize {
        self.sources.iter().map(|(tokens, _)| tokens).chain(&self.val).map(Tokens::memory).sum()
    }
}

/// Names of the hub become directories.
pub fn from_hub(settings: &mut Settings, offline: bool) -> Result<()> {
    if let Some(spec) = &mut settings.tokenizer {
        *spec = input::tokenizer_path(spec, offline)?;
    }
    if let Some(init) = settings.init.as_mut().filter(|init| hub::Name::parse(init).is_ok())
        && init != "gpt2"
    // a way to draw weights; the model is hf:gpt2
    {
        let path = input::model_path(&*init, offline).with_context(|| format!("--init {init}"))?;
        *init = path.display().to_string();
    }
    Ok(())
}

/// Refuses what can be refused before any text is read: names, numbers and shapes.
pub fn check(settings: &Settings) -> Result<()> {
    ensure!(!settings.data.is_empty(), "no data: give --data FILE…, or `data = [\"FILE\"]` in the recipe");
    let mut trial = settings.clone();
    data::read::encoding(trial.encoding.as_deref())?;
    val_fraction(&mut trial)?;
    settings.minutes.map_or(Ok(()), minutes::check)?;
    let n_embd = match initial_model(&trial) {
        Some(dir) => {
            ensure!(
                dir.exists(),
                "--init {}: there is no such directory or file; use gpt2, xavier, a model, or a name on the hub such as hf:gpt2",
                dir.display()
            );
            let config = models::checkpoint::load_config(&dir);
            config.with_context(|| format!("--init {}", dir.display()))?.n_embd
        }
        None => {
            let config = shape(&mut trial)?;
            config.validate()?;
            config.n_embd
        }
    };
    mode(&mut trial, 0)?;
    train_config(&mut trial, n_embd, 1)?;
    note_unused(settings);
    Ok(())
}

/// Says which of the settings nothing asks for.
fn note_unused(settings: &Settings) {
    let schedule = settings.schedule.as_deref().unwrap_or("cosine");
    let optimizer = settings.optimizer.as_deref().unwrap_or("adamw");
    let (is_step, is_sgd) = (schedule == "step", optimizer == "sgd");
    let has_end = matches!(schedule, "cosine" | "linear");
    let has_momentum = matches!(optimizer, "sgd" | "muon");
    for (name, is_given, is_used, of) in [
        ("step-size", settings.step_size.is_some(), is_step, "--schedule step"),
        ("gamma", settings.gamma.is_some(), is_step, "--schedule step"),
        ("schedule-per", settings.schedule_per.is_some(), is_step, "--schedule step"),
        ("min-lr", settings.min_lr.is_some(), has_end, "--schedule cosine and linear"),
        ("momentum", settings.momentum.is_some(), has_momentum, "--optimizer sgd and muon"),
        ("beta1", settings.beta1.is_some(), !is_sgd, "--optimizer adamw, adam and muon"),
        ("beta2", settings.beta2.is_some(), !is_sgd, "--optimizer adamw, adam and muon"),
        ("eps", settings.eps.is_some(), !is_sgd, "--optimizer adamw, adam and muon"),
    ] {
        if is_given && !is_used {
            note!("warning: --{name} changes nothing here; it is for {of}");
        }
    }
}

/// Finds or learns the tokenizer, and turns the data into tokens. `saved` is where a resumed run keeps its own.
pub fn corpus(settings: &mut Settings, saved: Option<&Path>) -> Result<Corpus> {
    let sources: Vec<Source> =
        settings.data.iter().map(|spec| Source::parse(spec)).collect::<Result<_, _>>()?;
    let val_sources: Vec<Source> =
        settings.val_data.iter().map(|path| Source { path: path.clone(), weight: None }).collect();
    if saved.is_some() {
        refuse_moved(sources.iter().chain(&val_sources))?;
    }
    let tokenizer = match saved {
        Some(dir) => Tokenizer::load(dir)?,
        None => find_tokenizer(settings, &sources)?,
    };
    let paths = sources.iter().chain(&val_sources).map(|source| source.path.as_path());
    input::warn_about_chinese(paths, settings.encoding.as_deref(), &tokenizer)?;
    input::note_changes(&tokenizer);
    let encoding = data::read::encoding(settings.encoding.as_deref())?;
    let threads = tensor::pool::threads();
    let tokenize = |sources: &[Source]| {
        data::prepare::tokenize(sources, &tokenizer, encoding, threads).map_err(|error| {
            name_tokenizer(error, saved.is_none().then_some(&settings.tokenizer).cloned().flatten())
        })
    };
    let (parts, counts) = tokenize(&sources)?;
    let val_parts = tokenize(&val_sources)?.0;
    if counts.empty_documents > 0 {
        note!("left out {} empty documents", counts.empty_documents);
    }
    let fraction = val_fraction(settings)?;
    let (mut train, mut held) = (Vec::new(), Vec::new());
    for part in parts {
        let (tokens, val) = match part.val {
            Some(val) => (part.tokens, val),
            None => part.tokens.split_end(fraction),
        };
        held.push(val);
        train.push((tokens, part.source.weight));
    }
    held.extend(val_parts.into_iter().map(|part| part.tokens));
    let val = Tokens::concat(&held)?;
    Ok(Corpus { tokenizer, sources: train, val: (val.len() > 1).then_some(val) })
}

fn val_fraction(settings: &mut Settings) -> Result<f64> {
    let fraction = *settings.val_fraction.get_or_insert(if settings.val_data.is_empty() { 0.1 } else { 0.0 });
    ensure!((0.0..1.0).contains(&fraction), "--val-fraction {fraction}: it must be at least 0 and below 1");
    Ok(fraction)
}

/// A resumed run looks for its files where they were.
fn refuse_moved<'a>(mut sources: impl Iterator<Item = &'a Source>) -> Result<()> {
    match sources.find(|source| !source.path.exists()) {
        None => Ok(()),
        Some(source) => bail!(
            "{} is not there any more; if the files moved, say where with --data (and --val-data)",
            source.path.display()
        ),
    }
}

/// Says which tokenizer was in use where shards want another.
fn name_tokenizer(mut error: data::DataError, spec: Option<String>) -> data::DataError {
    if let data::DataError::OtherTokenizer { ours, .. } = &mut error {
        *ours = format!("{}: {ours}", spec.as_deref().unwrap_or("that of the run"));
    }
    error
}

fn find_tokenizer(settings: &mut Settings, sources: &[Source]) -> Result<Tokenizer> {
    let shards = sources.iter().find(|source| source.path.is_dir()).map(|source| source.path.clone());
    if let Some(dir) = &shards {
        data::prepare::check_shards(dir)?;
    }
    let initial = initial_model(settings);
    let has_none = |model: &Path| {
        let error = input::open_tokenizer(&model.display().to_string(), input::MAY_LEARN).err();
        error.is_some_and(|error| match error.downcast_ref() {
            Some(TokenizerError::NotFound { .. }) => true,
            Some(_) => false,
            None => model.is_file(),
        })
    };
    let spec = match (&settings.tokenizer, &initial, &shards) {
        (Some(spec), ..) => spec.clone(),
        (None, Some(model), Some(dir)) if has_none(model) => dir.display().to_string(),
        // A model knows only its own tokens; shards of others are refused later.
        (None, Some(dir), _) | (None, None, Some(dir)) => dir.display().to_string(),
        (None, None, None) => "gpt2".to_owned(),
    };
    settings.tokenizer = Some(spec.clone());
    let tokenizer = match Learn::parse(&spec)? {
        None => input::open_tokenizer(&spec, input::MAY_LEARN)?,
        Some(_) if shards.is_some() => {
            bail!(
                "--tokenizer {spec} would be learnt anew, but shards are tokens already; leave it out, or give text"
            )
        }
        Some(learn) => {
            let paths: Vec<PathBuf> = sources.iter().map(|source| source.path.clone()).collect();
            input::refuse_pipes(&paths)?;
            note!("learning the vocabulary {spec} …");
            learn.learn_from(input::documents(&paths, settings.encoding.as_deref())?)?
        }
    };
    if let Some(dir) = initial
        && input::open_tokenizer(&dir.display().to_string(), input::MAY_LEARN)
            .is_ok_and(|its| !its.is_same_as(&tokenizer))
    {
        note!(
            "warning: the model in {} learnt with another tokenizer than {spec}; its embeddings start as those of other tokens",
            dir.display()
        );
    }
    Ok(tokenizer)
}

/// The model to start from, if the initialisation names one.
fn initial_model(settings: &Settings) -> Option<PathBuf> {
    settings
        .init
        .as_ref()
        .filter(|init| !["gpt2", "xavier"].contains(&init.as_str()) || Path::new(init).is_dir())
        .map(PathBuf::from)
}

/// The same settings with absolute paths, so that a run can be resumed from another working directory.
pub fn absolute(settings: &Settings) -> Result<Settings> {
    let whole = |path: &Path| {
        std::path::absolute(path).with_context(|| format!("cannot find out where {} is", path.display()))
    };
    let data = settings.data.iter().map(|spec| {
        let Source { path, weight } = Source::parse(spec)?;
        let path = whole(&path)?.display().to_string();
        Ok(weight.map_or(path.clone(), |weight| format!("{path}={weight}")))
    });
    let existing = |name: &Option<String>| match name {
        Some(name) if Path::new(name).exists() => Ok(Some(whole(Path::new(name))?.display().to_string())),
        other => anyhow::Ok(other.clone()),
    };
    Ok(Settings {
        data: data.collect::<Result<_>>()?,
        val_data: settings.val_data.iter().map(|path| whole(path)).collect::<Result<_>>()?,
        tokenizer: existing(&settings.tokenizer)?,
        init: existing(&settings.init)?,
        ..settings.clone()
    })
}

/// The model to train: fresh, or loaded.
pub fn model(settings: &mut Settings, tokenizer: &Tokenizer) -> Result<Gpt2> {
    if let Some(dir) = initial_model(settings) {
        let given = [settings.n_layer, settings.n_head, settings.n_embd, settings.n_ctx];
        ensure!(
            given.iter().all(Option::is_none) && settings.preset.is_none(),
            "--init {}: the model brings its own shape; leave out --preset and --n-…",
            dir.display()
        );
        let mut model = Gpt2::load(&dir).with_context(|| format!("--init {}", dir.display()))?;
        let (ours, its) = (tokenizer.vocab_size(), model.config().vocab_size);
        ensure!(
            ours <= its,
            "--init {}: the model knows {its} tokens, the tokenizer has {ours}",
            dir.display()
        );
        model.set_dropout(dropouts(settings, model.config().dropout)?);
        return Ok(model);
    }
    let init = match settings.init.get_or_insert_with(|| "gpt2".into()).as_str() {
        "xavier" => Init::Xavier,
        _ => Init::Gpt2,
    };
    let mut config = shape(settings)?;
    (config.vocab_size, config.eot) = (tokenizer.vocab_size(), Some(tokenizer.eot()));
    config.validate()?;
    // Weights, gradients and two moments; what the batches need is added once they are known.
    ensure_fits(16 * config.n_params() as u64)?;
    Ok(Gpt2::new(config, init, settings.seed.unwrap_or(0))?)
}

fn dropouts(settings: &mut Settings, default: Dropouts) -> Result<Dropouts> {
    for (flag, p) in [
        ("dropout", settings.dropout),
        ("dropout-embd", settings.dropout_embd),
        ("dropout-attn", settings.dropout_attn),
        ("dropout-resid", settings.dropout_resid),
    ] {
        ensure!(
            p.is_none_or(|p| (0.0..1.0).contains(&p)),
            "--{flag} {}: it must be at least 0 and below 1",
            p.unwrap_or_default()
        );
    }
    let pick = |one: Option<f32>, default: f32| one.or(settings.dropout).unwrap_or(default);
    let all = Dropouts {
        embd: pick(settings.dropout_embd, default.embd),
        attn: pick(settings.dropout_attn, default.attn),
        resid: pick(settings.dropout_resid, default.resid),
    };
    settings.dropout = None;
    (settings.dropout_embd, settings.dropout_attn, settings.dropout_resid) =
        (Some(all.embd), Some(all.attn), Some(all.resid));
    Ok(all)
}

/// The shape of a fresh model, with the preset's vocabulary as long as its own is not known.
fn shape(settings: &mut Settings) -> Result<Gpt2Config> {
    let preset = settings.preset.take();
    let mut config = Gpt2Config::preset(preset.as_deref().unwrap_or(DEFAULT_PRESET))?;
    for (given, field) in [
        (&mut settings.n_layer, &mut config.n_layer),
        (&mut settings.n_head, &mut config.n_head),
        (&mut settings.n_embd, &mut config.n_embd),
        (&mut settings.n_ctx, &mut config.n_ctx),
    ] {
        *field = *given.get_or_insert(*field);
    }
    config.n_inner = config.n_embd.saturating_mul(4);
    config.dropout = dropouts(settings, Dropouts::default())?;
    Ok(config)
}

/// The order of the data.
pub fn batcher(settings: &mut Settings, corpus: &Corpus, n_ctx: usize) -> Result<Batcher> {
    let mode = mode(settings, corpus.tokenizer.eot())?;
    let batch = *settings.batch.get_or_insert(8);
    ensure!(batch > 0, "--batch 0: it must be at least 1");
    let seed = settings.seed.unwrap_or(0);
    Ok(Batcher::new(corpus.sources.clone(), batch, n_ctx, seed, mode)?)
}

/// What a sequence is.
fn mode(settings: &mut Settings, eot: u32) -> Result<Mode> {
    match settings.sequences.get_or_insert_with(|| "stream".into()).as_str() {
        "stream" => Ok(Mode::Stream),
        "documents" => Ok(Mode::Documents { eot }),
        other => bail!("--sequences {other}: use stream or documents"),
    }
}

/// The numbers of the run, of which an epoch has so many sequences.
pub fn train_config(settings: &mut Settings, n_embd: usize, sequences_per_epoch: u64) -> Result<TrainConfig> {
    let batch = *settings.batch.get_or_insert(8);
    let grad_accum = *settings.grad_accum.get_or_insert(1);
    const MOST: usize = 1 << 20;
    ensure!(
        batch <= MOST && grad_accum <= MOST,
        "--batch {batch} --grad-accum {grad_accum}: each may be at most {MOST}"
    );
    ensure!(settings.epochs != Some(0), "--epochs 0: it must be at least 1");
    let steps_per_epoch = sequences_per_epoch.div_ceil((batch * grad_accum).max(1) as u64);
    let max_steps = match (settings.max_steps, settings.epochs) {
        (Some(steps), _) => steps,
        (None, epochs) => epochs.unwrap_or(1).saturating_mul(steps_per_epoch),
    };
    (settings.max_steps, settings.epochs) = (Some(max_steps), None);
    let optimizer = optimizer(settings)?;
    let asked = *settings.eval_interval.get_or_insert(default_eval_interval(max_steps));
    let eval_interval = eval_interval(Some(asked), max_steps, steps_per_epoch);
    let clip = |x: &mut Option<f32>, default: f32| Some(*x.get_or_insert(default)).filter(|&x| x != 0.0);
    let config = TrainConfig {
        batch,
        grad_accum,
        max_steps,
        steps_per_epoch,
        optimizer,
        schedule: schedule(settings, optimizer, n_embd, max_steps)?,
        clip_norm: clip(&mut settings.clip_norm, 1.0),
        clip_value: clip(&mut settings.clip_value, 0.0),
        seed: settings.seed.unwrap_or(0),
        precision: resolve_precision(settings)?,
        recompute: *settings.recompute.get_or_insert(false),
        eval_interval,
        eval_tokens: EVAL_TOKENS,
        documents: settings.sequences.as_deref() == Some("documents"),
        save_interval: *settings.save_interval.get_or_insert(eval_interval),
        objective: Objective::Likelihood,
        eval_first: false,
        patience: None,
    };
    config.validate()?;
    Ok(config)
}

/// Steps between validations.
pub fn eval_interval(asked: Option<u64>, max_steps: u64, steps_per_epoch: u64) -> u64 {
    match asked.unwrap_or(default_eval_interval(max_steps)) {
        0 => steps_per_epoch,
        steps => steps,
    }
}

fn default_eval_interval(max_steps: u64) -> u64 {
    (max_steps / 10).clamp(1, 500)
}

/// The precision of this name; `auto` is what is fastest here.
pub fn precision(name: &str) -> Result<Precision> {
    match name {
        "auto" => Ok(Precision::fastest()),
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        other => bail!("--precision {other}: use auto, f32 or bf16"),
    }
}

/// Resolved once and saved, so that a run resumes in the precision it began with, on whatever machine.
fn resolve_precision(settings: &mut Settings) -> Result<Precision> {
    let precision = precision(settings.precision.as_deref().unwrap_or("auto"))?;
    settings.precision = Some(precision.to_string());
    Ok(precision)
}

fn optimizer(settings: &mut Settings) -> Result<OptimizerConfig> {
    let name = settings.optimizer.get_or_insert_with(|| "adamw".into()).clone();
    let is_adamw = ["adamw", "muon"].contains(&name.as_str());
    let weight_decay = *settings.weight_decay.get_or_insert(if is_adamw { 0.1 } else { 0.0 });
    if name == "sgd" {
        return Ok(OptimizerConfig::Sgd { momentum: *settings.momentum.get_or_insert(0.9), weight_decay });
    }
    let adam = AdamConfig {
        beta1: *settings.beta1.get_or_insert(0.9),
        beta2: *settings.beta2.get_or_insert(if is_adamw { 0.95 } else { 0.999 }),
        eps: *settings.eps.get_or_insert(1e-8),
        weight_decay,
    };
    match name.as_str() {
        "adamw" => Ok(OptimizerConfig::AdamW(adam)),
        "adam" => Ok(OptimizerConfig::Adam(adam)),
        "muon" => Ok(OptimizerConfig::Muon { momentum: *settings.momentum.get_or_insert(0.95), adam }),
        other => bail!("--optimizer {other}: use adamw, adam, sgd or muon"),
    }
}

fn schedule(
    settings: &mut Settings,
    optimizer: OptimizerConfig,
    n_embd: usize,
    max_steps: u64,
) -> Result<Schedule> {
    let default_lr = match optimizer {
        OptimizerConfig::Sgd { .. } => 0.1,
        _ if n_embd <= 256 => 1e-3,
        _ => 6e-4,
    };
    let lr = *settings.lr.get_or_insert(default_lr);
    let name = settings.schedule.get_or_insert_with(|| "cosine".into()).clone();
    let default_warmup = if name == "step" { 0 } else { (max_steps / 20).min(2000) };
    let warmup_steps = *settings.warmup_steps.get_or_insert(default_warmup);
    let mut min_lr = || *settings.min_lr.get_or_insert(tenth(lr));
    let decay = match name.as_str() {
        "constant" => Decay::Constant,
        "cosine" => Decay::Cosine { min_lr: min_lr() },
        "linear" => Decay::Linear { min_lr: min_lr() },
        "step" => Decay::Step {
            step_size: *settings.step_size.get_or_insert(1),
            gamma: *settings.gamma.get_or_insert(0.95),
            per: match settings.schedule_per.get_or_insert_with(|| "epoch".into()).as_str() {
                "step" => Period::Step,
                "epoch" => Period::Epoch,
                other => bail!("--schedule-per {other}: use step or epoch"),
            },
        },
        other => bail!("--schedule {other}: use cosine, linear, constant or step"),
    };
    Ok(Schedule { lr, warmup_steps, decay })
}

/// A tenth as people write it: of 0.001 it is 0.0001, where a division in `f32` gives 0.000100000005.
fn tenth(x: f32) -> f32 {
    x.to_string().parse::<f64>().map_or(x / 10.0, |x| (x / 10.0) as f32)
}

/// Refuses what needs more memory than is free, where the system tells.
pub fn ensure_fits(bytes: u64) -> Result<()> {
    let free = free_memory().unwrap_or(u64::MAX);
    ensure!(
        bytes <= free,
        "this run needs about {:.2} GB of memory, but {:.2} GB are free; use a smaller --batch, --n-ctx or model",
        bytes as f64 / 1e9,
        free as f64 / 1e9
    );
    Ok(())
}

/// The most texts that are written at once: a step computes as many tokens.
pub const MOST_AT_ONCE: usize = 512;

/// Refuses a number of texts at once that is none, or too many.
pub fn ensure_batch(batch: usize) -> Result<()> {
    ensure!((1..=MOST_AT_ONCE).contains(&batch), "--batch {batch}: ask for 1 to {MOST_AT_ONCE}");
    Ok(())
}

/// The settings of an engine for so many texts at once, as `flag` asks. Where memory is short, texts wait.
pub fn engine_settings(model: &Gpt2, batch: usize, speculation: Speculation, flag: &str) -> EngineSettings {
    let draft = if let Speculation::Model { model, .. } = &speculation { block_bytes(model) } else { 0 };
    let all = EngineSettings::for_batch(model, batch);
    // A part of what is free, since there are also the weights and what a step computes.
    let room =
        free_memory().map_or(all.blocks, |free| (free / 4 * 3) as usize / (block_bytes(model) + draft));
    let one = KvPool::blocks_for(model.config().n_ctx);
    let blocks = all.blocks.min(room.max(one));
    if blocks < all.blocks {
        note!(
            "memory holds {} texts of full length: {flag} {batch} is met by shorter ones only",
            blocks / one
        );
    }
    EngineSettings { speculation, kept: 8, blocks, ..all }
}

/// Bytes of a block of keys and values.
fn block_bytes(model: &Gpt2) -> usize {
    KvPool::new(model.config(), model.precision(), 0).block_bytes()
}

/// Bytes of keys and values that one text of full length needs.
pub fn text_bytes(model: &Gpt2) -> u64 {
    (KvPool::blocks_for(model.config().n_ctx) * block_bytes(model)) as u64
}

/// Bytes that may still be taken, where the system tells.
pub fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenths_are_round() {
        let tenths = [1e-3, 6e-4, 0.1, 0.25, 5e-5].map(|x| tenth(x).to_string());
        assert_eq!(tenths, ["0.0001", "0.00006", "0.01", "0.025", "0.000005"]);
    }

    #[test]
    fn paths_become_absolute_and_weights_stay() {
        let data = vec!["a.txt=2.5".to_owned(), "b.txt".to_owned()];
        let settings = Settings { data, tokenizer: Some("char".into()), ..Settings::default() };
        let absolute = absolute(&settings).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute.data[0], format!("{}=2.5", here.join("a.txt").display()));
        assert_eq!(absolute.data[1], here.join("b.txt").display().to_string());
        assert_eq!(absolute.tokenizer, Some("char".into()));
    }
}
