//! Text to tokens, on all cores and in constant memory.
//!
//! Pieces of text are read in order, a few for each core; the cores encode them; their tokens are taken in order.
//! So the result does not depend on the number of threads. Each document is followed by end-of-text,
//! and starts with what the tokenizer puts before a text.

use std::fs;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use encoding_rs::Encoding;
use serde::{Deserialize, Serialize};
use tokenizer::{Tokenizer, TokenizerError};

use crate::read::{Piece, Source, read, read_some};
use crate::shards::{Shard, ShardWriter};
use crate::{DataError, Result, Tokens};

/// The file that says how shards were made.
pub const SUMMARY: &str = "prepare.json";
/// Pieces for each core between two hand-overs.
const PIECES: usize = 4;

/// What was counted on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Documents, but for empty ones.
    pub documents: u64,
    /// Documents without a character, which were left out.
    pub empty_documents: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// Tokens, with what starts and ends each document.
    pub tokens: u64,
    /// Those of them that stand for text which has no token.
    #[serde(default)]
    pub unknown_tokens: u64,
}

/// The tokens of a stretch of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The place of each `<unk>` among them, and the bytes of text that it stands for.
    pub unknown: Vec<(usize, u32)>,
}

/// One source as tokens.
#[derive(Clone, Debug)]
pub struct Tokenized {
    /// Where from.
    pub source: Source,
    /// Its tokens.
    pub tokens: Tokens,
    /// Held-out tokens that came with it: shards have their own.
    pub val: Option<Tokens>,
}

/// Encodes a file and gives the tokens to `sink`, in order.
pub fn encode_file(
    path: &Path,
    tokenizer: &Tokenizer,
    encoding: &'static Encoding,
    threads: usize,
    mut sink: impl FnMut(&Encoded) -> Result<()>,
) -> Result<Counts> {
    let mut pieces = read(path, encoding)?;
    let mut counts = Counts::default();
    loop {
        let round: Vec<Piece> = pieces.by_ref().take(threads.max(1) * PIECES).collect::<Result<_>>()?;
        if round.is_empty() {
            break;
        }
        for (piece, encoded) in round.iter().zip(encode_round(path, tokenizer, &round, threads)?) {
            let alone = piece.offset == 0 && piece.ends_document;
            if alone && piece.text.is_empty() {
                counts.empty_documents += 1;
                continue;
            }
            counts.documents += u64::from(piece.ends_document);
            counts.bytes += piece.text.len() as u64;
            counts.tokens += encoded.ids.len() as u64;
            counts.unknown_tokens += encoded.unknown.len() as u64;
            sink(&encoded)?;
        }
    }
    match counts.tokens {
        0 => Err(DataError::Empty { path: path.to_owned() }),
        _ => Ok(counts),
    }
}

