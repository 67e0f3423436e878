//! Recipes: the steps in which a document is written. Read from TOML, with every rule checked.
//!
//! ```toml
//! about = { en = "A slogan", zh = "一句口号" }   # what the recipe writes
//! [inputs.tone]                               # beside {topic}, which every recipe has
//! about = "How it should sound"
//! default = { en = "friendly", zh = "亲切" }    # without one it must be given
//! [[step]]
//! name = "slogan"                             # later steps use its result as {slogan}
//! prompt = "Product: {topic}\nSlogan ({tone}):"   # what a base model continues
//! ask = "Write a {tone} slogan for {topic}."  # what a chat model is asked instead, where `chat` is not false
//! end = "line"
//! max = 12                                    # words; a Chinese character is one
//! check = { one-line = true }
//! keep = "heading 1"
//! [[step]]
//! name = "facts"
//! prompt = "Product: {topic}\nSlogan: {slogan}\nAs JSON: "
//! keep = "code json"
//! [step.json-schema]                          # the text fulfils it, whatever the model would like to write
//! type = "object"
//! required = ["price"]
//! properties = { price = { type = "integer" } }
//! ```
//!
//! `json-schema` is a table, or JSON's text; `grammar` in its place is the text of a grammar (see [`crate::constraint`]).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tokenizer::Lang;
use toml::Spanned;

use super::checks::{Checks, Repeats};
use super::ending::{End, Lengths};
use super::error::RecipeError;
use super::language::ByLang;
use super::placeholders::{Template, is_name};
use super::settings::{ChecksToml, Override, RecipeToml, StepToml, Text, Texts};
use super::units::Unit;
use crate::constraint::Form;
use crate::sampling::{Processors, Sampling};

/// A document in steps.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// What it writes.
    pub about: ByLang<String>,
    /// What can be filled in beside the topic.
    pub inputs: Vec<Input>,
    /// The steps, in order; at least one.
    pub steps: Vec<Step>,
}

/// What can be filled in.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name in prompts.
    pub name: String,
    /// What it is.
    pub about: ByLang<String>,
    /// What is filled in where nothing is given.
    pub default: Option<ByLang<String>>,
}

/// A step: one text.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name in later prompts.
    pub name: String,
    /// What a base model continues.
    pub prompt: ByLang<Template>,
    /// What a chat model is asked, if it is another text.
    pub ask: Option<ByLang<Template>>,
    /// Whether a chat model is asked through its template.
    pub chat: bool,
    /// How the text begins; the model goes on from there.
    pub begin: ByLang<Template>,
    /// A heading above it in the document.
    pub title: Option<ByLang<Template>>,
    /// What it becomes in the document.
    pub keep: Keep,
    /// How tokens are drawn; the seed comes later.
    pub sampling: Sampling,
    /// Tokens at most.
    pub max_tokens: usize,
    /// Tokens at least.
    pub min_tokens: usize,
    /// Lengths in units.
    min: ByLang<usize>,
    max: ByLang<usize>,
    unit: Unit,
    /// Strings that end the text.
    pub stop: ByLang<Vec<String>>,
    /// What else ends it.
    pub end: End,
    /// What the text is held to, which then says where it begins and ends.
    pub form: Option<ByLang<Form>>,
    /// Whether a sentence that a limit cuts is dropped, where there is a whole one before it.
    pub drop_unfinished: bool,
    /// How often it is written anew when a check fails.
    pub retries: usize,
    one_line: bool,
    whole_sentences: bool,
    same_language: bool,
    repeats: Option<Repeats>,
    /// What it must say, and must not.
    pub contains: ByLang<Vec<Template>>,
    /// What it must not say.
    pub lacks: ByLang<Vec<Template>>,
}

/// What a step's text becomes in the document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Keep {
    /// Nothing: later steps use it.
    No,
    /// A heading of this level, 1 to 6.
    Heading(usize),
    /// Paragraphs.
    #[default]
    Paragraph,
    /// A list, a line an item.
    List,
    /// Code, in this language.
    Code(String),
}

