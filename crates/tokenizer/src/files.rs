//! Tokenizer files as Hugging Face's libraries write and read them.

mod load;
mod parts;
mod save;

use crate::split::HAN;
use crate::train::{bytes_in_gpt2_order, is_printable};
use crate::words::Unit;

pub(crate) use load::load;
pub use parts::{Parts, Role};
pub(crate) use save::save;

const TOKENIZER: &str = "tokenizer.json";
const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const CONFIG: &str = "tokenizer_config.json";

/// How GPT-2's files write bytes: each as a printable character.
struct Alphabet {
    char_of: [char; 256],
    /// By code point: they are all below 512.
    byte_of: [Option<u8>; 512],
}

impl Alphabet {
    fn new() -> Alphabet {
        let mut others = '\u{100}'..;
        let (mut char_of, mut byte_of) = (['\0'; 256], [None; 512]);
        for byte in bytes_in_gpt2_order() {
            let char = if is_printable(&byte) { Some(char::from(byte)) } else { others.next() };
            char_of[byte as usize] = char.expect("there are more characters than bytes");
            byte_of[char_of[byte as usize] as usize] = Some(byte);
        }
        Alphabet { char_of, byte_of }
    }

    fn write(&self, bytes: &[u8]) -> String {
        bytes.iter().map(|&byte| self.char_of[byte as usize]).collect()
    }

    /// Appends the bytes that were written so, unless a character stands for none.
    fn read(&self, token: &str, bytes: &mut Vec<u8>) -> Option<()> {
        token.chars().try_for_each(|char| {
            bytes.push((*self.byte_of.get(char as usize)?)?);
            Some(())
        })
    }
}

/// What cuts text into entries, in the words of Hugging Face's libraries: [`crate::split::Pattern::Characters`] and
/// [`crate::split::Pattern::Words`].
fn split_pattern(unit: Unit) -> String {
    let range = |&(first, last): &(char, char)| format!("\\x{{{:X}}}-\\x{{{:X}}}", first as u32, last as u32);
    let han: String = HAN.iter().map(range).collect();
    match unit {
        Unit::Chars => r"[\s\S]".to_owned(),
        Unit::Words => format!(
            r"'(?:[sdmt]|ll|ve|re)|[{han}]| ?[\p{{L}}&&[^{han}]]+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
        ),
    }
}
