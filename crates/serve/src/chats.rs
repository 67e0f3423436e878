//! Conversations that the page keeps: with their branches, in an SQLite file that only its owner may read, apart for each key.
//!
//! The file holds what the page sends, once it is known to be a conversation (`chat.rs`). Each write names the version that it
//! follows, so that two tabs that go on with one conversation do not lose a turn: the second is told, and keeps its own as another.

mod chat;
mod file;
mod routes;

pub use file::{Chats, ChatsError, Head, Refused};
pub use routes::routes;

#[cfg(test)]
mod tests;
