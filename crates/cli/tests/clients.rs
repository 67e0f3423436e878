//! Clients that others wrote, against the real server. Turned on by `GPT2_CLIENTS_TEST=PYTHON`, a Python with the packages of
//! tests/clients/requirements.txt.

use std::path::Path;
use std::process::Command;

#[test]
fn clients_work_unmodified() {
    let Some(python) = std::env::var_os("GPT2_CLIENTS_TEST").filter(|python| !python.is_empty()) else {
        eprintln!(
            "SKIPPED: GPT2_CLIENTS_TEST names no Python with the packages of tests/clients/requirements.txt"
        );
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let script = root.join("tests/clients/run.py");
    let status =
        Command::new(python).arg(script).arg(env!("CARGO_BIN_EXE_gpt2")).current_dir(root).status().unwrap();
    assert!(status.success(), "tests/clients: {status}");
}
