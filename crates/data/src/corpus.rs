//! The built-in stories: English and Chinese ones for children, made by a grammar of our own, so that the first model
//! can be trained without any file.
//!
//! A story has a hero, a friend, a place, a goal, a trouble and a way out of it: some twenty choices, each a hash of
//! the seed. Validation tells of (hero, goal, place) triples that training never sees. The tables are in `english` and
//! `chinese`, the telling in `grammar`; [`check`] judges what a trained model tells.

pub mod check;
mod chinese;
mod english;
mod grammar;

use std::collections::HashSet;

use tokenizer::Lang;

use crate::mix;
use grammar::Grammar;

/// What a story is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// Stories to learn from.
    Train,
    /// Stories of combinations (hero, goal, place) that no story to learn from has.
    Val,
}

/// What the stories of a language are made of.
fn grammar_of(lang: Lang) -> &'static Grammar {
    match lang {
        Lang::En => &english::ENGLISH,
        Lang::Zh => &chinese::CHINESE,
    }
}

/// Stories without end, the same ones for the same seed. A repeated one is possible, if very unlikely.
pub fn stories(lang: Lang, split: Split, seed: u64) -> impl Iterator<Item = String> {
    (0..).map(move |i| grammar_of(lang).tell(split, story_seed(lang, split, seed, i)))
}

/// Different stories, until they have `bytes` bytes together.
pub fn corpus(lang: Lang, split: Split, seed: u64, bytes: usize) -> impl Iterator<Item = String> {
    let mut told = HashSet::new();
    let fresh = stories(lang, split, seed).filter(move |story| told.insert(story.clone()));
    fresh.scan(0, move |total, story| {
        let more = *total < bytes;
        *total += story.len();
        more.then_some(story)
    })
}

fn story_seed(lang: Lang, split: Split, seed: u64, i: u64) -> u64 {
    mix(seed, (lang as u64) << 1 | split as u64, i)
}

#[cfg(test)]
mod tests {
    use super::grammar::Draw;
    use super::*;

    const LANGS: [Lang; 2] = [Lang::En, Lang::Zh];

    /// Hero, goal and place of the first n stories.
    fn triples(lang: Lang, split: Split, n: u64) -> impl Iterator<Item = (usize, usize, usize)> {
        let draw = move |i| Draw::new(story_seed(lang, split, 7, i));
        (0..n).map(move |i| grammar_of(lang).triple(split, &mut draw(i)))
    }

    #[test]
    fn more_than_five_megabytes_without_a_repeated_story() {
        for lang in LANGS {
            let (mut told, mut bytes) = (HashSet::new(), 0);
            for story in stories(lang, Split::Train, 1) {
                bytes += story.len();
                assert!(told.insert(story), "{lang:?}: story {} is told again", told.len());
                if bytes > 6_000_000 {
                    break;
                }
            }
            assert_eq!(corpus(lang, Split::Train, 1, 6_000_000).count(), told.len());
        }
    }

    #[test]
    fn a_seed_always_tells_the_same_stories() {
        let hashes = LANGS.map(|lang| {
            let stories = stories(lang, Split::Train, 42).take(100);
            stories.flat_map(String::into_bytes).fold(0, |hash, byte| mix(hash, u64::from(byte), 0))
        });
        assert_eq!(
            hashes,
            [3_540_285_523_860_829_535, 9_490_317_563_877_076_440],
            "the stories changed: recorded losses and model files change with them"
        );
    }

    #[test]
    fn validation_has_combinations_that_training_never_sees() {
        for lang in LANGS {
            let train: HashSet<_> = triples(lang, Split::Train, 20_000).collect();
            let val: HashSet<_> = triples(lang, Split::Val, 4_000).collect();
            assert!(train.is_disjoint(&val));
            let grammar = grammar_of(lang);
            let counts = [grammar.heroes().count(), grammar.goals.len(), grammar.places.len()];
            for seen in [&train, &val] {
                let mut each = [HashSet::new(), HashSet::new(), HashSet::new()];
                for &(hero, goal, place) in seen {
                    each[0].insert(hero);
                    each[1].insert(goal);
                    each[2].insert(place);
                }
                assert_eq!(each.map(|numbers| numbers.len()), counts, "{lang:?}");
            }
            let share = val.len() as f64 / counts.iter().product::<usize>() as f64;
            assert!((0.06..0.1).contains(&share), "{lang:?}: {share} of the triples are kept for validation");
        }
    }

    #[test]
    fn a_story_is_about_its_hero_goal_and_place() {
        for lang in LANGS {
            let grammar = grammar_of(lang);
            for split in [Split::Train, Split::Val] {
                for (story, (hero, goal, place)) in stories(lang, split, 7).zip(triples(lang, split, 1_000)) {
                    let goal = grammar.goals[goal].want.split('{').next().unwrap();
                    for words in [grammar.heroes().nth(hero).unwrap().0, grammar.places[place].at, goal] {
                        assert!(story.contains(words), "no `{words}` in: {story}");
                    }
                }
            }
        }
    }

    #[test]
    fn stories_are_short_and_well_formed() {
        for lang in LANGS {
            for story in stories(lang, Split::Train, 7).take(5_000) {
                let (length, range) = match lang {
                    Lang::En => (story.split_whitespace().count(), 75..=160),
                    Lang::Zh => (story.chars().filter(|c| c.is_alphabetic()).count(), 120..=240),
                };
                assert!(range.contains(&length), "{length}: {story}");
                assert!(!story.contains(['{', '}', '[', ']', '|']), "an open template in: {story}");
                assert!(!story.contains("  ") && !story.contains(" \n") && story.trim() == story, "{story}");
                assert!(story.split("\n\n").count() <= 3, "{story}");
                assert_eq!(Lang::of(&story), lang);
                if lang == Lang::En {
                    let small =
                        |end: &str| story.split(end).skip(1).any(|next| next.starts_with(char::is_lowercase));
                    assert!(!small(". ") && !small("\n\n"), "a sentence begins with a small letter: {story}");
                    assert_eq!(story.matches('"').count() % 2, 0, "{story}");
                } else {
                    assert!(!story.contains(' '), "{story}");
                    assert_eq!(story.matches('“').count(), story.matches('”').count(), "{story}");
                }
            }
        }
    }
}
