//! The loss and its weights by hand, and their gradient against finite differences.

use super::*;
use data::batches::Batches;
use data::example::{Example, Pair};
use data::packed::{Limits, Packed};
use models::{Batch, Gpt2, Gpt2Config, Init, Pass};

#[test]
fn the_loss_at_any_margin() {
    assert!((loss(0.0) - 2f64.ln()).abs() < 1e-15);
    for margin in [-800.0, -30.0, -1.5, -1e-9, 1e-9, 0.3, 40.0, 800.0] {
        let plain = (1.0 + f64::exp(-margin)).ln();
        if plain.is_finite() && plain > 1e-6 {
            assert!((loss(margin) - plain).abs() < 1e-12 * (1.0 + plain), "{margin}");
        }
        assert!(loss(margin).is_finite() && loss(margin) >= 0.0, "{margin}");
        let step = 1e-5;
        let falls = (loss(margin - step) - loss(margin + step)) / (2.0 * step);
        assert!((slope(margin) - falls).abs() < 1e-7, "{margin}");
    }
}

#[test]
fn a_weight_for_each_token_of_an_answer() {
    let batch = OwnedBatch {
        ids: vec![0; 7],
        targets: vec![0; 7],
        weights: vec![0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0],
        batch: 4,
        lens: Some(vec![3, 2, 1, 1]),
        examples: vec![1, 0],
    };
    // Chosen: -(2 + 3), -5; rejected: -1, -4. The start preferred neither in pair 1, and the first by 3 in pair 0.
    let losses = [9.0, 2.0, 3.0, 9.0, 1.0, 5.0, 4.0];
    assert_eq!(log_ratios(&batch, &losses), [-4.0, -1.0]);
    let (got, sums) = weights(&batch, &losses, 0.5, &[-3.0, 0.0]);
    let (first, second) = (0.5 * slope(-2.0) as f32, 0.5 * slope(1.0) as f32);
    assert_eq!(got, [0.0, first, first, 0.0, -first, second, -second]);
    assert_eq!((sums.pairs, sums.right, sums.margin), (2.0, 1.0, -1.0));
    assert_eq!(sums.loss, loss(-2.0) + loss(1.0));
    assert_eq!(sums.rewards(), Rewards { accuracy: 0.5, margin: -0.5 });
}

/// A tiny model whose weights are large enough for its answers to differ.
fn model(seed: u64) -> Gpt2 {
    let mut model = Gpt2::new(Gpt2Config::new(2, 2, 8, 10, 11), Init::Gpt2, seed).unwrap();
    for (name, tensor) in model.parameters_mut() {
        if !name.contains("ln_") {
            tensor.data_mut().iter_mut().for_each(|x| *x *= 15.0);
        }
    }
    model
}

fn pairs() -> OwnedBatch {
    let answer = |prompt: usize, ids: &[u32]| Example {
        ids: ids.to_vec(),
        is_answer: (0..ids.len()).map(|i| i >= prompt).collect(),
    };
    let pair = |prompt, chosen, rejected| Pair {
        chosen: answer(prompt, chosen),
        rejected: answer(prompt, rejected),
    };
    let pairs = vec![
        pair(2, &[1, 2, 3, 4, 5], &[1, 2, 9]),
        pair(1, &[7, 7, 7], &[7, 0, 10, 4, 2, 8]),
        pair(4, &[5, 6, 5, 6, 1], &[5, 6, 5, 6, 2]),
    ];
    Packed::pairs(pairs, Limits { examples: 3, tokens: 100 }, 10, 4).unwrap().next_batch().unwrap()
}

fn view(batch: &OwnedBatch) -> Batch<'_> {
    let OwnedBatch { ids, targets, weights, batch, lens, .. } = batch;
    Batch { ids, targets, weights, batch: *batch, lens: lens.as_deref() }
}

#[test]
fn the_gradient_is_that_of_the_loss() {
    let (batch, beta) = (pairs(), 0.7);
    let losses = |model: &Gpt2| model.scores(&view(&batch)).unwrap().loss;
    let mut reference = vec![0.0; 3];
    let start = log_ratios(&batch, &losses(&model(2)));
    batch.examples.iter().zip(start).for_each(|(&pair, ratio)| reference[pair] = ratio);
    let loss = |model: &Gpt2| weights(&batch, &losses(model), beta, &reference).1.loss;

    let mut model = model(1);
    let mut sums = Sums::default();
    let pass = Pass::train(model.zero_grads(), 0, 0);
    let taped = model.loss_weighted_by(&view(&batch), pass, |losses| {
        let (weights, found) = weights(&batch, losses, beta, &reference);
        sums = found;
        weights
    });
    let grads = taped.unwrap().backward().unwrap();
    assert!((sums.loss - loss(&model)).abs() < 1e-6 && sums.margin.abs() > 0.1, "{sums:?}");

    let n = model.parameters().len();
    let mut largest = 0.0f64;
    for slot in 0..n {
        let len = grads.slot(slot).len();
        for i in (0..len).step_by(len.div_ceil(7)) {
            let mut moved = |step: f32| {
                model.parameters_mut()[slot].1.data_mut()[i] += step;
                let loss = loss(&model);
                model.parameters_mut()[slot].1.data_mut()[i] -= step;
                loss
            };
            let step = 2e-3;
            let want = (moved(step) - moved(-step)) / f64::from(2.0 * step);
            let got = f64::from(grads.slot(slot)[i]);
            assert!((got - want).abs() < 2e-2 * (0.2 + want.abs()), "slot {slot}, {i}: {got}, not {want}");
            largest = largest.max(want.abs());
        }
    }
    assert!(largest > 1.0, "{largest}");
}
