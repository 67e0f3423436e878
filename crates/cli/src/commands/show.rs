//! `gpt2 show`: what a model is, from its files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use generate::end_tokens;
use models::checkpoint::{self, Format, Found};
use models::{Gpt2, Gpt2Config, LoraConfig};
use serde_json::{Value, json};
use train::config::plain_cost;

use crate::input::{grouped, size};
use crate::model::Located;
use crate::output::{printable, say, token_names};

/// Show what a model is: shape, size, memory, tokenizer, where it comes from, chat template
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  gpt2 show -m out/model\n  gpt2 show -m model.gguf --json")]
pub struct Args {
    /// Model: a directory, a file, or a name on the hub
    #[arg(short, long, value_name = "MODEL")]
    model: PathBuf,
    /// Low-rank adapter that goes with it: a directory with adapter_config.json
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    let located = Located::of(&args.model, args.adapter.as_deref(), offline)?;
    let found = checkpoint::find(&located.path)?;
    let model = located.open_alone(None)?;
    let finite = model.check_finite().map_err(|error| error.to_string());
    let shown = Shown::of(&located, &found, &model)?;
    if args.json {
        let mut json = shown.json(model.config());
        json["weights_error"] = json!(finite.err());
        return super::print_json(&json);
    }
    shown.print(model.config())?;
    if let Err(error) = finite {
        say!("warning        {}", printable(&error))?;
    }
    Ok(())
}

/// What is shown beside the config.
struct Shown {
    path: PathBuf,
    format: Format,
    file_bytes: u64,
    dtype: String,
    parameters: usize,
    memory: Memory,
    tokenizer: Result<Vocabulary, String>,
    /// The tokens that end what the model writes.
    end_tokens: Vec<u32>,
    assumptions: Vec<String>,
    provenance: Vec<(String, String)>,
    /// Where it lies, and how it was made.
    adapter: Option<(PathBuf, LoraConfig)>,
}

/// Bytes that a model takes.
struct Memory {
    weights: u64,
    kv_cache: u64,
    training: u64,
}

/// A tokenizer in short.
struct Vocabulary {
    kind: String,
    tokens: usize,
    /// The token that stands between texts, and its id.
    end: (String, u32),
    /// The tokens that end what the model writes, for people.
    ends: String,
    chat_template: Option<String>,
}

impl Shown {
    fn of(located: &Located, found: &Found, model: &Gpt2) -> Result<Shown> {
        let (path, config) = (located.path.as_path(), model.config());
        // Keys and values of a whole context; f32 where weights are.
        let wide = if model.dtype() == models::Dtype::F32 { 4 } else { 2 };
        let tokenizer = located.tokenizer(model).map_err(|error| format!("{error:#}"));
        let end_tokens = match &tokenizer {
            Ok(tokenizer) => end_tokens(config, tokenizer),
            Err(_) => config.end_tokens().to_vec(),
        };
        let end = |tokenizer: &tokenizer::Tokenizer| {
            let bytes = tokenizer.token_bytes(tokenizer.eot()).unwrap_or_default();
            (String::from_utf8_lossy(bytes).into_owned(), tokenizer.eot())
        };
        Ok(Shown {
            path: found.path.clone(),
            format: found.format,
            file_bytes: file_bytes(found)?,
            dtype: model.dtype().to_string(),
            parameters: config.n_params(),
            memory: Memory {
                weights: model.weight_bytes() as u64,
                kv_cache: 2 * wide * (config.n_layer * config.n_ctx * config.n_embd) as u64,
                training: plain_cost(config).bytes as u64,
            },
            tokenizer: tokenizer.map(|tokenizer| Vocabulary {
                kind: tokenizer.kind().to_owned(),
                tokens: tokenizer.vocab_size(),
                end: end(&tokenizer),
                ends: token_names(&end_tokens, Some(&tokenizer)),
                chat_template: tokenizer.chat_template().map(str::to_owned),
            }),
            end_tokens,
            assumptions: checkpoint::assumptions(path)?,
            provenance: provenance(path, found)?,
            adapter: located.adapter.clone().zip(model.lora().cloned()),
        })
    }

