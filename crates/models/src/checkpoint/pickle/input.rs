//! The bytes of a pickle, taken one after the other. A length that is only claimed takes no memory.

use super::PickleError;

/// What reading a part of a pickle gives.
pub(super) type Step<T = ()> = Result<T, PickleError>;

/// Bytes, and how many were taken.
pub(super) struct Input<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Input<'a> {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What was not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Something that cannot be, here.
    pub fn invalid(&self, what: &'static str) -> PickleError {
        PickleError::Invalid { what, offset: self.at }
    }

    /// The next bytes, if there are so many.
    pub fn take(&mut self, len: u64) -> Step<&'a [u8]> {
        let rest = self.rest();
        let len = usize::try_from(len).ok().filter(|&len| len <= rest.len()).ok_or(PickleError::Truncated)?;
        self.at += len;
        Ok(&rest[..len])
    }

    /// The next bytes, of a fixed number.
    pub fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        Ok(self.take(N as u64)?.try_into().expect("as long as asked for"))
    }

    /// A whole number of up to 8 bytes.
    pub fn number(&mut self, size: u64) -> Step<u64> {
        let mut number = [0; 8];
        let bytes = self.take(size)?;
        number[..bytes.len()].copy_from_slice(bytes);
        Ok(u64::from_le_bytes(number))
    }

    /// The bytes that follow their own number, which takes `size` bytes.
    pub fn counted(&mut self, size: u64) -> Step<&'a [u8]> {
        let len = self.number(size)?;
        self.take(len)
    }

    /// The bytes up to the end of the line.
    pub fn line(&mut self) -> Step<&'a [u8]> {
        let rest = self.rest();
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or(PickleError::Truncated)?;
        self.at += len + 1;
        Ok(&rest[..len])
    }

    /// A line that holds a number.
    pub fn decimal<T: std::str::FromStr>(&mut self, end: &str) -> Step<T> {
        let line = std::str::from_utf8(self.line()?).ok();
        let number = line.and_then(|line| line.trim().trim_end_matches(end).parse().ok());
        number.ok_or_else(|| self.invalid("a number that is none"))
    }
}
