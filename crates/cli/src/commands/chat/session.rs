//! A conversation under way: what is said, taken back, kept and changed. It knows nothing of terminals.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use generate::Finish;
use generate::apps::chat::{Chat, Conversation, Reply, ReplySettings, Turn};
use generate::constraint::Constraint;
use models::Gpt2;
use tokenizer::Lang;
use tokenizer::chat::Kind;

use super::history::{Head, History, is_busy};
use super::persona;
use super::settings::Limits;
use super::{settings, slash, transcript};
use crate::input;

/// Conversations that `/history` lists.
const LISTED: usize = 20;
/// Earlier messages that the arrow keys reach.
const RECALLED: usize = 500;

/// A model, the conversation with it, and where that is kept.
pub struct Session<'a> {
    chat: Chat<'a, &'a Gpt2>,
    conversation: Conversation,
    settings: ReplySettings,
    /// What the chat was begun with, where `/set` has taken it off.
    constraint: Option<Arc<Constraint>>,
    model: String,
    persona: Option<String>,
    lang: Lang,
    history: Option<History>,
    /// A message that got no answer, for `/retry`.
    unanswered: Option<String>,
    /// How often the last message was answered before: another answer takes another seed.
    attempt: u64,
    last: Option<Reply>,
    /// Files that this session wrote, and may write over.
    saved: BTreeSet<PathBuf>,
    /// What is to be said once the reply stands there.
    news: Vec<String>,
}

/// How a session begins.
pub struct Opening {
    pub conversation: Conversation,
    pub settings: ReplySettings,
    /// The model, as it was typed.
    pub model: String,
    pub persona: Option<String>,
    pub lang: Lang,
    pub history: Option<History>,
}

/// Says that the chat goes on without being kept.
pub fn no_history(error: &anyhow::Error) -> String {
    format!("warning: this conversation is not kept: {error:#}")
}

