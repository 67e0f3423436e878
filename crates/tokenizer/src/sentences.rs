//! Sentences of English and Chinese text.
//!
//! A sentence ends
//! - at an empty line, and before a line that begins a list;
//! - at the end of a Chinese line, since lines are wrapped where words are divided by spaces, and not in Chinese;
//! - after 。！？ and …… with the quotes and brackets that close behind them, unless a comma follows or a 《title》 is open;
//! - after `.`, `!`, `?` and `…` with what closes behind them, before white space and a letter that is not small, unless the word
//!   before the full stop is an abbreviation, an initial, or the number of an item.
//!
//! Whether a sentence ends is decided by what stands before and by the next character that is not white space, so that more text
//! behind that one never moves an end.

/// The sentences, without the white space around them.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).map(str::trim).filter(|sentence| !sentence.is_empty())
}

/// The first sentences of a text, at most so many, as they stand there.
pub fn first(text: &str, n: usize) -> &str {
    let (mut end, mut found) = (0, 0);
    for piece in pieces(text) {
        found += usize::from(!piece.trim().is_empty());
        if found > n {
            break;
        }
        end += piece.len();
    }
    text[..end].trim()
}

/// Where the sentences end, in bytes, before the white space behind them.
pub fn ends(text: &str) -> impl Iterator<Item = usize> {
    let mut at = 0;
    pieces(text).filter_map(move |piece| {
        let start = at;
        at += piece.len();
        let sentence = piece.trim_end();
        (!sentence.is_empty()).then_some(start + sentence.len())
    })
}

/// Those [`ends`] that a mark makes, as 。 or `!`, and not a line. While the text may go on (`is_whole` is false), one at its edge is not
/// known yet; where it does not go on, a full stop there ends a sentence unless it shortens a word.
pub fn marked_ends(text: &str, is_whole: bool) -> impl Iterator<Item = usize> {
    let edge = text.trim_end().len();
    let mut start = 0;
    ends(text).filter(move |&end| {
        let piece = &text[std::mem::replace(&mut start, end)..end];
        let sentence = piece.trim_end_matches(|c| closes(c) || EMPHASIS.contains(&c));
        let before = sentence.trim_end_matches(is_mark);
        let shortens = || &piece[before.len()..] == "." && is_abbreviation(before, 'A');
        before.len() < sentence.len() && (end < edge || (is_whole && !shortens()))
    })
}

/// The text cut at its sentences' ends, with the white space behind each; together they are the text.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = first_end(rest);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Where the first sentence ends, with the white space behind it.
fn first_end(text: &str) -> usize {
    let mut title = 0; // Characters since a title was opened, 0 outside.
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        title = match c {
            '《' | '〈' => 1,
            '》' | '〉' | '\n' => 0,
            _ if (1..LONGEST_TITLE).contains(&title) => title + 1,
            _ => 0,
        };
        if at == 0 && c.is_whitespace() {
            // White space at the start of a text belongs to its first sentence.
            let start = text.len() - text.trim_start().len();
            if start == text.len() {
                return start;
            }
            return start + first_end(&text[start..]);
        }
        let behind = at + c.len_utf8();
        let end = match c {
            '\n' => line_end(text, at),
            '。' | '！' | '？' | '…' | '.' | '!' | '?' if title == 0 => mark_end(text, at),
            _ => None,
        };
        if let Some(end) = end {
            let space = text[end..].len() - text[end..].trim_start().len();
            return end + space;
        }
        if is_mark(c) {
            // The marks of a run are judged once, at the first.
            let run = text[behind..].chars().take_while(|&c| is_mark(c)).count();
            (0..run).for_each(|_| _ = chars.next());
        }
    }
    text.len()
}

/// The longest title that is taken for one; a bracket that is never closed must not swallow a text.
const LONGEST_TITLE: usize = 40;

fn is_mark(c: char) -> bool {
    matches!(c, '。' | '！' | '？' | '…' | '.' | '!' | '?')
}

