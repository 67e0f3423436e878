//! Bytes that are shared and not changed: those of a file, where they lie, or of memory.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytemuck::AnyBitPattern;
use memmap2::Mmap;

/// A range of shared bytes. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Bytes {
    source: Arc<Source>,
    range: Range<usize>,
}

#[derive(Debug)]
enum Source {
    File(Mmap),
    Memory(Vec<u64>), // which starts where numbers of any type may
}

impl Bytes {
    /// The bytes of a file, which are read as they are first used. The file must not be cut short meanwhile: replace
    /// it by a new one instead, as every writer of this project does.
    pub fn of_file(file: &File) -> io::Result<Bytes> {
        // SAFETY: the mapping is private and only read. Another program that changes the file in place could change
        // these values, or end this program by cutting the file; that is documented, and no writer here does so.
        let map = unsafe { Mmap::map(file) }?;
        // What is not in memory yet is read into large pages, where system and file system can do that. It is advice.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let range = 0..map.len();
        Ok(Bytes { source: Arc::new(Source::File(map)), range })
    }

    /// Looks up the pages of a file beforehand, on a thread of its own: they are found sooner in one go than one by one
    /// as they are first used. Does nothing where the system cannot.
    pub fn warm(&self) {
        #[cfg(target_os = "linux")]
        {
            let bytes = self.clone();
            let look = move || {
                if let Source::File(map) = &*bytes.source {
                    _ = map.advise(memmap2::Advice::PopulateRead);
                }
            };
            // Without a thread, pages are looked up as they are used.
            _ = std::thread::Builder::new().name("gpt2-pages".into()).spawn(look);
        }
    }

    /// `len` bytes of memory, written by `fill`.
    pub fn of_memory(len: usize, fill: impl FnOnce(&mut [u8])) -> Bytes {
        let mut memory = vec![0u64; len.div_ceil(8)];
        fill(&mut bytemuck::cast_slice_mut(&mut memory)[..len]);
        Bytes { source: Arc::new(Source::Memory(memory)), range: 0..len }
    }

    /// A part of these.
    ///
    /// # Panics
    /// If it does not lie in them.
    pub fn part(&self, range: Range<usize>) -> Bytes {
        assert!(
            range.start <= range.end && range.end <= self.range.len(),
            "{range:?} of {}",
            self.range.len()
        );
        let start = self.range.start;
        Bytes { source: self.source.clone(), range: start + range.start..start + range.end }
    }

    /// The bytes as numbers, if they start where such numbers may, and are whole ones.
    pub fn numbers<T: AnyBitPattern>(&self) -> Option<&[T]> {
        bytemuck::try_cast_slice(self).ok()
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &*self.source {
            Source::File(map) => map,
            Source::Memory(memory) => bytemuck::cast_slice(memory),
        };
        &all[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn parts_of_a_file_and_of_memory() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1, 0, 0, 0, 2, 0, 0, 0, 3]).unwrap();
        let file = Bytes::of_file(&file).unwrap();
        let memory = Bytes::of_memory(9, |bytes| bytes.copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0, 3]));
        for bytes in [file, memory] {
            assert_eq!(bytes.len(), 9);
            assert_eq!(bytes.part(0..8).numbers::<u32>(), Some(&[1, 2][..]));
            assert_eq!(bytes.part(4..9).part(0..4).numbers::<u32>(), Some(&[2][..]));
            assert_eq!(bytes.part(1..5).numbers::<u32>(), None);
            assert_eq!(bytes.numbers::<u32>(), None);
        }
    }
}
