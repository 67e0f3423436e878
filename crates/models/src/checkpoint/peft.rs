//! Adapters in the two files of PEFT (<https://huggingface.co/docs/peft>): `adapter_config.json` with the settings, and
//! `adapter_model.safetensors` with `base_model.model.transformer.h.0.attn.c_attn.lora_A.weight` (r, in), `…lora_B.weight`
//! (out, r), and tables that were trained, too, such as `base_model.model.transformer.wte.weight` (V, C).
//!
//! Beside them lies `generation_config.json`, if the adapter taught the model to end its texts otherwise; PEFT passes it over.
//!
//! A file says by its tensors which layers are adapted, and with which ranks. What changes the arithmetic and is not done
//! here (DoRA, biases, other kinds of adapters) is refused by its name.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tensor::Tensor;

use super::archive::{finite, turned};
use super::safetensors::{entries, write_tensors};
use super::{GENERATION_CONFIG, LONGEST_JSON, generation, map, read_json, write_json};
use crate::dtype::{HEAD, TABLE, is_table};
use crate::gpt2::LoadedAdapter;
use crate::layers::Adapter;
use crate::{Gpt2, Gpt2Config, LoraConfig, ModelError, Result, lora};

/// The name of the file with an adapter's settings.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The name of an adapter's weights.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// What stands before a weight's name.
const PREFIX: &str = "base_model.model.";

/// Whether this directory holds an adapter.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(ADAPTER_CONFIG).is_file()
}

/// The model that an adapter says it belongs to: a path, or a name on the hub.
pub fn base_of_adapter(dir: &Path) -> Result<Option<String>> {
    let json = read_config(dir)?;
    Ok(json.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned))
}

fn read_config(dir: &Path) -> Result<Map<String, Value>> {
    let path = dir.join(ADAPTER_CONFIG);
    if !path.is_file() {
        let reason =
            format!("it holds no adapter: `{ADAPTER_CONFIG}` is missing; give the directory of an adapter");
        return Err(ModelError::Adapter { path: dir.to_owned(), reason });
    }
    let json = serde_json::from_slice(&read_json(&path, LONGEST_JSON)?)
        .map_err(|source| ModelError::ConfigSyntax { path: path.clone(), source })?;
    match json {
        Value::Object(fields) => Ok(fields),
        _ => Err(ModelError::Adapter { path, reason: "it must be one object of settings".to_owned() }),
    }
}

/// Settings that change the arithmetic, with the values that they must have here.
fn only() -> [(&'static str, Vec<Value>, &'static str); 17] {
    let (null, no, empty) = (Value::Null, json!(false), json!({}));
    let off = || vec![null.clone(), no.clone()];
    let none = || vec![null.clone(), json!([]), empty.clone()];
    [
        ("peft_type", vec![json!("LORA")], "only LoRA runs here"),
        ("bias", vec![null.clone(), json!("none")], "trained biases are not read"),
        ("lora_bias", off(), "biases of adapters are not read"),
        ("use_dora", off(), "DoRA scales the weights, too, which is not done here"),
        ("use_qalora", off(), "QALoRA pools what goes in, which is not done here"),
        ("use_bdlora", off(), "its matrices are in blocks of their own"),
        ("alora_invocation_tokens", none(), "activated LoRA switches itself on inside a text"),
        ("arrow_config", none(), "it chooses between several adapters"),
        ("kasa_config", none(), "it changes the weights of the model"),
        ("corda_config", none(), "it changes the weights of the model"),
        ("monteclora_config", none(), "its matrices are drawn at random"),
        ("loftq_config", none(), "it changes the weights of the model"),
        ("layer_replication", none(), "it repeats layers"),
        ("trainable_token_indices", none(), "single rows of the table are not read"),
        ("target_parameters", none(), "only linear layers are adapted here"),
        ("megatron_config", none(), "it is for layers in parts"),
        (
            "init_lora_weights",
            vec![null.clone(), json!(true), no.clone(), json!("gaussian"), json!("orthogonal"), json!("eva")],
            "it changes the weights of the model; save the adapter converted to plain LoRA",
        ),
    ]
}

/// The settings, once it is known that nothing else is asked for.
struct Settings {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl Settings {
    fn read(dir: &Path) -> Result<Settings> {
        let settings = Settings { path: dir.join(ADAPTER_CONFIG), fields: read_config(dir)? };
        for (field, values, reason) in only() {
            let got = settings.get(field);
            if !values.contains(got) {
                return Err(settings.refuse(field, reason));
            }
        }
        Ok(settings)
    }

