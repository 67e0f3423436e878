//! What is shown of a summary: the text with what is not in its source marked, scores, and JSON.

use std::io::IsTerminal;

use anyhow::Result;
use eval::overlap::overlap;
use generate::apps::facts::{Unfound, unfound};
use generate::apps::summarize::Summary;
use serde_json::json;
use tokenizer::sentences;

use super::Args;
use super::read::Document;
use super::scores::Table;
use super::told::{self, Told};
use crate::output::{note, printable, result};
use crate::part::Part;

/// The results, as they come.
pub struct Report<'a> {
    args: &'a Args,
    seed: u64,
    table: Table,
    out: Option<Part>,
    colour: bool,
    /// Texts there are.
    texts: usize,
    told: Told,
}

impl<'a> Report<'a> {
    pub fn new(args: &'a Args, texts: usize, seed: u64) -> Result<Report<'a>> {
        let out = args.out.as_deref().map(Part::beside).transpose()?;
        let colour = out.is_none() && !args.json && std::io::stdout().is_terminal();
        Ok(Report { args, seed, table: Table::default(), out, colour, texts, told: Told::default() })
    }

    /// Shows a summary.
    pub fn add(&mut self, document: &Document, index: usize, summary: &Summary) -> Result<()> {
        let units = self.args.units(&document.text);
        let seed = self.seed.wrapping_add(index as u64);
        let unfound = unfound(&summary.text, &document.text);
        let overlap = overlap(&summary.text, &document.text, units);
        // With --ratio the others have as many sentences as the model's.
        let n = match (self.args.ratio, self.args.max_sentences) {
            (Some(_), _) if self.args.extract => summary.chosen.len(),
            (Some(_), _) => sentences::sentences(&summary.text).count().max(1),
            (None, n) => n.unwrap_or(super::SENTENCES),
        };
        let sentences = sentences::sentences(&document.text).count();
        let scores = self.table.add(document, summary, n, units, seed);
        if self.args.json {
            let mut value = json!({
                "index": index, "name": document.name, "summary": summary.text, "seed": seed,
                "read": {
                    "chars": document.text.chars().count(), "sentences": sentences, "rounds": summary.rounds,
                },
                "is_cut_off": summary.is_cut_off, "is_stalled": summary.is_stalled,
                "overlap": overlap, "unfound": unfound,
            });
            if self.args.extract {
                value["extract"] = json!(summary.chosen);
            }
            if let Some(scores) = scores {
                value["rouge"] = scores;
            }
            self.line(&value.to_string())?;
        } else {
            if self.texts > 1 {
                let empty = if self.told.texts > 0 { "\n" } else { "" };
                self.line(&format!("{empty}==> {} <==", document.name))?;
            }
            let shown = if self.colour {
                marked(&summary.text, &unfound)
            } else {
                printable(&summary.text).into_owned()
            };
            self.line(&shown)?;
        }
        self.told.add(document, sentences, summary, &overlap, units, &unfound);
        if self.texts == 1 {
            self.told.tell(&document.name);
            told::list(&document.name, &unfound);
        }
        Ok(())
    }

    /// Ends the report: the table, and the file in its place.
    pub fn finish(mut self) -> Result<()> {
        if !self.table.is_empty() {
            if self.args.json {
                let table = self.table.json().to_string();
                self.line(&table)?;
            } else if self.out.is_some() {
                self.table.lines().iter().for_each(|line| note!("{line}"));
            } else {
                self.line("")?;
                self.table.lines().iter().try_for_each(|line| self.line(line))?;
            }
        }
        if self.texts > 1 && self.told.texts > 0 {
            self.told.tell(&format!("{} texts", self.told.texts));
        }
        // Of an extract, only the sentences that it is compared with are random.
        let is_random = !self.args.extract || !self.table.is_empty();
        let seed = if is_random { format!("seed {}", self.seed) } else { String::new() };
        if let Some(out) = self.out.take().filter(|_| self.told.texts > 0) {
            let path = out.commit(false)?;
            let seed = if is_random { format!(", {seed}") } else { seed };
            note!("[{} summaries are in {}{seed}]", self.told.texts, path.display());
        } else if is_random {
            note!("[{seed}]");
        }
        Ok(())
    }

    fn line(&mut self, text: &str) -> Result<()> {
        match &mut self.out {
            Some(out) => out.line(text),
            None => result(format_args!("{text}")),
        }
    }
}

/// The summary with what is not in its source in colour.
fn marked(summary: &str, unfound: &[Unfound]) -> String {
    let (mut shown, mut at) = (String::new(), 0);
    for found in unfound {
        shown += &printable(&summary[at..found.bytes.start]);
        shown += &format!("\x1b[1;31m{}\x1b[0m", printable(&summary[found.bytes.clone()]));
        at = found.bytes.end;
    }
    shown + &printable(&summary[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        let text = "Paid 3 to \u{1b}Bob.";
        let shown = marked(text, &unfound(text, "paid to"));
        assert_eq!(shown, "Paid \x1b[1;31m3\x1b[0m to \\u{1b}\x1b[1;31mBob\x1b[0m.");
    }
}
