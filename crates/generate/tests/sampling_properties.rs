//! What holds for any logits and any settings.

use generate::sampling::Candidate;
use generate::{History, Processors, Sampler, Sampling, top_logprobs};
use proptest::collection::vec;
use proptest::prelude::*;

/// Rows with equal values, far values and banned tokens.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        4 => -8.0..8.0f32,
        2 => (-8..8i32).prop_map(|x| x as f32),
        1 => Just(-1e4),
        1 => Just(f32::NEG_INFINITY),
    ];
    vec(logit, 1..300).prop_map(|mut logits| {
        logits[0] = logits[0].max(-1e4); // one that can be drawn
        logits
    })
}

fn filters() -> impl Strategy<Value = Sampling> {
    let temperature = prop_oneof![Just(1.0f32), 0.01..5.0f32];
    let top_k = prop_oneof![Just(0usize), 1..50usize];
    let share = || prop_oneof![Just(1.0f32), 0.01..1.0f32];
    let min_p = prop_oneof![Just(0.0f32), 0.001..1.0f32];
    (temperature, top_k, share(), min_p, share(), any::<u64>()).prop_map(
        |(temperature, top_k, top_p, min_p, typical_p, seed)| Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            typical_p,
            seed,
            ..Sampling::default()
        },
    )
}

fn penalties() -> impl Strategy<Value = Processors> {
    (0.2..3.0f32, -2.0..2.0f32, -2.0..2.0f32, 0..8usize).prop_map(
        |(repetition, presence, frequency, penalty_window)| Processors {
            repetition,
            presence,
            frequency,
            penalty_window,
            ..Processors::NONE
        },
    )
}

fn sampler(sampling: &Sampling, vocab_size: usize) -> Sampler {
    Sampler::new(sampling, vocab_size, &[]).unwrap()
}

/// The candidates as the definitions say, with sorted lists of all tokens.
fn plainly(sampling: &Sampling, logits: &[f32]) -> Vec<Candidate> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| f64::from((logit - most) / sampling.temperature).exp();
    let mut kept: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    kept.retain(|(_, logit)| logit.is_finite());
    kept.sort_by(|a, b| b.1.total_cmp(&a.1));
    if sampling.top_k > 0 && sampling.top_k < kept.len() {
        let least = kept[sampling.top_k - 1].1;
        kept.retain(|(_, logit)| *logit >= least);
    }
    if sampling.top_p == 1.0 {
        kept.sort_by_key(|(id, _)| *id);
    }
    let mut kept: Vec<Candidate> = kept.into_iter().map(|(id, logit)| (id, weight(logit))).collect();
    if sampling.top_p < 1.0 {
        kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let limit = f64::from(sampling.top_p) * kept.iter().map(|kept| kept.1).sum::<f64>();
        let mut before = 0.0;
        kept.retain(|(_, weight)| {
            before += weight;
            before - weight < limit
        });
    }
    kept.retain(|(_, weight)| *weight >= f64::from(sampling.min_p));
    kept
}

proptest! {
    #[test]
    fn candidates_are_those_of_the_definitions(logits in logits(), filters in filters()) {
        let filters = Sampling { typical_p: 1.0, ..filters };
        let mut scratch = logits.clone();
        let got = sampler(&filters, logits.len()).candidates(&mut scratch, History::default(), 0).unwrap();
        let want = plainly(&filters, &logits);
        // Which tokens reach the share is decided by sums whose order differs: one token more or less is rounding.
        prop_assert!(got.len().abs_diff(want.len()) <= usize::from(filters.top_p < 1.0), "{got:?}, want {want:?}");
        let n = got.len().min(want.len());
        prop_assert!(got[..n] == want[..n], "{got:?}, want {want:?}");
    }

    #[test]
    fn every_draw_is_a_candidate(
        logits in logits(), filters in filters(), processors in penalties(), text in vec(0..300u32, 0..20),
    ) {
        let sampler = sampler(&Sampling { processors, ..filters }, logits.len());
        let (prompt, generated) = text.split_at(text.len() / 2);
        let history = History { prompt, generated };
        let mut scratch = logits.clone();
        let candidates = sampler.candidates(&mut scratch, history, 0).unwrap();
        prop_assert!(!candidates.is_empty());
        for position in 0..8 {
            let drawn = sampler.sample(&mut scratch, history, position).unwrap().id;
            let weight = candidates.iter().find(|(id, _)| *id == drawn).map(|(_, weight)| *weight);
            prop_assert!(weight > Some(0.0), "{drawn} of {candidates:?}");
        }
        prop_assert_eq!(scratch, logits, "the logits come back");
    }

    #[test]
    fn filters_in_turn_only_take_away(logits in logits(), filters in filters()) {
        let n = |sampling: &Sampling| {
            let mut scratch = logits.clone();
            sampler(sampling, logits.len()).candidates(&mut scratch, History::default(), 0).unwrap().len()
        };
        let without_typical = Sampling { typical_p: 1.0, ..filters.clone() };
        let without_min_p = Sampling { min_p: 0.0, ..without_typical.clone() };
        let without_top_p = Sampling { top_p: 1.0, ..without_min_p.clone() };
        let sizes = [&filters, &without_typical, &without_min_p, &without_top_p].map(n);
        prop_assert!(sizes[0] >= 1 && sizes.is_sorted(), "{sizes:?}");
    }

    #[test]
    fn penalties_do_not_depend_on_the_order_of_the_text(
        logits in logits(), processors in penalties(), mut generated in vec(0..40u32, 1..30),
    ) {
        let processors = Processors { penalty_window: 0, ..processors };
        let sampler = sampler(&Sampling { processors, ..Sampling::default() }, logits.len());
        let candidates = |generated: &[u32]| {
            let history = History { prompt: &[3, 1], generated };
            sampler.candidates(&mut logits.clone(), history, 0).unwrap()
        };
        let forwards = candidates(&generated);
        generated.reverse();
        prop_assert_eq!(&candidates(&generated), &forwards);
        generated.sort_unstable();
        prop_assert_eq!(&candidates(&generated), &forwards);
    }

    #[test]
    fn logprobs_are_at_most_zero_and_begin_with_the_most_likely(logits in logits(), k in 0..9usize) {
        let chosen = tensor::rows::argmax(&logits) as u32;
        let got = top_logprobs(&logits, chosen, k);
        prop_assert!(got.logprob <= 0.0 && got.top.len() == k.min(logits.len()));
        prop_assert!(got.top.first().is_none_or(|&(id, logprob)| id == chosen && logprob == got.logprob));
        prop_assert!(got.top.is_sorted_by(|a, b| a.1 >= b.1));
    }
}
