//! Output layer and cross-entropy in one: `loss = Σ_i weights[i] · (-ln softmax(x_i wteᵀ)[targets_i])`.
//!
//! x: (rows, C); wte: (V, C); targets, weights: (rows). Where x is bfloat16, logits and their gradients are, too, with
//! losses and sums in `f32`. The logits of a block of rows at a time are computed,
//! turned into their gradient `weights · (p - onehot)` in place, and multiplied into `dx` and `dwte` while they
//! are still in the cache. So no (rows × V) matrix is ever stored, and none is computed twice. Rows of weight 0, such as
//! the prompts of examples, have no logits at all.

use kernels::bf16::bf16;
use kernels::gemm::{Mat, Operand, Output, multiply};
use kernels::{linear, rows};

use super::tape_of;
use crate::memory::Buffer;
use crate::storage::{Precision, Storage};
use crate::tape::Target;
use crate::{Result, Tape, Tensor, TensorError};

/// Bytes of a block of logits: many rows, so that the table and its gradient pass through memory few times.
const BLOCK_BYTES: usize = 104 << 20;

/// The summed loss of a batch, and the way back from it.
#[derive(Debug)]
pub struct LmLoss {
    /// `Σ weights · (-ln p)`, in nats.
    pub value: f64,
    /// `Σ weights`: what to divide by for a mean.
    pub weight: f64,
    taped: Option<(Tape, Tensor)>,
}

impl LmLoss {
    /// Walks back and returns the gradients of `value`; `None` where nothing was recorded.
    pub fn backward(self) -> Option<crate::Grads> {
        let (tape, out) = self.taped?;
        Some(tape.backward(&out, vec![1.0]))
    }
}

/// Checks what both passes need and returns (rows, C, V).
fn check(x: &Tensor, wte: &Tensor, targets: &[u32]) -> Result<(usize, usize, usize)> {
    let (rows, c, v) = (x.rows(), x.cols(), wte.rows());
    wte.expect("lm_loss weight", &[v, c])?;
    if targets.len() != rows {
        let want = format!("{rows} targets");
        return Err(TensorError::Shape { op: "lm_loss", got: vec![targets.len()], want });
    }
    match targets.iter().position(|&id| id as usize >= v) {
        Some(position) => Err(TensorError::IdOutOfRange { id: targets[position], position, rows: v }),
        None => Ok((rows, c, v)),
    }
}

