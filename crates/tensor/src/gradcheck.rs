//! Finite differences: the judge of every backward pass.

use crate::{Grads, Result, Tape, Tensor};
use kernels::random::Stream;

/// Values from a normal distribution, the same on every machine.
pub fn random(shape: &[usize], seed: u64) -> Tensor {
    let stream = Stream::new(seed, 0x6772_6164, 0);
    let values = (0..shape.iter().product::<usize>() as u64).map(|i| stream.normal(i)).collect();
    Tensor::new(shape, values).expect("as many values as the shape asks")
}

/// Checks `f`'s gradient by each of `inputs` against central differences of a random projection of its output.
///
/// # Panics
/// Where they disagree, naming the input, the element and both values.
pub fn check(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let lens: Vec<usize> = inputs.iter().map(Tensor::len).collect();
    let tape = Tape::new(Grads::new(&lens));
    let watched: Vec<Tensor> =
        inputs.iter().enumerate().map(|(slot, x)| tape.input(&x.clone().parameter(slot))).collect();
    let out = f(&watched).expect("the operation accepts its inputs");
    let projection = random(&[out.len()], 77);
    let grads = tape.backward(&out, projection.data().to_vec());

    let loss = |inputs: &[Tensor]| -> f64 {
        let out = f(inputs).expect("the operation accepts its inputs");
        out.data().iter().zip(projection.data()).map(|(&o, &p)| f64::from(o) * f64::from(p)).sum()
    };
    for slot in 0..inputs.len() {
        compare(slot, grads.slot(slot), inputs, &loss);
    }
}

fn compare(slot: usize, dx: &[f32], inputs: &[Tensor], loss: &dyn Fn(&[Tensor]) -> f64) {
    const STEP: f32 = 4e-3;
    let mut inputs = inputs.to_vec();
    for (i, &got) in dx.iter().enumerate() {
        let x_i = inputs[slot].data()[i];
        let [up, down] = [x_i + STEP, x_i - STEP].map(|v| {
            inputs[slot].data_mut()[i] = v;
            loss(&inputs)
        });
        inputs[slot].data_mut()[i] = x_i;
        let want = (up - down) / f64::from((x_i + STEP) - (x_i - STEP));
        let close = (f64::from(got) - want).abs() <= 1e-2 * (1.0 + want.abs());
        assert!(close, "input {slot}: dx[{i}] is {got}, but finite differences give {want}");
    }
}
