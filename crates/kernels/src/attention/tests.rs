//! Fused attention against the plain version, and its promises about bits.

use super::*;
use crate::bf16::bf16;
use crate::random::Stream;
use crate::reference;

fn random(len: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, 0, 0);
    (0..len as u64).map(|i| stream.normal(i)).collect()
}

/// Columns `first..first + d` of the rows from `start` on, contiguous (t, d).
fn part(x: &[f32], d: usize, start: usize, t: usize, cols: usize, first: usize) -> Vec<f32> {
    (0..t).flat_map(|i| x[(start + i) * cols + first..][..d].to_vec()).collect()
}

#[track_caller]
fn assert_close(got: &[f32], want: &[f32], case: &str) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= 1e-4 * (1.0 + want.abs()), "{case}: [{i}] is {got}, not {want}");
    }
}

#[test]
fn forward_and_backward_agree_with_the_plain_version() {
    let sizes = [(1, 1, 1, 1), (2, 5, 3, 5), (1, 64, 2, 16), (2, 65, 1, 8), (1, 130, 2, 33), (1, 200, 1, 64)];
    for (batch, time, n_head, head_dim) in sizes {
        let shape = AttentionShape { batch, time, n_head, head_dim };
        let c = shape.width();
        let lens: Vec<usize> = (0..batch).map(|b| time - b * time / 3).collect();
        let dropout = Dropout { p: 0.3, stream: Stream::new(5, 6, 7) };
        for (lens, dropout) in
            [(None, None), (Some(&lens[..]), None), (None, Some(dropout)), (Some(&lens), Some(dropout))]
        {
            let len = |b: usize| lens.map_or(time, |lens| lens[b]);
            let rows: usize = (0..batch).map(len).sum();
            let (qkv, dout) = (random(rows * 3 * c, 1), random(rows * c, 2));
            for isa in isa::tested() {
                let case = format!("{isa:?} {shape:?} lens {lens:?} dropout {}", dropout.is_some());
                let (mut out, mut lse) = (vec![f32::NAN; rows * c], vec![0.0; n_head * rows]);
                attention_on(isa, &mut out, &mut lse, &qkv, &shape, lens, dropout);
                let mut dqkv = vec![0.0; qkv.len()];
                attention_backward_on(isa, &mut dqkv, &dout, &out, &lse, &qkv, &shape, lens, dropout);
                for (b, h) in (0..batch).flat_map(|b| (0..n_head).map(move |h| (b, h))) {
                    let (start, t, d) = ((0..b).map(len).sum(), len(b), head_dim);
                    let parts = [0, 1, 2].map(|w| part(&qkv, d, start, t, 3 * c, w * c + h * d));
                    let qkv = [&parts[0][..], &parts[1], &parts[2]];
                    let factor = |i: usize, j: usize| match dropout {
                        None => 1.0,
                        Some(dropout) => {
                            let index = ((b * n_head + h) * time + i) * time + j;
                            if dropout.stream.uniform(index as u64) >= 0.3 { 1.0 / 0.7 } else { 0.0 }
                        }
                    };
                    let mut want = vec![0.0; t * d];
                    reference::attention(&mut want, qkv, d, factor);
                    assert_close(&part(&out, d, start, t, c, h * d), &want, &case);
                    let mut grads = [0, 1, 2].map(|_| vec![0.0; t * d]);
                    let [dq, dk, dv] = &mut grads;
                    let dout = part(&dout, d, start, t, c, h * d);
                    reference::attention_backward([dq, dk, dv], &dout, qkv, d, factor);
                    for (which, want) in grads.iter().enumerate() {
                        assert_close(&part(&dqkv, d, start, t, 3 * c, which * c + h * d), want, &case);
                    }
                }
            }
        }
    }
}

