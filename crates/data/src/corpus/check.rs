//! Judges stories that a model wrote: does it keep to its names, does it end, and is it new?
//!
//! Names and endings are those of the grammar, so a [`Checker`] only understands stories of its kind.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use tokenizer::Lang;

use super::grammar::{Grammar, Part, parse};
use super::grammar_of;

/// Passages are searched by pieces of this many bytes; shorter ones are not reported.
const GRAM: usize = 16;

/// What is true of one story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Every name is introduced where it first occurs, and the hero's comes back.
    pub names_kept: bool,
    /// The story was finished by its writer, with an ending of the grammar.
    pub ends_properly: bool,
    /// The whole story stands in the corpus.
    pub in_corpus: bool,
    /// The longest passage that also stands in the corpus; empty if none is longer than a few words.
    pub longest_shared: String,
}

/// What is true of a set of stories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many were judged.
    pub stories: usize,
    /// How many keep to their names and end properly.
    pub good: usize,
    /// How many keep to their names.
    pub names_kept: usize,
    /// How many end properly.
    pub ends_properly: usize,
    /// How many stand in the corpus as they are.
    pub in_corpus: usize,
    /// The longest passage that any of them shares with the corpus.
    pub longest_shared: String,
}

/// Knows the names, the endings and the corpus of one language.
pub struct Checker {
    grammar: &'static Grammar,
    endings: Vec<String>,
    /// All stories; a zero byte ends each.
    corpus: Vec<u8>,
    /// The capitalised words of the corpus.
    capitalised: HashSet<String>,
}

impl Checker {
    /// A checker for models that learned from this corpus.
    pub fn new(lang: Lang, corpus: impl Iterator<Item = String>) -> Checker {
        let grammar = grammar_of(lang);
        let (open, close) = grammar.quotes;
        let endings = grammar.endings.iter().map(|ending| ending.replace('“', open).replace('”', close));
        let (mut text, mut capitalised) = (Vec::new(), HashSet::new());
        for story in corpus {
            for word in capitals(&story) {
                if !capitalised.contains(word) {
                    capitalised.insert(word.to_owned());
                }
            }
            text.extend_from_slice(story.as_bytes());
            text.push(0);
        }
        Checker { grammar, endings: endings.collect(), corpus: text, capitalised }
    }

    /// Judges one story; `finished` says that the model ended it, rather than being cut off.
    pub fn check(&self, story: &str, finished: bool) -> Verdict {
        let story = story.trim();
        let longest_shared = self.longest_shared(story);
        Verdict {
            names_kept: self.names_kept(story),
            ends_properly: finished && self.has_ending(story),
            in_corpus: !story.is_empty() && self.stands_alone(story, longest_shared),
            longest_shared: longest_shared.to_owned(),
        }
    }

