//! What is shown of a summary: the text with what is not in its source marked, what was read, and what is copied.

use std::io::IsTerminal;

use anyhow::Result;
use eval::overlap::{Overlap, overlap};
use eval::rouge::Units;
use generate::apps::facts::{Unfound, unfound};
use generate::apps::sentences;
use generate::apps::summarize::Summary;
use serde_json::json;

use super::Args;
use super::read::Document;
use super::scores::Table;
use crate::input::grouped;
use crate::output::{note, printable, result};
use crate::part::Part;

/// The results, as they come.
pub struct Report<'a> {
    args: &'a Args,
    seed: u64,
    table: Table,
    out: Option<Part>,
    colour: bool,
    /// Texts there are, and those that are done.
    texts: usize,
    n: usize,
}

impl<'a> Report<'a> {
    pub fn new(args: &'a Args, texts: usize, seed: u64) -> Result<Report<'a>> {
        let out = args.out.as_deref().map(Part::beside).transpose()?;
        let colour = out.is_none() && !args.json && std::io::stdout().is_terminal();
        Ok(Report { args, seed, table: Table::default(), out, colour, texts, n: 0 })
    }

    /// Shows a summary.
    pub fn add(&mut self, document: &Document, index: usize, summary: &Summary) -> Result<()> {
        let units = self.args.units(&document.text);
        let seed = self.seed.wrapping_add(index as u64);
        let unfound = unfound(&summary.text, &document.text);
        let overlap = overlap(&summary.text, &document.text, units);
        // With --ratio the others have as many sentences as the model's.
        let n = match (self.args.ratio, self.args.max_sentences) {
            (Some(_), _) => sentences::sentences(&summary.text).count().max(1),
            (None, n) => n.unwrap_or(super::SENTENCES),
        };
        let scores = self.table.add(document, &summary.text, n, units, seed);
        if self.args.json {
            let mut value = json!({
                "index": index, "name": document.name, "summary": summary.text, "seed": seed,
                "read": {
                    "chars": document.text.chars().count(), "sentences": sentences::sentences(&document.text).count(),
                    "rounds": summary.rounds,
                },
                "is_cut_off": summary.is_cut_off, "is_stalled": summary.is_stalled,
                "overlap": overlap, "unfound": unfound,
            });
            if let Some(scores) = scores {
                value["rouge"] = scores;
            }
            self.line(&value.to_string())?;
        } else {
            if self.texts > 1 {
                let empty = if self.n > 0 { "\n" } else { "" };
                self.line(&format!("{empty}==> {} <==", document.name))?;
            }
            let shown = if self.colour {
                marked(&summary.text, &unfound)
            } else {
                printable(&summary.text).into_owned()
            };
            self.line(&shown)?;
        }
        self.n += 1;
        tell(document, summary, &overlap, units, &unfound);
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
        if let Some(out) = self.out.take().filter(|_| self.n > 0) {
            let path = out.commit(false)?;
            note!("[{} summaries are in {}, seed {}]", self.n, path.display(), self.seed);
        } else {
            note!("[seed {}]", self.seed);
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

/// What was read and written, on standard error.
fn tell(document: &Document, summary: &Summary, overlap: &Overlap, units: Units, unfound: &[Unfound]) {
    let name = &document.name;
    let chars = grouped(document.text.chars().count() as u64);
    let rounds: Vec<String> = summary.rounds.iter().map(|round| round.parts.to_string()).collect();
    let parts = match &rounds[..] {
        [one] if one == "1" => "at once".to_owned(),
        [one] => format!("in {one} parts"),
        all => format!("in {} parts by {} rounds", all.join(", then "), all.len()),
    };
    note!("[{name}: all of its {chars} characters were read, {parts}]");
    let split: usize = summary.rounds.iter().map(|round| round.split_sentences).sum();
    if split > 0 {
        note!("[{name}: {split} sentences were longer than the context holds, and were cut between words]");
    }
    if summary.is_stalled {
        note!(
            "[{name}: one more round would not make the summaries of the parts shorter; they stand one below the other. \
             Ask for fewer --max-tokens, or take a model with a longer context]"
        );
    }
    if summary.is_cut_off {
        note!("[{name}: the last sentence was cut off; allow more --max-tokens]");
    }
    if summary.text.is_empty() {
        note!("warning: {name}: the model wrote nothing");
        return;
    }
    let what = if units == Units::Char { "characters" } else { "words" };
    let percent = |share: Option<f64>| share.map_or("–".into(), |share| format!("{:.0} %", 100.0 * share));
    let [one, two, three] = overlap.copied.map(percent);
    note!(
        "[{name}: of {} {what}, pairs and triples {one}, {two} and {three} stand in the text; longest stretch {}]",
        overlap.units,
        overlap.longest
    );
    if !unfound.is_empty() {
        let list: Vec<&str> = unfound.iter().map(|found| &*found.text).collect();
        note!("[{name}: not in the text: {}]", printable(&list.join(", ")));
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
