//! What several subcommands take in the same way: seeds, text to read, models to open.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hub::{Name, Wanted};
use models::checkpoint::{self, Format, Found};
use models::{Dtype, Gpt2};
use tokenizer::{Tokenizer, TokenizerError};

use crate::download;
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

/// Where a model lies: a path that exists, or else a name on the hub (`gpt2`, `org/name@revision`), which is downloaded if it
/// is not in the cache. `hf:NAME` is a name even where there is such a path.
pub fn model_path(spec: impl AsRef<Path>, offline: bool) -> Result<PathBuf> {
    let path = spec.as_ref();
    let text = path.to_string_lossy();
    let forced = text.starts_with("hf:");
    if !forced && path.exists() {
        return Ok(path.to_owned());
    }
    let found = Name::parse(&text)
        .map_err(anyhow::Error::from)
        .and_then(|name| Ok(download::get(&name, Wanted::Model, offline)?.path));
    if forced {
        return found;
    }
    found.with_context(|| {
        format!("there is no file or directory {text}, and it is not to be had from the hub")
    })
}

/// The same for `--tokenizer`: names of the hub become directories, and all else stays as it was typed.
pub fn tokenizer_path(spec: &str, offline: bool) -> Result<String> {
    let is_local = spec == "gpt2" || (Path::new(spec).exists() && !spec.starts_with("hf:"));
    match Name::parse(spec) {
        Ok(name) if !is_local => {
            let got = download::get(&name, Wanted::Tokenizer, offline);
            let got =
                got.with_context(|| format!("--tokenizer {spec}: there is no such file or directory"))?;
            Ok(got.path.display().to_string())
        }
        _ => Ok(spec.to_owned()),
    }
}

/// Opens a model to run it: the model, with weights of this type or as they are stored, and its tokenizer.
pub fn open_model(dir: &Path, dtype: Option<Dtype>) -> Result<(Gpt2, Tokenizer)> {
    let model =
        Gpt2::open(dir, dtype).with_context(|| format!("cannot load a model from {}", dir.display()))?;
    let tokenizer = tokenizer_of(dir, model.config().vocab_size)
        .with_context(|| format!("cannot load a tokenizer from {}", dir.display()))?;
    ensure_fits(&tokenizer, model.config().vocab_size, dir)?;
    Ok((model, tokenizer))
}

/// Refuses what can be read only once, where a vocabulary is learnt from a text before it is cut into tokens.
pub fn refuse_pipes(paths: &[PathBuf]) -> Result<()> {
    let pipe = paths.iter().find(|path| path.exists() && !path.is_file() && !path.is_dir());
    pipe.map_or(Ok(()), |path| {
        bail!(
            "{} can be read only once, and its vocabulary is to be learnt first; write it to a file",
            path.display()
        )
    })
}

/// Refuses a tokenizer with tokens that the model from this place does not know.
pub fn ensure_fits(tokenizer: &Tokenizer, vocab_size: usize, place: &Path) -> Result<()> {
    ensure!(
        tokenizer.vocab_size() <= vocab_size,
        "the tokenizer in {} has {} tokens, but the model {vocab_size}; take both from the same training",
        place.display(),
        tokenizer.vocab_size()
    );
    Ok(())
}

/// The tokenizer of a model of so many tokens: in its directory, inside its file, or beside it. Weights of GPT-2's size that
/// have none are taken to have GPT-2's.
pub fn tokenizer_of(path: &Path, vocab_size: usize) -> Result<Tokenizer> {
    let found = checkpoint::find(path)?;
    let Some(dir) = files_beside(&found, path) else {
        return Ok(generate::gguf::tokenizer(&found.path)?);
    };
    let none = match Tokenizer::load(&dir) {
        Err(none @ TokenizerError::NotFound { .. }) => none,
        loaded => return Ok(loaded?),
    };
    if found.format == Format::Safetensors {
        return Err(none.into());
    }
    let chars = dir.join("meta.pkl");
    if found.format == Format::Torch && chars.is_file() {
        let chars = checkpoint::read_nano_gpt_chars(&chars)?.into_iter().map(|(text, _)| text);
        return Ok(Tokenizer::from_chars(chars)?);
    }
    let gpt2 = Tokenizer::gpt2();
    // nanoGPT and llm.c make the table a little longer, so that its length is a multiple of 128.
    ensure!(
        (gpt2.vocab_size()..=gpt2.vocab_size().next_multiple_of(128)).contains(&vocab_size),
        "there is no tokenizer beside {}, and its {vocab_size} tokens are not GPT-2's; put tokenizer.json beside it",
        found.path.display()
    );
    Ok(gpt2)
}

/// The directory of the files that belong to a model, such as its tokenizer's; none where all is in one file.
pub fn files_beside(found: &Found, path: &Path) -> Option<PathBuf> {
    let is_whole = found.format == Format::Gguf && (path.is_file() || !path.join("tokenizer.json").is_file());
    let dir = found.path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    (!is_whole).then(|| dir.to_owned())
}

