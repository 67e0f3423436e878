//! The forms that the steps of recipes hold their texts to: as they are typed, and compiled, each once.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokenizer::Tokenizer;

use super::language::ByLang;
use crate::constraint::{Constraint, ConstraintError, Form, Vocabulary};

/// JSON schemas, as typed: a table, or the text of one in JSON; one for both languages, or a table with `en` and `zh`.
#[derive(Clone, Debug)]
pub(super) struct Schemas(pub ByLang<String>);

impl<'de> Deserialize<'de> for Schemas {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Schemas, D::Error> {
        let value = toml::Value::deserialize(source)?;
        let is_by_lang = value.as_table().is_some_and(|t| t.contains_key("en") || t.contains_key("zh"));
        let read = if is_by_lang {
            ByLang::<Schema>::deserialize(value)
        } else {
            Schema::deserialize(value).map(ByLang::of)
        };
        let read = read.map_err(|error| D::Error::custom(error.message()))?;
        Ok(Schemas(read.map(|Schema(text)| text.clone())))
    }
}

/// One of them.
#[derive(Clone)]
struct Schema(String);

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Schema, D::Error> {
        Ok(Schema(match Value::deserialize(source)? {
            Value::String(json) => json,
            schema => schema.to_string(),
        }))
    }
}

/// Forms that are compiled for the vocabulary of one model.
#[derive(Debug, Default)]
pub(super) struct Forms {
    vocabulary: Option<Vocabulary>,
    compiled: HashMap<Form, Arc<Constraint>>,
}

impl Forms {
    /// What holds texts to this form; compiled if it comes for the first time.
    pub fn get(&mut self, form: &Form, tokenizer: &Tokenizer) -> Result<Arc<Constraint>, ConstraintError> {
        if let Some(known) = self.compiled.get(form) {
            return Ok(Arc::clone(known));
        }
        let vocabulary = match &self.vocabulary {
            Some(vocabulary) => vocabulary,
            None => self.vocabulary.insert(Vocabulary::new(tokenizer)?),
        };
        let constraint = Arc::new(form.compile(vocabulary)?);
        self.compiled.insert(form.clone(), Arc::clone(&constraint));
        Ok(constraint)
    }
}
