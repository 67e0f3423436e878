//! The page in headless Chromium. Turned on by `GPT2_PAGE_TEST=PYTHON`, a Python with the packages of tests/page/requirements.txt.

use std::path::Path;
use std::process::Command;

#[test]
fn the_page_in_a_browser() {
    let Some(python) = std::env::var_os("GPT2_PAGE_TEST").filter(|python| !python.is_empty()) else {
        eprintln!("SKIPPED: GPT2_PAGE_TEST names no Python with playwright");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let script = root.join("tests/page/run.py");
    let status =
        Command::new(python).arg(script).arg(env!("CARGO_BIN_EXE_gpt2")).current_dir(root).status().unwrap();
    assert!(status.success(), "tests/page: {status}");
}