    fn get(&self, field: &str) -> &Value {
        self.fields.get(field).unwrap_or(&Value::Null)
    }

    fn refuse(&self, field: &str, reason: &str) -> ModelError {
        let reason = format!("`{field}` is {}: {reason}", self.get(field));
        ModelError::Adapter { path: self.path.clone(), reason }
    }

    fn number(&self, field: &str, default: f64) -> Result<f64> {
        match self.get(field) {
            Value::Null => Ok(default),
            value => value.as_f64().ok_or_else(|| self.refuse(field, "it must be a number")),
        }
    }

    /// A list of names; one name alone stands for itself.
    fn names(&self, field: &str) -> Result<Option<Vec<String>>> {
        let name = |value: &Value| value.as_str().map(str::to_owned);
        let names = match self.get(field) {
            Value::Null => return Ok(None),
            Value::Array(all) => all.iter().map(name).collect(),
            one => name(one).map(|one| vec![one]),
        };
        names.map(Some).ok_or_else(|| self.refuse(field, "it must be a list of names"))
    }

    /// What a pattern says of a layer, such as its own rank.
    fn pattern(&self, field: &str, layer: &str) -> Result<Option<f64>> {
        let Value::Object(patterns) = self.get(field) else { return Ok(None) };
        for (key, value) in patterns {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "._".contains(c);
            if !key.trim_start_matches('^').chars().all(is_plain) {
                return Err(self.refuse(field, "regular expressions are not read; name the layers"));
            }
            let alone =
                LoraConfig { targets: vec![key.trim_start_matches('^').to_owned()], ..Default::default() };
            if alone.is_target(layer) {
                let value = value.as_f64().ok_or_else(|| self.refuse(field, "it must give numbers"))?;
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// What a field says a rank is.
    fn rank(&self, field: &str, value: f64) -> Result<usize> {
        match value.fract() == 0.0 && (1.0..=f64::from(1 << 20)).contains(&value) {
            true => Ok(value as usize),
            false => Err(self.refuse(field, "a rank is a whole number of at least 1")),
        }
    }

    /// The settings as ours. The targets are those of a list, or the layers that have tensors.
    fn config(&self, layers: &[String]) -> Result<LoraConfig> {
        let r = self.rank("r", self.number("r", 8.0)?)?;
        let config = LoraConfig {
            r,
            alpha: self.number("lora_alpha", 8.0)? as f32,
            dropout: self.number("lora_dropout", 0.0)? as f32,
            targets: match self.get("target_modules") {
                Value::Array(_) => self.names("target_modules")?.unwrap_or_default(),
                _ => layers.to_vec(),
            },
            use_rslora: self.get("use_rslora").as_bool().unwrap_or(false),
            base: self.get("base_model_name_or_path").as_str().unwrap_or_default().to_owned(),
            embeddings: false,
        };
        let named =
            |error: ModelError| ModelError::Adapter { path: self.path.clone(), reason: error.to_string() };
        config.validate().map_err(named)?;
        Ok(config)
    }

    /// Whether every layer that the targets name must be there.
    fn is_complete(&self) -> bool {
        let is_off = |field| matches!(self.get(field), Value::Null) || self.get(field) == &json!([]);
        self.get("target_modules").is_array() && is_off("layers_to_transform") && is_off("exclude_modules")
    }
}

/// The tensors of an adapter's file, by their names without what stands before all.
struct Tensors {
    path: PathBuf,
    values: HashMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Tensors {
    fn read(dir: &Path) -> Result<Tensors> {
        let path = dir.join(ADAPTER_WEIGHTS);
        if !path.is_file() {
            let also = if dir.join("adapter_model.bin").is_file() {
                "; save it again with a PEFT that writes safetensors"
            } else {
                ""
            };
            let reason = format!("the adapter's weights, `{ADAPTER_WEIGHTS}`, are missing{also}");
            return Err(ModelError::Adapter { path: dir.to_owned(), reason });
        }
        let bytes = map(&path)?;
        let mut values = HashMap::new();
        for (name, stored) in entries(&path, &bytes)? {
            let bare = name.strip_prefix(PREFIX).unwrap_or(&name);
            let bare = bare.strip_prefix("transformer.").unwrap_or(bare).to_owned();
            let numbers = stored.plain(&name, &stored.shape)?;
            let numbers = finite(&name, numbers.into())?.into_owned();
            if values.insert(bare, (stored.shape, numbers)).is_some() {
                let reason = format!("the tensor {name} is there twice");
                return Err(ModelError::Adapter { path, reason });
            }
        }
        Ok(Tensors { path, values })
    }

    fn misfit(&self, name: &str, problem: String) -> ModelError {
        let name =
            if name == HEAD { format!("{PREFIX}{name}") } else { format!("{PREFIX}transformer.{name}") };
        ModelError::AdapterTensor { path: self.path.clone(), name, problem }
    }

    /// Takes a matrix of so many rows and columns; rows that are not said may be any number but 0.
    fn take(&mut self, name: &str, rows: Option<usize>, cols: usize) -> Result<Option<Tensor>> {
        let Some((shape, values)) = self.values.remove(name) else { return Ok(None) };
        match shape[..] {
            [r, c] if c == cols && rows.is_none_or(|rows| r == rows) && r > 0 => {
                Ok(Some(Tensor::new(&shape, values)?))
            }
            _ => {
                let rows = rows.map_or("any".to_owned(), |rows| rows.to_string());
                Err(self.misfit(name, format!("has shape {shape:?}, but this model needs [{rows}, {cols}]")))
            }
        }
    }

    /// Refuses what has no place in a model of this shape.
    fn refuse_unknown(&self, model: &Gpt2Config) -> Result<()> {
        let is_known = |name: &str| {
            let layer = [".lora_A.weight", ".lora_B.weight"].iter().find_map(|end| name.strip_suffix(end));
            let is_layer = layer.is_some_and(|layer| lora::layers(model).any(|(known, _)| known == layer));
            is_layer || is_table(name)
        };
        let Some(name) = self.values.keys().filter(|name| !is_known(name)).min() else { return Ok(()) };
        let layer = name.strip_prefix("h.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        let problem = match layer {
            Some(layer) if layer >= model.n_layer => {
                format!("is of layer {layer}, but this model has {}", model.n_layer)
            }
            _ => "is of a kind or a place that is not adapted here (linear layers of GPT-2 are, and its tables)"
                .to_owned(),
        };
        Err(self.misfit(name, problem))
    }
}

/// Reads an adapter for this model.
pub(crate) fn load_adapter(model: &Gpt2, dir: &Path) -> Result<LoadedAdapter> {
    let settings = Settings::read(dir)?;
    let mut tensors = Tensors::read(dir)?;
    let shape = model.config();
    tensors.refuse_unknown(shape)?;
    let sizes = lora::layers(shape).collect::<Vec<_>>();
    let is_there = |name: &String| tensors.values.contains_key(&format!("{name}.lora_A.weight"));
    let adapted: Vec<String> = sizes.iter().map(|(name, _)| name.clone()).filter(is_there).collect();
    let mut config = settings.config(&adapted)?;
    let mut adapters = HashMap::new();
    for (name, [inputs, outputs]) in sizes {
        let (a, b) = (format!("{name}.lora_A.weight"), format!("{name}.lora_B.weight"));
        let rank = settings.pattern("rank_pattern", &name)?;
        let rank = rank.map_or(Ok(config.r), |rank| settings.rank("rank_pattern", rank))?;
        let (Some(a_tensor), b_tensor) = (tensors.take(&a, Some(rank), inputs)?, tensors.values.remove(&b))
        else {
            if settings.is_complete() && config.is_target(&name) {
                return Err(tensors.misfit(&a, "is missing, though its layer is a target".to_owned()));
            }
            continue;
        };
        let v = match b_tensor {
            Some((b_shape, values)) if b_shape == [outputs, rank] => turned(&values, rank, outputs),
            other => {
                let got = other.map_or("is missing".to_owned(), |(shape, _)| format!("has shape {shape:?}"));
                return Err(tensors.misfit(&b, format!("{got}, but this model needs [{outputs}, {rank}]")));
            }
        };
        let alpha = settings.pattern("alpha_pattern", &name)?.map_or(config.alpha, |alpha| alpha as f32);
        LoraConfig { alpha, ..config.clone() }.validate()?;
        let (v, scale) = (Tensor::new(&[rank, outputs], v)?, config.scale(rank, alpha));
        adapters.insert(name, Adapter { a: a_tensor, v, alpha, scale, dropout: config.dropout });
    }
    if adapters.is_empty() {
        let reason = "it holds no adapter of any layer".to_owned();
        return Err(ModelError::Adapter { path: tensors.path, reason });
    }
    let saved = settings.names("modules_to_save")?.unwrap_or_default();
    let wte = tensors.take(TABLE, None, shape.n_embd)?;
    let rows = wte.as_ref().map_or(shape.vocab_size, Tensor::rows);
    let head = tensors.take(HEAD, Some(rows), shape.n_embd)?;
    config.embeddings = wte.is_some() || head.is_some();
    let head = output_layer(model, wte.as_ref(), head, &saved, &tensors)?;
    Ok(LoadedAdapter { config, adapters, wte, lm_head: head })
}

/// The output layer that goes with a table, where it is not the table. PEFT trains a copy of a module to be saved, and so
/// leaves the output layer as it was; embeddings that are saved as they are stay tied.
fn output_layer(
    model: &Gpt2,
    wte: Option<&Tensor>,
    head: Option<Tensor>,
    saved: &[String],
    tensors: &Tensors,
) -> Result<Option<Tensor>> {
    let Some(wte) = wte else { return Ok(head) };
    let is_tied = model.config().tie_word_embeddings;
    match head {
        Some(head) if is_tied && head.data() == wte.data() => Ok(None),
        Some(head) => Ok(Some(head)),
        None if is_tied && !saved.iter().any(|name| name.ends_with("wte")) => Ok(None),
        None => {
            let (rows, vocab_size) = (wte.rows(), model.config().vocab_size);
            if rows != vocab_size {
                let problem = format!(
                    "has {rows} rows, but the output layer, which stays the model's, has {vocab_size}"
                );
                return Err(tensors.misfit(TABLE, problem));
            }
            let name = if is_tied { TABLE } else { HEAD };
            let all = model.parameters();
            let (_, table) = all.iter().find(|(other, _)| other == name).expect("every model has one");
            Ok(Some(Tensor::new(table.shape(), table.decoded().into_owned())?))
        }
    }
}

/// Writes an adapter.
pub(crate) fn save_adapter(model: &Gpt2, dir: &Path, base: &str) -> Result<()> {
    let Some(config) = model.lora() else {
        let reason = "the model has no adapter that could be written".to_owned();
        return Err(ModelError::Adapter { path: dir.to_owned(), reason });
    };
    fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
    let (mut tensors, mut ranks, mut alphas, mut names) = (Vec::new(), Map::new(), Map::new(), Vec::new());
    for (name, linear) in model.linears() {
        let Some(Adapter { a, v, alpha, .. }) = &linear.adapter else { continue };
        let (rank, outputs) = (v.rows(), v.cols());
        let full = format!("{PREFIX}transformer.{name}");
        tensors.push((format!("{full}.lora_A.weight"), a.shape().to_vec(), a.data().to_vec()));
        tensors.push((format!("{full}.lora_B.weight"), vec![outputs, rank], turned(v.data(), outputs, rank)));
        if rank != config.r {
            ranks.insert(name.clone(), json!(rank));
        }
        if *alpha != config.alpha {
            alphas.insert(name.clone(), number(*alpha));
        }
        names.push(name);
    }
    let is_all =
        lora::layers(model.config()).all(|(name, _)| config.is_target(&name) == names.contains(&name));
    let targets = if is_all { &config.targets } else { &names };
    if config.embeddings {
        for (name, table) in model.parameters().into_iter().filter(|(name, _)| name == TABLE || name == HEAD)
        {
            let full =
                if name == HEAD { format!("{PREFIX}{name}") } else { format!("{PREFIX}transformer.{name}") };
            tensors.push((full, table.shape().to_vec(), table.decoded().into_owned()));
        }
    }
    // PEFT ties the output layer to the table again unless both are modules of their own.
    let is_untied = config.embeddings && !model.config().tie_word_embeddings;
    let settings = json!({
        "auto_mapping": null,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": true, // the weights lie as (in, out)
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": number(config.alpha),
        "lora_dropout": number(config.dropout),
        "modules_to_save": if is_untied { json!(["wte", "lm_head"]) } else { Value::Null },
        "peft_type": "LORA",
        "r": config.r,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "revision": null,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": config.use_rslora,
    });
    write_json(&dir.join(ADAPTER_CONFIG), &settings)?;
    write_json(&dir.join(GENERATION_CONFIG), &generation::fields(model.config()))?;
    let views = tensors.iter().map(|(name, shape, values)| (name.clone(), &shape[..], &values[..]));
    write_tensors(&dir.join(ADAPTER_WEIGHTS), views, [("format".to_owned(), "pt".to_owned())].into())
}

/// A whole number without a point, as PEFT writes `lora_alpha`; else the shortest decimal that means this `f32`.
fn number(x: f32) -> Value {
    match x.fract() == 0.0 && x.abs() < 1e9 {
        true => json!(x as i64),
        false => json!(x.to_string().parse::<f64>().expect("a printed number parses")),
    }
}
