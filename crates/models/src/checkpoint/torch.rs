//! Files of PyTorch (`pytorch_model.bin`, `.pt`, `.pth`): what `torch.save` wrote, read without executing any of it.
//!
//! Start at [`read`]. `container` takes the file apart, [`super::pickle`] reads the object in it, `state_dict` finds the
//! weights among what people save beside them, and `write` writes a file of our own.

mod container;
mod state_dict;
mod write;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use tensor::Bytes;

use self::container::{read_pickle, refused};
use super::archive::{Archive, Kind, Stored};
use super::pickle::{Global, Pickle, Scalar, Value};
use super::shards::Index;
use super::{CONFIG, load_config, map, parse_config};
use crate::{Gpt2Config, ModelError, Result};

pub(super) use self::container::is_torch;
pub(super) use self::write::write;

/// Dimensions of a tensor; GPT-2's have at most four.
const MOST_DIMS: usize = 8;

/// The weights of files of PyTorch.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub archive: Archive,
    /// What the checkpoint says of itself, or `config.json` in it or beside it, or else its tensors' shapes.
    pub config: Gpt2Config,
    /// What `config` does not have from the file.
    pub assumed: Assumed,
    /// All of the files' bytes.
    pub files: Vec<Bytes>,
}

/// What a file does not say, so that it is taken from custom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Assumed {
    /// The number of heads: each has 64 columns, as in all GPT-2s that were published.
    pub heads: bool,
    /// Settings come from the file itself and not from `config.json`: it is of nanoGPT.
    pub is_nano_gpt: bool,
}

impl Checkpoint {
    /// What the file does not say, in sentences for people.
    pub fn assumptions(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.assumed.heads {
            let n_head = self.config.n_head;
            notes.push(format!(
                "the file does not say the number of heads: {n_head} are taken, of 64 columns each"
            ));
        }
        if self.assumed.is_nano_gpt {
            notes.push(
                "the file is of nanoGPT: its activation is taken to be \"gelu\", the exact one".to_owned(),
            );
        }
        notes
    }
}

/// An object that was saved, and the storages that its tensors lie in.
#[derive(Debug)]
struct Saved {
    pickle: Pickle,
    storages: HashMap<String, Bytes>,
    is_big_endian: bool,
    /// The model's shape, in files of ours.
    config: Option<Bytes>,
}

/// Reads one file.
pub(super) fn read(path: &Path) -> Result<Checkpoint> {
    read_files(path, &[path.to_owned()])
}

/// Reads the files that `pytorch_model.bin.index.json` lists, which must hold what it says.
pub(super) fn read_sharded(index: &Path) -> Result<Checkpoint> {
    let listed = Index::read(index)?;
    let files: Vec<PathBuf> = listed.shards(index)?.into_iter().map(|shard| shard.path).collect();
    let checkpoint = read_files(index, &files)?;
    let is_there = |name: &&String| checkpoint.archive.tensors.contains_key(state_dict::bare(name));
    match listed.weight_map.keys().find(|name| !is_there(name)) {
        None => Ok(checkpoint),
        Some(name) => Err(ModelError::missing(name, index)),
    }
}

fn read_files(path: &Path, files: &[PathBuf]) -> Result<Checkpoint> {
    let mut weights = state_dict::Weights::default();
    let (mut mapped, mut inside) = (Vec::new(), None);
    for file in files {
        let bytes = map(file)?;
        let saved = container::open(file, &bytes)?;
        weights.add(file, &saved, bytes.len())?;
        inside = inside.or(saved.config);
        mapped.push(bytes);
    }
    let folder = path.parent().filter(|folder| weights.has_no_args() && folder.join(CONFIG).is_file());
    let (config, assumed) = match (inside, folder) {
        (Some(inside), _) => (parse_config(path, &inside)?, Assumed::default()),
        (None, Some(folder)) => (load_config(folder)?, Assumed::default()),
        (None, None) => weights.config(path)?,
    };
    let archive = Archive { path: path.to_owned(), tensors: weights.finish(&config) };
    Ok(Checkpoint { archive, config, assumed, files: mapped })
}

/// The characters of a character-level nanoGPT with their ids, in the order of the ids: its `meta.pkl`.
pub(super) fn read_meta(path: &Path) -> Result<Vec<(String, u32)>> {
    let bytes = map(path)?;
    let pickle = read_pickle(path, &bytes)?;
    let entries = pickle.find(pickle.root, "stoi").and_then(|stoi| pickle.dict(stoi));
    let entries = entries.ok_or_else(|| refused(path, "it has no dictionary `stoi` of characters"))?;
    let token = |&(text, id): &(Value, Value)| {
        Some((pickle.text(text)?.to_owned(), u32::try_from(pickle.int(id)?).ok()?))
    };
    let tokens: Option<Vec<(String, u32)>> = entries.iter().map(token).collect();
    let mut tokens =
        tokens.ok_or_else(|| refused(path, "its `stoi` maps something else than texts to ids"))?;
    tokens.sort_by_key(|token| token.1);
    let texts: HashSet<&str> = tokens.iter().map(|token| &*token.0).collect();
    let are_counted = tokens.iter().enumerate().all(|(i, token)| token.1 as usize == i);
    if texts.len() != tokens.len() || !are_counted || tokens.is_empty() {
        return Err(refused(path, "its `stoi` does not number different characters from 0 on"));
    }
    Ok(tokens)
}

/// A tensor as it is described: a view of a storage.
struct View<'a> {
    storage: &'a Bytes,
    scalar: Scalar,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

