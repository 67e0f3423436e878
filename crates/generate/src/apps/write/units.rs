//! Words and characters of English and Chinese text: what lengths are counted in.

use serde::{Deserialize, Serialize};
use tokenizer::sentences::marked_ends;
use tokenizer::split::is_han;

/// What a length is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Words; a Chinese character is one, as word processors count, and punctuation is none.
    #[default]
    Words,
    /// Characters but white space.
    Characters,
}

impl Unit {
    /// How many of them a text has.
    pub fn count(self, text: &str) -> usize {
        match self {
            Unit::Words => words(text).count(),
            Unit::Characters => text.chars().filter(|c| !c.is_whitespace()).count(),
        }
    }

    /// Where unit `n`, counted from 0, begins.
    pub fn start_of(self, text: &str, n: usize) -> Option<usize> {
        match self {
            Unit::Words => words(text).nth(n).map(|(start, _)| start),
            Unit::Characters => {
                text.char_indices().filter(|(_, c)| !c.is_whitespace()).nth(n).map(|(start, _)| start)
            }
        }
    }

    /// The name of so many.
    pub fn name(self) -> &'static str {
        if self == Unit::Words { "words" } else { "characters" }
    }
}

/// The words of a text, with their places: each Chinese character, and what else stands between spaces and Chinese
/// characters and has a letter or digit.
pub fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        loop {
            let start = rest + text[rest..].find(|c: char| !c.is_whitespace())?;
            let first = text[start..].chars().next()?;
            let len = match is_han(first) {
                true => first.len_utf8(),
                false if is_wide_mark(first) => first.len_utf8(),
                false => text[start..].find(ends_word).unwrap_or(text.len() - start),
            };
            rest = start + len;
            let word = &text[start..rest];
            if word.contains(char::is_alphanumeric) {
                return Some((start, word));
            }
        }
    })
}

/// Whether a word of letters ends before this.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || is_han(c) || is_wide_mark(c)
}

/// Chinese punctuation.
fn is_wide_mark(c: char) -> bool {
    matches!(c, '\u{3000}'..='\u{303f}' | '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}')
}

/// Whether a whole text ends as a sentence does.
pub fn ends_with_sentence(text: &str) -> bool {
    let text = text.trim_end();
    marked_ends(text, true).last() == Some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_both_languages() {
        let all = |text| words(text).map(|(_, word)| word).collect::<Vec<_>>();
        assert_eq!(all("It's 3.5 km – far!"), ["It's", "3.5", "km", "far!"]);
        assert_eq!(all("你好，world世界。"), ["你", "好", "world", "世", "界"]);
        assert_eq!(all(" \n—"), [""; 0]);
        assert_eq!((Unit::Words.count("绿茶 is tea"), Unit::Characters.count("绿茶 is tea")), (4, 7));
        assert_eq!(Unit::Words.start_of("one two three", 2), Some(8));
        assert_eq!(Unit::Characters.start_of("绿 茶", 1), Some(4));
        assert_eq!(Unit::Words.start_of("one", 1), None);
    }

    #[test]
    fn whole_texts_end_with_sentences() {
        for (text, want) in
            [("Good.\n", true), ("好！", true), ("Good", false), ("", false), ("It is Dr.", false)]
        {
            assert_eq!(ends_with_sentence(text), want, "{text}");
        }
    }
}
