//! How long it takes to load a tokenizer: `cargo run --release -p tokenizer --example load -- [DIR]`.
//!
//! Without a directory, GPT-2's own, from its tokenizer.json and from its vocab.json with merges.txt.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tokenizer::Tokenizer;

const TIMES: usize = 15;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = match std::env::args_os().nth(1) {
        Some(dir) => PathBuf::from(dir),
        None => {
            let dir = std::env::temp_dir().join(format!("gpt2-load-{}", std::process::id()));
            Tokenizer::gpt2().save(&dir)?;
            dir
        }
    };
    for name in ["tokenizer.json", "vocab.json", "vocab.txt"] {
        let path = dir.join(name);
        if path.is_file() {
            println!("{name}: {:.1} ms, the quickest of {TIMES}", quickest(&path)?);
        }
    }
    if std::env::args_os().len() < 2 {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(())
}

fn quickest(path: &Path) -> tokenizer::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..TIMES {
        let start = Instant::now();
        Tokenizer::load(path)?;
        best = best.min(1e3 * start.elapsed().as_secs_f64());
    }
    Ok(best)
}
