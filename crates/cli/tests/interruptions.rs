//! Runs that are interrupted: by signals, by a full disk, by a loss that is no number. Unix only.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command};

use common::{Folder, TINY, losses, text};

const LONG: &str =
    "--data a.txt --tokenizer char --max-steps 4000 --eval-interval 1000000 --save-interval 20";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("a.txt", text());
    folder
}

fn send(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// Waits until the run has reported a step, and a little more, so that it is in the middle.
fn wait_for_steps(child: &mut Child, folder: &Folder, dir: &str, steps: usize) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("step 1/")), "the run did not start");
    std::thread::spawn(move || lines.for_each(drop)); // or the pipe would fill up
    while losses_so_far(folder, dir) < steps {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn losses_so_far(folder: &Folder, dir: &str) -> usize {
    std::fs::read_to_string(folder.path(&format!("{dir}/metrics.jsonl")))
        .map_or(0, |text| text.lines().count())
}

/// After an interruption: resume for some steps, and compare with a run that was never interrupted.
fn resumed_equals_straight(folder: &Folder, dir: &str) {
    let state = folder.path(&format!("{dir}/last/state.safetensors"));
    assert!(state.exists(), "no state was kept");
    let reached = losses_so_far(folder, dir) + 40;
    // The schedule depends on the length of the run, so both are told to run as long, and are stopped.
    folder.succeeds(&format!("train --resume --out {dir}"));
    folder.succeeds(&format!("train {LONG} {TINY} --out straight"));
    let [got, want] = [dir, "straight"].map(|dir| losses(&folder.path(dir)));
    assert!(
        got.len() >= reached && got[..reached] == want[..reached],
        "losses differ after the interruption"
    );
    assert!(got == want);
}

#[test]
fn sigint_saves_and_resume_goes_on_bit_for_bit() {
    let folder = folder();
    let mut child = folder.spawn(&format!("train {LONG} {TINY} --out out"));
    wait_for_steps(&mut child, &folder, "out", 30);
    send(&child, "-INT");
    assert!(child.wait().unwrap().success(), "an asked-for stop is a success");
    resumed_equals_straight(&folder, "out");
}

#[test]
fn kill_9_loses_nothing_before_the_last_save() {
    let folder = folder();
    let mut child = folder.spawn(&format!("train {LONG} {TINY} --out out"));
    wait_for_steps(&mut child, &folder, "out", 100);
    send(&child, "-KILL");
    assert!(!child.wait().unwrap().success());
    resumed_equals_straight(&folder, "out");
}

#[test]
fn a_full_disk_keeps_the_old_state() {
    let folder = folder();
    let train = format!("train --data a.txt --tokenizer char {TINY} --max-steps 3 --out out");
    folder.succeeds(&train);
    let state = folder.path("out/last/state.safetensors");
    let before = std::fs::read(&state).unwrap();
    // Files may grow to 8 blocks of 512 bytes: less than the state needs.
    let gpt2 = env!("CARGO_BIN_EXE_gpt2");
    let script = format!("trap '' XFSZ; ulimit -f 8; exec {gpt2} train --resume --max-steps 6 --out out");
    let run = Command::new("sh").args(["-c", &script]).current_dir(folder.path("")).output().unwrap();
    let message = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(
        !run.status.success() && message.contains("error: ") && message.contains("File too large"),
        "{message}"
    );
    assert!(std::fs::read(&state).unwrap() == before, "the old state was harmed");
    assert!(message.contains("the state of step 3 is kept"), "{message}");
    assert_eq!(
        names(&folder, "out/last"),
        [".lock", "state.safetensors"],
        "a half-written file was left behind"
    );
    folder.succeeds("train --resume --max-steps 6 --out out");
}

/// Without clipping, such a rate sends the weights away within a few steps, though the first ones are saved.
#[test]
fn a_loss_that_is_no_number_stops_and_names_the_step() {
    let folder = folder();
    let growing = "--optimizer sgd --momentum 0 --clip-norm 0 --lr 100 --schedule constant --warmup-steps 0";
    let rest = "--max-steps 50 --eval-interval 1000 --save-interval 1 --out out";
    let train = format!("train --data a.txt --tokenizer char {TINY} {growing} {rest}");
    folder.fails(&train, &["at step", "is kept", "--lr"]);
    assert!(folder.exists("out/last/state.safetensors"));
    // What was kept is the state before that step: it fails there again.
    folder.fails("train --resume --out out", &["at step", "is kept"]);
}

#[test]
fn a_damaged_model_is_not_written() {
    let folder = folder();
    for (val_fraction, out) in [("0", "a"), ("0.1", "b")] {
        let train = format!("train --data a.txt --tokenizer char {TINY} --max-steps 1 --lr 1e38");
        folder.fails(
            &format!("{train} --val-fraction {val_fraction} --out {out}"),
            &["at step 1;", "no state"],
        );
        assert!(!folder.exists(&format!("{out}/model.safetensors")));
        assert!(!folder.exists(&format!("{out}/last/state.safetensors")));
    }
}

/// The files of a folder, hidden ones too.
fn names(folder: &Folder, dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path(dir)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_closed_terminal_saves_and_stops() {
    let folder = folder();
    let mut child = folder.spawn(&format!("train {LONG} {TINY} --out out"));
    // Whoever read the messages is gone; then the terminal says so, twice.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("step 1/")), "the run did not start");
    drop(lines);
    let before = losses_so_far(&folder, "out");
    while losses_so_far(&folder, "out") < before + 10 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    send(&child, "-HUP");
    send(&child, "-HUP");
    assert!(child.wait().unwrap().success());
    assert!(losses_so_far(&folder, "out") < 4000);
    resumed_equals_straight(&folder, "out");
}

#[test]
fn nohup_keeps_a_run_going() {
    let folder = folder();
    let gpt2 = env!("CARGO_BIN_EXE_gpt2");
    let train = format!("{gpt2} train --data a.txt --tokenizer char {TINY} --max-steps 400 --out out");
    let script = format!("trap '' HUP; exec {train}");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(folder.path("")).stderr(std::process::Stdio::piped());
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for_steps(&mut child, &folder, "out", 2);
    // Only Linux tells a process which signals it was started to ignore.
    if cfg!(target_os = "linux") {
        send(&child, "-HUP");
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(losses(&folder.path("out")).len(), 400);
}

/// Before the step is over, which takes long with so many batches.
#[test]
fn the_first_ctrl_c_is_answered_at_once() {
    let folder = folder();
    let mut child = folder.spawn(&format!("train {LONG} {TINY} --grad-accum 1000 --out out"));
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("step 1/")));
    // Between two steps a run stops at once, and has nothing to answer: let the second one begin.
    std::thread::sleep(std::time::Duration::from_millis(200));
    send(&child, "-INT");
    let rest: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success());
    let answer = rest.iter().position(|line| line.contains("again to quit without saving"));
    let end = rest.iter().position(|line| line.starts_with("stopped after"));
    assert!(answer.is_some() && answer < end, "{rest:?}");
}

