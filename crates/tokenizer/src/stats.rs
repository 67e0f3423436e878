//! What a text costs in a vocabulary.

use std::collections::HashSet;

use crate::split::is_han;
use crate::{Result, Tokenizer};

/// How a text and a vocabulary meet.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Stats {
    /// Bytes of text.
    pub bytes: usize,
    /// Characters.
    pub chars: usize,
    /// Tokens.
    pub tokens: usize,
    /// Different tokens.
    pub distinct_tokens: usize,
    /// Tokens that stand for text which has none.
    pub unknown: usize,
    /// Bytes a token stands for, on average.
    pub bytes_per_token: f64,
    /// Tokens a character costs, on average.
    pub tokens_per_char: f64,
    /// Chinese characters.
    pub chinese_chars: usize,
    /// Tokens a Chinese character costs, on average: its stretches of text are encoded by themselves.
    pub tokens_per_chinese_char: f64,
}

/// Counts a text that comes in stretches.
#[derive(Clone, Debug)]
pub struct Counter<'a> {
    tokenizer: &'a Tokenizer,
    bytes: usize,
    chars: usize,
    tokens: usize,
    distinct: HashSet<u32>,
    unknown: usize,
    chinese_chars: usize,
    chinese_tokens: usize,
}

impl<'a> Counter<'a> {
    /// Nothing yet.
    pub fn new(tokenizer: &'a Tokenizer) -> Counter<'a> {
        let distinct = HashSet::new();
        Counter {
            tokenizer,
            bytes: 0,
            chars: 0,
            tokens: 0,
            distinct,
            unknown: 0,
            chinese_chars: 0,
            chinese_tokens: 0,
        }
    }

    /// Adds a stretch. It should be a document, or end where the tokenizer cuts anyway.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let ids = self.tokenizer.encode(text)?;
        self.bytes += text.len();
        self.chars += text.chars().count();
        self.tokens += ids.len();
        self.distinct.extend(&ids);
        self.unknown += ids.iter().filter(|&&id| Some(id) == self.tokenizer.unknown_token()).count();
        let mut chinese_ids = Vec::new();
        for stretch in text.split(|char| !is_han(char)).filter(|stretch| !stretch.is_empty()) {
            self.chinese_chars += stretch.chars().count();
            self.tokenizer.encode_into(stretch, &mut chinese_ids)?;
        }
        self.chinese_tokens += chinese_ids.len();
        Ok(())
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        Stats {
            bytes: self.bytes,
            chars: self.chars,
            tokens: self.tokens,
            distinct_tokens: self.distinct.len(),
            unknown: self.unknown,
            bytes_per_token: ratio(self.bytes, self.tokens),
            tokens_per_char: ratio(self.tokens, self.chars),
            chinese_chars: self.chinese_chars,
            tokens_per_chinese_char: ratio(self.chinese_tokens, self.chinese_chars),
        }
    }
}

impl Stats {
    pub(crate) fn new(tokenizer: &Tokenizer, text: &str) -> Result<Stats> {
        let mut counter = Counter::new(tokenizer);
        counter.add(text)?;
        Ok(counter.stats())
    }
}

/// `a / b`, and 0 where there is nothing to share among.
fn ratio(a: usize, b: usize) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chinese_costs_more_than_english() {
        let gpt2 = Tokenizer::gpt2();
        let stats = gpt2.stats("Hello world, 你好世界").unwrap();
        assert_eq!((stats.bytes, stats.chars, stats.chinese_chars), (25, 17, 4));
        // "Hello", " world", ",", " ", and two tokens for each Chinese character.
        assert_eq!((stats.tokens, stats.distinct_tokens), (12, 12));
        assert_eq!(stats.tokens_per_chinese_char, 2.0);
        assert!((stats.bytes_per_token - 25.0 / stats.tokens as f64).abs() < 1e-12);
        assert_eq!(gpt2.stats("a a a").unwrap().distinct_tokens, 2);
    }

    #[test]
    fn an_empty_text_has_no_averages() {
        let stats = Tokenizer::gpt2().stats("").unwrap();
        assert_eq!((stats.tokens, stats.bytes_per_token, stats.tokens_per_char), (0, 0.0, 0.0));
    }
}
