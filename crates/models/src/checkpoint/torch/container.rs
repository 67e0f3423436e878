//! The two containers of `torch.save`: a zip file (since PyTorch 1.6), and a row of pickles with storages behind them.
//!
//! A zip file holds `NAME/data.pkl`, the storages as `NAME/data/KEY`, and the order of bytes in `NAME/byteorder`; our own
//! have `NAME/config.json`, too, which PyTorch passes over. Storages lie in it as they are, so that weights are computed
//! from where the file lies. The older container is: a pickle of a magic number, one of the protocol's version, one of the
//! machine, the pickled object, the list of its storages' keys; then each storage, in little-endian order behind the number
//! of its elements.

use std::collections::HashMap;
use std::path::Path;

use rawzip::{CompressionMethod, ZipArchive, ZipFileHeaderRecord};
use tensor::Bytes;

use super::super::pickle::{Global, Pickle, PickleError, Value};
use super::{CONFIG, Saved};
use crate::{ModelError, Result};

/// What a zip file begins with.
const ZIP: &[u8] = b"PK\x03\x04";
/// 0x1950a86a20f9469cfc6c, least byte first.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// Whether a file that begins so may be of PyTorch.
pub(in super::super) fn is_torch(start: &[u8]) -> bool {
    start.starts_with(ZIP) || matches!(start, [0x80, 0..=5, ..])
}

/// The object that a file holds, and its storages.
pub(super) fn open(path: &Path, bytes: &Bytes) -> Result<Saved> {
    if bytes.starts_with(ZIP) { open_zip(path, bytes) } else { open_legacy(path, bytes) }
}

/// Reads a pickle.
pub(super) fn read_pickle(path: &Path, bytes: &[u8]) -> Result<Pickle> {
    Pickle::read(bytes).map_err(|error| match error {
        PickleError::Global(global) => ModelError::ForbiddenGlobal { path: path.to_owned(), global },
        other => refused(path, other.to_string()),
    })
}

/// Says why a file is not read.
pub(super) fn refused(path: &Path, reason: impl Into<String>) -> ModelError {
    ModelError::Torch { path: path.to_owned(), reason: reason.into() }
}

fn open_zip(path: &Path, bytes: &Bytes) -> Result<Saved> {
    let entries = zip_entries(bytes).map_err(|reason| refused(path, reason))?;
    let mut roots = entries.keys().filter_map(|name| name.strip_suffix("/data.pkl"));
    let root = roots.next().ok_or_else(|| refused(path, "it is a zip file without `data.pkl`"))?;
    if roots.next().is_some() {
        return Err(refused(path, "it holds several `data.pkl`"));
    }
    let is_big_endian = match entries.get(&format!("{root}/byteorder")).map(|order| &order[..]) {
        None | Some(b"little") => false,
        Some(b"big") => true,
        Some(_) => return Err(refused(path, "its order of bytes is neither little nor big")),
    };
    let pickle = read_pickle(path, &entries[&format!("{root}/data.pkl")])?;
    let folder = format!("{root}/data/");
    let key = |(name, part): (&String, &Bytes)| Some((name.strip_prefix(&folder)?.to_owned(), part.clone()));
    let storages = entries.iter().filter_map(key).collect();
    let config = entries.get(&format!("{root}/{CONFIG}")).cloned();
    Ok(Saved { pickle, storages, is_big_endian, config })
}

/// The files in a zip file by name. Each lies in it as it is, by itself, and under a plain name of its own.
fn zip_entries(bytes: &Bytes) -> std::result::Result<HashMap<String, Bytes>, String> {
    let damaged = |error: rawzip::Error| format!("as a zip file it is damaged or cut off: {error}");
    let archive = ZipArchive::from_slice(&bytes[..]).map_err(damaged)?;
    let (mut entries, mut taken) = (HashMap::new(), Vec::new());
    for record in archive.entries() {
        let record = record.map_err(damaged)?;
        let name = entry_name(&record)?;
        let entry = archive.get_entry(record.wayfinder()).map_err(damaged)?;
        let (start, end) = entry.compressed_data_range();
        taken.push((record.local_header_offset(), end));
        if entries.insert(name.clone(), bytes.part(start as usize..end as usize)).is_some() {
            return Err(format!("it holds `{name}` twice"));
        }
    }
    if entries.len() as u64 != archive.entries_hint() {
        let said = archive.entries_hint();
        return Err(format!("its directory says {said} files, but lists {}", entries.len()));
    }
    taken.push((archive.directory_offset(), bytes.len() as u64));
    taken.sort_unstable();
    if taken.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return Err("files in it lie over each other".into());
    }
    Ok(entries)
}

