//! GGUF as a library: a model directory as a GGUF file, and what a GGUF file computes and how it cuts text.
//!
//! ```text
//! cargo run --release -p generate --example gguf -- write out/model model.gguf q8_0
//! cargo run --release -p generate --example gguf -- logits model.gguf 464 3290          # f32, little-endian
//! cargo run --release -p generate --example gguf -- encode model.gguf < texts.json      # a list of texts
//! ```
//! `bench/peers/gguf_check.py` holds these to llama.cpp.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{Write, stdin, stdout};

use generate::gguf;
use models::checkpoint::GgufType;
use models::{Gpt2, Pass};
use tokenizer::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", dir, path, kind] => {
            let (dir, kind) = (dir.as_ref(), GgufType::from_name(kind).ok_or("no such type")?);
            let (model, tokenizer) = (Gpt2::open(dir, None)?, Tokenizer::load(dir)?);
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            gguf::save(&model, &tokenizer, path.as_ref(), kind, &[("general.name", &name)])?;
        }
        ["logits", path, ids @ ..] => {
            let model = Gpt2::open(path.as_ref(), None)?;
            let ids = ids.iter().map(|id| id.parse()).collect::<Result<Vec<u32>, _>>()?;
            let logits = model.logits(&ids, 1, &mut Pass::eval())?;
            let bytes: Vec<u8> = logits.data().iter().flat_map(|x| x.to_le_bytes()).collect();
            stdout().write_all(&bytes)?;
        }
        ["encode", path] => {
            let tokenizer = gguf::tokenizer(path.as_ref())?;
            let texts: Vec<String> = serde_json::from_reader(stdin())?;
            let ids =
                texts.iter().map(|text| Ok([tokenizer.encode(text)?, tokenizer.encode_with_special(text)?]));
            let ids = ids.collect::<Result<Vec<_>, tokenizer::TokenizerError>>()?;
            println!("{}", serde_json::to_string(&ids)?);
        }
        _ => return Err("write DIR FILE TYPE, logits FILE ID…, or encode FILE".into()),
    }
    Ok(())
}
