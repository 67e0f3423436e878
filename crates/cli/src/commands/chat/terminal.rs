//! A conversation in a terminal: lines are edited, replies stream, Ctrl-C interrupts them.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use generate::Finish;
use generate::apps::chat::Reply;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Config, Editor, Event, EventContext, EventHandler, Helper,
    KeyCode, KeyEvent, Modifiers, RepeatCount,
};

use super::session::Session;
use super::slash::{self, Line};
use super::wrap::Wrap;
use super::{persona, settings};
use crate::output::{STDOUT, note, printable};

/// Follows a backslash that continues the line, where it is typed, and is not seen (a combining character without width).
/// So backslashes at the end of a pasted line stay.
const CONTINUES: &str = "\u{34f}";
/// Begins and ends a message of several lines.
const QUOTES: &str = "\"\"\"";

pub fn run(mut session: Session) -> Result<()> {
    let style = Style::of_terminal();
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, interrupted.clone())?;
    let was_empty = Arc::new(AtomicBool::new(true));
    let mut editor = editor(was_empty.clone()).context("cannot use the terminal")?;
    for message in session.recall() {
        editor.add_history_entry(message)?;
    }
    let about = session.describe() + "\n/help lists the commands, Ctrl-D leaves";
    style.remark(&about, width(&mut editor));
    let prompt = (String::from("> "), style.bold("> "));
    loop {
        let typed = match editor.readline(&prompt) {
            Ok(typed) => typed.replace(&format!("\\{CONTINUES}\n"), "\n"),
            Err(ReadlineError::Interrupted) => {
                if was_empty.load(Ordering::Relaxed) {
                    style.remark("/quit or Ctrl-D leaves", width(&mut editor));
                }
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("cannot read from the terminal"),
        };
        if typed.trim().is_empty() {
            continue;
        }
        editor.add_history_entry(typed.as_str())?;
        let width = width(&mut editor);
        let line = match quoted(&typed) {
            Some(message) => Ok(Line::Message(message)),
            None => slash::parse(&typed),
        };
        let mut speak = |message| {
            interrupted.store(false, Ordering::Relaxed);
            stream(&mut session, message, &interrupted, width).map(|reply| remark(&reply))
        };
        let done = match line {
            Ok(Line::Command("quit", ..)) => return Ok(()),
            Ok(Line::Command("retry", ..)) => speak(None),
            Ok(Line::Message(message)) => speak(Some(message)),
            Ok(Line::Command(name, forced, rest)) => session.command(name, forced, rest, width),
            Err(error) => Err(error),
        };
        session.news().iter().for_each(|news| style.remark(news, width));
        match done {
            Ok(text) if text.is_empty() => {}
            Ok(text) => style.remark(&text, width),
            Err(error) if crate::output::is_broken_pipe(&error) => return Err(error),
            Err(error) => style.remark(&format!("{error:#}"), width),
        }
    }
}

/// Shows the reply to a message, or another one to the last message, as it is written, until it ends or Ctrl-C comes.
fn stream(
    session: &mut Session,
    message: Option<&str>,
    interrupted: &AtomicBool,
    width: usize,
) -> Result<Reply> {
    let _quiet = Quiet::begin();
    let (mut out, mut wrap) = (std::io::stdout().lock(), Wrap::new(width));
    let (mut failed, mut began) = (None, false);
    let on_text = &mut |piece: &str| {
        if !piece.is_empty() {
            began = true;
            let text = wrap.push(&printable(piece));
            failed = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
        }
        failed.is_none() && !interrupted.load(Ordering::Relaxed)
    };
    let reply = match message {
        Some(message) => session.say(message, on_text),
        None => session.retry(on_text),
    };
    let (rest, end) = (wrap.finish(), if began { "\n" } else { "" });
    let written = write!(out, "{rest}{end}").and_then(|()| out.flush());
    if let Some(error) = failed.or(written.err()) {
        return Err(anyhow::Error::from(error).context(STDOUT));
    }
    reply
}

/// What is to be said about a reply's end, if anything.
fn remark(reply: &Reply) -> String {
    let is_empty = reply.turn.answer.is_empty();
    match reply.turn.finish {
        Finish::Cancelled if is_empty => "[interrupted before a word; your message is not kept]".into(),
        _ if is_empty => "[no word came; your message is not kept: /retry, or say it in other words]".into(),
        Finish::Cancelled => "[interrupted; the part that was said stays]".into(),
        Finish::Length => "[the longest reply; /set max_tokens N allows longer ones]".into(),
        Finish::Context => "[the context is full]".into(),
        Finish::Eot | Finish::Stop => String::new(),
    }
}

/// The message between quotes of its own.
fn quoted(typed: &str) -> Option<&str> {
    let inner = typed.trim().strip_prefix(QUOTES)?.strip_suffix(QUOTES)?;
    Some(inner.trim_matches('\n')).filter(|inner| !inner.trim().is_empty())
}

