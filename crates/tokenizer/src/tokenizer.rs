//! The tokenizer of a model, of whatever kind.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use crate::bpe::{Bpe, Cache};
use crate::split::{Pattern, is_han, pieces};
use crate::words::{Unit, Vocabulary};
use crate::{END_OF_TEXT, Result, TokenizerError, files, train, words};

/// Turns text into token ids and back. Cloning shares the vocabulary.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    kind: Kind,
    /// Tokens that stand for something other than text, by name.
    specials: Arc<Vec<(String, u32)>>,
    eot: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Bpe(Arc<Bpe>, Options),
    Words(Arc<Vocabulary>),
}

/// What tokenizer.json may say about byte-level BPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// A space is put before a text that does not start with one.
    pub add_prefix_space: bool,
}

/// How a text and a vocabulary meet.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Stats {
    /// Bytes of text.
    pub bytes: usize,
    /// Characters.
    pub chars: usize,
    /// Chinese characters.
    pub chinese_chars: usize,
    /// Tokens.
    pub tokens: usize,
    /// Different tokens.
    pub distinct_tokens: usize,
    /// Bytes a token stands for, on average.
    pub bytes_per_token: f64,
    /// Tokens a character costs, on average.
    pub tokens_per_char: f64,
}

impl Tokenizer {
    /// GPT-2's own vocabulary of 50,257 tokens, which is inside the program.
    pub fn gpt2() -> Tokenizer {
        static GPT2: LazyLock<Tokenizer> = LazyLock::new(|| {
            const EOT: u32 = 50256;
            let carrier = tiktoken::encoding::r50k_base();
            let mut tokens: Vec<Box<[u8]>> = (0..EOT).map(|id| carrier.decode(&[id]).into()).collect();
            tokens.push(END_OF_TEXT.as_bytes().into());
            let bpe = Bpe::from_ranks(tokens, 1);
            Tokenizer::from_bpe(bpe, Options { add_prefix_space: false }, vec![(END_OF_TEXT.into(), EOT)], EOT)
        });
        GPT2.clone()
    }

    pub(crate) fn from_bpe(bpe: Bpe, options: Options, specials: Vec<(String, u32)>, eot: u32) -> Tokenizer {
        Tokenizer { kind: Kind::Bpe(Arc::new(bpe), options), specials: Arc::new(specials), eot }
    }

    pub(crate) fn from_words(vocabulary: Vocabulary, eot: u32) -> Tokenizer {
        let specials = Arc::new(vec![(END_OF_TEXT.to_owned(), eot)]);
        Tokenizer { kind: Kind::Words(Arc::new(vocabulary)), specials, eot }
    }

    /// Reads tokenizer.json, or vocab.json with merges.txt, from a file or a model directory.
    pub fn load(path: &Path) -> Result<Tokenizer> {
        files::load(path)
    }

    /// Writes tokenizer.json, tokenizer_config.json and, for byte-level BPE, vocab.json and merges.txt into a
    /// directory, each whole or not at all. Hugging Face's libraries read them.
    pub fn save(&self, dir: &Path) -> Result<()> {
        files::save(self, dir)
    }

    /// Learns a byte-level BPE of `size` tokens, end-of-text included.
    pub fn train_bpe(docs: impl IntoIterator<Item = impl AsRef<str>>, size: usize) -> Result<Tokenizer> {
        let mut counts = train::PieceCounts::default();
        docs.into_iter().for_each(|doc| counts.add(doc.as_ref()));
        Tokenizer::from_counts(counts, size)
    }

    /// The same from pieces that were counted before.
    pub fn from_counts(counts: train::PieceCounts, size: usize) -> Result<Tokenizer> {
        let train::Learnt { mut tokens, merges } = counts.learn(size)?;
        let eot = tokens.len() as u32;
        tokens.push(END_OF_TEXT.as_bytes().into());
        let bpe = Bpe::from_merges(tokens, &merges, |id| id != eot);
        Ok(Tokenizer::from_bpe(bpe, Options { add_prefix_space: false }, vec![(END_OF_TEXT.into(), eot)], eot))
    }

    /// A token for each character of the text, and end-of-text.
    pub fn train_chars(docs: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Tokenizer> {
        let vocabulary = words::train_chars(docs)?;
        let eot = vocabulary.entries().len() as u32 - 1;
        Ok(Tokenizer::from_words(vocabulary, eot))
    }

    /// A token for each of the most frequent words; `size` includes `<unk>` and end-of-text.
    pub fn train_words(docs: impl IntoIterator<Item = impl AsRef<str>>, size: usize) -> Result<Tokenizer> {
        let vocabulary = words::train_words(docs, size)?;
        let eot = vocabulary.entries().len() as u32 - 1;
        Ok(Tokenizer::from_words(vocabulary, eot))
    }

    pub(crate) fn kind_ref(&self) -> &Kind {
        &self.kind
    }

    pub(crate) fn specials(&self) -> &[(String, u32)] {
        &self.specials
    }

    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match &self.kind {
            Kind::Bpe(..) => "byte-level BPE",
            Kind::Words(v) if v.unit() == Unit::Chars => "characters",
            Kind::Words(_) => "words",
        }
    }

