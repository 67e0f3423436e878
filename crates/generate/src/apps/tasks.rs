//! The instructions that fine-tuning and the applications share, in English and Chinese: a model is asked in the words
//! that it was tuned with. They are short, since a small model spends context on them each time.
//!
//! ```
//! use generate::apps::tasks;
//! assert_eq!(tasks::summarize("The fox ran."), "Summarize:\nThe fox ran.");
//! assert_eq!(tasks::article("狐狸回家"), "按标题写文章：狐狸回家");
//! ```

use tokenizer::is_chinese;

/// Asks for the summary of a text.
pub const SUMMARIZE: Instruction =
    Instruction { english: "Summarize:\n{text}", chinese: "概括：\n{text}" };
/// Asks for the headline of an article.
pub const HEADLINE: Instruction =
    Instruction { english: "Write the headline:\n{text}", chinese: "写标题：\n{text}" };
/// Asks for the article of a headline.
pub const ARTICLE: Instruction =
    Instruction { english: "Write the article: {text}", chinese: "按标题写文章：{text}" };

/// What stands for the text in an instruction.
pub const TEXT: &str = "{text}";

/// An instruction in two languages, with [`TEXT`] where the text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// For texts in English, and in all other languages.
    pub english: &'static str,
    /// For texts in Chinese.
    pub chinese: &'static str,
}

impl Instruction {
    /// The wording in the language of a text.
    pub fn wording(self, text: &str) -> &'static str {
        if is_chinese(text) { self.chinese } else { self.english }
    }

    /// The instruction with its text.
    pub fn about(self, text: &str) -> String {
        fill(self.wording(text), text)
    }
}

/// Asks for the summary of a text.
pub fn summarize(text: &str) -> String {
    SUMMARIZE.about(text)
}

/// Asks for the headline of an article.
pub fn headline(text: &str) -> String {
    HEADLINE.about(text)
}

/// Asks for the article of a headline.
pub fn article(title: &str) -> String {
    ARTICLE.about(title)
}

/// A wording with its text in place of the first [`TEXT`], or after a line break where it has none. A text that holds
/// the same characters stays as it is.
pub fn fill(wording: &str, text: &str) -> String {
    match wording.split_once(TEXT) {
        Some((before, after)) => [before, text, after].concat(),
        None => [wording, "\n", text].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_of_the_text_chooses_the_wording() {
        assert_eq!(headline("A fox came home."), "Write the headline:\nA fox came home.");
        assert_eq!(headline("狐狸回家了。"), "写标题：\n狐狸回家了。");
        assert_eq!(summarize("狐狸用 GPT-2 写信。"), "概括：\n狐狸用 GPT-2 写信。");
        assert_eq!(article(""), "Write the article: ");
    }

    #[test]
    fn a_text_is_never_an_instruction() {
        assert_eq!(summarize("Fill {text} in."), "Summarize:\nFill {text} in.");
        assert_eq!(fill("In short, {text} means:", "{text}"), "In short, {text} means:");
        assert_eq!(fill("Say it shortly.", "A fox."), "Say it shortly.\nA fox.");
    }
}