#[test]
fn a_directory_belongs_to_one_run() {
    let folder = folder();
    let train = format!("train {LONG} {TINY} --out out");
    let mut child = folder.spawn(&train);
    wait_for_steps(&mut child, &folder, "out", 30);
    folder.fails(&train, &["another process is training in out"]);
    folder.fails(&format!("{train} --force"), &["another process"]);
    folder.fails("train --resume --out out", &["another process"]);
    folder.fails("quickstart --max-steps 1 --out out", &["another process"]);
    send(&child, "-KILL");
    child.wait().unwrap();
    // What a kill in the middle of a save leaves behind, and files that only look like it.
    let leftovers = ["out/last/.state.safetensors.a1B2c3", "out/.model.safetensors.d4E5f6"];
    let others = ["out/.model.safetensors.backup", "out/.notes.a1B2c3"];
    leftovers.iter().chain(&others).for_each(|name| folder.write(name, "x"));
    let mut again = folder.spawn("train --resume --out out");
    let reached = losses_so_far(&folder, "out");
    wait_for_steps_beyond(&mut again, &folder, "out", reached + 20);
    send(&again, "-TERM");
    assert!(again.wait().unwrap().success(), "a killed run leaves no lock behind");
    assert!(
        leftovers.iter().all(|name| !folder.exists(name)) && others.iter().all(|name| folder.exists(name))
    );
}

