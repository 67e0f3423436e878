//! `gpt2 finetune`: teaches a model to answer, from examples or from preferences.

mod announce;
mod card;
mod material;
mod settings;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use data::packed::{Limits, Packed};
use models::{Dropouts, Gpt2, LoraConfig, checkpoint};
use serde_json::{Value, json};
use tokenizer::Tokenizer;
use train::config::Cost;
use train::{Outcome, Run, RunLock, TrainConfig, Validation};

use self::material::{Items, Material};
use self::settings::Settings;
use crate::input::{self, duration};
use crate::output::{note, plus_minus, say};
use crate::plan;
use crate::progress::Progress;
use crate::signals::StopFlag;

/// Teach a model to answer: to chat, to follow instructions, to summarise, to write articles
///
/// DIR receives the model that does best on held-out answers with its tokenizer and chat template (with --lora, the adapter in
/// PEFT's files), README.md, finetune.toml (all settings), metrics.jsonl, TensorBoard events, loss.svg, and in DIR/last the
/// state from which --resume goes on. Ctrl-C saves and stops. White space around messages is removed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    gpt2 finetune -m gpt2 --data chats.jsonl --out out/chat\n  \
    gpt2 finetune -m gpt2 --data faq.csv --columns prompt=question,completion=answer --lora r=8,alpha=16 --out out/faq\n  \
    gpt2 finetune -m out/chat --data preferences.json --out out/polite\n  \
    gpt2 finetune -m gpt2 --data 对话.jsonl --roles 顾客=user,店员=assistant --dry-run")]
pub struct Args {
    /// Directory to write
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    /// Go on with the run in DIR, exactly as if it had never stopped
    #[arg(long, conflicts_with_all = ["force", "dry_run"])]
    resume: bool,
    /// Replace a model or run in DIR
    #[arg(long)]
    force: bool,
    /// Read the data, show what it is, and what training would cost; train nothing, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Examples to show
    #[arg(long, value_name = "N", default_value_t = 1)]
    show: usize,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    let mut settings = match &args.out {
        Some(out) if args.resume => resumed_settings(args.settings.clone(), out)?,
        _ => Settings { seed: Some(input::seed(args.settings.seed)), ..args.settings.clone() },
    };
    settings.check()?;
    let lock = match &args.out {
        Some(out) if !args.dry_run => Some(take(out, &args)?),
        _ => None,
    };
    let base = Base::find(&settings, args.out.as_deref(), offline)?;
    let lora = settings.lora()?;
    let (template, tokenizer) = material::template(base.tokenizer.clone(), lora.as_ref())?;
    let material = material::read(&settings, &template, &tokenizer, base.n_ctx)?;
    let counts = material.items.counts();
    let is_preference = material.items.is_preference();
    let config = train_config(&mut settings, &material.items, base.n_embd)?;

    announce::files(&material, &settings);
    announce::template(&template, &tokenizer, base.vocab_size);
    announce::examples(&material.items.first(args.show), is_preference, &tokenizer)?;
    announce::counts(&counts, is_preference);
    announce::warn_about_few(&counts, &config);
    // The two answers of a pair are computed together.
    let time = counts.longest * if is_preference { 2 } else { 1 };
    announce::cost(&counts, &config, &base.cost(&tokenizer, lora.as_ref(), &config, time))?;
    let (Some(lock), Some(out)) = (lock, &args.out) else {
        return finish_dry_run(&args, &settings, &material, &config);
    };
    lock.remove_leftovers()?;
    let ends = template.end_tokens(&tokenizer);
    let model = base.load(&settings, &tokenizer, &ends, lora.as_ref(), is_preference)?;
    if args.force {
        super::train::remove_old_state(out)?;
    }

    let sources = card::sources(&material);
    let outcome = {
        let mut run = new_run(model, tokenizer, material.items, &config, out, &settings)?;
        if args.resume {
            run.resume()?;
            super::train::ensure_further(run.step(), config.max_steps)?;
            note!("resuming after step {} of {}", run.step(), config.max_steps);
        }
        super::train::save_settings(out, "finetune.toml", &settings)?;
        // From here on there is something to lose; before, Ctrl-C simply ends the process.
        let stop = StopFlag::install()?;
        let mut progress = Progress::new(config.max_steps, &stop);
        let result = run.run(&mut progress);
        progress.finish();
        result?
    };
    card::write(out, &settings, &sources, &outcome)?;
    report(&args, out, &settings, &sources, &outcome)
}