/// Rows of a block, so that `rows` make blocks of about one size.
fn block_rows(rows: usize, v: usize, value_bytes: usize) -> usize {
    let most = (BLOCK_BYTES / value_bytes / v.max(1)).clamp(16, 1024);
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

/// The weighted sum of cross-entropies. Where `x` was recorded, the gradients are taken in the same pass.
pub fn lm_loss(x: &Tensor, wte: &Tensor, targets: &[u32], weights: &[f32]) -> Result<LmLoss> {
    let (rows, c, _) = check(x, wte, targets)?;
    if weights.len() != rows {
        let want = format!("{rows} weights");
        return Err(TensorError::Shape { op: "lm_loss", got: vec![weights.len()], want });
    }
    let tape = tape_of(&[x]);
    let counted: Vec<usize> = (0..rows).filter(|&i| weights[i] != 0.0).collect();
    let (value, dx) = if counted.len() == rows {
        weighted_sum(x, wte, targets, weights, tape)
    } else {
        let targets: Vec<u32> = counted.iter().map(|&i| targets[i]).collect();
        let weights: Vec<f32> = counted.iter().map(|&i| weights[i]).collect();
        let (value, dx) = weighted_sum(&x.select_rows(&counted)?, wte, &targets, &weights, tape);
        (value, dx.map(|dx| scatter(&dx, &counted, rows, c)))
    };
    let weight = weights.iter().map(|&w| f64::from(w)).sum();
    let taped = tape.zip(dx).map(|(tape, dx)| {
        let target = x.target();
        let dx = Storage::F32(dx).into_precision(x.precision());
        let out = Tensor::from_buffer(&[1], Buffer::from(vec![value as f32]));
        (tape.clone(), tape.record(out, move |_one, back| back.add(target, dx)))
    });
    Ok(LmLoss { value, weight, taped })
}

/// Rows of width `c`, put where they belong among others of zeros.
fn scatter(values: &[f32], at: &[usize], rows: usize, c: usize) -> Buffer {
    let mut all = Buffer::zeroed(rows * c);
    for (row, &i) in values.chunks_exact(c).zip(at) {
        all[i * c..(i + 1) * c].copy_from_slice(row);
    }
    all
}

/// The weighted sum and, on a tape, its gradient by `x`; that by `wte` goes straight to the parameter.
fn weighted_sum(
    x: &Tensor,
    wte: &Tensor,
    targets: &[u32],
    weights: &[f32],
    tape: Option<&Tape>,
) -> (f64, Option<Buffer>) {
    let (rows, c, v) = (targets.len(), wte.cols(), wte.rows());
    let mut dx = tape.map(|_| Buffer::scratch(rows * c));
    let mut losses = vec![0.0; rows];
    let size = if x.precision() == Precision::F32 { size_of::<f32>() } else { size_of::<bf16>() };
    let step = block_rows(rows, v, size);
    let mut logits = Logits::new(x.precision(), step.min(rows), v);
    let table = Mat::new(wte.data(), v, c);
    let stored = x.shared();
    for start in (0..rows).step_by(step) {
        let end = (start + step).min(rows);
        let block = Operand::new(stored.values().part(start * c..end * c), end - start, c);
        logits.compute(block, table);
        let dlogits = logits.loss(&mut losses[start..end], &targets[start..end], &weights[start..end]);
        let (Some(tape), Some(dx)) = (tape, &mut dx) else { continue };
        multiply(dlogits, Operand::from(table), Output::Set(&mut dx[start * c..end * c]));
        add_dwte(tape, wte, dlogits, block);
    }
    (losses.iter().zip(weights).map(|(&loss, &weight)| f64::from(loss) * f64::from(weight)).sum(), dx)
}

/// The logits of a block of rows, then their gradient.
struct Logits {
    values: Storage,
    v: usize,
    /// Values of a row, rounded up so that bfloat16 rows start at whole cache lines.
    stride: usize,
}

impl Logits {
    fn new(precision: Precision, rows: usize, v: usize) -> Logits {
        let stride = if precision == Precision::F32 { v } else { v.next_multiple_of(32) };
        Logits { values: Storage::scratch(precision, rows * stride), v, stride }
    }

    fn compute(&mut self, x: Operand, table: Mat) {
        let len = x.rows() * self.stride;
        match &mut self.values {
            Storage::F32(values) => multiply(x, Operand::from(table.t()), Output::Set(&mut values[..len])),
            Storage::Bf16(values) => {
                linear::linear_strided(&mut values[..len], self.stride, x, table.t().into())
            }
            Storage::Weights(_) => unreachable!("logits are computed"),
        }
    }

    /// Writes the losses, and turns the logits into their gradient.
    fn loss(&mut self, losses: &mut [f32], targets: &[u32], weights: &[f32]) -> Operand<'_> {
        let (rows, v, stride) = (targets.len(), self.v, self.stride);
        match &mut self.values {
            Storage::F32(values) => {
                let values = &mut values[..rows * v];
                rows::cross_entropy(values, losses, targets, weights);
                Mat::new(&*values, rows, v).into()
            }
            Storage::Bf16(values) => {
                let values = &mut values[..rows * stride];
                rows::cross_entropy_bf16(values, stride, v, losses, targets, weights);
                Mat::strided(&*values, rows, v, stride).into()
            }
            Storage::Weights(_) => unreachable!("logits are computed"),
        }
    }
}

/// `dwte += dlogitsᵀ x`, straight into the parameter's gradient.
fn add_dwte(tape: &Tape, wte: &Tensor, dlogits: Operand, x: Operand) {
    match wte.target() {
        Target::Nowhere => {}
        Target::Parameter(slot) => tape.with_parameter_grad(slot, |dwte, overwrite| {
            let output = if overwrite { Output::Set(dwte) } else { Output::Add(dwte) };
            multiply(dlogits.t(), x, output);
        }),
        Target::Node(_) => panic!("lm_loss takes the embedding table itself, not something computed from it"),
    }
}

