//! What is told of summaries on standard error: of one text in its lines, of many once, at the end.

use eval::overlap::Overlap;
use eval::rouge::Units;
use generate::apps::facts::Unfound;
use generate::apps::summarize::Summary;

use super::read::Document;
use crate::input::grouped;
use crate::output::{note, printable};

/// Sums over the summaries so far.
#[derive(Default)]
pub struct Told {
    pub texts: usize,
    chars: usize,
    sentences: usize,
    /// Sentences that were chosen.
    chosen: usize,
    is_extract: bool,
    /// Texts that were read in parts, and how, if it is one.
    in_parts: usize,
    rounds: Vec<usize>,
    split: usize,
    stalled: usize,
    cut_off: usize,
    empty: usize,
    /// Units, pairs and triples of the summaries, and those that stand in their texts.
    all: [f64; 3],
    copied: [f64; 3],
    longest: usize,
    units: Vec<Units>,
    /// Numbers and names that are not in their texts, and summaries that have any.
    unfound: usize,
    doubtful: usize,
}

impl Told {
    /// Counts a summary, and the sentences of its text.
    pub fn add(
        &mut self,
        document: &Document,
        sentences: usize,
        summary: &Summary,
        overlap: &Overlap,
        units: Units,
        unfound: &[Unfound],
    ) {
        self.texts += 1;
        self.chars += document.text.chars().count();
        self.sentences += sentences;
        self.chosen += summary.chosen.len();
        self.is_extract |= !summary.chosen.is_empty();
        self.rounds = summary.rounds.iter().map(|round| round.parts).collect();
        self.in_parts += usize::from(self.rounds != [1]);
        self.split += summary.rounds.iter().map(|round| round.split_sentences).sum::<usize>();
        self.stalled += usize::from(summary.is_stalled);
        self.cut_off += usize::from(summary.is_cut_off);
        self.empty += usize::from(summary.text.is_empty());
        for (n, share) in overlap.copied.iter().enumerate() {
            let all = overlap.units.saturating_sub(n) as f64;
            self.all[n] += all;
            self.copied[n] += share.unwrap_or(0.0) * all;
        }
        self.longest = self.longest.max(overlap.longest);
        if !self.units.contains(&units) {
            self.units.push(units);
        }
        self.unfound += unfound.len();
        self.doubtful += usize::from(!unfound.is_empty());
    }

    /// A line on what was read and written, and one for each thing that is not as it should be.
    pub fn tell(&self, whose: &str) {
        note!("[{whose}: {}; {}]", self.read(), if self.is_extract { self.taken() } else { self.copied() });
        let texts =
            |n: usize, one: &str| if self.texts == 1 { String::new() } else { format!("{n} {one}: ") };
        if self.split > 0 && self.is_extract {
            note!(
                "[{whose}: {} sentences were longer than the context holds: their beginnings were read]",
                self.split
            );
        } else if self.split > 0 {
            note!(
                "[{whose}: {} sentences were longer than the context holds, and were cut between words]",
                self.split
            );
        }
        if self.stalled > 0 && self.is_extract {
            note!(
                "[{whose}: {}one more round would leave no sentence out; those with the best scores stand. Take a model with \
                 a longer context]",
                texts(self.stalled, "stopped early")
            );
        } else if self.stalled > 0 {
            note!(
                "[{whose}: {}one more round would not make the summaries of the parts shorter; they stand one below the \
                 other. Ask for fewer --max-tokens, or take a model with a longer context]",
                texts(self.stalled, "stopped early")
            );
        }
        if self.cut_off > 0 {
            let n = texts(self.cut_off, "cut off");
            note!("[{whose}: {n}the last sentence was cut off; allow more --max-tokens]");
        }
        if self.empty > 0 {
            note!("warning: {whose}: {}the model wrote nothing", texts(self.empty, "empty"));
        }
    }

    /// What was read: all of it.
    fn read(&self) -> String {
        let chars = grouped(self.chars as u64);
        if self.texts > 1 {
            let parts =
                if self.in_parts > 0 { format!(", {} in parts", self.in_parts) } else { String::new() };
            return format!("all of their {chars} characters were read{parts}");
        }
        let parts: Vec<String> = self.rounds.iter().map(usize::to_string).collect();
        let parts = match &parts[..] {
            [one] if one == "1" => "at once".to_owned(),
            [one] => format!("in {one} parts"),
            all => format!("in {} parts by {} rounds", all.join(", then "), all.len()),
        };
        format!("all of its {chars} characters were read, {parts}")
    }

    fn taken(&self) -> String {
        format!("{} of {} sentences chosen", grouped(self.chosen as u64), grouped(self.sentences as u64))
    }

    /// What of the summaries stands in the texts.
    fn copied(&self) -> String {
        let units = match &self.units[..] {
            [Units::Char] => "characters",
            units if units.contains(&Units::Char) => "words or characters",
            _ => "words",
        };
        let percent = |n: usize| match self.all[n] {
            0.0 => "–".to_owned(),
            all => format!("{:.0} %", 100.0 * self.copied[n] / all),
        };
        let [one, two, three] = [0, 1, 2].map(percent);
        let [n, longest] = [self.all[0] as u64, self.longest as u64].map(grouped);
        let unfound = match self.texts {
            0 | 1 => String::new(),
            _ => format!(
                "; not in the texts: {} numbers or names of {} summaries",
                self.unfound, self.doubtful
            ),
        };
        format!(
            "of {n} {units}, pairs and triples {one}, {two} and {three} stand in the text, {longest} at a stretch{unfound}"
        )
    }
}

/// The numbers and names that are not in the text.
pub fn list(name: &str, unfound: &[Unfound]) {
    if !unfound.is_empty() {
        let list: Vec<&str> = unfound.iter().map(|found| &*found.text).collect();
        note!("[{name}: not in the text: {}]", printable(&list.join(", ")));
    }
}
