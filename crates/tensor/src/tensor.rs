//! The tensor: a shape, shared values, and where its gradient goes.

use std::borrow::Cow;
use std::sync::Arc;

use thiserror::Error;

use kernels::bf16::Values;
use kernels::gemm::{Operand, Weight};

use crate::memory::Buffer;
use crate::storage::{Precision, Storage};
use crate::tape::{Tape, Target};
use crate::weights::Weights;

/// A dense array in row-major order, of `f32` unless an operation made it bfloat16. Cloning shares the values.
#[derive(Clone, Debug)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Arc<Storage>,
    origin: Origin,
}

/// How a tensor came to be, which says where its gradient belongs.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// Needs no gradient.
    Constant,
    /// A weight: its gradient is this slot of [`crate::Grads`].
    Parameter(usize),
    /// The result of a recorded operation.
    Node(Tape, usize),
    /// Needs no gradient, but was made while this tape recorded: what is made from it may.
    Beside(Tape),
}

/// What an operation refuses.
#[derive(Debug, Error)]
pub enum TensorError {
    /// Two shapes that do not fit together.
    #[error("{op}: got shape {got:?}, but {want} is needed")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The shape found.
        got: Vec<usize>,
        /// The shape needed, in words.
        want: String,
    },
    /// Weights that are damaged.
    #[error("{0}")]
    Weights(String),
    /// An id that the table has no row for.
    #[error("token id {id} at position {position} is out of range: the vocabulary has {rows} tokens (ids 0 to {})", .rows.saturating_sub(1))]
    IdOutOfRange {
        /// The id.
        id: u32,
        /// Its index in the input.
        position: usize,
        /// Rows of the table.
        rows: usize,
    },
}

impl Tensor {
    /// A constant of this shape. The number of values must be the shape's product.
    pub fn new(shape: &[usize], values: Vec<f32>) -> crate::Result<Tensor> {
        if shape.iter().product::<usize>() != values.len() {
            let want = format!("a shape of {} values", values.len());
            return Err(TensorError::Shape { op: "Tensor::new", got: shape.to_vec(), want });
        }
        Ok(Tensor::from_buffer(shape, Buffer::from(values)))
    }

    /// A constant matrix in a form for running only.
    pub fn from_weights(rows: usize, cols: usize, weights: Weights) -> crate::Result<Tensor> {
        if weights.len() != rows * cols {
            let want = format!("a shape of {} values", weights.len());
            return Err(TensorError::Shape { op: "Tensor::from_weights", got: vec![rows, cols], want });
        }
        Ok(Tensor::from_buffer(&[rows, cols], weights))
    }

    /// The values, in whatever type.
    pub fn storage(&self) -> &Storage {
        &self.data
    }

    /// The form that the values are kept in, where it is one for running only.
    pub fn weights(&self) -> Option<&Weights> {
        match &*self.data {
            Storage::Weights(weights) => Some(weights),
            _ => None,
        }
    }

    /// The values as `f32`, whatever form they are kept in.
    pub fn decoded(&self) -> Cow<'_, [f32]> {
        match &*self.data {
            Storage::Weights(weights) => weights.decode(),
            Storage::F32(values) => Cow::Borrowed(values),
            storage => Cow::Owned(storage.clone().into_f32().to_vec()),
        }
    }

    /// A constant of some of the rows, in the order named: (rows, C).
    pub fn select_rows(&self, rows: &[usize]) -> crate::Result<Tensor> {
        let c = self.cols();
        if let Some(row) = rows.iter().find(|&&row| row >= self.rows()) {
            let want = format!("at least {} rows", row + 1);
            return Err(TensorError::Shape { op: "select_rows", got: self.shape.clone(), want });
        }
        let storage: Storage = match self.data.values() {
            Values::F32(values) => {
                let rows = rows.iter().flat_map(|row| &values[row * c..(row + 1) * c]);
                Buffer::from(rows.copied().collect::<Vec<f32>>()).into()
            }
            Values::Bf16(values) => {
                let rows = rows.iter().flat_map(|row| &values[row * c..(row + 1) * c]);
                Storage::Bf16(Buffer::from(rows.copied().collect::<Vec<_>>()))
            }
        };
        Ok(Tensor::from_buffer(&[rows.len(), c], storage))
    }

    /// A constant of zeros.
    pub fn zeros(shape: &[usize]) -> Tensor {
        Tensor::from_buffer(shape, Buffer::<f32>::zeroed(shape.iter().product()))
    }

    pub(crate) fn from_buffer(shape: &[usize], values: impl Into<Storage>) -> Tensor {
        let values = values.into();
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Tensor { shape: shape.to_vec(), data: Arc::new(values), origin: Origin::Constant }
    }

    /// The same values as a trainable weight, whose gradient is slot `slot` of [`crate::Grads`].
    pub fn parameter(mut self, slot: usize) -> Tensor {
        self.origin = Origin::Parameter(slot);
        self
    }

    /// The same values, whatever they were made from: nothing that uses them is recorded for their sake.
    pub fn constant(self) -> Tensor {
        self.with_origin(Origin::Constant)
    }

    /// The same values, which need no gradient, for operations with parameters that this tape shall record.
    pub(crate) fn beside(self, tape: &Tape) -> Tensor {
        self.with_origin(Origin::Beside(tape.clone()))
    }

    /// The tape this tensor was recorded on, or lies beside.
    pub fn tape(&self) -> Option<&Tape> {
        match &self.origin {
            Origin::Node(tape, _) | Origin::Beside(tape) => Some(tape),
            Origin::Constant | Origin::Parameter(_) => None,
        }
    }

    pub(crate) fn with_origin(mut self, origin: Origin) -> Tensor {
        self.origin = origin;
        self
    }

    /// The length of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The values in row-major order.
    ///
    /// # Panics
    /// If they are bfloat16, as what is computed in that precision, or weights in another form than `f32`.
    pub fn data(&self) -> &[f32] {
        self.data.f32()
    }

    /// The values, to change in place; copies them first if they are shared.
    ///
    /// # Panics
    /// As [`Tensor::data`].
    pub fn data_mut(&mut self) -> &mut [f32] {
        Arc::make_mut(&mut self.data).f32_mut()
    }

    /// The type of the values.
    pub fn precision(&self) -> Precision {
        self.data.precision()
    }

    /// The values as a matrix of rows.
    pub(crate) fn matrix(&self) -> Operand<'_> {
        self.data.matrix(self.rows(), self.cols())
    }

    /// The right factor of a product with this weight, or with its transposed one.
    pub(crate) fn factor(&self, turned: bool) -> Weight<'_> {
        self.data.factor(self.rows(), self.cols(), turned)
    }

    /// Length of the last dimension: the width of a row.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The number of rows, all leading dimensions together.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    pub(crate) fn shared(&self) -> Arc<Storage> {
        self.data.clone()
    }

    pub(crate) fn target(&self) -> Target {
        match self.origin {
            Origin::Constant | Origin::Beside(_) => Target::Nowhere,
            Origin::Parameter(slot) => Target::Parameter(slot),
            Origin::Node(_, index) => Target::Node(index),
        }
    }

    /// An error unless the shape is `want`.
    pub(crate) fn expect(&self, op: &'static str, want: &[usize]) -> crate::Result<()> {
        if self.shape != want {
            return Err(TensorError::Shape { op, got: self.shape.clone(), want: format!("{want:?}") });
        }
        Ok(())
    }
}
