//! Files to documents: .txt, .jsonl and .json, each also packed as .gz.
//!
//! A .txt file is one document; in .jsonl each line is an object, in .json the file is an object or a list of
//! them (or of strings), and the document is the field `text`. A long text comes in pieces of about a megabyte,
//! cut where the tokenizer cuts anyway, so that the tokens do not depend on the pieces.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8};
use flate2::bufread::MultiGzDecoder;
use serde_json::Value;
use tokenizer::split::{Pattern, pieces};

use crate::shards::Shard;
use crate::{DataError, Result};

/// Bytes read at once, and about the length of a piece.
const BLOCK: usize = 1 << 20;

/// A file and how much it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The file, or a directory of shards.
    pub path: PathBuf,
    /// Share of the training sequences, relative to the other sources; by size where none is given.
    pub weight: Option<f64>,
}

impl Source {
    /// Reads `PATH` or `PATH=WEIGHT`. A path that exists as typed is a path.
    pub fn parse(spec: &str) -> Result<Source> {
        let whole = Source { path: spec.into(), weight: None };
        match spec.rsplit_once('=') {
            Some((path, weight)) if !whole.path.exists() => {
                let weight: Option<f64> = weight.parse().ok();
                let weight = weight.filter(|weight| weight.is_finite() && *weight > 0.0);
                let weight = weight.ok_or_else(|| DataError::Weight { spec: spec.to_owned() })?;
                Ok(Source { path: path.into(), weight: Some(weight) })
            }
            _ => Ok(whole),
        }
    }
}

/// A stretch of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// Where it starts in its document, in bytes of text.
    pub offset: u64,
    /// Number of its document in the file, from 1.
    pub document: u64,
    /// Whether the document ends here.
    pub ends_document: bool,
}

/// The encoding of this name; UTF-8 where none is given.
pub fn encoding(name: Option<&str>) -> Result<&'static Encoding> {
    let Some(name) = name else { return Ok(UTF_8) };
    Encoding::for_label(name.as_bytes()).ok_or_else(|| DataError::Encoding { name: name.to_owned() })
}

/// The documents of a file, in order.
pub fn read(
    path: &Path,
    encoding: &'static Encoding,
) -> Result<Box<dyn Iterator<Item = Result<Piece>> + Send>> {
    let (kind, packed) = kind(path);
    if !["txt", "jsonl", "json"].contains(&kind.as_str()) && path.exists() && !path.is_dir() {
        return Err(DataError::Kind { path: path.to_owned() });
    }
    let text = Text::open(path, packed, encoding)?;
    Ok(match kind.as_str() {
        "txt" => Box::new(Plain { text, buffer: String::new(), offset: 0, done: false }),
        "jsonl" => {
            Box::new(Lines { text: BufReader::with_capacity(BLOCK, text), line: 0, offset: 0, document: 0 })
        }
        _ => Box::new(whole_json(text)?),
    })
}

/// What a file's name says that it is (its extension, in small letters), and whether it is packed (`.gz` behind that).
pub(crate) fn kind(path: &Path) -> (String, bool) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (name, packed) = match name.strip_suffix(".gz") {
        Some(name) => (name, true),
        None => (name.as_str(), false),
    };
    (Path::new(name).extension().unwrap_or_default().to_string_lossy().into_owned(), packed)
}

/// The bytes of a file, unpacked if its name ends in .gz.
pub fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    let file = File::open(path).map_err(DataError::io(path))?;
    let is_packed = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    Ok(if is_packed { Box::new(Unpacked::new(file)) } else { Box::new(file) })
}

/// The documents of a stream without a name, such as standard input: one plain text.
pub fn read_stream(
    bytes: impl Read + Send + 'static,
    encoding: &'static Encoding,
) -> impl Iterator<Item = Result<Piece>> {
    let text = Text::new(Path::new("standard input"), Box::new(bytes), encoding);
    Plain { text, buffer: String::new(), offset: 0, done: false }
}

/// The bytes of a .gz file. An error says where in the packed file it was found.
struct Unpacked(MultiGzDecoder<Counted>);

impl Unpacked {
    fn new(file: File) -> Unpacked {
        Unpacked(MultiGzDecoder::new(Counted { file: BufReader::new(file), used: 0 }))
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            let used = self.0.get_ref().used;
            let reason = format!("cannot be unpacked beyond byte {used}: {error}; the file may be cut off");
            std::io::Error::new(error.kind(), reason)
        })
    }
}

