//! Many prompts from a file: written at once, in the order of the file, and gone on with where it stopped.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use data::fingerprint;
use generate::constraint::Form;
use generate::{Overflow, Request, TextEvent, Texts};
use models::Gpt2;
use serde::Deserialize;
use serde_json::{Value, json};
use tokenizer::Tokenizer;
use tokenizer::chat::{ChatTemplate, Message};

use super::Args;
use super::ask::{self, Asked};
use crate::constrain::{Constrain, Schemas};
use crate::lines::Lines;
use crate::model::Located;
use crate::output::{self, note};
use crate::signals::StopFlag;
use crate::{input, plan};

/// A line of the input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    max_tokens: Option<usize>,
    seed: Option<u64>,
    #[serde(default)]
    stop: Vec<String>,
    json_schema: Option<Value>,
}

/// What is asked, and the rest of its line.
type Row = (Asked, Line);

pub fn run(args: &Args, located: &Located, prompts: &Path, output: &Path) -> Result<()> {
    let rows = read(prompts, args.chat)?;
    let (model, tokenizer) = located.open(args.model.dtype)?;
    check(args, &model, &tokenizer)?;
    let form = args.constrain.form()?;
    let settings = settings(args, &model, &tokenizer, form.as_ref().map(|(_, form)| form))?;
    let (constraint, mut schemas) = (Constrain::compile(form, &tokenizer)?, Schemas::default());
    let template = ask::template(&tokenizer, rows.iter().map(|(asked, _)| asked))?;
    let heads: Vec<String> = rows.iter().enumerate().map(|(k, (asked, _))| asked.head(k)).collect();
    let mut file = Lines::open(output, &heads, "these prompts", "--output")?;
    let done = file.done.len();
    if let Some(other) = file.done.iter().find_map(|line| line["settings"].as_str()) {
        ensure!(
            other == settings,
            "{} was begun with another model or other flags; repeat those, or name another --output",
            output.display()
        );
    }
    let first_seed = file.first_seed(|k| rows[k].1.seed.is_some());
    let seed = args.seed.or(first_seed).unwrap_or_else(|| input::seed(None));
    if let (Some(given), Some(first)) = (args.seed, first_seed) {
        ensure!(given == first, "{} was begun with --seed {first}, not {given}", output.display());
    }
    if done > 0 {
        note!("{done} of {} are there already; going on", rows.len());
    }
    let is_lost = |asked: &Asked| asked.texts().into_iter().any(|text| tokenizer.unknown(text).is_some());
    let lost = rows[done..].iter().filter(|(asked, _)| is_lost(asked)).count();
    if lost > 0 {
        note!(
            "warning: {lost} prompts hold text that the vocabulary has no token for; `gpt2 tokenizer encode` shows where"
        );
    }
    let stop = StopFlag::install()?;
    let engine = plan::engine_settings(&model, args.batch, args.speculation(&model, &tokenizer)?, "--batch");
    let mut texts = Texts::new(&model, &tokenizer, engine)?;
    let bar = output::bar(rows.len(), "texts");
    bar.set_position(done as u64);
    let mut coming = (done..rows.len()).peekable();
    let mut numbers = BTreeMap::new(); // of the lines that are being written
    let mut whole: BTreeMap<usize, Value> = BTreeMap::new(); // that wait for an earlier one
    let (mut next, mut refused) = (done, 0);
    while next < rows.len() && !stop.is_set() {
        while numbers.len() < args.batch
            && let Some(index) = coming.next()
        {
            let row = &rows[index];
            let request = request(args, &tokenizer, template.as_ref(), row, seed.wrapping_add(index as u64));
            let request = request.and_then(|request| {
                let own = row.1.json_schema.as_ref();
                let own = own.map(|schema| schemas.get(&tokenizer, schema)).transpose()?;
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
                    let (asked, line) = &rows[index];
                    let seed = line.seed.unwrap_or(seed.wrapping_add(index as u64));
                    super::asked_json(asked, &result, seed)
                }
                Err(error) => json!({ "error": error.to_string() }),
            };
            whole.insert(index, value);
        }
        while let Some(mut value) = whole.remove(&next) {
            value["settings"] = settings.clone().into();
            refused += usize::from(value.get("error").is_some());
            file.push(&crate::lines::line(&heads[next], &value))?;
            next += 1;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    file.finish()?;
    if next < rows.len() {
        note!("stopped after {next} of {}; the same command goes on from there", rows.len());
    } else {
        note!("{} texts are in {}", rows.len(), output.display());
    }
    if refused > 0 {
        note!("warning: {refused} of the prompts could not be continued; their lines say why, as \"error\"");
    }
    Ok(())
}

/// A hash of what all lines have in common, by which alone a file is gone on with: the flags, the tokens, and the model as far as
/// those of its tensors tell that lie in memory as numbers, an adapter's among them.
fn settings(args: &Args, model: &Gpt2, tokenizer: &Tokenizer, form: Option<&Form>) -> Result<String> {
    let request = args.request(tokenizer, "", 0)?;
    let (config, dtype, parse_special) = (model.config(), model.dtype(), args.parse_special);
    let text = format!("{request:?} {form:?} {config:?} {dtype} {} {parse_special}", args.chat);
    let tokens =
        (0..tokenizer.vocab_size() as u32).flat_map(|id| tokenizer.token_bytes(id).unwrap_or_default());
    let tensors = model.parameters().into_iter().chain(model.adapter_tensors());
    let numbers = tensors.filter(|(_, tensor)| tensor.weights().is_none());
    let bits = numbers.flat_map(|(_, tensor)| tensor.data().iter().map(|x| x.to_bits()));
    let all = text.bytes().map(u32::from).chain(tokens.map(|&byte| u32::from(byte))).chain(bits);
    Ok(format!("{:016x}", fingerprint::of_numbers(fingerprint::NOTHING, all)))
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

fn request(
    args: &Args,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    (asked, line): &Row,
    seed: u64,
) -> Result<Request> {
    let mut request = args.ask(tokenizer, template, asked, line.seed.unwrap_or(seed))?;
    request.max_tokens = line.max_tokens.or(request.max_tokens);
    request.stop.extend(line.stop.iter().cloned());
    Ok(request)
}

fn read(path: &Path, chat: bool) -> Result<Vec<Row>> {
    let text = input::read_text(path)?;
    let rows: Vec<Row> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            let place = || format!("{}, line {}", path.display(), number + 1);
            let line: Line = serde_json::from_str(line)
                .with_context(|| place() + ": each line is an object such as {\"prompt\": \"Once\"}")?;
            row(line, chat).with_context(place)
        })
        .collect::<Result<_>>()?;
    ensure!(!rows.is_empty(), "{} holds no prompts", path.display());
    Ok(rows)
}

fn row(mut line: Line, chat: bool) -> Result<Row> {
    let asked = match (line.prompt.take(), line.messages.take()) {
        (Some(prompt), None) => Asked::text(prompt, chat)?,
        (None, Some(messages)) => Asked::messages(messages)?,
        _ => bail!("give either a \"prompt\" or \"messages\""),
    };
    Ok((asked, line))
}
