//! Hashes of what a run learns from and is judged by: whoever resumes it must have the same.

use crate::example::Example;
use crate::{Result, Tokens, mix};

/// The hash of nothing.
pub const NOTHING: u64 = 0xcbf2_9ce4_8422_2325;

/// Goes on with a hash (FNV-1a, a number at a time).
pub fn of_numbers(hash: u64, numbers: impl IntoIterator<Item = u32>) -> u64 {
    numbers.into_iter().fold(hash, |hash, number| (hash ^ u64::from(number)).wrapping_mul(0x100_0000_01b3))
}

/// Goes on with a hash.
pub fn of_tokens(mut hash: u64, tokens: &Tokens) -> Result<u64> {
    const PART: usize = 1 << 20;
    for start in (0..tokens.len()).step_by(PART) {
        hash = of_numbers(hash, tokens.read(start..tokens.len().min(start + PART))?.iter().copied());
    }
    Ok(mix(hash, tokens.len() as u64, 0))
}

/// The hash of examples of which each `group` belong together.
pub fn of_examples<'a>(rows: impl IntoIterator<Item = &'a Example>, group: usize) -> u64 {
    let (mut hash, mut n) = (NOTHING, 0);
    for row in rows {
        let answers = row.is_answer.iter().map(|&is_answer| u32::from(is_answer));
        hash = of_numbers(of_numbers(hash, row.ids.iter().copied()), answers);
        hash = mix(hash, row.ids.len() as u64, 0);
        n += 1;
    }
    mix(hash, n, group as u64)
}