/// Encodes pieces on several threads.
fn encode_round(path: &Path, tokenizer: &Tokenizer, round: &[Piece], threads: usize) -> Result<Vec<Encoded>> {
    let encode = |piece: &Piece| -> Result<Encoded> {
        let mut ids = Vec::with_capacity(piece.text.len() / 3 + 1);
        if piece.offset == 0 {
            ids.extend_from_slice(tokenizer.prefix());
        }
        tokenizer.encode_into(&piece.text, &mut ids).map_err(|source| DataError::Encode {
            path: path.to_owned(),
            document: piece.document,
            offset: piece.offset,
            source,
        })?;
        if piece.ends_document {
            ids.push(tokenizer.eot());
        }
        let unknown = unknown_in(tokenizer, &piece.text, &ids);
        Ok(Encoded { ids, unknown })
    };
    if threads <= 1 || round.len() == 1 {
        return round.iter().map(encode).collect();
    }
    std::thread::scope(|scope| {
        let share = round.len().div_ceil(threads);
        let work: Vec<_> = round
            .chunks(share)
            .map(|pieces| scope.spawn(move || pieces.iter().map(encode).collect::<Vec<_>>()))
            .collect();
        let results = work.into_iter().flat_map(|thread| match thread.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.collect()
    })
}

/// Where the tokens of a text are the unknown one, and the bytes of text that each stands for. Tokens around the text
/// are none of these.
fn unknown_in(tokenizer: &Tokenizer, text: &str, ids: &[u32]) -> Vec<(usize, u32)> {
    let Some(unk) = tokenizer.unknown_token() else { return Vec::new() };
    let places: Vec<usize> = ids.iter().enumerate().filter(|&(_, &id)| id == unk).map(|(at, _)| at).collect();
    if places.is_empty() {
        return Vec::new();
    }
    places.into_iter().zip(tokenizer.unknown_lens(text)).map(|(at, bytes)| (at, bytes as u32)).collect()
}

/// The tokens of a file, in memory.
pub fn tokens_of_file(
    path: &Path,
    tokenizer: &Tokenizer,
    encoding: &'static Encoding,
    threads: usize,
) -> Result<(Tokens, Counts)> {
    let Encoded { mut ids, mut unknown } = Encoded::default();
    let counts = encode_file(path, tokenizer, encoding, threads, |new| {
        unknown.extend(new.unknown.iter().map(|&(at, bytes)| (ids.len() + at, bytes)));
        ids.extend_from_slice(&new.ids);
        Ok(())
    })?;
    Ok((Tokens::from_text(ids, unknown), counts))
}

/// Tokens of each source, in memory; a directory is opened as shards.
pub fn tokenize(
    sources: &[Source],
    tokenizer: &Tokenizer,
    encoding: &'static Encoding,
    threads: usize,
) -> Result<(Vec<Tokenized>, Counts)> {
    let mut total = Counts::default();
    let mut all = Vec::new();
    for source in sources {
        if source.path.is_dir() {
            all.push(open_shards(source, tokenizer)?);
            continue;
        }
        let (tokens, counts) = tokens_of_file(&source.path, tokenizer, encoding, threads)?;
        total.add(&counts);
        all.push(Tokenized { source: source.clone(), tokens, val: None });
    }
    Ok((all, total))
}

/// Refuses a directory without shards.
pub fn check_shards(dir: &Path) -> Result<()> {
    match Shard::open_all(dir, "train")?.is_empty() {
        true => Err(DataError::NoShards { path: dir.to_owned() }),
        false => Ok(()),
    }
}

fn open_shards(source: &Source, tokenizer: &Tokenizer) -> Result<Tokenized> {
    check_shards(&source.path)?;
    refuse_other_tokenizer(&source.path, tokenizer)?;
    let vocab_size = tokenizer.vocab_size();
    let train = Shard::open_all(&source.path, "train")?;
    let val = Shard::open_all(&source.path, "val")?;
    let val = (!val.is_empty()).then(|| Tokens::from_shards(val, vocab_size));
    Ok(Tokenized { source: source.clone(), tokens: Tokens::from_shards(train, vocab_size), val })
}

/// Refuses shards beside which another tokenizer is stored. Shards from elsewhere may have none; then nothing is known.
fn refuse_other_tokenizer(dir: &Path, tokenizer: &Tokenizer) -> Result<()> {
    let theirs = match Tokenizer::load(dir) {
        Err(TokenizerError::NotFound { .. }) => return Ok(()),
        theirs => theirs?,
    };
    if theirs.is_same_as(tokenizer) {
        return Ok(());
    }
    let (theirs, ours) = (theirs.describe(), tokenizer.describe());
    Err(DataError::OtherTokenizer { path: dir.to_owned(), theirs, ours })
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.documents += other.documents;
        self.empty_documents += other.empty_documents;
        self.bytes += other.bytes;
        self.tokens += other.tokens;
        self.unknown_tokens += other.unknown_tokens;
    }
}

/// What was prepared, as `prepare.json` keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Files.
    pub sources: Vec<String>,
    /// Counts over all.
    #[serde(flatten)]
    pub counts: Counts,
    /// Tokens to train on.
    pub train_tokens: usize,
    /// Tokens held out.
    pub val_tokens: usize,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// The token after each document.
    pub eot: u32,
}

/// How to prepare.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Encoding of the files.
    pub encoding: &'static Encoding,
    /// Share of each file, from its end, held out.
    pub val_fraction: f64,
    /// Threads.
    pub threads: usize,
    /// Where to write.
    pub out: &'a Path,
    /// Replace prepared data that is there.
    pub force: bool,
}

