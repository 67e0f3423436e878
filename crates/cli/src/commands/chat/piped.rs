//! Conversations without a terminal: one message, or one on each line of standard input.

use std::io::{BufRead, Read, Write};

use ::generate::apps::chat::Reply;
use anyhow::{Context, Result, ensure};

use super::session::Session;
use crate::commands::{generate, print_json};
use crate::output::{STDOUT, note, printable};

/// The longest line that is read: far more than any context holds.
const MOST_BYTES: u64 = 16 << 20;

/// Answers one message.
pub fn once(mut session: Session, message: &str, json: bool) -> Result<()> {
    answer(&mut session, message, json)
}

/// Answers each line of standard input, in one conversation.
pub fn run(mut session: Session, json: bool) -> Result<()> {
    let mut input = std::io::stdin().lock();
    for number in 1u64.. {
        let mut line = Vec::new();
        input.by_ref().take(MOST_BYTES).read_until(b'\n', &mut line).context("cannot read standard input")?;
        if line.is_empty() {
            return Ok(());
        }
        ensure!(
            (line.len() as u64) < MOST_BYTES,
            "line {number} of standard input is longer than any message"
        );
        let line = String::from_utf8(line).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            anyhow::anyhow!("line {number} of standard input is not UTF-8 at byte {at}; convert it first")
        })?;
        let message = line.trim_start_matches('\u{feff}').trim();
        if message.is_empty() {
            note!("line {number} is empty and is passed over");
            continue;
        }
        answer(&mut session, message, json).with_context(|| format!("line {number} of standard input"))?;
    }
    Ok(())
}

fn answer(session: &mut Session, message: &str, json: bool) -> Result<()> {
    if json {
        let reply = session.say(message, &mut |_| true)?;
        note_news(session);
        return print_json(&to_json(&reply, session.seed()));
    }
    let mut out = std::io::stdout().lock();
    let mut failed = None;
    session.say(message, &mut |piece| {
        failed = out.write_all(piece.as_bytes()).and_then(|()| out.flush()).err();
        failed.is_none()
    })?;
    if let Some(error) = failed {
        return Err(anyhow::Error::from(error).context(STDOUT));
    }
    writeln!(out).and_then(|()| out.flush()).context(STDOUT)?;
    note_news(session);
    Ok(())
}

fn note_news(session: &mut Session) {
    session.news().iter().for_each(|news| note!("{}", printable(news)));
}

/// A reply as `gpt2 generate --json` tells of a text, with the answer as its text.
fn to_json(reply: &Reply, seed: u64) -> serde_json::Value {
    let mut value = generate::result_json(&reply.generation, seed);
    value["text"] = reply.turn.answer.as_str().into();
    value["finish_reason"] = reply.turn.finish.as_str().into();
    value["dropped_turns"] = reply.dropped.into();
    value["context_tokens"] = reply.context().into();
    value
}
