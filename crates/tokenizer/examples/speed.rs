//! How fast this crate is, on one thread: encoding, training, and loading GPT-2's vocabulary.
//!
//! ```text
//! cargo run --release -p tokenizer --example speed -- encode FILE [--lines] [--repeats 5] [--ids OUT]
//! cargo run --release -p tokenizer --example speed -- train FILE SIZE [--repeats 3]
//! cargo run --release -p tokenizer --example speed -- load [FILE or DIR]
//! ```
//! `--lines` encodes each line by itself. Prints one line of JSON with the seconds of each repeat;
//! `bench/peers/tokenizer.py` compares them with others.
#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Instant;

use serde_json::json;
use tokenizer::Tokenizer;

const USAGE: &str =
    "speed encode FILE [--lines] [--ids FILE] | train FILE SIZE | load [PATH]   [--repeats N]";

fn main() -> Result<(), Box<dyn Error>> {
    let (mut words, mut repeats, mut ids_file, mut lines) = (Vec::new(), 3, None, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--lines" => lines = true,
            "--repeats" => repeats = args.next().ok_or(USAGE)?.parse()?,
            "--ids" => ids_file = Some(args.next().ok_or(USAGE)?),
            _ => words.push(arg),
        }
    }
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["encode", file] => encode(file, lines, repeats, ids_file.as_deref()),
        ["train", file, size] => train(file, size.parse()?, repeats),
        ["load"] => load(None),
        ["load", path] => load(Some(path)),
        _ => Err(USAGE.into()),
    }
}

fn encode(file: &str, lines: bool, repeats: usize, ids_file: Option<&str>) -> Result<(), Box<dyn Error>> {
    let text = std::fs::read_to_string(file)?;
    let texts: Vec<&str> = if lines { text.split_inclusive('\n').collect() } else { vec![&text] };
    let gpt2 = Tokenizer::gpt2();
    let mut seconds = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..=repeats {
        ids = Vec::new();
        let start = Instant::now();
        for text in &texts {
            gpt2.encode_into(text, &mut ids)?;
        }
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.remove(0); // the first is a rehearsal
    if let Some(file) = ids_file {
        std::fs::write(file, ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    println!("{}", json!({ "bytes": text.len(), "tokens": ids.len(), "seconds": seconds }));
    Ok(())
}

fn train(file: &str, size: usize, repeats: usize) -> Result<(), Box<dyn Error>> {
    let text = std::fs::read_to_string(file)?;
    let mut seconds = Vec::new();
    let mut got = 0;
    for _ in 0..repeats {
        let start = Instant::now();
        got = Tokenizer::train_bpe(text.split_inclusive('\n'), size)?.vocab_size();
        seconds.push(start.elapsed().as_secs_f64());
    }
    println!("{}", json!({ "bytes": text.len(), "asked": size, "got": got, "seconds": seconds }));
    Ok(())
}

fn load(path: Option<&str>) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let tokenizer = path.map_or_else(|| Ok(Tokenizer::gpt2()), |path| Tokenizer::load(path.as_ref()))?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{}", json!({ "tokens": tokenizer.vocab_size(), "seconds": [seconds] }));
    Ok(())
}