impl TryFrom<String> for Keep {
    type Error = String;

    fn try_from(typed: String) -> Result<Keep, String> {
        let (kind, rest) = typed.split_once(' ').unwrap_or((&typed, ""));
        match (kind, rest.trim(), rest.trim().parse()) {
            ("no", "", _) => Ok(Keep::No),
            ("paragraph", "", _) => Ok(Keep::Paragraph),
            ("list", "", _) => Ok(Keep::List),
            ("heading", _, Ok(level @ 1..=6)) => Ok(Keep::Heading(level)),
            ("code", language, _) if language.is_empty() || is_name(language) => {
                Ok(Keep::Code(language.into()))
            }
            _ => Err(format!(
                "{typed:?} is nothing to keep a text as; use \"no\", \"heading 1\" to \"heading 6\", \"paragraph\", \"list\", \
                 \"code\" or \"code LANGUAGE\""
            )),
        }
    }
}

impl From<Keep> for String {
    fn from(keep: Keep) -> String {
        match keep {
            Keep::No => "no".into(),
            Keep::Heading(level) => format!("heading {level}"),
            Keep::Paragraph => "paragraph".into(),
            Keep::List => "list".into(),
            Keep::Code(language) => format!("code {language}").trim_end().into(),
        }
    }
}

/// The most that a recipe may ask for.
const MOST_RETRIES: usize = 100;

