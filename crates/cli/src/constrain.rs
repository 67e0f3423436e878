//! The flags that hold a text to a form, for every command that writes.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use generate::constraint::{Constraint, Form, Vocabulary};
use serde_json::Value;
use tokenizer::Tokenizer;

use crate::input;
use crate::output::note;

#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Holding the text to a form")]
pub struct Constrain {
    /// Write JSON that fulfils the JSON schema in FILE (- is standard input), whatever the model would like to write
    #[arg(long, value_name = "FILE", conflicts_with = "grammar")]
    json_schema: Option<PathBuf>,
    /// Write what the grammar in FILE allows from its rule `start`: Lark, in the dialect of llguidance
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
}

impl Constrain {
    /// What was asked for, and how errors call that.
    pub fn form(&self) -> Result<Option<(String, Form)>> {
        type Make = fn(String) -> Form;
        let (flag, path, make): (_, _, Make) = match (&self.json_schema, &self.grammar) {
            (Some(path), _) => ("--json-schema", path, Form::JsonSchema),
            (_, Some(path)) => ("--grammar", path, Form::Grammar),
            _ => return Ok(None),
        };
        let about = format!("{flag} {}", path.display());
        let text = input::read_settings(path).with_context(|| about.clone())?;
        Ok(Some((about, make(text))))
    }

    /// Whether anything is asked for.
    pub fn is_given(&self) -> bool {
        self.json_schema.is_some() || self.grammar.is_some()
    }

    /// What the text must be, if that is asked for.
    pub fn build(&self, tokenizer: &Tokenizer) -> Result<Option<Arc<Constraint>>> {
        Constrain::compile(self.form()?, tokenizer)
    }

    /// The same, of a form that was read before.
    pub fn compile(form: Option<(String, Form)>, tokenizer: &Tokenizer) -> Result<Option<Arc<Constraint>>> {
        let Some((about, form)) = form else { return Ok(None) };
        let constraint = form.compile(&Vocabulary::new(tokenizer)?).with_context(|| about.clone())?;
        for line in constraint.notes() {
            note!("warning: {about}: {line}");
        }
        Ok(Some(Arc::new(constraint)))
    }
}

/// Schemas that come one by one; the last is kept, since the next is often the same.
#[derive(Debug, Default)]
pub struct Schemas {
    vocabulary: Option<Vocabulary>,
    last: Option<(Value, Arc<Constraint>)>,
}

impl Schemas {
    /// What this schema asks for.
    pub fn get(&mut self, tokenizer: &Tokenizer, schema: &Value) -> Result<Arc<Constraint>> {
        if let Some((known, constraint)) = &self.last
            && known == schema
        {
            return Ok(Arc::clone(constraint));
        }
        let vocabulary = match &self.vocabulary {
            Some(vocabulary) => vocabulary,
            None => self.vocabulary.insert(Vocabulary::new(tokenizer)?),
        };
        let made = Constraint::json_schema(vocabulary, &schema.to_string()).context("json_schema")?;
        let constraint = Arc::new(made);
        self.last = Some((schema.clone(), Arc::clone(&constraint)));
        Ok(constraint)
    }
}
