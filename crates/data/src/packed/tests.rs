//! What batches of examples hold, and in which order.

use super::*;

/// An example of `len` tokens from `first` on, of which the last `answers` are to be predicted.
fn example(first: u32, len: usize, answers: usize) -> Example {
    Example { ids: (first..).take(len).collect(), is_answer: (0..len).map(|i| i + answers >= len).collect() }
}

fn lengths(lens: &[usize]) -> Vec<Example> {
    lens.iter().enumerate().map(|(i, &len)| example(100 * i as u32, len, 1)).collect()
}

const NO_LIMIT: usize = usize::MAX;

#[test]
fn an_answer_counts_and_what_follows_it_is_left_out() {
    let row = Example { ids: vec![1, 2, 3, 4, 5], is_answer: vec![true, false, true, true, false] };
    let limits = Limits { examples: 1, tokens: NO_LIMIT };
    let batch = Packed::examples(vec![row], limits, 4, 1).unwrap().next_batch().unwrap();
    assert_eq!((batch.ids, batch.targets), (vec![1, 2, 3], vec![2, 3, 4]));
    // The first token has nothing before it.
    assert_eq!((batch.weights, batch.batch, batch.lens), (vec![0.0, 1.0, 1.0], 1, None));
}

#[test]
fn a_batch_ends_at_whichever_limit_comes_first() {
    let sizes = |examples, tokens| {
        let mut packed =
            Packed::examples(lengths(&[4, 4, 4, 4, 4, 4]), Limits { examples, tokens }, 9, 5).unwrap();
        let n = packed.batches_per_epoch();
        (n, (0..n).map(|_| packed.next_batch().unwrap().batch).collect::<Vec<_>>())
    };
    assert_eq!(sizes(4, NO_LIMIT), (2, vec![4, 4]));
    assert_eq!(sizes(NO_LIMIT, 9), (2, vec![3, 3]));
    assert_eq!(sizes(NO_LIMIT, 8), (3, vec![2, 2, 2]));
    assert_eq!(sizes(2, 9), (3, vec![2, 2, 2]));
    // One at least, however long.
    assert_eq!(sizes(NO_LIMIT, 1), (6, vec![1; 6]));
    assert_eq!(sizes(0, 0), (6, vec![1; 6]));
}

#[test]
fn every_example_once_an_epoch_and_epochs_differ() {
    let examples = lengths(&[2, 9, 3, 7, 2, 5, 4, 8, 3, 6, 2]);
    let limits = Limits { examples: 1, tokens: NO_LIMIT };
    let mut packed = Packed::examples(examples.clone(), limits, 8, 3).unwrap();
    let mut epoch = || -> Vec<usize> {
        (0..11)
            .map(|_| {
                let batch = packed.next_batch().unwrap();
                let [index] = batch.examples[..] else { panic!("one example a batch") };
                assert_eq!(batch.ids, examples[index].ids[..examples[index].ids.len() - 1]);
                index
            })
            .collect()
    };
    let (first, second) = (epoch(), epoch());
    assert_ne!(first, second);
    for mut seen in [first, second] {
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..11));
    }
    assert_eq!((packed.epoch(), packed.time()), (2, 8));
}

#[test]
fn seeking_goes_on_as_if_never_stopped() {
    let limits = Limits { examples: 5, tokens: 17 };
    let fresh = || Packed::examples(lengths(&[2, 9, 3, 7, 2, 5, 4, 8, 3]), limits, 8, 3).unwrap();
    let mut straight = fresh();
    for stop in 0..20 {
        let mut resumed = fresh();
        resumed.seek(straight.position());
        assert_eq!(resumed.next_batch().unwrap(), straight.next_batch().unwrap(), "after {stop} batches");
    }
}

#[test]
fn pairs_stay_together() {
    let pair = |i: u32| Pair { chosen: example(10 * i, 4, 2), rejected: example(10 * i, 3, 1) };
    let limits = Limits { examples: NO_LIMIT, tokens: 10 };
    let mut packed = Packed::pairs((0..5).map(pair).collect(), limits, 8, 2).unwrap();
    assert_eq!((packed.sequences_per_epoch(), packed.batches_per_epoch()), (5, 3));
    let batch = packed.next_batch().unwrap();
    assert_eq!((batch.examples.len(), batch.lens.as_deref()), (2, Some(&[3, 2, 3, 2][..])));
    let starts: Vec<u32> = batch.sequences().map(|sequence| batch.ids[sequence.start] / 10).collect();
    let want: Vec<u32> = batch.examples.iter().flat_map(|&pair| [pair as u32; 2]).collect();
    assert_eq!(starts, want);
}

#[test]
fn what_cannot_be_learnt_is_refused_by_number() {
    let limits = Limits { examples: 1, tokens: 1 };
    let refuse = |examples| Packed::examples(examples, limits, 8, 1).unwrap_err().to_string();
    let error = refuse(lengths(&[9, 10]));
    assert!(error.contains("example 2 has 10 tokens") && error.contains("room for 9"), "{error}");
    assert!(refuse(vec![]).contains("no examples"));
    let only_first = Example { ids: vec![1, 2], is_answer: vec![true, false] };
    for none in [example(1, 5, 0), only_first, Example::default()] {
        assert!(refuse(vec![example(1, 5, 1), none]).contains("example 2 has no answer"));
    }
    let pairs = vec![Pair { chosen: example(1, 3, 1), rejected: example(1, 3, 0) }];
    assert!(Packed::pairs(pairs, limits, 8, 1).unwrap_err().to_string().contains("example 1 has no answer"));
}

#[test]
fn the_fingerprint_sees_tokens_answers_and_borders() {
    let limits = Limits { examples: 1, tokens: 1 };
    let hash = |examples| Packed::examples(examples, limits, 8, 1).unwrap().fingerprint().unwrap();
    let base = hash(vec![example(1, 4, 2), example(5, 3, 1)]);
    assert_eq!(base, hash(vec![example(1, 4, 2), example(5, 3, 1)]));
    assert_ne!(base, hash(vec![example(1, 4, 1), example(5, 3, 1)]));
    assert_ne!(base, hash(vec![example(1, 3, 2), example(4, 4, 1)]));
    assert_ne!(base, hash(vec![example(5, 3, 1), example(1, 4, 2)]));
    let pair = vec![Pair { chosen: example(1, 4, 2), rejected: example(5, 3, 1) }];
    assert_ne!(base, Packed::pairs(pair, limits, 8, 1).unwrap().fingerprint().unwrap());
}