impl Saved {
    /// The tensor that a value describes, if it describes one. What must be copied is taken from `budget`.
    fn tensor(&self, value: Value, budget: &Cell<usize>) -> Option<std::result::Result<Stored, String>> {
        let tensor = match self.pickle.call(value)? {
            (Global::Parameter, [tensor, ..]) => *tensor,
            _ => value,
        };
        match self.pickle.call(tensor)? {
            (Global::Tensor, [storage, offset, shape, stride, ..]) => {
                let view = self.view(*storage, *offset, *shape, *stride);
                Some(view.and_then(|view| view.stored(self.is_big_endian, budget)))
            }
            _ => None,
        }
    }

    fn view(
        &self,
        storage: Value,
        offset: Value,
        shape: Value,
        stride: Value,
    ) -> std::result::Result<View<'_>, String> {
        let pickle = &self.pickle;
        let (scalar, key, count) = match (storage, pickle.items(storage)) {
            (
                Value::Persistent(_),
                Some(&[kind, Value::Global(Global::Storage(scalar)), key, _, count, ref rest @ ..]),
            ) if pickle.text(kind) == Some("storage") && matches!(rest, [] | [Value::None]) => {
                (scalar, key, count)
            }
            _ => return Err("lies in no storage of a known kind".into()),
        };
        let key = pickle.text(key).ok_or("lies in a storage without a name")?;
        let storage =
            self.storages.get(key).ok_or_else(|| format!("lies in storage {key}, which is not there"))?;
        let said =
            pickle.int(count).and_then(|count| usize::try_from(count).ok()?.checked_mul(scalar.size()));
        if said.is_none_or(|said| said > storage.len()) {
            return Err(format!("lies in storage {key}, which is shorter than it says"));
        }
        let sizes = |value: Value| -> Option<Vec<usize>> {
            let value = match pickle.call(value) {
                Some((Global::Size, [sizes])) => *sizes,
                _ => value,
            };
            let items = pickle.items(value).filter(|items| items.len() <= MOST_DIMS)?;
            items.iter().map(|&size| usize::try_from(pickle.int(size)?).ok()).collect()
        };
        let offset = pickle.int(offset).and_then(|offset| usize::try_from(offset).ok());
        match (offset, sizes(shape), sizes(stride)) {
            (Some(offset), Some(shape), Some(stride)) if shape.len() == stride.len() => {
                Ok(View { storage, scalar, offset, shape, stride })
            }
            _ => Err("has a shape, strides or an offset that cannot be".into()),
        }
    }
}

impl View<'_> {
    /// The tensor row by row: where it lies, or copied where it lies otherwise or is of a type to convert.
    fn stored(self, is_big_endian: bool, budget: &Cell<usize>) -> std::result::Result<Stored, String> {
        let size = self.scalar.size();
        let len = self.len().ok_or("does not lie within its storage")?;
        let (kind, out_size) = match self.scalar {
            Scalar::F32 => (Kind::F32, 4),
            Scalar::F64 => (Kind::F32, 4), // rounded, since nothing computes in it
            Scalar::F16 => (Kind::F16, 2),
            Scalar::Bf16 => (Kind::Bf16, 2),
            other => (Kind::Other(format!("{other:?}")), size),
        };
        let is_swapped = is_big_endian && size > 1;
        let bytes = if self.is_contiguous() && !is_swapped && self.scalar != Scalar::F64 {
            self.storage.part(self.offset * size..(self.offset + len) * size)
        } else {
            let bytes = len.checked_mul(out_size).filter(|&bytes| bytes <= budget.get());
            let bytes = bytes.ok_or("would take more memory than the file has bytes")?;
            budget.set(budget.get() - bytes);
            Bytes::of_memory(bytes, |out| self.copy(out, out_size, is_swapped))
        };
        Ok(Stored { kind, shape: self.shape, bytes, is_turned: false })
    }

    /// The number of elements, if all lie in the storage.
    fn len(&self) -> Option<usize> {
        let len = self.shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size))?;
        let mut last = self.offset;
        for (&size, &stride) in self.shape.iter().zip(&self.stride).filter(|_| len > 0) {
            last = last.checked_add((size - 1).checked_mul(stride)?)?;
        }
        let end = last.checked_add(usize::from(len > 0))?;
        (end <= self.storage.len() / self.scalar.size()).then_some(len)
    }

    fn is_contiguous(&self) -> bool {
        let mut want = 1;
        let dims = self.shape.iter().zip(&self.stride).rev();
        self.shape.contains(&0)
            || dims.filter(|dim| *dim.0 != 1).all(|(&size, &stride)| {
                let is_next = stride == want;
                want *= size;
                is_next
            })
    }

    /// Copies the elements, one after the other, counting through the indices from the last dimension on.
    fn copy(&self, out: &mut [u8], out_size: usize, is_swapped: bool) {
        let size = self.scalar.size();
        let (mut index, mut at) = (vec![0; self.shape.len()], self.offset);
        for out in out.chunks_exact_mut(out_size) {
            let mut element = [0; 8];
            let element = &mut element[..size];
            element.copy_from_slice(&self.storage[at * size..][..size]);
            if is_swapped {
                element.reverse();
            }
            match self.scalar {
                Scalar::F64 => {
                    let wide = f64::from_le_bytes((&*element).try_into().expect("eight bytes"));
                    out.copy_from_slice(&(wide as f32).to_le_bytes());
                }
                _ => out.copy_from_slice(element),
            }
            for dim in (0..index.len()).rev() {
                index[dim] += 1;
                at += self.stride[dim];
                if index[dim] < self.shape[dim] {
                    break;
                }
                at -= index[dim] * self.stride[dim];
                index[dim] = 0;
            }
        }
    }
}
