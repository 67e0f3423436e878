//! README.md of a fine-tuned model: from what it was made, with what, and how well it does.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use data::records::Shape;
use train::Outcome;

use super::material::{Counts, Material};
use super::settings::Settings;
use crate::output::{self, plus_minus};

/// What is told of the data, before it is used up by the run.
pub struct Sources {
    files: Vec<String>,
    counts: Counts,
    dropped: usize,
    is_preference: bool,
    /// What most of it is.
    shape: Option<Shape>,
}

impl Sources {
    /// Whether pairs were learnt from.
    pub fn is_preference(&self) -> bool {
        self.is_preference
    }
}

/// What to try next, as it would be typed: the command for what most of the data is.
pub fn next_command(out: &Path, settings: &Settings, sources: &Sources) -> String {
    let out = quoted(&out.display().to_string());
    let model = match (&settings.lora, &settings.model) {
        (Some(_), Some(base)) => format!("-m {} --adapter {out}", quoted(base)),
        _ => format!("-m {out}"),
    };
    match (sources.shape, &settings.reading.instruction) {
        (Some(Shape::Summary), None) => format!("gpt2 summarize {model} FILE"),
        (Some(Shape::Summary), Some(own)) => {
            format!("gpt2 summarize {model} --instruction {} FILE", quoted(own))
        }
        (Some(Shape::Article), None) => format!("gpt2 write headline-article {model} --topic TEXT"),
        _ => format!("gpt2 chat {model}"),
    }
}

/// A word as a shell reads it.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=@+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Takes down what the card tells of the data.
pub fn sources(material: &Material) -> Sources {
    let file = |file: &crate::examples::FileReport| {
        let shapes: Vec<String> = file.shapes.iter().map(|(shape, rows)| format!("{rows} {shape}")).collect();
        let name = file.name();
        let use_for = if file.for_validation { ", to validate on" } else { "" };
        format!("`{name}`: {}{use_for}", shapes.join(", "))
    };
    Sources {
        files: material.found.files.iter().map(file).collect(),
        counts: material.items.counts(),
        dropped: material.found.dropped.total(),
        is_preference: material.items.is_preference(),
        shape: material.shape,
    }
}

/// Writes the card.
pub fn write(out: &Path, settings: &Settings, sources: &Sources, outcome: &Outcome) -> Result<()> {
    output::save(&out.join("README.md"), text(out, settings, sources, outcome)?.as_bytes())
}

fn text(out: &Path, settings: &Settings, sources: &Sources, outcome: &Outcome) -> Result<String> {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let base = settings.model.as_deref().unwrap_or_default();
    let base = Path::new(base).file_name().map_or(base.into(), |name| name.to_string_lossy());
    let (how, what) = match (sources.is_preference, &settings.lora) {
        (true, _) => ("preference tuning (DPO)", "pairs"),
        (false, Some(_)) => ("fine-tuning of a low-rank adapter", "examples"),
        (false, None) => ("fine-tuning", "examples"),
    };
    let library = if settings.lora.is_some() { "peft" } else { "transformers" };
    let mut text = format!(
        "---\nlibrary_name: {library}\npipeline_tag: text-generation\ntags:\n- gpt2\n- finetuned\n---\n\n# {name}\n\n\
         Made from `{base}` by {how} with `gpt2 finetune`. Conversations are written with the chat template in \
         `tokenizer_config.json`.\n\n## Data\n\n"
    );
    for file in &sources.files {
        writeln!(text, "- {file}")?;
    }
    let Counts { examples, held_out, tokens, learnt, .. } = sources.counts;
    writeln!(
        text,
        "\n{examples} {what} to learn from ({tokens} tokens, {learnt} of them learnt), {held_out} held out, {} left out.\n",
        sources.dropped
    )?;
    text += "## Result\n\n";
    writeln!(text, "{} steps.", outcome.step)?;
    if let (Some(before), Some(after)) = (&outcome.before, &outcome.val) {
        let on = if sources.is_preference { "pairs" } else { "answers" };
        writeln!(text, "\n| on held-out {on} | before | after |\n|---|---|---|")?;
        let loss = plus_minus(after.loss(), after.loss_stderr());
        writeln!(text, "| loss | {:.4} | {loss} |", before.loss)?;
        let right = 100.0 * after.accuracy();
        match sources.is_preference {
            true => writeln!(text, "| chosen answer gained more than the rejected one | – | {right:.1} % |")?,
            false => writeln!(text, "| accuracy | {:.1} % | {right:.1} % |", 100.0 * before.accuracy)?,
        }
        if outcome.best.is_some_and(|(_, step)| step == 0) {
            text +=
                "\nNo validation was better than the model that it was made from, so this is that model.\n";
        }
    }
    let bare = settings_without_paths(settings);
    let next = next_command(Path::new(&*name), &bare, sources);
    writeln!(text, "\n## Use\n\n```\n{next}\n```\n")?;
    write!(text, "## Settings\n\n```toml\n{}```\n", toml::to_string(&bare)?)?;
    Ok(text)
}

/// The card travels with the model: it names files, not where they lay.
fn settings_without_paths(settings: &Settings) -> Settings {
    let names = |paths: &[std::path::PathBuf]| {
        paths.iter().map(|path| path.file_name().unwrap_or_default().into()).collect()
    };
    let model = settings.model.as_deref().map(|model| match Path::new(model).exists() {
        true => Path::new(model).file_name().unwrap_or_default().to_string_lossy().into_owned(),
        false => model.to_owned(),
    });
    Settings { model, data: names(&settings.data), val: names(&settings.val), ..settings.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell() {
        for (word, want) in [
            ("out/a-1.b", "out/a-1.b"),
            ("模型", "模型"),
            ("my model", "'my model'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), want);
        }
    }
}
