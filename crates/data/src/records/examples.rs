//! Records → tokens: rendered by the model's chat template, made to fit the context, without duplicates, and divided by
//! prompt into those to learn from and those to validate on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use tokenizer::chat::Message;
use tokenizer::sentences;

use super::roles::Role;
use super::{Conversation, Dropped, File, Reason, Record};
use crate::example::{Example, Pair};
use crate::mix;

/// Turns → tokens, and whether each token is one that the assistant says. An error is what the template says.
pub type Render<'a> = dyn Fn(&[Message]) -> Result<(Vec<u32>, Vec<bool>), String> + Sync + 'a;

/// How records become tokens.
pub struct Tokenize<'a> {
    /// The chat template.
    pub render: &'a Render<'a>,
    /// Most tokens of an example.
    pub max_length: usize,
    /// Whether a document that does not fit is cut at the end of a sentence; otherwise its example is left out.
    pub cut_long: bool,
    /// Whether all tokens are to be learnt, not only what the assistant says.
    pub train_on_all: bool,
    /// Threads to work with.
    pub threads: usize,
}

/// Examples or pairs, and what became of the others.
#[derive(Clone, Debug)]
pub struct Set<T> {
    /// In the order of the files.
    pub items: Vec<T>,
    /// A hash of each one's prompt: what begins alike is held out together.
    prompts: Vec<u64>,
    /// What was left out.
    pub dropped: Dropped,
    /// Conversations that lost their last turns, since they did not fit.
    pub shortened: usize,
    /// Examples whose document was cut.
    pub cut: usize,
}

/// The conversations of files as examples; preferences are passed over.
pub fn examples(files: &[File], how: &Tokenize) -> Set<Example> {
    collect(files, how.threads, |record| match record {
        Record::Conversation(conversation) => Some(example(conversation, how)),
        Record::Choice(_) => None,
    })
}

/// The preferences of files as pairs; conversations are passed over.
pub fn pairs(files: &[File], how: &Tokenize) -> Set<Pair> {
    collect(files, how.threads, |record| match record {
        Record::Choice(both) => Some(pair(both, how)),
        Record::Conversation(_) => None,
    })
}

impl<T> Set<T> {
    /// Divides the set: `fraction` of it, chosen by prompt and seed and not by place, is held out. At least one prompt
    /// stays on each side, if there are two and the fraction is not 0.
    pub fn split(self, fraction: f64, seed: u64) -> (Vec<T>, Vec<T>) {
        let mut sizes: BTreeMap<u64, usize> = BTreeMap::new();
        self.prompts.iter().for_each(|&prompt| *sizes.entry(prompt).or_default() += 1);
        let mut order: Vec<(u64, usize)> = sizes.into_iter().collect();
        order.sort_by_key(|&(prompt, _)| mix(seed, HOLD_OUT, prompt));
        order.pop(); // stays
        let wanted = (fraction * self.items.len() as f64).ceil() as usize;
        let mut n = 0;
        let chosen = order.iter().take_while(|(_, size)| {
            let more = n < wanted;
            n += size;
            more
        });
        let chosen: HashSet<u64> = chosen.map(|&(prompt, _)| prompt).collect();
        let (mut train, mut held) = (Vec::new(), Vec::new());
        for (item, prompt) in self.items.into_iter().zip(self.prompts) {
            if chosen.contains(&prompt) { held.push(item) } else { train.push(item) }
        }
        (train, held)
    }
}

/// Purposes of hashes.
const HOLD_OUT: u64 = 1;
const PROMPT: u64 = 2;

/// What a record came to: the item, the hash of its prompt, and what was taken from it.
type Made<T> = Result<(T, u64, Loss), Reason>;

/// What an example lost to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Nothing,
    Turns,
    Text,
}

/// Makes items on all threads, in order; those that are there twice are left out.
fn collect<T: PartialEq + Send>(
    files: &[File],
    threads: usize,
    make: impl Fn(&Record) -> Option<Made<T>> + Sync,
) -> Set<T> {
    let records: Vec<(&Path, &(u64, Record))> = files
        .iter()
        .flat_map(|file| file.records.iter().map(|record| (file.path.as_path(), record)))
        .collect();
    let mut set =
        Set { items: Vec::new(), prompts: Vec::new(), dropped: Dropped::default(), shortened: 0, cut: 0 };
    let mut seen: HashMap<u64, Vec<usize>> = HashMap::new();
    let made = in_order(&records, threads, |(_, (_, record))| make(record));
    for ((path, (line, _)), made) in records.iter().zip(made) {
        let Some(made) = made else { continue };
        let (item, prompt, loss) = match made {
            Ok(made) => made,
            Err(reason) => {
                set.dropped.add(reason, path, *line);
                continue;
            }
        };
        let alike = seen.entry(prompt).or_default();
        if alike.iter().any(|&i| set.items[i] == item) {
            set.dropped.add(Reason::Duplicate, path, *line);
            continue;
        }
        alike.push(set.items.len());
        set.shortened += usize::from(loss == Loss::Turns);
        set.cut += usize::from(loss == Loss::Text);
        set.items.push(item);
        set.prompts.push(prompt);
    }
    set
}

