//! Token files in the format of llm.c: a header of 256 little-endian `i32` (magic 20240520, version, number of
//! tokens, zeros), then the tokens.
//!
//! Version 1 holds tokens as `u16`, as llm.c does; version 2, ours, as `u32`, for vocabularies beyond 65,536.
//! A long stream is spread over files `NAME_000000.bin`, `NAME_000001.bin`, …

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use atomic_write_file::AtomicWriteFile;

use crate::{DataError, Result};

const MAGIC: i32 = 20_240_520;
const HEADER: usize = 256 * 4;
/// Tokens in one file at most.
const SHARD_TOKENS: usize = 100_000_000;

/// One open shard.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    file: Mutex<File>,
    width: usize,
    len: usize,
}

impl Shard {
    /// Opens a shard and checks its header against its length.
    pub fn open(path: &Path) -> Result<Shard> {
        let refuse = |reason: String| DataError::Shard { path: path.to_owned(), reason };
        let mut file = File::open(path).map_err(DataError::io(path))?;
        let size = file.metadata().map_err(DataError::io(path))?.len();
        let mut header = [0; HEADER];
        file.read_exact(&mut header).map_err(|_| refuse(format!("{size} bytes are less than its header")))?;
        let word = |i: usize| i32::from_le_bytes(header[4 * i..4 * i + 4].try_into().expect("four bytes"));
        if word(0) != MAGIC {
            return Err(refuse(format!("its first word is {}, not {MAGIC}", word(0))));
        }
        let width = match word(1) {
            1 => 2,
            2 => 4,
            other => return Err(refuse(format!("version {other} is not known (1 and 2 are)"))),
        };
        let len = usize::try_from(word(2)).map_err(|_| refuse(format!("it claims {} tokens", word(2))))?;
        let want = (HEADER + len * width) as u64;
        if size != want {
            return Err(refuse(format!("it claims {len} tokens, {want} bytes, but has {size}")));
        }
        Ok(Shard { path: path.to_owned(), file: Mutex::new(file), width, len })
    }

    /// The shards `NAME_*.bin` of a directory, in order.
    pub fn open_all(dir: &Path, name: &str) -> Result<Vec<Shard>> {
        let entries = std::fs::read_dir(dir).map_err(DataError::io(dir))?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(DataError::io(dir))?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if file.strip_prefix(name).is_some_and(|rest| rest.starts_with('_') && rest.ends_with(".bin")) {
                paths.push(path);
            }
        }
        paths.sort();
        paths.iter().map(|path| Shard::open(path)).collect()
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends the tokens of a part that lies within.
    pub fn read(&self, part: Range<usize>, ids: &mut Vec<u32>) -> Result<()> {
        let mut bytes = vec![0; part.len() * self.width];
        {
            let mut file = self.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let start = (HEADER + part.start * self.width) as u64;
            let mut read = || file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes));
            read().map_err(DataError::io(&self.path))?;
        }
        match self.width {
            2 => ids.extend(bytes.as_chunks::<2>().0.iter().map(|&b| u32::from(u16::from_le_bytes(b)))),
            _ => ids.extend(bytes.as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b))),
        }
        Ok(())
    }
}

/// Writes a stream of tokens as shards. Files appear under their names when they are whole.
#[derive(Debug)]
pub struct ShardWriter {
    dir: PathBuf,
    name: String,
    width: usize,
    limit: usize,
    files: usize,
    open: Option<Open>,
    total: usize,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: BufWriter<AtomicWriteFile>,
    len: usize,
}

impl ShardWriter {
    /// Writes `DIR/NAME_000000.bin` and so on, for ids below `vocab_size`.
    pub fn new(dir: &Path, name: &str, vocab_size: usize) -> ShardWriter {
        let width = if vocab_size <= 1 << 16 { 2 } else { 4 };
        let (dir, name) = (dir.to_owned(), name.to_owned());
        ShardWriter { dir, name, width, limit: SHARD_TOKENS, files: 0, open: None, total: 0 }
    }

