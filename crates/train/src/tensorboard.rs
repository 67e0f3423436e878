//! TensorBoard's event files: records with checksums around a small protocol-buffer message.
//!
//! A record is its length (u64), the length's checksum (u32), the message, the message's checksum. The checksum is
//! CRC-32C, rotated and offset ("masked"). The message is `Event { wall_time = 1, step = 2, file_version = 3,
//! summary = 5 { value = 1 { tag = 1, simple_value = 2 } } }`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// An event file that scalars are appended to.
#[derive(Debug)]
pub(crate) struct EventFile {
    file: File,
}

impl EventFile {
    /// A new file in `dir`, named by the time so that TensorBoard reads several in order.
    pub fn create(dir: &Path, seconds: f64) -> io::Result<EventFile> {
        std::fs::create_dir_all(dir)?;
        let name = format!("events.out.tfevents.{:010}.gpt2.{}", seconds as u64, std::process::id());
        // Within one second a process may open several.
        let names = std::iter::once(name.clone()).chain((1..).map(|n| format!("{name}.{n}")));
        let mut created = names.map(|name| File::create_new(dir.join(name)));
        let taken = |file: &io::Result<File>| {
            file.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
        };
        let mut file = EventFile { file: created.find(|file| !taken(file)).expect("endless names")? };
        let mut event = time(seconds);
        put_bytes(&mut event, 3, b"brain.Event:2");
        file.record(&event)?;
        Ok(file)
    }

    /// Appends values of one step.
    pub fn scalars(&mut self, seconds: f64, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend((*value as f32).to_le_bytes());
            put_bytes(&mut summary, 1, &entry);
        }
        let mut event = time(seconds);
        event.push(2 << 3);
        put_varint(&mut event, step);
        put_bytes(&mut event, 5, &summary);
        self.record(&event)
    }

    fn record(&mut self, message: &[u8]) -> io::Result<()> {
        let len = (message.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(message.len() + 16);
        record.extend(len);
        record.extend(masked(&len).to_le_bytes());
        record.extend(message);
        record.extend(masked(message).to_le_bytes());
        self.file.write_all(&record)
    }
}

fn time(seconds: f64) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(seconds.to_le_bytes());
    event
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that the `tensorboard` Python package (2.20) reads as `train/loss` = 2.5 at step 300, wall time 1.5.
    #[test]
    fn a_file_has_the_known_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(dir.path(), 1.5).unwrap();
        file.scalars(1.5, 300, &[("train/loss", 2.5)]).unwrap();
        let path = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let bytes = std::fs::read(path).unwrap();
        let first = 8 + 4 + (9 + 15) + 4;
        assert_eq!(&bytes[..8], &24u64.to_le_bytes());
        let message = &bytes[first + 12..bytes.len() - 4];
        let mut want = vec![0x09];
        want.extend(1.5f64.to_le_bytes());
        want.extend([0x10, 0xac, 0x02, 0x2a, 19, 0x0a, 17, 0x0a, 10]);
        want.extend(b"train/loss");
        want.extend([0x15]);
        want.extend(2.5f32.to_le_bytes());
        assert_eq!(message, want);
        assert_eq!(&bytes[bytes.len() - 4..], masked(message).to_le_bytes());
    }

    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }
}
