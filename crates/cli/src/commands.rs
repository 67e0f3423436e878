//! The subcommands, one a file: its `Args`, whose comments are the help, and `run`, short enough to be the summary.

pub mod bench;
pub mod eval;
pub mod generate;
pub mod prepare;
pub mod quickstart;
pub mod tokenizer;
pub mod train;

use std::io::Write;

/// Whether the error is only that the reader of our output went away, as `head` does.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Prints one JSON value on a line of stdout.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    Ok(out.flush()?)
}