fn closes(c: char) -> bool {
    matches!(c, '"' | '\'' | ')' | ']' | '”' | '’' | '」' | '』' | '）' | '】' | '》' | '〉' | '»')
}

/// Whether a character is of Chinese writing or its punctuation.
fn is_chinese_char(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ffef}' | '\u{20000}'..='\u{3ffff}')
}

/// How much of a text is looked back at: enough for a sentence, and the time stays linear.
const NEAR: usize = 400;

/// The last of a text.
fn near(text: &str) -> &str {
    &text[text.floor_char_boundary(text.len().saturating_sub(NEAR))..]
}

/// Marks of emphasis, as in `**bold**`.
const EMPHASIS: [char; 2] = ['*', '_'];

/// The end of the sentence before a line break, if it is one.
fn line_end(text: &str, at: usize) -> Option<usize> {
    let (before, after) = (&text[..at], &text[at..]);
    let content = after.trim_start();
    let Some(next) = content.chars().next() else { return Some(at) };
    let is_empty_line = after[..after.len() - content.len()].matches('\n').count() > 1;
    let last = before.trim_end().chars().next_back();
    let is_chinese_line = last.is_some_and(|c| is_chinese_char(c) || matches!(c, '”' | '’' | '…'));
    // What begins a list, and nothing else that stands within a sentence.
    let is_item = matches!(next, '•' | '·' | '*' | '-' | '–' | '—' | '#' | '◦' | '▪');
    (is_empty_line
        || is_item
        || (is_chinese_line && is_chinese_char(next))
        || (is_chinese_line && next == '“'))
        .then_some(at)
}

/// The end of a sentence at a mark that stands at `at`, with what closes behind it, if it is one.
fn mark_end(text: &str, at: usize) -> Option<usize> {
    let run = &text[at..];
    let marks = run.find(|c| !is_mark(c)).unwrap_or(run.len());
    let closing = run[marks..].find(|c| !closes(c)).unwrap_or(run.len() - marks);
    let mut end = at + marks + closing;
    let mut after = &text[end..];
    let emphasis = &after[..after.len() - after.trim_start_matches(EMPHASIS).len()];
    if !emphasis.is_empty() && near(&text[..at]).matches(emphasis).count() % 2 == 1 {
        end += emphasis.len(); // it was open
        after = &text[end..];
    }
    let run = &run[..marks];
    let Some(next) = after.trim_start().chars().next() else { return Some(end) };
    let spaced = after.starts_with(char::is_whitespace);
    if run.contains(['。', '！', '？']) || run == "……" {
        return (!matches!(next, '，' | '、' | '；' | '：' | ',' | ';' | '）' | ')')).then_some(end);
    }
    let starts =
        !next.is_lowercase() && !matches!(next, ',' | ';' | ':' | '-' | '–' | '—' | '，' | '；' | '、');
    if spaced {
        let shortens = run == "." && closing == 0 && is_abbreviation(&text[..at], next);
        return (starts && !shortens).then_some(end);
    }
    // Chinese behind an English mark needs no white space, but behind a number it may be a part of one.
    let digit = text[..at].ends_with(|c: char| c.is_ascii_digit());
    (is_chinese_char(next) && starts && run != "…" && !(run == "." && digit)).then_some(end)
}

/// Words that a full stop shortens, and that never end a sentence.
const NEVER_END: [&str; 33] = [
    "mr", "mrs", "ms", "dr", "prof", "st", "gen", "sen", "rep", "gov", "capt", "col", "lt", "sgt", "rev",
    "hon", "fig", "figs", "eq", "eqs", "vs", "cf", "al", "e.g", "i.e", "viz", "approx", "resp", "messrs",
    "mme", "mlle", "mt", "ft",
];
/// Words that a full stop shortens before a number.
const BEFORE_NUMBERS: [&str; 25] = [
    "no", "nos", "vol", "p", "pp", "sec", "art", "ch", "par", "ed", "jan", "feb", "mar", "apr", "jun", "jul",
    "aug", "sep", "sept", "oct", "nov", "dec", "v", "c", "ca",
];

