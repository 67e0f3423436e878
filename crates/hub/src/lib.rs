//! Models by name: `gpt2`, `org/name`, `org/name@revision` become directories of this machine.
//!
//! Start at [`Hub`]. What it downloads lies where Python's `huggingface_hub` keeps it (`models--org--name`, with `blobs`,
//! `refs` and `snapshots`), so that each finds what the other has downloaded. Downloads are checked against the hub's
//! checksums, go on where they were cut, and exclude each other across processes.
#![forbid(unsafe_code)]

mod cache;
mod client;
mod download;
mod error;
mod hub;
mod name;
mod select;
mod shelf;

pub use cache::{Snapshot, Wanted};
pub use error::{HubError, Result};
pub use hub::{Event, Hub};
pub use name::{KNOWN, Name};
pub use select::TOKENIZER as TOKENIZER_FILES;
pub use shelf::{Cached, Removed};
