//! What is said before a run: what was recognised, an example with what is learnt of it, counts, warnings, and the cost.

use std::io::IsTerminal;

use anyhow::Result;
use data::example::Example;
use tokenizer::Tokenizer;
use tokenizer::chat::{ChatTemplate, Kind};
use train::config::Cost;
use train::{Objective, TrainConfig};

use super::material::{Counts, Material};
use super::settings::Settings;
use crate::input::{duration, grouped};
use crate::output::{note, printable};
use crate::plan;

/// Share of the measured peak that training on examples is expected to reach, for the estimate of time.
const EXPECTED_SHARE: f64 = 0.45;
/// Below so many examples, or tokens learnt, a model learns them by heart.
const FEW_EXAMPLES: usize = 100;
const FEW_TOKENS: usize = 5_000;
/// Times after which an example is known by heart.
const MANY_EPOCHS: f64 = 10.0;
/// Characters of an example that are shown from its beginning and from its end.
const SHOWN: usize = 1_000;

/// What the files are, and what became of their rows.
pub fn files(material: &Material, settings: &Settings) {
    material.found.tell(&settings.reading);
    if material.in_both > 0 {
        note!(
            "  warning: {} of the examples to validate on are learnt from, too",
            grouped(material.in_both as u64)
        );
    }
}

/// The template, and the tokens that are new for it.
pub fn template(template: &ChatTemplate, tokenizer: &Tokenizer, had: usize) {
    let kind = match template.kind() {
        Kind::Own => "the model's own",
        Kind::ChatMl => "ChatML",
        Kind::Plain => "lines of \"User: …\" and \"Assistant: …\"",
    };
    let new = tokenizer.vocab_size().saturating_sub(had);
    let grown =
        if new > 0 { format!(", for which the vocabulary grows by {new} tokens") } else { String::new() };
    note!("template:   {kind}{grown}");
}

/// Examples as the model sees them.
pub fn examples(examples: &[&Example], is_preference: bool, tokenizer: &Tokenizer) -> Result<()> {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let marks = if colours { ["\u{1b}[32m", "\u{1b}[0m"] } else { ["⟦", "⟧"] };
    let legend = if colours { "in green" } else { "between ⟦ and ⟧" };
    for (i, example) in examples.iter().enumerate() {
        let (number, which) = match is_preference {
            true => (i / 2 + 1, [", chosen", ", rejected"][i % 2]),
            false => (i + 1, ""),
        };
        note!("example {number}{which} ({} tokens; what is learnt stands {legend}):", example.ids.len());
        for line in marked(example, tokenizer, marks)?.lines() {
            note!("  | {line}");
        }
    }
    Ok(())
}

/// The text of an example with marks around what is learnt. Of a long one the middle is left out.
pub fn marked(example: &Example, tokenizer: &Tokenizer, [open, close]: [&str; 2]) -> Result<String> {
    let mut text = String::new();
    let mut decoding = tokenizer.decoding_after(&[]);
    let mut bytes = Vec::new();
    let mut start = 0;
    let is_learnt = |at: usize| example.is_answer.get(at).copied().unwrap_or(false);
    for at in 0..=example.ids.len() {
        if at == example.ids.len() || (at > start && is_learnt(at) != is_learnt(at - 1)) {
            let part = String::from_utf8_lossy(&bytes).into_owned();
            let part = printable(&part);
            let [open, close] = if is_learnt(start) { [open, close] } else { ["", ""] };
            text += &format!("{open}{}{close}", without_middle(&part));
            bytes.clear();
            start = at;
        }
        if let Some(&id) = example.ids.get(at) {
            bytes.extend_from_slice(&tokenizer.decode_next(&mut decoding, id)?);
        }
    }
    Ok(text)
}

fn without_middle(text: &str) -> String {
    let chars = text.chars().count();
    if chars <= 2 * SHOWN {
        return text.to_owned();
    }
    let start: String = text.chars().take(SHOWN).collect();
    let end: String = text.chars().skip(chars - SHOWN).collect();
    format!("{start} […{} characters…] {end}", grouped((chars - 2 * SHOWN) as u64))
}

/// How much there is to learn.
pub fn counts(counts: &Counts, is_preference: bool) {
    let what = if is_preference { "pairs" } else { "examples" };
    note!(
        "{:<12}{} to learn from with {} tokens, {} of them learnt; {} held out; the longest has {} tokens",
        format!("{what}:"),
        grouped(counts.examples as u64),
        grouped(counts.tokens as u64),
        grouped(counts.learnt as u64),
        grouped(counts.held_out as u64),
        grouped(counts.longest as u64)
    );
}

/// Says when examples will be learnt by heart.
pub fn warn_about_few(counts: &Counts, config: &TrainConfig) {
    let epochs = config.max_steps as f64 / config.steps_per_epoch.max(1) as f64;
    if counts.examples < FEW_EXAMPLES || counts.learnt < FEW_TOKENS {
        note!(
            "warning: {} examples with {} tokens to learn are few: the model will learn them by heart rather than what they \
             have in common; more data helps most, then --lora, fewer --epochs, a smaller --lr",
            grouped(counts.examples as u64),
            grouped(counts.learnt as u64)
        );
    } else if epochs > MANY_EPOCHS {
        note!(
            "warning: each example is seen {epochs:.0} times; after about {MANY_EPOCHS:.0} it is known by heart"
        );
    }
    if counts.held_out == 0 {
        note!("warning: nothing is held out, so nobody will notice when the model learns by heart");
    }
}

/// What will run, and what it costs.
pub fn cost(counts: &Counts, config: &TrainConfig, cost: &Cost) -> Result<()> {
    let per_step = (config.batch * config.grad_accum * counts.tokens) as f64 / counts.examples.max(1) as f64;
    // The output layer runs twice for pairs, and the model that is started from scores them all once.
    let more = if matches!(config.objective, Objective::Dpo { .. }) { 1.3 } else { 1.0 };
    let peak = tensor::peak::measure().f32_gflops * 1e9;
    let flops = more * config.max_steps as f64 * per_step * cost.flops_per_token;
    note!("trained:    {} values", grouped(cost.parameters as u64));
    note!(
        "cost:       about {:.2} GB of memory, about {} for {} steps of about {} tokens",
        cost.bytes / 1e9,
        duration(flops / (EXPECTED_SHARE * peak)),
        grouped(config.max_steps),
        grouped(per_step as u64)
    );
    plan::ensure_fits(cost.bytes as u64)
}
