//! `model.safetensors`: reading with every check, and writing in one go.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, View};
use tensor::Tensor;

use super::write_whole;
use crate::{Gpt2, Gpt2Config, ModelError, Result};

/// Reads the weights of a model of shape `config`.
pub(super) fn load(path: &Path, config: Gpt2Config) -> Result<Gpt2> {
    let bytes = fs::read(path).map_err(ModelError::io(path))?;
    let file = parse(path, &bytes)?;
    let named: HashMap<&str, _> = file.iter().map(|(name, view)| (bare(name), view)).collect();
    let shapes: HashMap<String, Vec<usize>> = config.shapes().into_iter().collect();
    refuse_unknown(path, &named, &shapes)?;
    Gpt2::build(config, &mut |name| {
        let missing = || ModelError::MissingTensor { name: name.to_owned(), path: path.to_owned() };
        let view = named.get(name).ok_or_else(missing)?;
        let want = &shapes[name];
        if view.shape() != want {
            let (name, got, want) = (name.to_owned(), view.shape().to_vec(), want.clone());
            return Err(ModelError::TensorShape { name, got, want });
        }
        Ok(Tensor::new(want, floats(name, view)?)?)
    })
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes)
        .map_err(|error| ModelError::Damaged { path: path.to_owned(), reason: error.to_string() })
}

/// A weight's name without the prefix that `GPT2LMHeadModel` puts before it.
fn bare(name: &str) -> &str {
    name.strip_prefix("transformer.").unwrap_or(name)
}

/// Every tensor must be a weight, or one of the constants that old checkpoints carry.
fn refuse_unknown(
    path: &Path,
    named: &HashMap<&str, safetensors::tensor::TensorView>,
    shapes: &HashMap<String, Vec<usize>>,
) -> Result<()> {
    for (&name, view) in named {
        let mask = name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
        let tied =
            name == "lm_head.weight" && named.get("wte.weight").is_some_and(|wte| wte.data() == view.data());
        if shapes.contains_key(name) || mask || tied {
            continue;
        }
        let advice = match name {
            "lm_head.weight" => "its output layer differs from its embeddings, which this version cannot run",
            _ => "take config.json and model.safetensors from the same model",
        };
        return Err(ModelError::UnknownTensor { name: name.to_owned(), path: path.to_owned(), advice });
    }
    Ok(())
}

fn floats(name: &str, view: &safetensors::tensor::TensorView) -> Result<Vec<f32>> {
    if view.dtype() != Dtype::F32 {
        return Err(ModelError::TensorType { name: name.to_owned(), got: format!("{:?}", view.dtype()) });
    }
    let (values, _) = view.data().as_chunks::<4>();
    Ok(values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

/// Reads all `f32` tensors of a safetensors file, and its metadata.
#[allow(clippy::type_complexity)]
pub fn read_tensors(
    path: &Path,
) -> Result<(HashMap<String, (Vec<usize>, Vec<f32>)>, HashMap<String, String>)> {
    let bytes = fs::read(path).map_err(ModelError::io(path))?;
    let file = parse(path, &bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| ModelError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    let tensors = file
        .iter()
        .map(|(name, view)| Ok((name.to_owned(), (view.shape().to_vec(), floats(name, &view)?))))
        .collect::<Result<_>>()?;
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

/// Writes `f32` tensors and metadata as one file, whole or not at all.
pub fn write_tensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (String, &'a [usize], &'a [f32])>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let views = tensors.map(|(name, shape, values)| (name, F32View { shape, values }));
    let views: Vec<_> = views.collect();
    write_whole(path, |file| {
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(std::io::Error::other)?;
        std::io::Write::write_all(file, &bytes)
    })
}

struct F32View<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for F32View<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(bytemuck::cast_slice(self.values))
    }
    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}
