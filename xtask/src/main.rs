//! Project chores. `cargo xtask check` runs everything that CI does; the tidy tests are in `tests/tidy.rs`.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;
use std::{env, fs};

const USAGE: &str =
    "usage: cargo xtask check    format, clippy, the README's test command, docs; stops at the first failure
       cargo xtask lint     format and clippy alone";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => check(),
        ["lint"] => lint(root()),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

fn lint(root: &Path) -> Result<(), String> {
    run(root, "cargo fmt --all --check")?;
    run(root, "cargo clippy --workspace --all-targets -- -D warnings")
}

fn check() -> Result<(), String> {
    let root = root();
    lint(root)?;
    run(root, &readme_test_command(root)?)?;
    run(root, "cargo doc --workspace --no-deps")
}

/// The line of README.md that tells people how to run the tests.
fn readme_test_command(root: &Path) -> Result<String, String> {
    let readme = fs::read_to_string(root.join("README.md")).map_err(|error| format!("README.md: {error}"))?;
    let command = readme.lines().map(str::trim).find(|line| line.starts_with("cargo test"));
    command.map(str::to_owned).ok_or_else(|| "README.md has no line that starts with `cargo test`".into())
}

/// Runs a command of plain words in `root`.
fn run(root: &Path, command: &str) -> Result<(), String> {
    eprintln!("== {command}");
    let start = Instant::now();
    let mut words = command.split('#').next().unwrap_or_default().split_whitespace();
    let program = words.next().expect("a command has words");
    let status =
        Command::new(program).args(words).current_dir(root).env("RUSTDOCFLAGS", "-D warnings").status();
    match status {
        Ok(status) if status.success() => {
            eprintln!("== done in {:.0} s", start.elapsed().as_secs_f64());
            Ok(())
        }
        Ok(status) => Err(format!("`{command}` failed ({status})")),
        Err(error) => Err(format!("`{command}` could not start: {error}")),
    }
}