    /// Whether every text, whatever its bytes, can be encoded and comes back the same.
    pub fn is_lossless(&self) -> bool {
        matches!(&self.kind, Kind::Bpe(..))
    }

    fn tokens(&self) -> &[Box<[u8]>] {
        match &self.kind {
            Kind::Bpe(bpe, _) => bpe.tokens(),
            Kind::Words(vocabulary) => vocabulary.entries(),
        }
    }

    /// The number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.tokens().len()
    }

    /// The token that starts and ends a text.
    pub fn eot(&self) -> u32 {
        self.eot
    }

    /// The tokens of a text. Names of special tokens are text like any other.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        self.encode_into(text, &mut ids)?;
        Ok(ids)
    }

    /// Appends the tokens of a text.
    pub fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        match &self.kind {
            Kind::Words(vocabulary) => return vocabulary.encode(text, ids),
            Kind::Bpe(bpe, options) => {
                let mut cache = Cache::default();
                let prefixed;
                let text = if options.add_prefix_space && !text.is_empty() && !text.starts_with(' ') {
                    prefixed = format!(" {text}");
                    &prefixed
                } else {
                    text
                };
                for piece in pieces(text, Pattern::Gpt2) {
                    bpe.encode_piece(piece.as_bytes(), ids, &mut cache);
                }
            }
        }
        Ok(())
    }

    /// The tokens of a text in which the names of special tokens stand for those tokens.
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut rest = text;
        while let Some((at, name, id)) = self.first_special(rest) {
            self.encode_into(&rest[..at], &mut ids)?;
            ids.push(id);
            rest = &rest[at + name.len()..];
        }
        self.encode_into(rest, &mut ids)?;
        Ok(ids)
    }

    /// The first special token named in a text, the longest among those at the same place.
    fn first_special<'a>(&'a self, text: &str) -> Option<(usize, &'a str, u32)> {
        let found = self.specials.iter().filter_map(|(name, id)| Some((text.find(name.as_str())?, name.as_str(), *id)));
        found.min_by_key(|&(at, name, _)| (at, std::cmp::Reverse(name.len())))
    }

    /// The tokens of any bytes. Stretches of UTF-8 are encoded as text; with byte-level BPE each byte between them
    /// is a token, else it is refused.
    pub fn encode_bytes(&self, bytes: &[u8]) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(bytes.len() / 3);
        let mut offset = 0;
        for chunk in bytes.utf8_chunks() {
            self.encode_into(chunk.valid(), &mut ids)?;
            offset += chunk.valid().len();
            match &self.kind {
                Kind::Bpe(bpe, _) => ids.extend(chunk.invalid().iter().map(|&byte| bpe.byte(byte))),
                Kind::Words(_) if chunk.invalid().is_empty() => {}
                Kind::Words(_) => {
                    return Err(TokenizerError::UnknownChar { char: char::REPLACEMENT_CHARACTER, offset });
                }
            }
            offset += chunk.invalid().len();
        }
        Ok(ids)
    }

    /// The bytes of one token.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.tokens().get(id as usize).map(|token| &**token)
    }

    /// The bytes that these tokens stand for; special tokens give their names.
    pub fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let tokens = self.tokens();
        let mut bytes = Vec::with_capacity(4 * ids.len());
        for (position, &id) in ids.iter().enumerate() {
            let size = tokens.len();
            let token = tokens.get(id as usize).ok_or(TokenizerError::IdOutOfRange { id, position, size })?;
            bytes.extend_from_slice(token);
        }
        Ok(bytes)
    }

    /// The text that these tokens stand for; what is not UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.decode_bytes(ids)?).into_owned())
    }

    /// Counts what a text costs.
    pub fn stats(&self, text: &str) -> Result<Stats> {
        let ids = self.encode(text)?;
        let chars = text.chars().count();
        let ratio = |a: usize, b: usize| if b == 0 { 0.0 } else { a as f64 / b as f64 };
        Ok(Stats {
            bytes: text.len(),
            chars,
            chinese_chars: text.chars().filter(|&char| is_han(char)).count(),
            tokens: ids.len(),
            distinct_tokens: ids.iter().collect::<std::collections::HashSet<_>>().len(),
            bytes_per_token: ratio(text.len(), ids.len()),
            tokens_per_char: ratio(ids.len(), chars),
        })
    }
}