/// The editor of a line. Pasted text stays one message, whatever lines it has.
fn editor(was_empty: Arc<AtomicBool>) -> rustyline::Result<Editor<Help, MemHistory>> {
    let config = Config::builder().completion_type(CompletionType::List).max_history_size(1000)?.build();
    let history = MemHistory::with_config(&config);
    let mut editor = Editor::with_history(config, history)?;
    editor.set_helper(Some(Help { files: FilenameCompleter::new() }));
    editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
    editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::NONE), conditional(Backslash));
    editor.bind_sequence(KeyEvent::ctrl('c'), conditional(Empty(was_empty)));
    Ok(editor)
}

fn conditional(handler: impl ConditionalEventHandler + 'static) -> EventHandler {
    EventHandler::Conditional(Box::new(handler))
}

/// Enter after a backslash: the line goes on.
struct Backslash;

impl ConditionalEventHandler for Backslash {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, ctx: &EventContext) -> Option<Cmd> {
        let continues = ctx.line()[..ctx.pos()].ends_with('\\');
        continues.then(|| Cmd::Insert(1, format!("{CONTINUES}\n")))
    }
}

/// Ctrl-C: remembers whether there was anything on the line.
struct Empty(Arc<AtomicBool>);

impl ConditionalEventHandler for Empty {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, ctx: &EventContext) -> Option<Cmd> {
        self.0.store(ctx.line().is_empty(), Ordering::Relaxed);
        None
    }
}

/// Completes commands and what follows them, and tells whether a message is whole.
struct Help {
    files: FilenameCompleter,
}

impl Helper for Help {}
impl Hinter for Help {
    type Hint = String;
}
impl Highlighter for Help {}

impl Validator for Help {
    fn validate(&self, ctx: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        let typed = ctx.input().trim();
        let is_open = typed.strip_prefix(QUOTES).is_some_and(|rest| !rest.ends_with(QUOTES));
        Ok(if is_open { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Completer for Help {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..pos];
        let Some(command) = typed.strip_prefix('/') else { return Ok((pos, Vec::new())) };
        let among = |names: &[String], beginning: &str| {
            let found = names.iter().filter(|name| name.starts_with(beginning));
            found.map(|name| Pair { display: name.trim().into(), replacement: name.clone() }).collect()
        };
        let names =
            |names: &mut dyn Iterator<Item = &str>| names.map(|n| format!("{n} ")).collect::<Vec<_>>();
        match command.split_once(' ') {
            None => {
                let all = slash::ALL.iter().map(|slash| {
                    let space = if slash.args.is_empty() { "" } else { " " };
                    format!("{}{space}", slash.name)
                });
                Ok((1, among(&all.collect::<Vec<_>>(), command)))
            }
            Some(("save" | "save!" | "load", _)) => self.files.complete_path(line, pos),
            Some(("set", rest)) => {
                Ok((pos - rest.len(), among(&names(&mut settings::NAMES.into_iter()), rest)))
            }
            Some(("persona", rest)) => Ok((pos - rest.len(), among(&persona::names(), rest))),
            Some(_) => Ok((pos, Vec::new())),
        }
    }
}

/// The columns of the terminal.
fn width(editor: &mut Editor<Help, MemHistory>) -> usize {
    editor.dimensions().map_or(80, |(columns, _)| usize::from(columns))
}

/// How the terminal tells our words from the model's.
struct Style {
    has_colors: bool,
}

impl Style {
    fn of_terminal() -> Style {
        let asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Style { has_colors: !asked_not_to && !is_dumb && std::io::stderr().is_terminal() }
    }

    /// Says something that the model did not say.
    fn remark(&self, text: &str, width: usize) {
        let text = Wrap::whole(&printable(text), width);
        if self.has_colors { note!("\x1b[2m{text}\x1b[0m") } else { note!("{text}") }
    }

    fn bold(&self, text: &str) -> String {
        if self.has_colors { format!("\x1b[1;32m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// While this lives, keys that are pressed do not show up within the reply; they wait for the next line.
struct Quiet {
    #[cfg(unix)]
    before: Option<nix::sys::termios::Termios>,
}

#[cfg(unix)]
impl Quiet {
    fn begin() -> Quiet {
        use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(before) = &before {
            let mut quiet = before.clone();
            quiet.local_flags.remove(LocalFlags::ECHO);
            _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &quiet);
        }
        Quiet { before }
    }
}

#[cfg(unix)]
impl Drop for Quiet {
    fn drop(&mut self) {
        use nix::sys::termios::{SetArg, tcsetattr};
        if let Some(before) = &self.before {
            _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

#[cfg(not(unix))]
impl Quiet {
    fn begin() -> Quiet {
        Quiet {}
    }
}