/// The right to write to DIR, which holds nothing that is not to be replaced.
fn take(out: &Path, args: &Args) -> Result<RunLock> {
    let lock = RunLock::take(out).with_context(|| format!("--out {}", out.display()))?;
    if !args.force && !args.resume {
        Run::refuse_existing(out)?;
    }
    Ok(lock)
}

fn resumed_settings(typed: Settings, out: &Path) -> Result<Settings> {
    let progress = train::state::load_progress(out)?;
    let saved: Settings = serde_json::from_value(progress.caller)
        .context("the saved settings are not readable; was this run made by `gpt2 finetune`?")?;
    typed.over(saved)
}

/// The model to start from, before its weights are read.
struct Base {
    path: PathBuf,
    tokenizer: Tokenizer,
    config: models::Gpt2Config,
    n_ctx: usize,
    n_embd: usize,
    vocab_size: usize,
}

impl Base {
    fn find(settings: &Settings, out: Option<&Path>, offline: bool) -> Result<Base> {
        let spec =
            settings.model.as_deref().context("no model to start from: give -m MODEL, such as -m gpt2")?;
        let path = input::model_path(spec, offline)?;
        ensure!(
            !checkpoint::is_adapter(&path) || checkpoint::find(&path).is_ok(),
            "{spec} is an adapter, which is not trained on here; make one model of it and of its base first, and start from \
             that: gpt2 merge -m {} --out DIR",
            card::quoted(spec)
        );
        if let Some(out) = out.filter(|out| out.exists()) {
            let same = path.canonicalize().ok() == out.canonicalize().ok();
            ensure!(!same, "--out {} is the model to start from; choose another directory", out.display());
        }
        let config = checkpoint::load_config(&path)
            .with_context(|| format!("cannot load a model from {}", path.display()))?;
        let tokenizer = input::tokenizer_of(&path, config.vocab_size)
            .with_context(|| format!("cannot load a tokenizer from {}", path.display()))?;
        input::ensure_fits(&tokenizer, config.vocab_size, &path)?;
        let (n_ctx, n_embd, vocab_size) = (config.n_ctx, config.n_embd, config.vocab_size);
        Ok(Base { path, tokenizer, config, n_ctx, n_embd, vocab_size })
    }

    /// What training would cost, without the weights being read.
    fn cost(
        &self,
        tokenizer: &Tokenizer,
        lora: Option<&LoraConfig>,
        config: &TrainConfig,
        time: usize,
    ) -> Cost {
        let mut shape = self.config.clone();
        shape.vocab_size = shape.vocab_size.max(tokenizer.vocab_size());
        match lora {
            Some(lora) => train::config::lora_cost(&shape, lora, config, time),
            None => train::config::cost(&shape, config, time),
        }
    }

    /// Its weights, with rows for new tokens and an adapter, as it will be trained. What it writes will end with the tokens
    /// that end turns, or as it did.
    fn load(
        &self,
        settings: &Settings,
        tokenizer: &Tokenizer,
        ends: &[u32],
        lora: Option<&LoraConfig>,
        is_preference: bool,
    ) -> Result<Gpt2> {
        let seed = settings.seed.unwrap_or(0);
        let mut model = Gpt2::load(&self.path)
            .with_context(|| format!("cannot load a model from {}", self.path.display()))?;
        if tokenizer.vocab_size() > self.vocab_size {
            model.resize_vocab(tokenizer.vocab_size(), seed)?;
        }
        let before = generate::end_tokens(model.config(), tokenizer);
        model.set_end_tokens(&[ends, &before].concat())?;
        let dropout = settings.dropout.or(is_preference.then_some(0.0));
        if let Some(p) = dropout {
            model.set_dropout(Dropouts { embd: p, attn: p, resid: p });
        }
        if let Some(lora) = lora {
            let base = settings.absolute()?.model.unwrap_or_default();
            model.add_lora(&LoraConfig { base, ..lora.clone() }, seed)?;
        }
        Ok(model)
    }
}

