//! The types that a model's weights are kept in.

use serde::{Deserialize, Serialize};
use tensor::blocks::BlockFormat;
use tensor::weights::Form;

/// The type of a model's matrices. Norms, biases and positions are `f32` in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32 bits, as published.
    #[default]
    F32,
    /// Half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Blocks of 8 bits.
    Q8,
    /// Blocks of 4 bits; the embedding table, which is also the output layer, has 6, as has an output layer of its own.
    Q4,
}

/// The embedding table's name.
pub(crate) const TABLE: &str = "wte.weight";
/// The name of an output layer that is not the embedding table.
pub(crate) const HEAD: &str = "lm_head.weight";

/// Whether this matrix is (V, C): products with it read it turned, as an output layer.
pub(crate) fn is_table(name: &str) -> bool {
    name == TABLE || name == HEAD
}

impl Dtype {
    /// All, the widest first.
    pub const ALL: [Dtype; 5] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Q8, Dtype::Q4];

    /// The name, as flags and files give it.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::Q8 => "q8",
            Dtype::Q4 => "q4",
        }
    }

    /// The type of this name.
    pub fn from_name(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The form of a matrix, by its name.
    pub fn form(self, name: &str) -> Form {
        match self {
            Dtype::F32 => Form::F32,
            Dtype::F16 => Form::F16,
            Dtype::Bf16 => Form::Bf16,
            Dtype::Q8 => Form::Blocks(BlockFormat::Q8),
            Dtype::Q4 if is_table(name) => Form::Blocks(BlockFormat::Q6),
            Dtype::Q4 => Form::Blocks(BlockFormat::Q4),
        }
    }

    /// From this size on a number becomes infinite.
    pub(crate) fn overflow(self) -> f32 {
        match self {
            Dtype::F16 => 65520.0,
            // Half a step beyond the largest.
            Dtype::Bf16 => f32::from_bits(0x7f7f_8000),
            Dtype::F32 | Dtype::Q8 | Dtype::Q4 => f32::INFINITY,
        }
    }

    /// Whether linear layers are in blocks.
    pub fn is_blocks(self) -> bool {
        matches!(self, Dtype::Q8 | Dtype::Q4)
    }

    /// The type whose linear layers have this form.
    pub(crate) fn of(form: Form) -> Dtype {
        match form {
            Form::F32 => Dtype::F32,
            Form::F16 => Dtype::F16,
            Form::Bf16 => Dtype::Bf16,
            Form::Blocks(BlockFormat::Q8) => Dtype::Q8,
            Form::Blocks(_) => Dtype::Q4,
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether this weight is a matrix that products read.
pub(crate) fn is_matrix(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2 && name != "wpe.weight"
}
