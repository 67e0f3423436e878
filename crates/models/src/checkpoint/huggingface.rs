//! A plain Hugging Face directory, for others to read: row-major numbers, whatever form the model has them in.
//!
//! Beside `config.json` and `generation_config.json`, it gets a model card; weights above a size go into several files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::safetensors::{Entry, write_entries};
use super::shards::{INDEX, Index};
use super::{CONFIG, GENERATION_CONFIG, WEIGHTS, generation, refuse_adapter, write_json, write_whole};
use crate::{Dtype, Gpt2, ModelError, Result};

/// How [`save_hf`] writes.
#[derive(Clone, Debug, PartialEq)]
pub struct HfOptions {
    /// The type of all numbers: `f32`, `f16` or `bf16`.
    pub dtype: Dtype,
    /// Bytes of tensors in one file at most; one tensor alone may be more.
    pub shard_bytes: u64,
    /// What the model card is called.
    pub name: String,
    /// What the model was made from, in sentences, for the model card.
    pub origin: Option<String>,
}

impl HfOptions {
    /// The model's own type where others can read it, and `f32`, which loses nothing, where it is in blocks; files of at
    /// most 5 GB.
    pub fn of(model: &Gpt2, name: &str) -> HfOptions {
        let dtype = if model.dtype().is_blocks() { Dtype::F32 } else { model.dtype() };
        HfOptions { dtype, shard_bytes: 5_000_000_000, name: name.to_owned(), origin: None }
    }
}

/// Writes the model so that transformers, and whoever reads its format, can load it. One tensor at a time is in memory
/// besides the model. A model card that is there already stays.
pub fn save_hf(model: &Gpt2, dir: &Path, options: &HfOptions) -> Result<()> {
    refuse_adapter(model, "a model directory")?;
    let torch_dtype = match options.dtype {
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        Dtype::Bf16 => "bfloat16",
        dtype => return Err(ModelError::PlainType { dtype }),
    };
    fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
    let mut config = model.config().to_json();
    config["torch_dtype"] = json!(torch_dtype);
    write_json(&dir.join(CONFIG), &config)?;
    write_json(&dir.join(GENERATION_CONFIG), &generation::fields(model.config()))?;
    write_weights(model, dir, options)?;
    let card = dir.join("README.md");
    if !card.exists() {
        write_whole(&card, |file| std::io::Write::write_all(file, model_card(model, options).as_bytes()))?;
    }
    Ok(())
}

fn write_weights(model: &Gpt2, dir: &Path, options: &HfOptions) -> Result<()> {
    let parameters = model.parameters();
    let mut shards: Vec<Vec<Entry>> = vec![Vec::new()];
    let (mut filled, mut total) = (0, 0);
    for (name, tensor) in &parameters {
        let entry = Entry::plain(name, tensor, options.dtype);
        let bytes = entry.len() as u64;
        if filled > 0 && filled + bytes > options.shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        (filled, total) = (filled + bytes, total + bytes);
        shards.last_mut().expect("there is one").push(entry);
    }
    let of = shards.len();
    let is_one = of == 1;
    let mut index = Index { metadata: json!({ "total_size": total }), weight_map: BTreeMap::new() };
    for (i, entries) in shards.into_iter().enumerate() {
        let file =
            if is_one { WEIGHTS.to_owned() } else { format!("model-{:05}-of-{of:05}.safetensors", i + 1) };
        index.weight_map.extend(entries.iter().map(|entry| (entry.name().to_owned(), file.clone())));
        write_entries(&dir.join(file), entries, [("format".to_owned(), "pt".to_owned())].into())?;
    }
    // What would be read instead must not stay from another time.
    if is_one {
        return remove(&dir.join(INDEX));
    }
    remove(&dir.join(WEIGHTS))?;
    index.write(dir)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ModelError::io(path)(error)),
        _ => Ok(()),
    }
}

/// What the model is, as far as it is known, and how to run it.
fn model_card(model: &Gpt2, options: &HfOptions) -> String {
    let (config, name) = (model.config(), &options.name);
    let json = config.to_json();
    let switches = ["activation_function", "scale_attn_weights", "scale_attn_by_inverse_layer_idx"];
    let mut rows = vec![
        ("parameters", config.n_params().to_string()),
        ("layers", config.n_layer.to_string()),
        ("heads", config.n_head.to_string()),
        ("width", config.n_embd.to_string()),
        ("feed-forward width", config.n_inner.to_string()),
        ("context", format!("{} tokens", config.n_ctx)),
        ("vocabulary", format!("{} tokens", config.vocab_size)),
    ];
    rows.extend(switches.map(|switch| (switch, json[switch].to_string().replace('"', ""))));
    rows.push((
        "output layer",
        if config.tie_word_embeddings { "the embedding table" } else { "its own" }.into(),
    ));
    rows.push(("type of the weights", options.dtype.to_string()));
    let table: String = rows.iter().map(|(what, is)| format!("| {what} | {is} |\n")).collect();
    let origin = options.origin.as_deref().unwrap_or("Nothing is recorded of its training data.");
    format!(
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- gpt2\n---\n\n# {name}\n\n\
         A language model of the GPT-2 architecture.\n\n| | |\n|---|---|\n{table}\n## How it was made\n\n\
         {origin} These files were written by `gpt2`, from weights of type {from}.\n\n## How to use it\n\n\
         ```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
         model = AutoModelForCausalLM.from_pretrained(\".\")\ntokenizer = AutoTokenizer.from_pretrained(\".\")\n\
         ids = tokenizer(\"Once\", return_tensors=\"pt\")\n\
         print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))\n```\n\n\
         or, without Python:\n\n```sh\ngpt2 generate -m . -p Once\n```\n\n\
         It continues text. What it writes may be false or offensive; nothing here has measured how often.\n",
        from = model.dtype(),
    )
}
