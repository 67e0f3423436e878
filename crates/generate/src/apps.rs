//! What people do with a model: talk to it, let it write, let it summarise. Each is a program over [`crate::Texts`].

pub mod chat;
pub mod facts;
pub mod summarize;
pub mod tasks;
pub mod write;
