//! One document: shown part by part, or written to a file.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use generate::apps::write::{Job, WriteEvent, Writer, Written};
use generate::{EngineSettings, Speculation};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{Args, Plan, warnings};
use crate::input;
use crate::model::Located;
use crate::output::{self, STDOUT, note};
use crate::plan::engine_settings;

/// Tokens that may be guessed at once.
pub const LOOKUP: Speculation = Speculation::Lookup { most: 8 };

pub fn run(args: &Args, plan: &Plan, model: &Located) -> Result<()> {
    let topic = args.topic.as_deref().unwrap_or_default();
    let seed = input::seed(args.seed);
    let job = Job::new(plan.recipe.clone(), topic, &plan.vars, args.lang, seed)
        .with_context(|| plan.source.place())?;
    if let Some(path) = &args.out {
        ensure!(!path.is_dir(), "--out {}: this is a directory; name a file", path.display());
        ensure!(
            args.force || !path.exists(),
            "--out {} is there already; --force replaces it",
            path.display()
        );
    }
    let (model, tokenizer, template) = args.open(model)?;
    input::note_unknown(&tokenizer, topic, "the topic");
    let settings = engine_settings(&model, args.best_of, LOOKUP, "--best-of");
    // The prompt's keys and values serve the next attempt, too.
    let settings = EngineSettings { kept: 1, ..settings };
    let mut writer = Writer::new(&model, &tokenizer, template, args.best_of, settings)?;
    plan.compile(&mut writer)?;
    let whole = write(&mut writer, job, args.out.is_none() && !args.json);
    let whole =
        whole.map_err(|error| input::name_damage(&model, error)).with_context(|| plan.source.place())?;
    match (&args.out, args.json) {
        (Some(path), true) => output::save(path, format!("{}\n", to_json(plan, &whole)).as_bytes())?,
        (Some(path), false) => output::save(path, whole.markdown().as_bytes())?,
        (None, true) => output::json(&to_json(plan, &whole))?,
        (None, false) => {} // shown as it came
    }
    note!("[seed {seed}]");
    Ok(())
}

/// Writes a document; its parts are shown as they are decided, if asked for.
fn write(writer: &mut Writer, job: Job, is_shown: bool) -> Result<Written> {
    writer.add(job)?;
    let drafts = Drafts::new();
    let mut out = std::io::stdout();
    let mut is_first = true;
    loop {
        for event in writer.step()? {
            match event {
                WriteEvent::Draft { step, attempt, piece, .. } => drafts.piece(&step, attempt, &piece),
                WriteEvent::Step(_, step) => {
                    drafts.pause(|| -> Result<()> {
                        warnings(&step).iter().for_each(|warning| note!("warning: {warning}"));
                        if let Some(part) = step.markdown().filter(|_| is_shown) {
                            let gap = if is_first { "" } else { "\n" };
                            is_first = false;
                            writeln!(out, "{gap}{part}").and_then(|()| out.flush()).context(STDOUT)?;
                        }
                        Ok(())
                    })?;
                }
                WriteEvent::Done(_, whole) => return Ok(whole?),
            }
        }
    }
}

/// A document with all that is known of it.
pub fn to_json(plan: &Plan, whole: &Written) -> Value {
    json!({
        "recipe": plan.source.name, "version": plan.version, "lang": whole.lang, "inputs": whole.inputs,
        "seed": whole.seed, "text": whole.markdown(), "steps": whole.steps,
        "warnings": whole.steps.iter().flat_map(warnings).collect::<Vec<_>>(),
    })
}

/// Texts as they come, on a line of the terminal; nowhere else, since they may yet be written anew.
struct Drafts(ProgressBar);

impl Drafts {
    fn new() -> Drafts {
        if !std::io::stderr().is_terminal() {
            return Drafts(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        bar.set_style(
            ProgressStyle::with_template("{spinner} {prefix}: {wide_msg}").expect("a valid template"),
        );
        bar.enable_steady_tick(Duration::from_millis(100));
        Drafts(bar)
    }

    fn piece(&self, step: &str, attempt: usize, piece: &str) {
        if self.0.is_hidden() {
            return;
        }
        let prefix = if attempt == 0 { step.to_owned() } else { format!("{step}, attempt {}", attempt + 1) };
        let before = if self.0.prefix() == prefix { self.0.message() } else { String::new() };
        let text = format!("{before}{piece}").replace(char::is_control, " ");
        let start = text.char_indices().rev().nth(TAIL - 1).map_or(0, |(at, _)| at);
        self.0.set_prefix(prefix);
        self.0.set_message(text[start..].to_owned());
    }

    fn pause<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }
}

impl Drop for Drafts {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Characters of a draft that are shown.
const TAIL: usize = 30;
