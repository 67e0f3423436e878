//! Words, characters and sentences of English and Chinese text: what lengths are counted in, and where a text may end.

use serde::{Deserialize, Serialize};
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

/// Marks that may stand between a sentence's last mark and the space behind it.
const CLOSERS: [char; 14] = ['"', '\'', ')', ']', '”', '’', '」', '』', '）', '】', '》', '*', '_', '»'];

/// Words with a full stop that ends no sentence.
const ABBREVIATIONS: [&str; 16] = [
    "mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "e.g", "i.e", "no", "fig", "inc", "u.s", "a.m", "p.m",
];

/// Where the sentences of a text end: behind their last mark and what closes there. While the text may go on (`is_whole` is
/// false), an end at its edge is not known yet.
pub fn sentence_ends(text: &str, is_whole: bool) -> impl Iterator<Item = usize> {
    text.char_indices().filter_map(move |(at, mark)| {
        let is_chinese = matches!(mark, '。' | '！' | '？');
        if !is_chinese && !matches!(mark, '.' | '!' | '?' | '…') {
            return None;
        }
        let after = at + mark.len_utf8();
        let rest = &text[after..];
        let tail = rest.trim_start_matches(CLOSERS);
        let end = after + rest.len() - tail.len();
        match tail.chars().next() {
            None => is_whole.then_some(end),
            // Of several marks the last one counts.
            Some('.' | '!' | '?' | '…' | '。' | '！' | '？') => None,
            Some(_) if is_chinese => Some(end),
            Some(next) => (next.is_whitespace() || is_han(next)).then_some(end),
        }
        .filter(|_| mark != '.' || !is_abbreviated(&text[..at]))
    })
}

/// Whether the full stop behind this belongs to a word: `Mr`, an initial, or the number of a line.
fn is_abbreviated(before: &str) -> bool {
    let start = before.trim_end_matches(|c: char| !c.is_whitespace() && c != '(').len();
    let word = &before[start..];
    let is_first = before[..start].trim_end_matches([' ', '\t']).chars().last().is_none_or(|c| c == '\n');
    let is_initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase) && word != "I";
    let is_number = is_first && !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    is_initial || is_number || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

/// Whether a whole text ends as a sentence does.
pub fn ends_with_sentence(text: &str) -> bool {
    let text = text.trim_end();
    sentence_ends(text, true).last() == Some(text.len())
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
    fn sentences_end_behind_their_marks() {
        let ends = |text: &str, whole| {
            sentence_ends(text, whole).map(|end| text[..end].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            ends("Mr. Fox ran 3.5 km. \"Why?\" He", true),
            ["Mr. Fox ran 3.5 km.", "Mr. Fox ran 3.5 km. \"Why?\""]
        );
        assert_eq!(ends("No!? Wait...", false), ["No!?"]);
        assert_eq!(ends("No!? Wait...", true), ["No!?", "No!? Wait..."]);
        assert_eq!(ends("他说：“好。”走了。", false), ["他说：“好。”"]);
        assert_eq!(ends("1. Tea\n2. Milk", true), [""; 0]);
        assert_eq!(ends("从前\u{3000}fox.", true), ["从前\u{3000}fox."], "a space of several bytes");
        assert_eq!(
            ends("J. Smith left. So did I. Now", true),
            ["J. Smith left.", "J. Smith left. So did I."]
        );
        for (text, want) in
            [("Good.\n", true), ("好！", true), ("Good", false), ("", false), ("It is Dr.", false)]
        {
            assert_eq!(ends_with_sentence(text), want, "{text}");
        }
    }
}
