//! SentencePiece's table of replacements (`precompiled_charsmap`), looked through before the crate walks it.
//!
//! It is a trie as a double array of 32-bit units, and the replacements, each ended by a zero. The crate trusts every
//! number in it; here each that it may come to is looked at. Format: `darts.h` as SentencePiece uses it.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// What is wrong with a table that is written in base64.
pub(super) fn check(base64: &str) -> Result<(), &'static str> {
    // What is written without padding is read by the crate, too.
    let how = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&STANDARD, how).decode(base64).map_err(|_| "it is not base64")?;
    let (size, rest) = bytes.split_first_chunk().ok_or("it is too short")?;
    let size = u32::from_le_bytes(*size) as usize;
    let (trie, texts) = rest.split_at_checked(size).ok_or("its trie is longer than it")?;
    let texts = std::str::from_utf8(texts).map_err(|_| "its replacements are not UTF-8")?;
    let (units, []) = trie.as_chunks() else { return Err("its trie is no list of 32-bit units") };
    let units: Vec<usize> = units.iter().map(|&unit| u32::from_le_bytes(unit) as usize).collect();
    walk(&units, texts)
}

/// Looks at each unit that bytes of text may lead to.
fn walk(units: &[usize], texts: &str) -> Result<(), &'static str> {
    let offset = |unit: usize| unit >> 10 << ((unit & 1 << 9) >> 6);
    let root = *units.first().ok_or("its trie is empty")?;
    let mut seen = vec![false; units.len()];
    let mut open = vec![offset(root)];
    while let Some(base) = open.pop() {
        // A byte changes the lowest eight bits only.
        if base | 0xFF >= units.len() {
            return Err("a path in its trie leads out of it");
        }
        for byte in 1..=0xFF {
            let at = base ^ byte;
            let unit = units[at];
            if unit & (1 << 31 | 0xFF) != byte || std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let next = at ^ offset(unit);
            if unit >> 8 & 1 == 1 {
                let text = units.get(next).ok_or("a path in its trie leads out of it")? & ((1 << 31) - 1);
                if !texts.is_char_boundary(text) {
                    return Err("its trie names a replacement that is not there");
                }
            }
            open.push(next);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trie of 512 units that replaces "a" by what stands at `text`.
    fn trie(offset: usize, text: usize) -> Vec<usize> {
        let mut units = vec![0; 512];
        units[0] = 256 << 10;
        units[256 ^ 0x61] = offset << 10 | 1 << 8 | 0x61;
        if let Some(unit) = units.get_mut(256 ^ 0x61 ^ offset) {
            *unit = 1 << 31 | text;
        }
        units
    }

    #[test]
    fn paths_and_replacements() {
        assert_eq!(walk(&trie(256, 1), "x\0"), Ok(()));
        assert_eq!(walk(&trie(256, 9), "x\0"), Err("its trie names a replacement that is not there"));
        assert_eq!(walk(&trie(1024, 0), "x\0"), Err("a path in its trie leads out of it"));
        assert_eq!(walk(&trie(256, 0)[..300], ""), Err("a path in its trie leads out of it"));
        assert_eq!(walk(&[], ""), Err("its trie is empty"));
        assert_eq!(check("AAAA"), Err("it is too short"));
        assert_eq!(check("/////w=="), Err("its trie is longer than it"));
    }
}
