//! A `.pt` file as `torch.save(model.state_dict(), …)` writes it, for `torch.load(…, weights_only=True)`.
//!
//! Names and layout are those of transformers' `GPT2LMHeadModel`; `lm_head.weight` shares the embeddings' storage.
//! Storages start at multiples of 64 bytes, as PyTorch maps them.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use rawzip::extra_fields::ExtraFieldId;
use rawzip::{CompressionMethod, Header, ZipArchiveWriter};
use tensor::weights::Form;
use tensor::{Tensor, bf16};

use super::super::safetensors::full;
use super::super::{CONFIG, write_whole};
use crate::dtype::{HEAD, TABLE};
use crate::{Gpt2, ModelError, Result};

const ALIGNMENT: u64 = 64;
/// Bytes of a local header before its name, and of an extra field before its data.
const HEADER: u64 = 30;
const FIELD: u64 = 4;
/// The extra field with which PyTorch pads: "FB".
const PADDING: ExtraFieldId = ExtraFieldId::new(0x4246);

/// Writes the model's weights, each in the type that it has; weights in blocks have no type in PyTorch.
pub(in super::super) fn write(model: &Gpt2, path: &Path) -> Result<()> {
    if model.dtype().is_blocks() {
        let name = "h.0.attn.c_attn.weight".to_owned();
        return Err(ModelError::TensorType { name, got: model.dtype().name().to_owned() });
    }
    let tensors = model.parameters();
    let (pickle, config) = (pickle(&tensors), model.config().to_json().to_string());
    write_whole(path, |file| {
        let mut zip = ZipArchiveWriter::new(io::BufWriter::new(file));
        add(&mut zip, "data.pkl", &pickle)?;
        add(&mut zip, "byteorder", b"little")?;
        // PyTorch passes over it; without it, nobody could tell the number of heads.
        add(&mut zip, CONFIG, config.as_bytes())?;
        for (key, (_, tensor)) in tensors.iter().enumerate() {
            add(&mut zip, &format!("data/{key}"), &plain_bytes(tensor))?;
        }
        add(&mut zip, "version", b"3\n")?;
        zip.finish().map_err(io::Error::other)?.flush()
    })
}

/// Adds a file, uncompressed, that starts at a multiple of [`ALIGNMENT`].
fn add<W: Write>(zip: &mut ZipArchiveWriter<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let name = format!("archive/{name}");
    let start = zip.stream_offset() + HEADER + name.len() as u64 + FIELD;
    let padding = vec![b'Z'; (start.next_multiple_of(ALIGNMENT) - start) as usize];
    let file = zip.new_file(&*name).compression_method(CompressionMethod::STORE);
    let file = file.extra_field(PADDING, &padding, Header::LOCAL).map_err(io::Error::other)?;
    let (mut entry, config) = file.start().map_err(io::Error::other)?;
    let mut data = config.wrap(&mut entry);
    data.write_all(bytes)?;
    let (_, descriptor) = data.finish().map_err(io::Error::other)?;
    entry.finish(descriptor).map_err(io::Error::other)?;
    Ok(())
}

/// The class of a tensor's storage.
fn storage(tensor: &Tensor) -> &'static str {
    match tensor.weights().map(|weights| weights.form()) {
        Some(Form::F16) => "HalfStorage",
        Some(Form::Bf16) => "BFloat16Storage",
        _ => "FloatStorage",
    }
}

/// The numbers of a tensor, row by row.
fn plain_bytes(tensor: &Tensor) -> Cow<'_, [u8]> {
    match tensor.weights().map(|weights| (weights, weights.form())) {
        None => bytemuck::cast_slice(tensor.data()).into(),
        Some((weights, Form::Bf16)) => {
            let rounded = |&x: &f32| bf16::from_f32(x).to_bits().to_le_bytes();
            weights.decode().iter().flat_map(rounded).collect::<Vec<u8>>().into()
        }
        Some((weights, _)) => weights.bytes().into(),
    }
}

/// The state dict, whose tensors lie in the storages 0, 1, …
fn pickle(tensors: &[(String, &Tensor)]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend([0x80, 2]); // PROTO
    out.extend(b"ccollections\nOrderedDict\n)R(");
    for (key, (name, tensor)) in tensors.iter().enumerate() {
        add_tensor(&mut out, &full(name), key, tensor);
    }
    let tied = tensors.iter().position(|(name, _)| name == TABLE);
    if let Some(key) = tied.filter(|_| tensors.iter().all(|(name, _)| name != HEAD)) {
        add_tensor(&mut out, HEAD, key, tensors[key].1);
    }
    out.extend(b"u."); // SETITEMS, STOP
    out
}

/// `name: _rebuild_tensor_v2(storage, 0, shape, stride, False, OrderedDict())`.
fn add_tensor(out: &mut Vec<u8>, name: &str, key: usize, tensor: &Tensor) {
    add_text(out, name);
    out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    add_text(out, "storage");
    out.extend(format!("ctorch\n{}\n", storage(tensor)).as_bytes());
    add_text(out, &key.to_string());
    add_text(out, "cpu");
    add_int(out, tensor.len());
    out.extend(b"tQ"); // TUPLE, BINPERSID
    add_int(out, 0);
    let shape = tensor.shape();
    out.push(b'(');
    shape.iter().for_each(|&size| add_int(out, size));
    out.extend(b"t(");
    (0..shape.len()).for_each(|dim| add_int(out, shape[dim + 1..].iter().product()));
    out.push(b't');
    out.extend([0x89]); // NEWFALSE
    out.extend(b"ccollections\nOrderedDict\n)RtR");
}

fn add_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X'); // BINUNICODE
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn add_int(out: &mut Vec<u8>, int: usize) {
    out.extend([0x8a, 8]); // LONG1, signed: no tensor has 2^63 elements
    out.extend((int as u64).to_le_bytes());
}