impl Recipe {
    /// Reads a recipe, with settings over its own.
    pub fn parse(source: &str, overrides: &[Override]) -> Result<Recipe, RecipeError> {
        let typed: RecipeToml = toml::from_str(source).map_err(|error| RecipeError::Toml {
            line: line_of(source, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        let mut seen = BTreeSet::new();
        let mut inputs = Vec::new();
        for (name, input) in typed.inputs {
            let at = line_of(source, name.span().start);
            let name = new_name(name.into_inner(), at, &mut seen)?;
            inputs.push(Input { name, about: input.about, default: input.default });
        }
        let (mut lines, mut steps) = (Vec::new(), Vec::new());
        for step in typed.step {
            let at = line_of(source, step.span().start);
            let step = step.into_inner();
            let name = step.name.as_ref().map(|name| name.get_ref().clone());
            let name = name.ok_or(RecipeError::Missing { line: at, step: "?".into(), key: "name" })?;
            steps.push((new_name(name, at, &mut seen)?, step));
            lines.push(at);
        }
        overrides.iter().try_for_each(|given| given.apply(&mut steps))?;
        let all: Vec<String> = steps.iter().map(|(name, _)| name.clone()).collect();
        let mut known: Vec<String> = ["topic".to_owned()].into();
        known.extend(inputs.iter().map(|input| input.name.clone()));
        let mut resolved = Vec::new();
        for ((name, step), line) in steps.into_iter().zip(lines) {
            let place = Place { source, line, step: &name, known: &known, all: &all };
            resolved.push(place.resolve(step)?);
            known.push(name);
        }
        if resolved.is_empty() {
            return Err(RecipeError::NoSteps);
        }
        Ok(Recipe { about: typed.about, inputs, steps: resolved })
    }
}

impl Step {
    /// The step's lengths in a language.
    pub fn lengths(&self, lang: Lang) -> Lengths {
        Lengths { min: *self.min.get(lang), max: *self.max.get(lang), unit: self.unit }
    }

    /// The checks in a language, with what is to be found or not filled in by `fill`.
    pub fn checks(&self, lang: Lang, fill: &mut dyn FnMut(&Template) -> String) -> Checks {
        Checks {
            one_line: self.one_line,
            whole_sentences: self.whole_sentences,
            language: self.same_language.then_some(lang),
            repeats: self.repeats,
            contains: self.contains.get(lang).iter().map(&mut *fill).collect(),
            lacks: self.lacks.get(lang).iter().map(fill).collect(),
        }
    }
}

/// The line of a byte.
fn line_of(source: &str, at: usize) -> usize {
    1 + source.as_bytes()[..at.min(source.len())].iter().filter(|&&byte| byte == b'\n').count()
}

fn new_name(name: String, line: usize, seen: &mut BTreeSet<String>) -> Result<String, RecipeError> {
    if !is_name(&name) || name == "topic" {
        return Err(RecipeError::Name { line, name });
    }
    if !seen.insert(name.clone()) {
        return Err(RecipeError::Twice { line, name });
    }
    Ok(name)
}

/// Where a step stands, and what it may use.
struct Place<'a> {
    source: &'a str,
    line: usize,
    step: &'a str,
    known: &'a [String],
    all: &'a [String],
}

impl Place<'_> {
    /// Turns a step as typed into one that can be written: every default filled, every rule checked.
    fn resolve(&self, typed: StepToml) -> Result<Step, RecipeError> {
        let sampling = sampling(&typed);
        sampling.validate().or_else(|error| self.wrong(error.to_string()))?;
        let form = self.form(&typed)?;
        let step = self.step.to_owned();
        let prompt = typed.prompt.ok_or(RecipeError::Missing { line: self.line, step, key: "prompt" })?;
        let ask = typed.ask.map(|ask| self.text(&ask)).transpose()?;
        let ChecksToml { one_line, whole_sentences, same_language, repeats, contains, lacks } = typed.check;
        let step = Step {
            name: self.step.to_owned(),
            prompt: self.text(&prompt)?,
            chat: typed.chat.unwrap_or(ask.is_some()),
            ask,
            begin: typed.begin.map(|begin| self.text(&begin)).transpose()?.unwrap_or_default(),
            title: typed.title.map(|title| self.text(&title)).transpose()?,
            keep: typed.keep.unwrap_or_default(),
            sampling,
            max_tokens: typed.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
            min_tokens: typed.min_tokens.unwrap_or(0),
            min: typed.min.unwrap_or_default(),
            max: typed.max.unwrap_or(ByLang::of(usize::MAX)),
            unit: typed.unit.unwrap_or_default(),
            stop: typed.stop.unwrap_or_default(),
            end: typed.end.unwrap_or_default(),
            form,
            drop_unfinished: typed.drop_unfinished.unwrap_or(false),
            retries: typed.retries.unwrap_or(DEFAULT_RETRIES),
            one_line: one_line.unwrap_or(false),
            whole_sentences: whole_sentences.unwrap_or(false),
            same_language: same_language.unwrap_or(false),
            repeats,
            contains: contains.map(|all| self.texts(&all)).transpose()?.unwrap_or_default(),
            lacks: lacks.map(|all| self.texts(&all)).transpose()?.unwrap_or_default(),
        };
        self.check(&step)?;
        Ok(step)
    }

    /// What the text is held to; nothing else may say where it begins and ends.
    fn form(&self, typed: &StepToml) -> Result<Option<ByLang<Form>>, RecipeError> {
        let form = match (&typed.json_schema, &typed.grammar) {
            (None, None) => return Ok(None),
            (Some(schemas), None) => schemas.0.map(|schema| Form::JsonSchema(schema.clone())),
            (None, Some(grammars)) => grammars.map(|grammar| Form::Grammar(grammar.clone())),
            (Some(_), Some(_)) => {
                return self.wrong("json-schema and grammar: a text is held to one of them".into());
            }
        };
        let others = [
            ("begin", typed.begin.is_some()),
            ("end", typed.end.is_some_and(|end| end != End::Text)),
            ("max", typed.max.is_some()),
            ("drop-unfinished", typed.drop_unfinished == Some(true)),
        ];
        match others.iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) => {
                let problem = format!(
                    "`{key}` cannot stand beside a json-schema or grammar, which says itself where a text begins and ends"
                );
                self.wrong(problem)
            }
            None => Ok(Some(form)),
        }
    }

    /// The rules between the settings of a step.
    fn check(&self, step: &Step) -> Result<(), RecipeError> {
        if step.max_tokens == 0 {
            self.wrong("max-tokens = 0 writes nothing; ask for at least 1".into())?;
        }
        if step.min_tokens > step.max_tokens {
            let (min, max) = (step.min_tokens, step.max_tokens);
            self.wrong(format!(
                "min-tokens = {min} is more than max-tokens = {max}; lower the one or raise the other"
            ))?;
        }
        for (min, max) in step.min.both().into_iter().zip(step.max.both()) {
            if min > max || *max == 0 {
                self.wrong(format!(
                    "min = {min} and max = {max}: no text is as long; max must be at least min, and 1"
                ))?;
            }
        }
        if step.stop.both().into_iter().flatten().any(String::is_empty) {
            self.wrong("a stop string is empty; give it characters or leave it out".into())?;
        }
        if step.retries > MOST_RETRIES {
            self.wrong(format!("retries = {}: at most {MOST_RETRIES} are made", step.retries))?;
        }
        if step.repeats.is_some_and(|repeats| repeats.n == 0 || repeats.most == 0) {
            self.wrong("repeats: n and most must be at least 1".into())?;
        }
        Ok(())
    }

    fn wrong<T>(&self, problem: String) -> Result<T, RecipeError> {
        Err(RecipeError::Value { line: self.line, step: self.step.into(), problem })
    }

    fn text(&self, text: &Text) -> Result<ByLang<Template>, RecipeError> {
        text.get_ref().try_map(|one| self.template(one, text))
    }

    fn texts(&self, texts: &Texts) -> Result<ByLang<Vec<Template>>, RecipeError> {
        texts.get_ref().try_map(|all| {
            if all.iter().any(|one| one.trim().is_empty()) {
                self.wrong("contains, lacks: a string is empty; give it characters or leave it out".into())?;
            }
            all.iter().map(|one| self.template(one, texts)).collect()
        })
    }

    /// A text whose places can all be filled when the step's turn comes.
    fn template<T>(&self, text: &str, place: &Spanned<T>) -> Result<Template, RecipeError> {
        let step = self.step.to_owned();
        let line = line_of(self.source, place.span().start);
        let template = Template::parse(text).map_err(|problem| RecipeError::Value {
            line,
            step: step.clone(),
            problem,
        })?;
        let Some(name) = template.names().find(|name| !self.known.iter().any(|known| known == name)) else {
            return Ok(template);
        };
        let name = name.to_owned();
        let within = self.source.get(place.span()).and_then(|text| text.find(&format!("{{{name}}}")));
        let line = line_of(self.source, place.span().start + within.unwrap_or(0));
        Err(if self.all.contains(&name) {
            RecipeError::Forward { line, step, name }
        } else {
            RecipeError::Undefined { line, step, name, known: self.known.join(", ") }
        })
    }
}

/// What holds where a step does not say it.
const DEFAULT_MAX_TOKENS: usize = 256;
const DEFAULT_RETRIES: usize = 2;
const DEFAULT_TEMPERATURE: f32 = 0.8;
const DEFAULT_TOP_K: usize = 40;

fn sampling(typed: &StepToml) -> Sampling {
    let default = Sampling::default();
    Sampling {
        temperature: typed.temperature.unwrap_or(DEFAULT_TEMPERATURE),
        top_k: typed.top_k.unwrap_or(DEFAULT_TOP_K),
        top_p: typed.top_p.unwrap_or(default.top_p),
        min_p: typed.min_p.unwrap_or(default.min_p),
        typical_p: typed.typical_p.unwrap_or(default.typical_p),
        processors: Processors {
            repetition: typed.repeat_penalty.unwrap_or(1.0),
            presence: typed.presence_penalty.unwrap_or(0.0),
            frequency: typed.frequency_penalty.unwrap_or(0.0),
            penalty_window: typed.penalty_window.unwrap_or(0),
            no_repeat_ngram: typed.no_repeat_ngram.unwrap_or(0),
            ..Processors::NONE
        },
        ..default
    }
}

#[cfg(test)]
mod tests;
