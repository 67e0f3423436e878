//! The values of a tensor: in one of the two types that are computed with, or weights in a form for running.

use kernels::bf16::{self, Values, ValuesMut, bf16 as Bf16};
use kernels::gemm::{Operand, Weight};
use serde::{Deserialize, Serialize};

use crate::memory::Buffer;
use crate::weights::{Form, Weights};

/// What is said of weights whose values are asked for.
const FOR_RUNNING: &str = "these weights are in a form for running only";

/// The type that products are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// bfloat16 factors with sums in `f32`; weights, norms, softmax, residual sums and reductions stay `f32`.
    Bf16,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}

impl Precision {
    /// What trains fastest here: bfloat16 where the CPU multiplies it.
    pub fn fastest() -> Precision {
        if kernels::isa::current() >= kernels::isa::Isa::Avx512Bf16 {
            Precision::Bf16
        } else {
            Precision::F32
        }
    }
}

/// Values, or weights.
#[derive(Clone, Debug)]
pub enum Storage {
    /// 32 bits each.
    F32(Buffer),
    /// 16 bits each.
    Bf16(Buffer<Bf16>),
    /// A weight matrix in a form for running only.
    Weights(Weights),
}

impl From<Weights> for Storage {
    fn from(weights: Weights) -> Storage {
        Storage::Weights(weights)
    }
}

impl From<Buffer> for Storage {
    fn from(values: Buffer) -> Storage {
        Storage::F32(values)
    }
}

impl Storage {
    /// Arbitrary values that the caller will overwrite, every one.
    pub(crate) fn scratch(precision: Precision, len: usize) -> Storage {
        match precision {
            Precision::F32 => Storage::F32(Buffer::scratch(len)),
            Precision::Bf16 => Storage::Bf16(Buffer::scratch(len)),
        }
    }

    /// The type of the values.
    pub fn precision(&self) -> Precision {
        match self {
            Storage::F32(_) => Precision::F32,
            Storage::Bf16(_) => Precision::Bf16,
            Storage::Weights(weights) if weights.form() == Form::F32 => Precision::F32,
            Storage::Weights(_) => Precision::Bf16,
        }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        match self {
            Storage::F32(values) => values.len(),
            Storage::Bf16(values) => values.len(),
            Storage::Weights(weights) => weights.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values.
    ///
    /// # Panics
    /// If they are weights in another form than `f32`.
    pub fn values(&self) -> Values<'_> {
        match self {
            Storage::F32(values) => Values::F32(values),
            Storage::Bf16(values) => Values::Bf16(values),
            Storage::Weights(weights) => Values::F32(weights.f32().expect(FOR_RUNNING)),
        }
    }

    /// The right factor of a product with these (rows, cols) values, or with the transposed ones.
    pub(crate) fn factor(&self, rows: usize, cols: usize, turned: bool) -> Weight<'_> {
        match self {
            Storage::Weights(weights) => weights.factor(turned),
            _ if turned => self.matrix(rows, cols).t().into(),
            _ => self.matrix(rows, cols).into(),
        }
    }

    pub(crate) fn values_mut(&mut self) -> ValuesMut<'_> {
        match self {
            Storage::F32(values) => ValuesMut::F32(values),
            Storage::Bf16(values) => ValuesMut::Bf16(values),
            Storage::Weights(_) => panic!("{FOR_RUNNING}"),
        }
    }

    /// The values as a row-major matrix.
    pub(crate) fn matrix(&self, rows: usize, cols: usize) -> Operand<'_> {
        Operand::new(self.values(), rows, cols)
    }

    /// The values, where they are known to be `f32`.
    ///
    /// # Panics
    /// If they are not.
    pub fn f32(&self) -> &[f32] {
        match self {
            Storage::F32(values) => values,
            Storage::Bf16(_) => panic!("these values are bfloat16"),
            Storage::Weights(weights) => weights.f32().expect(FOR_RUNNING),
        }
    }

    /// [`Storage::f32`], to change.
    ///
    /// # Panics
    /// If they are not `f32`.
    pub fn f32_mut(&mut self) -> &mut [f32] {
        match self {
            Storage::F32(values) => values,
            Storage::Bf16(_) => panic!("these values are bfloat16"),
            Storage::Weights(_) => panic!("{FOR_RUNNING}"),
        }
    }

    /// The values as `f32`, widened where they are not.
    pub(crate) fn into_f32(self) -> Buffer {
        match self {
            Storage::F32(values) => values,
            Storage::Bf16(values) => {
                let mut wide = Buffer::scratch(values.len());
                bf16::to_f32(&mut wide, &values);
                wide
            }
            Storage::Weights(weights) => weights.decode().into_owned().into(),
        }
    }

    /// The values in a type, rounded where need be.
    pub(crate) fn into_precision(self, precision: Precision) -> Storage {
        match (self, precision) {
            (Storage::F32(values), Precision::Bf16) => {
                let mut narrow = Buffer::scratch(values.len());
                bf16::to_bf16(&mut narrow, &values);
                Storage::Bf16(narrow)
            }
            (storage @ Storage::Bf16(_), Precision::F32) => Storage::F32(storage.into_f32()),
            (storage, _) => storage,
        }
    }
}
