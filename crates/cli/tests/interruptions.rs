//! Runs that are interrupted: by signals, by a full disk, by a loss that is no number. Unix only.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader};
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
    let files = std::fs::read_dir(folder.path("out/last")).unwrap().count();
    assert_eq!(files, 1, "a half-written file was left behind");
    folder.succeeds("train --resume --max-steps 6 --out out");
}

/// One step with a monstrous rate is enough: the next loss is infinite or no number, but the first step was saved.
#[test]
fn a_loss_that_is_no_number_stops_and_names_the_step() {
    let folder = folder();
    let growing = "--lr 1e30 --schedule constant --warmup-steps 0";
    let rest = "--max-steps 50 --eval-interval 1000 --save-interval 1 --out out";
    let train = format!("train --data a.txt --tokenizer char {TINY} {growing} {rest}");
    folder.fails(&train, &["at step", "is kept", "--lr"]);
    assert!(folder.exists("out/last/state.safetensors"));
    // What was kept is the state before that step: it fails there again.
    folder.fails("train --resume --out out", &["at step", "is kept"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = folder();
    folder.succeeds(&format!("train --data a.txt --tokenizer char {TINY} --max-steps 2 --out m"));
    let gpt2 = env!("CARGO_BIN_EXE_gpt2");
    let script = format!("{gpt2} generate -m m --samples 50 -n 10 2>err | head -c 5; cat err");
    let run = Command::new("sh").args(["-c", &script]).current_dir(folder.path("")).output().unwrap();
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(!text.contains("error") && !text.contains("panicked"), "{text}");
}
