//! From conversations to tokens: what is a prompt, what an answer, and what ends it.

use std::collections::HashMap;
use std::ops::Range;

use super::engine::Given;
use super::marks::Marked;
use super::{ChatTemplate, Message, TemplateError};
use crate::Tokenizer;
use crate::special::touch;

/// The role whose words are answers.
const ASSISTANT: &str = "assistant";
/// Answers before which the template is rendered whatever it wrote before others.
const TRIALS: usize = 8;
/// Messages that are rendered in all to find out where answers start.
const MOST_RENDERED: usize = 1 << 19;

impl ChatTemplate {
    /// The tokens of a conversation up to where the assistant is to speak.
    pub fn prompt(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, TemplateError> {
        let marked = self.marked(tokenizer, messages, true)?;
        // Earlier answers are cut as they were when they were given.
        let answers = match self.answers(tokenizer, messages, &marked) {
            (answers, None | Some(TemplateError::TooMany { .. })) => answers,
            (_, Some(_)) => Vec::new(),
        };
        Ok(tokenizer.encode_marked(&marked.text, &marked.protected, &answers)?.0)
    }

    /// The tokens of a whole conversation, and which of them the assistant says: its words, and the token that ends its
    /// turn. Up to each answer they are the tokens of [`ChatTemplate::prompt`].
    ///
    /// Answers are what the template marks with `{% generation %}`, or else what stands between the prompt and the first
    /// special token after the assistant's words. A template that ends turns with words instead of a token has those
    /// among the answer's, and after the last one comes the token that ends a text.
    pub fn conversation(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<(Vec<u32>, Vec<bool>), TemplateError> {
        let marked = self.marked(tokenizer, messages, false)?;
        let (answers, error) = self.answers(tokenizer, messages, &marked);
        error.map_or(Ok(()), Err)?;
        let last = answers.last().filter(|_| messages.last().is_some_and(|last| last.role == ASSISTANT));
        let unended = last
            .map(|last| last.end)
            .filter(|&end| marked.text[end..].trim().is_empty() && !is_ended(tokenizer, &marked, end));
        let text = &marked.text[..unended.unwrap_or(marked.text.len())];
        let (mut ids, mut is_answer) = tokenizer.encode_marked(text, &marked.protected, &answers)?;
        if unended.is_some() {
            ids.push(tokenizer.eot());
            is_answer.push(true);
        }
        Ok((ids, is_answer))
    }

    /// The tokens that end the assistant's turn: the one that the template writes after an answer, if it is one, and the one
    /// that ends a text.
    pub fn end_tokens(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let after = self.after_answer(&tokenizer.special_names()).unwrap_or_default();
        let end = end_token(tokenizer, &after).map(|(_, id)| id);
        let mut ids: Vec<u32> = end.into_iter().chain([tokenizer.eot()]).collect();
        ids.dedup();
        ids
    }

    /// The rendered conversation, with the names of this tokenizer's special tokens.
    fn marked(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Marked, TemplateError> {
        let is_name = |char: char| char.is_alphanumeric() || matches!(char, '_' | '-' | ' ' | '.');
        if let Some(at) = messages.iter().position(|message| !message.role.chars().all(is_name)) {
            return Err(TemplateError::Role { role: messages[at].role.clone(), number: at + 1 });
        }
        let names = tokenizer.special_names();
        let special: Vec<&str> = tokenizer.special_tokens().map(|(name, _)| name).collect();
        let given = Given { tokens: &names, add_generation_prompt, marks: None };
        self.jinja.render_marked(messages, &given, &self.source, &special)
    }

    /// Where the answers stand, with what ends them; where that cannot be told of all, of the first ones, and why.
    fn answers(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        marked: &Marked,
    ) -> (Vec<Range<usize>>, Option<TemplateError>) {
        if marked.generation.is_empty() {
            return self.find_answers(tokenizer, messages, marked);
        }
        (
            marked.generation.iter().map(|range| self.with_end(tokenizer, marked, range.clone())).collect(),
            None,
        )
    }

    /// Where the answers of a template stand that does not mark them: each starts where the prompt for it ends. What the template
    /// writes between a message and the answer to it is seen in the first of them; where the same stands before another one,
    /// its prompt need not be rendered, which for a long conversation would take a time with the square of its length.
    fn find_answers(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        marked: &Marked,
    ) -> (Vec<Range<usize>>, Option<TemplateError>) {
        let names = tokenizer.special_names();
        let mut rendered = 0;
        let mut render = |messages: &[Message], add_generation_prompt| {
            rendered += messages.len();
            if rendered > MOST_RENDERED {
                return Err(TemplateError::TooMany { messages: messages.len() });
            }
            self.jinja.render(messages, &Given { tokens: &names, add_generation_prompt, marks: None })
        };
        let mut places: Vec<Vec<&Range<usize>>> = vec![Vec::new(); messages.len()];
        marked.contents.iter().for_each(|(index, range)| places[*index].push(range));
        let mut leads: HashMap<&str, &str> = HashMap::new();
        let mut answer = |at: usize, before: &[Range<usize>]| -> Result<Range<usize>, TemplateError> {
            let (message, number) = (&messages[at], at + 1);
            let done = before.last().map_or(0, |last| last.end);
            let words = places[at].iter().find(|range| range.start >= done).map(|&range| range.clone());
            let start = if at > 0 {
                let role = messages[at - 1].role.as_str();
                let question =
                    places[at - 1].iter().rfind(|range| range.start >= done).map(|range| range.end);
                // White space alone may be the message's as well.
                let lead = leads.get(role).filter(|lead| before.len() >= TRIALS && !lead.trim().is_empty());
                let known = question.zip(lead).filter(|&(end, lead)| marked.text[end..].starts_with(lead));
                match known {
                    Some((end, lead)) => Some(end + lead.len()),
                    None => {
                        let prompt = render(&messages[..at], true)?;
                        let start = marked.text.starts_with(&prompt).then_some(prompt.len());
                        let lead = question.zip(start).and_then(|(end, start)| marked.text.get(end..start));
                        lead.and_then(|lead| leads.insert(role, lead));
                        start
                    }
                }
            } else {
                words.as_ref().map(|words| self.start_of_first(&render(messages, true), marked, words.start))
            };
            let start = start.filter(|&start| start >= done).ok_or(TemplateError::Prefix { number })?;
            let end = match words {
                Some(words) if words.start < start => return Err(TemplateError::Prefix { number }),
                Some(words) => words.end,
                None if message.content.trim().is_empty() => start,
                // The template changes what is said; the conversation up to here ends with it.
                None => {
                    let until = render(&messages[..number], false)?;
                    let end = until.trim_end().len();
                    let is_whole = end >= start && marked.text.starts_with(&until[..end]);
                    is_whole.then_some(end).ok_or(TemplateError::Answer { number })?
                }
            };
            Ok(self.with_end(tokenizer, marked, start..end))
        };
        let mut answers: Vec<Range<usize>> = Vec::new();
        for (at, _) in messages.iter().enumerate().filter(|(_, message)| message.role == ASSISTANT) {
            match answer(at, &answers) {
                Ok(range) => answers.push(range),
                Err(error) => return (answers, Some(error)),
            }
        }
        (answers, None)
    }

    /// Where the answer starts that a conversation begins with: after the prompt for one, if that stands before it.
    fn start_of_first(&self, whole: &Result<String, TemplateError>, marked: &Marked, words: usize) -> usize {
        let prompt = whole.as_ref().ok().and_then(|whole| whole.strip_prefix(&marked.text));
        let before = marked.text[..words].trim_end();
        match prompt.map(str::trim_end).filter(|prompt| !prompt.is_empty() && before.ends_with(prompt)) {
            // White space of the prompt is the prompt's, the rest the answer's.
            Some(_) => {
                let space = prompt.map_or(0, |prompt| prompt.len() - prompt.trim_end().len());
                (before.len() + space).min(words)
            }
            None => words,
        }
    }

    /// An answer with what ends it.
    fn with_end(&self, tokenizer: &Tokenizer, marked: &Marked, answer: Range<usize>) -> Range<usize> {
        if is_ended(tokenizer, marked, answer.end) {
            return answer;
        }
        let next = marked.contents.partition_point(|(_, range)| range.start < answer.end);
        let next = marked.contents.get(next).map_or(marked.text.len(), |(_, range)| range.start);
        let after = &marked.text[answer.end..next];
        if let Some((len, _)) = end_token(tokenizer, after) {
            return answer.start..answer.end + len;
        }
        let stop = self.stop.iter().find_map(|stop| {
            let at = after.find(stop.as_str())?;
            after[..at].trim().is_empty().then_some(at + stop.len())
        });
        answer.start..answer.end + stop.unwrap_or(0)
    }

    /// What stands between an answer and what the user says then, by trial.
    fn after_answer(&self, names: &[(String, String)]) -> Option<String> {
        let [system, user, answer] = ["system", "user", ASSISTANT].map(|role| Message::new(role, "x"));
        let trials =
            [vec![&user, &answer, &user], vec![&system, &user, &answer, &user], vec![&user, &answer]];
        trials.into_iter().find_map(|trial| {
            let trial: Vec<Message> = trial.into_iter().cloned().collect();
            let given = Given { tokens: names, add_generation_prompt: false, marks: None };
            let marked = self.jinja.render_marked(&trial, &given, &self.source, &[]).ok()?;
            let place = |at: usize| marked.contents.iter().find(|(index, _)| *index == at);
            let at = trial.iter().position(|message| message.role == ASSISTANT)?;
            let (_, answer) = place(at)?;
            let end = place(at + 1).map_or(marked.text.len(), |(_, next)| next.start);
            marked.text.get(answer.end..end).map(str::to_owned)
        })
    }

    /// The first line of what stands after an answer, without the token that ends a text: up to the first `>` where it starts
    /// as a token does.
    pub(super) fn find_stop_strings(&self) -> Vec<String> {
        let Some(mut after) = self.after_answer(&self.names) else { return Vec::new() };
        for (_, name) in
            self.names.iter().filter(|(role, _)| ["bos_token", "eos_token"].contains(&role.as_str()))
        {
            if !name.is_empty() {
                after = after.replace(name.as_str(), "");
            }
        }
        let line = after.trim_start();
        let has_break = after[..after.len() - line.len()].contains('\n');
        let line = line.lines().next().unwrap_or_default().trim_end();
        let line = match line.find('>') {
            Some(end) if line.starts_with('<') => &line[..=end],
            _ => line,
        };
        let is_token = line.starts_with('<') && line.ends_with('>');
        let line = if has_break && !is_token { format!("\n{line}") } else { line.to_owned() };
        if line.trim().is_empty() { Vec::new() } else { vec![line] }
    }
}

/// Whether the template wrote a token that ends a turn before this place.
fn is_ended(tokenizer: &Tokenizer, marked: &Marked, end: usize) -> bool {
    let text = marked.text[..end].trim_end();
    let last = text.len().checked_sub(1);
    let is_said = last.is_some_and(|last| touch(&marked.protected, &(last..last + 1)));
    !is_said
        && end_names(tokenizer)
            .any(|(name, _)| !name.trim_end().is_empty() && text.ends_with(name.trim_end()))
}

/// Tokens that can end a turn: special ones, and the one that ends a text.
fn end_names(tokenizer: &Tokenizer) -> impl Iterator<Item = (&str, u32)> {
    let eot = std::str::from_utf8(tokenizer.token_bytes(tokenizer.eot()).unwrap_or_default());
    let eot = eot.ok().filter(|name| !name.is_empty()).map(|name| (name, tokenizer.eot()));
    tokenizer.special_tokens().chain(eot)
}

/// The token that a text starts with but for white space: where it ends, and its id.
fn end_token(tokenizer: &Tokenizer, text: &str) -> Option<(usize, u32)> {
    let space = text.len() - text.trim_start().len();
    [0, space].into_iter().find_map(|at| {
        let found = end_names(tokenizer).filter(|(name, _)| text[at..].starts_with(name));
        found.max_by_key(|(name, _)| name.len()).map(|(name, id)| (at + name.len(), id))
    })
}
