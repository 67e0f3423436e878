//! A recipe as it is typed: TOML, and single settings that are given over it.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;

use super::checks::Repeats;
use super::ending::End;
use super::error::RecipeError;
use super::forms::Schemas;
use super::language::ByLang;
use super::recipe::Keep;
use super::units::Unit;
use crate::constraint::Form;

/// A recipe, as typed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RecipeToml {
    pub about: ByLang<String>,
    #[serde(default)]
    pub inputs: BTreeMap<Spanned<String>, InputToml>,
    #[serde(default)]
    pub step: Vec<Spanned<StepToml>>,
}

/// An input, as typed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct InputToml {
    pub about: ByLang<String>,
    pub default: Option<ByLang<String>>,
}

/// A text with places, and where it stands.
pub(super) type Text = Spanned<ByLang<String>>;
/// Several.
pub(super) type Texts = Spanned<ByLang<Vec<String>>>;

/// A step, as typed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct StepToml {
    pub name: Option<Spanned<String>>,
    pub prompt: Option<Text>,
    pub ask: Option<Text>,
    pub begin: Option<Text>,
    pub title: Option<Text>,
    pub chat: Option<bool>,
    pub keep: Option<Keep>,
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub typical_p: Option<f32>,
    pub repeat_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub penalty_window: Option<usize>,
    pub no_repeat_ngram: Option<usize>,
    pub max_tokens: Option<usize>,
    pub min_tokens: Option<usize>,
    pub min: Option<ByLang<usize>>,
    pub max: Option<ByLang<usize>>,
    pub unit: Option<Unit>,
    pub stop: Option<ByLang<Vec<String>>>,
    pub end: Option<End>,
    pub json_schema: Option<Schemas>,
    pub grammar: Option<ByLang<String>>,
    pub drop_unfinished: Option<bool>,
    pub retries: Option<usize>,
    #[serde(default)]
    pub check: ChecksToml,
}

/// The checks of a step, as typed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ChecksToml {
    pub one_line: Option<bool>,
    pub whole_sentences: Option<bool>,
    pub same_language: Option<bool>,
    pub repeats: Option<Repeats>,
    pub contains: Option<Texts>,
    pub lacks: Option<Texts>,
}

/// Each setting that `from` has wins over that of `to`.
macro_rules! take {
    ($to:expr, $from:expr, $($field:ident)*) => { $( if $from.$field.is_some() { $to.$field = $from.$field.clone(); } )* };
}

impl StepToml {
    /// Lets the settings win that are given over a recipe. A form takes the place of all that says where a text begins and
    /// ends, and what it looks like.
    pub fn override_with(&mut self, given: &StepToml) {
        if given.json_schema.is_some() || given.grammar.is_some() {
            (self.json_schema, self.grammar) = (None, None);
            (self.begin, self.min, self.max, self.end, self.drop_unfinished) = (None, None, None, None, None);
            let ChecksToml { one_line, whole_sentences, same_language, .. } = &mut self.check;
            (*one_line, *whole_sentences, *same_language) = (None, None, None);
        }
        take!(self, given, chat keep json_schema grammar temperature top_k top_p min_p typical_p repeat_penalty presence_penalty
            frequency_penalty penalty_window no_repeat_ngram max_tokens min_tokens min max unit stop end
            drop_unfinished retries);
        take!(self.check, given.check, one_line whole_sentences same_language repeats);
    }
}

/// Keys whose lines are told in errors: they can only stand in a recipe.
const TEXTS: [&str; 7] = ["name", "prompt", "ask", "begin", "title", "check.contains", "check.lacks"];

/// A setting that is given over a recipe's, as `STEP.KEY=VALUE`; the step `*` is all of them.
#[derive(Clone, Debug)]
pub struct Override {
    /// As it was given.
    given: String,
    steps: Which,
    settings: Box<StepToml>,
}

/// Which steps a setting is for.
#[derive(Clone, Debug)]
enum Which {
    All,
    Last,
    Named(String),
}

impl FromStr for Override {
    type Err = RecipeError;

    fn from_str(given: &str) -> Result<Override, RecipeError> {
        let wrong = |problem: &str| RecipeError::Override { given: given.into(), problem: problem.into() };
        let parts = given.split_once('=').and_then(|(path, value)| {
            path.trim().split_once('.').map(|(step, key)| (step, key.trim(), value.trim()))
        });
        let (step, key, value) =
            parts.ok_or_else(|| wrong("give a step, a key and a value, such as article.temperature=0.7"))?;
        Override::new(given, step, key, value)
    }
}

impl Override {
    /// A setting of all steps; `given` is what errors call it.
    pub fn of_all(given: &str, key: &str, value: &str) -> Result<Override, RecipeError> {
        Override::new(given, "*", key, value)
    }

    /// A form of the last step's text.
    pub fn form_of_last(given: &str, form: Form) -> Override {
        let settings = match form {
            Form::JsonSchema(schema) => {
                StepToml { json_schema: Some(Schemas(ByLang::of(schema))), ..StepToml::default() }
            }
            Form::Grammar(grammar) => StepToml { grammar: Some(ByLang::of(grammar)), ..StepToml::default() },
        };
        Override { given: given.to_owned(), steps: Which::Last, settings: Box::new(settings) }
    }

    fn new(given: &str, step: &str, key: &str, value: &str) -> Result<Override, RecipeError> {
        let wrong = |problem: String| RecipeError::Override { given: given.into(), problem };
        if TEXTS.contains(&key) {
            return Err(wrong(format!(
                "`{key}` can only stand in a recipe; start one of your own from this one"
            )));
        }
        if !key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) {
            return Err(wrong(format!("{key:?} is no key of a step")));
        }
        let as_typed = format!("{key} = {value}");
        // A word is a string without its quotes, and so is a schema in JSON.
        let may_be_word =
            value.starts_with(char::is_alphabetic) || (key == "json-schema" && value.starts_with('{'));
        let is_word = may_be_word && toml::from_str::<toml::Table>(&as_typed).is_err();
        let line = match is_word || value.contains('\n') {
            true => format!("{key} = {}", toml::Value::String(value.into())),
            false => as_typed,
        };
        let settings = toml::from_str(&line).map_err(|error| wrong(error.message().to_owned()))?;
        let steps = if step == "*" { Which::All } else { Which::Named(step.to_owned()) };
        Ok(Override { given: given.to_owned(), steps, settings: Box::new(settings) })
    }

    /// Puts it into the steps that it is for.
    pub(super) fn apply(&self, steps: &mut [(String, StepToml)]) -> Result<(), RecipeError> {
        let last = steps.len().saturating_sub(1);
        let mut met = steps.is_empty(); // which is told later
        for (number, (name, step)) in steps.iter_mut().enumerate() {
            let is_meant = match &self.steps {
                Which::All => true,
                Which::Last => number == last,
                Which::Named(wanted) => wanted == name,
            };
            if is_meant {
                step.override_with(&self.settings);
                met = true;
            }
        }
        let (false, Which::Named(step)) = (met, &self.steps) else { return Ok(()) };
        let names: Vec<&str> = steps.iter().map(|(name, _)| name.as_str()).collect();
        let problem = format!("the recipe has no step `{step}`; it has {}", names.join(", "));
        Err(RecipeError::Override { given: self.given.clone(), problem })
    }
}