    /// Judges all of them: pairs of a story and whether it was finished.
    pub fn report<'s>(&self, samples: impl IntoIterator<Item = (&'s str, bool)>) -> Summary {
        let mut summary = Summary::default();
        for (story, finished) in samples {
            let verdict = self.check(story, finished);
            summary.stories += 1;
            summary.good += usize::from(verdict.names_kept && verdict.ends_properly);
            summary.names_kept += usize::from(verdict.names_kept);
            summary.ends_properly += usize::from(verdict.ends_properly);
            summary.in_corpus += usize::from(verdict.in_corpus);
            if verdict.longest_shared.chars().count() > summary.longest_shared.chars().count() {
                summary.longest_shared = verdict.longest_shared;
            }
        }
        summary
    }

    fn names_kept(&self, story: &str) -> bool {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for (at, name) in self.names_in(story) {
            match counts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None if self.is_introduced(story, at, name) => counts.push((name, 1)),
                None => return false,
            }
        }
        let hero_returns = counts.first().is_some_and(|&(_, count)| count > 1);
        hero_returns && !self.has_unknown_name(story)
    }

    /// The grammar's names in the story, each with its place.
    fn names_in<'s>(&self, story: &'s str) -> Vec<(usize, &'s str)> {
        let mut found = Vec::new();
        let mut end = 0;
        for (at, _) in story.char_indices() {
            let name = self.grammar.names().find(|name| at >= end && starts_with_word(&story[at..], name));
            if let Some(name) = name.filter(|_| !story[..at].ends_with(|c: char| c.is_ascii_alphabetic())) {
                end = at + name.len();
                found.push((at, &story[at..end]));
            }
        }
        found
    }

    fn is_introduced(&self, story: &str, at: usize, name: &str) -> bool {
        let (before, after) = (&story[..at], &story[at + name.len()..]);
        self.grammar.introduced_after.iter().any(|words| before.ends_with(words))
            || self.grammar.introduced_before.iter().any(|words| after.starts_with(words))
    }

    /// A name that the grammar does not have: introduced as one, or a capitalised word that the corpus lacks.
    fn has_unknown_name(&self, story: &str) -> bool {
        let introduced = self
            .grammar
            .introduced_after
            .iter()
            .flat_map(|words| story.match_indices(words).map(|(at, words)| &story[at + words.len()..]));
        let is_name = |text: &str| self.grammar.names().any(|name| starts_with_word(text, name));
        introduced.into_iter().any(|text| !is_name(text))
            || capitals(story).any(|word| !self.capitalised.contains(word))
    }

    /// Whether the last words, from the beginning of a sentence, are an ending of the grammar.
    fn has_ending(&self, story: &str) -> bool {
        let paragraph = story.rsplit('\n').next().unwrap_or_default();
        let begins = |at: usize| {
            let before = paragraph[..at].chars().next_back();
            before.is_none_or(|c| c == ' ' || "。！？”".contains(c))
        };
        let starts = paragraph.char_indices().map(|(at, _)| at).filter(|&at| begins(at));
        let sentences: Vec<_> = starts.map(|at| &paragraph[at..]).collect();
        self.endings.iter().any(|ending| {
            let ending = parse(ending);
            sentences.iter().any(|sentence| matches(&ending, sentence))
        })
    }

    /// Whether a passage of the story is all of it, and stands in the corpus as a story.
    fn stands_alone(&self, story: &str, passage: &str) -> bool {
        passage.len() == story.len() && {
            let ended = [story.as_bytes(), &[0]].concat();
            self.corpus.split_inclusive(|&byte| byte == 0).any(|told| told == ended)
        }
    }

    /// The longest passage of `story` in the corpus.
    ///
    /// A passage longer than the best so far (of n bytes) has n + 2 - [`GRAM`] pieces of [`GRAM`] bytes in a row, so only
    /// one piece of the corpus in that many is looked up, and the better the best, the longer the steps.
    fn longest_shared<'s>(&self, story: &'s str) -> &'s str {
        let mut pieces: HashMap<&[u8], Vec<usize>> = HashMap::new();
        let mut maybe = vec![false; 1 << 16];
        for (at, piece) in story.as_bytes().windows(GRAM).enumerate() {
            pieces.entry(piece).or_default().push(at);
            maybe[slot(piece)] = true;
        }
        let (mut best, mut at) = (0..0, 0);
        while let Some(piece) = self.corpus.get(at..at + GRAM) {
            if maybe[slot(piece)] {
                for &start in pieces.get(piece).into_iter().flatten() {
                    let shared = extend(story, start, &self.corpus, at);
                    if shared.len() > best.len() {
                        best = shared;
                    }
                }
            }
            at += (best.len() + 2).saturating_sub(GRAM).max(1);
        }
        &story[best]
    }
}

/// A small hash of a piece, for a table that mostly says no.
fn slot(piece: &[u8]) -> usize {
    let (head, tail) = piece.split_at(GRAM / 2);
    let word = |bytes: &[u8]| bytes.iter().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
    let mixed = (word(head) ^ word(tail).rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 48) as usize
}

/// How far story and corpus agree around two equal pieces, in whole characters: a range of the story.
fn extend(story: &str, start: usize, corpus: &[u8], at: usize) -> Range<usize> {
    let bytes = story.as_bytes();
    let after = bytes[start..].iter().zip(&corpus[at..]).take_while(|(a, b)| a == b).count();
    let before =
        bytes[..start].iter().rev().zip(corpus[..at].iter().rev()).take_while(|(a, b)| a == b).count();
    let (mut first, mut last) = (start - before, start + after);
    while !story.is_char_boundary(first) {
        first += 1;
    }
    while !story.is_char_boundary(last) {
        last -= 1;
    }
    first..last
}