    fn json(&self, config: &Gpt2Config) -> Value {
        let tokenizer = match &self.tokenizer {
            Ok(tokenizer) => {
                json!({
                    "kind": tokenizer.kind, "tokens": tokenizer.tokens,
                    "end": tokenizer.end.0, "end_id": tokenizer.end.1,
                })
            }
            Err(error) => json!({ "error": error }),
        };
        let template = self.tokenizer.as_ref().ok().and_then(|tokenizer| tokenizer.chat_template.clone());
        json!({
            "path": self.path.display().to_string(),
            "format": self.format.name(),
            "file_bytes": self.file_bytes,
            "dtype": self.dtype,
            "parameters": self.parameters,
            "config": config.to_json(),
            "memory": {
                "weights_bytes": self.memory.weights,
                "kv_cache_bytes": self.memory.kv_cache,
                "run_bytes": self.memory.weights + self.memory.kv_cache,
                "train_bytes": self.memory.training,
            },
            "tokenizer": tokenizer,
            "chat_template": template,
            "end_tokens": self.end_tokens,
            "assumptions": self.assumptions,
            "adapter": self.adapter.as_ref().map(|(path, lora)| {
                let mut json = json!(lora);
                (json["path"], json["parameters"]) = (json!(path.display().to_string()), json!(lora.n_params(config)));
                json
            }),
            "provenance": self.provenance.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        })
    }

    fn print(&self, config: &Gpt2Config) -> Result<()> {
        let Gpt2Config { n_layer, n_head, n_embd, n_inner, n_ctx, vocab_size, .. } = config;
        let path = self.path.display().to_string();
        say!("model          {} ({}, {})", printable(&path), self.format.name(), size(self.file_bytes))?;
        say!("architecture   GPT-2: {n_layer} layers, {n_head} heads, {n_embd} wide (inner {n_inner})")?;
        say!("context        {n_ctx} tokens, vocabulary of {}", grouped(*vocab_size as u64))?;
        let usual = Gpt2Config::new(*n_layer, *n_head, *n_embd, *n_ctx, *vocab_size).to_json();
        let json = config.to_json();
        let switches = ["activation_function", "layer_norm_epsilon", "scale_attn_weights"].into_iter();
        let switches = switches.chain([
            "scale_attn_by_inverse_layer_idx",
            "reorder_and_upcast_attn",
            "tie_word_embeddings",
        ]);
        for name in switches.filter(|name| json[*name] != usual[*name]) {
            say!("               {name}: {}", json[name])?;
        }
        say!("parameters     {}, {}", grouped(self.parameters as u64), self.dtype)?;
        if let Some((path, lora)) = &self.adapter {
            let path = path.display().to_string();
            let (values, targets) = (grouped(lora.n_params(config) as u64), lora.targets.join(", "));
            let tables = if lora.embeddings { "; with its own embeddings" } else { "" };
            say!(
                "adapter        {}: rank {}, alpha {}, beside {} ({values} values{tables})",
                printable(&path),
                lora.r,
                lora.alpha,
                printable(&targets)
            )?;
        }
        let Memory { weights, kv_cache, training } = self.memory;
        say!(
            "to run         {} ({} of weights, {} of keys and values of a whole context)",
            size(weights + kv_cache),
            size(weights),
            size(kv_cache)
        )?;
        say!("to train       about {} (AdamW, f32, one sequence of {n_ctx})", size(training))?;
        match &self.tokenizer {
            Ok(Vocabulary { kind, tokens, ends, chat_template, .. }) => {
                say!("tokenizer      {kind}, {} tokens, texts end with {ends}", grouped(*tokens as u64))?;
                match chat_template {
                    Some(template) => {
                        let template = printable(template).replace('\n', "\n               ");
                        say!("chat template  {template}")?;
                    }
                    None => say!("chat template  none")?,
                }
            }
            Err(error) => say!("tokenizer      none: {}", printable(error))?,
        }
        self.assumptions.iter().try_for_each(|assumed| say!("assumed        {assumed}"))?;
        self.provenance.iter().try_for_each(|(key, value)| {
            say!("{:<15}{}", printable(&format!("{} ", key.trim_start_matches("general."))), printable(value))
        })
    }
}

/// Bytes of the weights' files: all parts that an index names, and the index.
fn file_bytes(found: &Found) -> Result<u64> {
    let len = |path: &PathBuf| Ok(fs::metadata(path).with_context(|| path.display().to_string())?.len());
    checkpoint::files(found)?.iter().map(len).sum()
}

/// What the files say of where they come from.
fn provenance(path: &Path, found: &Found) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    // The hub's cache: models--ORG--NAME/snapshots/COMMIT.
    let parts: Vec<String> =
        path.components().map(|part| part.as_os_str().to_string_lossy().into()).collect();
    if let [.., repo, snapshots, commit] = &parts[..]
        && snapshots == "snapshots"
        && let Some(name) = repo.strip_prefix("models--")
    {
        all.push(("from the hub".to_owned(), format!("{} at {commit}", name.replace("--", "/"))));
    }
    if found.format == Format::Gguf {
        let said = checkpoint::read_metadata(&found.path)?;
        all.extend(said.into_iter().filter(|(key, _)| key.starts_with("general.")));
    }
    Ok(all)
}
