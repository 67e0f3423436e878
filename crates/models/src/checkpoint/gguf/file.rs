//! The container: a GGUF file taken apart, with every length, count and offset held to the bytes that are there.
//!
//! Little-endian throughout: the magic `GGUF`, the version, the numbers of tensors and of metadata; the metadata (key,
//! type, value); for each tensor its name, dimensions (the innermost first), type, and where its values start after the
//! header, which is filled up to the alignment. Text is a length and its UTF-8. Nothing is set aside for a number that
//! the file only claims: what is read grows with the bytes that were there.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::types::GgmlType;
use super::value::{Array, Kind, Value};
use crate::{ModelError, Result};

/// What a GGUF file begins with.
pub const MAGIC: &[u8; 4] = b"GGUF";
/// The alignment where the metadata do not say another.
pub const ALIGNMENT: usize = 32;
/// Most dimensions of a tensor.
const MOST_DIMS: u32 = 4;

/// What the file says before its values start.
#[derive(Debug)]
pub struct Header<'a> {
    pub metadata: HashMap<&'a str, Value<'a>>,
    pub tensors: Vec<TensorInfo<'a>>,
}

/// A tensor, and where it lies in the file.
#[derive(Debug)]
pub struct TensorInfo<'a> {
    pub name: &'a str,
    /// The outermost dimension first.
    pub shape: Vec<usize>,
    /// Its type; that of the number it has in files, where it is not computed with.
    pub kind: std::result::Result<GgmlType, u32>,
    pub range: Range<usize>,
}

/// A tensor as the header gives it: its values start `offset` bytes after the header.
struct Claim<'a> {
    name: &'a str,
    shape: Vec<usize>,
    kind: u32,
    offset: usize,
}

/// Reads the header of a file.
pub fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<Header<'a>> {
    let mut reader = Reader { path, bytes, at: 0 };
    if reader.take(4, "the magic")? != MAGIC {
        return Err(reader.damaged("it does not begin with GGUF"));
    }
    match reader.u32("the version")? {
        2 | 3 => {}
        version if (1..=3).contains(&version.swap_bytes()) => {
            return Err(reader.unsupported("it is big-endian; make it little-endian"));
        }
        version => {
            let reason = format!("it is of version {version}; versions 2 and 3 are read: convert it anew");
            return Err(reader.unsupported(reason));
        }
    }
    let (n_tensors, n_metadata) = (reader.u64("counts")?, reader.u64("counts")?);
    let mut metadata = HashMap::new();
    for _ in 0..n_metadata {
        let key = reader.text("a key of the metadata")?;
        let kind = reader.kind(key)?;
        let value = reader.value(key, kind)?;
        if metadata.insert(key, value).is_some() {
            return Err(reader.damaged(format!("the metadata have `{key}` twice")));
        }
    }
    let mut claims = Vec::new();
    for _ in 0..n_tensors {
        claims.push(reader.claim()?);
    }
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(value) => {
            let alignment = value.whole().filter(|alignment| alignment.is_power_of_two());
            alignment.ok_or_else(|| reader.damaged(format!("`general.alignment` is {value}")))?
        }
    };
    let start = reader.at.next_multiple_of(alignment);
    let tensors: Vec<_> =
        claims.into_iter().map(|claim| claim.place(&reader, start, alignment)).collect::<Result<_>>()?;
    refuse_overlap(&reader, &tensors)?;
    Ok(Header { metadata, tensors })
}

/// No two tensors have a byte in common, and none the same name as another.
fn refuse_overlap(reader: &Reader, tensors: &[TensorInfo]) -> Result<()> {
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_unstable_by_key(|tensor| (tensor.range.start, tensor.range.end));
    if let Some([a, b]) = order.array_windows().find(|[a, b]| a.range.end > b.range.start) {
        return Err(reader.damaged(format!("the tensors `{}` and `{}` overlap", a.name, b.name)));
    }
    order.sort_unstable_by_key(|tensor| tensor.name);
    match order.array_windows().find(|[a, b]| a.name == b.name) {
        Some([a, _]) => Err(reader.damaged(format!("the tensor `{}` is there twice", a.name))),
        None => Ok(()),
    }
}

