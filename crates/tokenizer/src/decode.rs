//! Tokens to bytes, one after the other: what a token adds to a text depends on little of what stands before it.
//!
//! So a stream of tokens gives the bytes that decoding them at once gives. Byte-level tokens are their bytes, wherever
//! they stand. SentencePiece's `▁` is a space, but not at the start of a text. A word of WordPiece has a space before
//! it, but not at the start, not where it continues the word before (`##`), and not beside a Chinese or Japanese
//! character: these scripts have no spaces.

use std::borrow::Cow;

use crate::split::is_han;

/// How tokens make a text. Each token's bytes are those that it adds in mid-text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joins {
    /// Each adds its bytes.
    Plain,
    /// At most so many of this byte are dropped from the start of the text.
    Stripped { byte: u8, most: usize },
    /// The first token loses its spaces.
    FirstTrimmed,
    /// The first token loses the space before it.
    Spaced,
    /// The same, and so does a token after or at a character of a script without spaces.
    Words,
}

/// How far a text has been decoded. `Default` is its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoding {
    started: bool,
    /// Bytes dropped from the start.
    stripped: usize,
    /// No more are.
    strip_ended: bool,
    /// The last character takes no space after it.
    tight: bool,
}

impl Decoding {
    /// What the next token adds to the text.
    pub(crate) fn next<'a>(&mut self, joins: Joins, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let first = !std::mem::replace(&mut self.started, true);
        match joins {
            Joins::Plain => bytes.into(),
            Joins::Stripped { byte, most } => self.strip(bytes, byte, most).into(),
            Joins::FirstTrimmed if first => bytes.iter().copied().filter(|&byte| byte != b' ').collect(),
            Joins::FirstTrimmed => bytes.into(),
            Joins::Spaced => without_space(bytes, first).into(),
            Joins::Words => {
                let bytes = without_space(bytes, first || self.tight);
                let last = std::str::from_utf8(bytes).ok().and_then(|text| text.chars().next_back());
                self.tight = last.map_or(self.tight, is_tight);
                bytes.into()
            }
        }
    }

    /// After the start of a text: tokens add their bytes, and no space is dropped.
    pub fn mid_text() -> Decoding {
        Decoding { started: true, strip_ended: true, ..Decoding::default() }
    }

    fn strip<'a>(&mut self, mut bytes: &'a [u8], byte: u8, most: usize) -> &'a [u8] {
        while let (false, Some((&next, rest))) = (self.strip_ended, bytes.split_first()) {
            self.strip_ended = self.stripped == most || next != byte;
            if !self.strip_ended {
                self.stripped += 1;
                bytes = rest;
            }
        }
        bytes
    }
}

fn without_space(bytes: &[u8], drop: bool) -> &[u8] {
    bytes.strip_prefix(b" ").filter(|_| drop).unwrap_or(bytes)
}

/// Whether no spaces stand around this character: those of Chinese and Japanese, their punctuation, and the dashes and
/// dots that they share with others.
pub(crate) fn is_tight(char: char) -> bool {
    is_han(char)
        || matches!(char, '\u{2014}' | '\u{2015}' | '\u{2026}' | '\u{2E80}'..='\u{2FDF}' | '\u{3000}'..='\u{30FF}'
            | '\u{31F0}'..='\u{31FF}' | '\u{FE30}'..='\u{FE4F}' | '\u{FF00}'..='\u{FFEF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(joins: Joins, tokens: &[&str], want: &str) {
        let mut decoding = Decoding::default();
        let got: Vec<u8> =
            tokens.iter().flat_map(|token| decoding.next(joins, token.as_bytes()).into_owned()).collect();
        assert_eq!(String::from_utf8(got).unwrap(), want, "{joins:?} {tokens:?}");
    }

    #[test]
    fn spaces_at_the_start_and_between() {
        let tokens = ["  a", " b", "c"];
        check(Joins::Plain, &tokens, "  a bc");
        check(Joins::FirstTrimmed, &tokens, "a bc");
        check(Joins::Spaced, &tokens, " a bc");
        check(Joins::Stripped { byte: b' ', most: 1 }, &tokens, " a bc");
        check(Joins::Stripped { byte: b' ', most: 3 }, &["", " ", "  ", " b"], " b");
        check(Joins::Stripped { byte: b' ', most: 2 }, &["a", " b"], "a b");
    }

    #[test]
    fn words_of_scripts_with_and_without_spaces() {
        let tokens = [" hello", " world", "s", "世", "界", " abc", "。", " x", "“"];
        check(Joins::Words, &tokens, "hello worlds世界abc。x“");
        check(Joins::Words, &["世", "", " a", " b"], "世a b");
    }
}