/// Each row's `-ln p` of its target, and whether the target was the most likely token. For evaluation.
pub fn lm_scores(x: &Tensor, wte: &Tensor, targets: &[u32]) -> Result<(Vec<f32>, Vec<bool>)> {
    let (rows, c, v) = check(x, wte, targets)?;
    let mut losses = vec![0.0; rows];
    let mut correct = Vec::with_capacity(rows);
    let (step, x_storage) = (block_rows(rows, v, size_of::<f32>()), x.shared());
    let x_values = x_storage.values();
    let mut logits: Buffer = Buffer::scratch(step.min(rows) * v);
    for start in (0..rows).step_by(step) {
        let end = (start + step).min(rows);
        let logits = &mut logits[..(end - start) * v];
        let block = Operand::new(x_values.part(start * c..end * c), end - start, c);
        multiply(block, wte.factor(true), Output::Set(logits));
        rows::cross_entropy_loss(&mut losses[start..end], logits, &targets[start..end]);
        let best = logits.chunks_exact(v).map(rows::argmax);
        correct.extend(best.zip(&targets[start..end]).map(|(best, &target)| best == target as usize));
    }
    Ok((losses, correct))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Grads;
    use crate::gradcheck::random;

    const TARGETS: [u32; 5] = [3, 0, 12, 3, 7];
    const WEIGHTS: [f32; 5] = [1.0, 0.5, 0.0, 2.0, 1.0];

    /// The fused gradient against finite differences of the fused loss.
    #[test]
    fn gradient() {
        let inputs = [random(&[5, 6], 1), random(&[13, 6], 2)];
        let tape = Tape::new(Grads::new(&[30, 78]));
        let x = tape.input(&inputs[0].clone().parameter(0));
        let loss = lm_loss(&x, &inputs[1].clone().parameter(1), &TARGETS, &WEIGHTS).unwrap();
        assert_eq!(loss.weight, 4.5);
        let grads = loss.backward().unwrap();
        for slot in 0..2 {
            for i in 0..inputs[slot].len() {
                let [up, down] = [1e-2, -1e-2].map(|step| {
                    let mut inputs = inputs.clone();
                    inputs[slot].data_mut()[i] += step;
                    lm_loss(&inputs[0], &inputs[1], &TARGETS, &WEIGHTS).unwrap().value
                });
                let (got, want) = (f64::from(grads.slot(slot)[i]), (up - down) / 2e-2);
                assert!((got - want).abs() < 5e-3 * (1.0 + want.abs()), "slot {slot}, {i}: {got} {want}");
            }
        }
    }

    /// Preference tuning learns against some tokens.
    #[test]
    fn weights_of_either_sign() {
        let (x, wte) = (random(&[5, 6], 1), random(&[13, 6], 2).parameter(1));
        for precision in [Precision::F32, Precision::Bf16] {
            let x = Tensor::from_buffer(&[5, 6], x.storage().clone().into_precision(precision)).parameter(0);
            let gradients = |weights: [f32; 5]| {
                let tape = Tape::new(Grads::new(&[30, 78]));
                let loss = lm_loss(&tape.input(&x), &wte, &TARGETS, &weights).unwrap();
                (loss.value, loss.weight, loss.backward().unwrap())
            };
            let weights = [1.0, -0.5, 0.0, 2.0, -2.5];
            let (value, weight, grads) = gradients(weights);
            assert_eq!(weight, 0.0);
            // Backwards, all signs turn.
            let (opposite, _, turned) = gradients(weights.map(|weight| -weight));
            assert_eq!(value, -opposite);
            for slot in 0..2 {
                assert!(grads.slot(slot).iter().zip(turned.slot(slot)).all(|(a, b)| *a == -b));
                assert!(grads.slot(slot).iter().any(|&g| g != 0.0));
            }
            // Together they are what each adds by itself.
            let alone = |i: usize| gradients(std::array::from_fn(|j| if i == j { weights[i] } else { 0.0 }));
            let each: Vec<_> = (0..5).map(alone).collect();
            assert!((value - each.iter().map(|each| each.0).sum::<f64>()).abs() < 1e-5);
            let tolerance = if precision == Precision::F32 { 1e-5 } else { 2e-2 };
            for slot in 0..2 {
                for (i, &got) in grads.slot(slot).iter().enumerate() {
                    let sum: f32 = each.iter().map(|each| each.2.slot(slot)[i]).sum();
                    assert!((got - sum).abs() < tolerance * (1.0 + sum.abs()), "{slot} {i}: {got} {sum}");
                }
            }
        }
    }

    #[test]
    fn rows_of_weight_zero_have_no_gradient_and_are_not_looked_at() {
        let mut x = random(&[5, 6], 1);
        x.data_mut()[12..18].fill(f32::NAN); // the row of weight 0
        let tape = Tape::new(Grads::new(&[30, 78]));
        let wte = random(&[13, 6], 2).parameter(1);
        let loss = lm_loss(&tape.input(&x.parameter(0)), &wte, &TARGETS, &WEIGHTS).unwrap();
        assert!(loss.value.is_finite());
        let grads = loss.backward().unwrap();
        assert!(grads.slot(0)[12..18].iter().all(|&g| g == 0.0));
        assert!((0..2).all(|slot| grads.slot(slot).iter().all(|g| g.is_finite())));
        // And none at all where nothing counts.
        let tape = Tape::new(Grads::new(&[30, 78]));
        let x = random(&[5, 6], 1).parameter(0);
        let nothing = lm_loss(&tape.input(&x), &wte, &TARGETS, &[0.0; 5]).unwrap();
        assert_eq!((nothing.value, nothing.weight), (0.0, 0.0));
        assert!(nothing.backward().unwrap().slot(1).iter().all(|&g| g == 0.0));
    }

    #[test]
    fn scores_agree_with_the_loss() {
        let (x, wte) = (random(&[5, 6], 1), random(&[13, 6], 2));
        let (losses, correct) = lm_scores(&x, &wte, &TARGETS).unwrap();
        let sum: f64 = losses.iter().zip(WEIGHTS).map(|(&l, w)| f64::from(l) * f64::from(w)).sum();
        let loss = lm_loss(&x, &wte, &TARGETS, &WEIGHTS).unwrap();
        assert!((loss.value - sum).abs() < 1e-6 && loss.backward().is_none());
        assert_eq!(correct.len(), 5);
    }

    #[test]
    fn a_target_out_of_range_is_refused() {
        assert!(lm_scores(&random(&[1, 6], 1), &random(&[13, 6], 2), &[13]).is_err());
    }
}