impl<'a> Claim<'a> {
    /// Where the tensor lies, once it is known to lie in the file.
    fn place(self, reader: &Reader, start: usize, alignment: usize) -> Result<TensorInfo<'a>> {
        let Claim { name, shape, kind, offset } = self;
        let kind = GgmlType::from_number(kind);
        let wrong = |what: String| reader.damaged(format!("the tensor `{name}` {what}"));
        if !offset.is_multiple_of(alignment) {
            return Err(wrong(format!("starts at {offset}, no multiple of {alignment}")));
        }
        let len = match kind {
            // Of a type that is not known, the size is not either; whoever needs the tensor refuses its type.
            Err(_) => 0,
            Ok(kind) => {
                let len = kind.bytes_for(&shape);
                len.ok_or_else(|| wrong(format!("cannot have the shape {shape:?} in {}", kind.name())))?
            }
        };
        let range = start.checked_add(offset).and_then(|start| Some(start..start.checked_add(len)?));
        let range = range.filter(|range| range.end <= reader.bytes.len());
        let range = range.ok_or_else(|| {
            let have = reader.bytes.len();
            wrong(format!("takes {len} bytes from {offset} after the header on, but the file has {have}"))
        })?;
        Ok(TensorInfo { name, shape, kind, range })
    }
}

/// Takes what comes next, if it is there.
struct Reader<'a, 'p> {
    path: &'p Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a, '_> {
    fn damaged(&self, reason: impl Into<String>) -> ModelError {
        damaged(self.path, reason)
    }

    fn unsupported(&self, reason: impl Into<String>) -> ModelError {
        ModelError::Unsupported { path: self.path.to_owned(), reason: reason.into() }
    }

    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..n).ok_or_else(|| {
            self.damaged(format!("{what} takes {n} bytes, but {} are left at byte {}", rest.len(), self.at))
        })?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        Ok(self.take(N, what)?.try_into().expect("as many as were taken"))
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A length or an offset; what no memory has is `usize::MAX`, which no file has either.
    fn len(&mut self, what: &str) -> Result<usize> {
        Ok(usize::try_from(self.u64(what)?).unwrap_or(usize::MAX))
    }

    fn text(&mut self, what: &str) -> Result<&'a str> {
        let len = self.len(what)?;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged(format!("{what} is not UTF-8")))
    }

    fn kind(&mut self, key: &str) -> Result<Kind> {
        let number = self.u32(key)?;
        let unknown = || self.damaged(format!("`{key}` is of type {number}, which GGUF does not have"));
        Kind::from_number(number).ok_or_else(unknown)
    }

    fn value(&mut self, key: &str, kind: Kind) -> Result<Value<'a>> {
        if kind != Kind::Array {
            let start = self.at;
            self.skip(key, kind)?;
            let value = Value::read(kind, &self.bytes[start..self.at]);
            return value.ok_or_else(|| self.damaged(format!("`{key}` is neither true nor false")));
        }
        let (kind, len) = (self.kind(key)?, self.len(key)?);
        let start = self.at;
        match kind.size() {
            Some(size) => _ = self.take(len.saturating_mul(size), key)?,
            None if kind == Kind::Text => {
                // Each takes eight bytes at least, so the file ends before a count that lies does.
                for _ in 0..len {
                    self.text(key)?;
                }
            }
            None => return Err(self.unsupported(format!("`{key}` is an array of arrays"))),
        }
        Ok(Value::Array(Array { kind, len, bytes: &self.bytes[start..self.at] }))
    }

    /// Steps over a value that is no array.
    fn skip(&mut self, key: &str, kind: Kind) -> Result<()> {
        match kind.size() {
            Some(size) => self.take(size, key).map(drop),
            None => self.text(key).map(drop),
        }
    }

    fn claim(&mut self) -> Result<Claim<'a>> {
        let name = self.text("a tensor's name")?;
        let n_dims = self.u32(name)?;
        if n_dims > MOST_DIMS {
            return Err(self.damaged(format!("the tensor `{name}` has {n_dims} dimensions")));
        }
        let mut shape = (0..n_dims).map(|_| self.len(name)).collect::<Result<Vec<_>>>()?;
        shape.reverse();
        Ok(Claim { name, shape, kind: self.u32(name)?, offset: self.len(name)? })
    }
}

/// For what is wrong with the file itself.
pub fn damaged(path: &Path, reason: impl Into<String>) -> ModelError {
    ModelError::NotWhole { path: path.to_owned(), format: "GGUF", reason: reason.into() }
}
