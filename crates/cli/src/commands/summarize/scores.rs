//! ROUGE of a model's summaries beside that of the first and of random sentences.

use eval::baselines;
use eval::rouge::{self, Corpus, NAMES, Scores, Units};
use generate::apps::summarize::Summary;
use serde_json::{Value, json};
use tokenizer::sentences;

use super::read::Document;

/// Who wrote the summaries.
const WRITERS: [&str; 3] = ["summary", "lead", "random"];

/// The scores of all texts that have references.
#[derive(Default)]
pub struct Table {
    all: [Corpus; 3],
    units: Vec<Units>,
}

impl Table {
    /// Scores a summary, and as many sentences of the text. The result is what JSON says of it; `None` without references.
    pub fn add(
        &mut self,
        document: &Document,
        summary: &Summary,
        n: usize,
        units: Units,
        seed: u64,
    ) -> Option<Value> {
        let lines = |text: &str| sentences::sentences(text).collect::<Vec<_>>().join("\n");
        let references: Vec<String> = document.references.iter().map(|text| lines(text)).collect();
        // An extract has a sentence on each line already.
        let written = if summary.chosen.is_empty() { lines(&summary.text) } else { summary.text.clone() };
        let texts = [written, baselines::lead(&document.text, n), baselines::random(&document.text, n, seed)];
        let mut shown = json!({});
        for ((corpus, text), name) in self.all.iter_mut().zip(texts).zip(WRITERS) {
            let scores = rouge::best(&references, &text, units)?;
            corpus.add(&scores);
            shown[name] = json!({ "lines": text, "scores": scores });
        }
        shown["units"] = json!(units);
        shown["references"] = json!(references);
        self.units.push(units);
        Some(shown)
    }

    /// Whether there were any references.
    pub fn is_empty(&self) -> bool {
        self.all[0].is_empty()
    }

    /// Texts, means and standard errors.
    pub fn json(&self) -> Value {
        let writer = |corpus: &Corpus| json!({ "mean": corpus.mean(), "stderr": corpus.stderr() });
        let rouge: serde_json::Map<String, Value> =
            WRITERS.iter().zip(&self.all).map(|(name, corpus)| ((*name).into(), writer(corpus))).collect();
        json!({ "rouge": rouge, "texts": self.all[0].len(), "units": self.units() })
    }

    /// The table for people: F1 in percent, with its standard error.
    pub fn lines(&self) -> Vec<String> {
        let head = NAMES.map(|name| format!("{name:>16}")).concat();
        let mut lines = vec![format!("{:8}{head}", "F1, %")];
        for (name, corpus) in WRITERS.iter().zip(&self.all) {
            let cell = |mean: f64, error: f64| {
                let error = if error.is_finite() { format!("{:.2}", 100.0 * error) } else { "?".into() };
                format!("{:>16}", format!("{:.2} ±{error:>5}", 100.0 * mean))
            };
            let pairs = f1(&corpus.mean()).into_iter().zip(f1(&corpus.stderr()));
            let cells: String = pairs.map(|(mean, error)| cell(mean, error)).collect();
            lines.push(format!("{name:8}{cells}"));
        }
        lines.push(format!("{} texts, counted in {}; ± standard error", self.all[0].len(), self.units()));
        lines
    }

    fn units(&self) -> &'static str {
        let chars = self.units.iter().filter(|&&units| units == Units::Char).count();
        match chars {
            0 => "words",
            n if n == self.units.len() => "characters",
            _ => "words, or characters where the text is Chinese",
        }
    }
}

fn f1(scores: &Scores) -> [f64; 4] {
    scores.all().map(|score| score.f1)
}
