//! Where a text ends: at a line's, a paragraph's or a sentence's end, or where it has as many words as it may.

use serde::Deserialize;
use tokenizer::sentences::marked_ends;

use super::units::Unit;

/// What ends a text, beside its stop strings, the model and its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Nothing else.
    #[default]
    Text,
    /// The end of its first line.
    Line,
    /// An empty line, once it has its least length.
    Paragraph,
    /// The end of a sentence, once it has its least length.
    Sentence,
}

/// Lengths in units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// The least.
    pub min: usize,
    /// The most.
    pub max: usize,
    /// What they are counted in.
    pub unit: Unit,
}

/// An end that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The text is whole up to this byte.
    Whole(usize),
    /// More than the most would follow this byte.
    Limit(usize),
}

impl End {
    /// The first end of a text, if it is sure whatever follows. With `is_whole`, nothing follows.
    ///
    /// A text that grows piece by piece has the same end however it is cut into pieces.
    pub fn find(self, text: &str, lengths: Lengths, is_whole: bool) -> Option<Found> {
        let Lengths { min, max, unit } = lengths;
        // No text has more units than bytes.
        let next = if max < text.len() { unit.start_of(text, max) } else { None };
        let limit = next.map(|next| text[..next].trim_end().len());
        let start = text.len() - text.trim_start().len();
        let is_long = |&end: &usize| unit.count(&text[..end]) >= min;
        let end = match self {
            End::Text => None,
            End::Line => text[start..].find('\n').map(|at| start + at),
            End::Paragraph => empty_lines(text, start).find(is_long),
            End::Sentence => marked_ends(text, is_whole).find(is_long),
        };
        match (end, limit) {
            (Some(end), limit) if limit.is_none_or(|limit| end <= limit) => Some(Found::Whole(end)),
            (_, limit) => limit.map(Found::Limit),
        }
    }
}

/// Where lines end behind which an empty one follows.
fn empty_lines(text: &str, start: usize) -> impl Iterator<Item = usize> {
    let breaks = text[start..].match_indices('\n').map(move |(at, _)| start + at);
    breaks.filter(|&at| text[at + 1..].trim_start_matches([' ', '\t', '\r']).starts_with('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(end: End, text: &str, min: usize, max: usize) -> Option<Found> {
        end.find(text, Lengths { min, max, unit: Unit::Words }, false)
    }

    #[test]
    fn ends_of_each_kind() {
        use Found::{Limit, Whole};
        assert_eq!(find(End::Line, "\n Tea\nMilk", 5, 9), Some(Whole(5)));
        assert_eq!(find(End::Line, "Tea", 0, 9), None);
        assert_eq!(find(End::Paragraph, "One.\n\nTwo two.\n \nThree", 1, 9), Some(Whole(4)));
        assert_eq!(find(End::Paragraph, "One.\n\nTwo two.\n \nThree", 2, 9), Some(Whole(14)));
        assert_eq!(find(End::Sentence, "A fox. It ran. Far", 4, 9), Some(Whole(14)));
        assert_eq!(find(End::Sentence, "A fox.", 1, 9), None, "may be \"A fox.org\"");
        assert_eq!(find(End::Sentence, "一只狐狸。他", 4, 9), Some(Whole(15)));
        assert_eq!(find(End::Text, "one two three", 0, 2), Some(Limit(7)));
        assert_eq!(find(End::Line, "one two three\n", 0, 2), Some(Limit(7)));
        assert_eq!(find(End::Line, "one two\nthree", 0, 2), Some(Whole(7)));
        assert_eq!(find(End::Text, "one two", 0, 2), None);
    }

    /// However a text comes, it ends at the same place.
    #[test]
    fn pieces_do_not_matter() {
        let text = "Mr. Fox said: \"No.\" He ran 3.5 km…\n\n“好。”他说！Then\n\nmore words came. And more";
        for end in [End::Text, End::Line, End::Paragraph, End::Sentence] {
            for (min, max) in [(0, 99), (3, 7), (5, 12), (9, 10)] {
                let lengths = Lengths { min, max, unit: Unit::Words };
                let whole = end.find(text, lengths, false);
                let first = text
                    .char_indices()
                    .map(|(at, c)| at + c.len_utf8())
                    .find_map(|to| end.find(&text[..to], lengths, false));
                assert_eq!(first, whole, "{end:?} {min} {max}");
            }
        }
    }
}
