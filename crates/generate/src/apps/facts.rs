//! Numbers and names of a summary that its source does not have: the first things to check in it.
//!
//! - Numbers are compared by value: `1,200`, `1200` and 一千二百 are one. A single Chinese numeral counts only before a unit
//!   such as 年 or 人, since 一 and its kin are parts of many words.
//! - Names are capitalised words that do not begin a sentence, and words with two capitals anywhere. In Chinese text, a
//!   capitalised word in Latin letters is a name unless it begins a stretch of English, and so is one with a digit; titles are
//!   what stands in 《》「」『』. `GPT-2`, `GPT2` and `gpt 2` are one name.
//!
//! What is found need not be wrong, and what is wrong need not be found: words are compared, not meanings.

use std::collections::HashSet;
use std::ops::Range;

use serde::Serialize;
use tokenizer::sentences;

/// What is not in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A number.
    Number,
    /// A name.
    Name,
    /// A title in brackets.
    Title,
}

/// A number or name that is not in the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unfound {
    /// What it is.
    pub kind: Kind,
    /// The number or name.
    pub text: String,
    /// Where it stands in the summary, in bytes of UTF-8.
    pub bytes: Range<usize>,
}

/// The numbers and names of a summary that its source does not have, in their order; none lies within another.
pub fn unfound(summary: &str, source: &str) -> Vec<Unfound> {
    let is_chinese = tokenizer::is_chinese(summary);
    let values: HashSet<String> = numbers(source).into_iter().map(|(_, value)| value).collect();
    let known = known(source);
    let is_known = |word: &str| known.contains(&key(word)) || runs(&key(word)).all(|run| known.contains(run));
    let starts = starts(summary);
    let is_name = |range: &Range<usize>| {
        let word = &summary[range.clone()];
        let letters = word.chars().filter(|c| c.is_alphabetic()).count();
        let capitals = word.chars().filter(|c| c.is_uppercase()).count();
        if is_chinese {
            let is_marked = capitals > 0 || word.contains(|c: char| c.is_ascii_digit());
            return letters > 1 && word.is_ascii() && is_marked && !begins_english(summary, range);
        }
        let begins =
            word.starts_with(char::is_uppercase) && !word.starts_with("I'") && !word.starts_with("I’");
        letters > 1 && (capitals > 1 || (begins && !starts.contains(&range.start)))
    };
    let numbers = numbers(summary).into_iter().filter(|(_, value)| !values.contains(value));
    let names = words(summary).into_iter().filter(|range| !is_known(&summary[range.clone()]));
    let titles = titles(summary).into_iter().filter(|range| !source.contains(&summary[range.clone()]));
    let mut all: Vec<(Range<usize>, Kind)> = titles.map(|range| (range, Kind::Title)).collect();
    all.extend(numbers.map(|(range, _)| (range, Kind::Number)));
    all.extend(names.filter(is_name).map(|range| (range, Kind::Name)));
    all.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
    let mut end = 0;
    all.retain(|(range, _)| {
        let is_new = range.start >= end;
        end = end.max(range.end);
        is_new
    });
    let found =
        |(bytes, kind): (Range<usize>, Kind)| Unfound { kind, text: summary[bytes.clone()].into(), bytes };
    all.into_iter().map(found).collect()
}

/// Runs of letters and digits with the apostrophes inside, of which at least one is a letter and none is Chinese.
fn words(text: &str) -> Vec<Range<usize>> {
    let belongs = |c: char| c.is_alphanumeric() && !is_cjk(c);
    let mut found = Vec::new();
    let mut start = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let joins =
            matches!(c, '\'' | '’') && start.is_some() && chars.peek().is_some_and(|(_, c)| belongs(*c));
        if belongs(c) || joins {
            start.get_or_insert(at);
            if chars.peek().is_some() {
                continue;
            }
        }
        let end = if belongs(c) { at + c.len_utf8() } else { at };
        found.extend(start.take().map(|start| start..end));
    }
    found.retain(|range| text[range.clone()].chars().any(char::is_alphabetic));
    found
}