/// Whether a text begins with a name, and not with a longer word.
fn starts_with_word(text: &str, name: &str) -> bool {
    text.strip_prefix(name).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// The words that begin with a capital letter.
fn capitals(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphabetic());
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Whether a template could have written exactly this text. A slot stands for any words of one sentence.
fn matches(parts: &[Part], text: &str) -> bool {
    let Some((first, rest)) = parts.split_first() else {
        return text.is_empty();
    };
    match first {
        Part::Text(words) => text.strip_prefix(words).is_some_and(|text| matches(rest, text)),
        Part::Slot(_) => {
            let inside = text.char_indices().take_while(|(_, c)| !".!?。！？“”\"".contains(*c));
            inside.map(|(at, c)| at + c.len_utf8()).any(|end| matches(rest, &text[end..]))
        }
        Part::Choice(alternatives) => alternatives.iter().any(|one| {
            let parts: Vec<_> = parse(one).into_iter().chain(rest.iter().cloned()).collect();
            matches(&parts, text)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Split, corpus, stories};

    const LANGS: [Lang; 2] = [Lang::En, Lang::Zh];

    fn checker(lang: Lang) -> Checker {
        Checker::new(lang, corpus(lang, Split::Train, 1, 1_000_000))
    }

    #[test]
    fn the_grammars_own_stories_pass() {
        for lang in LANGS {
            let checker = checker(lang);
            for (split, seed) in [(Split::Train, 2), (Split::Train, 3), (Split::Val, 1), (Split::Val, 9)] {
                let stories: Vec<_> = stories(lang, split, seed).take(500).collect();
                for story in &stories {
                    assert!(checker.names_kept(story), "names are not kept in: {story}");
                    assert!(checker.has_ending(story), "no ending in: {story}");
                }
                let summary = checker.report(stories.iter().take(50).map(|story| (story.as_str(), true)));
                assert_eq!((summary.stories, summary.good, summary.in_corpus), (50, 50, 0));
                assert!(summary.longest_shared.chars().count() > 20);
            }
        }
    }

    #[test]
    fn a_name_that_nobody_introduced_fails() {
        for (lang, strangers) in [(Lang::En, ["Otto", "Zork"]), (Lang::Zh, ["阿福", "墨墨"])] {
            let checker = checker(lang);
            for story in stories(lang, Split::Val, 4).take(200) {
                let names = checker.names_in(&story);
                let (last, name) = *names.last().unwrap();
                if checker.is_introduced(&story, last, name) {
                    continue;
                }
                for stranger in strangers.into_iter().filter(|s| names.iter().all(|(_, name)| name != s)) {
                    let mut swapped = story.clone();
                    swapped.replace_range(last..last + name.len(), stranger);
                    assert!(!checker.check(&swapped, true).names_kept, "{swapped}");
                }
            }
        }
    }

    #[test]
    fn a_name_that_the_grammar_lacks_fails_even_if_introduced() {
        for (lang, stranger) in [(Lang::En, "Zork"), (Lang::Zh, "小强")] {
            let checker = checker(lang);
            let named =
                |story: &String| checker.grammar.introduced_after.iter().any(|words| story.contains(words));
            for story in stories(lang, Split::Val, 4).filter(named).take(50) {
                let introduced = checker.names_in(&story).into_iter().find(|(at, _)| {
                    checker.grammar.introduced_after.iter().any(|words| story[..*at].ends_with(words))
                });
                let swapped = story.replace(introduced.unwrap().1, stranger);
                assert!(!checker.check(&swapped, true).names_kept, "{swapped}");
            }
        }
    }

    #[test]
    fn a_hero_who_does_not_come_back_fails() {
        let checker = checker(Lang::En);
        assert!(
            !checker
                .check("Once upon a time, a fox named Pip lived by the sea. It was warm.", true)
                .names_kept
        );
        assert!(!checker.check("It was warm by the sea.", true).names_kept);
        assert!(!checker.check("", true).names_kept);
    }

    #[test]
    fn a_story_that_stops_in_the_middle_fails() {
        for lang in LANGS {
            let checker = checker(lang);
            for story in stories(lang, Split::Val, 5).take(200) {
                let middle = story.char_indices().map(|(at, _)| at).nth(story.chars().count() / 2).unwrap();
                assert!(!checker.check(&story[..middle], true).ends_properly, "{}", &story[..middle]);
                assert!(!checker.check(&story, false).ends_properly, "not finished, but: {story}");
            }
        }
    }

    #[test]
    fn a_copied_story_is_found() {
        for lang in LANGS {
            let checker = checker(lang);
            for story in corpus(lang, Split::Train, 1, 1_000_000).skip(700).take(5) {
                let verdict = checker.check(&format!("{story}\n"), true);
                assert!(verdict.in_corpus);
                assert_eq!(verdict.longest_shared, story);
                let half = story.lines().next().unwrap();
                let verdict = checker.check(half, true);
                assert!(!verdict.in_corpus, "only a part of a story, but: {half}");
                assert_eq!(verdict.longest_shared, half);
            }
        }
    }

    /// The longest common substring by dynamic programming over bytes, in whole characters.
    fn slow_longest(story: &str, corpus: &[u8]) -> usize {
        let (mut row, mut best) = (vec![0; story.len() + 1], 0);
        for (at, &byte) in corpus.iter().enumerate() {
            for i in (0..story.len()).rev() {
                row[i + 1] = if story.as_bytes()[i] == byte { row[i] + 1 } else { 0 };
                if row[i + 1] >= GRAM {
                    best = best.max(extend(story, i, corpus, at).len());
                }
            }
        }
        best
    }

    #[test]
    fn the_longest_passage_is_the_one_that_a_slow_search_finds() {
        for lang in LANGS {
            let checker = Checker::new(lang, corpus(lang, Split::Train, 1, 40_000));
            for story in stories(lang, Split::Val, 6).take(10) {
                let found = checker.longest_shared(&story);
                assert_eq!(found.len(), slow_longest(&story, &checker.corpus), "{found}");
                assert!(checker.corpus.windows(found.len()).any(|window| window == found.as_bytes()));
            }
            assert_eq!(checker.longest_shared("xyzzy"), "");
            assert_eq!(checker.longest_shared(&"xyzzy ".repeat(20)), "");
        }
    }
}
