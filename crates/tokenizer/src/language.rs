//! Which language a text is in, as far as prompts and instructions need to know.

use crate::split::is_han;

/// Whether a text is Chinese: more than a fifth of its letters are Han. A Chinese word has two of them where an English
/// one has five letters, and Chinese texts quote English names.
pub fn is_chinese(text: &str) -> bool {
    let letters = text.chars().filter(|char| char.is_alphabetic()).count();
    let han = text.chars().filter(|&char| is_han(char)).count();
    5 * han > letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn english_chinese_and_mixed() {
        for chinese in ["今天天气很好。", "请用 Python 写一个排序函数", "GPT-2 是一种语言模型", "好", "一"]
        {
            assert!(is_chinese(chinese), "{chinese}");
        }
        for other in ["", "123 !?", "The fox", "He said 你好 and walked away", "Привет, мир", "안녕하세요"]
        {
            assert!(!is_chinese(other), "{other}");
        }
    }
}
