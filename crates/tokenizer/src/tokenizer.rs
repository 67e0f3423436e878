//! The tokenizer of a model, of whatever kind.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use crate::bpe::{Bpe, Cache};
use crate::decode::{Decoding, Joins};
use crate::files::ChatTemplate;
use crate::pipeline::Pipeline;
use crate::split::{Pattern, pieces};
use crate::stats::Stats;
use crate::tokens::Tokens;
use crate::words::{Unit, Vocabulary};
use crate::{END_OF_TEXT, Result, TokenizerError, files, train, words};

/// Turns text into token ids and back. Cloning shares the vocabulary.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    kind: Kind,
    added: Arc<[Added]>,
    roles: Roles,
    /// What its files call tokens by role, such as `eos_token`.
    names: Arc<[(String, String)]>,
    chat: Option<Arc<ChatTemplate>>,
}

/// What tokens are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Roles {
    /// Ends a text.
    pub eot: u32,
    /// What a text starts from.
    pub bos: u32,
    /// Stand before every text.
    pub prefix: Arc<[u32]>,
}

impl Roles {
    /// One token starts and ends a text, and none is put before it.
    fn one(eot: u32) -> Roles {
        Roles { eot, bos: eot, prefix: [].into() }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Bpe(Arc<Bpe>, Options),
    Words(Arc<Vocabulary>),
    Pipeline(Arc<Pipeline>),
}

/// What tokenizer.json may say about byte-level BPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// GPT-2's pattern, or none.
    pub pattern: Pattern,
    /// A space is put before a text that does not start with one.
    pub add_prefix_space: bool,
}

impl Options {
    /// As GPT-2 does it.
    pub(crate) const GPT2: Options = Options { pattern: Pattern::Gpt2, add_prefix_space: false };
}

/// A token that is found in text by its name, before anything else is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    pub name: String,
    pub id: u32,
    /// It stands for something other than its name, and is looked for only when that is asked for.
    pub special: bool,
}

/// The name of an added token in a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub added: &'a Added,
    /// The byte where it stands.
    pub at: usize,
}

impl Added {
    pub(crate) fn special(name: &str, id: u32) -> Added {
        Added { name: name.to_owned(), id, special: true }
    }

    pub(crate) fn end_of_text(id: u32) -> Added {
        Added { name: END_OF_TEXT.into(), id, special: true }
    }
}

impl Tokenizer {
    /// GPT-2's own vocabulary of 50,257 tokens, which is inside the program.
    pub fn gpt2() -> Tokenizer {
        static GPT2: LazyLock<Tokenizer> = LazyLock::new(|| {
            let merges =
                include_bytes!("../data/gpt2-merges.bin").as_chunks().0.iter().map(|&[a, b, c, d]| {
                    (u32::from(u16::from_le_bytes([a, b])), u32::from(u16::from_le_bytes([c, d])))
                });
            let mut tokens = Tokens::with_capacity(50257);
            train::bytes_in_gpt2_order().for_each(|byte| _ = tokens.push(&[byte]));
            let merges: Vec<_> =
                merges.map(|(left, right)| (left, right, tokens.join(left, right))).collect();
            Tokenizer::from_merges(tokens, &merges)
        });
        GPT2.clone()
    }

    /// Byte-level BPE as GPT-2 does it, with end-of-text after all other tokens.
    fn from_merges(mut tokens: Tokens, merges: &[(u32, u32, u32)]) -> Tokenizer {
        let eot = tokens.push_hidden(END_OF_TEXT.as_bytes());
        let bpe = Bpe::new(tokens, merges.iter().copied()).expect("all bytes are tokens");
        Tokenizer::from_bpe(bpe, Options::GPT2, vec![Added::end_of_text(eot)], eot)
    }

    pub(crate) fn from_bpe(bpe: Bpe, options: Options, added: Vec<Added>, eot: u32) -> Tokenizer {
        Tokenizer::new(Kind::Bpe(Arc::new(bpe), options), added, eot)
    }

    fn new(kind: Kind, added: Vec<Added>, eot: u32) -> Tokenizer {
        let (added, roles) = (added.into(), Roles::one(eot));
        Tokenizer { kind, added, roles, names: [].into(), chat: None }
    }

