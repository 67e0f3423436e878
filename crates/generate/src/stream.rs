//! Which text may be shown: whole characters, and nothing that may become a stop string.

use tokenizer::Utf8Stream;

/// Collects the bytes of tokens and releases text.
#[derive(Debug)]
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
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
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
}
