//! The engine as a library: three texts at once on one model, of which one is given up.
//!
//! `cargo run --release -p generate --example engine -- out/model`
#![forbid(unsafe_code)]

use std::error::Error;

use generate::{EngineSettings, Request, Sampling, TextEvent, Texts};
use models::Gpt2;
use tokenizer::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args()
        .nth(1)
        .ok_or("give a model directory, such as the one that `gpt2 quickstart` makes")?;
    let model = Gpt2::open(dir.as_ref(), None)?; // as stored; Some(Dtype::Q8) would convert it first
    let tokenizer = Tokenizer::load(dir.as_ref())?;

    // Room for two: the third text starts when one of the others is done.
    let mut texts = Texts::new(&model, &tokenizer, EngineSettings::for_batch(&model, 2))?;
    let mut ids = Vec::new();
    for (seed, prompt) in (1..).zip(["Once upon a time", "In a small house", ""]) {
        let request = Request {
            // Models that were trained on whole documents expect end-of-text before each.
            prompt: [vec![tokenizer.eot()], tokenizer.encode(prompt)?].concat(),
            max_tokens: Some(24),
            sampling: Sampling { temperature: 0.8, top_k: 40, seed, ..Sampling::default() },
            ..Request::default()
        };
        ids.push(texts.add(&request)?);
    }

    // Each step feeds one batch to the model. The pieces of a text come in its order, and are whole characters.
    let mut pieces = 0;
    while !texts.is_idle() {
        for event in texts.step()? {
            match event {
                TextEvent::Piece(id, piece) => {
                    println!("{id}: {piece:?}");
                    pieces += 1;
                }
                TextEvent::Slid(id, forgotten) => println!("{id}: forgets {forgotten} tokens"),
                TextEvent::Done(id, result) => {
                    let result = result?;
                    println!("{id}: done ({}), {} tokens", result.finish.as_str(), result.ids.len());
                }
            }
        }
        // The second is given up after a while; what it had written comes back. The others write the same all the same.
        if pieces >= 10
            && let Some(part) = texts.cancel(ids[1])
        {
            println!("{}: cancelled after {:?}", ids[1], part.text);
        }
    }
    Ok(())
}
