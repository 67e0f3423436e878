//! Many prompts from a file: written at once, in the order of the file, and gone on with where it stopped.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use generate::{Overflow, Request, TextEvent, Texts};
use indicatif::{ProgressBar, ProgressStyle};
use models::Gpt2;
use serde::Deserialize;
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use super::Args;
use crate::constrain::Schemas;
use crate::model::Located;
use crate::output::note;
use crate::signals::StopFlag;
use crate::{input, plan};

/// A line of the input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: String,
    max_tokens: Option<usize>,
    seed: Option<u64>,
    #[serde(default)]
    stop: Vec<String>,
    json_schema: Option<Value>,
}

pub fn run(args: &Args, located: &Located, prompts: &Path, output: &Path) -> Result<()> {
    let lines = read(prompts)?;
    let (model, tokenizer) = located.open(args.model.dtype)?;
    check(args, &model, &tokenizer)?;
    let (constraint, mut schemas) = (args.constrain.build(&tokenizer)?, Schemas::default());
    let (mut file, done, first_seed) = open(output, &lines)?;
    let seed = args.seed.or(first_seed).unwrap_or_else(|| input::seed(None));
    if let (Some(given), Some(first)) = (args.seed, first_seed) {
        ensure!(given == first, "{} was begun with --seed {first}, not {given}", output.display());
    }
    if done > 0 {
        note!("{done} of {} are there already; going on", lines.len());
    }
    let lost = lines[done..].iter().filter(|line| tokenizer.unknown(&line.prompt).is_some()).count();
    if lost > 0 {
        note!(
            "warning: {lost} prompts hold text that the vocabulary has no token for; `gpt2 tokenizer encode` shows where"
        );
    }
    let stop = StopFlag::install()?;
    let engine = plan::engine(&model, args.batch, args.speculation(&model, &tokenizer)?);
    let mut texts = Texts::new(&model, &tokenizer, engine)?;
    let bar = ProgressBar::new(lines.len() as u64);
    bar.set_style(
        ProgressStyle::with_template("{bar:24} {pos}/{len} texts, {eta} left").expect("a valid template"),
    );
    bar.set_position(done as u64);
    let mut coming = (done..lines.len()).peekable();
    let mut numbers = BTreeMap::new(); // of the lines that are being written
    let mut whole: BTreeMap<usize, Value> = BTreeMap::new(); // that wait for an earlier one
    let (mut next, mut refused) = (done, 0);
    while next < lines.len() && !stop.is_set() {
        while numbers.len() < args.batch
            && let Some(index) = coming.next()
        {
            let line = &lines[index];
            let request =
                request(args, &tokenizer, line, seed.wrapping_add(index as u64)).and_then(|request| {
                    let own = line
                        .json_schema
                        .as_ref()
                        .map(|schema| schemas.get(&tokenizer, schema))
                        .transpose()?;
                    Ok(Request { constraint: own.or_else(|| constraint.clone()), ..request })
                });
            match request.and_then(|request| Ok(texts.add(&request)?)) {
                Ok(id) => _ = numbers.insert(id, index),
                // A prompt that cannot be continued is told in its line, and does not end the work.
                Err(error) => _ = whole.insert(index, json!({ "error": format!("{error:#}") })),
            }
        }
        for event in texts.step()? {
            let TextEvent::Done(id, result) = event else { continue };
            let Some(index) = numbers.remove(&id) else { continue };
            let value = match result {
                Ok(result) => {
                    super::result_json(&result, lines[index].seed.unwrap_or(seed.wrapping_add(index as u64)))
                }
                Err(error) => json!({ "error": error.to_string() }),
            };
            whole.insert(index, value);
        }
        while let Some(value) = whole.remove(&next) {
            refused += usize::from(value.get("error").is_some());
            let line = format!("{}{}\n", head(next, &lines[next].prompt), &value.to_string()[1..]);
            file.write_all(line.as_bytes()).with_context(|| output.display().to_string())?;
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
    if refused > 0 {
        note!("warning: {refused} of the prompts could not be continued; their lines say why, as \"error\"");
    }
    Ok(())
}

/// Refuses what would fail for every prompt.
fn check(args: &Args, model: &Gpt2, tokenizer: &Tokenizer) -> Result<()> {
    let (request, n_ctx) = (args.request(tokenizer, "", 0)?, model.config().n_ctx);
    match request.overflow {
        Overflow::Slide { keep } => ensure!(
            keep <= n_ctx.saturating_sub(4),
            "--keep {keep}: the model's context is {n_ctx}; keep at most {}",
            n_ctx.saturating_sub(4)
        ),
        Overflow::Refuse => ensure!(
            args.max_tokens.is_none_or(|most| most < n_ctx),
            "-n {}: the model's context is {n_ctx}; ask for less, or add --overflow slide",
            args.max_tokens.unwrap_or_default()
        ),
    }
    Ok(())
}

/// How the line of a prompt begins.
fn head(index: usize, prompt: &str) -> String {
    format!("{{\"index\":{index},\"prompt\":{},", json!(prompt))
}

fn request(args: &Args, tokenizer: &Tokenizer, line: &Line, seed: u64) -> Result<Request> {
    let mut request = args.request(tokenizer, &line.prompt, line.seed.unwrap_or(seed))?;
    request.max_tokens = line.max_tokens.or(request.max_tokens);
    request.stop.extend(line.stop.iter().cloned());
    Ok(request)
}

fn read(path: &Path) -> Result<Vec<Line>> {
    let text = input::read_text(path)?;
    let lines: Vec<Line> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| {
                format!(
                    "{}, line {}: each line is an object such as {{\"prompt\": \"Once\"}}",
                    path.display(),
                    number + 1
                )
            })
        })
        .collect::<Result<_>>()?;
    ensure!(!lines.is_empty(), "{} holds no prompts", path.display());
    Ok(lines)
}

