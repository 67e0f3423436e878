//! How long a draw takes with GPT-2's vocabulary: `cargo bench -p generate`. No thread but one is used.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use generate::{History, Processors, Sampler, Sampling, top_logprobs};
use tensor::random::Stream;

const VOCAB_SIZE: usize = 50_257;

/// Logits as spread as those of a trained model.
fn logits() -> Vec<f32> {
    let random = Stream::new(1, 0, 0);
    (0..VOCAB_SIZE as u64).map(|i| 3.0 * random.normal(i)).collect()
}

fn settings() -> Vec<(&'static str, Sampling)> {
    let all = || Sampling { temperature: 0.8, ..Sampling::default() };
    let penalties =
        Processors { repetition: 1.1, presence: 0.5, frequency: 0.5, no_repeat_ngram: 3, ..Processors::NONE };
    vec![
        ("greedy", Sampling::GREEDY),
        ("temperature", all()),
        ("top-k 40", Sampling { top_k: 40, ..all() }),
        ("top-k 1000", Sampling { top_k: 1000, ..all() }),
        ("top-k 40, top-p 0.95", Sampling { top_k: 40, top_p: 0.95, ..all() }),
        ("top-p 0.95", Sampling { top_p: 0.95, ..all() }),
        ("min-p 0.05", Sampling { min_p: 0.05, ..all() }),
        ("typical-p 0.9", Sampling { typical_p: 0.9, ..all() }),
        ("top-k 40, penalties over 1000 tokens", Sampling { top_k: 40, processors: penalties, ..all() }),
    ]
}

fn draws(c: &mut Criterion) {
    let mut logits = logits();
    let random = Stream::new(2, 0, 0);
    let text: Vec<u32> = (0..1000).map(|i| random.below(i, 2000) as u32).collect();
    let history = History { prompt: &text[..200], generated: &text[200..] };
    let mut group = c.benchmark_group("draw");
    for (name, sampling) in settings() {
        let sampler = Sampler::new(&sampling, VOCAB_SIZE, &[VOCAB_SIZE as u32 - 1]).unwrap();
        let mut position = 0;
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                position += 1;
                sampler.sample(&mut logits, history, position).unwrap()
            });
        });
    }
    group.bench_function("logprobs of 5", |b| b.iter(|| top_logprobs(&logits, 7, 5)));
    group.finish();
}

criterion_group!(benches, draws);
criterion_main!(benches);
