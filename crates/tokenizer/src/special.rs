//! Special tokens: their names, adding some, and text in which only some places are looked at for them.

use std::ops::Range;
use std::sync::Arc;

use crate::bpe::Bpe;
use crate::tokenizer::{Added, Kind};
use crate::{Result, Tokenizer, TokenizerError, files};

impl Tokenizer {
    /// Special tokens with their ids, in order of their ids where they were appended.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&str, u32)> {
        self.added().iter().filter(|added| added.special).map(|added| (added.name.as_str(), added.id))
    }

    /// The id of a special token.
    pub fn special_id(&self, name: &str) -> Option<u32> {
        self.special_tokens().find(|(known, _)| *known == name).map(|(_, id)| id)
    }

    /// The name of a token that has one, or its text.
    pub(crate) fn name_of(&self, id: u32) -> String {
        let named = self.added().iter().find(|added| added.id == id).map(|added| added.name.clone());
        named
            .unwrap_or_else(|| String::from_utf8_lossy(self.token_bytes(id).unwrap_or_default()).into_owned())
    }

    /// The names of special tokens by role, as chat templates know them: those that its files give, and the ends of texts.
    pub fn special_names(&self) -> Vec<(String, String)> {
        let mut names = self.names().to_vec();
        for (role, id) in [("eos_token", self.eot()), ("bos_token", self.bos())] {
            if !names.iter().any(|(known, _)| known == role) {
                names.push((role.to_owned(), self.name_of(id)));
            }
        }
        names
    }

    /// The same tokenizer with more special tokens, which get the next ids. Those that it has already stay what they are.
    ///
    /// A model's table must grow with it where it has fewer rows (`Gpt2::resize_vocab`).
    pub fn with_special_tokens(&self, names: &[&str]) -> Result<Tokenizer> {
        let mut new: Vec<&str> = Vec::new();
        for &name in names {
            if self.special_id(name).is_some() || new.contains(&name) {
                continue;
            }
            let refuse = |reason| Err(TokenizerError::SpecialToken { name: name.to_owned(), reason });
            if name.trim().is_empty() {
                return refuse("a special token needs a name that is found in text");
            }
            if self.added().iter().any(|added| added.name == name) {
                return refuse("it is an added token that stands for its own text; choose another name");
            }
            new.push(name);
        }
        if new.is_empty() {
            return Ok(self.clone());
        }
        let first = self.vocab_size() as u32;
        let added = self.added().iter().cloned();
        let added: Vec<Added> =
            added.chain(new.iter().zip(first..).map(|(name, id)| Added::special(name, id))).collect();
        let kind = match self.inside() {
            Kind::Bpe(bpe, options) => {
                let mut tokens = bpe.tokens().clone();
                new.iter().for_each(|name| _ = tokens.push_hidden(name.as_bytes()));
                let bpe = Bpe::new(tokens, bpe.merges().into_iter()).expect("all bytes were tokens before");
                Kind::Bpe(Arc::new(bpe), *options)
            }
            Kind::Words(vocabulary) => Kind::Words(Arc::new(vocabulary.with_hidden(new))),
            Kind::Pipeline(pipeline) => Kind::Pipeline(Arc::new(files::extend(pipeline, &new)?)),
        };
        Ok(self.with_inside(kind, added))
    }

    /// The tokens of a text in which the names of special tokens stand for those tokens, but not where they touch a `protected`
    /// range of bytes; and which of the tokens start within `spans`. Both are in order and apart.
    ///
    /// Our own vocabularies encode each span by itself, so that its tokens are those that follow when the text before it is
    /// encoded alone.
    pub(crate) fn encode_marked(
        &self,
        text: &str,
        protected: &[Range<usize>],
        spans: &[Range<usize>],
    ) -> Result<(Vec<u32>, Vec<bool>)> {
        if let Kind::Pipeline(pipeline) = self.inside() {
            let is_special = |id| self.added().iter().any(|added| added.special && added.id == id);
            return pipeline.encode_marked(text, protected, spans, is_special);
        }
        let (mut ids, mut inside) = (Vec::new(), Vec::new());
        let bounds = spans.iter().flat_map(|span| [span.start, span.end]).chain([text.len()]);
        let mut start = 0;
        for (end, is_inside) in bounds.zip([false, true].into_iter().cycle()) {
            let touches = |range: Range<usize>| touch(protected, &(start + range.start..start + range.end));
            self.encode_around(
                &text[start..end],
                start == 0,
                &mut ids,
                |_| true,
                |found| !found.added.special || !touches(found.at..found.at + found.added.name.len()),
            )
            .map_err(|error| error.after(start))?;
            inside.resize(ids.len(), is_inside);
            start = end;
        }
        Ok((ids, inside))
    }
}

/// Whether one of these ranges, which are in order and apart, has a place in common with another one.
pub(crate) fn touch(ranges: &[Range<usize>], other: &Range<usize>) -> bool {
    let first = ranges.partition_point(|range| range.end <= other.start);
    ranges.get(first).is_some_and(|range| range.start < other.end)
}