/// Writes shards `train_*.bin` and `val_*.bin`, the tokenizer and [`SUMMARY`] into a directory. `progress` is told of
/// each file and its counts.
pub fn prepare(
    sources: &[Source],
    tokenizer: &Tokenizer,
    options: &Options,
    mut progress: impl FnMut(&Path, &Counts),
) -> Result<Summary> {
    let out = options.out;
    fs::create_dir_all(out).map_err(DataError::io(out))?;
    clear(out, options.force)?;
    let vocab_size = tokenizer.vocab_size();
    let mut writers = ["train", "val"].map(|name| ShardWriter::new(out, name, vocab_size));
    let mut total = Counts::default();
    for Source { path, .. } in sources {
        let mut spool = Spool::new(out)?;
        let counts =
            encode_file(path, tokenizer, options.encoding, options.threads, |new| spool.push(&new.ids))?;
        let val = (counts.tokens as f64 * options.val_fraction).round() as u64;
        spool.split(counts.tokens - val, &mut writers)?;
        total.add(&counts);
        progress(path, &counts);
    }
    let [train, val] = writers;
    let summary = Summary {
        sources: sources.iter().map(|source| source.path.display().to_string()).collect(),
        counts: total,
        train_tokens: train.finish()?,
        val_tokens: val.finish()?,
        vocab_size,
        eot: tokenizer.eot(),
    };
    tokenizer.save(out)?;
    let path = out.join(SUMMARY);
    let text = serde_json::to_string_pretty(&summary).expect("a summary can be written") + "\n";
    let write = || {
        let mut file = atomic_write_file::AtomicWriteFile::open(&path)?;
        file.write_all(text.as_bytes())?;
        file.commit()
    };
    write().map_err(DataError::io(&path))?;
    Ok(summary)
}

/// Refuses a place that cannot be written to, or that holds prepared data which is not to be replaced.
pub fn check_out(out: &Path, force: bool) -> Result<()> {
    fs::create_dir_all(out).map_err(DataError::io(out))?;
    tempfile::tempfile_in(out).map_err(DataError::io(out))?;
    let holds = !Shard::open_all(out, "train").is_ok_and(|shards| shards.is_empty());
    if holds && !force { Err(DataError::Exists { path: out.to_owned() }) } else { Ok(()) }
}

/// Refuses a directory that holds prepared data, or empties it of that.
fn clear(out: &Path, force: bool) -> Result<()> {
    for name in ["train", "val"] {
        for entry in fs::read_dir(out).map_err(DataError::io(out))? {
            let path = entry.map_err(DataError::io(out))?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if file.starts_with(&format!("{name}_")) && file.ends_with(".bin") {
                if !force {
                    return Err(DataError::Exists { path: out.to_owned() });
                }
                fs::remove_file(&path).map_err(DataError::io(&path))?;
            }
        }
    }
    Ok(())
}

/// Tokens of one source on disk, until their number is known.
struct Spool<'a> {
    dir: &'a Path,
    file: BufWriter<fs::File>,
}

impl Spool<'_> {
    fn new(dir: &Path) -> Result<Spool<'_>> {
        let file = tempfile::tempfile_in(dir).map_err(DataError::io(dir))?;
        Ok(Spool { dir, file: BufWriter::with_capacity(1 << 20, file) })
    }

    fn push(&mut self, ids: &[u32]) -> Result<()> {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        self.file.write_all(&bytes).map_err(DataError::io(self.dir))
    }

    /// The first `n_train` tokens go to the first writer, the others to the second.
    fn split(self, n_train: u64, writers: &mut [ShardWriter; 2]) -> Result<()> {
        let rewind = || {
            let mut file = self.file.into_inner().map_err(|error| error.into_error())?;
            file.seek(SeekFrom::Start(0))?;
            Ok(BufReader::with_capacity(1 << 20, file))
        };
        let mut file = rewind().map_err(DataError::io(self.dir))?;
        copy(&mut file.by_ref().take(4 * n_train), &mut writers[0], self.dir)?;
        copy(&mut file, &mut writers[1], self.dir)
    }
}

