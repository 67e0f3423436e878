//! Which models are served, under which names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use models::{Dtype, Gpt2};
use serve::Served;
use tokenizer::Tokenizer;

use crate::input;
use crate::model::Located;
use crate::output::printable;

/// Models and adapters, found.
#[derive(Debug)]
pub struct Plan {
    models: Vec<(String, Located)>,
    adapters: Vec<(String, PathBuf)>,
    dtype: Option<Dtype>,
}

impl Plan {
    /// What `-m` and `--adapter` name; what is not here is downloaded.
    pub fn of(models: &[String], adapters: &[String], dtype: Option<Dtype>, offline: bool) -> Result<Plan> {
        let mut plan = Plan { models: Vec::new(), adapters: Vec::new(), dtype };
        for spec in models {
            let (name, path) = split(spec);
            let name = name.map_or_else(|| name_of(path), str::to_owned);
            plan.check(&name, spec)?;
            plan.models.push((name, Located::of(Path::new(path), None, offline)?));
        }
        for spec in adapters {
            ensure!(
                plan.models.len() == 1,
                "--adapter {spec}: there are several models; give the adapter's directory as one, -m {spec}, and it says \
                 which it belongs to"
            );
            let Some((name, dir)) = spec.split_once('=') else {
                bail!("--adapter {spec}: give it a name, as in --adapter polite={spec}");
            };
            let dir = PathBuf::from(dir);
            ensure!(dir.is_dir(), "--adapter {spec}: there is no directory {}", dir.display());
            plan.check(name, spec)?;
            plan.adapters.push((name.to_owned(), dir));
        }
        Ok(plan)
    }

    fn check(&self, name: &str, spec: &str) -> Result<()> {
        let known =
            self.models.iter().map(|(name, _)| name).chain(self.adapters.iter().map(|(name, _)| name));
        let is_new = known.into_iter().all(|known| known != name);
        ensure!(!name.is_empty(), "{spec}: the name is empty");
        ensure!(is_new, "two models are called {name}; give one of them another name, as in -m other={spec}");
        Ok(())
    }

    /// Opens them all.
    pub fn open(&self) -> Result<Vec<Served>> {
        let mut all = Vec::new();
        for (name, located) in &self.models {
            let (model, tokenizer) = located.open(self.dtype)?;
            // What an adapter has of its own lies beside weights that all share.
            let base = (!self.adapters.is_empty()).then(|| model.clone());
            all.push(served(name, model, tokenizer)?);
            for ((adapter, dir), base) in self.adapters.iter().zip(base.iter().cycle()) {
                let (model, tokenizer) = self.beside(located, base, dir)?;
                all.push(served(adapter, model, tokenizer)?.beside(name));
            }
        }
        Ok(all)
    }

    fn beside(&self, located: &Located, base: &Gpt2, dir: &Path) -> Result<(Gpt2, Tokenizer)> {
        let located = Located { path: located.path.clone(), adapter: Some(dir.to_owned()) };
        if base.lora().is_some() || base.dtype().is_blocks() {
            return located.open(self.dtype); // an adapter is put beside weights before these are rounded
        }
        let mut model = base.clone();
        model.load_adapter(dir).with_context(|| format!("cannot load the adapter {}", dir.display()))?;
        let tokenizer = located
            .tokenizer(&model)
            .with_context(|| format!("cannot load a tokenizer for the adapter {}", dir.display()))?;
        input::ensure_fits(&tokenizer, model.config().vocab_size, dir)?;
        Ok((model, tokenizer))
    }
}

fn served(name: &str, model: Gpt2, tokenizer: Tokenizer) -> Result<Served> {
    Served::new(name, model, tokenizer)
        .with_context(|| format!("cannot use the chat template of {}", printable(name)))
}

/// A name, where one is given, and the model: `NAME=MODEL`, unless there is a file of that whole name.
fn split(spec: &str) -> (Option<&str>, &str) {
    match spec.split_once('=') {
        Some((name, model)) if !name.contains(['/', '\\']) && !Path::new(spec).exists() => {
            (Some(name), model)
        }
        _ => (None, spec),
    }
}

/// What a model is called where nothing is said: its directory or file, or its name on the hub.
fn name_of(spec: &str) -> String {
    let path = Path::new(spec);
    if spec.starts_with("hf:") || !path.exists() {
        return spec.trim_start_matches("hf:").to_owned();
    }
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = if whole.is_file() { whole.file_stem() } else { whole.file_name() };
    name.map_or_else(|| spec.to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models() {
        assert_eq!(split("small=out/small"), (Some("small"), "out/small"));
        assert_eq!(split("out/small"), (None, "out/small"));
        assert_eq!(split("out/a=b"), (None, "out/a=b"));
        assert_eq!(split("=m"), (Some(""), "m"));
        assert_eq!(name_of("hf:org/name"), "org/name");
        assert_eq!(name_of("gpt2-large"), "gpt2-large");
        assert_eq!(name_of("."), env!("CARGO_PKG_NAME"));
    }
}
