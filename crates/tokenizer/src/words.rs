//! Simple vocabularies: a token for each character, or for each of the most frequent words.
//!
//! They are what a first lesson uses. Unlike bytes they do not cover every text: a character vocabulary refuses
//! what it has never seen, a word vocabulary writes `<unk>`.

use crate::split::{Pattern, pieces};
use crate::tokens::Tokens;
use crate::train::PieceCounts;
use crate::{END_OF_TEXT, Result, TokenizerError};

/// What stands for a word outside the vocabulary.
pub const UNKNOWN: &str = "<unk>";

/// How text is cut into entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Characters.
    Chars,
    /// Words with the space before them, digits, punctuation, white space; each Chinese character.
    Words,
}

/// A list of entries; the last is end-of-text.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    unit: Unit,
    tokens: Tokens,
    unknown: Option<u32>,
}

impl Vocabulary {
    /// From entries in order of id, end-of-text among them.
    pub(crate) fn new<T: AsRef<str>>(unit: Unit, entries: impl IntoIterator<Item = T>) -> Vocabulary {
        let mut tokens = Tokens::default();
        entries.into_iter().for_each(|entry| _ = tokens.push(entry.as_ref().as_bytes()));
        let unknown = tokens.find(UNKNOWN.as_bytes());
        Vocabulary { unit, tokens, unknown }
    }

    /// The same with more tokens, which stand for no text.
    pub(crate) fn with_hidden<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vocabulary {
        let mut vocabulary = self.clone();
        names.into_iter().for_each(|name| _ = vocabulary.tokens.push_hidden(name.as_bytes()));
        vocabulary
    }

    /// Characters or words.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The text of each token.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Whether both have the same entries in the same order.
    pub(crate) fn is_same_as(&self, other: &Vocabulary) -> bool {
        self.unit == other.unit && self.tokens.iter().eq(other.tokens.iter())
    }

    /// Each entry that the text is cut into, where it starts, and its token if it has one.
    fn entries<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, &'a str, Option<u32>)> {
        let pattern = match self.unit {
            Unit::Chars => Pattern::Characters,
            Unit::Words => Pattern::Words,
        };
        pieces(text, pattern).scan(0, |at, entry| {
            let start = *at;
            *at += entry.len();
            Some((start, entry, self.tokens.find(entry.as_bytes())))
        })
    }

    /// The first character of the first entry that has no token, and where it stands.
    pub(crate) fn unknown(&self, text: &str) -> Option<(usize, char)> {
        let (offset, entry, _) = self.entries(text).find(|(_, _, id)| id.is_none())?;
        Some((offset, entry.chars().next()?))
    }

    /// `<unk>`, if the vocabulary has it.
    pub(crate) fn unknown_token(&self) -> Option<u32> {
        self.unknown
    }

    /// Where each entry stands that has no token.
    pub(crate) fn unknown_stretches<'a>(
        &'a self,
        text: &'a str,
    ) -> impl Iterator<Item = std::ops::Range<usize>> + 'a {
        self.entries(text).filter(|(_, _, id)| id.is_none()).map(|(at, entry, _)| at..at + entry.len())
    }

    /// Appends the tokens of a text; what has none becomes `<unk>`, or an error where there is no `<unk>`.
    pub(crate) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        for (offset, entry, id) in self.entries(text) {
            let char = entry.chars().next().unwrap_or_default();
            ids.push(id.or(self.unknown).ok_or(TokenizerError::UnknownChar { char, offset })?);
        }
        Ok(())
    }
}

/// A token for each character that occurs, in the order of their code points.
pub fn train_chars(docs: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Vocabulary> {
    let mut chars = std::collections::BTreeSet::new();
    docs.into_iter().for_each(|doc| chars.extend(doc.as_ref().chars()));
    if chars.is_empty() {
        return Err(TokenizerError::NoText);
    }
    let entries = chars.into_iter().map(String::from).chain([END_OF_TEXT.to_owned()]);
    Ok(Vocabulary::new(Unit::Chars, entries))
}

/// `<unk>`, the most frequent words (ties in alphabetical order), and end-of-text: `size` tokens in all, or fewer
/// where the text has fewer words.
pub fn train_words(docs: impl IntoIterator<Item = impl AsRef<str>>, size: usize) -> Result<Vocabulary> {
    const LEAST: usize = 3;
    if size < LEAST {
        let reason = "it holds <unk>, end-of-text and a word";
        return Err(TokenizerError::TooSmall { asked: size, least: LEAST, reason });
    }
    let mut counts = PieceCounts::new(Pattern::Words);
    docs.into_iter().for_each(|doc| counts.add(doc.as_ref()));
    let mut words = counts.into_vec();
    if words.is_empty() {
        return Err(TokenizerError::NoText);
    }
    words.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let words = words.iter().map(|(word, _)| &**word).take(size - 2);
    Ok(Vocabulary::new(Unit::Words, [UNKNOWN].into_iter().chain(words).chain([END_OF_TEXT])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(vocabulary: &Vocabulary, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        vocabulary.encode(text, &mut ids).map(|()| ids)
    }

    #[test]
    fn characters_in_order_of_code_points() {
        let vocabulary = train_chars(["ba\n", "世b"]).unwrap();
        let tokens: Vec<_> = vocabulary.tokens().iter().map(String::from_utf8_lossy).collect();
        assert_eq!(tokens, ["\n", "a", "b", "世", END_OF_TEXT]);
        assert_eq!(encode(&vocabulary, "a世b").unwrap(), [1, 3, 2]);
        assert_eq!(vocabulary.unknown("a世c"), Some((4, 'c')));
        assert_eq!(vocabulary.unknown("a世b"), None);
        let error = encode(&vocabulary, "a世c").unwrap_err();
        assert!(matches!(error, TokenizerError::UnknownChar { char: 'c', offset: 4 }), "{error}");
        assert!(matches!(train_chars([""; 2]), Err(TokenizerError::NoText)));
    }

    #[test]
    fn most_frequent_words_first() {
        let docs = ["the cat and the dog and the bird", "世界 and 世"];
        let vocabulary = train_words(docs, 7).unwrap();
        let tokens: Vec<_> = vocabulary.tokens().iter().map(String::from_utf8_lossy).collect();
        // " and" occurs 3 times, " the" and "世" twice; of those that occur once, the first by bytes.
        assert_eq!(tokens, [UNKNOWN, " and", " the", "世", " ", " bird", END_OF_TEXT]);
        assert_eq!(encode(&vocabulary, " the bird 世x").unwrap(), [2, 5, 4, 3, 0]);
        assert_eq!(vocabulary.unknown(" the 世x"), Some((8, 'x')));
        assert_eq!(
            (vocabulary.unknown_token(), vocabulary.unknown_stretches(" the 界x wolves").collect()),
            (Some(0), vec![5..8, 8..9, 9..16])
        );
        assert_eq!(encode(&vocabulary, "<|endoftext|>").unwrap(), [0, 0, 0]);
        assert_eq!(train_words(docs, 100).unwrap().tokens().len(), 2 + 9);
        assert!(matches!(train_words(docs, 2), Err(TokenizerError::TooSmall { asked: 2, least: 3, .. })));
        assert!(matches!(train_words(["", ""], 9), Err(TokenizerError::NoText)));
    }
}