    pub(crate) fn from_words(vocabulary: Vocabulary, mut added: Vec<Added>, eot: u32) -> Tokenizer {
        // Where a character ends texts, it is found as what it is.
        let is_named = vocabulary.tokens().get(eot) == Some(END_OF_TEXT.as_bytes());
        if is_named && !added.iter().any(|added| added.id == eot) {
            added.insert(0, Added::end_of_text(eot));
        }
        Tokenizer::new(Kind::Words(Arc::new(vocabulary)), added, eot)
    }

    pub(crate) fn from_pipeline(pipeline: Pipeline, added: Vec<Added>, eot: u32) -> Tokenizer {
        Tokenizer::new(Kind::Pipeline(Arc::new(pipeline)), added, eot)
    }

    /// The same with what its files say of its tokens, and of chats.
    pub(crate) fn with(
        self,
        roles: Roles,
        names: Arc<[(String, String)]>,
        chat: Option<Arc<ChatTemplate>>,
    ) -> Tokenizer {
        Tokenizer { roles, names, chat, ..self }
    }

    /// The same with other tokens inside, of which those that it had have the same ids.
    pub(crate) fn with_inside(&self, kind: Kind, added: Vec<Added>) -> Tokenizer {
        Tokenizer { kind, added: added.into(), ..self.clone() }
    }

    /// What its files call tokens by role.
    pub(crate) fn names(&self) -> &[(String, String)] {
        &self.names
    }

    /// Reads tokenizer.json, vocab.json with merges.txt, or vocab.txt, from a file or a model directory.
    pub fn load(path: &Path) -> Result<Tokenizer> {
        files::load(path)
    }

    /// Writes tokenizer.json, tokenizer_config.json and, for byte-level BPE, vocab.json and merges.txt into a
    /// directory, each whole or not at all. Hugging Face's libraries read them. What their crate runs is written as it
    /// was loaded.
    pub fn save(&self, dir: &Path) -> Result<()> {
        files::save(self, dir)
    }

    /// Learns a byte-level BPE of `size` tokens, end-of-text included; it has fewer when the text has too few
    /// different pairs.
    pub fn train_bpe(docs: impl IntoIterator<Item = impl AsRef<str>>, size: usize) -> Result<Tokenizer> {
        let mut counts = train::PieceCounts::default();
        docs.into_iter().for_each(|doc| counts.add(doc.as_ref()));
        Tokenizer::from_counts(counts, size)
    }

    /// The same from pieces that were counted before.
    pub fn from_counts(counts: train::PieceCounts, size: usize) -> Result<Tokenizer> {
        let train::Learnt { tokens, merges } = counts.learn(size)?;
        Ok(Tokenizer::from_merges(tokens, &merges))
    }

    /// A token for each character of the text, and end-of-text.
    pub fn train_chars(docs: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Tokenizer> {
        let vocabulary = words::train_chars(docs)?;
        let eot = vocabulary.tokens().len() as u32 - 1;
        Ok(Tokenizer::from_words(vocabulary, Vec::new(), eot))
    }

    /// A token for each of these characters, in their order. A newline ends a text, or the last of them where there is none.
    pub fn from_chars(chars: impl IntoIterator<Item = String>) -> Result<Tokenizer> {
        let chars: Vec<String> = chars.into_iter().collect();
        let last = chars.len().checked_sub(1).ok_or(TokenizerError::NoText)?;
        let end = chars.iter().position(|text| text == "\n").unwrap_or(last);
        Ok(Tokenizer::from_words(Vocabulary::new(Unit::Chars, chars), Vec::new(), end as u32))
    }

    /// A token for each of the most frequent words; `size` includes `<unk>` and end-of-text.
    pub fn train_words(docs: impl IntoIterator<Item = impl AsRef<str>>, size: usize) -> Result<Tokenizer> {
        let vocabulary = words::train_words(docs, size)?;
        let eot = vocabulary.tokens().len() as u32 - 1;
        Ok(Tokenizer::from_words(vocabulary, Vec::new(), eot))
    }

    pub(crate) fn inside(&self) -> &Kind {
        &self.kind
    }

    pub(crate) fn added(&self) -> &[Added] {
        &self.added
    }

    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match &self.kind {
            Kind::Bpe(..) => "byte-level BPE",
            Kind::Words(vocabulary) if vocabulary.unit() == Unit::Chars => "characters",
            Kind::Words(_) => "words",
            Kind::Pipeline(pipeline) => pipeline.parts.kind,
        }
    }

