//! `gpt2 write`: documents by recipes, in steps that feed each other.

mod ideas;
mod many;
mod one;
pub mod recipes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use generate::apps::write::{Override, Recipe, StepResult, Writer};
use generate::constraint::Form;
use models::Gpt2;
use sha2::{Digest, Sha256};
use tokenizer::chat::ChatTemplate;
use tokenizer::{Lang, Tokenizer};

use self::recipes::Source;
use crate::constrain::Constrain;
use crate::model::{Located, ModelArgs};
use crate::output::{note, say};
use crate::plan::MOST_AT_ONCE;

/// Write a document by a recipe: a headline and its article, product copy, a report, a story …
///
/// A recipe is a TOML file of steps. Each step's text goes into the prompts of later ones, and is written anew when it fails
/// a check. The document is Markdown on standard output, a part at a time as it is decided; messages go to standard error.
#[derive(clap::Args, Debug)]
// To list and to show takes no model.
#[command(mut_arg("model", |model| model.required(false).required_unless_present_any(["list", "show"])))]
#[command(mut_arg("dtype", |dtype| dtype.requires("model")), mut_arg("adapter", |adapter| adapter.requires("model")))]
#[command(after_help = "Examples:\n  gpt2 write --list\n  \
    gpt2 write headline-article -m gpt2 --topic \"a new bridge across the harbour\" --best-of 4\n  \
    gpt2 write product -m out/model --topic \"保温一整天的钢水壶\" --json\n  \
    gpt2 write marketing -m out/model --topic \"a baking course\" --var audience=\"young families\" --set offer.temperature=0.7\n  \
    gpt2 write product -m out/model --topic \"a lamp\" --json-schema offer.json --json\n  \
    gpt2 write product -m out/model --input ideas.csv --out copy/\n  \
    gpt2 write --show product > mine.toml && gpt2 write mine.toml -m out/model --topic \"a lamp\"\n\n\
    --json-schema and --grammar hold the text of the recipe's last step to a form, in place of its begin, end, lengths, \
    drop-unfinished and the checks one-line, whole-sentences and same-language. --set STEP.json-schema='{…}' or \
    --set STEP.grammar='start: …' does so for another step, as do the keys json-schema and grammar in a recipe of your own.")]
pub struct Args {
    /// Recipe: a name (see --list), or a TOML file
    #[arg(value_name = "RECIPE", required_unless_present = "list")]
    recipe: Option<String>,
    #[command(flatten)]
    model: Option<ModelArgs>,
    /// What to write about
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["list", "show", "input"])]
    topic: Option<String>,
    /// Another input of the recipe; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    var: Vec<String>,
    /// Language of the prompts: en or zh [default: that of the topic]
    #[arg(long, value_name = "LANG")]
    lang: Option<Lang>,
    /// Start of the random numbers [default: random, and reported]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write N candidates of each step, and keep the most likely of those that pass the checks
    #[arg(long, value_name = "N", default_value_t = 1)]
    best_of: usize,
    /// Ask through the model's chat template: if it has one (auto), always (then as "User: …" where it has none), or never
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "always", "never"])]
    chat: String,
    /// Many documents: a .csv, .tsv or .jsonl file with a column `topic`, one for each further input, and if wanted `seed` and `lang`
    #[arg(long, value_name = "FILE", conflicts_with = "topic")]
    input: Option<PathBuf>,
    /// Where to write: a file; with --input a directory, of a Markdown file for each, or with --json a file. What is partly
    /// done there is gone on with
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Replace what is there
    #[arg(long, requires = "out")]
    force: bool,
    /// With --input: documents that are written at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
    /// Print JSON: steps, texts, attempts, checks, seeds, mean log-probabilities
    #[arg(long)]
    json: bool,
    /// List the recipes
    #[arg(long, conflicts_with_all = ["show", "recipe"])]
    list: bool,
    /// Print the recipe's TOML, to start one of your own from
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    constrain: Constrain,
}

/// Settings over the recipe's.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Settings over the recipe's, for all steps or one")]
struct Settings {
    /// Set a key of a step, as in article.max-tokens=300; the step * is all of them. May be given several times
    #[arg(long, value_name = "STEP.KEY=VALUE")]
    set: Vec<String>,
    /// Spread of the choices: 0 always takes the most likely token, 1 follows the model's probabilities
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
    /// Choose among the K most likely tokens; 0 means all
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Choose among the most likely tokens that together have this probability; 1 means all
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Choose among the tokens at least this likely, as a share of the most likely one's probability; 0 means all
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Make tokens of the text so far less likely: their logits are divided by this; 1 turns it off
    #[arg(long, value_name = "X", visible_alias = "repetition-penalty")]
    repeat_penalty: Option<f32>,
    /// Never write the same N tokens in a row twice; 0 turns it off
    #[arg(long, value_name = "N")]
    no_repeat_ngram: Option<usize>,
    /// Write a text anew at most N times when it fails a check
    #[arg(long, value_name = "N")]
    retries: Option<usize>,
}

/// What is to be written, resolved.
struct Plan {
    source: Source,
    recipe: Arc<Recipe>,
    /// What tells this recipe with these settings from others.
    version: String,
    vars: BTreeMap<String, String>,
    /// The flag that says what the last step's text is held to.
    form: Option<String>,
}

