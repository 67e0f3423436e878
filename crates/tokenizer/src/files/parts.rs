//! A byte-level BPE as plain data, as formats keep it that hold a whole model: tokens, merges, and what tokens are.

use std::path::Path;

use super::{Alphabet, load};
use crate::tokenizer::{Added, Kind, Options};
use crate::{Result, Tokenizer, TokenizerError};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It stands for text.
    Text,
    /// It stands for something other than its name, and is looked for only when that is asked for.
    Special,
    /// It is found in text by its name, before anything else is cut.
    Added,
    /// It fills up the table.
    Unused,
}

/// A byte-level BPE that cuts text by GPT-2's pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Tokens by id: those of text in GPT-2's alphabet of printable characters, the others by name.
    pub tokens: Vec<String>,
    /// What each is.
    pub roles: Vec<Role>,
    /// Pairs of tokens with a space between, the first to be merged first.
    pub merges: Vec<String>,
    /// The token that ends a text.
    pub eot: u32,
}

impl Tokenizer {
    /// Makes a tokenizer of its parts, which came from `path`; nothing in them is believed. Unused tokens at the end are
    /// left out.
    pub fn from_parts(path: &Path, parts: &Parts) -> Result<Tokenizer> {
        let Parts { tokens, roles, merges, eot } = parts;
        let format = |reason: String| TokenizerError::Format { path: path.to_owned(), reason };
        if roles.len() != tokens.len() {
            return Err(format(format!("{} tokens have {} roles", tokens.len(), roles.len())));
        }
        let n = roles.iter().rposition(|&role| role != Role::Unused).map_or(0, |last| last + 1);
        if *eot as usize >= n {
            return Err(format(format!("token {eot} is to end texts, but there are {n}")));
        }
        let mut added = Vec::new();
        for ((name, role), id) in tokens.iter().zip(roles).zip(0..) {
            if !matches!(role, Role::Special | Role::Added) {
                continue;
            }
            if name.is_empty() {
                return Err(format(format!("token {id} has no name to be found by")));
            }
            added.push(Added { name: name.clone(), id, special: *role == Role::Special });
        }
        let pair = |merge| {
            let pair = str::split_once(merge, ' ');
            pair.ok_or_else(|| format(format!("the merge {merge:?} is not a pair of tokens")))
        };
        let pairs: Vec<_> = merges.iter().map(|merge| pair(merge)).collect::<Result<_>>()?;
        let names: Vec<&str> = tokens[..n].iter().map(String::as_str).collect();
        load::byte_level(path, &names, &pairs, added, *eot, Options::GPT2)
    }

    /// The parts of a byte-level BPE that cuts text by GPT-2's pattern; other kinds have none.
    pub fn parts(&self) -> Option<Parts> {
        let Kind::Bpe(bpe, Options::GPT2) = self.inside() else { return None };
        let alphabet = Alphabet::new();
        let mut tokens: Vec<String> = bpe.tokens().iter().map(|token| alphabet.write(token)).collect();
        let mut roles = vec![Role::Text; tokens.len()];
        for Added { name, id, special } in self.added() {
            tokens[*id as usize] = name.clone();
            roles[*id as usize] = if *special { Role::Special } else { Role::Added };
        }
        let merges = bpe.merges().into_iter();
        let merges =
            merges.map(|(l, r, _)| format!("{} {}", tokens[l as usize], tokens[r as usize])).collect();
        Some(Parts { tokens, roles, merges, eot: self.eot() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(parts: &Parts) -> Result<Tokenizer> {
        Tokenizer::from_parts(Path::new("model.gguf"), parts)
    }

    #[test]
    fn a_tokenizer_comes_back_from_its_parts() {
        let docs = ["the theme of the thesis", "das the \u{e9}\u{4e2d}"];
        for tokenizer in [Tokenizer::gpt2(), Tokenizer::train_bpe(docs, 270).unwrap()] {
            let mut parts = tokenizer.parts().unwrap();
            assert_eq!(parts.tokens.len(), tokenizer.vocab_size());
            assert_eq!(parts.roles.iter().filter(|&&role| role == Role::Special).count(), 1);
            assert!(from(&parts).unwrap().is_same_as(&tokenizer));
            // What fills up the table changes nothing.
            parts.tokens.extend(["[PAD1]".to_owned(), String::new()]);
            parts.roles.extend([Role::Unused; 2]);
            assert!(from(&parts).unwrap().is_same_as(&tokenizer));
        }
        assert!(Tokenizer::train_chars(["abc"]).unwrap().parts().is_none());
    }

    #[test]
    fn added_tokens_keep_their_kinds() {
        let mut parts = Tokenizer::train_bpe(["abc"], 257).unwrap().parts().unwrap();
        parts.tokens.extend(["<user>".to_owned(), "New York".to_owned()]);
        parts.roles.extend([Role::Special, Role::Added]);
        let tokenizer = from(&parts).unwrap();
        assert_eq!(tokenizer.parts().unwrap(), parts);
        let (user, york) = (257, 258);
        assert_eq!(tokenizer.encode_with_special("<user>New York").unwrap(), [user, york]);
        assert!(!tokenizer.encode("<user>").unwrap().contains(&user));
        assert_eq!(tokenizer.encode("New York").unwrap(), [york]);
    }

    #[test]
    fn parts_that_are_no_tokenizer_are_refused() {
        let good = Tokenizer::train_bpe(["the theme the"], 260).unwrap().parts().unwrap();
        let says = |change: &dyn Fn(&mut Parts), part: &str| {
            let mut parts = good.clone();
            change(&mut parts);
            let error = from(&parts).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("model.gguf"), "{error}");
        };
        says(&|parts| parts.eot = 1000, "token 1000");
        says(&|parts| _ = parts.roles.pop(), "roles");
        says(&|parts| parts.merges.push("th".into()), "\"th\"");
        says(&|parts| parts.merges.push("th zz".into()), "no token");
        says(&|parts| parts.tokens[5] = "\u{4e2d}".into(), "alphabet");
        says(&|parts| (parts.tokens[259], parts.roles[259]) = (String::new(), Role::Added), "name");
        says(&|parts| parts.roles.fill(Role::Unused), "there are 0");
    }
}
