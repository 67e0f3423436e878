//! Text files to token shards to batches, and the built-in demo corpus.
//!
//! The path of data: [`read`] turns files into documents, [`prepare`] into tokens (in memory or as [`shards`]),
//! and [`batches`] into what a training step takes. [`records`] reads examples of questions and answers for fine-tuning,
//! and [`packed`] makes batches of them. [`corpus`] writes small stories, so that no file is needed.
#![forbid(unsafe_code)]

pub mod batches;
pub mod corpus;
mod error;
pub mod example;
pub mod fingerprint;
pub mod packed;
pub mod prepare;
pub mod read;
pub mod records;
pub mod shards;
mod tokens;

pub use error::DataError;
pub use tokens::Tokens;

/// The result of working with data.
pub type Result<T> = std::result::Result<T, DataError>;

/// A hash of three numbers (the finaliser of SplitMix64): the source of all choices in this crate.
pub(crate) fn mix(seed: u64, a: u64, b: u64) -> u64 {
    let mut z = seed;
    for word in [a, b] {
        z = z.wrapping_add(word).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
    }
    z
}