/// The numbers of the run, of which the settings keep those that were resolved.
fn train_config(settings: &mut Settings, items: &Items, n_embd: usize) -> Result<TrainConfig> {
    let is_preference = items.is_preference();
    let objective = settings.objective(is_preference)?;
    let examples = items.counts().examples as u64;
    let mut training = settings.training(n_embd, is_preference);
    let mut config = plan::train_config(&mut training, n_embd, examples)?;
    if settings.eval_interval.is_none() {
        let interval = (config.max_steps / 10).clamp(1, config.steps_per_epoch.max(1));
        (config.eval_interval, config.save_interval) = (interval, interval);
        training.eval_interval = Some(interval);
    }
    settings.keep(&training);
    config.objective = objective;
    if items.has_held_out() {
        (config.eval_first, config.patience) = (true, settings.patience());
    }
    config.validate()?;
    Ok(config)
}

fn new_run(
    model: Gpt2,
    tokenizer: Tokenizer,
    items: Items,
    config: &TrainConfig,
    out: &Path,
    settings: &Settings,
) -> Result<Run> {
    let n_ctx = model.config().n_ctx;
    // Memory was asked for so many of the longest.
    let limits = Limits { examples: config.batch, tokens: usize::MAX };
    let seed = config.seed;
    let caller = serde_json::to_value(settings.absolute()?)?;
    let (batches, val) = match items {
        Items::Examples { train, held } => {
            (Packed::examples(train, limits, n_ctx, seed)?, Validation::Examples(held))
        }
        Items::Pairs { train, held } => (Packed::pairs(train, limits, n_ctx, seed)?, Validation::Pairs(held)),
    };
    Ok(Run::new(model, tokenizer, batches, Some(val), config.clone(), out, caller)?)
}

fn data_json(material: &Material) -> Value {
    let mut data = material.found.json();
    data["counts"] = json!(material.items.counts());
    data
}

fn finish_dry_run(args: &Args, settings: &Settings, material: &Material, config: &TrainConfig) -> Result<()> {
    note!("nothing was trained or written (--dry-run)");
    if args.json {
        return super::print_json(&json!({
            "data": data_json(material), "preferences": material.items.is_preference(), "max_steps": config.max_steps, "settings": settings,
        }));
    }
    Ok(())
}

fn report(
    args: &Args,
    out: &Path,
    settings: &Settings,
    sources: &card::Sources,
    outcome: &Outcome,
) -> Result<()> {
    if let (Some(before), Some(after)) = (&outcome.before, &outcome.val) {
        let loss = plus_minus(after.loss(), after.loss_stderr());
        let change = 100.0 * (after.loss() / before.loss - 1.0);
        let right = 100.0 * after.accuracy();
        // Before the first step, no answer of a pair has gained anything.
        match sources.is_preference() {
            true => note!(
                "held-out pairs: loss {:.4} before, {loss} after ({change:+.1} %); the chosen answer has gained more than the \
                 rejected one in {right:.1} % of them",
                before.loss
            ),
            false => note!(
                "held-out answers: loss {:.4} before, {loss} after ({change:+.1} %); accuracy {:.1} % before, {right:.1} % after",
                before.loss,
                100.0 * before.accuracy
            ),
        }
        if outcome.finished && outcome.best.is_some_and(|(_, step)| step == 0) {
            note!(
                "no validation was better than the model that it started from, so that is what {} holds; more data, a smaller \
                 --lr or fewer steps may help",
                out.display()
            );
        }
    }
    let time = duration(outcome.seconds);
    let dir = out.display();
    if outcome.finished && outcome.val.is_none() && outcome.best.is_some() {
        note!(
            "stopped before the best model was judged; for its figures: gpt2 finetune --resume --out {dir}"
        );
    }
    match (outcome.finished, outcome.stopped_early) {
        (false, _) => note!(
            "stopped after {} steps ({time}), state saved; go on with: gpt2 finetune --resume --out {dir}",
            outcome.step
        ),
        (true, early) => {
            let early = if early { ", ended early: validation did not get better any more" } else { "" };
            note!(
                "{} steps in {time}{early}; next: {}",
                outcome.step,
                card::next_command(out, settings, sources)
            );
        }
    }
    if args.json {
        return super::print_json(&json!({
            "out": out, "steps": outcome.step, "finished": outcome.finished, "stopped_early": outcome.stopped_early,
            "seconds": outcome.seconds, "before": outcome.before, "after": outcome.val,
            "best": outcome.best.map(|(loss, step)| json!({ "val_loss": loss, "step": step })),
        }));
    }
    say!("{dir}")?;
    Ok(())
}
