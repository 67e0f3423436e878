//! `response_format`: what a text must be as a whole.

use std::sync::Arc;

use generate::Constraint;
use serde::Deserialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::served::Served;

/// What a text must be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ResponseFormat {
    /// Any text.
    Text {},
    /// Any JSON object.
    JsonObject {},
    /// JSON that fulfils a schema.
    JsonSchema {
        /// The schema, and its name.
        json_schema: NamedSchema,
    },
}

/// A schema with a name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedSchema {
    /// What it is called; it changes nothing.
    pub name: String,
    /// What it is for; it changes nothing.
    #[serde(default)]
    pub description: Option<String>,
    /// The schema; without one, any object.
    #[serde(default)]
    pub schema: Option<Value>,
    /// A schema is always held to, whatever this says.
    #[serde(default)]
    pub strict: Option<bool>,
}

impl ResponseFormat {
    /// What texts are held to. Takes a fraction of a second for a new schema.
    pub fn constraint(&self, served: &Served) -> Result<Option<Arc<Constraint>>, ApiError> {
        const OBJECT: &str = r#"{"type":"object"}"#;
        let schema = match self {
            ResponseFormat::Text {} => return Ok(None),
            ResponseFormat::JsonObject {} => OBJECT.to_owned(),
            ResponseFormat::JsonSchema { json_schema } => {
                json_schema.schema.as_ref().map_or_else(|| OBJECT.to_owned(), Value::to_string)
            }
        };
        Ok(Some(served.json_schema(&schema)?))
    }
}
