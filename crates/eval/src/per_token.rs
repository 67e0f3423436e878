//! A table of every prediction, tab-separated: `position id text logprob correct`, with a line of these names.
//!
//! `position` is the token's index in the text, `logprob` is ln p of it, and `correct` is 1 where it was the most
//! likely. Text is UTF-8 as it is, save that a backslash, tab, line feed, carriage return and other control
//! characters are escaped as in Rust (`\\ \t \n \r \u{0}`), and bytes that are no character as `\xe4`: a token
//! may be a part of one. So each line is one token, and its bytes can be read back.

use std::io::{self, Write};

use tokenizer::Tokenizer;

use crate::TokenScore;

/// Writes the table.
///
/// The first failure, such as a full disk, ends the writing; [`PerToken::finish`] reports it.
#[derive(Debug)]
pub struct PerToken<'a, W: Write> {
    tokenizer: &'a Tokenizer,
    file: W,
    state: io::Result<()>,
}

impl<'a, W: Write> PerToken<'a, W> {
    /// A table with its first line. The file should be buffered.
    pub fn new(tokenizer: &'a Tokenizer, mut file: W) -> Self {
        let state = writeln!(file, "position\tid\ttext\tlogprob\tcorrect");
        PerToken { tokenizer, file, state }
    }

    /// Adds a prediction.
    pub fn add(&mut self, token: TokenScore) {
        if self.state.is_ok() {
            self.state = self.line(token);
        }
    }

    fn line(&mut self, TokenScore { position, id, loss, correct }: TokenScore) -> io::Result<()> {
        let text = escape(self.tokenizer.token_bytes(id).unwrap_or_default());
        let logprob = 0.0 - loss; // not -0
        writeln!(self.file, "{position}\t{id}\t{text}\t{logprob}\t{}", u8::from(correct))
    }

    /// The file, with everything written to it, or what went wrong.
    pub fn finish(mut self) -> io::Result<W> {
        self.state?;
        self.file.flush()?;
        Ok(self.file)
    }
}

/// A token's bytes on one line.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' => text += r"\\",
                char if char.is_control() => text.extend(char.escape_default()),
                char => text.push(char),
            }
        }
        chunk.invalid().iter().for_each(|byte| text += &format!(r"\x{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_one_line_that_can_be_read_back() {
        let cases: [(&[u8], &str); 8] = [
            (b" the", " the"),
            ("世界".as_bytes(), "世界"),
            (b"\t\r\n\\n", r"\t\r\n\\n"),
            (b"\0\x1b", r"\u{0}\u{1b}"),
            (&"世".as_bytes()[..2], r"\xe4\xb8"),
            (b"a\xffb", r"a\xffb"),
            ("\u{85}\u{2028}'\"".as_bytes(), "\\u{85}\u{2028}'\""),
            (b"", ""),
        ];
        for (bytes, want) in cases {
            assert_eq!(escape(bytes), want, "{bytes:?}");
        }
    }

    #[test]
    fn the_table() {
        let tokenizer = Tokenizer::train_chars(["ab\n"]).unwrap(); // "\n", "a", "b", end-of-text
        let mut table = PerToken::new(&tokenizer, Vec::new());
        table.add(TokenScore { position: 1, id: 0, loss: 0.5, correct: false });
        table.add(TokenScore { position: 2, id: 2, loss: 0.0, correct: true });
        let got = String::from_utf8(table.finish().unwrap()).unwrap();
        assert_eq!(got, "position\tid\ttext\tlogprob\tcorrect\n1\t0\t\\n\t-0.5\t0\n2\t2\tb\t0\t1\n");
    }

    #[test]
    fn a_full_disk_is_reported() {
        let tokenizer = Tokenizer::train_chars(["ab"]).unwrap();
        let mut room = [0u8; 40]; // for the first line and not much more
        let mut table = PerToken::new(&tokenizer, &mut room[..]);
        let token = TokenScore { position: 1, id: 0, loss: 0.25, correct: true };
        (0..3).for_each(|_| table.add(token));
        assert_eq!(table.finish().unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
}
