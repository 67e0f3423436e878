//! Many prompts from a file: written at once, in the order of the file, and gone on with where it stopped.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use generate::{Request, TextEvent, Texts};
use indicatif::{ProgressBar, ProgressStyle};
use models::Gpt2;
use serde::Deserialize;
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use super::Args;
use crate::input;
use crate::output::note;
use crate::signals::StopFlag;

/// A line of the input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: String,
    max_tokens: Option<usize>,
    seed: Option<u64>,
    #[serde(default)]
    stop: Vec<String>,
}

pub fn run(args: &Args, prompts: &Path, output: &Path) -> Result<()> {
    let lines = read(prompts)?;
    let (model, tokenizer) = input::open_model(&args.model, args.dtype)?;
    let (mut file, done, first_seed) = open(output, &lines)?;
    let seed = args.seed.or(first_seed).unwrap_or_else(|| input::seed(None));
    if let (Some(given), Some(first)) = (args.seed, first_seed) {
        ensure!(given == first, "{} was begun with --seed {first}, not {given}", output.display());
    }
    if done > 0 {
        note!("{done} of {} are there already; going on", lines.len());
    }
    let stop = StopFlag::install()?;
    let mut texts = Texts::new(&model, &tokenizer, args.engine(&model)?)?;
    let bar = ProgressBar::new(lines.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len} texts, {eta} left").expect("a valid template"));
    bar.set_position(done as u64);
    let mut coming = (done..lines.len()).peekable();
    let mut numbers = BTreeMap::new(); // of the lines that are being written
    let mut whole: BTreeMap<usize, Value> = BTreeMap::new(); // that wait for an earlier one
    let mut next = done;
    while next < lines.len() && !stop.is_set() {
        while numbers.len() < args.batch
            && let Some(index) = coming.next()
        {
            let request = request(args, &tokenizer, &lines[index], seed.wrapping_add(index as u64))?;
            match texts.add(&request) {
                Ok(id) => _ = numbers.insert(id, index),
                // A prompt that cannot be continued is told in its line, and does not end the work.
                Err(error) => _ = whole.insert(index, failed(index, &lines[index], &error.to_string())),
            }
        }
        for event in texts.step()? {
            let TextEvent::Done(id, result) = event else { continue };
            let Some(index) = numbers.remove(&id) else { continue };
            let line = &lines[index];
            let value = match result {
                Ok(result) => {
                    let mut value = super::result_json(&result, line.seed.unwrap_or(seed.wrapping_add(index as u64)));
                    (value["index"], value["prompt"]) = (json!(index), json!(line.prompt));
                    value
                }
                Err(error) => failed(index, line, &error.to_string()),
            };
            whole.insert(index, value);
        }
        while let Some(value) = whole.remove(&next) {
            writeln!(file, "{value}").and_then(|()| file.flush()).with_context(|| output.display().to_string())?;
            next += 1;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    file.sync_all().with_context(|| output.display().to_string())?;
    if next < lines.len() {
        note!("stopped after {next} of {}; the same command goes on from there", lines.len());
    } else {
        note!("{} texts are in {}", lines.len(), output.display());
    }
    Ok(())
}

fn failed(index: usize, line: &Line, error: &str) -> Value {
    json!({ "index": index, "prompt": line.prompt, "error": error })
}

fn request(args: &Args, tokenizer: &Tokenizer, line: &Line, seed: u64) -> Result<Request> {
    let mut request = args.request(tokenizer, &line.prompt, line.seed.unwrap_or(seed))?;
    request.max_tokens = line.max_tokens.or(request.max_tokens);
    request.stop.extend(line.stop.iter().cloned());
    Ok(request)
}

fn read(path: &Path) -> Result<Vec<Line>> {
    let bytes = input::read_bytes(path)?;
    let text = String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{}: not UTF-8", path.display()))?;
    let lines: Vec<Line> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| {
                format!("{}, line {}: each line is an object such as {{\"prompt\": \"Once\"}}", path.display(), number + 1)
            })
        })
        .collect::<Result<_>>()?;
    ensure!(!lines.is_empty(), "{} holds no prompts", path.display());
    Ok(lines)
}

/// The output, to be written on; how many whole lines it has, and the seed of the first.
fn open(path: &Path, lines: &[Line]) -> Result<(File, usize, Option<u64>)> {
    let about = || path.display().to_string();
    let old = if path.exists() { std::fs::read(path).with_context(about)? } else { Vec::new() };
    let whole = old.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let (mut done, mut seed) = (0, None);
    for line in old[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let value: Value = serde_json::from_slice(line).unwrap_or_default();
        let same = lines.get(done).is_some_and(|line| value["prompt"] == *line.prompt);
        if value["index"] != done || !same {
            bail!(
                "{}, line {}, is not what these prompts give; name another --output, or remove it",
                path.display(),
                done + 1
            );
        }
        if done == 0 && lines[0].seed.is_none() {
            seed = value["seed"].as_u64();
        }
        done += 1;
    }
    // A line that was cut short is written anew.
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path).with_context(about)?;
    file.set_len(whole as u64).with_context(about)?;
    file.seek(SeekFrom::End(0)).with_context(about)?;
    Ok((file, done, seed))
}

/// The settings of an engine for this model.
impl Args {
    pub fn engine(&self, model: &Gpt2) -> Result<generate::EngineSettings> {
        Ok(generate::EngineSettings {
            speculation: self.speculation(model)?,
            kept: 8,
            ..generate::EngineSettings::for_batch(model, self.batch)
        })
    }
}