pub fn run(mut args: Args, offline: bool) -> Result<()> {
    if args.list {
        return recipes::list(args.json);
    }
    let source = recipes::find(&args.recipe.take().context("give the name of a recipe; --list shows them")?)?;
    if args.show {
        return say!("{}", source.text.trim_end());
    }
    let plan = Plan::of(&args, source)?;
    let model = args.model.as_ref().context("give a model with -m")?.locate(offline)?;
    match &args.input {
        Some(ideas) => many::run(&args, &plan, &model, ideas),
        None => one::run(&args, &plan, &model),
    }
}

impl Plan {
    fn of(args: &Args, source: Source) -> Result<Plan> {
        let at_once = if args.input.is_some() { args.batch } else { 1 };
        ensure!(args.best_of > 0, "--best-of 0: ask for at least 1");
        ensure!(args.batch > 0, "--batch 0: ask for at least 1");
        ensure!(
            args.best_of.saturating_mul(at_once) <= MOST_AT_ONCE,
            "--best-of {} of {at_once} documents: at most {MOST_AT_ONCE} texts are written at once",
            args.best_of
        );
        let form = args.constrain.form()?;
        let settings = args.settings.overrides(form.as_ref())?;
        let recipe = Recipe::parse(&source.text, &settings).with_context(|| source.place())?;
        let mut vars = BTreeMap::new();
        for var in &args.var {
            let (name, value) = var
                .split_once('=')
                .with_context(|| format!("--var {var}: give a name and a value, such as tone=friendly"))?;
            ensure!(name != "topic", "--var {var}: the topic is given with --topic");
            ensure!(vars.insert(name.to_owned(), value.to_owned()).is_none(), "--var {name} is given twice");
        }
        let all = format!("{} {settings:?} {} {} {:?}", source.text, args.best_of, args.chat, args.lang);
        let version = Sha256::digest(all)[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        let form = form.map(|(given, _)| given);
        Ok(Plan { source, recipe: Arc::new(recipe), version, vars, form })
    }

    /// Compiles what texts are held to, before anything is written.
    fn compile(&self, writer: &mut Writer) -> Result<()> {
        let with = self.form.iter().map(|form| format!(" with {form}")).collect::<String>();
        let notes = writer.compile(&self.recipe).with_context(|| self.source.place() + &with)?;
        notes.iter().for_each(|line| note!("warning: {line}"));
        Ok(())
    }
}

impl Settings {
    /// The flags first, then what is set for one step.
    fn overrides(&self, form: Option<&(String, Form)>) -> Result<Vec<Override>> {
        let shown = |value: &dyn ToString| value.to_string();
        let flags = [
            ("temperature", self.temperature.as_ref().map(|x| shown(x))),
            ("top-k", self.top_k.as_ref().map(|x| shown(x))),
            ("top-p", self.top_p.as_ref().map(|x| shown(x))),
            ("min-p", self.min_p.as_ref().map(|x| shown(x))),
            ("repeat-penalty", self.repeat_penalty.as_ref().map(|x| shown(x))),
            ("no-repeat-ngram", self.no_repeat_ngram.as_ref().map(|x| shown(x))),
            ("retries", self.retries.as_ref().map(|x| shown(x))),
        ];
        let flags = flags.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let mut all = flags
            .map(|(key, value)| Override::of_all(&format!("--{key} {value}"), key, &value))
            .collect::<Result<Vec<_>, _>>()?;
        all.extend(form.map(|(given, form)| Override::form_of_last(given, form.clone())));
        for given in &self.set {
            all.push(given.parse().with_context(|| "--set")?);
        }
        Ok(all)
    }
}

impl Args {
    /// The model, its tokenizer, and the chat template that it is asked through.
    fn open(&self, model: &Located) -> Result<(Gpt2, Tokenizer, Option<ChatTemplate>)> {
        let (model, tokenizer) = model.open(self.model.as_ref().and_then(|model| model.dtype))?;
        let template = match self.chat.as_str() {
            "never" => None,
            when => {
                let template = ChatTemplate::of(&tokenizer)?;
                Some(template).filter(|template| !template.is_assumed() || when == "always")
            }
        };
        Ok((model, tokenizer, template))
    }
}

/// What is to be said of a step: checks that fail, and what a limit cut.
fn warnings(step: &StepResult) -> Vec<String> {
    let (name, best) = (&step.name, step.best());
    let mut all = Vec::new();
    if !step.passed {
        let failed: Vec<String> =
            best.failed.iter().map(|one| format!("{} ({})", one.check, one.why)).collect();
        let n = step.attempts.len();
        all.push(format!(
            "step `{name}`: no text of {n} passes its checks; the best one fails {}",
            failed.join(", ")
        ));
    }
    if step.is_short_of_room {
        let room = step.max_tokens;
        all.push(format!(
            "step `{name}`: the model's context has room for {room} tokens, fewer than the recipe allows"
        ));
    }
    if !best.dropped.is_empty() {
        all.push(format!("step `{name}`: a sentence that the limit cut is left out: {:?}", best.dropped));
    }
    all
}