/// A file that counts the bytes taken from it.
struct Counted {
    file: BufReader<File>,
    used: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.used += n as u64;
        Ok(n)
    }
}

impl BufRead for Counted {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.file.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.used += n as u64;
        self.file.consume(n);
    }
}

/// A file's bytes as UTF-8.
pub(crate) struct Text {
    pub(crate) path: PathBuf,
    bytes: Box<dyn Read + Send>,
    decoder: Decoder,
    raw: Vec<u8>,
    /// Bytes of `raw` already decoded, and before `raw`.
    used: usize,
    before: u64,
    ended: bool,
    ready: String,
    handed_out: usize,
}

impl Text {
    /// A file that is not a directory.
    pub(crate) fn open(path: &Path, packed: bool, encoding: &'static Encoding) -> Result<Text> {
        let file = File::open(path).map_err(DataError::io(path))?;
        if path.is_dir() {
            let path = path.to_owned();
            let has_shards = Shard::open_all(&path, "train").map_or(true, |shards| !shards.is_empty());
            return Err(if has_shards {
                DataError::NeedsText { path }
            } else {
                DataError::Directory { path }
            });
        }
        let bytes: Box<dyn Read + Send> = if packed { Box::new(Unpacked::new(file)) } else { Box::new(file) };
        Ok(Text::new(path, bytes, encoding))
    }

    fn new(path: &Path, bytes: Box<dyn Read + Send>, encoding: &'static Encoding) -> Text {
        let decoder = encoding.new_decoder_with_bom_removal();
        let (raw, ready) = (Vec::new(), String::new());
        Text {
            path: path.to_owned(),
            bytes,
            decoder,
            raw,
            used: 0,
            before: 0,
            ended: false,
            ready,
            handed_out: 0,
        }
    }

    /// Appends about a block of text; false at the end of the file.
    pub(crate) fn append(&mut self, out: &mut String) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.used == self.raw.len() {
            self.before += self.raw.len() as u64;
            (self.used, self.raw) = (0, vec![0; BLOCK]);
            let n = read_some(&mut *self.bytes, &mut self.raw).map_err(DataError::io(&self.path))?;
            self.raw.truncate(n);
        }
        let last = self.raw.is_empty();
        out.reserve(self.decoder.max_utf8_buffer_length(self.raw.len()).unwrap_or(4 * BLOCK));
        let source = &self.raw[self.used..];
        let (result, used) = self.decoder.decode_to_string_without_replacement(source, out, last);
        self.used += used;
        match result {
            DecoderResult::InputEmpty => self.ended = last,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(bad, after) => {
                let end = self.before + self.used as u64;
                let offset = end - u64::from(bad) - u64::from(after);
                let encoding = self.decoder.encoding().name();
                return Err(DataError::Malformed { path: self.path.clone(), encoding, offset });
            }
        }
        Ok(true)
    }
}

/// Fills the buffer as far as there are bytes.
pub(crate) fn read_some(bytes: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match bytes.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

/// Lets lines be read from the decoded text; our error travels inside the I/O error.
impl Read for Text {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.handed_out == self.ready.len() {
            let mut ready = std::mem::take(&mut self.ready);
            (self.handed_out, _) = (0, ready.clear());
            let more = self.append(&mut ready).map_err(std::io::Error::other)?;
            self.ready = ready;
            if !more {
                return Ok(0);
            }
        }
        let n = buffer.len().min(self.ready.len() - self.handed_out);
        buffer[..n].copy_from_slice(&self.ready.as_bytes()[self.handed_out..self.handed_out + n]);
        self.handed_out += n;
        Ok(n)
    }
}

/// Gives our error back if that is what the I/O error holds.
pub(crate) fn unwrap_io(path: &Path, error: std::io::Error) -> DataError {
    match error.downcast::<DataError>() {
        Ok(error) => error,
        Err(error) => DataError::io(path)(error),
    }
}

/// One document, in pieces.
struct Plain {
    text: Text,
    buffer: String,
    offset: u64,
    done: bool,
}