/// `work` on each, in the order of the list whatever the number of threads.
fn in_order<A: Sync, B: Send>(list: &[A], threads: usize, work: impl Fn(&A) -> B + Sync) -> Vec<B> {
    const PORTION: usize = 64;
    let next = AtomicUsize::new(0);
    let portions: Vec<&[A]> = list.chunks(PORTION).collect();
    let run = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(portion) = portions.get(i) else { return done };
            done.push((i, portion.iter().map(&work).collect::<Vec<B>>()));
        }
    };
    let mut done: Vec<(usize, Vec<B>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(run)).collect();
        let join = |worker: ScopedJoinHandle<_>| worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        workers.into_iter().flat_map(join).collect()
    });
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().flat_map(|(_, part)| part).collect()
}

/// A conversation that fits: its last turns go first, then, where that is allowed, the end of its document.
fn example(conversation: &Conversation, how: &Tokenize) -> Made<Example> {
    let prompt = prompt_of(&conversation.messages);
    let mut turns = conversation.messages.as_slice();
    let mut loss = Loss::Nothing;
    loop {
        let example = rendered(turns, how)?;
        if example.ids.len() <= how.max_length {
            return Ok((example, prompt, loss));
        }
        let Some(fewer) = without_last(turns) else { break };
        (turns, loss) = (fewer, Loss::Turns);
    }
    let example = cut(conversation, how)?.ok_or(Reason::TooLong)?;
    Ok((example, prompt, Loss::Text))
}

fn rendered(turns: &[Message], how: &Tokenize) -> Result<Example, Reason> {
    let (ids, mut is_answer) = (how.render)(turns).map_err(Reason::Template)?;
    if how.train_on_all {
        is_answer.fill(true);
    }
    // The first token has nothing before it.
    is_answer.iter_mut().take(1).for_each(|first| *first = false);
    if !is_answer.contains(&true) {
        return Err(Reason::NoAssistant);
    }
    Ok(Example { ids, is_answer })
}

/// The turns without the last answer and its question, as long as a question with its answer stays.
fn without_last(turns: &[Message]) -> Option<&[Message]> {
    let end = turns.iter().rposition(|turn| turn.role == Role::User.name())?;
    let is_whole = turns[..end]
        .windows(2)
        .any(|pair| pair[0].role == Role::User.name() && pair[1].role == Role::Assistant.name());
    is_whole.then_some(&turns[..end])
}

/// The conversation with as many sentences of its document as fit; `None` if not even one does.
fn cut(conversation: &Conversation, how: &Tokenize) -> Result<Option<Example>, Reason> {
    let Some(document) = conversation.document.as_ref().filter(|_| how.cut_long) else { return Ok(None) };
    let text = &conversation.messages[document.turn].content;
    let ends: Vec<usize> = sentences::ends(&text[document.range.clone()]).collect();
    let with = |sentences: usize| {
        let mut messages = conversation.messages.clone();
        let end = document.range.start + ends[sentences - 1];
        messages[document.turn].content = [&text[..end], &text[document.range.end..]].concat();
        rendered(&messages, how).map(|example| Some(example).filter(|one| one.ids.len() <= how.max_length))
    };
    // More sentences are more tokens: the most that fit are found by halving.
    let (mut fits, mut too_many, mut best) = (0, ends.len() + 1, None);
    while too_many - fits > 1 {
        let middle = fits.midpoint(too_many);
        match with(middle)? {
            Some(example) => (fits, best) = (middle, Some(example)),
            None => too_many = middle,
        }
    }
    Ok(best)
}

/// Two answers to a prompt. What they begin with alike is not part of the choice.
fn pair([chosen, rejected]: &[Vec<Message>; 2], how: &Tokenize) -> Made<Pair> {
    let answers_only = Tokenize { train_on_all: false, ..*how };
    let mut pair =
        Pair { chosen: rendered(chosen, &answers_only)?, rejected: rendered(rejected, &answers_only)? };
    if pair.chosen.ids.len().max(pair.rejected.ids.len()) > how.max_length {
        return Err(Reason::TooLong);
    }
    let same_turns = chosen.iter().zip(rejected).take_while(|(a, b)| a == b).count();
    // Of the turns that both have, all answers are in both; those that differ begin at the first answer after them.
    for (example, turns) in [(&mut pair.chosen, chosen), (&mut pair.rejected, rejected)] {
        let before = turns[..same_turns].iter().filter(|turn| turn.role == Role::Assistant.name()).count();
        forget_answers(&mut example.is_answer, before);
        if !example.is_answer.contains(&true) {
            return Err(Reason::SameAnswers);
        }
    }
    Ok((pair, prompt_of(chosen), Loss::Nothing))
}

/// Takes the first answers out of the mask.
fn forget_answers(is_answer: &mut [bool], answers: usize) {
    let mut rest = is_answer;
    for _ in 0..answers {
        let Some(start) = rest.iter().position(|&answer| answer) else { return };
        let len = rest[start..].iter().take_while(|&&answer| answer).count();
        rest[start..start + len].fill(false);
        rest = &mut rest[start + len..];
    }
}

/// A hash of what comes before the first answer, but for the system's words.
fn prompt_of(messages: &[Message]) -> u64 {
    let first = messages.iter().find(|message| message.role == Role::User.name());
    let bytes = first.map_or(&[][..], |message| message.content.as_bytes());
    let words = bytes.chunks(8).map(|chunk| chunk.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)));
    words.fold(bytes.len() as u64, |hash, word| mix(hash, PROMPT, word))
}
