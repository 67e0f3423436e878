//! Values of a recipe that may differ between its two languages.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use tokenizer::Lang;

/// A value for each language. In a recipe it is one value for both, or a table with the keys `en` and `zh`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByLang<T> {
    en: T,
    zh: T,
}

impl<T> ByLang<T> {
    /// The same value in both.
    pub fn of(value: T) -> ByLang<T>
    where
        T: Clone,
    {
        ByLang { en: value.clone(), zh: value }
    }

    /// The value in a language.
    pub fn get(&self, lang: Lang) -> &T {
        if lang == Lang::Zh { &self.zh } else { &self.en }
    }

    /// Both values.
    pub fn both(&self) -> [&T; 2] {
        [&self.en, &self.zh]
    }

    /// Turns both values into others.
    pub fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> ByLang<U> {
        ByLang { en: f(&self.en), zh: f(&self.zh) }
    }

    /// Turns both values into others, English first.
    pub fn try_map<U, E>(&self, mut f: impl FnMut(&T) -> Result<U, E>) -> Result<ByLang<U>, E> {
        Ok(ByLang { en: f(&self.en)?, zh: f(&self.zh)? })
    }
}

impl<'de, T: DeserializeOwned + Clone> Deserialize<'de> for ByLang<T> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<ByLang<T>, D::Error> {
        let read = |value: toml::Value| T::deserialize(value).map_err(|e| D::Error::custom(e.message()));
        let mut table = match toml::Value::deserialize(source)? {
            toml::Value::Table(table) => table,
            one => return read(one).map(ByLang::of),
        };
        let (en, zh) = (table.remove("en"), table.remove("zh"));
        if let Some(key) = table.keys().next() {
            return Err(D::Error::custom(format!("there is no language `{key}`; give `en` and `zh`")));
        }
        match (en, zh) {
            (Some(en), Some(zh)) => Ok(ByLang { en: read(en)?, zh: read(zh)? }),
            _ => Err(D::Error::custom("give both `en` and `zh`, or one value without them")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct One {
        x: ByLang<usize>,
    }

    #[test]
    fn one_value_or_two() {
        let read = |text: &str| toml::from_str::<One>(text).map(|one| one.x);
        assert_eq!(read("x = 3").unwrap(), ByLang { en: 3, zh: 3 });
        assert_eq!(read("x = { en = 1, zh = 2 }").unwrap(), ByLang { en: 1, zh: 2 });
        for (text, want) in [
            ("x = { en = 1 }", "both `en` and `zh`"),
            ("x = { en = 1, zh = 2, fr = 3 }", "no language `fr`"),
            ("x = { en = 1, zh = 'two' }", "expected usize"),
            ("x = -1", "expected usize"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