fn is_cjk(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// What words are compared by: without capitals and possessive s.
fn key(word: &str) -> String {
    let lower = word.to_lowercase().replace('’', "'");
    lower.strip_suffix("'s").unwrap_or(&lower).to_owned()
}

/// The words of a source as they are compared; parts of words and words that stand together are known, too.
fn known(source: &str) -> HashSet<String> {
    let words = words(source);
    let mut known: HashSet<String> = words.iter().map(|range| key(&source[range.clone()])).collect();
    for range in &words {
        known.extend(runs(&key(&source[range.clone()])).map(str::to_owned));
        // A number behind a word, as in GPT-2.
        let after = source[range.end..].trim_start_matches(['-', ' ']);
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits > 0 {
            known.insert(key(&source[range.clone()]) + &after[..digits]);
            known.insert(after[..digits].to_owned());
        }
    }
    known
}

/// The stretches of letters and of digits in a word.
fn runs(word: &str) -> impl Iterator<Item = &str> {
    let is_digit = |c: char| c.is_ascii_digit();
    let mut rest = word;
    std::iter::from_fn(move || {
        let first = is_digit(rest.chars().next()?);
        let end = rest.find(|c| is_digit(c) != first).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        Some(run)
    })
}

/// Whether a word has its capital because it is the first of several English ones: no word before it, and a small one behind.
fn begins_english(text: &str, range: &Range<usize>) -> bool {
    let word = &text[range.clone()];
    let latin = |c: char| c.is_alphanumeric() && !is_cjk(c);
    let is_first = !text[..range.start].trim_end().ends_with(latin);
    let next = text[range.end..].strip_prefix(' ').map(str::trim_start);
    is_first
        && word.chars().skip(1).all(char::is_lowercase)
        && next.is_some_and(|next| next.starts_with(char::is_lowercase))
}

/// Where words stand that have a capital whatever they are: at the start of a sentence, a quotation, or after a colon.
fn starts(text: &str) -> HashSet<usize> {
    let mut at = 0;
    let mut borders = HashSet::from([0]);
    for piece in sentences::pieces(text) {
        at += piece.len();
        borders.insert(at);
    }
    let opens = |range: &Range<usize>| {
        let before = &text[..range.start];
        let content = before.trim_end_matches(|c: char| !c.is_alphanumeric());
        let between = &before[content.len()..];
        between.ends_with(['"', '“', '‘', '(', '\''])
            || between.contains([':', '\n'])
            || (content.len()..=range.start).any(|at| {
                borders.contains(&at) && text[at..range.start].chars().all(|c| !c.is_alphanumeric())
            })
    };
    words(text).into_iter().filter(opens).map(|range| range.start).collect()
}

/// The insides of titles.
fn titles(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut open: Option<(char, usize)> = None;
    for (at, c) in text.char_indices() {
        let closing = match c {
            '《' => '》',
            '「' => '」',
            '『' => '』',
            _ => {
                if let Some((closing, start)) = open
                    && closing == c
                {
                    open = None;
                    found.extend((start < at).then_some(start..at));
                }
                continue;
            }
        };
        open.get_or_insert((closing, at + c.len_utf8()));
    }
    found
}

/// The numbers of a text, and their values in one form.
fn numbers(text: &str) -> Vec<(Range<usize>, String)> {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let end_of = |i: usize| chars.get(i).map_or(text.len(), |&(at, _)| at);
    let get = |i: usize| chars.get(i).map(|&(_, c)| c);
    let mut found = Vec::new();
    let mut i = 0;
    while let Some(c) = get(i) {
        let start = i;
        let is_inside_word = i > 0 && get(i - 1).is_some_and(|c| c.is_alphanumeric() && !is_cjk(c));
        if c.is_ascii_digit() {
            let digit = |i| get(i).is_some_and(|c| c.is_ascii_digit());
            while digit(i) || (matches!(get(i), Some('.' | ',')) && digit(i + 1)) {
                i += 1;
            }
            let digits = text[end_of(start)..end_of(i)].replace(',', "");
            let units = i;
            while get(i).is_some_and(|c| unit(c).is_some()) {
                i += 1;
            }
            let scale: f64 = (units..i).filter_map(|i| unit(get(i)?)).product();
            let value = digits.parse::<f64>().map_or(digits, |value| (value * scale).to_string());
            if !is_inside_word {
                found.push((end_of(start)..end_of(i), value));
            }
        } else if digit(c).is_some() || unit(c).is_some() {
            while get(i).is_some_and(|c| digit(c).is_some() || unit(c).is_some()) {
                i += 1;
            }
            let run = &text[end_of(start)..end_of(i)];
            let is_ordinal = start > 0 && get(start - 1) == Some('第');
            if is_number(run, is_ordinal, get(i)) {
                found.push((end_of(start)..end_of(i), value(run).to_string()));
            }
        } else {
            i += 1;
        }
    }
    found
}

/// What is counted and dated in Chinese.
const COUNTED: &str = "年月日号点时分秒岁人名位次倍天周元块米里度届级层章回";
/// Words that look like numbers.
const WORDS: [&str; 4] = ["一一", "万一", "一二", "三两"];
/// What 一 and 十 begin words with, more often than they count it.
const AFTER_ONE: &str = "点次时分天块位层度";

/// Whether a run of numerals is a number: several, or one before what is counted.
fn is_number(run: &str, is_ordinal: bool, next: Option<char>) -> bool {
    let has_digit = run.chars().any(|c| digit(c).is_some());
    if run.chars().nth(1).is_some() {
        return has_digit && !WORDS.contains(&run);
    }
    let before = |kinds: &str| next.is_some_and(|c| kinds.contains(c));
    let is_word = (run == "一" && before(AFTER_ONE)) || (run == "十" && before("分"));
    (has_digit || run == "十") && (is_ordinal || before(COUNTED)) && !is_word
}

fn digit(c: char) -> Option<f64> {
    let value = match c {
        '零' | '〇' => 0,
        '一' | '壹' => 1,
        '二' | '两' | '兩' | '贰' => 2,
        '三' | '叁' => 3,
        '四' => 4,
        '五' => 5,
        '六' => 6,
        '七' => 7,
        '八' => 8,
        '九' => 9,
        _ => return None,
    };
    Some(f64::from(value))
}

fn unit(c: char) -> Option<f64> {
    match c {
        '十' => Some(1e1),
        '百' => Some(1e2),
        '千' => Some(1e3),
        '万' | '萬' => Some(1e4),
        '亿' | '億' => Some(1e8),
        _ => None,
    }
}

/// The value of Chinese numerals: digit by digit, or with units.
fn value(run: &str) -> f64 {
    if run.chars().all(|c| digit(c).is_some()) {
        return run.chars().filter_map(digit).fold(0.0, |value, digit| 10.0 * value + digit);
    }
    // 三千零五万二百: `last` waits for its unit, `section` for its 万 or 亿.
    let (mut total, mut section, mut last) = (0.0, 0.0, None);
    for c in run.chars() {
        if let Some(digit) = digit(c) {
            last = Some(digit);
        } else if let Some(unit) = unit(c) {
            if unit < 1e4 {
                section += last.take().unwrap_or(1.0) * unit;
            } else {
                section += last.take().unwrap_or(0.0);
                total = if unit > 1e4 { (total + section) * unit } else { total + section * unit };
                section = 0.0;
            }
        }
    }
    total + section + last.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(summary: &str, source: &str, want: &[&str]) {
        let found = unfound(summary, source);
        let texts: Vec<&str> = found.iter().map(|found| &*found.text).collect();
        assert_eq!(texts, want, "{summary}");
        found.iter().for_each(|found| assert_eq!(summary[found.bytes.clone()], found.text));
    }

    #[test]
    fn english_names_and_numbers() {
        let source = "In 2019, Ada Lovelace's firm paid 1,200.50 dollars for GPT-2.";
        check("Ada paid 1200.5 in 2019 to Lovelace.", source, &[]);
        check(
            "The fox paid 1300 to Bob. Then Alice said: Yes, \"Maybe\" (Perhaps) I'm Ada's.",
            source,
            &["1300", "Bob", "Alice"],
        );
        check("NASA paid 3% and bought GPT-3 in 2,019.", source, &["NASA", "3", "3"]);
        check("Version 1.2.3 of h2o", "version 1.2.3", &[]);
        check("", source, &[]);
    }

    #[test]
    fn chinese_numbers_names_and_titles() {
        let source = "二〇一九年，三十五人在巴黎看了《红楼梦》，花了一千二百元，约3.5万字。OpenAI 也在。";
        check("2019年35人看了《红楼梦》，花1,200元，三万五千字。", source, &[]);
        check(
            "2020年三十六人看了《西游记》，Google 也在，一个人十分高兴。",
            source,
            &["2020", "三十六", "西游记", "Google"],
        );
        check("第三章，一点也不知道。", source, &["三"]);
    }

    #[test]
    fn english_words_in_chinese_text() {
        let source =
            "谷歌用 Transformer 训练了 GPT-2 和 BERT2 模型，由 iPhone 14 拍摄，作者是 Ada Lovelace。";
        // What is in the source, however it is joined, and what is no name.
        check(
            "谷歌的transformer模型：GPT2、gpt 2、BERT-2、iPhone14，Ada 写的，在 the app 里用。",
            source,
            &[],
        );
        check("他说：“Good morning, my friend!”模型很好，作者也很好。", source, &[]);
        check(
            "百度用 Mamba 训练了 GPT-3 和 GPT4，在 Google 发布，h2o 也在，他的朋友 Bob Fox 说 yes 又说 AI。",
            source,
            &["Mamba", "3", "GPT4", "Google", "h2o", "Bob", "Fox", "AI"],
        );
    }

    #[test]
    fn values_of_chinese_numerals() {
        for (run, want) in [
            ("十", 10.0),
            ("十二", 12.0),
            ("一百零五", 105.0),
            ("三万五千", 35_000.0),
            ("一亿二千万", 120_000_000.0),
            ("二〇二〇", 2020.0),
            ("九千九百九十九", 9999.0),
            ("三千零五万二百", 30_050_200.0),
        ] {
            assert_eq!(value(run), want, "{run}");
        }
    }
}
