//! Which text may be shown: whole characters, and nothing that may become a stop string.
//!
//! What comes out depends on the bytes alone, not on how tokens cut them.

use tokenizer::Utf8Stream;

/// Collects the bytes of tokens and releases text.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    characters: Utf8Stream,
    stops: Vec<String>,
    held: String,
}

/// What became certain with a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Released {
    /// Text to show, possibly none yet.
    Text(String),
    /// The text before a stop string; nothing follows.
    Stop(String),
}

impl TextStream {
    /// A stream that ends before any of these strings. Empty ones are ignored.
    pub fn new(stops: &[String]) -> TextStream {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        TextStream { characters: Utf8Stream::default(), stops, held: String::new() }
    }

    /// Adds a token's bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Released {
        self.held += &self.characters.push(bytes);
        if let Some(at) = self.first_stop() {
            self.held.truncate(at);
            return Released::Stop(std::mem::take(&mut self.held));
        }
        let rest = self.held.split_off(self.held.len() - self.possible_stop());
        Released::Text(std::mem::replace(&mut self.held, rest))
    }

    /// Adds a token's bytes without looking for stop strings.
    pub fn push_unchecked(&mut self, bytes: &[u8]) -> String {
        std::mem::take(&mut self.held) + &self.characters.push(bytes)
    }

    /// The rest, at the end.
    pub fn finish(self) -> String {
        self.held + &self.characters.finish()
    }

    /// Where the stop string starts that is complete first; of those that end together, the longest.
    fn first_stop(&self) -> Option<usize> {
        let found = |stop: &String| self.held.find(stop.as_str()).map(|at| (at + stop.len(), at));
        self.stops.iter().filter_map(found).min().map(|(_, at)| at)
    }

    /// Length of the longest end of the held text that a stop string starts with.
    fn possible_stop(&self) -> usize {
        let longest = |stop: &String| {
            let ends = stop.char_indices().map(|(at, _)| at).rev();
            ends.filter(|&at| at > 0).find(|&at| self.held.ends_with(&stop[..at])).unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], tokens: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
        let mut stream = TextStream::new(&stops);
        let mut shown = Vec::new();
        for token in tokens {
            match stream.push(token.as_bytes()) {
                Released::Text(text) => shown.push(text),
                Released::Stop(text) => {
                    shown.push(text);
                    return (shown, true);
                }
            }
        }
        shown.push(stream.finish());
        (shown, false)
    }

    #[test]
    fn a_stop_string_across_tokens_is_never_shown() {
        assert_eq!(run(&["END"], &["a E", "N", "Db"]), (vec!["a ".into(), "".into(), "".into()], true));
        assert_eq!(run(&["END"], &["a E", "Nd"]), (vec!["a ".into(), "ENd".into(), "".into()], false));
        assert_eq!(run(&["\n\n", "x"], &["a\n", "bx"]), (vec!["a".into(), "\nb".into()], true));
        assert_eq!(run(&["世界"], &["你好世", "界"]), (vec!["你好".into(), "".into()], true));
        assert_eq!(run(&["aab"], &["aa", "ab"]), (vec!["".into(), "a".into()], true));
        assert_eq!(run(&[""], &["a"]), (vec!["a".into(), "".into()], false));
    }

    /// The text before the first stop string to be complete, found character by character.
    fn plainly(stops: &[&str], text: &str) -> String {
        for (at, char) in text.char_indices() {
            let seen = &text[..at + char.len_utf8()];
            if let Some(stop) =
                stops.iter().filter(|stop| seen.ends_with(**stop)).max_by_key(|stop| stop.len())
            {
                return seen[..seen.len() - stop.len()].to_owned();
            }
        }
        text.to_owned()
    }

    #[test]
    fn every_way_to_cut_bytes_into_tokens_gives_the_same_text() {
        let texts = ["aabaabbabaab", "a\n界\nb世界", "世\u{1f600}世a"];
        let stop_lists: [&[&str]; 7] = [
            &[],
            &["aabb"],
            &["abaab", "bb"],
            &["界"],
            &["\nb世", "b"],
            &["aab", "ab"],
            &["世a", "\u{1f600}世b"],
        ];
        for text in texts {
            for stops in stop_lists {
                let owned: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
                let want = plainly(stops, text);
                for cuts in 0u32..1 << (text.len() - 1) {
                    assert_eq!(
                        streamed(&owned, text, cuts),
                        want,
                        "{text:?} until {stops:?}, cut as {cuts:b}"
                    );
                }
            }
        }
    }

    /// All that is shown of a text whose bytes are cut into tokens after each byte whose bit is set.
    fn streamed(stops: &[String], text: &str, cuts: u32) -> String {
        let (mut stream, mut shown, mut from) = (TextStream::new(stops), String::new(), 0);
        let cut_after = |to: &usize| *to == text.len() || cuts >> (to - 1) & 1 == 1;
        for to in (1..=text.len()).filter(cut_after) {
            match stream.push(&text.as_bytes()[from..to]) {
                Released::Text(piece) => shown += &piece,
                Released::Stop(piece) => return shown + &piece,
            }
            from = to;
        }
        shown + &stream.finish()
    }

    #[test]
    fn what_is_pushed_unchecked_neither_stops_nor_begins_a_stop() {
        let mut stream = TextStream::new(&["ab".to_owned()]);
        assert_eq!(stream.push_unchecked(b"xab a"), "xab a");
        assert_eq!(stream.push(b"b"), Released::Text("b".into()));
        assert_eq!(stream.push("世".as_bytes().split_at(1).0), Released::Text("".into()));
        assert_eq!(stream.push_unchecked("世".as_bytes().split_at(1).1), "世");
        assert_eq!(stream.push(b"a"), Released::Text("".into()));
        assert_eq!(stream.push_unchecked(b"b"), "ab");
    }
}
