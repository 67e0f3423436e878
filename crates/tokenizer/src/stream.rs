//! Bytes to text as they come, never breaking a character.

/// Collects bytes and hands out text whose characters are complete.
///
/// What is not UTF-8 becomes U+FFFD, one for each maximal invalid stretch, as in [`String::from_utf8_lossy`].
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// Adds bytes and returns the text that is certain now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut done = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let rest = chunk.invalid();
            let at_end = done + rest.len() == self.pending.len();
            if rest.is_empty() || (at_end && may_continue(rest)) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            done += rest.len();
        }
        self.pending.drain(..done);
        text
    }

    /// The rest: what is still incomplete becomes U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// Whether these bytes are the start of a character.
fn may_continue(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_by_byte_equals_the_whole() {
        let cases: [&[u8]; 7] = [
            "héllo 世界 👩‍👧".as_bytes(),
            b"\xff\xfe",
            b"ab\xe4\xb8",
            b"\xe4\xb8ab",
            b"\xf0\x9f\x91x\xc3",
            b"\xed\xa0\x80",
            b"\xc0\xaf",
        ];
        for bytes in cases {
            let mut stream = Utf8Stream::default();
            let mut text: String = bytes.iter().map(|&byte| stream.push(&[byte])).collect();
            text += &stream.finish();
            assert_eq!(text, String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn any_bytes_in_any_portions_equal_the_whole() {
        let mut state = 1u64;
        let mut random = |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..random(12))
                .map(|_| b"a\xc3\xa9\xe4\xb8\x96\xf0\x9f\x98\xed\xa0\xff"[random(12)])
                .collect();
            let (mut stream, mut text, mut rest) = (Utf8Stream::default(), String::new(), &bytes[..]);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(1 + random(rest.len()));
                text += &stream.push(now);
                rest = later;
            }
            text += &stream.finish();
            assert_eq!(text, String::from_utf8_lossy(&bytes), "{bytes:x?}");
        }
    }

    #[test]
    fn a_character_waits_until_it_is_whole() {
        let mut stream = Utf8Stream::default();
        assert_eq!(stream.push(&"世".as_bytes()[..2]), "");
        assert_eq!(stream.push(&"世".as_bytes()[2..]), "世");
    }
}