impl<'a> Session<'a> {
    pub fn new(chat: Chat<'a, &'a Gpt2>, opening: Opening) -> Session<'a> {
        let Opening { conversation, settings, model, persona, lang, history } = opening;
        let session = Session {
            chat,
            conversation,
            constraint: settings.constraint.clone(),
            settings,
            model,
            persona,
            lang,
            history,
            unanswered: None,
            attempt: 0,
            last: None,
            saved: BTreeSet::new(),
            news: Vec::new(),
        };
        session.note_unknown();
        session
    }

    /// Says what of the system prompt the model cannot see.
    fn note_unknown(&self) {
        let system = self.conversation.system().unwrap_or_default();
        input::note_unknown(self.chat.tokenizer(), system, "the system prompt");
    }

    /// What is to be said about the reply that came, and the keeping of it; each is told once.
    pub fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    /// The seed of the last reply.
    pub fn seed(&self) -> u64 {
        self.settings.sampling.seed.wrapping_add(self.attempt)
    }

    /// Answers a message. A reply without a word makes no turn.
    pub fn say(&mut self, message: &str, on_text: &mut dyn FnMut(&str) -> bool) -> Result<Reply> {
        self.attempt = 0;
        self.answer(message, on_text)
    }

    /// Answers the last message again. Where nothing comes of it, the earlier answer stays.
    pub fn retry(&mut self, on_text: &mut dyn FnMut(&str) -> bool) -> Result<Reply> {
        self.attempt += 1;
        if let Some(message) = self.unanswered.clone() {
            return self.answer(&message, on_text);
        }
        let turn = self.conversation.turns_mut().pop().context("there is no message to answer again")?;
        let reply = self.answer(&turn.user, on_text);
        if !reply.as_ref().is_ok_and(|reply| !reply.turn.answer.is_empty()) {
            self.unanswered = None;
            self.conversation.turns_mut().push(turn);
        }
        reply
    }

    fn answer(&mut self, message: &str, on_text: &mut dyn FnMut(&str) -> bool) -> Result<Reply> {
        let mut settings = self.settings.clone();
        settings.sampling.seed = self.seed();
        input::note_unknown(self.chat.tokenizer(), message, "the message");
        let reply = self.chat.reply(&self.conversation, message, &settings, on_text)?;
        let before = self.last.as_ref().map_or(0, |last| last.dropped);
        if reply.dropped > before {
            let n_ctx = self.chat.model().config().n_ctx;
            let which = match reply.dropped {
                1 => "turn is".to_owned(),
                n => format!("{n} turns are"),
            };
            let stays = if self.conversation.system().is_some() { "; the system prompt stays" } else { "" };
            self.news
                .push(format!("[the context of {n_ctx} tokens is full: the oldest {which} left out{stays}]"));
        }
        self.last = Some(reply.clone());
        if reply.turn.answer.is_empty() {
            self.unanswered = Some(message.to_owned());
            return Ok(reply);
        }
        self.unanswered = None;
        let turns = self.conversation.turns_mut();
        if let Some(history) = &mut self.history {
            history.changed_from(turns.len());
        }
        turns.push(reply.turn.clone());
        self.record();
        Ok(reply)
    }

    /// Keeps what was said. Where that fails the chat goes on.
    fn record(&mut self) {
        let Some(history) = &mut self.history else { return };
        let settings = settings::to_json(&self.settings).to_string();
        let head = Head { model: &self.model, persona: self.persona.as_deref(), settings };
        match history.record(&head, &self.conversation) {
            Ok(()) => {}
            Err(error) if is_busy(&error) => {
                let held = "warning: another process holds the history; this turn is kept with the next one";
                self.news.push(held.into());
            }
            Err(error) => {
                self.news.push(no_history(&error));
                self.history = None;
            }
        }
    }

    /// What a command says; `width` is how many columns a line may have.
    pub fn command(&mut self, name: &str, forced: bool, rest: &str, width: usize) -> Result<String> {
        match name {
            "help" => Ok(help()),
            "system" => Ok(self.system(rest)),
            "persona" => self.persona(rest),
            "undo" => self.undo(width),
            "set" if rest.is_empty() => Ok(settings::list(&self.settings)),
            "set" => {
                let n_ctx = self.chat.model().config().n_ctx;
                let limits = Limits { n_ctx, constraint: self.constraint.as_ref() };
                settings::set(&mut self.settings, &limits, rest)?;
                self.attempt = 0;
                Ok(String::new())
            }
            "tokens" => Ok(self.tokens()),
            "save" => self.save(Path::new(rest), forced),
            "load" => self.load(Path::new(rest)),
            "history" if rest.is_empty() => self.list(width),
            "history" => self.reopen(rest),
            "show" => Ok(self.show()),
            "new" => {
                let system = self.conversation.system().map(str::to_owned);
                self.replace(Conversation::new(system), None);
                Ok("a new conversation".into())
            }
            "model" => Ok(self.describe()),
            _ => bail!("/{name} is not for here"),
        }
    }

    fn system(&mut self, text: &str) -> String {
        if !text.is_empty() {
            self.conversation.set_system((text != "none").then(|| text.to_owned()));
            self.persona = None;
            self.note_unknown();
        }
        self.conversation.system().unwrap_or("no system prompt").to_owned()
    }

    fn persona(&mut self, spec: &str) -> Result<String> {
        if spec.is_empty() {
            let line = |name: &String| {
                let told = persona::find(name, self.lang).map(|persona| persona.description);
                format!("{name:12} {}", told.unwrap_or_else(|error| format!("cannot be used: {error:#}")))
            };
            return Ok(persona::names().iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        let persona = persona::find(spec, self.lang)?;
        self.conversation.set_system(Some(persona.system));
        self.persona = Some(persona.name);
        self.note_unknown();
        Ok(self.conversation.system().unwrap_or_default().to_owned())
    }

    fn undo(&mut self, width: usize) -> Result<String> {
        let message = match self.unanswered.take() {
            Some(message) => message,
            None => {
                let turn = self.conversation.turns_mut().pop().context("there is nothing to take back")?;
                if let Some(history) = &mut self.history {
                    history.changed_from(self.conversation.turns().len());
                }
                self.record();
                turn.user
            }
        };
        self.last = None;
        Ok(fit(&format!("taken back: {message}"), width))
    }

    fn tokens(&self) -> String {
        let n_ctx = self.chat.model().config().n_ctx;
        let turns = self.conversation.turns().len();
        let Some(last) = &self.last else {
            return format!("{turns} turns; nothing was said since, the context holds {n_ctx} tokens");
        };
        let (used, timings) = (last.context(), last.generation.timings);
        format!(
            "context: {used} of {n_ctx} tokens ({:.0} %), {} are kept for a reply\nturns: {turns}, of which {} are left out\n\
             last reply: {} tokens, {:.1} tokens/s, first after {:.0} ms, seed {}",
            100.0 * used as f64 / n_ctx as f64,
            self.settings.max_tokens,
            last.dropped,
            timings.tokens,
            timings.tokens_per_second,
            timings.prompt_ms,
            self.seed()
        )
    }

    fn save(&mut self, path: &Path, forced: bool) -> Result<String> {
        ensure!(!self.conversation.turns().is_empty(), "nothing was said yet");
        let known = std::path::absolute(path)?;
        ensure!(
            forced || self.saved.contains(&known) || !path.exists(),
            "{} is there already; /save! {0} writes over it",
            path.display()
        );
        transcript::save(&self.conversation, path)?;
        self.saved.insert(known);
        Ok(format!("{} turns are in {}", self.conversation.turns().len(), path.display()))
    }

    fn load(&mut self, path: &Path) -> Result<String> {
        let (conversation, asked) = transcript::load(path)?;
        let turns = conversation.turns().len();
        let open = if asked.is_some() { ", and a message without an answer: /retry answers it" } else { "" };
        self.replace(conversation, asked);
        self.persona = None;
        Ok(format!("{turns} turns from {}{open}", path.display()))
    }

    /// Goes on from another conversation, which is kept as a new one.
    fn replace(&mut self, conversation: Conversation, unanswered: Option<String>) {
        self.conversation = conversation;
        (self.unanswered, self.last, self.attempt) = (unanswered, None, 0);
        if let Some(history) = &mut self.history {
            history.begin();
        }
    }

    fn history(&mut self) -> Result<&mut History> {
        self.history.as_mut().context("conversations are not kept")
    }

    fn list(&mut self, width: usize) -> Result<String> {
        let entries = self.history()?.list(LISTED)?;
        if entries.is_empty() {
            return Ok("no conversation is kept yet".into());
        }
        let line = |entry: &super::history::Entry| {
            let turns = if entry.turns == 1 { "turn" } else { "turns" };
            let first = entry.first.replace(['\n', '\t'], " ");
            fit(&format!("{:4}  {}  {} {turns}: {first}", entry.id, entry.updated, entry.turns), width)
        };
        Ok(entries.iter().map(line).collect::<Vec<_>>().join("\n") + "\n/history N reopens one")
    }

    fn reopen(&mut self, number: &str) -> Result<String> {
        let id =
            number.parse().ok().with_context(|| format!("/history {number}: give a number of the list"))?;
        let (conversation, model) = self.history()?.reopen(id)?;
        self.conversation = conversation;
        self.persona = None;
        (self.unanswered, self.last, self.attempt) = (None, None, 0);
        let other = if model == self.model { String::new() } else { format!("\n(it was held with {model})") };
        Ok(self.show() + &other)
    }

    /// The conversation as it would stand on the screen.
    fn show(&self) -> String {
        if self.conversation.turns().is_empty() {
            return "nothing was said yet".into();
        }
        let turn = |Turn { user, answer, finish }: &Turn| {
            let mark = if *finish == Finish::Cancelled { " [interrupted]" } else { "" };
            format!("> {user}\n{answer}{mark}")
        };
        self.conversation.turns().iter().map(turn).collect::<Vec<_>>().join("\n\n")
    }

    /// The model and how it is talked to.
    pub fn describe(&self) -> String {
        let model = self.chat.model();
        let kind = match self.chat.template().kind() {
            Kind::Own => "its own chat template",
            Kind::ChatMl => "ChatML",
            Kind::Plain => "the plain template",
        };
        let persona = self.persona.iter().map(|name| format!(", persona {name}")).collect::<String>();
        format!(
            "{}: {:.1} M parameters, context {}, {kind}{persona}",
            self.model,
            model.config().n_params() as f64 / 1e6,
            model.config().n_ctx
        )
    }

    /// What the user said in this conversation and in earlier ones, for the arrow keys.
    pub fn recall(&self) -> Vec<String> {
        self.history.as_ref().and_then(|history| history.messages(RECALLED).ok()).unwrap_or_default()
    }
}

fn help() -> String {
    let line =
        |slash: &slash::Slash| format!("{:24} {}", format!("/{} {}", slash.name, slash.args), slash.what);
    let keys = "Alt-Enter, or \\ before Enter: a new line · \"\"\" … \"\"\": several lines · // begins a message with /\n\
                Ctrl-C: interrupt a reply · Ctrl-D: leave · arrow keys, Ctrl-R: earlier messages · Tab: complete a command";
    slash::ALL.iter().map(line).collect::<Vec<_>>().join("\n") + "\n" + keys
}

/// The beginning of a line that has so many columns; a Chinese character takes two.
fn fit(text: &str, width: usize) -> String {
    use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};
    let text = text.replace('\n', " ");
    if text.width() <= width {
        return text;
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| {
        let columns = c.width().unwrap_or(0);
        let fits = columns <= left;
        left = left.saturating_sub(columns);
        fits
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_columns() {
        assert_eq!(fit("a\nbc", 4), "a bc");
        assert_eq!(fit("abcde", 4), "abc…");
        assert_eq!(fit("你好世界", 8), "你好世界");
        assert_eq!(fit("你好世界", 7), "你好世…");
        assert_eq!(fit("你好世界", 6), "你好…");
        assert_eq!(fit("你", 1), "…");
    }
}
