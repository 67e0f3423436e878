//! Lines broken between words as text streams, where a terminal would cut words in two.
//!
//! A word is held back until it is whole, so that nothing that stands on the screen must be moved. Wide characters, such
//! as Chinese ones, are words by themselves.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Text on its way to a terminal of so many columns.
#[derive(Debug)]
pub struct Wrap {
    width: usize,
    column: usize,
    space: String,
    word: String,
}

impl Wrap {
    /// From the beginning of a line.
    pub fn new(width: usize) -> Wrap {
        Wrap { width, column: 0, space: String::new(), word: String::new() }
    }

    /// A whole text at once.
    pub fn whole(text: &str, width: usize) -> String {
        let mut wrap = Wrap::new(width);
        let mut out = wrap.push(text);
        out += &wrap.finish();
        out
    }

    /// Takes in text, and gives what may be shown now.
    pub fn push(&mut self, text: &str) -> String {
        let mut out = String::new();
        for c in text.chars() {
            if c == '\n' {
                self.put_word(&mut out);
                out.push('\n');
                self.column = 0;
                self.space.clear();
            } else if c.is_whitespace() {
                self.put_word(&mut out);
                self.space.push(c);
            } else if c.width() == Some(2) {
                self.put_word(&mut out);
                self.word.push(c);
                self.put_word(&mut out);
            } else {
                self.word.push(c);
            }
        }
        out
    }

    /// The rest, at the end or where the text was cut.
    pub fn finish(mut self) -> String {
        let mut out = String::new();
        self.put_word(&mut out);
        out
    }

    /// Puts the word on this line if there is room, else on the next one, without the space before it.
    fn put_word(&mut self, out: &mut String) {
        if self.word.is_empty() {
            return;
        }
        let (space, word) = (std::mem::take(&mut self.space), std::mem::take(&mut self.word));
        if self.column > 0 && self.column + space.width() + word.width() > self.width {
            out.push('\n');
            self.column = 0;
        } else {
            *out += &space;
            self.column += space.width();
        }
        *out += &word;
        self.column += word.width();
        if self.column > self.width {
            // The terminal cuts a word that no line can hold.
            self.column = (self.column - 1) % self.width.max(1) + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole_wherever_the_text_is_cut() {
        for (text, width, want) in [
            ("the fox said", 7, "the fox\nsaid"),
            ("the fox said", 8, "the fox\nsaid"),
            ("  a b", 9, "  a b"),
            ("a\n  b  \n\nc", 3, "a\n  b\n\nc"),
            ("你好世界ab", 5, "你好\n世界\nab"),
            ("abcdefgh ij", 4, "abcdefgh\nij"),
            ("abcdef gh", 4, "abcdef\ngh"),
            ("abcde f", 4, "abcde f"),
            ("早，x y", 4, "早，\nx y"),
            ("a", 0, "a"),
        ] {
            assert_eq!(Wrap::whole(text, width), want, "{text:?} on {width}");
            for cut in text.char_indices().map(|(at, _)| at) {
                let mut wrap = Wrap::new(width);
                let pieces = [wrap.push(&text[..cut]), wrap.push(&text[cut..]), wrap.finish()];
                assert_eq!(pieces.concat(), want, "{text:?} on {width}, cut at {cut}");
            }
        }
    }
}
