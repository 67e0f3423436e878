//! Log-probabilities of tokens, in the two shapes that OpenAI gives them: lists for completions, objects for chats.
//!
//! They belong to what is shown: a token is told once the text up to its first character is. Those of a stop string, which is
//! cut off, are not told; so a stream tells the same tokens as an answer in one piece.

use std::collections::VecDeque;
use std::sync::Arc;

use generate::{Finish, Generation, Request, TokenLogprobs};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokenizer::{Decoding, Tokenizer, Utf8Stream};

/// What stands for minus infinity, which JSON does not have.
const NEVER: f64 = -9999.0;

/// A token that is told of.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What it adds to the text.
    bytes: Vec<u8>,
    /// The character of the text that it begins with.
    offset: usize,
    /// How likely it was; nothing is known of the first token of a prompt.
    logprobs: Option<TokenLogprobs>,
}

/// Finds the places of a text's tokens, and when they may be told.
#[derive(Debug)]
pub struct Teller {
    tokenizer: Arc<Tokenizer>,
    decoding: Decoding,
    characters: Utf8Stream,
    /// Characters that the tokens so far have made, and characters that are shown.
    made: usize,
    shown: usize,
    received: usize,
    held: VecDeque<Told>,
}

impl Teller {
    /// For the text that follows a request's prompt, and begins at this character of what is shown.
    pub fn new(tokenizer: &Arc<Tokenizer>, request: &Request, start: usize) -> Teller {
        let decoding = match request.constraint {
            Some(_) => Decoding::mid_text(),
            None => tokenizer.decoding_after(&request.prompt),
        };
        Teller::at(tokenizer, decoding, start)
    }

    fn at(tokenizer: &Arc<Tokenizer>, decoding: Decoding, start: usize) -> Teller {
        let (tokenizer, characters) = (tokenizer.clone(), Utf8Stream::default());
        Teller {
            tokenizer,
            decoding,
            characters,
            made: start,
            shown: start,
            received: 0,
            held: VecDeque::new(),
        }
    }

    /// A prompt's tokens, of which the first has no log-probability.
    pub fn prompt(tokenizer: &Arc<Tokenizer>, ids: &[u32], logprobs: &[TokenLogprobs]) -> Vec<Told> {
        let mut teller = Teller::at(tokenizer, Decoding::default(), 0);
        if let Some(&first) = ids.first() {
            teller.add(first, None);
        }
        logprobs.iter().for_each(|known| teller.add(known.id, Some(known.clone())));
        teller.held.into()
    }

    /// Takes in a piece of text with the tokens drawn since the last one.
    pub fn piece(&mut self, piece: &str, tokens: Vec<TokenLogprobs>) -> Vec<Told> {
        self.received += tokens.len();
        tokens.into_iter().for_each(|token| self.add(token.id, Some(token)));
        self.shown += piece.chars().count();
        let ready = self.held.iter().take_while(|told| told.offset < self.shown).count();
        self.held.drain(..ready).collect()
    }

    /// The rest of a text that is whole. `piece` is what of it has not been shown; with `end` the token that ended it comes last.
    pub fn end(&mut self, generation: &Generation, piece: &str, end: bool) -> Vec<Told> {
        let rest = generation.logprobs.as_deref().unwrap_or_default();
        let rest = rest.get(self.received..).unwrap_or_default().to_vec();
        let mut told = self.piece(piece, rest);
        let by_string = generation.finish == Finish::Stop && generation.end_logprobs.is_none();
        if !by_string {
            told.extend(self.held.drain(..));
        }
        if let Some(logprobs) = generation.end_logprobs.as_ref().filter(|_| end) {
            let bytes = self.tokenizer.token_bytes(logprobs.id).unwrap_or_default().to_vec();
            told.push(Told { bytes, offset: self.shown, logprobs: Some(logprobs.clone()) });
        }
        told
    }

    fn add(&mut self, id: u32, logprobs: Option<TokenLogprobs>) {
        // Tokens of the engine are tokens of the vocabulary.
        let bytes = self.tokenizer.decode_next(&mut self.decoding, id).unwrap_or_default().into_owned();
        let (first, rest) = bytes.split_at(bytes.len().min(1));
        let made = self.characters.push(first).chars().count();
        // What a byte completes or is, is the last character made; the first byte of several begins the next one. What it breaks
        // off becomes a character of its own before that.
        let begins = first.first().is_none_or(|byte| (0xc2..=0xf4).contains(byte));
        let offset = self.made + if begins { made } else { made.saturating_sub(1) };
        self.made += made + self.characters.push(rest).chars().count();
        self.held.push_back(Told { bytes, offset, logprobs });
    }
}

/// A token as text; where it is not whole characters, its bytes.
fn name(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |text, byte| text + &format!("\\x{byte:02x}")),
    }
}

/// A number that JSON has, and that is the same wherever it is written.
fn finite(logprob: f32) -> f64 {
    if logprob.is_nan() { NEVER } else { f64::from(logprob).max(NEVER) }
}

/// The shape of completions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Lists {
    /// The tokens, as text.
    pub tokens: Vec<String>,
    /// Their log-probabilities; null where none is known, for the first token of a prompt.
    pub token_logprobs: Vec<Option<f64>>,
    /// The most likely tokens at each place, and the one that stands there.
    pub top_logprobs: Option<Vec<Option<Map<String, Value>>>>,
    /// The character of the choice's text that each begins with.
    pub text_offset: Vec<usize>,
}

impl Lists {
    /// Of these tokens, with so many alternatives.
    pub fn of(tokenizer: &Tokenizer, told: &[Told], alternatives: usize) -> Lists {
        let mut lists = Lists::default();
        let mut top = Vec::new();
        for Told { bytes, offset, logprobs } in told {
            lists.tokens.push(name(bytes));
            lists.text_offset.push(*offset);
            lists.token_logprobs.push(logprobs.as_ref().map(|known| finite(known.logprob)));
            top.push(logprobs.as_ref().map(|known| {
                let others = known.top.iter().map(|&(id, logprob)| {
                    // The one that stands there has the bytes that it has there.
                    let text = if id == known.id { name(bytes) } else { text_of(tokenizer, id) };
                    (text, json!(finite(logprob)))
                });
                let mut all: Map<String, Value> = others.collect();
                all.insert(name(bytes), json!(finite(known.logprob)));
                all
            }));
        }
        lists.top_logprobs = (alternatives > 0).then_some(top);
        lists
    }
}

/// The shape of chats: an object for each token.
pub fn objects(tokenizer: &Tokenizer, told: &[Told]) -> Value {
    let object = |bytes: &[u8], logprob: f32| json!({ "token": name(bytes), "logprob": finite(logprob), "bytes": bytes });
    let content = told.iter().map(|Told { bytes, logprobs, .. }| {
        let known = logprobs.as_ref();
        let mut value = object(bytes, known.map_or(0.0, |known| known.logprob));
        let top = known.map_or(&[][..], |known| &known.top);
        let top =
            top.iter().map(|&(id, logprob)| object(tokenizer.token_bytes(id).unwrap_or_default(), logprob));
        value["top_logprobs"] = top.collect();
        value
    });
    json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
}

fn text_of(tokenizer: &Tokenizer, id: u32) -> String {
    name(tokenizer.token_bytes(id).unwrap_or_default())
}