/// On values that bfloat16 holds exactly, it differs from `f32` by the rounding of probabilities and results alone.
#[test]
fn bfloat16_agrees_with_f32_and_with_itself_at_any_thread_count() {
    for (batch, time, n_head, head_dim) in
        [(1, 1, 1, 1), (2, 7, 3, 6), (2, 65, 1, 8), (1, 130, 2, 33), (2, 200, 2, 64)]
    {
        let shape = AttentionShape { batch, time, n_head, head_dim };
        let c = shape.width();
        let lens: Vec<usize> = (0..batch).map(|b| time - b * time / 3).collect();
        let dropout = Dropout { p: 0.3, stream: Stream::new(5, 6, 7) };
        for (lens, dropout) in [(None, None), (Some(&lens[..]), Some(dropout))] {
            let rows: usize = lens.map_or(batch * time, |lens| lens.iter().sum());
            let half = |x: Vec<f32>| x.into_iter().map(bf16::from_f32).collect::<Vec<_>>();
            let wide = |x: &[bf16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
            let (qkv, dout) = (half(random(rows * 3 * c, 1)), half(random(rows * c, 2)));
            let (mut want, mut lse) = (vec![0.0; rows * c], vec![0.0; n_head * rows]);
            attention(&mut want, &mut lse, &wide(&qkv), &shape, lens, dropout);
            let mut want_grad = vec![0.0; qkv.len()];
            attention_backward(&mut want_grad, &wide(&dout), &want, &lse, &wide(&qkv), &shape, lens, dropout);
            for isa in isa::tested() {
                let mut first = None;
                for threads in [1, 2, 3] {
                    pool::set_threads(threads);
                    let (mut out, mut lse) = (vec![bf16::NAN; rows * c], vec![0.0; n_head * rows]);
                    pairs::attention_bf16_on(isa, &mut out, &mut lse, &qkv, &shape, lens, dropout);
                    let mut grad = vec![bf16::NAN; qkv.len()];
                    pairs::attention_backward_bf16_on(
                        isa, &mut grad, &dout, &out, &lse, &qkv, &shape, lens, dropout,
                    );
                    let case = format!("{isa:?} {shape:?} lens {lens:?}");
                    for (got, want) in [(wide(&out), &want), (wide(&grad), &want_grad)] {
                        let most = want.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                        for (i, (got, want)) in got.iter().zip(want).enumerate() {
                            assert!((got - want).abs() <= 0.02 * most, "{case} [{i}]: {got}, not {want}");
                        }
                        let error: f32 = got.iter().zip(want).map(|(x, y)| (x - y).powi(2)).sum();
                        let size: f32 = want.iter().map(|x| x * x).sum();
                        assert!(error <= 1e-4 * size + 1e-12, "{case}: {}", (error / size).sqrt());
                    }
                    let all = (out, grad);
                    assert!(first.get_or_insert_with(|| all.clone()) == &all, "{case}, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn cached_in_any_portions_has_the_bits_of_the_whole() {
    let shape = AttentionShape { batch: 1, time: 150, n_head: 2, head_dim: 24 };
    let c = shape.width();
    let qkv = random(150 * 3 * c, 1);
    let (mut out, mut lse) = (vec![0.0; 150 * c], vec![0.0; 300]);
    attention(&mut out, &mut lse, &qkv, &shape, None, None);
    let column = |which: usize, n: usize| -> Vec<f32> {
        (0..n).flat_map(|i| qkv[i * 3 * c + which * c..][..c].to_vec()).collect()
    };
    for portions in [vec![150], vec![1; 150], vec![64, 64, 22], vec![100, 1, 49]] {
        let mut past = 0;
        for n in portions {
            let mut got = vec![0.0; n * c];
            let (keys, values) = (column(1, past + n), column(2, past + n));
            attention_cached(&mut got, &qkv[past * 3 * c..(past + n) * 3 * c], &keys, &values, past, 2, 24);
            assert!(got == out[past * c..(past + n) * c], "{n} after {past}");
            past += n;
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    /// Any cut of a sequence into portions gives the same bits, under each instruction set.
    #[test]
    fn any_portions(time in 2usize..200, n_head in 1usize..4, head_dim in 1usize..70, cuts in proptest::collection::vec(1usize..100, 1..6)) {
        let shape = AttentionShape { batch: 1, time, n_head, head_dim };
        let c = shape.width();
        let qkv = random(time * 3 * c, 1);
        let column = |which: usize, n: usize| -> Vec<f32> {
            (0..n).flat_map(|i| qkv[i * 3 * c + which * c..][..c].to_vec()).collect()
        };
        for isa in isa::tested() {
            let (mut out, mut lse) = (vec![0.0; time * c], vec![0.0; time * n_head]);
            attention_on(isa, &mut out, &mut lse, &qkv, &shape, None, None);
            let mut past = 0;
            for n in cuts.iter().copied().cycle() {
                let n = n.min(time - past);
                let mut got = vec![0.0; n * c];
                let (keys, values) = (column(1, past + n), column(2, past + n));
                attention_cached_on(isa, &mut got, &qkv[past * 3 * c..(past + n) * 3 * c], &keys, &values, past, n_head, head_dim);
                proptest::prop_assert!(got == out[past * c..(past + n) * c], "{:?}: {} after {}", isa, n, past);
                past += n;
                if past == time {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_gradient_is_added_to_what_is_there() {
    let shape = AttentionShape { batch: 2, time: 70, n_head: 2, head_dim: 5 };
    let (qkv, dout) = (random(2 * 70 * 30, 1), random(2 * 70 * 10, 2));
    let (mut out, mut lse) = (vec![0.0; dout.len()], vec![0.0; 280]);
    attention(&mut out, &mut lse, &qkv, &shape, None, None);
    let (mut alone, mut added) = (vec![0.0; qkv.len()], random(qkv.len(), 3));
    attention_backward(&mut alone, &dout, &out, &lse, &qkv, &shape, None, None);
    let want: Vec<f32> = added.iter().zip(&alone).map(|(x, y)| x + y).collect();
    attention_backward(&mut added, &dout, &out, &lse, &qkv, &shape, None, None);
    assert_close(&added, &want, "added to random values");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let shape = AttentionShape { batch: 2, time: 100, n_head: 3, head_dim: 16 };
    let (qkv, dout) = (random(2 * 100 * 144, 1), random(2 * 100 * 48, 2));
    let mut all = Vec::new();
    for threads in [1, 2, 3] {
        pool::set_threads(threads);
        let (mut out, mut lse, mut dqkv) = (vec![0.0; dout.len()], vec![0.0; 600], vec![0.0; qkv.len()]);
        attention(&mut out, &mut lse, &qkv, &shape, None, None);
        attention_backward(&mut dqkv, &dout, &out, &lse, &qkv, &shape, None, None);
        all.push((out, dqkv));
    }
    assert!(all[0] == all[1] && all[0] == all[2]);
}

#[test]
fn nan_is_not_lost() {
    let shape = AttentionShape { batch: 1, time: 3, n_head: 1, head_dim: 2 };
    let mut qkv = random(18, 1);
    qkv[6 + 2] = f32::NAN; // a key of the second position
    let (mut out, mut lse) = ([0.0; 6], [0.0; 3]);
    attention(&mut out, &mut lse, &qkv, &shape, None, None);
    assert!(out[..2].iter().all(|x| x.is_finite()) && out[2..].iter().all(|x| x.is_nan()), "{out:?}");
}
