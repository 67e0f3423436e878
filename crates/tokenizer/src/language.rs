//! Which language a text is in, as far as prompts and instructions need to know.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::split::is_han;

/// A language that prompts, instructions and stories come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// English, and whatever else is not Chinese.
    #[default]
    En,
    /// Chinese, in simplified characters.
    Zh,
}

impl Lang {
    /// The language of a text: Chinese where [`is_chinese`] says so.
    pub fn of(text: &str) -> Lang {
        if is_chinese(text) { Lang::Zh } else { Lang::En }
    }
}

impl fmt::Display for Lang {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(if *self == Lang::Zh { "zh" } else { "en" })
    }
}

impl FromStr for Lang {
    type Err = String;

    fn from_str(name: &str) -> Result<Lang, String> {
        match name {
            "en" => Ok(Lang::En),
            "zh" => Ok(Lang::Zh),
            _ => Err(format!("there is no language {name:?} here; choose en or zh")),
        }
    }
}

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
    fn languages_have_names() {
        assert_eq!((Lang::of("tea"), Lang::of("绿茶"), Lang::of("")), (Lang::En, Lang::Zh, Lang::En));
        for lang in [Lang::En, Lang::Zh] {
            assert_eq!(lang.to_string().parse(), Ok(lang));
        }
        assert!("fr".parse::<Lang>().is_err());
    }

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