/// The output, to be written on; how many whole lines it has, and the seed that it was begun with.
fn open(path: &Path, lines: &[Line]) -> Result<(File, usize, Option<u64>)> {
    let about = || path.display().to_string();
    ensure!(!path.exists() || path.is_file(), "{}: not a file; name a file for --output", path.display());
    let mut file =
        File::options().create(true).truncate(false).read(true).write(true).open(path).with_context(about)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            bail!("another process is writing {}; let it end first", path.display())
        }
        Err(TryLockError::Error(error)) if error.kind() != ErrorKind::Unsupported => {
            return Err(error).with_context(about);
        }
        // A file system without locks protects nobody, but the work is still possible on it.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    let mut old = Vec::new();
    file.read_to_end(&mut old).with_context(about)?;
    let whole = old.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let (mut done, mut seed) = (0, None);
    let other = |line: usize| {
        let advice = "is not what these prompts give; name another --output, or remove it";
        anyhow::anyhow!("{}, line {}, {advice}", path.display(), line + 1)
    };
    for line in old[..whole].split_inclusive(|&byte| byte == b'\n') {
        let value: Value = serde_json::from_slice(line).unwrap_or_default();
        let prompt = lines.get(done).filter(|prompt| line.starts_with(head(done, &prompt.prompt).as_bytes()));
        let prompt = prompt.filter(|_| value.is_object()).ok_or_else(|| other(done))?;
        if let (None, None, Some(own)) = (seed, prompt.seed, value["seed"].as_u64()) {
            seed = Some(own.wrapping_sub(done as u64));
        }
        done += 1;
    }
    // A line that was cut short is written anew; anything else is not ours to remove.
    let cut = &old[whole..];
    let head = lines.get(done).map(|line| head(done, &line.prompt)).unwrap_or_default();
    let common = cut.len().min(head.len());
    ensure!(cut.is_empty() || (common > 0 && cut[..common] == head.as_bytes()[..common]), other(done));
    file.set_len(whole as u64).with_context(about)?;
    file.seek(SeekFrom::End(0)).with_context(about)?;
    Ok((file, done, seed))
}
