//! One file of the hub becomes a blob of the cache: one process at a time, on from where it was cut, and checked.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::client::{Client, Meta};
use crate::hub::Event;
use crate::name::is_hex;
use crate::{HubError, Name, Result};

/// Times that a download is tried again without one more byte coming.
const FRUITLESS_TRIES: u32 = 5;
/// Bytes that are read and hashed at once.
const CHUNK: usize = 1 << 20;

/// A file to be downloaded.
pub(crate) struct Download<'a> {
    pub client: &'a Client,
    pub name: &'a Name,
    pub commit: &'a str,
    pub file: &'a str,
    pub meta: Meta,
    /// Where it shall be.
    pub blob: PathBuf,
    /// The file whose lock keeps other processes out.
    pub lock: PathBuf,
    /// The time between two tries grows by this.
    pub pause: Duration,
}

/// A file on its way: what came of it, and the checksum of that.
struct Partial {
    path: PathBuf,
    file: File,
    at: u64,
    hasher: Hasher,
}

impl Download<'_> {
    /// Downloads the file, unless it is there. Calls `on` with [`Event::At`], counted from `before`. Returns the bytes that
    /// came over the network.
    pub fn run(&self, before: u64, on: &mut dyn FnMut(Event)) -> Result<u64> {
        for path in [&self.blob, &self.lock] {
            let folder = path.parent().expect("files of the cache lie in folders");
            fs::create_dir_all(folder).map_err(HubError::io(folder))?;
        }
        let _lock = lock(&self.lock, || on(Event::Waiting { file: self.file }))?;
        if self.blob.exists() {
            return Ok(0);
        }
        let mut partial = self.partial()?;
        let came = self.receive(&mut partial, before, on)?;
        self.finish(partial, on)?;
        Ok(came)
    }

    /// What an earlier try has left.
    fn partial(&self) -> Result<Partial> {
        let mut path = self.blob.clone().into_os_string();
        path.push(".incomplete");
        let path = PathBuf::from(path);
        if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file()) {
            fs::remove_file(&path).map_err(HubError::io(&path))?; // a link would lead out of the cache
        }
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(HubError::io(&path))?;
        let mut partial = Partial { hasher: Hasher::new(&self.meta), at: 0, path, file };
        if partial.length()? > self.meta.size {
            partial.restart(&self.meta)?;
        }
        partial.rehash()?;
        Ok(partial)
    }

    /// Gets what is missing, in as many tries as it takes.
    fn receive(&self, partial: &mut Partial, before: u64, on: &mut dyn FnMut(Event)) -> Result<u64> {
        let (mut came, mut fruitless) = (0, 0);
        on(Event::At(before + partial.at));
        while partial.at < self.meta.size {
            let had = came;
            let failure = match self.receive_once(partial, &mut came, &mut |at| on(Event::At(before + at))) {
                Ok(()) => continue,
                Err(failure) => failure,
            };
            let reason = match &failure {
                HubError::Cut { reason, .. } | HubError::NoNetwork { reason, .. } => reason.clone(),
                HubError::Status { status: 429 | 500.., .. } => failure.to_string(),
                _ => return Err(failure),
            };
            fruitless = if came > had { 0 } else { fruitless + 1 };
            if fruitless == FRUITLESS_TRIES {
                return Err(failure);
            }
            on(Event::Cut { file: self.file, reason: &reason });
            std::thread::sleep(self.pause * fruitless);
        }
        Ok(came)
    }

    /// Gets as much as one connection gives.
    fn receive_once(&self, partial: &mut Partial, came: &mut u64, on_at: &mut dyn FnMut(u64)) -> Result<()> {
        let size = self.meta.size;
        let (from, body) = self.client.open(self.name, self.commit, self.file, partial.at)?;
        if let Some(length) = body.content_length().filter(|length| *length != size - from) {
            let url = self.client.file_url(self.name, self.commit, self.file);
            let reason = format!("{} bytes of {} were promised, {length} came", size - from, self.file);
            return Err(HubError::Answer { url, reason });
        }
        if from != partial.at {
            partial.restart(&self.meta)?;
        }
        let mut body = body.into_with_config().limit(u64::MAX).reader();
        let mut chunk = vec![0; CHUNK];
        while partial.at < size {
            let room = CHUNK.min((size - partial.at).try_into().unwrap_or(CHUNK));
            let reason = match body.read(&mut chunk[..room]) {
                Ok(0) => "the server closed the connection".to_owned(),
                Ok(n) => {
                    partial.add(&chunk[..n], size)?;
                    *came += n as u64;
                    on_at(partial.at);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => error.to_string(),
            };
            return Err(HubError::Cut { file: self.file.to_owned(), at: partial.at, size, reason });
        }
        Ok(())
    }

    /// Checks what came, and gives it its name.
    fn finish(&self, partial: Partial, on: &mut dyn FnMut(Event)) -> Result<()> {
        let Partial { path, file, hasher, .. } = partial;
        match hasher.finish() {
            None => on(Event::Unchecked { file: self.file }),
            Some(got) if got == self.meta.etag => {}
            Some(got) => {
                fs::remove_file(&path).map_err(HubError::io(&path))?;
                let (file, want) = (self.file.to_owned(), self.meta.etag.clone());
                return Err(HubError::Checksum { file, got, want });
            }
        }
        file.sync_all().map_err(HubError::io(&path))?;
        fs::rename(&path, &self.blob).map_err(HubError::io(&path))
    }
}

