//! Draws and filters with few logits, and what is refused.

use super::*;

const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, f32::NEG_INFINITY];

fn draw(sampling: &Sampling, logits: &[f32], position: u64) -> Result<u32, SamplingError> {
    let sampler = Sampler::new(sampling, logits.len(), &[])?;
    sampler.sample(&mut logits.to_vec(), History::default(), position).map(|draw| draw.id)
}

fn candidates(sampling: &Sampling, logits: &[f32]) -> Vec<Candidate> {
    let sampler = Sampler::new(sampling, logits.len(), &[]).unwrap();
    sampler.candidates(&mut logits.to_vec(), History::default(), 0).unwrap()
}

fn ids(sampling: Sampling) -> Vec<u32> {
    let mut ids: Vec<u32> = candidates(&sampling, &LOGITS).into_iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn filters() {
    // Probabilities: 0.056, 0.413, 0.152, 0.413 (less rounding).
    let all = Sampling::default;
    assert_eq!(ids(all()), [0, 1, 2, 3]);
    assert_eq!(ids(Sampling { top_k: 3, ..all() }), [1, 2, 3]);
    assert_eq!(ids(Sampling { top_k: 1, ..all() }), [1, 3]); // equals are kept together, as transformers does
    assert_eq!(ids(Sampling { top_k: usize::MAX, ..all() }), [0, 1, 2, 3]);
    assert_eq!(ids(Sampling { top_p: 0.3, ..all() }).len(), 1);
    assert_eq!(ids(Sampling { top_p: 0.5, ..all() }), [1, 3]);
    assert_eq!(ids(Sampling { top_p: 0.9, ..all() }), [1, 2, 3]);
    assert_eq!(ids(Sampling { top_p: 1e-9, ..all() }).len(), 1);
    assert_eq!(ids(Sampling { min_p: 0.3, ..all() }), [1, 2, 3]);
    assert_eq!(ids(Sampling { min_p: 0.4, ..all() }), [1, 3]);
    assert_eq!(ids(Sampling { min_p: 1.0, ..all() }), [1, 3]);
    // Surprises 2.88, 0.88, 1.88, 0.88 about the entropy 1.18.
    assert_eq!(ids(Sampling { typical_p: 0.5, ..all() }), [1, 3]);
    assert_eq!(ids(Sampling { typical_p: 0.9, ..all() }), [1, 2, 3]);
    assert_eq!(ids(Sampling { typical_p: 0.99, ..all() }), [0, 1, 2, 3]);
}

#[test]
fn typical_may_leave_out_the_most_likely_token() {
    // One token of 0.4 and sixty of 0.01: the entropy, 3.1, is nearer to a surprise of 4.6 than to one of 0.9.
    let logits: Vec<f32> = std::iter::once(40.0f32.ln()).chain([0.0; 60]).collect();
    let kept = candidates(&Sampling { typical_p: 0.5, ..Sampling::default() }, &logits);
    assert!(kept.iter().map(|kept| kept.0).eq(1..=60), "{kept:?}");
}

#[test]
fn draws_follow_the_probabilities() {
    let sampling = Sampling { temperature: 0.7, seed: 5, ..Sampling::default() };
    let n = 20_000;
    let mut counts = [0.0f64; 5];
    for position in 0..n {
        counts[draw(&sampling, &LOGITS, position).unwrap() as usize] += 1.0;
    }
    let weights = LOGITS.map(|logit| f64::from(logit / 0.7).exp());
    let total: f64 = weights.iter().sum();
    for (count, weight) in counts.iter().zip(weights) {
        assert!((count / n as f64 - weight / total).abs() < 0.015, "{counts:?}");
    }
}

#[test]
fn a_draw_from_all_is_the_draw_from_the_list_of_all() {
    for n in [1, 5, 255, 256, 257, 1000] {
        let random = tensor::random::Stream::new(n, 0, 0);
        let logits: Vec<f32> = (0..n).map(|i| 3.0 * random.normal(i)).collect();
        let all = Sampling { seed: n, ..Sampling::default() };
        let list = Sampling { min_p: f32::MIN_POSITIVE, ..all.clone() };
        for position in 0..200 {
            assert_eq!(draw(&all, &logits, position), draw(&list, &logits, position), "{n}, {position}");
        }
    }
}

#[test]
fn greedy_takes_the_first_of_equals() {
    assert_eq!(draw(&Sampling::GREEDY, &LOGITS, 9), Ok(1));
}

#[test]
fn the_nearly_certain_token_is_drawn_without_overflow() {
    for temperature in [f32::MIN_POSITIVE, 1e-45, 1e-3] {
        for logits in [[-f32::MAX, f32::MAX, 0.0], [-1.0, 1.0, 0.0]] {
            for top_k in [0, 2] {
                let sampling = Sampling { temperature, top_k, seed: 1, ..Sampling::default() };
                assert!((0..50).all(|position| draw(&sampling, &logits, position) == Ok(1)), "{temperature}");
            }
        }
    }
}

#[test]
fn top_p_sorts_no_more_than_it_needs_and_loses_nothing() {
    // Equal tokens are the hardest case: none is below the mean.
    for n in [1, 2, 3, 1000, 50_257] {
        for top_p in [1e-30, 0.5, 0.999_999_9] {
            let kept = candidates(&Sampling { top_p, ..Sampling::default() }, &vec![2.5; n]);
            let want = (f64::from(top_p) * n as f64).ceil() as usize;
            assert!(kept.iter().map(|kept| kept.0).eq(0..want as u32), "{n} tokens, top-p {top_p}");
        }
    }
}

#[test]
fn samples_have_seeds_that_follow_each_other() {
    let sampling = Sampling { seed: u64::MAX - 1, ..Sampling::GREEDY };
    assert_eq!([0, 1, 2].map(|k| sampling.clone().nth(k).seed), [u64::MAX - 1, u64::MAX, 0]);
}

#[test]
fn a_draw_depends_on_seed_and_position_alone() {
    let draws = |seed| {
        let sampling = Sampling { seed, ..Sampling::default() };
        (0..40).map(|position| draw(&sampling, &LOGITS, position).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(draws(1), draws(1));
    assert_ne!(draws(1), draws(2));
}

#[test]
fn logprobs_are_the_models_own() {
    let processors = Processors { logit_bias: vec![(1, f32::NEG_INFINITY)], ..Processors::NONE };
    let sampling =
        Sampling { processors, logprobs: Some(2), temperature: 0.1, top_k: 1, ..Sampling::default() };
    let sampler = Sampler::new(&sampling, 5, &[4]).unwrap();
    let mut padded = [&LOGITS[..], &[99.0]].concat();
    let drawn = sampler.sample(&mut padded, History::default(), 0).unwrap();
    assert_eq!(drawn, Draw { id: 3, logprobs: Some(top_logprobs(&LOGITS, 3, 2)) });
    assert_eq!(drawn.logprobs.unwrap().top.iter().map(|token| token.0).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(padded[..5], LOGITS);
}

#[test]
fn numbers_outside_their_ranges_are_refused() {
    let refused = |sampling: Sampling| sampling.validate().unwrap_err();
    let all = Sampling::default;
    for x in [-1.0, -0.1, f32::NAN, f32::INFINITY] {
        assert!(
            matches!(refused(Sampling { temperature: x, ..all() }), SamplingError::Temperature(_)),
            "{x}"
        );
    }
    for x in [0.0, -0.5, 1.1, f32::NAN] {
        assert!(matches!(refused(Sampling { top_p: x, ..all() }), SamplingError::TopP(_)), "{x}");
        assert!(matches!(refused(Sampling { typical_p: x, ..all() }), SamplingError::TypicalP(_)), "{x}");
    }
    for x in [-0.1, 1.1, f32::NAN] {
        assert!(matches!(refused(Sampling { min_p: x, ..all() }), SamplingError::MinP(_)), "{x}");
    }
    let with = |processors| Sampling { processors, ..all() };
    let none = || Processors::NONE;
    for repetition in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = refused(with(Processors { repetition, ..none() }));
        assert!(matches!(error, SamplingError::Repetition(_)), "{repetition}");
    }
    for x in [-2.1, 2.1, f32::NAN, f32::INFINITY] {
        let error = refused(with(Processors { presence: x, ..none() }));
        assert!(matches!(error, SamplingError::Presence(_)), "{x}");
        let error = refused(with(Processors { frequency: x, ..none() }));
        assert!(matches!(error, SamplingError::Frequency(_)), "{x}");
    }
    for bias in [f32::NAN, f32::INFINITY] {
        let error = refused(with(Processors { logit_bias: vec![(3, bias)], ..none() }));
        assert!(matches!(error, SamplingError::LogitBias { id: 3, .. }), "{bias}");
    }
    let error = refused(with(Processors { logit_bias: vec![(3, 1.0), (2, 1.0), (3, 0.0)], ..none() }));
    assert_eq!(error, SamplingError::TwoBiases(3));
    let error = refused(with(Processors { bad_words: vec![vec![1], vec![]], ..none() }));
    assert_eq!(error, SamplingError::EmptyBadWord(1));
    assert_eq!(Sampling { temperature: 0.0, top_p: 1e-9, min_p: 1.0, ..all() }.validate(), Ok(()));
}

#[test]
fn tokens_must_exist() {
    let out_of_range = |processors| {
        let error = Sampler::new(&Sampling { processors, ..Sampling::default() }, 5, &[4]).unwrap_err();
        assert!(error.to_string().contains("the vocabulary has 5 tokens, so the largest is 4"), "{error}");
        match error {
            SamplingError::TokenOutOfRange { setting, id: 5, vocab_size: 5 } => setting,
            other => panic!("{other}"),
        }
    };
    let none = || Processors::NONE;
    assert_eq!(out_of_range(Processors { logit_bias: vec![(4, 1.0), (5, 1.0)], ..none() }), "logit bias");
    assert_eq!(out_of_range(Processors { bad_words: vec![vec![1], vec![1, 5]], ..none() }), "bad words");
    assert_eq!(out_of_range(Processors { stop_tokens: vec![5], ..none() }), "stop tokens");
}

#[test]
fn messages_say_the_value_the_range_and_an_example() {
    let message = |sampling: Sampling| sampling.validate().unwrap_err().to_string();
    let said = message(Sampling { min_p: 1.5, ..Sampling::default() });
    assert_eq!(
        said,
        "min-p is 1.5, but it must be at least 0 (which turns it off) and at most 1, such as 0.05"
    );
    let presence = Processors { presence: 3.0, ..Processors::NONE };
    let said = message(Sampling { processors: presence, ..Sampling::default() });
    assert_eq!(said, "the presence penalty is 3, but it must be from -2 to 2 (0 turns it off), such as 0.5");
}

#[test]
fn logits_that_are_no_numbers_are_refused() {
    for logits in [&[1.0, f32::NAN][..], &[f32::INFINITY, 0.0], &[f32::NEG_INFINITY], &[]] {
        for sampling in [Sampling::GREEDY, Sampling::default()] {
            assert_eq!(draw(&sampling, logits, 3), Err(SamplingError::Logits { position: 3 }));
        }
    }
    // Even where a ban would hide the damage.
    let processors = Processors { logit_bias: vec![(1, f32::NEG_INFINITY)], ..Processors::NONE };
    let ban = Sampling { processors, ..Sampling::GREEDY };
    for bad in [f32::NAN, f32::INFINITY] {
        assert_eq!(draw(&ban, &[1.0, bad], 3), Err(SamplingError::Logits { position: 3 }));
    }
}

#[test]
fn when_every_token_is_banned_that_is_said() {
    let processors = Processors { bad_words: vec![vec![0], vec![1]], ..Processors::NONE };
    let error = draw(&Sampling { processors, ..Sampling::default() }, &[1.0, 2.0], 7);
    assert_eq!(error, Err(SamplingError::NothingLeft { position: 7 }));
}

#[test]
fn a_tiny_repetition_penalty_does_not_overflow() {
    let processors = Processors { repetition: f32::MIN_POSITIVE, ..Processors::NONE };
    let sampler = Sampler::new(&Sampling { processors, ..Sampling::default() }, 3, &[2]).unwrap();
    let history = History { prompt: &[1], generated: &[] };
    assert_eq!(sampler.sample(&mut [5.0, 5.0, 5.0], history, 0).unwrap().id, 1);
}