    /// Whether both make the same ids of every text: the same tokens, merges and special tokens, whatever files they
    /// came from.
    pub fn is_same_as(&self, other: &Tokenizer) -> bool {
        let inside = match (&self.kind, &other.kind) {
            (Kind::Bpe(ours, options), Kind::Bpe(theirs, others)) => {
                options == others && (Arc::ptr_eq(ours, theirs) || ours.is_same_as(theirs))
            }
            (Kind::Words(ours), Kind::Words(theirs)) => ours.is_same_as(theirs),
            (Kind::Pipeline(ours), Kind::Pipeline(theirs)) => {
                Arc::ptr_eq(ours, theirs) || ours.is_same_as(theirs)
            }
            _ => false,
        };
        inside && self.roles == other.roles && self.added == other.added
    }

    /// What it is and how many tokens it has, for messages.
    pub fn describe(&self) -> String {
        format!("{}, {} tokens", self.kind(), self.vocab_size())
    }

    /// Whether every text, whatever its bytes, can be encoded and comes back the same.
    pub fn is_lossless(&self) -> bool {
        matches!(&self.kind, Kind::Bpe(_, options) if !options.add_prefix_space)
    }

    /// What the vocabulary does to text before it is cut, in words: what is lost so does not come back. Text without a
    /// token is another matter: see [`Tokenizer::unknown`].
    pub fn changes(&self) -> &[String] {
        match &self.kind {
            Kind::Pipeline(pipeline) => &pipeline.parts.changes,
            _ => &[],
        }
    }

    fn tokens(&self) -> &Tokens {
        match &self.kind {
            Kind::Bpe(bpe, _) => bpe.tokens(),
            Kind::Words(vocabulary) => vocabulary.tokens(),
            Kind::Pipeline(pipeline) => &pipeline.parts.tokens,
        }
    }

    fn joins(&self) -> Joins {
        match &self.kind {
            Kind::Pipeline(pipeline) => pipeline.parts.joins,
            _ => Joins::Plain,
        }
    }

