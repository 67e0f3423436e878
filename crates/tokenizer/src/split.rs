//! Cutting text into the pieces that byte-pair encoding works on: GPT-2's pattern, by hand.
//!
//! `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
//!
//! In words: an English ending such as `'ll`; a run of letters, of digits, or of anything else that is not white
//! space, each with one space before it if there is one; and white space, of which the last character is left to
//! the piece that follows. Every byte of the text is in exactly one piece.

use std::sync::OnceLock;

use unicode_general_category::{GeneralCategory, get_general_category};

/// What the pattern distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

/// Which pieces to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// GPT-2's.
    Gpt2,
    /// GPT-2's, but each Chinese character is a piece of its own, without a space before it.
    Words,
    /// Each character is a piece.
    Characters,
    /// The whole text is one piece.
    Whole,
}

/// The pieces of `text`, in order.
pub fn pieces(text: &str, pattern: Pattern) -> Pieces<'_> {
    Pieces { text, at: 0, pattern }
}

/// An iterator over the pieces of a text.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    text: &'a str,
    at: usize,
    pattern: Pattern,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        if self.at >= self.text.len() {
            return None;
        }
        let start = self.at;
        self.at = self.end_of_piece(start);
        Some(&self.text[start..self.at])
    }
}

impl Pieces<'_> {
    /// Where the piece that starts at `start` ends.
    #[inline]
    fn end_of_piece(&self, start: usize) -> usize {
        let bytes = self.text.as_bytes();
        match self.pattern {
            Pattern::Gpt2 | Pattern::Words => {}
            Pattern::Characters => return start + self.char_at(start).len_utf8(),
            Pattern::Whole => return bytes.len(),
        }
        if bytes[start] == b'\''
            && let Some(len) = contraction(&bytes[start + 1..])
        {
            return start + 1 + len;
        }
        let (mut class, mut len) = self.class_at(start);
        if bytes[start] == b' ' && start + 1 < bytes.len() {
            let (next, next_len) = self.class_at(start + 1);
            let takes_space = next != Class::Space && !(self.is_han_at(start + 1));
            if takes_space {
                (class, len) = (next, 1 + next_len);
            }
        }
        match class {
            Class::Space => self.end_of_space(start, len),
            _ if self.is_han_at(start) => start + len,
            class => self.end_of_run(start + len, class),
        }
    }

    #[inline]
    fn end_of_run(&self, mut at: usize, class: Class) -> usize {
        let bytes = self.text.as_bytes();
        while at < bytes.len() {
            let (next, len) = self.class_at(at);
            if next != class || self.is_han_at(at) {
                break;
            }
            at += len;
        }
        at
    }

    /// The end of white space whose first character has length `len`: all of it at the end of the text, else all
    /// but its last character, unless that is all there is.
    fn end_of_space(&self, start: usize, len: usize) -> usize {
        let (mut last, mut at) = (start, start + len);
        while at < self.text.len() {
            let (class, len) = self.class_at(at);
            if class != Class::Space {
                return if last == start { at } else { last };
            }
            last = at;
            at += len;
        }
        at
    }

    /// The class of the character at a byte, and its length.
    #[inline]
    fn class_at(&self, at: usize) -> (Class, usize) {
        let byte = self.text.as_bytes()[at];
        if byte < 0x80 {
            return (ASCII[byte as usize], 1);
        }
        let char = self.char_at(at);
        (class_of(char), char.len_utf8())
    }

    #[inline]
    fn char_at(&self, at: usize) -> char {
        self.text[at..].chars().next().unwrap_or_default()
    }

    #[inline]
    fn is_han_at(&self, at: usize) -> bool {
        self.pattern == Pattern::Words && self.text.as_bytes()[at] >= 0x80 && is_han(self.char_at(at))
    }
}

/// Length of an English ending after an apostrophe.
fn contraction(rest: &[u8]) -> Option<usize> {
    match rest {
        [b's' | b'd' | b'm' | b't', ..] => Some(1),
        [b'l', b'l', ..] | [b'v', b'e', ..] | [b'r', b'e', ..] => Some(2),
        _ => None,
    }
}

/// Whether this is a Chinese character, by block.
pub fn is_han(char: char) -> bool {
    HAN.iter().any(|&(first, last)| (first..=last).contains(&char))
}

/// The blocks of Chinese characters.
pub(crate) const HAN: [(char, char); 4] = [
    ('\u{3400}', '\u{4DBF}'),
    ('\u{4E00}', '\u{9FFF}'),
    ('\u{F900}', '\u{FAFF}'),
    ('\u{20000}', '\u{323AF}'),
];

const ASCII: [Class; 128] = {
    let mut classes = [Class::Other; 128];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
            b'0'..=b'9' => Class::Number,
            b' ' | 0x09..=0x0D => Class::Space,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

/// Classes of 256 characters at a time, looked up once.
static PAGES: [OnceLock<Box<[Class; 256]>>; 0x1100] = [const { OnceLock::new() }; 0x1100];

fn class_of(char: char) -> Class {
    let code = char as usize;
    if (0x4E00..0xA000).contains(&code) {
        return Class::Letter;
    }
    let page = PAGES[code >> 8].get_or_init(|| {
        let class = |low| char::from_u32((code & !0xFF | low) as u32).map_or(Class::Other, look_up);
        Box::new(std::array::from_fn(class))
    });
    page[code & 0xFF]
}

fn look_up(char: char) -> Class {
    use GeneralCategory::*;
    if char.is_whitespace() {
        return Class::Space;
    }
    match get_general_category(char) {
        UppercaseLetter | LowercaseLetter | TitlecaseLetter | ModifierLetter | OtherLetter => Class::Letter,
        DecimalNumber | LetterNumber | OtherNumber => Class::Number,
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        assert_eq!(pieces(text, Pattern::Gpt2).collect::<Vec<_>>(), want);
    }

    #[test]
    fn gpt2_pattern() {
        check("Hello world, it's 2019!", &["Hello", " world", ",", " it", "'s", " 2019", "!"]);
        check("we'll 'twas 'LL", &["we", "'ll", " '", "twas", " '", "LL"]);
        check("a  b   \n c", &["a", " ", " b", "   \n", " c"]);
        check("a\n\nb\t", &["a", "\n", "\n", "b", "\t"]);
        check("  ", &["  "]);
        check("你好 世界。½x", &["你好", " 世界", "。", "½", "x"]);
        check("", &[]);
        check("x\u{a0}\u{3000}y", &["x", "\u{a0}", "\u{3000}", "y"]);
        check("!'s", &["!'", "s"]);
    }

    #[test]
    fn words_pattern_isolates_chinese() {
        let got: Vec<_> = pieces("他说 hello 世界 3天", Pattern::Words).collect();
        assert_eq!(got, ["他", "说", " hello", " ", "世", "界", " 3", "天"]);
    }

    #[test]
    fn other_patterns() {
        assert_eq!(pieces("a 世", Pattern::Characters).collect::<Vec<_>>(), ["a", " ", "世"]);
        assert_eq!(pieces("a b", Pattern::Whole).collect::<Vec<_>>(), ["a b"]);
        assert_eq!(pieces("", Pattern::Whole).count(), 0);
    }

    #[test]
    fn nothing_is_lost() {
        let text = "'s '' ' \u{200d}👩‍👩‍👧 \r\n\t e\u{301} ٣٤ \u{85} x";
        for pattern in [Pattern::Gpt2, Pattern::Words, Pattern::Characters, Pattern::Whole] {
            assert_eq!(pieces(text, pattern).collect::<String>(), text);
        }
    }
}