    /// Appends tokens.
    pub fn push(&mut self, mut ids: &[u32]) -> Result<()> {
        while !ids.is_empty() {
            let (limit, width) = (self.limit, self.width);
            let open = self.current()?;
            let n = ids.len().min(limit - open.len);
            let bytes: Vec<u8> =
                ids[..n].iter().flat_map(|id| id.to_le_bytes().into_iter().take(width)).collect();
            open.file.write_all(&bytes).map_err(DataError::io(&open.path))?;
            open.len += n;
            (self.total, ids) = (self.total + n, &ids[n..]);
            if self.open.as_ref().is_some_and(|open| open.len == limit) {
                self.close()?;
            }
        }
        Ok(())
    }

    fn current(&mut self) -> Result<&mut Open> {
        if self.open.is_none() {
            let path = self.dir.join(format!("{}_{:06}.bin", self.name, self.files));
            let start = || {
                let mut file = BufWriter::with_capacity(1 << 20, AtomicWriteFile::open(&path)?);
                file.write_all(&[0; HEADER])?;
                Ok(file)
            };
            let file = start().map_err(DataError::io(&path))?;
            self.files += 1;
            self.open = Some(Open { path, file, len: 0 });
        }
        Ok(self.open.as_mut().expect("just opened"))
    }

    fn close(&mut self) -> Result<()> {
        let Some(Open { path, file, len }) = self.open.take() else { return Ok(()) };
        let version = if self.width == 2 { 1 } else { 2 };
        let finish = || {
            let mut file = file.into_inner().map_err(|error| error.into_error())?;
            file.seek(SeekFrom::Start(0))?;
            for word in [MAGIC, version, len as i32] {
                file.write_all(&word.to_le_bytes())?;
            }
            file.commit()
        };
        finish().map_err(DataError::io(&path))
    }

    /// Finishes the last file; the number of tokens written in all.
    pub fn finish(mut self) -> Result<usize> {
        self.close()?;
        Ok(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokens;

    fn write(dir: &Path, ids: &[u32], vocab_size: usize, limit: usize) {
        let mut writer = ShardWriter { limit, ..ShardWriter::new(dir, "train", vocab_size) };
        ids.chunks(7).for_each(|ids| writer.push(ids).unwrap());
        assert_eq!(writer.finish().unwrap(), ids.len());
    }

    #[test]
    fn round_trip_over_several_files() {
        for (vocab_size, step) in [(65_536, 600), (200_000, 1900)] {
            let dir = tempfile::tempdir().unwrap();
            let ids: Vec<u32> = (0..100).map(|i| i * step).collect();
            write(dir.path(), &ids, vocab_size, 30);
            let tokens = Tokens::from_shards(Shard::open_all(dir.path(), "train").unwrap(), vocab_size);
            assert_eq!(tokens.to_vec().unwrap(), ids);
            assert_eq!(tokens.slice(25..65).read(3..37).unwrap(), ids[28..62]);
            let error = Tokens::from_shards(Shard::open_all(dir.path(), "train").unwrap(), 1000)
                .to_vec()
                .unwrap_err();
            assert!(error.to_string().contains("out of range"), "{error}");
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[1, 2, 3], 100, 100);
        let path = dir.path().join("train_000000.bin");
        let good = std::fs::read(&path).unwrap();
        assert_eq!(good.len(), HEADER + 6);
        let change = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        let cases = [
            (vec![], "less than its header"),
            (good[..good.len() - 1].to_vec(), "claims 3 tokens"),
            (change(0, 0), "first word"),
            (change(4, 9), "version 9"),
            (change(11, 0xff), "claims -"),
            (change(11, 0x7f), "but has"),
        ];
        for (bytes, want) in cases {
            std::fs::write(&path, bytes).unwrap();
            let error = Shard::open(&path).unwrap_err().to_string();
            assert!(error.contains(want), "{error:?} does not say {want:?}");
        }
    }

    #[test]
    fn an_unfinished_shard_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::new(dir.path(), "train", 100);
        writer.push(&[1, 2, 3]).unwrap();
        drop(writer);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