    /// The number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.tokens().len()
    }

    /// The token that ends a text: `<|endoftext|>`, `</s>`, `[SEP]`.
    pub fn eot(&self) -> u32 {
        self.roles.eot
    }

    /// The token that a text starts from where there is nothing else: that of GPT-2 ends texts, too.
    pub fn bos(&self) -> u32 {
        self.roles.bos
    }

    /// The tokens that stand before every text, in training and in a prompt, such as BERT's `[CLS]`. GPT-2 has none.
    pub fn prefix(&self) -> &[u32] {
        &self.roles.prefix
    }

    /// The template that turns a chat into text (Jinja), if its files have one.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat.as_ref()?.text()
    }

    /// The same tokenizer with this chat template, or none.
    pub fn with_chat_template(self, template: Option<String>) -> Tokenizer {
        let chat = template.map(|text| Arc::new(ChatTemplate { config: text.into(), jinja: None }));
        Tokenizer { chat, ..self }
    }

    pub(crate) fn chat(&self) -> Option<&ChatTemplate> {
        self.chat.as_deref()
    }

    /// The first character, and the byte where it stands, that has no token: the first of a word that becomes
    /// unknown, or of its characters the first that is unknown by itself. Byte-level BPE has none.
    pub fn unknown(&self, text: &str) -> Option<(usize, char)> {
        let pipeline = match &self.kind {
            Kind::Bpe(..) => return None,
            Kind::Words(vocabulary) => return vocabulary.unknown(text),
            Kind::Pipeline(pipeline) => pipeline,
        };
        let stretch = pipeline.unknown(text).into_iter().next()?;
        let start = stretch.start;
        let mut chars = text[stretch].char_indices().map(|(at, char)| (start + at, char)).peekable();
        let first = *chars.peek()?;
        Some(chars.find(|(_, char)| !pipeline.unknown(&char.to_string()).is_empty()).unwrap_or(first))
    }

    /// The stretches of a text, as ranges of its bytes, that have no token: [`Tokenizer::encode`] makes the
    /// [`Tokenizer::unknown_token`] of each, or an error where there is none.
    pub fn unknown_stretches(&self, text: &str) -> Vec<Range<usize>> {
        match &self.kind {
            Kind::Bpe(..) => Vec::new(),
            Kind::Words(vocabulary) => vocabulary.unknown_stretches(text).collect(),
            Kind::Pipeline(pipeline) => pipeline.unknown(text),
        }
    }

    /// The token that stands for what has none.
    pub fn unknown_token(&self) -> Option<u32> {
        match &self.kind {
            Kind::Bpe(..) => None,
            Kind::Words(vocabulary) => vocabulary.unknown_token(),
            Kind::Pipeline(pipeline) => pipeline.parts.unknown,
        }
    }

    /// The bytes of each stretch of the text that [`Tokenizer::encode`] makes the [`Tokenizer::unknown_token`] of.
    pub fn unknown_lens(&self, text: &str) -> Vec<usize> {
        self.unknown_stretches(text).into_iter().map(|stretch| stretch.len()).collect()
    }

    /// The tokens of a text that a model is to go on with: after the [`Tokenizer::prefix`], unless the text starts
    /// with it by name. `with_special` as in [`Tokenizer::encode_with_special`].
    pub fn encode_prompt(&self, text: &str, with_special: bool) -> Result<Vec<u32>> {
        let ids = if with_special { self.encode_with_special(text)? } else { self.encode(text)? };
        let prefix = self.prefix();
        Ok(if ids.starts_with(prefix) { ids } else { [prefix, &ids].concat() })
    }

    /// The tokens of a text. Names of special tokens are text like any other.
    ///
    /// Only a vocabulary without a token for the unknown can fail here, at a character that it does not have.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        self.encode_into(text, &mut ids)?;
        Ok(ids)
    }

    /// Appends the tokens of a text.
    pub fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        match &self.kind {
            Kind::Pipeline(pipeline) => pipeline.encode(text, false, ids),
            _ => self.encode_around(text, true, ids, |added| !added.special, |_| true),
        }
    }

    /// The tokens of a text in which the names of special tokens stand for those tokens.
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        match &self.kind {
            Kind::Pipeline(pipeline) => pipeline.encode(text, true, &mut ids)?,
            _ => self.encode_around(text, true, &mut ids, |_| true, |_| true)?,
        }
        Ok(ids)
    }

    /// Finds the added tokens that are wanted, where that is allowed, the first in the text first, the longest of those
    /// that start at the same place, and encodes what lies between them.
    pub(crate) fn encode_around(
        &self,
        text: &str,
        is_start: bool,
        ids: &mut Vec<u32>,
        wanted: impl Fn(&Added) -> bool,
        allowed: impl Fn(Found) -> bool,
    ) -> Result<()> {
        let find = |added: &Added, mut from: usize| loop {
            let at = from + text[from..].find(&added.name)?;
            if allowed(Found { added, at }) {
                return Some(at);
            }
            from = at + text[at..].chars().next().map_or(1, char::len_utf8);
        };
        let wanted = self.added.iter().filter(|added| wanted(added));
        let mut next: Vec<(usize, &Added)> =
            wanted.filter_map(|added| Some((find(added, 0)?, added))).collect();
        let mut done = 0;
        while let Some(&(at, added)) = next.iter().min_by_key(|(at, added)| (*at, Reverse(added.name.len())))
        {
            self.encode_text(&text[done..at], is_start || done > 0, ids)
                .map_err(|error| error.after(done))?;
            ids.push(added.id);
            done = at + added.name.len();
            next.retain_mut(|(at, added)| {
                let found = if *at < done { find(added, done) } else { Some(*at) };
                found.inspect(|&place| *at = place).is_some()
            });
        }
        self.encode_text(&text[done..], is_start || done > 0, ids).map_err(|error| error.after(done))
    }

    /// Appends the tokens of a text in which no added token is looked for.
    fn encode_text(&self, text: &str, is_start: bool, ids: &mut Vec<u32>) -> Result<()> {
        let (bpe, options) = match &self.kind {
            Kind::Words(vocabulary) => return vocabulary.encode(text, ids),
            Kind::Pipeline(pipeline) => return pipeline.encode(text, false, ids),
            Kind::Bpe(bpe, options) => (bpe, options),
        };
        let prefixed;
        let text = if options.add_prefix_space && is_start && !text.is_empty() && !text.starts_with(' ') {
            prefixed = format!(" {text}");
            &prefixed
        } else {
            text
        };
        let mut cache = Cache::default();
        for piece in pieces(text, options.pattern) {
            bpe.encode_piece(piece.as_bytes(), ids, &mut cache);
        }
        Ok(())
    }

    /// The tokens of any bytes. Stretches of UTF-8 are encoded as text; with byte-level BPE each byte between them
    /// is a token of its own, and other vocabularies refuse it.
    pub fn encode_bytes(&self, bytes: &[u8]) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(bytes.len() / 3);
        let mut done = 0;
        for chunk in bytes.utf8_chunks() {
            let encoded = match &self.kind {
                Kind::Pipeline(pipeline) if !chunk.valid().is_empty() => {
                    pipeline.encode(chunk.valid(), false, &mut ids)
                }
                Kind::Pipeline(_) => Ok(()),
                _ => self.encode_around(chunk.valid(), done == 0, &mut ids, |added| !added.special, |_| true),
            };
            encoded.map_err(|error| error.after(done))?;
            done += chunk.valid().len();
            for &byte in chunk.invalid() {
                match &self.kind {
                    Kind::Bpe(bpe, _) => ids.push(bpe.byte(byte)),
                    _ => return Err(TokenizerError::NotUtf8 { byte, offset: done }),
                }
                done += 1;
            }
        }
        Ok(ids)
    }

    /// The bytes of one token: those that it adds in the middle of a text.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.tokens().get(id)
    }

    /// The bytes that these tokens stand for; special tokens give their names.
    pub fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        self.decode_after(Decoding::default(), ids)
    }

    /// The bytes that these tokens add to a text that was decoded so far.
    pub fn decode_after(&self, mut decoding: Decoding, ids: &[u32]) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(4 * ids.len());
        for (position, &id) in ids.iter().enumerate() {
            let token = self.decode_next(&mut decoding, id).map_err(|error| match error {
                TokenizerError::IdOutOfRange { id, size, .. } => {
                    TokenizerError::IdOutOfRange { id, position, size }
                }
                other => other,
            })?;
            bytes.extend_from_slice(&token);
        }
        Ok(bytes)
    }

    /// The bytes that the next token adds to a text. One after the other, tokens give the bytes that
    /// [`Tokenizer::decode_bytes`] gives of all.
    pub fn decode_next(&self, decoding: &mut Decoding, id: u32) -> Result<Cow<'_, [u8]>> {
        let size = self.vocab_size();
        let token = self.token_bytes(id).ok_or(TokenizerError::IdOutOfRange { id, position: 0, size })?;
        Ok(decoding.next(self.joins(), token))
    }

    /// Where a text stands that starts with these tokens, so that more can be decoded. What starts or ends a text is no
    /// part of it.
    pub fn decoding_after(&self, ids: &[u32]) -> Decoding {
        if self.joins() == Joins::Plain {
            return Decoding::default();
        }
        let is_text = |id: &&u32| ![self.bos(), self.eot()].contains(id) && !self.prefix().contains(id);
        let Some(&last) = ids.iter().rev().find(is_text) else { return Decoding::default() };
        let mut decoding = Decoding::mid_text();
        decoding.next(self.joins(), self.token_bytes(last).unwrap_or_default());
        decoding
    }

    /// The text that these tokens stand for; what is not UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.decode_bytes(ids)?).into_owned())
    }

    /// Counts what a text costs.
    pub fn stats(&self, text: &str) -> Result<Stats> {
        Stats::new(self, text)
    }
}
