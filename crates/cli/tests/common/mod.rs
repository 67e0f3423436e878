//! What the tests of the binary share: a folder to work in, and running `gpt2` in it.
#![allow(dead_code)] // each test file uses a part

pub mod assistant;
pub mod server;
#[cfg(unix)]
pub mod terminal;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A folder that is removed at the end.
pub struct Folder(tempfile::TempDir);

/// What a finished command printed.
pub struct Finished {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    pub fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2"));
        command.args(args.split_whitespace()).current_dir(self.0.path());
        command
    }

    /// Runs `gpt2` with words separated by white space.
    pub fn run(&self, args: &str) -> Finished {
        self.run_with_input(args, b"")
    }

    pub fn run_with_input(&self, args: &str, input: &[u8]) -> Finished {
        self.finish(self.command(args), input)
    }

    /// Runs a command to its end.
    pub fn finish(&self, mut command: Command, input: &[u8]) -> Finished {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that does not read its input may be gone already.
        _ = child.stdin.take().unwrap().write_all(input);
        finished(child.wait_with_output().unwrap())
    }

    /// Runs `gpt2` and expects success.
    #[track_caller]
    pub fn succeeds(&self, args: &str) -> String {
        let Finished { ok, stdout, stderr } = self.run(args);
        assert!(ok, "gpt2 {args}\n{stdout}{stderr}");
        stdout
    }

    /// Runs `gpt2` and expects an error that says all of these, and no result.
    #[track_caller]
    pub fn fails(&self, args: &str, parts: &[&str]) {
        let Finished { ok, stdout, stderr } = self.run(args);
        assert!(!ok, "gpt2 {args} should fail\n{stdout}{stderr}");
        assert_eq!(stdout, "", "gpt2 {args}");
        assert!(stderr.contains("error: ") && !stderr.contains("panicked"), "gpt2 {args}\n{stderr}");
        for part in parts {
            assert!(stderr.contains(part), "gpt2 {args}: the error does not say {part:?}:\n{stderr}");
        }
    }

    pub fn spawn(&self, args: &str) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

fn finished(output: Output) -> Finished {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Finished { ok: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A small English and Chinese text.
pub fn text() -> String {
    "Once upon a time there was a fox. The fox said, \"Good morning!\" 从前有一只狐狸。狐狸说：“早上好！”\n"
        .repeat(120)
}

/// Flags of a model that trains in a moment.
pub const TINY: &str = "--n-layer 1 --n-head 2 --n-embd 16 --n-ctx 16 --batch 4 --seed 3 --dropout 0.1";

/// The losses in metrics.jsonl, by step.
pub fn losses(dir: &Path) -> Vec<(u64, String)> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| Some((line["step"].as_u64()?, line.get("train/loss")?.to_string()))).collect()
}
