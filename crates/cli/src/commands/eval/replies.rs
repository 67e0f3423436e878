//! `gpt2 eval --replies`: whether the model's replies end, and are in the language of what was asked.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use data::records::{File, Record};
use generate::{Finish, Generation, Request, Sampling, Speculation, TextEvent, Texts};
use models::Gpt2;
use serde::Serialize;
use serde_json::json;
use tokenizer::chat::{ChatTemplate, Message};
use tokenizer::{Tokenizer, is_chinese};

use crate::output::{self, note, say};
use crate::part::Part;
use crate::signals::StopFlag;
use crate::{input, plan};

/// Replies that are written at once, where --batch does not say.
const AT_ONCE: usize = 32;
/// The most replies that are asked for.
const MOST: usize = 1_000_000;

/// The flags.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Args {
    /// Let the model reply to what the user says first in N of the examples, taken from the files in turn
    #[arg(long, value_name = "N", requires = "answers", help_heading = "Replies")]
    pub replies: Option<usize>,
    /// Start of the random numbers; reply number k uses seed + k [default: random, and reported]
    #[arg(long, value_name = "N", requires = "replies", help_heading = "Replies")]
    seed: Option<u64>,
    /// Spread of the choices: 0 always takes the most likely token
    #[arg(long, value_name = "X", requires = "replies", default_value_t = 0.7, help_heading = "Replies")]
    temperature: f32,
    /// Tokens of a reply, at most
    #[arg(long, value_name = "N", requires = "replies", default_value_t = 200, help_heading = "Replies")]
    max_tokens: usize,
    /// Write the replies with their prompts and the examples' answers, as .jsonl
    #[arg(long, value_name = "FILE", requires = "replies", help_heading = "Replies")]
    pub replies_out: Option<PathBuf>,
}

/// How many of the replies are as they should be.
#[derive(Debug, Serialize)]
pub struct Replies {
    /// Replies that were written.
    replies: usize,
    /// Those that the model ended itself.
    ended: usize,
    /// Those in the language of the prompt.
    in_language: usize,
    /// Those that are both.
    ok: usize,
    /// Examples that were passed over, since they leave no room for a reply.
    too_long: usize,
    seed: u64,
    temperature: f32,
    max_tokens: usize,
}

/// What the user says first in an example.
struct Question<'a> {
    file: &'a Path,
    line: u64,
    messages: &'a [Message],
    /// What the example answers.
    reference: &'a str,
}

impl Args {
    pub fn check(&self) -> Result<()> {
        let n = self.replies;
        ensure!(
            n.is_none_or(|n| (1..=MOST).contains(&n)),
            "--replies {}: ask for 1 to {MOST}",
            n.unwrap_or(0)
        );
        ensure!(self.max_tokens > 0, "--max-tokens 0: it must be at least 1");
        Sampling { temperature: self.temperature, ..Sampling::default() }.validate()?;
        Ok(())
    }
}

impl Question<'_> {
    fn prompt(&self) -> &str {
        self.messages.last().map_or("", |message| &message.content)
    }
}

