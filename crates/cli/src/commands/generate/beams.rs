//! The texts that are most likely as a whole.

use anyhow::{Result, ensure};
use generate::{BeamSearch, BeamSettings, EarlyStopping, beam_search_on};
use models::{Gpt2, KvPool};
use serde_json::json;
use tokenizer::Tokenizer;

use super::Args;
use crate::output::say;
use crate::plan::free_memory;

pub fn run(args: &Args, model: &Gpt2, tokenizer: &Tokenizer, prompt: &str) -> Result<()> {
    let request = args.request(tokenizer, prompt, 0)?;
    ensure!(request.stop.is_empty(), "--stop cannot be combined with --beams; use --stop-token");
    ensure!(args.overflow == "refuse", "--overflow slide cannot be combined with --beams");
    let prompt_ids = if request.prompt.is_empty() { vec![tokenizer.bos()] } else { request.prompt };
    let n_ctx = model.config().n_ctx;
    let room = n_ctx.saturating_sub(prompt_ids.len());
    let max_new_tokens = args.max_tokens.unwrap_or(room);
    ensure!(
        max_new_tokens <= room,
        "the prompt has {} tokens and {max_new_tokens} more are asked for, but the model's context is {n_ctx}; ask for at most {room}",
        prompt_ids.len(),
    );
    let num_beams = args.beams.unwrap_or(1);
    let num_return = usize::try_from(args.samples).unwrap_or(usize::MAX);
    let mut processors = request.sampling.processors;
    processors.min_new_tokens = args.min_tokens;
    let settings = BeamSettings {
        num_beams,
        num_return,
        length_penalty: args.length_penalty,
        early_stopping: match args.early_stopping.as_str() {
            "true" => EarlyStopping::Always,
            "never" => EarlyStopping::Never,
            _ => EarlyStopping::Heuristic,
        },
        max_new_tokens,
        processors,
    };
    ensure_fits(model, num_beams, prompt_ids.len() + max_new_tokens)?;
    let model_ends = generate::end_tokens(model.config(), tokenizer);
    let search = BeamSearch::new(&settings, &prompt_ids, tokenizer.vocab_size(), &model_ends)?;
    // Each beam may become a text of its own, and for a moment its parent is there, too.
    let blocks = KvPool::blocks_for(prompt_ids.len() + max_new_tokens)
        .saturating_mul(num_beams.max(1))
        .saturating_mul(2);
    let decoding = tokenizer.decoding_after(&prompt_ids);
    for found in beam_search_on(model, search, blocks)? {
        let ends = found
            .ids
            .last()
            .is_some_and(|id| model_ends.contains(id) || args.choices.stop_token.contains(id));
        let ids = &found.ids[..found.ids.len() - usize::from(ends)];
        let text = String::from_utf8_lossy(&tokenizer.decode_after(decoding, ids)?).into_owned();
        if args.json {
            crate::commands::print_json(
                &json!({ "text": text, "ids": ids, "score": found.score, "ended": ends }),
            )?;
        } else {
            say!("{prompt}{text}\n[score {:.3}, {} tokens]", found.score, ids.len())?;
        }
    }
    Ok(())
}

/// Refuses beams that memory may not hold: of each, the keys and values of a text and of its parent, and logits.
fn ensure_fits(model: &Gpt2, num_beams: usize, tokens: usize) -> Result<()> {
    let blocks =
        2 * KvPool::blocks_for(tokens) * KvPool::new(model.config(), model.precision(), 0).block_bytes();
    let each = (blocks + 4 * model.config().vocab_size) as u64;
    let free = free_memory().unwrap_or(u64::MAX);
    ensure!(
        num_beams as u64 <= free / each,
        "--beams {num_beams} may need {:.2} GB of memory, but {:.2} GB are free; use at most {} beams, or a smaller -n",
        num_beams as f64 * each as f64 / 1e9,
        free as f64 / 1e9,
        free / each
    );
    Ok(())
}
