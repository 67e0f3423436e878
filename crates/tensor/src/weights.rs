//! A weight matrix in a form for running only: as a file holds it, computed from where it lies.

use std::borrow::Cow;

use kernels::bf16::f16;
use kernels::blocks::{BlockFormat, BlockMatrix};
use kernels::gemm::{Mat, Operand, PairPanels, Weight};
use kernels::mapped::Bytes;

use crate::TensorError;

/// The form of a weight matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `f32`, row-major.
    F32,
    /// Half precision, row-major.
    F16,
    /// bfloat16 in panels of 32 columns and pairs of K: see [`PairPanels`].
    Bf16,
    /// Blocks of few bits: see [`kernels::blocks`].
    Blocks(BlockFormat),
}

/// A matrix (rows, cols). Those in panels and blocks are kept for products whose K is one of the two: the rows, for a
/// linear layer, or the columns, if `turned`, for an output layer.
#[derive(Clone, Debug)]
pub struct Weights {
    form: Form,
    rows: usize,
    cols: usize,
    turned: bool,
    bytes: Bytes,
}

impl Form {
    /// Bytes that a matrix takes; `None` if that is more than memory can be.
    pub fn bytes_for(self, k: usize, n: usize) -> Option<usize> {
        match self {
            Form::F32 => k.checked_mul(n)?.checked_mul(4),
            Form::F16 => k.checked_mul(n)?.checked_mul(2),
            Form::Bf16 => {
                k.checked_next_multiple_of(2)?.checked_mul(n.checked_next_multiple_of(32)?)?.checked_mul(2)
            }
            Form::Blocks(format) => {
                let blocks = k.div_ceil(32).checked_mul(n.div_ceil(32))?;
                blocks.checked_mul(format.block_bytes())
            }
        }
    }
}

impl Weights {
    /// A matrix whose bytes are there already. They must be as many as the form takes, and start where its numbers may.
    pub fn new(form: Form, rows: usize, cols: usize, turned: bool, bytes: Bytes) -> crate::Result<Weights> {
        let (k, n) = if turned { (cols, rows) } else { (rows, cols) };
        let aligned = match form {
            Form::F32 | Form::Bf16 => bytes.numbers::<u32>().is_some(),
            Form::F16 => bytes.numbers::<u16>().is_some(),
            Form::Blocks(_) => true,
        };
        if form.bytes_for(k, n) != Some(bytes.len()) || !aligned {
            let want = format!("{:?} bytes for a {rows} × {cols} matrix in {form:?}", form.bytes_for(k, n));
            return Err(TensorError::Shape { op: "Weights", got: vec![bytes.len()], want });
        }
        if let Form::Blocks(format) = form {
            let blocks = BlockMatrix::new(format, k, n, &bytes).and_then(|blocks| blocks.check());
            blocks.map_err(|error| TensorError::Weights(error.to_string()))?;
        }
        Ok(Weights { form, rows, cols, turned, bytes })
    }

    /// Brings `f32` values into a form. `importance` of each step of K is how much an error there matters.
    pub fn encode(
        form: Form,
        values: &[f32],
        (rows, cols): (usize, usize),
        turned: bool,
        importance: Option<&[f32]>,
    ) -> crate::Result<Weights> {
        let matrix = Mat::new(values, rows, cols);
        let product = if turned { matrix.t() } else { matrix };
        let len = form.bytes_for(product.rows, product.cols).unwrap_or(0);
        let bytes = Bytes::of_memory(len, |bytes| match form {
            Form::F32 => bytes.copy_from_slice(bytemuck::cast_slice(values)),
            Form::F16 => {
                let out: &mut [u16] = bytemuck::cast_slice_mut(bytes);
                out.iter_mut().zip(values).for_each(|(out, &x)| *out = f16::from_f32(x).to_bits());
            }
            Form::Bf16 => PairPanels::pack(bytemuck::cast_slice_mut(bytes), product.into()),
            Form::Blocks(format) => {
                bytes.copy_from_slice(&kernels::blocks::quantise(format, product, importance));
            }
        });
        Weights::new(form, rows, cols, turned, bytes)
    }

    /// The form.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The bytes, as a file holds them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values, where they are `f32`.
    pub(crate) fn f32(&self) -> Option<&[f32]> {
        (self.form == Form::F32).then(|| self.numbers())
    }

    fn numbers<T: bytemuck::AnyBitPattern>(&self) -> &[T] {
        self.bytes.numbers().expect("checked when it was made")
    }

    /// The right factor of `x w`, or of `x wᵀ` if `turned`.
    pub(crate) fn factor(&self, turned: bool) -> Weight<'_> {
        let (rows, cols) = (self.rows, self.cols);
        let (k, n) = if self.turned { (cols, rows) } else { (rows, cols) };
        match self.form {
            Form::F32 => Weight::Dense(match turned {
                true => Mat::new(self.numbers::<f32>(), rows, cols).t().into(),
                false => Mat::new(self.numbers::<f32>(), rows, cols).into(),
            }),
            Form::F16 => {
                let matrix: Operand<'_> = Mat::new(self.halves(), rows, cols).into();
                Weight::Dense(if turned { matrix.t() } else { matrix })
            }
            Form::Bf16 => {
                assert_eq!(turned, self.turned, "weights are kept for one kind of product");
                PairPanels::new(self.numbers(), k, n).into()
            }
            Form::Blocks(format) => {
                assert_eq!(turned, self.turned, "weights are kept for one kind of product");
                self.blocks(format, k, n).into()
            }
        }
    }

    fn halves(&self) -> &[f16] {
        use half::slice::HalfBitsSliceExt;
        self.numbers::<u16>().reinterpret_cast()
    }

    fn blocks(&self, format: BlockFormat, k: usize, n: usize) -> BlockMatrix<'_> {
        BlockMatrix::new(format, k, n, &self.bytes).expect("checked when it was made")
    }

    /// A row's values.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not as long.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        use half::slice::HalfFloatSliceExt;
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {}", self.rows);
        let place = row * self.cols..(row + 1) * self.cols;
        match self.form {
            Form::F32 => out.copy_from_slice(&self.numbers::<f32>()[place]),
            Form::F16 => self.halves()[place].convert_to_f32_slice(out),
            Form::Bf16 if self.turned => {
                PairPanels::new(self.numbers(), self.cols, self.rows).column(row, out);
            }
            Form::Blocks(format) if self.turned => {
                self.blocks(format, self.cols, self.rows).dequantise_column(row, out);
            }
            Form::Bf16 | Form::Blocks(_) => unreachable!("rows are looked up in turned matrices"),
        }
    }

    /// All values, row by row.
    pub fn decode(&self) -> Cow<'_, [f32]> {
        let (rows, cols) = (self.rows, self.cols);
        if let Some(values) = self.f32() {
            return Cow::Borrowed(values);
        }
        let mut out = vec![0.0; rows * cols];
        if self.turned || self.form == Form::F16 {
            out.chunks_exact_mut(cols.max(1)).enumerate().for_each(|(row, out)| self.row(row, out));
            return Cow::Owned(out);
        }
        let mut column = vec![0.0; rows];
        for j in 0..cols {
            match self.form {
                Form::Blocks(format) => self.blocks(format, rows, cols).dequantise_column(j, &mut column),
                _ => PairPanels::new(self.numbers(), rows, cols).column(j, &mut column),
            }
            column.iter().enumerate().for_each(|(i, &x)| out[i * cols + j] = x);
        }
        Cow::Owned(out)
    }
}
