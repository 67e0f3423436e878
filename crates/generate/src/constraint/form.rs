//! What a text is to be, as people write it down.

use super::{Constraint, ConstraintError, Vocabulary};

/// A schema or a grammar, before it is compiled for a vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// The text of a JSON schema.
    JsonSchema(String),
    /// The text of a grammar in Lark.
    Grammar(String),
}

impl Form {
    /// Compiles it, as [`Constraint::json_schema`] and [`Constraint::grammar`] do.
    pub fn compile(&self, vocabulary: &Vocabulary) -> Result<Constraint, ConstraintError> {
        match self {
            Form::JsonSchema(schema) => Constraint::json_schema(vocabulary, schema),
            Form::Grammar(grammar) => Constraint::grammar(vocabulary, grammar),
        }
    }
}
