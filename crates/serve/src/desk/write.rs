//! The writing desk: `gpt2 write` through HTTP. The same recipe, topic, inputs and seed give the same document.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::response::Response;
use generate::apps::write::{Job, Recipe, StepResult, WriteError, WriteEvent, Writer, builtin};
use generate::{EngineSettings, GenerateError, Speculation};
use serde::Deserialize;
use serde_json::{Value, json};
use tokenizer::Lang;

use super::Teller;
use crate::body::Json;
use crate::error::ApiError;
use crate::served::Served;
use crate::state::State;

/// Candidates of a step, at most: each is a text of the batch.
const MOST_CANDIDATES: usize = 8;
/// Tokens that are guessed at once, as `gpt2 write` does; the text stays the same.
const LOOKUP: Speculation = Speculation::Lookup { most: 8 };

/// Recipes by name.
#[derive(Clone, Debug)]
pub struct Recipes(Vec<(String, Arc<Recipe>)>);

impl Default for Recipes {
    fn default() -> Recipes {
        Recipes::new([])
    }
}

impl Recipes {
    /// Those that come along, and others, which win over one of the same name. One that cannot be read is left out, since
    /// `gpt2 write --list` tells why.
    pub fn new(own: impl IntoIterator<Item = (String, String)>) -> Recipes {
        let along = builtin::RECIPES.iter().map(|&(name, source)| (name.to_owned(), source.to_owned()));
        let mut all: Vec<(String, Arc<Recipe>)> = Vec::new();
        for (name, source) in along.chain(own) {
            let Ok(recipe) = Recipe::parse(&source, &[]) else { continue };
            all.retain(|(known, _)| *known != name);
            all.push((name, Arc::new(recipe)));
        }
        Recipes(all)
    }

    fn get(&self, name: &str) -> Result<Arc<Recipe>, ApiError> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, recipe)| recipe.clone()).ok_or_else(|| {
            let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
            ApiError::invalid(
                "recipe",
                format!("there is no recipe {name:?}; there are {}", names.join(", ")),
            )
        })
    }
}

/// The recipes: what they write, what can be filled in, and their steps.
pub async fn recipes(Shared(state): Shared<State>) -> axum::Json<Value> {
    let both = |[en, zh]: [&String; 2]| json!({ "en": en, "zh": zh });
    let all = state.app().recipes.0.iter().map(|(name, recipe)| {
        let inputs = recipe.inputs.iter().map(|input| {
            let otherwise = input.default.as_ref().map(|value| both(value.both()));
            json!({ "name": input.name, "about": both(input.about.both()), "otherwise": otherwise })
        });
        let steps: Vec<&str> = recipe.steps.iter().map(|step| step.name.as_str()).collect();
        let inputs: Vec<Value> = inputs.collect();
        json!({ "name": name, "about": both(recipe.about.both()), "inputs": inputs, "steps": steps })
    });
    axum::Json(json!({ "recipes": all.collect::<Vec<_>>() }))
}

/// What is to be written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The model's name.
    model: String,
    /// The recipe's.
    recipe: String,
    /// What it is about.
    topic: String,
    /// Other inputs of the recipe.
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    /// `en` or `zh`; without it, the topic's language.
    lang: Option<String>,
    /// Start of the random numbers; without it, a random one, which is told.
    seed: Option<u64>,
    /// Candidates of each step.
    best_of: Option<usize>,
}

/// Writes a document, and tells each piece, each step, and the whole.
pub async fn write(Shared(state): Shared<State>, Json(asked): Json<Asked>) -> Result<Response, ApiError> {
    let work = state.begin()?;
    let served = state.model(&asked.model)?.clone();
    let best_of = asked.best_of.unwrap_or(1);
    if !(1..=MOST_CANDIDATES).contains(&best_of) {
        let message = format!("`best_of` is {best_of}; ask for 1 to {MOST_CANDIDATES} candidates");
        return Err(ApiError::invalid("best_of", message));
    }
    let recipe = state.app().recipes.get(&asked.recipe)?;
    let lang = asked.lang.as_deref().map(str::parse::<Lang>).transpose();
    let lang = lang.map_err(|problem| ApiError::invalid("lang", problem))?;
    let seed = asked.seed.unwrap_or_else(super::random_seed);
    let job = Job::new(recipe, &asked.topic, &asked.inputs, lang, seed)?;
    let limit = state.settings().request_timeout;
    let receipt =
        state.app().desk.submit(served, limit, move |served, teller| run(served, teller, job, best_of))?;
    Ok(receipt.respond(work))
}

fn run(served: &Served, teller: &Teller, job: Job, best_of: usize) -> Result<(), ApiError> {
    let template = (!served.is_plain()).then(|| served.template().clone());
    let settings = EngineSettings {
        kept: 1, // the prompt's keys and values serve the next attempt, too
        speculation: LOOKUP,
        ..EngineSettings::for_batch(served.model(), best_of)
    };
    let mut writer = Writer::new(served.model(), served.tokenizer(), template, best_of, settings)?;
    writer.add(job)?;
    loop {
        teller.goes_on()?;
        let events = writer.step();
        teller.used(served, writer.used());
        for event in events? {
            match event {
                WriteEvent::Draft { step, attempt, piece, .. } => {
                    teller
                        .tell(&json!({ "type": "draft", "step": step, "attempt": attempt, "piece": piece }));
                }
                WriteEvent::Step(_, step) => teller.tell(&told(&step)),
                WriteEvent::Done(_, whole) => {
                    let whole = whole?;
                    let markdown = whole.markdown();
                    teller.tell(&json!({ "type": "done", "markdown": markdown, "seed": whole.seed, "lang": whole.lang }));
                    return Ok(());
                }
            }
        }
    }
}

/// A step that is decided.
fn told(step: &StepResult) -> Value {
    let best = step.best();
    let mut warnings = Vec::new();
    for failed in best.failed.iter().filter(|_| !step.passed) {
        warnings.push(json!({ "kind": "check", "check": failed.check, "why": failed.why }));
    }
    if step.is_short_of_room {
        warnings.push(json!({ "kind": "room", "n": step.max_tokens }));
    }
    if !best.dropped.is_empty() {
        warnings.push(json!({ "kind": "dropped", "text": best.dropped }));
    }
    json!({
        "type": "step", "name": step.name, "title": step.title, "keep": step.keep, "text": step.text,
        "passed": step.passed, "attempts": step.attempts.len(), "kept": step.kept,
        "markdown": step.markdown(), "warnings": warnings,
    })
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> ApiError {
        let message = error.to_string();
        match error {
            WriteError::NoTopic => ApiError::invalid("topic", message),
            WriteError::MissingInput(_) | WriteError::UnknownInput { .. } => {
                ApiError::invalid("inputs", message)
            }
            WriteError::TooLong { .. } => ApiError::bad(message).code("context_length_exceeded"),
            WriteError::Template { .. } => ApiError::bad(message),
            WriteError::Generate(error) => error.into(),
            WriteError::Step { error, .. } => match *error {
                GenerateError::Context { .. }
                | GenerateError::PromptFull { .. }
                | GenerateError::PromptTooLong { .. } => {
                    ApiError::bad(message).code("context_length_exceeded")
                }
                GenerateError::Constraint(_) => ApiError::bad(message),
                _ => ApiError::internal(message),
            },
        }
    }
}