impl Partial {
    fn length(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(HubError::io(&self.path))?.len())
    }

    /// Takes up what is there.
    fn rehash(&mut self) -> Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            match self.file.read(&mut chunk).map_err(HubError::io(&self.path))? {
                0 => return Ok(()),
                n => {
                    self.hasher.update(&chunk[..n]);
                    self.at += n as u64;
                }
            }
        }
    }

    /// Forgets what came.
    fn restart(&mut self, meta: &Meta) -> Result<()> {
        (self.at, self.hasher) = (0, Hasher::new(meta));
        let result = self.file.set_len(0).and_then(|()| std::io::Seek::rewind(&mut self.file));
        result.map_err(HubError::io(&self.path))
    }

    fn add(&mut self, bytes: &[u8], size: u64) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                HubError::DiskFull { path: self.path.clone(), left: size - self.at }
            }
            _ => HubError::io(&self.path)(error),
        })?;
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }
}

/// The checksum that a file's ETag is.
enum Hasher {
    /// Of large files.
    Sha256(Sha256),
    /// Of small files: git's name of the blob, the SHA-1 of `blob SIZE`, a zero, and the content.
    Git(Sha1),
    /// Some mirrors send other ETags.
    Unknown,
}

impl Hasher {
    fn new(meta: &Meta) -> Hasher {
        match meta.etag.len() {
            64 if is_hex(&meta.etag) => Hasher::Sha256(Sha256::new()),
            40 if is_hex(&meta.etag) => Hasher::Git(Sha1::new_with_prefix(format!("blob {}\0", meta.size))),
            _ => Hasher::Unknown,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Git(hasher) => hasher.update(bytes),
            Hasher::Unknown => {}
        }
    }

    fn finish(self) -> Option<String> {
        match self {
            Hasher::Sha256(hasher) => Some(format!("{:x}", hasher.finalize())),
            Hasher::Git(hasher) => Some(format!("{:x}", hasher.finalize())),
            Hasher::Unknown => None,
        }
    }
}

/// Waits until no other process holds the lock. The system frees it when a process ends, however that ends.
fn lock(path: &Path, on_wait: impl FnOnce()) -> Result<File> {
    let file =
        File::options().create(true).truncate(false).write(true).open(path).map_err(HubError::io(path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => on_wait(),
        // A file system without locks: two downloads at once would spoil each other's file, which its checksum shows.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => return Ok(file),
        Err(TryLockError::Error(error)) => return Err(HubError::io(path)(error)),
    }
    file.lock().map_err(HubError::io(path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(etag: String, parts: &[&[u8]]) -> Option<String> {
        let meta = Meta { etag, size: parts.iter().map(|part| part.len() as u64).sum() };
        let mut hasher = Hasher::new(&meta);
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finish()
    }

    /// As `printf 'hello\n' | git hash-object --stdin` and `sha256sum` print them.
    #[test]
    fn checksums_are_those_of_git_and_of_sha256() {
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(checksum("0".repeat(40), &[b"hel", b"lo\n"]).unwrap(), git);
        assert_eq!(checksum("0".repeat(64), &[b"hello", b"", b"\n"]).unwrap(), sha256);
        assert_eq!(checksum("5f-61a".to_owned(), &[b"hello"]), None);
        assert_eq!(checksum("g".repeat(40), &[b"hello"]), None);
    }

    #[test]
    fn a_full_disk_is_named() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            eprintln!("SKIPPED: this system has no /dev/full");
            return;
        }
        let file = File::options().write(true).open(full).unwrap();
        let mut partial = Partial { path: full.to_owned(), file, at: 1, hasher: Hasher::Unknown };
        let error = partial.add(b"more", 5).unwrap_err();
        assert!(matches!(error, HubError::DiskFull { left: 4, .. }), "{error}");
    }
}
