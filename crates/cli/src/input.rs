//! What several subcommands take in the same way: seeds, text to read, models to open.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use models::{Dtype, Gpt2};
use tokenizer::Tokenizer;

use crate::output::note;

/// The seed that was given, or a random one.
pub fn seed(given: Option<u64>) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library keys its hash maps from the system's randomness.
    given.unwrap_or_else(|| std::collections::hash_map::RandomState::new().build_hasher().finish() >> 32)
}

/// The type of weights of this name, for a flag.
pub fn dtype(name: &str) -> Result<Dtype, String> {
    let known = Dtype::ALL.map(Dtype::name).join(", ");
    Dtype::from_name(name).ok_or_else(|| format!("there is no such type of weights; choose one of {known}"))
}

/// Opens a model directory to run it: the model, with weights of this type or as they are stored, and its tokenizer.
pub fn open_model(dir: &Path, dtype: Option<Dtype>) -> Result<(Gpt2, Tokenizer)> {
    let model =
        Gpt2::open(dir, dtype).with_context(|| format!("cannot load a model from {}", dir.display()))?;
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

/// The error of a run; where numbers came out that are none, the weight that they come from, if it is one.
pub fn name_damage(model: &Gpt2, error: anyhow::Error) -> anyhow::Error {
    use eval::EvalError;
    use generate::{GenerateError, SamplingError};
    let is_damage = matches!(error.downcast_ref(), Some(EvalError::NotFinite { .. }))
        || matches!(error.downcast_ref(), Some(GenerateError::Sampling(SamplingError::Logits { .. })));
    match is_damage.then(|| model.check_finite()) {
        Some(Err(named)) => named.into(),
        _ => error,
    }
}

/// What `--tokenizer` may be where a vocabulary can be learnt from the data, and where not.
pub const MAY_LEARN: &str = "gpt2, char, word:N, bpe:N (N tokens, learnt from the data), or a directory or file that holds a tokenizer";
pub const MUST_EXIST: &str = "gpt2, or a directory or file that holds a tokenizer";

/// An existing tokenizer by name (`gpt2`), file or directory; `choices` says what may be given.
pub fn open_tokenizer(spec: &str, choices: &str) -> Result<Tokenizer> {
    if !Path::new(spec).exists() {
        ensure!(spec == "gpt2", "--tokenizer {spec}: there is no such tokenizer; give {choices}");
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

/// A prompt from a file, or from standard input for `-`, without the newline that ends it: editors and `echo` add one
/// that is not meant.
pub fn read_prompt(path: &Path) -> Result<String> {
    let mut text = read_text(path)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// The text of a file, or of standard input for `-`.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{}: not UTF-8 at byte {offset}; convert it first", path.display())
    })
}

/// The largest vocabulary that can be asked for.
const MOST_TOKENS: usize = 1 << 24;

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
        let size: usize = size.parse().ok().with_context(|| {
            format!("--tokenizer {spec}: {kind}:N takes a number of tokens, as in {kind}:8000")
        })?;
        ensure!(
            size <= MOST_TOKENS,
            "--tokenizer {spec}: a vocabulary may have at most {} tokens",
            grouped(MOST_TOKENS as u64)
        );
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

/// Pieces of a file, and characters of each, that are looked at to tell Chinese.
const SAMPLE_PIECES: usize = 20;
const SAMPLE_CHARS: usize = 2_000;

/// Says what GPT-2's English vocabulary costs on those of these files that are Chinese. Shards are passed over.
pub fn warn_about_chinese<'a>(
    paths: impl Iterator<Item = &'a Path>,
    encoding: Option<&str>,
    tokenizer: &Tokenizer,
) -> Result<()> {
    if !tokenizer.is_same_as(&Tokenizer::gpt2()) {
        return Ok(());
    }
    let encoding = data::read::encoding(encoding)?;
    for path in paths.filter(|path| path.is_file()) {
        // A file that cannot be read is refused where it is read as a whole.
        let Ok(pieces) = data::read::read(path, encoding) else { continue };
        let sample: String = pieces.take(SAMPLE_PIECES).flatten().map(|piece| sample(&piece.text)).collect();
        let stats = tokenizer.stats(&sample)?;
        if 5 * stats.chinese_chars > stats.chars {
            note!(
                "warning: {} is Chinese, and GPT-2's vocabulary spends {:.1} tokens on each character of it; \
                 a vocabulary of your own, such as --tokenizer bpe:8000, spends about one or less",
                path.display(),
                stats.tokens_per_char
            );
        }
    }
    Ok(())
}

/// Characters from the beginning and the middle of a text: the beginning may be a licence in another language.
fn sample(text: &str) -> String {
    let middle = text.floor_char_boundary(text.len() / 2);
    let from = |start: usize| text[start..].chars().take(SAMPLE_CHARS);
    if middle > 4 * SAMPLE_CHARS { from(0).chain(from(middle)).collect() } else { from(0).collect() }
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
        assert!(Learn::parse("word:99999999").unwrap_err().to_string().contains("at most 16,777,216"));
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
        assert_eq!(duration(59.6), "60 s");
        assert_eq!(duration(7300.0), "2.0 h");
    }
}
