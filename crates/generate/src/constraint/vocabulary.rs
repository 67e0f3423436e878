//! What a constraint must know of a tokenizer: the bytes of its tokens, as a tree that is walked along with the grammar.

use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{ParserFactory, api::ParserLimits};
use tokenizer::Tokenizer;

use super::ConstraintError;

/// The tokens of a tokenizer, ready for constraints. Cloning shares them.
#[derive(Clone)]
pub struct Vocabulary {
    inner: Arc<Inner>,
}

struct Inner {
    factory: ParserFactory,
    env: TokEnv,
    /// Tokens that a search for an ending is made of, by id: one for each byte if there are such, else all of them.
    letters: Vec<u32>,
    is_whole: bool,
}

impl Vocabulary {
    /// Builds the tree, which takes a fraction of a second for GPT-2's 50,257 tokens.
    ///
    /// # Errors
    /// A vocabulary whose tokens have no bytes of their own, such as BERT's, where the text decides on the spaces
    /// between words.
    pub fn new(tokenizer: &Tokenizer) -> Result<Vocabulary, ConstraintError> {
        if !tokenizer.has_fixed_bytes() {
            return Err(ConstraintError::Vocabulary { kind: tokenizer.kind() });
        }
        let n = tokenizer.vocab_size() as u32;
        // A token that stands for something else than its bytes is no text: it has none here.
        let bytes = |id| if tokenizer.is_special(id) { None } else { tokenizer.token_bytes(id) };
        let words: Vec<Vec<u8>> = (0..n).map(|id| bytes(id).unwrap_or_default().to_vec()).collect();
        let letter = |byte: u8| words.iter().position(|word| *word == [byte]).map(|id| id as u32);
        let single: Option<Vec<u32>> = (0..=u8::MAX).map(letter).collect();
        let is_whole = single.is_some();
        let letters = single.unwrap_or_else(|| (0..n).filter(|&id| !words[id as usize].is_empty()).collect());
        let trie = TokTrie::from(&TokRxInfo::new(n, tokenizer.eot()), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory =
            ParserFactory::new_simple(&env).map_err(|error| ConstraintError::broken(&error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        Ok(Vocabulary { inner: Arc::new(Inner { factory, env, letters, is_whole }) })
    }

    pub(super) fn factory(&self) -> &ParserFactory {
        &self.inner.factory
    }

    pub(super) fn trie(&self) -> &TokTrie {
        self.inner.env.tok_trie()
    }

    /// Tokens that a search for an ending is made of.
    pub(super) fn letters(&self) -> &[u32] {
        &self.inner.letters
    }

    /// Whether every byte is a token, so that any text can be written.
    pub(super) fn is_whole(&self) -> bool {
        self.inner.is_whole
    }

    /// The fewest tokens that make these bytes, without those in `banned`; none where they cannot be made.
    pub(super) fn fewest(&self, bytes: &[u8], banned: &[u32]) -> Option<Vec<u32>> {
        let trie = self.trie();
        // For each place, from the end: how many tokens reach the end, and the first of them with its length.
        let mut best: Vec<Option<(usize, u32, usize)>> = vec![None; bytes.len() + 1];
        best[bytes.len()] = Some((0, 0, 0));
        for start in (0..bytes.len()).rev() {
            let mut node = trie.root();
            for end in start + 1..=bytes.len() {
                let Some(child) = trie.child_at_byte(node, bytes[end - 1]) else { break };
                node = child;
                let Some(id) = node.token_id().filter(|id| !banned.contains(id)) else { continue };
                let Some((rest, ..)) = best[end] else { continue };
                if best[start].is_none_or(|(count, ..)| rest < count) {
                    best[start] = Some((rest + 1, id, end - start));
                }
            }
        }
        let (mut ids, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let (_, id, len) = best[at]?;
            ids.push(id);
            at += len;
        }
        Some(ids)
    }
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vocabulary of {} tokens", self.trie().vocab_size())
    }
}

/// What a grammar may cost. Those of a step are wide: a limit that is met ends the text with an error.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 20_000,
    initial_lexer_fuel: 1_000_000,
    step_lexer_fuel: 2_000_000,
    step_max_items: 200_000,
    max_lexer_states: 250_000,
    max_grammar_size: 500_000,
    precompute_large_lexemes: true,
    verbose_errors: false,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_tokens_of_some_bytes() {
        let gpt2 = Tokenizer::gpt2();
        let vocabulary = Vocabulary::new(&gpt2).unwrap();
        for text in ["", "a", "Hello world", "{\"name\": \"李白\"}", "世界🙂"] {
            let ids = vocabulary.fewest(text.as_bytes(), &[]).unwrap();
            assert_eq!(gpt2.decode(&ids).unwrap(), text);
            assert!(ids.len() <= gpt2.encode(text).unwrap().len(), "{text}");
        }
        let hello = gpt2.encode("Hello").unwrap();
        let others = vocabulary.fewest(b"Hello", &hello).unwrap();
        assert!(others.len() > 1 && !others.contains(&hello[0]));
        let chars = Tokenizer::train_chars(["{}\"ab世"]).unwrap();
        let vocabulary = Vocabulary::new(&chars).unwrap();
        assert!(!vocabulary.is_whole());
        assert_eq!(vocabulary.fewest("a世".as_bytes(), &[]), Some(chars.encode("a世").unwrap()));
        assert_eq!(vocabulary.fewest("a界".as_bytes(), &[]), None);
    }
}
