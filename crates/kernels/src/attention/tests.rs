//! Fused attention against the plain version, and its promises about bits.

use super::cached::*;
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
        // The scale of most models, one without, and one divided by a layer's number.
        let scale = [default_scale(head_dim), 1.0, default_scale(head_dim) / 3.0][time % 3];
        let shape = AttentionShape { batch, time, n_head, head_dim, scale };
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
                    reference::attention(&mut want, qkv, d, shape.scale, factor);
                    assert_close(&part(&out, d, start, t, c, h * d), &want, &case);
                    let mut grads = [0, 1, 2].map(|_| vec![0.0; t * d]);
                    let [dq, dk, dv] = &mut grads;
                    let dout = part(&dout, d, start, t, c, h * d);
                    reference::attention_backward([dq, dk, dv], &dout, qkv, d, shape.scale, factor);
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
        let shape = AttentionShape { batch, time, n_head, head_dim, scale: default_scale(head_dim) };
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

/// Attention of sequences that lie one after the other in `qkv` (rows, 3C), each fed in the portions given, beginning with
/// another one.
fn in_portions<T: Kept>(
    isa: Isa,
    qkv: &[T],
    lens: &[usize],
    portions: &[usize],
    heads: Heads,
    scale: f32,
) -> Vec<T> {
    let c = heads.n_head * heads.head_dim;
    let mut blocks: Vec<Vec<Vec<T::Unit>>> = lens
        .iter()
        .map(|len| vec![vec![T::Unit::default(); heads.block_len::<T>()]; len.div_ceil(BLOCK)])
        .collect();
    let starts: Vec<usize> =
        lens.iter().scan(0, |end, len| Some(std::mem::replace(end, *end + len))).collect();
    let (mut out, mut past) = (vec![T::default(); qkv.len() / 3], vec![0; lens.len()]);
    for round in 0.. {
        let new: Vec<usize> =
            (0..lens.len()).map(|s| portions[(round + s) % portions.len()].min(lens[s] - past[s])).collect();
        if new.iter().all(|&rows| rows == 0) {
            return out;
        }
        // The new rows of all sequences, one after the other, as a batch has them.
        let mut batch = Vec::new();
        for s in 0..lens.len() {
            batch.extend_from_slice(&qkv[(starts[s] + past[s]) * 3 * c..][..new[s] * 3 * c]);
        }
        let sequences = blocks.iter_mut().enumerate().map(|(s, blocks)| {
            let (full, open) = blocks.split_at_mut(past[s] / BLOCK);
            let open = open.iter_mut().filter(|_| new[s] > 0).map(|block| &mut block[..]).collect();
            Sequence {
                past: past[s],
                rows: new[s],
                full: full.iter().map(|block| &block[..]).collect(),
                open,
            }
        });
        let mut got = vec![T::default(); batch.len() / 3];
        attention_cached_on(isa, &mut got, &batch, sequences.collect(), heads, scale);
        let mut got = &got[..];
        for s in 0..lens.len() {
            let (own, others) = got.split_at(new[s] * c);
            out[(starts[s] + past[s]) * c..][..own.len()].copy_from_slice(own);
            got = others;
            let (before, after) = (past[s] / BLOCK, (past[s] + new[s]) / BLOCK);
            blocks[s][before..after].iter_mut().for_each(|block| turn::<T>(block, heads, false));
            past[s] += new[s];
        }
    }
    unreachable!("the portions go round")
}

#[test]
fn turning_back_and_forth_changes_nothing() {
    for heads in [Heads { n_head: 3, head_dim: 5 }, Heads { n_head: 1, head_dim: 64 }] {
        let block: Vec<u32> = (0..heads.block_len::<bf16>() as u32).collect();
        let mut again = block.clone();
        turn::<bf16>(&mut again, heads, false);
        assert!(again != block);
        turn::<bf16>(&mut again, heads, true);
        assert!(again == block);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]

    /// Any batch of sequences, in any portions, has the bits of each whole sequence, under each instruction set.
    #[test]
    fn cached_in_any_portions(
        lens in proptest::collection::vec(1usize..200, 1..4),
        n_head in 1usize..14,
        head_dim in 1usize..70,
        portions in proptest::collection::vec(proptest::prop_oneof![1usize..6, 1usize..100], 1..6),
        threads in 1usize..4,
    ) {
        pool::set_threads(threads);
        let heads = Heads { n_head, head_dim };
        let (rows, c) = (lens.iter().sum::<usize>(), n_head * head_dim);
        let scale = default_scale(head_dim) / (n_head as f32);
        let shape =
            AttentionShape { batch: lens.len(), time: *lens.iter().max().unwrap(), n_head, head_dim, scale };
        let qkv = random(rows * 3 * c, 1);
        let half: Vec<bf16> = qkv.iter().map(|&x| bf16::from_f32(x)).collect();
        for isa in isa::tested() {
            let (mut out, mut lse) = (vec![0.0; rows * c], vec![0.0; rows * n_head]);
            attention_on(isa, &mut out, &mut lse, &qkv, &shape, Some(&lens), None);
            proptest::prop_assert!(in_portions(isa, &qkv, &lens, &portions, heads, scale) == out, "{:?}", isa);
            let mut out = vec![bf16::ZERO; rows * c];
            pairs::attention_bf16_on(isa, &mut out, &mut lse, &half, &shape, Some(&lens), None);
            proptest::prop_assert!(in_portions(isa, &half, &lens, &portions, heads, scale) == out, "{:?} bfloat16", isa);
        }
    }
}

#[test]
fn a_gradient_is_added_to_what_is_there() {
    let shape = AttentionShape { batch: 2, time: 70, n_head: 2, head_dim: 5, scale: default_scale(5) };
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
    let shape = AttentionShape { batch: 2, time: 100, n_head: 3, head_dim: 16, scale: default_scale(16) };
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
    let shape = AttentionShape { batch: 1, time: 3, n_head: 1, head_dim: 2, scale: default_scale(2) };
    let mut qkv = random(18, 1);
    qkv[6 + 2] = f32::NAN; // a key of the second position
    let (mut out, mut lse) = ([0.0; 6], [0.0; 3]);
    attention(&mut out, &mut lse, &qkv, &shape, None, None);
    assert!(out[..2].iter().all(|x| x.is_finite()) && out[2..].iter().all(|x| x.is_nan()), "{out:?}");
}
