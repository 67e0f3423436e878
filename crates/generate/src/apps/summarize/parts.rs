//! A text cut into parts that a model can read at once: at the ends of sentences, and within a sentence only where it alone
//! is too long.

use std::collections::VecDeque;
use std::ops::Range;

use tokenizer::sentences;

use super::SummarizeError;

/// A text in parts, without the white space around them; nothing else of it is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub parts: Vec<String>,
    /// Where each lies in the text, with the white space around it.
    pub ranges: Vec<Range<usize>>,
    /// Sentences that are spread over several parts.
    pub split: usize,
}

/// What a part may be.
pub(super) trait Limits {
    /// Tokens of a text.
    fn tokens(&self, text: &str) -> Result<usize, SummarizeError>;
    /// Tokens of a part, about.
    fn room(&self) -> usize;
    /// Whether a text can be a part.
    fn fits(&self, text: &str) -> Result<bool, SummarizeError>;
}

/// The longest run of bytes that is tried for each token that a part may have.
const BYTES_PER_TOKEN: usize = 64;

/// Cuts a text into as few parts as can be, of about equal length.
pub(super) fn cut(text: &str, limits: &impl Limits) -> Result<Parts, SummarizeError> {
    let mut pieces = VecDeque::new();
    for piece in sentences::pieces(text) {
        pieces.push_back(Piece { text: piece, tokens: limits.tokens(piece)?, is_rest: false });
    }
    let total: usize = pieces.iter().map(|piece| piece.tokens).sum();
    let room = limits.room().max(1);
    let aim = total.div_ceil(total.div_ceil(room).max(1));
    let mut parts = Parts::default();
    let mut start = 0; // of the part, in the text
    while !pieces.is_empty() {
        let mut taken = Vec::new();
        let (mut tokens, mut end) = (0, start);
        while let Some(piece) = pieces.front()
            && (taken.is_empty() || (tokens < aim && tokens + piece.tokens <= room))
        {
            tokens += piece.tokens;
            end += piece.text.len();
            taken.extend(pieces.pop_front());
        }
        // Tokens of sentences and of the text that they make differ a little.
        while taken.len() > 1 && !limits.fits(text[start..end].trim())? {
            let last = taken.pop().expect("there is more than one");
            end -= last.text.len();
            pieces.push_front(last);
        }
        if let [piece] = &taken[..]
            && !limits.fits(piece.text.trim())?
        {
            let at = longest_prefix(piece.text, room, limits)?;
            end = start + at;
            parts.split += usize::from(!piece.is_rest);
            let used = limits.tokens(&piece.text[..at])?;
            let rest = Piece {
                text: &piece.text[at..],
                tokens: piece.tokens.saturating_sub(used).max(1),
                is_rest: true,
            };
            pieces.push_front(rest);
        }
        let part = text[start..end].trim();
        if !part.is_empty() {
            parts.parts.push(part.to_owned());
            parts.ranges.push(start..end);
        }
        start = end;
    }
    Ok(parts)
}

struct Piece<'a> {
    text: &'a str,
    tokens: usize,
    /// Whether the sentence began in an earlier part.
    is_rest: bool,
}

/// Bytes of the longest beginning of a sentence that fits, up to a border of words, or of characters where a word alone is
/// too long.
fn longest_prefix(text: &str, room: usize, limits: &impl Limits) -> Result<usize, SummarizeError> {
    let tried = &text[..text.floor_char_boundary(room.saturating_mul(BYTES_PER_TOKEN))];
    let chars: Vec<usize> = tried.char_indices().map(|(at, c)| at + c.len_utf8()).collect();
    let words = |&end: &usize| {
        let next = text[end..].chars().next();
        let last = text[..end].chars().next_back();
        // Chinese and Japanese have no spaces.
        let divides = |c: Option<char>| c.is_some_and(|c| c.is_whitespace() || c >= '\u{2e80}');
        divides(last) || (divides(next) && next.is_some_and(|c| !c.is_whitespace()))
    };
    let borders: Vec<usize> = chars.iter().copied().filter(words).collect();
    for ends in [borders, chars] {
        let mut error = None;
        let fits = |&end: &usize| {
            limits.fits(text[..end].trim()).unwrap_or_else(|e| {
                error = Some(e);
                false
            })
        };
        let n = ends.partition_point(fits);
        if let Some(error) = error {
            return Err(error);
        }
        if n > 0 {
            return Ok(ends[n - 1]);
        }
    }
    Err(SummarizeError::NoRoom { room })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token for each character.
    struct Chars(usize);

    impl Limits for Chars {
        fn tokens(&self, text: &str) -> Result<usize, SummarizeError> {
            Ok(text.chars().count())
        }

        fn room(&self) -> usize {
            self.0
        }

        fn fits(&self, text: &str) -> Result<bool, SummarizeError> {
            Ok(text.chars().count() <= self.0)
        }
    }

    #[track_caller]
    fn check(text: &str, room: usize, want: &[&str], split: usize) {
        let parts = cut(text, &Chars(room)).unwrap();
        assert_eq!(parts.parts, want);
        assert_eq!(parts.split, split);
        let ranges = parts.ranges.iter().map(|range| text[range.clone()].trim());
        assert!(ranges.eq(want.iter().copied()), "{:?}", parts.ranges);
        let letters = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(letters(&parts.parts.concat()), letters(text), "nothing is lost");
    }

    #[test]
    fn parts_end_with_sentences_and_are_about_equal() {
        check("One. Two. Six. Ten.", 100, &["One. Two. Six. Ten."], 0);
        check("One. Two. Six. Ten.", 15, &["One. Two.", "Six. Ten."], 0);
        check("一二三。四五六。七。", 8, &["一二三。四五六。", "七。"], 0);
        check("One.   \n\n  Two.", 8, &["One.", "Two."], 0);
    }

    #[test]
    fn a_long_sentence_is_cut_between_words() {
        let want = ["One.", "A very", "long", "sentence", "here. Two."];
        check("One. A very long sentence here. Two.", 10, &want, 1);
        check(&format!("a{}b c", " ".repeat(5000)), 2, &["a", "b", "c"], 1);
        check("abcdefghijkl", 5, &["abcde", "fghij", "kl"], 1);
        check("狐狸回家找到苹果", 3, &["狐狸回", "家找到", "苹果"], 1);
    }

    #[test]
    fn without_room_there_is_an_error() {
        assert!(matches!(cut("One.", &Chars(0)), Err(SummarizeError::NoRoom { .. })));
        assert_eq!(cut("", &Chars(5)).unwrap(), Parts::default());
    }
}