/// Lets the model reply, and writes the replies to `out`.
pub fn write(
    args: &super::Args,
    files: &[File],
    n: usize,
    mut out: Option<Part>,
    (model, tokenizer, template): (&Gpt2, &Tokenizer, &ChatTemplate),
) -> Result<Replies> {
    let Args { temperature, max_tokens, .. } = &args.replies;
    let seed = input::seed(args.replies.seed);
    let mut sampling = Sampling { temperature: *temperature, seed, ..Sampling::default() };
    sampling.processors.stop_tokens.extend(template.end_tokens(tokenizer));
    let mut replies = Replies {
        replies: 0,
        ended: 0,
        in_language: 0,
        ok: 0,
        too_long: 0,
        seed,
        temperature: *temperature,
        max_tokens: *max_tokens,
    };

    let mut asked = Vec::new();
    let batch = args.batch.unwrap_or(AT_ONCE);
    let engine = plan::engine_settings(model, batch, Speculation::Off, "--batch");
    let mut texts = Texts::new(model, tokenizer, engine)?;
    let mut numbers = BTreeMap::new();
    for question in questions(files) {
        if asked.len() == n {
            break;
        }
        let ids = template
            .prompt(tokenizer, question.messages)
            .with_context(|| format!("{}, line {}", question.file.display(), question.line))?;
        let room = model.config().n_ctx.saturating_sub(ids.len());
        if room == 0 {
            replies.too_long += 1;
            continue;
        }
        let request = Request {
            prompt: ids,
            max_tokens: Some(*max_tokens).filter(|most| *most <= room), // else as many as there is room for
            stop: template.stop_strings(),
            sampling: sampling.clone().nth(asked.len() as u64),
            ..Request::default()
        };
        numbers.insert(texts.add(&request)?, asked.len());
        asked.push(question);
    }
    ensure!(
        !asked.is_empty(),
        "no example asks what the model could reply to: {} are too long",
        replies.too_long
    );

    let stop = StopFlag::install()?;
    let bar = output::bar(asked.len(), "replies");
    let mut whole: Vec<Option<Generation>> = asked.iter().map(|_| None).collect();
    while !texts.is_idle() && !stop.is_set() {
        for event in texts.step()? {
            if let TextEvent::Done(id, result) = event {
                whole[numbers[&id]] = Some(result?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    for (question, reply) in asked.iter().zip(&whole) {
        let Some(reply) = reply else { continue };
        let line = replies.add(question, reply);
        out.as_mut().map_or(Ok(()), |out| out.line(&line.to_string()))?;
    }
    if let Some(out) = out {
        note!("[replies are in {}]", out.commit(args.force)?.display());
    }
    if replies.replies < asked.len() {
        note!("stopped after {} of {} replies", replies.replies, asked.len());
    } else if asked.len() < n {
        note!("[the files ask {} different things: fewer than --replies {n}]", asked.len());
    }
    Ok(replies)
}

impl Replies {
    /// Counts a reply, and gives its line.
    fn add(&mut self, question: &Question, reply: &Generation) -> serde_json::Value {
        let text = reply.text.trim();
        let ended = matches!(reply.finish, Finish::Eot | Finish::Stop);
        let in_language = !text.is_empty() && is_chinese(text) == is_chinese(question.prompt());
        let ok = ended && in_language;
        self.replies += 1;
        self.ended += usize::from(ended);
        self.in_language += usize::from(in_language);
        self.ok += usize::from(ok);
        json!({
            "file": question.file, "line": question.line, "prompt": question.prompt(), "reply": text,
            "reference": question.reference, "finish": reply.finish, "ended": ended, "in_language": in_language, "ok": ok,
        })
    }

    pub fn show(&self) -> Result<()> {
        let Replies { replies, ended, in_language, ok, .. } = self;
        say!(
            "replies          {replies}: {ended} ended their turn, {in_language} in the prompt's language, {ok} both"
        )?;
        if self.too_long > 0 {
            note!("[{} examples were passed over, which leave no room for a reply]", self.too_long);
        }
        note!("[seed {}]", self.seed);
        Ok(())
    }
}

/// What is asked, from the files in turn; the same thing only once.
fn questions(files: &[File]) -> impl Iterator<Item = Question<'_>> {
    let mut waiting: Vec<_> = files
        .iter()
        .map(|file| file.records.iter().filter_map(|(line, record)| question(&file.path, *line, record)))
        .collect();
    let (mut seen, mut next) = (HashSet::new(), 0);
    std::iter::from_fn(move || {
        let mut ended = 0;
        while ended < waiting.len() {
            let at = next % waiting.len();
            next += 1;
            match waiting[at].find(|question| seen.insert(question.prompt().to_owned())) {
                None => ended += 1,
                question => return question,
            }
        }
        None
    })
}

fn question<'a>(file: &'a Path, line: u64, record: &'a Record) -> Option<Question<'a>> {
    let messages = match record {
        Record::Conversation(conversation) => &conversation.messages,
        Record::Choice([chosen, _]) => chosen,
    };
    let user = messages.iter().position(|message| message.role == "user")?;
    let reference = messages.get(user + 1).map_or("", |message| &message.content);
    Some(Question { file, line, messages: &messages[..=user], reference })
}
