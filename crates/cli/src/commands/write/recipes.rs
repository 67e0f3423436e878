//! Recipes by name: those that come along, and the user's own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use etcetera::BaseStrategy;
use generate::apps::write::{Recipe, builtin};
use serde_json::{Value, json};

use crate::input;
use crate::output::{self, say};

/// A recipe, before it is read.
pub struct Source {
    pub name: String,
    pub text: String,
    /// Its file; none where it comes along.
    pub path: Option<PathBuf>,
}

impl Source {
    /// What errors call it.
    pub fn place(&self) -> String {
        match &self.path {
            Some(path) => format!("the recipe {}", path.display()),
            None => format!("the recipe {}", self.name),
        }
    }

    fn of_file(path: &Path) -> Result<Source> {
        let name = path.file_stem().map_or("recipe".into(), |name| name.to_string_lossy().into_owned());
        Ok(Source { name, text: input::read_settings(path)?, path: Some(path.to_owned()) })
    }
}

/// The user's own recipes lie here, where the system says.
fn own_dir() -> Option<PathBuf> {
    let config = etcetera::choose_base_strategy().ok()?.config_dir();
    Some(config.join("gpt2").join("recipes"))
}

/// A recipe by its name or path. One of the user's own wins over one that comes along.
pub fn find(spec: &str) -> Result<Source> {
    let path = Path::new(spec);
    if spec.ends_with(".toml") || path.components().count() != 1 || path.is_file() {
        return Source::of_file(path);
    }
    let own = own_dir().map(|dir| dir.join(format!("{spec}.toml"))).filter(|path| path.is_file());
    if let Some(path) = own {
        return Source::of_file(&path);
    }
    if let Some(text) = builtin::source(spec) {
        return Ok(Source { name: spec.into(), text: text.into(), path: None });
    }
    let file = path.with_extension("toml");
    if file.is_file() {
        let file = file.display();
        bail!("there is no recipe {spec}, but a file {file} is here; give that as {file}");
    }
    let names: Vec<String> = all()?.into_iter().map(|source| source.name).collect();
    let likeness = |name: &String| strsim::jaro_winkler(name, spec);
    let nearest = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|name| likeness(name) > 0.7) {
        Some(near) => bail!("there is no recipe {spec}; did you mean {near}? There are {}", names.join(", ")),
        None => bail!("there is no recipe {spec}; there are {}, or give a TOML file", names.join(", ")),
    }
}

/// The user's own recipes: names and sources.
pub fn own() -> Result<Vec<(String, String)>> {
    let own = all()?.into_iter().filter(|source| source.path.is_some());
    Ok(own.map(|source| (source.name, source.text)).collect())
}

/// All recipes: those that come along, then the user's own, by name.
fn all() -> Result<Vec<Source>> {
    let along = builtin::RECIPES.iter();
    let mut all: Vec<Source> =
        along.map(|&(name, text)| Source { name: name.into(), text: text.into(), path: None }).collect();
    let Some(entries) = own_dir().and_then(|dir| std::fs::read_dir(dir).ok()) else { return Ok(all) };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = paths.context("cannot list your own recipes")?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    for path in paths {
        let own = Source::of_file(&path)?;
        all.retain(|source| source.name != own.name);
        all.push(own);
    }
    Ok(all)
}

/// Prints all recipes.
pub fn list(as_json: bool) -> Result<()> {
    for source in all()? {
        let recipe = Recipe::parse(&source.text, &[]);
        if as_json {
            output::json(&about(&source, recipe))?;
            continue;
        }
        let what = match &recipe {
            Ok(recipe) => recipe.about.both()[0].clone(),
            Err(error) => format!("cannot be used: {error}"),
        };
        let own = if source.path.is_some() { " (yours)" } else { "" };
        say!("{:<18}{}{own}", source.name, output::printable(&what))?;
    }
    if !as_json {
        say!("\n`gpt2 write --show NAME` prints one. Your own go to {}", own_place())?;
    }
    Ok(())
}

fn own_place() -> String {
    own_dir().map_or("a file of your choice".into(), |dir| dir.join("NAME.toml").display().to_string())
}

fn about<E: ToString>(source: &Source, recipe: Result<Recipe, E>) -> Value {
    let recipe = match recipe {
        Ok(recipe) => recipe,
        Err(error) => return json!({ "name": source.name, "path": source.path, "error": error.to_string() }),
    };
    let inputs: Vec<&str> = recipe.inputs.iter().map(|input| input.name.as_str()).collect();
    let steps: Vec<&str> = recipe.steps.iter().map(|step| step.name.as_str()).collect();
    let [en, zh] = recipe.about.both();
    json!({ "name": source.name, "path": source.path, "about": { "en": en, "zh": zh }, "inputs": inputs, "steps": steps })
}
