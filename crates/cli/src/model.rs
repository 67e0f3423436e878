//! Which model a command runs: `-m MODEL`, `--adapter DIR` and `--dtype TYPE`, the same for all commands.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use models::{Dtype, Gpt2, checkpoint};
use tokenizer::{Tokenizer, TokenizerError};

use crate::input;
use crate::output::note;

/// The flags.
#[derive(clap::Args, Clone, Debug)]
pub struct ModelArgs {
    /// Model: a directory, a file, or a name on the hub such as gpt2 or ORG/NAME; or the directory of an adapter
    #[arg(short, long, value_name = "MODEL")]
    pub model: PathBuf,
    /// Low-rank adapter to run the model with: a directory with adapter_config.json and adapter_model.safetensors
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Type of the weights to run with: f32, f16, bf16, q8 or q4 [default: as stored]
    #[arg(long, value_name = "TYPE", value_parser = input::dtype)]
    pub dtype: Option<Dtype>,
}

/// The model, as it was typed.
impl fmt::Display for ModelArgs {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.model.display().fmt(f)?;
        self.adapter.iter().try_for_each(|adapter| write!(f, " with the adapter {}", adapter.display()))
    }
}

impl ModelArgs {
    /// Finds the model, which may have to be downloaded.
    pub fn locate(&self, offline: bool) -> Result<Located> {
        Located::of(&self.model, self.adapter.as_deref(), offline)
    }

    /// Finds and opens the model, with the adapter and in the type that were asked for, and its tokenizer.
    pub fn open(&self, offline: bool) -> Result<(Gpt2, Tokenizer)> {
        self.locate(offline)?.open(self.dtype)
    }
}

/// Where a model lies.
#[derive(Clone, Debug)]
pub struct Located {
    /// The model: a directory or a file.
    pub path: PathBuf,
    /// The directory of the adapter that goes with it.
    pub adapter: Option<PathBuf>,
}

impl Located {
    /// Finds a model and an adapter. An adapter given in the place of the model names the model that it belongs to.
    pub fn of(model: &Path, adapter: Option<&Path>, offline: bool) -> Result<Located> {
        if let Some(dir) = adapter {
            ensure!(dir.is_dir(), "--adapter {}: there is no such directory", dir.display());
            return Ok(Located { path: input::model_path(model, offline)?, adapter: Some(dir.to_owned()) });
        }
        let is_model = || checkpoint::find(model).is_ok() || model.join(checkpoint::CONFIG).is_file();
        if !checkpoint::is_adapter(model) || is_model() {
            return Ok(Located { path: input::model_path(model, offline)?, adapter: None });
        }
        let shown = model.display();
        let base = checkpoint::base_of_adapter(model)?.filter(|base| !base.is_empty());
        let Some(base) = base else {
            bail!(
                "{shown} is an adapter that does not say of which model; give that one: -m MODEL --adapter {shown}"
            );
        };
        // A path is seen from where the command runs, or else from beside the adapter.
        let beside = model.parent().unwrap_or(Path::new("")).join(&base);
        let spec = if !Path::new(&base).exists() && beside.exists() { beside } else { PathBuf::from(&base) };
        note!("[{shown} is an adapter of {}]", spec.display());
        let path = input::model_path(&spec, offline).with_context(|| {
            format!("{shown} is an adapter of {base}; if that lies elsewhere, say -m MODEL --adapter {shown}")
        })?;
        Ok(Located { path, adapter: Some(model.to_owned()) })
    }

    /// Opens the model, with weights of this type or as they are stored, and its tokenizer: that beside the adapter, if there
    /// is one.
    pub fn open(&self, dtype: Option<Dtype>) -> Result<(Gpt2, Tokenizer)> {
        let Some(adapter) = &self.adapter else { return input::open_model(&self.path, dtype) };
        let model = self.open_alone(dtype)?;
        let tokenizer = self.tokenizer(&model).with_context(|| {
            format!("cannot load a tokenizer from {} or {}", adapter.display(), self.path.display())
        })?;
        input::ensure_fits(&tokenizer, model.config().vocab_size, adapter)?;
        Ok((model, tokenizer))
    }

    /// [`Located::open`] without a tokenizer.
    pub fn open_alone(&self, dtype: Option<Dtype>) -> Result<Gpt2> {
        let path = self.path.display();
        match &self.adapter {
            None => Gpt2::open(&self.path, dtype).with_context(|| format!("cannot load a model from {path}")),
            Some(adapter) => Gpt2::open_with_adapter(&self.path, dtype, adapter)
                .with_context(|| format!("cannot load {path} with the adapter {}", adapter.display())),
        }
    }

    /// The tokenizer that goes with an opened model.
    pub fn tokenizer(&self, model: &Gpt2) -> Result<Tokenizer> {
        match self.adapter.as_deref().map(Tokenizer::load) {
            Some(Ok(tokenizer)) => Ok(tokenizer),
            None | Some(Err(TokenizerError::NotFound { .. })) => {
                input::tokenizer_of(&self.path, model.config().vocab_size)
            }
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Where there is an adapter, puts what it brought along in place of what lies in `to` of its model: the tokens that end
    /// texts, and the files of its tokenizer. Whether it has one.
    pub fn copy_own_files(&self, model: &Gpt2, to: &Path) -> Result<bool> {
        let Some(adapter) = &self.adapter else { return Ok(false) };
        checkpoint::write_end_tokens(model.config(), to)?;
        if !tokenizer::DEFINING_FILES.iter().any(|name| adapter.join(name).is_file()) {
            return Ok(false);
        }
        for name in tokenizer::FILES {
            let (file, target) = (adapter.join(name), to.join(name));
            if file.is_file() {
                fs::copy(&file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
            } else if target.is_file() {
                fs::remove_file(&target).with_context(|| format!("cannot remove {}", target.display()))?;
            }
        }
        Ok(true)
    }
}