/// Whether a full stop belongs to the word before it, and the sentence goes on with `next`.
fn is_abbreviation(before: &str, next: char) -> bool {
    let start = before
        .rfind(|c: char| !c.is_alphanumeric() && c != '.')
        .map_or(0, |i| i + before[i..].chars().next().map_or(0, char::len_utf8));
    let word = &before[start..];
    let lower = word.to_lowercase();
    let is_initial = word != "I" && word.chars().count() == 1 && word.starts_with(char::is_uppercase);
    // At the start of a sentence or a line, a short number counts items.
    let ahead = before[..start].trim_end_matches([' ', '\t']);
    let is_item = (ahead.ends_with('\n') || ahead.trim().is_empty())
        && !word.is_empty()
        && word.len() <= 3
        && word.chars().all(|c| c.is_ascii_digit());
    is_initial
        || is_item
        || NEVER_END.contains(&&*lower)
        || (next.is_numeric() && BEFORE_NUMBERS.contains(&&*lower))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        assert_eq!(sentences(text).collect::<Vec<_>>(), want, "{text}");
        assert_eq!(pieces(text).collect::<String>(), text);
    }

    #[test]
    fn english() {
        check("", &[]);
        check(" \n ", &[]);
        check("One. Two! Three? Four", &["One.", "Two!", "Three?", "Four"]);
        check("  He said: \"Go!\" She went.", &["He said: \"Go!\"", "She went."]);
        check("\"Go!\" he said. (She went.) Then", &["\"Go!\" he said.", "(She went.)", "Then"]);
        check("It cost $3.50 at example.com. 20 came.", &["It cost $3.50 at example.com.", "20 came."]);
        check("Wait... what? Well... No.", &["Wait... what?", "Well...", "No."]);
        check("**Bold.** Then _more._ End", &["**Bold.**", "Then _more._", "End"]);
        check("a hard\nwrapped line. And\nmore", &["a hard\nwrapped line.", "And\nmore"]);
        check("A title\n\nThe text. ", &["A title", "The text."]);
        check("Buy:\n- milk\n- bread", &["Buy:", "- milk", "- bread"]);
    }

    #[test]
    fn abbreviations() {
        check(
            "Dr. J. K. Fox met Mrs. Crow, e.g. at 5 p.m. in town.",
            &["Dr. J. K. Fox met Mrs. Crow, e.g. at 5 p.m. in town."],
        );
        check(
            "See Fig. 3 and Smith et al. (2019). No. Not here, in no. 7.",
            &["See Fig. 3 and Smith et al. (2019).", "No.", "Not here, in no. 7."],
        );
        check(
            "They left the U.S. The rest, etc. It ended.",
            &["They left the U.S.", "The rest, etc.", "It ended."],
        );
        check("So did I. Then we slept.", &["So did I.", "Then we slept."]);
        check("1. Wash it. 2. Dry it.", &["1. Wash it.", "2. Dry it."]);
        check("1. Wash it\n2. Dry it.", &["1. Wash it\n2. Dry it."]);
        check("In 2019. Then", &["In 2019.", "Then"]);
    }

    #[test]
    fn chinese() {
        check("狐狸来了。它饿吗？饿！", &["狐狸来了。", "它饿吗？", "饿！"]);
        check("他走了。**重点**是。**好。**完", &["他走了。", "**重点**是。", "**好。**", "完"]);
        check("他说：“早上好！”然后走了。", &["他说：“早上好！”", "然后走了。"]);
        check("“真的吗？”，他问。", &["“真的吗？”，他问。"]);
        check("电影《你好，李焕英！续》上映了。好看！！", &["电影《你好，李焕英！续》上映了。", "好看！！"]);
        check("我不知道……算了。", &["我不知道……", "算了。"]);
        check("第一行\n第二行\n“第三行”", &["第一行", "第二行", "“第三行”"]);
        check("真的吗?他用GPT-2.它写。版本2.0好。", &["真的吗?", "他用GPT-2.它写。", "版本2.0好。"]);
        check("《没有关上。一直没有。", &["《没有关上。一直没有。"]);
        let open = format!("《{}。后面。", "字".repeat(50));
        check(&open, &[&open[..open.len() - "后面。".len()], "后面。"]);
    }

    #[test]
    fn the_first_ones() {
        assert_eq!(first(" One. Two! Three?", 2), "One. Two!");
        assert_eq!(first("一。二。", 5), "一。二。");
        assert_eq!(first("One.", 0), "");
    }

    #[test]
    fn ends_of_sentences() {
        let parts = |text: &str| ends(text).map(|end| text[..end].to_owned()).collect::<Vec<_>>();
        assert_eq!(
            parts(" It is 3.5 m. \"Yes!\" he said.  End "),
            [" It is 3.5 m.", " It is 3.5 m. \"Yes!\" he said.", " It is 3.5 m. \"Yes!\" he said.  End"]
        );
        assert_eq!(
            parts("狐狸说：“早！”然后走了。完"),
            ["狐狸说：“早！”", "狐狸说：“早！”然后走了。", "狐狸说：“早！”然后走了。完"]
        );
        assert_eq!(parts(" \n"), [""; 0]);
    }

    #[test]
    fn ends_behind_marks() {
        let ends = |text: &str, whole| {
            marked_ends(text, whole).map(|end| text[..end].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            ends("Mr. Fox ran 3.5 km. \"Why?\" He", true),
            ["Mr. Fox ran 3.5 km.", "Mr. Fox ran 3.5 km. \"Why?\""]
        );
        assert_eq!(ends("No!? Wait...", false), ["No!?"]);
        assert_eq!(ends("No!? Wait...", true), ["No!?", "No!? Wait..."]);
        assert_eq!(ends("他说：“好。”走了。", false), ["他说：“好。”"]);
        assert_eq!(ends("1. Tea\n2. Milk", true), [""; 0]);
        assert_eq!(ends("A title\n\n**Text.** More", true), ["A title\n\n**Text.**"]);
        assert_eq!(ends("从前\u{3000}fox.", true), ["从前\u{3000}fox."], "a space of several bytes");
        assert_eq!(
            ends("J. Smith left. So did I. Now", true),
            ["J. Smith left.", "J. Smith left. So did I."]
        );
        assert_eq!(ends("1. Wash it. 2.", true), ["1. Wash it."]);
        assert_eq!((ends("It is Dr.", true), ends("Good. ", false)), (vec![], vec![]));
    }

    #[test]
    fn more_text_does_not_move_an_end() {
        let text = "Dr. Fox said: \"Go!\" It cost 3.50... 他说：“好……”，走了。《书！》好?是. 1. One\n\n- two";
        let whole: Vec<&str> = pieces(text).collect();
        for (cut, _) in text.char_indices() {
            let part: Vec<&str> = pieces(&text[..cut]).collect();
            let n = part.len().saturating_sub(1); // the last one is still open
            assert_eq!(part[..n].concat().trim_end(), whole[..n].concat().trim_end(), "{}", &text[..cut]);
        }
    }

    #[test]
    fn anything_is_kept_whole() {
        for text in
            ["...", "。\u{0}？\r\n", "\u{3000}　。", "'\"')", "a.b.c. .", "……", "… …", "！a", "\n\n.\n\n"]
        {
            assert_eq!(pieces(text).collect::<String>(), text);
        }
        let long = ".".repeat(100_000) + &"x".repeat(100_000) + &" \n".repeat(50_000);
        assert_eq!(pieces(&long).collect::<String>(), long);
    }
}