/// As [`wait_for_steps`], for a run that does not begin at step 1.
fn wait_for_steps_beyond(child: &mut Child, folder: &Folder, dir: &str, steps: usize) {
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    std::thread::spawn(move || lines.for_each(drop));
    while losses_so_far(folder, dir) < steps {
        assert!(child.try_wait().unwrap().is_none(), "the run has ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

const PROMPTS: usize = 40;

/// A folder with a model and prompts, and the lines that they give without an interruption.
fn with_prompts() -> (Folder, Vec<String>) {
    let folder = folder();
    let longer = TINY.replace("--n-ctx 16", "--n-ctx 512");
    folder.succeeds(&format!("train --data a.txt --tokenizer char {longer} --max-steps 1 --out m"));
    folder.write("p.jsonl", "{\"prompt\":\"Once\"}\n".repeat(PROMPTS));
    folder.succeeds(&BATCH.replace("o.jsonl", "straight.jsonl"));
    let straight = written(&folder, "straight.jsonl");
    assert_eq!(straight.len(), PROMPTS);
    (folder, straight)
}

const BATCH: &str =
    "generate -m m --input p.jsonl --output o.jsonl --seed 1 --batch 2 --min-tokens 400 -n 400";

/// The whole lines of an output, without their times.
fn written(folder: &Folder, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder.path(name)).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| line.split(",\"timings\"").next().unwrap().to_owned()).collect()
}

#[test]
fn a_file_of_prompts_goes_on_after_a_signal() {
    let (folder, straight) = with_prompts();
    for signal in ["-INT", "-KILL", "-TERM"] {
        let before = written(&folder, "o.jsonl").len();
        let mut child = folder.spawn(BATCH);
        while written(&folder, "o.jsonl").len() < before + 2 {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        folder.fails(BATCH, &["another process is writing o.jsonl"]);
        send(&child, signal);
        assert_eq!(child.wait().unwrap().success(), signal != "-KILL");
        let got = written(&folder, "o.jsonl");
        assert!(got.len() < PROMPTS && got[..] == straight[..got.len()], "after {signal}");
    }
    folder.succeeds(BATCH);
    assert_eq!(written(&folder, "o.jsonl"), straight);
}

#[test]
fn a_full_disk_ends_a_file_of_prompts_and_loses_none() {
    let (folder, straight) = with_prompts();
    let script = format!("trap '' XFSZ; ulimit -f 8; exec {} {BATCH}", env!("CARGO_BIN_EXE_gpt2"));
    let run = Command::new("sh").args(["-c", &script]).current_dir(folder.path("")).output().unwrap();
    let message = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(!run.status.success() && message.contains("o.jsonl: File too large"), "{message}");
    let got = written(&folder, "o.jsonl");
    assert!(got[..] == straight[..got.len()]);
    folder.succeeds(BATCH);
    assert_eq!(written(&folder, "o.jsonl"), straight);
}

/// /dev/full takes no byte: results that cannot be written are an error, messages that cannot are none.
#[cfg(target_os = "linux")]
#[test]
fn full_devices() {
    let folder = folder();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let train = format!("train --data a.txt --tokenizer char {TINY} --max-steps 2");
    folder.succeeds(&format!("{train} --out m"));
    let results = [
        "tokenizer stats --data a.txt",
        "tokenizer encode",
        "tokenizer encode --json",
        "tokenizer train --data a.txt --size 260 --out t",
        "prepare --data a.txt --out p",
        &format!("{train} --out n"),
        &format!("{train} --out o --json"),
        "eval -m m --data a.txt",
        "generate -m m -p Once -n 2",
        "generate -m m -p Once -n 2 --json",
    ];
    for args in results {
        let run = folder.command(args).stdin(std::process::Stdio::null()).stdout(full()).output().unwrap();
        let message = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "gpt2 {args}: {message}");
        assert!(message.contains("error: ") && message.contains("No space left"), "gpt2 {args}: {message}");
    }
    for args in ["generate -m m -p Once -n 2", "eval -m m --data a.txt", &format!("{train} --out q")] {
        let run = folder.command(args).stderr(full()).output().unwrap();
        assert!(run.status.success() && !run.stdout.is_empty(), "gpt2 {args} 2>/dev/full");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = folder();
    folder.succeeds(&format!("train --data a.txt --tokenizer char {TINY} --max-steps 2 --out m"));
    let gpt2 = env!("CARGO_BIN_EXE_gpt2");
    for flags in ["", "--json"] {
        let script = format!("{gpt2} generate -m m --samples 50 -n 10 {flags} 2>err | head -c 5; cat err");
        let run = Command::new("sh").args(["-c", &script]).current_dir(folder.path("")).output().unwrap();
        let text = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(!text.contains("error") && !text.contains("panicked"), "{text}");
    }
}

/// The conversion is stopped where it says what it writes: nobody reads that, and the pipe is full.
#[cfg(target_os = "linux")]
#[test]
fn a_conversion_that_is_stopped_leaves_nothing() {
    let folder = folder();
    folder.succeeds(&format!("train --out m --data a.txt --tokenizer char --max-steps 1 {TINY}"));
    let before = entries(&folder);
    for (target, format) in [("m.gguf", "gguf"), ("copy", "hf")] {
        let (_reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&[b' '; 1 << 16]).unwrap();
        let mut command = folder.command(&format!("convert m {target} --to {format}"));
        let mut child = command.stderr(writer).stdout(std::process::Stdio::null()).spawn().unwrap();
        while entries(&folder) == before {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        send(&child, "-INT");
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(entries(&folder), before);
    }
}

/// The names in a folder.
#[cfg(target_os = "linux")]
fn entries(folder: &Folder) -> std::collections::BTreeSet<std::ffi::OsString> {
    std::fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}