fn copy(from: &mut impl Read, to: &mut ShardWriter, dir: &Path) -> Result<()> {
    let mut bytes = vec![0; 1 << 18];
    loop {
        let n = read_some(from, &mut bytes).map_err(DataError::io(dir))?;
        if n == 0 {
            return Ok(());
        }
        let ids: Vec<u32> = bytes[..n].as_chunks::<4>().0.iter().map(|&id| u32::from_le_bytes(id)).collect();
        to.push(&ids)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use encoding_rs::UTF_8;

    fn sources(dir: &Path) -> Vec<Source> {
        let text = "Once upon a time, 很久以前, there was a fox. ".repeat(40_000);
        fs::write(dir.join("a.txt"), text).unwrap();
        let lines: String = (0..50).map(|i| format!("{{\"text\": \"story {i}\"}}\n")).collect();
        fs::write(dir.join("b.jsonl"), lines + "{\"text\": \"\"}\n").unwrap();
        ["a.txt", "b.jsonl"].map(|name| Source { path: dir.join(name), weight: None }).to_vec()
    }

    #[test]
    fn shards_are_the_tokens_whatever_the_number_of_threads() {
        let dir = tempfile::tempdir().unwrap();
        let sources = sources(dir.path());
        let tokenizer = Tokenizer::train_bpe(["Once upon a time there was a fox"], 280).unwrap();
        let (memory, counts) = tokenize(&sources, &tokenizer, UTF_8, 1).unwrap();
        assert_eq!((counts.documents, counts.empty_documents), (51, 1));
        let whole = tokenizer.encode(&fs::read_to_string(&sources[0].path).unwrap()).unwrap();
        let first = memory[0].tokens.to_vec().unwrap();
        assert!(first[..first.len() - 1] == whole && first.last() == Some(&tokenizer.eot()));
        for threads in [1, 3] {
            let out = &dir.path().join(format!("out{threads}"));
            let options = Options { encoding: UTF_8, val_fraction: 0.1, threads, out, force: false };
            let summary = prepare(&sources, &tokenizer, &options, |_, _| {}).unwrap();
            let source = Source { path: out.clone(), weight: None };
            let (shards, _) = tokenize(&[source], &Tokenizer::load(out).unwrap(), UTF_8, 1).unwrap();
            let (mut train, mut val) = (Vec::new(), Vec::new());
            for part in &memory {
                let (kept, held) = part.tokens.split_end(0.1);
                train.extend(kept.to_vec().unwrap());
                val.extend(held.to_vec().unwrap());
            }
            assert_eq!((summary.train_tokens, summary.val_tokens), (train.len(), val.len()));
            assert!(shards[0].tokens.to_vec().unwrap() == train);
            assert!(shards[0].val.as_ref().unwrap().to_vec().unwrap() == val);
            let again = prepare(&sources, &tokenizer, &options, |_, _| {}).unwrap_err().to_string();
            assert!(again.contains("--force"), "{again}");
            prepare(&sources, &tokenizer, &Options { force: true, ..options }, |_, _| {}).unwrap();
        }
    }

    #[test]
    fn shards_of_another_tokenizer_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let sources = sources(dir.path());
        let out = &dir.path().join("out");
        let theirs = Tokenizer::train_bpe(["Once upon a time there was a fox"], 280).unwrap();
        let ours = Tokenizer::train_bpe(["a completely different text"], 280).unwrap();
        let options = Options { encoding: UTF_8, val_fraction: 0.1, threads: 1, out, force: false };
        prepare(&sources, &theirs, &options, |_, _| {}).unwrap();
        let shards = [Source { path: out.clone(), weight: None }];
        assert!(tokenize(&shards, &theirs, UTF_8, 1).is_ok());
        let error = tokenize(&shards, &ours, UTF_8, 1).unwrap_err().to_string();
        assert!(error.contains("another tokenizer") && error.contains("gpt2 prepare"), "{error}");
        // Shards alone, as llm.c makes them, say nothing of their tokenizer.
        for name in ["tokenizer.json", "vocab.json", "merges.txt"] {
            fs::remove_file(out.join(name)).unwrap();
        }
        assert!(tokenize(&shards, &ours, UTF_8, 1).is_ok());
    }

    #[test]
    fn what_unk_stands_for_is_counted_across_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        fs::write(&path, "the cat and the hat, ".repeat(120_000)).unwrap();
        let tokenizer = Tokenizer::train_words(["the cat and the dog"], 20).unwrap();
        let (tokens, counts) = tokens_of_file(&path, &tokenizer, UTF_8, 2).unwrap();
        let unk = tokenizer.unknown_token().unwrap();
        let ids = tokens.to_vec().unwrap();
        let bytes: usize = (0..ids.len() - 1)
            .map(|at| match ids[at] == unk {
                true => tokens.unknown_bytes(at).unwrap(),
                false => tokenizer.token_bytes(ids[at]).unwrap().len(),
            })
            .sum();
        assert!(ids.contains(&unk));
        assert_eq!(bytes as u64, counts.bytes);
    }

    #[test]
    fn a_character_that_the_vocabulary_lacks_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let sources = sources(dir.path());
        let tokenizer = Tokenizer::train_chars(["story 0123456789"]).unwrap();
        let error = tokenize(&sources, &tokenizer, UTF_8, 2).unwrap_err().to_string();
        assert!(
            error.contains("a.txt: document 1") && error.contains("'O'") || error.contains("\"O\""),
            "{error}"
        );
    }
}
