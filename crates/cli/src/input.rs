//! What several subcommands take in the same way: seeds, text to read, models to open.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use models::Gpt2;
use tokenizer::Tokenizer;

/// The seed that was given, or a random one.
pub fn seed(given: Option<u64>) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library keys its hash maps from the system's randomness.
    given.unwrap_or_else(|| std::collections::hash_map::RandomState::new().build_hasher().finish() >> 32)
}

/// Opens a model directory: the model and its tokenizer.
pub fn open_model(dir: &Path) -> Result<(Gpt2, Tokenizer)> {
    let model = Gpt2::load(dir).with_context(|| format!("cannot load a model from {}", dir.display()))?;
    let tokenizer =
        Tokenizer::load(dir).with_context(|| format!("cannot load a tokenizer from {}", dir.display()))?;
    if tokenizer.vocab_size() > model.config().vocab_size {
        bail!(
            "the tokenizer in {} has {} tokens, but the model {}; take both from the same model",
            dir.display(),
            tokenizer.vocab_size(),
            model.config().vocab_size
        );
    }
    Ok((model, tokenizer))
}

/// An existing tokenizer by name (`gpt2`), file or directory.
pub fn open_tokenizer(spec: &str) -> Result<Tokenizer> {
    if spec == "gpt2" && !Path::new(spec).exists() {
        return Ok(Tokenizer::gpt2());
    }
    Tokenizer::load(Path::new(spec)).with_context(|| format!("cannot load the tokenizer {spec}"))
}

/// The bytes of a file, or of standard input for `-`.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
    } else {
        bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(bytes)
}

/// The text of a file, or of standard input for `-`.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{}: not UTF-8 at byte {offset}; convert it first", path.display())
    })
}

/// A vocabulary to be learnt from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// One token a character.
    Chars,
    /// The most frequent words.
    Words(usize),
    /// Byte-level BPE.
    Bpe(usize),
}

impl Learn {
    /// Reads `char`, `word:N` or `bpe:N`; `None` for anything else.
    pub fn parse(spec: &str) -> Result<Option<Learn>> {
        let Some((kind, size)) = spec.split_once(':') else {
            return Ok((spec == "char").then_some(Learn::Chars));
        };
        if !["word", "bpe"].contains(&kind) || Path::new(spec).exists() {
            return Ok(None);
        }
        let size = size.parse().ok().filter(|&size| size <= 1 << 24);
        let size = size.with_context(|| {
            format!("--tokenizer {spec}: {kind}:N takes a number of tokens, as in {kind}:8000")
        })?;
        Ok(Some(if kind == "word" { Learn::Words(size) } else { Learn::Bpe(size) }))
    }

    /// Learns it from documents.
    pub fn learn_from(
        self,
        docs: impl Iterator<Item = Result<String, data::DataError>>,
    ) -> Result<Tokenizer> {
        let mut failed = None;
        let docs = docs.map_while(|doc| doc.map_err(|error| failed = Some(error)).ok());
        let learnt = match self {
            Learn::Chars => Tokenizer::train_chars(docs),
            Learn::Words(size) => Tokenizer::train_words(docs, size),
            Learn::Bpe(size) => Tokenizer::train_bpe(docs, size),
        };
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(learnt?),
        }
    }
}

/// The documents of several files, one after the other.
pub fn documents(
    paths: &[PathBuf],
    encoding: Option<&str>,
) -> Result<impl Iterator<Item = Result<String, data::DataError>> + use<>> {
    let encoding = data::read::encoding(encoding)?;
    let files: Vec<_> =
        paths.iter().map(|path| data::read::read(path, encoding)).collect::<Result<_, _>>()?;
    Ok(files.into_iter().flatten().map(|piece| piece.map(|piece| piece.text)))
}

/// A number with thousands separated: 1,234,567.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Seconds as people say them.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabularies_to_learn() {
        assert_eq!(Learn::parse("char").unwrap(), Some(Learn::Chars));
        assert_eq!(Learn::parse("bpe:300").unwrap(), Some(Learn::Bpe(300)));
        assert_eq!(Learn::parse("gpt2").unwrap(), None);
        assert!(Learn::parse("word:many").is_err());
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
        assert_eq!(duration(59.6), "60 s");
        assert_eq!(duration(7300.0), "2.0 h");
    }
}
