//! Vocabularies that Hugging Face's crate runs: WordPiece, Unigram, and BPE that is not GPT-2's.
//!
//! The crate normalises, cuts and encodes. What it is given was checked before (`files/pipeline.rs`, `files/charsmap.rs`); should it panic all
//! the same, that is an error like any other. Decoding is ours: see [`crate::decode`].

use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use tokenizers::Encoding;

use crate::decode::Joins;
use crate::special::touch;
use crate::tokens::Tokens;
use crate::{Result, TokenizerError};

/// A tokenizer of Hugging Face's crate, and what else we know of it.
pub(crate) struct Pipeline {
    /// Names of special tokens are text like any other.
    plain: tokenizers::Tokenizer,
    /// They stand for those tokens.
    special: OnceLock<Box<tokenizers::Tokenizer>>,
    pub parts: Parts,
}

/// What is known of a pipeline.
pub(crate) struct Parts {
    /// What it is, in words.
    pub kind: &'static str,
    /// What each token adds in mid-text.
    pub tokens: Tokens,
    pub joins: Joins,
    /// The token that stands for what has none.
    pub unknown: Option<u32>,
    /// It leaves out characters that have no token, instead of giving one for them.
    pub drops: bool,
    /// What it does to text before it is cut, in words.
    pub changes: Vec<String>,
    /// `tokenizer.json`, and what stands beside it, as they were loaded.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Pipeline").field("kind", &self.parts.kind).finish_non_exhaustive()
    }
}

/// Runs the crate's code; a panic in it becomes an error.
pub(crate) fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the library that runs it gave up".to_owned()),
    }
}

impl Pipeline {
    /// Of a tokenizer that adds nothing around a text, and cuts nothing off.
    pub(crate) fn new(mut inner: tokenizers::Tokenizer, parts: Parts) -> Pipeline {
        inner.set_encode_special_tokens(true);
        Pipeline { plain: inner, special: OnceLock::new(), parts }
    }

    fn inner(&self, with_special: bool) -> &tokenizers::Tokenizer {
        if !with_special {
            return &self.plain;
        }
        self.special.get_or_init(|| {
            let mut special = Box::new(self.plain.clone());
            special.set_encode_special_tokens(false);
            special
        })
    }

    /// The tokens of a text, and where they stand in it.
    fn placed(&self, text: &str, with_special: bool) -> Result<Encoding> {
        let inner = self.inner(with_special);
        guarded(|| inner.encode(text, false)).map_err(|reason| self.failed(text, with_special, reason))
    }

    /// Appends the tokens of a text; what has no token becomes the unknown one, or an error where there is none.
    pub(crate) fn encode(&self, text: &str, with_special: bool, ids: &mut Vec<u32>) -> Result<()> {
        if self.parts.drops {
            let encoding = self.placed(text, with_special)?;
            if let Some(range) = gaps(text, &encoding).next() {
                let char = text[range.clone()].chars().next().unwrap_or_default();
                return Err(TokenizerError::UnknownChar { char, offset: range.start });
            }
            ids.extend_from_slice(encoding.get_ids());
            return Ok(());
        }
        let inner = self.inner(with_special);
        let encoding = guarded(|| inner.encode_fast(text, false));
        ids.extend_from_slice(encoding.map_err(|reason| self.failed(text, with_special, reason))?.get_ids());
        Ok(())
    }

    /// The tokens of a text with special ones, but for those that touch a `protected` range of bytes, which are text; and which
    /// of the tokens start within `spans`.
    pub(crate) fn encode_marked(
        &self,
        text: &str,
        protected: &[Range<usize>],
        spans: &[Range<usize>],
        is_special: impl Fn(u32) -> bool,
    ) -> Result<(Vec<u32>, Vec<bool>)> {
        let encoding = self.placed(text, true)?;
        if self.parts.drops
            && let Some(range) = gaps(text, &encoding).next()
        {
            let char = text[range.clone()].chars().next().unwrap_or_default();
            return Err(TokenizerError::UnknownChar { char, offset: range.start });
        }
        let (mut ids, mut inside) = (Vec::new(), Vec::new());
        for (&id, &(start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            if is_special(id) && touch(protected, &(start..end)) {
                let name = text.get(start..end).unwrap_or_default();
                self.encode(name, false, &mut ids).map_err(|error| error.after(start))?;
            } else {
                ids.push(id);
            }
            inside.resize(ids.len(), touch(spans, &(start..start + 1)));
        }
        Ok((ids, inside))
    }

    /// The error of a text that the crate refused: the first character that it refuses alone, if there is one.
    fn failed(&self, text: &str, with_special: bool, reason: String) -> TokenizerError {
        let refuses = |char: char| {
            let mut buffer = [0; 4];
            let text: &str = char.encode_utf8(&mut buffer);
            guarded(|| self.inner(with_special).encode_fast(text, false)).is_err()
        };
        let mut known = std::collections::HashSet::new();
        match text.char_indices().find(|&(_, char)| known.insert(char) && refuses(char)) {
            Some((offset, char)) => TokenizerError::UnknownChar { char, offset },
            None => TokenizerError::Refused { reason },
        }
    }

    /// The stretches of the text that become the unknown token, in order.
    pub(crate) fn unknown(&self, text: &str) -> Vec<Range<usize>> {
        if self.parts.unknown.is_none() && !self.parts.drops {
            return Vec::new();
        }
        let Ok(encoding) = self.placed(text, false) else { return Vec::new() };
        if self.parts.drops {
            return gaps(text, &encoding).collect();
        }
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        tokens
            .filter(|&(&id, _)| Some(id) == self.parts.unknown)
            .map(|(_, &(start, end))| {
                let start = text.floor_char_boundary(start);
                start..text.ceil_char_boundary(end.max(start))
            })
            .collect()
    }

    /// Whether both are made from the same `tokenizer.json`, whatever its layout.
    pub(crate) fn is_same_as(&self, other: &Pipeline) -> bool {
        let (ours, theirs) = (self.json(), other.json());
        let value = |json| serde_json::from_slice::<serde_json::Value>(json).ok();
        ours == theirs || value(ours).is_some_and(|ours| Some(ours) == value(theirs))
    }

    fn json(&self) -> &[u8] {
        &self.parts.files[0].1
    }
}

/// The stretches of a text that no token covers, but for white space and control characters.
fn gaps<'a>(text: &'a str, encoding: &Encoding) -> impl Iterator<Item = Range<usize>> + 'a {
    let mut offsets = encoding.get_offsets().to_vec();
    offsets.sort_unstable();
    offsets.push((text.len(), text.len()));
    let mut covered = 0;
    let between = offsets.into_iter().filter_map(move |(start, end)| {
        let gap = covered..start;
        covered = covered.max(end);
        text.get(gap.clone()).filter(|gap| !gap.is_empty()).map(|inside| (gap.start, inside))
    });
    between.flat_map(|(at, inside)| {
        let lost = inside.char_indices().filter(|(_, char)| !char.is_whitespace() && !char.is_control());
        lost.map(move |(i, char)| at + i..at + i + char.len_utf8())
    })
}
