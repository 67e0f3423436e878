//! Personas: system prompts by name, some of ours and those that users keep in their configuration.
//!
//! A persona is a TOML file with a `system` prompt, which is one text or one for each language (`en`, `zh`), and if wanted
//! a `description`. A user's persona of the name of one of ours is taken instead of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use etcetera::BaseStrategy;
use serde::Deserialize;
use tokenizer::Lang;

use crate::input;

/// Ours, by name.
const BUILT_IN: [(&str, &str); 3] = [
    ("support", include_str!("personas/support.toml")),
    ("consult", include_str!("personas/consult.toml")),
    ("companion", include_str!("personas/companion.toml")),
];

/// The language of the environment: Chinese where the locale of messages is, else English.
pub fn lang_of_locale() -> Lang {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().find_map(set).unwrap_or_default();
    if locale.to_lowercase().starts_with("zh") { Lang::Zh } else { Lang::En }
}

/// A system prompt with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persona {
    pub name: String,
    pub description: String,
    pub system: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    description: String,
    system: System,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum System {
    One(String),
    ByLang(BTreeMap<String, String>),
}

/// The persona of this name, or in this file: what ends in `.toml` or has a folder is a path.
pub fn find(spec: &str, lang: Lang) -> Result<Persona> {
    let path = Path::new(spec);
    let is_path = path.extension().is_some_and(|end| end == "toml") || path.components().count() > 1;
    if is_path {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        return read(&name, path, lang);
    }
    if let Some(file) = folder().map(|folder| folder.join(format!("{spec}.toml"))).filter(|f| f.is_file()) {
        return read(spec, &file, lang);
    }
    match BUILT_IN.iter().find(|(name, _)| *name == spec) {
        Some((name, text)) => parse(name, text, lang),
        None => {
            let known = names().join(", ");
            let place = folder().map_or_else(String::new, |folder| {
                format!(", or write {}", folder.join(format!("{spec}.toml")).display())
            });
            bail!("there is no persona `{spec}`; choose one of {known}{place}")
        }
    }
}

/// The names of all there are: ours, then those of the user.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    let entries = folder().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    let mut own: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| !names.contains(name))
        .collect();
    own.sort();
    names.extend(own);
    names
}

/// Where users keep their own, as the platform has it.
fn folder() -> Option<PathBuf> {
    Some(etcetera::base_strategy::choose_native_strategy().ok()?.config_dir().join("gpt2").join("personas"))
}

fn read(name: &str, path: &Path, lang: Lang) -> Result<Persona> {
    let text = input::read_settings(path)?;
    parse(name, &text, lang).with_context(|| format!("in {}", path.display()))
}

fn parse(name: &str, text: &str, lang: Lang) -> Result<Persona> {
    let File { description, system } = toml::from_str(text)?;
    let system = match system {
        System::One(system) => system,
        System::ByLang(mut by_lang) => {
            if let Some(other) = by_lang.keys().find(|key| !["en", "zh"].contains(&key.as_str())) {
                bail!("system.{other}: there are en and zh");
            }
            // A persona of one language is better than none.
            let found = by_lang.remove(&lang.to_string()).or_else(|| by_lang.into_values().next());
            found.context("system: give a text, or en and zh")?
        }
    };
    let system = system.trim().to_owned();
    ensure!(!system.is_empty(), "the system prompt is empty; say how to answer");
    Ok(Persona { name: name.to_owned(), description, system })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_there_in_both_languages() {
        for (name, text) in BUILT_IN {
            let [en, zh] = [Lang::En, Lang::Zh].map(|lang| parse(name, text, lang).unwrap());
            assert!(!en.description.is_empty() && en.system.is_ascii(), "{name}");
            assert!(tokenizer::is_chinese(&zh.system) && !zh.system.contains('\n'), "{name}");
        }
    }

    #[test]
    fn what_is_no_persona_says_why() {
        let one = parse("x", "system = \"Be brief.\"", Lang::Zh).unwrap();
        assert_eq!((one.system.as_str(), one.description.as_str()), ("Be brief.", ""));
        let only = parse("x", "[system]\nzh = \"简短。\"", Lang::En).unwrap();
        assert_eq!(only.system, "简短。");
        let error = |text| format!("{:#}", parse("x", text, Lang::En).unwrap_err());
        assert!(error("system = \" \"").contains("is empty"));
        assert!(error("[system]").contains("en and zh"));
        assert!(error("[system]\nfr = \"Sois bref.\"").contains("system.fr"));
        assert!(error("sistem = \"x\"").contains("sistem"));
        assert!(error("description = \"x\"").contains("system"));
    }
}