impl Iterator for Plain {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        if self.done {
            return None;
        }
        let mut wanted = BLOCK;
        loop {
            match self.text.append(&mut self.buffer) {
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
                Ok(false) => break,
                Ok(true) if self.buffer.len() < wanted => {}
                Ok(true) => match safe_cut(&self.buffer) {
                    Some(cut) => {
                        let rest = self.buffer.split_off(cut);
                        return Some(Ok(self.piece(rest, false)));
                    }
                    None => wanted = 2 * self.buffer.len(),
                },
            }
        }
        self.done = true;
        if self.offset == 0 && self.buffer.is_empty() {
            return Some(Err(DataError::Empty { path: self.text.path.clone() }));
        }
        Some(Ok(self.piece(String::new(), true)))
    }
}

impl Plain {
    fn piece(&mut self, rest: String, ends_document: bool) -> Piece {
        let text = std::mem::replace(&mut self.buffer, rest);
        let offset = self.offset;
        self.offset += text.len() as u64;
        Piece { text, offset, document: 1, ends_document }
    }
}

/// A place where the tokenizer's pattern has a boundary whatever follows: before white space that follows
/// something else, or else before the last two pieces, which may still change.
fn safe_cut(text: &str) -> Option<usize> {
    let mut later = None;
    for (at, char) in text.char_indices().rev().take(1 << 14) {
        if let Some((after, true)) = later
            && !char.is_whitespace()
        {
            return Some(after);
        }
        later = Some((at, char.is_whitespace()));
    }
    let starts: Vec<usize> = pieces(text, Pattern::Gpt2)
        .scan(0, |at, piece| {
            let start = *at;
            *at += piece.len();
            Some(start)
        })
        .collect();
    // White space at the end of a text is cut otherwise than before more text.
    let certain = &starts[..starts.len().saturating_sub(1)];
    certain.iter().rev().copied().find(|&cut| cut > 0 && !text[..cut].ends_with(char::is_whitespace))
}

/// One document a line.
struct Lines {
    text: BufReader<Text>,
    line: usize,
    offset: u64,
    document: u64,
}

impl Iterator for Lines {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        loop {
            let mut line = String::new();
            let path = self.text.get_ref().path.clone();
            let n = match self.text.read_line(&mut line) {
                Ok(n) => n,
                Err(error) => return Some(Err(unwrap_io(&path, error))),
            };
            if n == 0 {
                let empty = self.document == 0;
                self.document += 1;
                return empty.then_some(Err(DataError::Empty { path }));
            }
            let offset = self.offset;
            (self.line, self.offset) = (self.line + 1, offset + n as u64);
            if line.trim().is_empty() {
                continue;
            }
            self.document += 1;
            let text = serde_json::from_str(&line).map_err(|error| error.to_string()).and_then(text_of);
            let piece = |text| Piece { text, offset: 0, document: self.document, ends_document: true };
            let line = self.line;
            return Some(text.map(piece).map_err(|reason| DataError::Json { path, line, offset, reason }));
        }
    }
}

/// The document in a JSON value.
fn text_of(value: Value) -> std::result::Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Object(mut fields) => match fields.remove("text") {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(format!("the field `text` is {other}, not a string")),
            None if fields.is_empty() => Err("there is no field `text`: the object is empty".into()),
            None => {
                let names: Vec<String> = fields.keys().map(|name| format!("`{name}`")).collect();
                Err(format!("there is no field `text`, only {}", names.join(", ")))
            }
        },
        other => Err(format!("an object with a field `text` is needed, not {other}")),
    }
}

/// The documents of a JSON file, which is read as a whole.
fn whole_json(mut text: Text) -> Result<impl Iterator<Item = Result<Piece>> + Send> {
    let path = text.path.clone();
    let mut all = String::new();
    while text.append(&mut all)? {}
    if all.trim().is_empty() {
        return Err(DataError::Empty { path });
    }
    let syntax = |error: serde_json::Error| {
        let line = error.line();
        let offset =
            all.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>() as u64;
        DataError::Json { path: path.clone(), line, offset, reason: error.to_string() }
    };
    let documents = match serde_json::from_str(&all).map_err(syntax)? {
        Value::Array(list) => list,
        other => vec![other],
    };
    if documents.is_empty() {
        return Err(DataError::Empty { path });
    }
    Ok(documents.into_iter().zip(1..).map(move |(value, document)| {
        let piece = |text| Piece { text, offset: 0, document, ends_document: true };
        text_of(value).map(piece).map_err(|reason| DataError::Json {
            path: path.clone(),
            line: 1,
            offset: 0,
            reason: format!("document {document}: {reason}"),
        })
    }))
}

#[cfg(test)]
mod tests;
