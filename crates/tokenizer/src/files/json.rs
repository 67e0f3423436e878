//! `tokenizer.json` and `vocab.json` as they are written: tokens and merges are borrowed from the file, not copied.
//!
//! Only their syntax is looked at here. What is no id or no pair is kept as it stands, for whoever says so.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The parts of `tokenizer.json`.
#[derive(serde::Deserialize)]
pub(super) struct Json<'a> {
    #[serde(default)]
    pub added_tokens: Value,
    #[serde(default)]
    pub normalizer: Value,
    #[serde(default)]
    pub pre_tokenizer: Value,
    #[serde(default)]
    pub post_processor: Value,
    #[serde(default)]
    pub decoder: Value,
    #[serde(borrow)]
    pub model: Option<Model<'a>>,
}

/// The model of `tokenizer.json`: what is large by itself, the rest as JSON.
#[derive(serde::Deserialize)]
pub(super) struct Model<'a> {
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    #[serde(borrow)]
    pub vocab: Option<Vocab<'a>>,
    #[serde(borrow)]
    pub merges: Option<Vec<Merge<'a>>>,
    #[serde(default)]
    pub unk_token: Value,
    #[serde(default)]
    pub unk_id: Value,
    #[serde(default)]
    pub dropout: Value,
    #[serde(default)]
    pub byte_fallback: Value,
    #[serde(default)]
    pub ignore_merges: Value,
    #[serde(default)]
    pub continuing_subword_prefix: Value,
    #[serde(default)]
    pub end_of_word_suffix: Value,
    #[serde(default)]
    pub max_input_chars_per_word: Value,
}

/// A vocabulary.
pub(super) enum Vocab<'a> {
    /// A table of tokens and ids.
    Table(Vec<(Cow<'a, str>, Id)>),
    /// Tokens in order of id, each with a score.
    List(Vec<Cow<'a, str>>),
}

/// What stands where an id should be.
pub(super) enum Id {
    Number(u64),
    Other(String),
}

/// What stands where a merge should be.
pub(super) enum Merge<'a> {
    Pair(Cow<'a, str>, Cow<'a, str>),
    /// Two tokens with a space between.
    Text(Cow<'a, str>),
    Other,
}

impl Merge<'_> {
    /// The two tokens, if that is what it is.
    pub(super) fn pair(&self) -> Option<(&str, &str)> {
        match self {
            Merge::Pair(left, right) => Some((left, right)),
            Merge::Text(text) => text.split_once(' '),
            Merge::Other => None,
        }
    }
}

impl fmt::Display for Merge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Merge::Pair(left, right) => write!(f, "[{left:?}, {right:?}]"),
            Merge::Text(text) => write!(f, "{text:?}"),
            Merge::Other => f.write_str("that is no text"),
        }
    }
}

/// A string that is borrowed if it can be, or something else.
enum Part<'a> {
    Text(Cow<'a, str>),
    Other,
}

/// Visits anything; what is not told apart becomes `$other`.
macro_rules! anything_else {
    ($other:expr) => {
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($other("null".to_owned()))
        }
        fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
            Ok($other(value.to_string()))
        }
        fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
            Ok($other(value.to_string()))
        }
        fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
            Ok($other(value.to_string()))
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok($other("{…}".to_owned()))
        }
    };
}

impl<'de: 'a, 'a> Deserialize<'de> for Part<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsPart;
        impl<'de> Visitor<'de> for AsPart {
            type Value = Part<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Part<'de>, E> {
                Ok(Part::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Part<'de>, E> {
                Ok(Part::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Part<'de>, E> {
                Ok(Part::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Part<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Part::Other)
            }
            anything_else!(|_: String| Part::Other);
        }
        deserializer.deserialize_any(AsPart)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsId;
        impl<'de> Visitor<'de> for AsId {
            type Value = Id;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an id")
            }
            fn visit_u64<E>(self, value: u64) -> Result<Id, E> {
                Ok(Id::Number(value))
            }
            fn visit_str<E>(self, text: &str) -> Result<Id, E> {
                Ok(Id::Other(format!("{text:?}")))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Id, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Id::Other("[…]".to_owned()))
            }
            anything_else!(Id::Other);
        }
        deserializer.deserialize_any(AsId)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsMerge;
        impl<'de> Visitor<'de> for AsMerge {
            type Value = Merge<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a merge")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Merge<'de>, E> {
                Ok(Merge::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Merge<'de>, E> {
                Ok(Merge::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Merge<'de>, E> {
                Ok(Merge::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge<'de>, A::Error> {
                let (left, right) = (seq.next_element()?, seq.next_element()?);
                let mut more = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    more = true;
                }
                match (left, right) {
                    (Some(Part::Text(left)), Some(Part::Text(right))) if !more => {
                        Ok(Merge::Pair(left, right))
                    }
                    _ => Ok(Merge::Other),
                }
            }
            anything_else!(|_: String| Merge::Other);
        }
        deserializer.deserialize_any(AsMerge)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Vocab<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsVocab;
        impl<'de> Visitor<'de> for AsVocab {
            type Value = Vocab<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a table of tokens and ids, or a list of tokens and scores")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab<'de>, A::Error> {
                let mut table = Vec::new();
                while let Some((token, id)) = map.next_entry::<Part, Id>()? {
                    // JSON has no keys but strings.
                    if let Part::Text(token) = token {
                        table.push((token, id));
                    }
                }
                Ok(Vocab::Table(table))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocab<'de>, A::Error> {
                let mut list = Vec::new();
                while let Some((token, _)) = seq.next_element::<(Part, f64)>()? {
                    match token {
                        Part::Text(token) => list.push(token),
                        Part::Other => return Err(serde::de::Error::custom("a token is no string")),
                    }
                }
                Ok(Vocab::List(list))
            }
        }
        deserializer.deserialize_any(AsVocab)
    }
}