/// The name of a file in a zip file, where nothing about it is strange.
fn entry_name(record: &ZipFileHeaderRecord) -> std::result::Result<String, String> {
    let raw = record.file_path();
    let name = String::from_utf8_lossy(&raw.as_bytes()[..raw.as_bytes().len().min(200)]).into_owned();
    let is_plain = name.as_bytes() == raw.as_bytes()
        && !name.contains(['\\', '\0', ':'])
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !is_plain {
        return Err(format!("it holds a file named {name:?}, which is no plain name"));
    }
    if record.mode().is_symlink() {
        return Err(format!("`{name}` in it is a link"));
    }
    let is_stored = record.compression_method() == CompressionMethod::STORE
        && record.compressed_size_hint() == record.uncompressed_size_hint();
    if !is_stored || record.flags().is_encrypted() {
        return Err(format!("`{name}` in it is compressed or encrypted, which torch.save never does"));
    }
    Ok(name)
}

fn open_legacy(path: &Path, bytes: &Bytes) -> Result<Saved> {
    let mut at = 0;
    let mut next = || {
        let pickle = read_pickle(path, &bytes[at..])?;
        at += pickle.len;
        Ok::<Pickle, ModelError>(pickle)
    };
    let magic = next()?;
    if magic.big(magic.root) != Some(&MAGIC) {
        return Err(refused(path, "it is a pickle, but not one that torch.save wrote"));
    }
    let protocol = next()?;
    if protocol.int(protocol.root) != Some(PROTOCOL) {
        return Err(refused(path, format!("its protocol is not {PROTOCOL}")));
    }
    next()?; // what kind of machine wrote it
    let pickle = next()?;
    let keys = next()?;
    let storages = legacy_storages(bytes, at, &pickle, &keys).map_err(|reason| refused(path, reason))?;
    Ok(Saved { pickle, storages, is_big_endian: false, config: None })
}

/// The storages, which lie from `at` on in the order of `keys`.
fn legacy_storages(
    bytes: &Bytes,
    mut at: usize,
    pickle: &Pickle,
    keys: &Pickle,
) -> std::result::Result<HashMap<String, Bytes>, String> {
    let mut sizes = HashMap::new();
    for &tuple in &pickle.persistent {
        if let Some(&[_, Value::Global(Global::Storage(scalar)), key, ..]) =
            pickle.items(Value::Persistent(tuple))
            && let Some(key) = pickle.text(key)
            && sizes.insert(key, scalar.size()).is_some_and(|size| size != scalar.size())
        {
            return Err(format!("its storage {key} is of two types"));
        }
    }
    let mut storages = HashMap::new();
    for &key in keys.items(keys.root).ok_or("its storages are not listed")? {
        let key = keys.text(key).ok_or("a storage's key is no text")?;
        let size = *sizes.get(key).ok_or_else(|| format!("no tensor lies in its storage {key}"))?;
        let (count, _) = bytes[at..].split_first_chunk().ok_or("its storages are cut off")?;
        at += count.len();
        let len = usize::try_from(i64::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(size));
        let end = len.and_then(|len| at.checked_add(len)).filter(|&end| end <= bytes.len());
        let end = end.ok_or_else(|| format!("its storage {key} is cut off"))?;
        if storages.insert(key.to_owned(), bytes.part(at..end)).is_some() {
            return Err(format!("its storage {key} is listed twice"));
        }
        at = end;
    }
    Ok(storages)
}
