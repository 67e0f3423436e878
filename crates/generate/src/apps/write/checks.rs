//! What a text must be: long enough, without repetition, of the right language. Each check that fails says why.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tokenizer::Lang;

use super::ending::Lengths;
use super::units::{ends_with_sentence, words};

/// No group of `n` words more than `most` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeats {
    /// Words of a group; a Chinese character is a word.
    pub n: usize,
    /// How often each may come.
    pub most: usize,
}

/// The checks of a step, with what they look for filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// One line.
    pub one_line: bool,
    /// It ends as a sentence does.
    pub whole_sentences: bool,
    /// This language.
    pub language: Option<Lang>,
    /// No repetition.
    pub repeats: Option<Repeats>,
    /// It says all of these, in any case.
    pub contains: Vec<String>,
    /// It says none of these, in any case.
    pub lacks: Vec<String>,
}

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its name, as in a recipe.
    pub check: &'static str,
    /// Why it failed.
    pub why: String,
}

impl Checks {
    /// The checks that a text fails, of which the least length is one.
    pub fn failures(&self, text: &str, lengths: Lengths) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut fail = |check, why| failures.push(Failure { check, why });
        if text.contains(char::REPLACEMENT_CHARACTER) {
            fail("whole-characters", "some of its bytes are no character, and stand there as U+FFFD".into());
        }
        let count = lengths.unit.count(text);
        if count < lengths.min {
            fail("min", format!("{count} {}, at least {} are asked for", lengths.unit.name(), lengths.min));
        }
        if self.one_line && text.contains('\n') {
            fail("one-line", format!("{} lines", text.lines().count()));
        }
        if self.whole_sentences && !ends_with_sentence(text) {
            fail("whole-sentences", "its end is no sentence's end".into());
        }
        if let Some(lang) = self.language
            && Lang::of(text) != lang
        {
            fail(
                "same-language",
                format!("it is not {}", if lang == Lang::Zh { "Chinese" } else { "English" }),
            );
        }
        if let Some(repeats) = self.repeats
            && let Some((group, times)) = repeats.worst(text)
        {
            fail(
                "repeats",
                format!("{group:?} stands there {times} times, at most {} are allowed", repeats.most),
            );
        }
        let lower = text.to_lowercase();
        let says = |part: &&String| lower.contains(&part.to_lowercase());
        if let Some(missing) = self.contains.iter().find(|part| !says(part)) {
            fail("contains", format!("it does not say {missing:?}"));
        }
        if let Some(present) = self.lacks.iter().find(says) {
            fail("lacks", format!("it says {present:?}"));
        }
        failures
    }
}

impl Repeats {
    /// The group that comes most often, the first of equals, if it comes too often.
    fn worst(self, text: &str) -> Option<(String, usize)> {
        let bare =
            |(_, word): (usize, &str)| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        let words: Vec<String> = words(text).map(bare).collect();
        let mut times: HashMap<&[String], usize> = HashMap::new();
        let groups = || words.windows(self.n.max(1));
        groups().for_each(|group| *times.entry(group).or_default() += 1);
        let most = *times.values().max()?;
        let group = groups().find(|group| times[group] == most).filter(|_| most > self.most)?;
        let space = if group.iter().all(|word| word.chars().count() == 1) { "" } else { " " };
        Some((group.join(space), most))
    }
}

#[cfg(test)]
mod tests {
    use super::super::units::Unit;
    use super::*;

    fn failed(checks: &Checks, text: &str, min: usize) -> Vec<&'static str> {
        let lengths = Lengths { min, max: 99, unit: Unit::Words };
        checks.failures(text, lengths).into_iter().map(|failure| failure.check).collect()
    }

    #[test]
    fn each_check_fails_alone() {
        let all = Checks {
            one_line: true,
            whole_sentences: true,
            language: Some(Lang::En),
            repeats: Some(Repeats { n: 2, most: 1 }),
            contains: vec!["Tea".into()],
            lacks: vec!["milk".into()],
        };
        for (text, want) in [
            ("Green tea is good.", &[][..]),
            ("Tea.", &["min"]),
            ("Green tea\nis good.", &["one-line"]),
            ("Green tea is", &["whole-sentences"]),
            ("Tea is 绿茶很好。", &["same-language"]),
            ("The tea and the tea.", &["repeats"]),
            ("Water is good.", &["contains"]),
            ("Tea without Milk.", &["lacks"]),
            ("", &["min", "whole-sentences", "contains"]),
        ] {
            assert_eq!(failed(&all, text, 2), want, "{text}");
        }
        assert_eq!(failed(&Checks::default(), "", 0), [""; 0]);
        // What a model of bytes may write, whatever is asked for.
        assert_eq!(failed(&Checks::default(), "tea \u{fffd}", 0), ["whole-characters"]);
    }

    #[test]
    fn repetition_is_told_in_both_languages() {
        let lengths = Lengths { min: 0, max: 99, unit: Unit::Words };
        let why = |n, most, text| {
            let checks = Checks { repeats: Some(Repeats { n, most }), ..Checks::default() };
            checks.failures(text, lengths).pop().map(|failure| failure.why)
        };
        assert_eq!(
            why(2, 2, "A fox, a fox. A fox!").unwrap(),
            "\"a fox\" stands there 3 times, at most 2 are allowed"
        );
        assert_eq!(why(2, 1, "绿茶，绿茶").unwrap(), "\"绿茶\" stands there 2 times, at most 1 are allowed");
        assert_eq!(why(3, 1, "绿茶，绿茶"), None);
        assert_eq!(why(9, 1, "short"), None);
    }
}
