//! Where sentences end, in English and in Chinese.

/// Marks that end a sentence wherever they stand, and those that do so before white space.
const ALWAYS: [char; 4] = ['。', '！', '？', '\n'];
const BEFORE_SPACE: [char; 4] = ['.', '!', '?', '…'];
/// What closes a quotation belongs to the sentence inside it.
const CLOSING: [char; 9] = ['"', '\'', '”', '’', '」', '』', ')', '）', '》'];

/// The ends of a text's sentences, in bytes, in order; the text's own end is not among them.
pub fn sentence_ends(text: &str) -> impl Iterator<Item = usize> {
    let mut chars = text.char_indices().peekable();
    std::iter::from_fn(move || {
        while let Some((at, mark)) = chars.next() {
            if !ALWAYS.contains(&mark) && !BEFORE_SPACE.contains(&mark) {
                continue;
            }
            let mut end = at + mark.len_utf8();
            while let Some((at, closing)) = chars.next_if(|(_, c)| CLOSING.contains(c)) {
                end = at + closing.len_utf8();
            }
            let before_space = chars.peek().is_some_and(|(_, next)| next.is_whitespace());
            if end < text.len() && (ALWAYS.contains(&mark) || before_space) {
                return Some(end);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_sentences() {
        let parts =
            |text: &str| -> Vec<String> { sentence_ends(text).map(|end| text[..end].to_owned()).collect() };
        assert_eq!(
            parts("It is 3.5 m. \"Yes!\" he said. End"),
            ["It is 3.5 m.", "It is 3.5 m. \"Yes!\"", "It is 3.5 m. \"Yes!\" he said."]
        );
        assert_eq!(parts("狐狸说：“早！”然后走了。完"), ["狐狸说：“早！”", "狐狸说：“早！”然后走了。"]);
        assert_eq!(parts("title\nbody"), ["title\n"]);
        assert!(parts("").is_empty() && parts("no end").is_empty() && parts("One.").is_empty());
    }
}