/// The error of a run; where numbers came out that are none, the weight that they come from, if it is one.
pub fn name_damage(model: &Gpt2, error: anyhow::Error) -> anyhow::Error {
    use eval::EvalError;
    use generate::apps::summarize::SummarizeError;
    use generate::{GenerateError, SamplingError};
    let written = match error.downcast_ref() {
        Some(SummarizeError::Generate(error)) => Some(error),
        _ => error.downcast_ref(),
    };
    let is_damage = matches!(
        error.downcast_ref(),
        Some(EvalError::NotFinite { .. } | EvalError::ExampleNotFinite { .. })
    ) || matches!(written, Some(GenerateError::Sampling(SamplingError::Logits { .. })));
    match is_damage.then(|| model.check_finite()) {
        Some(Err(named)) => named.into(),
        _ => error,
    }
}

/// What `--tokenizer` may be where a vocabulary can be learnt from the data, and where not.
pub const MAY_LEARN: &str = "gpt2, char, word:N, bpe:N (N tokens, learnt from the data), a directory or file that holds a tokenizer, or a name on the hub";
pub const MUST_EXIST: &str = "gpt2, a directory or file that holds a tokenizer, or a name on the hub";

/// An existing tokenizer by name (`gpt2`), file or directory; `choices` says what may be given.
pub fn open_tokenizer(spec: &str, choices: &str) -> Result<Tokenizer> {
    if !Path::new(spec).exists() {
        ensure!(spec == "gpt2", "--tokenizer {spec}: there is no such tokenizer; give {choices}");
        return Ok(Tokenizer::gpt2());
    }
    let path = Path::new(spec);
    let loaded = match Tokenizer::load(path) {
        // A model of another format has it inside, or beside it.
        Err(_) if checkpoint::find(path).is_ok_and(|found| found.format != Format::Safetensors) => {
            checkpoint::load_config(path)
                .map_err(anyhow::Error::from)
                .and_then(|config| tokenizer_of(path, config.vocab_size))
        }
        loaded => loaded.map_err(anyhow::Error::from),
    };
    loaded.with_context(|| format!("cannot load the tokenizer {spec}"))
}

/// The most bytes of a text that is read at once; and of a file of settings. What has no end, such as a device, has more.
const LONGEST_TEXT: u64 = 1 << 30;
const LONGEST_SETTINGS: u64 = 1 << 20;

/// The bytes of a file, or of standard input for `-`.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    read_at_most(LONGEST_TEXT, path)
}

fn read_at_most(most: u64, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let (name, read) = if path == Path::new("-") {
        ("standard input".into(), std::io::stdin().lock().take(most + 1).read_to_end(&mut bytes))
    } else {
        let file = std::fs::File::open(path);
        (path.display().to_string(), file.and_then(|file| file.take(most + 1).read_to_end(&mut bytes)))
    };
    read.with_context(|| format!("cannot read {name}"))?;
    ensure!(bytes.len() as u64 <= most, "{name} has more than {} MB; give less", most >> 20);
    Ok(bytes)
}

/// The text of a file of settings.
pub fn read_settings(path: &Path) -> Result<String> {
    utf8(path, read_at_most(LONGEST_SETTINGS, path)?)
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
    utf8(path, read_bytes(path)?)
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
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

/// Says what of a text the vocabulary has no tokens for, and what the model sees instead.
pub fn note_unknown(tokenizer: &Tokenizer, text: &str, what: &str) {
    // Without a token for the unknown, the text is refused where it is encoded.
    let Some(unknown) = tokenizer.unknown_token().and_then(|id| tokenizer.token_bytes(id)) else { return };
    let Some((offset, char)) = tokenizer.unknown(text) else { return };
    let n = tokenizer.unknown_stretches(text).len();
    let more = if n > 1 { format!(", nor for {} more", grouped(n as u64 - 1)) } else { String::new() };
    note!(
        "warning: the vocabulary has no token for {char:?} (U+{:04X}) at byte {offset} of {what}{more}; the model sees {}",
        char as u32,
        String::from_utf8_lossy(unknown).trim()
    );
}

/// Says what a vocabulary does to text that does not come back.
pub fn note_changes(tokenizer: &Tokenizer) {
    if !tokenizer.changes().is_empty() {
        note!("note: this vocabulary does not keep text as it is: {}", tokenizer.changes().join(", "));
    }
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

/// Bytes as people say them.
pub fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b < 1e3 => format!("{b} bytes"),
        b if b < 1e6 => format!("{:.1} kB", b / 1e3),
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.2} GB", b / 1e9),
    }
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

    /// `hub` uses none of our crates, and so has a list of its own.
    #[test]
    fn what_is_downloaded_is_what_a_tokenizer_is_made_of() {
        let sorted = |mut names: [&'static str; 8]| {
            names.sort();
            names
        };
        assert_eq!(sorted(hub::TOKENIZER_FILES), sorted(tokenizer::FILES));
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
        assert_eq!(duration(59.6), "60 s");
        assert_eq!(duration(7300.0), "2.0 h");
    }
}
