//! Many documents from a table of ideas: written at once, told in the order of the table, and gone on with where it stopped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use generate::EngineSettings;
use generate::apps::write::{Job, WriteEvent, Writer, Written};
use serde_json::{Value, json};

use super::ideas::{self, Idea};
use super::one::{self, LOOKUP};
use super::{Args, Plan, warnings};
use crate::input;
use crate::lines::{self, Lines};
use crate::model::Located;
use crate::output::{self, note, say};
use crate::plan::engine_settings;
use crate::signals::StopFlag;

/// The record of what is done in a directory of documents.
const INDEX: &str = "index.jsonl";

pub fn run(args: &Args, plan: &Plan, model: &Located, path: &Path) -> Result<()> {
    ensure!(args.json || args.out.is_some(), "--input: add --out DIR for Markdown files, or --json");
    let whole = |path: &Path| path.canonicalize().ok();
    ensure!(
        args.out.as_deref().and_then(whole).is_none_or(|out| whole(path) != Some(out)),
        "--out {} holds the ideas; choose another file",
        path.display()
    );
    let ideas = ideas::read(path, &plan.recipe)?;
    // All is looked through before anything is written.
    let jobs = |seed| ideas.iter().enumerate().map(move |(k, idea)| (idea, row_seed(idea, seed, k)));
    let first: Vec<Job> =
        jobs(0).map(|(idea, seed)| job(args, plan, path, idea, seed)).collect::<Result<_>>()?;
    let heads: Vec<String> = first.iter().enumerate().map(|(k, job)| head(plan, k, job)).collect();
    let mut sink = Sink::open(args, &heads, &ideas)?;
    let (done, first_seed) = sink.done(&ideas);
    let seed = args.seed.or(first_seed).unwrap_or_else(|| input::seed(None));
    if let (Some(given), Some(first)) = (args.seed, first_seed) {
        ensure!(given == first, "{} was begun with --seed {first}, not {given}", sink.place());
    }
    if done > 0 {
        note!("{done} of {} are there already; going on", ideas.len());
    }
    let (model, tokenizer, template) = args.open(model)?;
    let lost = ideas[done..].iter().filter(|idea| tokenizer.unknown(&idea.topic).is_some()).count();
    if lost > 0 {
        note!(
            "warning: {lost} topics hold text that the vocabulary has no token for; `gpt2 tokenizer encode` shows where"
        );
    }
    let stop = StopFlag::install()?;
    let settings = engine_settings(&model, args.batch * args.best_of, LOOKUP, "--batch");
    let mut writer = Writer::new(
        &model,
        &tokenizer,
        template,
        args.best_of,
        EngineSettings { kept: args.batch, ..settings },
    )?;
    plan.compile(&mut writer)?;
    let bar = output::bar(ideas.len(), "documents");
    bar.set_position(done as u64);
    let mut coming = jobs(seed).enumerate().skip(done);
    let mut numbers = BTreeMap::new(); // of the documents that are being written
    let mut whole: BTreeMap<usize, Result<Written, String>> = BTreeMap::new(); // that wait for an earlier one
    let (mut next, mut counts) = (done, Counts::default());
    while next < ideas.len() && !stop.is_set() {
        while writer.len() < args.batch
            && let Some((index, (idea, seed))) = coming.next()
        {
            match writer.add(job(args, plan, path, idea, seed)?) {
                Ok(id) => _ = numbers.insert(id, index),
                // What cannot be written is told in its line, and does not end the work.
                Err(error) => _ = whole.insert(index, Err(error.to_string())),
            }
        }
        for event in writer.step().map_err(|error| input::name_damage(&model, error.into()))? {
            let WriteEvent::Done(id, result) = event else { continue };
            let Some(index) = numbers.remove(&id) else { continue };
            whole.insert(index, result.map_err(|error| error.to_string()));
        }
        while let Some(result) = whole.remove(&next) {
            counts.see(&result);
            bar.suspend(|| sink.put(plan, next, &heads[next], &ideas[next], result))?;
            next += 1;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    sink.finish()?;
    if next < ideas.len() {
        let how = if args.out.is_some() { "; the same command goes on from there" } else { "" };
        note!("stopped after {next} of {}{how}", ideas.len());
    } else {
        note!("{} documents are in {} [seed {seed}]", ideas.len(), sink.place());
    }
    counts.tell();
    Ok(())
}

/// The seed of a row: its own, or that of the first row and its number.
fn row_seed(idea: &Idea, seed: u64, number: usize) -> u64 {
    idea.seed.unwrap_or(seed.wrapping_add(number as u64))
}

fn job(args: &Args, plan: &Plan, path: &Path, idea: &Idea, seed: u64) -> Result<Job> {
    let mut given = plan.vars.clone();
    given.extend(idea.given.clone());
    Job::new(plan.recipe.clone(), &idea.topic, &given, idea.lang.or(args.lang), seed)
        .with_context(|| format!("{}, line {}", path.display(), idea.line))
}

/// How the line of a document begins.
fn head(plan: &Plan, index: usize, job: &Job) -> String {
    let [name, version] = [&plan.source.name, &plan.version].map(|text| json!(text));
    let (lang, inputs) = (json!(job.lang()), json!(job.inputs()));
    format!(
        "{{\"index\":{index},\"recipe\":{name},\"version\":{version},\"lang\":{lang},\"inputs\":{inputs},"
    )
}

/// Documents that are not as they should be.
#[derive(Default)]
struct Counts {
    refused: usize,
    warned: usize,
}

impl Counts {
    fn see(&mut self, result: &Result<Written, String>) {
        match result {
            Ok(whole) => self.warned += usize::from(whole.steps.iter().any(|step| !step.passed)),
            Err(_) => self.refused += 1,
        }
    }

    fn tell(&self) {
        if self.warned > 0 {
            note!(
                "warning: {} documents hold texts that fail a check; their lines say which, as \"warnings\"",
                self.warned
            );
        }
        if self.refused > 0 {
            note!(
                "warning: {} documents could not be written; their lines say why, as \"error\"",
                self.refused
            );
        }
    }
}

/// Where documents go.
enum Sink {
    /// JSON lines on standard output.
    Stdout,
    /// JSON lines in a file.
    File(PathBuf, Lines),
    /// Markdown files in a directory, with an index.
    Dir { path: PathBuf, lines: Lines, force: bool },
}

impl Sink {
    fn open(args: &Args, heads: &[String], ideas: &[Idea]) -> Result<Sink> {
        let Some(path) = &args.out else { return Ok(Sink::Stdout) };
        if args.json {
            let lines = open_lines(path, heads, args.force)?;
            return Ok(Sink::File(path.clone(), lines));
        }
        ensure!(!path.is_file(), "--out {}: this is a file; name a directory, or add --json", path.display());
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let lines = open_lines(&path.join(INDEX), heads, args.force)?;
        let done = lines.done.len();
        // The first one may have been written without its line in the index; it is compared when it is written again.
        for (k, idea) in ideas.iter().enumerate().skip(done + usize::from(done > 0)) {
            let file = path.join(file_name(k, &idea.topic));
            ensure!(args.force || !file.exists(), "{} is there already; --force replaces it", file.display());
        }
        Ok(Sink::Dir { path: path.clone(), lines, force: args.force })
    }

    fn place(&self) -> String {
        match self {
            Sink::Stdout => "standard output".into(),
            Sink::File(path, _) | Sink::Dir { path, .. } => path.display().to_string(),
        }
    }

    /// How many documents are there, and the seed that they were begun with.
    fn done(&self, ideas: &[Idea]) -> (usize, Option<u64>) {
        match self {
            Sink::Stdout => (0, None),
            Sink::File(_, lines) | Sink::Dir { lines, .. } => {
                (lines.done.len(), lines.first_seed(|k| ideas[k].seed.is_some()))
            }
        }
    }

    fn put(
        &mut self,
        plan: &Plan,
        index: usize,
        head: &str,
        idea: &Idea,
        result: Result<Written, String>,
    ) -> Result<()> {
        match (self, result) {
            (Sink::Stdout, result) => say!("{}", lines::line(head, &rest(plan, &result))),
            (Sink::File(_, lines), result) => lines.push(&lines::line(head, &rest(plan, &result))),
            (Sink::Dir { path: dir, lines, force }, Ok(whole)) => {
                let name = file_name(index, &idea.topic);
                let (file, text) = (dir.join(&name), whole.markdown());
                let there = fs::read(&file).ok();
                let is_ours = *force || there.is_none_or(|there| there == text.as_bytes());
                ensure!(
                    is_ours,
                    "{} is there already, and is another text; --force replaces it",
                    file.display()
                );
                output::save(&file, text.as_bytes())?;
                let warnings: Vec<String> = whole.steps.iter().flat_map(warnings).collect();
                lines.push(&lines::line(
                    head,
                    &json!({ "seed": whole.seed, "file": name, "warnings": warnings }),
                ))
            }
            (Sink::Dir { lines, .. }, Err(error)) => {
                lines.push(&lines::line(head, &json!({ "error": error })))
            }
        }
    }

    fn finish(&self) -> Result<()> {
        match self {
            Sink::Stdout => Ok(()),
            Sink::File(_, lines) | Sink::Dir { lines, .. } => lines.finish(),
        }
    }
}

fn open_lines(path: &Path, heads: &[String], force: bool) -> Result<Lines> {
    if force && path.is_file() {
        fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
    }
    Lines::open(path, heads, "this recipe and these ideas", "--out")
}

/// What follows a line's head.
fn rest(plan: &Plan, result: &Result<Written, String>) -> Value {
    match result {
        Ok(whole) => {
            let mut all = one::to_json(plan, whole);
            if let Some(all) = all.as_object_mut() {
                ["recipe", "version", "lang", "inputs"].iter().for_each(|key| _ = all.remove(*key));
            }
            all
        }
        Err(error) => json!({ "error": error }),
    }
}

/// Characters of a topic in a file's name.
const NAME_LEN: usize = 40;

/// The name of a document's file: its number, counted from 1, and its topic's letters and digits.
fn file_name(index: usize, topic: &str) -> String {
    let words: Vec<String> = topic
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let topic: String = words.join("-").chars().take(NAME_LEN).collect();
    format!("{:04}-{topic}.md", index + 1)
}
