//! Simple vocabularies: a token for each character, or for each of the most frequent words.
//!
//! They are what a first lesson uses. Unlike bytes they do not cover every text: a character vocabulary refuses
//! what it has never seen, a word vocabulary writes `<unk>`.

use rustc_hash::FxHashMap;

use crate::split::{Pattern, pieces};
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
    entries: Vec<Box<[u8]>>,
    ids: FxHashMap<Box<str>, u32>,
    unknown: Option<u32>,
}

impl Vocabulary {
    /// From entries in order of id, end-of-text among them.
    pub(crate) fn new(unit: Unit, entries: Vec<String>) -> Vocabulary {
        let ids: FxHashMap<Box<str>, u32> =
            entries.iter().zip(0..).map(|(entry, id)| (entry.as_str().into(), id)).collect();
        let unknown = ids.get(UNKNOWN).copied().filter(|_| unit == Unit::Words);
        let entries = entries.into_iter().map(|entry| entry.into_bytes().into()).collect();
        Vocabulary { unit, entries, ids, unknown }
    }

    /// Characters or words.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The text of each token.
    pub fn entries(&self) -> &[Box<[u8]>] {
        &self.entries
    }

    /// Appends the tokens of a text.
    pub(crate) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        match self.unit {
            Unit::Chars => {
                let mut buffer = [0; 4];
                for (offset, char) in text.char_indices() {
                    let id = self.ids.get(&*char.encode_utf8(&mut buffer));
                    ids.push(*id.ok_or(TokenizerError::UnknownChar { char, offset })?);
                }
            }
            Unit::Words => {
                // Only a vocabulary that someone changed by hand has no <unk>; then its first token stands in.
                let unknown = self.unknown.unwrap_or(0);
                ids.extend(pieces(text, Pattern::Words).map(|piece| match piece {
                    END_OF_TEXT | UNKNOWN => unknown,
                    piece => self.ids.get(piece).copied().unwrap_or(unknown),
                }));
            }
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
    Ok(Vocabulary::new(Unit::Chars, entries.collect()))
}

/// `<unk>`, the most frequent words (ties in alphabetical order), and end-of-text: `size` tokens in all, or fewer
/// where the text has fewer words.
pub fn train_words(docs: impl IntoIterator<Item = impl AsRef<str>>, size: usize) -> Result<Vocabulary> {
    const LEAST: usize = 3;
    if size < LEAST {
        let reason = "it holds <unk>, end-of-text and a word";
        return Err(TokenizerError::TooSmall { asked: size, least: LEAST, reason });
    }
    let mut counts: FxHashMap<Box<str>, u64> = FxHashMap::default();
    for doc in docs {
        for piece in pieces(doc.as_ref(), Pattern::Words) {
            match counts.get_mut(piece) {
                Some(count) => *count += 1,
                None => _ = counts.insert(piece.into(), 1),
            }
        }
    }
    if counts.is_empty() {
        return Err(TokenizerError::NoText);
    }
    let mut words: Vec<(Box<str>, u64)> = counts.into_iter().collect();
    words.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let words = words.into_iter().map(|(word, _)| word.into_string()).take(size - 2);
    let entries = [UNKNOWN.to_owned()].into_iter().chain(words).chain([END_OF_TEXT.to_owned()]);
    Ok(Vocabulary::new(Unit::Words, entries.collect()))
}
