//! Times the kernels at the shapes of GPT-2 124M and of small models: `cargo bench -p kernels [-- gemm]`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kernels::attention::{
    AttentionShape, attention, attention_backward, attention_backward_bf16, attention_bf16, default_scale,
};
use kernels::bf16::{Values, ValuesMut, bf16};
use kernels::blocks::{self, BlockFormat, BlockMatrix};
use kernels::gemm::{Mat, Operand, Out, Output, gemm, multiply};
use kernels::optim::{AdamStep, adam};
use kernels::random::{Dropout, Stream};
use kernels::rows;

fn random(len: usize) -> Vec<f32> {
    let stream = Stream::new(1, 2, 3);
    (0..len as u64).map(|i| stream.normal(i)).collect()
}

fn half(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|&x| bf16::from_f32(x)).collect()
}

/// The same layers in bfloat16, with weights in `f32`: forward, gradient by the input, gradient by the weight.
fn bf16_gemms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gemm bf16");
    for [m, k, n] in
        [[768, 128, 512], [1024, 768, 2304], [1024, 768, 3072], [1024, 3072, 768], [512, 768, 50257]]
    {
        let (x, w, dout) = (half(&random(m * k)), random(k * n), half(&random(m * n)));
        let [mut out, mut dx, mut dw] = [m * n, m * k, k * n].map(|len| vec![0.0; len]);
        let (x, w, dout) = (Mat::new(&x, m, k), Mat::new(&w, k, n), Mat::new(&dout, m, n));
        group.throughput(Throughput::Elements(2 * (m * k * n) as u64));
        let name = |what| format!("{m}x{k}x{n} {what}");
        group.bench_function(name("forward"), |bench| {
            bench.iter(|| multiply(x.into(), Operand::from(w), Output::Set(&mut out)));
        });
        group.bench_function(name("dx"), |bench| {
            bench.iter(|| multiply(dout.into(), Operand::from(w.t()), Output::Set(&mut dx)));
        });
        group.bench_function(name("dw"), |bench| {
            bench.iter(|| multiply(x.t().into(), Operand::from(dout), Output::Add(&mut dw)));
        });
    }
}

/// Products in the three layouts of a layer: forward, gradient by the input, gradient by the weight.
/// "Elements" are floating-point operations.
fn gemms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gemm");
    let small = [[768, 128, 384], [768, 128, 512], [768, 512, 128]];
    let large = [[1024, 768, 2304], [1024, 768, 3072], [1024, 3072, 768], [64, 768, 50257]];
    let one = [[1, 768, 3072], [1, 768, 50257]];
    for [m, k, n] in small.into_iter().chain(large).chain(one) {
        let (a, b, mut c) = (random(m * k), random(k * n), vec![0.0; m * n]);
        let (at, bt) = (Mat::new(&a, k, m).t(), Mat::new(&b, n, k).t());
        let (a, b) = (Mat::new(&a, m, k), Mat::new(&b, k, n));
        group.throughput(Throughput::Elements(2 * (m * k * n) as u64));
        for (layout, a, b) in [("NN", a, b), ("NT", a, bt), ("TN", at, b)] {
            let name = format!("{m}x{k}x{n} {layout}");
            group.bench_function(name, |bench| bench.iter(|| gemm(&mut c, a, b, Out::Set, None)));
        }
    }
}

/// Products with weights in blocks: from one row, which is bound by memory, to many. "Elements" are operations.
fn block_products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("blocks");
    for [k, n] in [[768, 2304], [768, 3072], [3072, 768], [768, 50257]] {
        let w = random(k * n);
        for format in BlockFormat::ALL {
            let data = blocks::quantise(format, Mat::new(&w, k, n), None);
            let w = BlockMatrix::new(format, k, n, &data).expect("as many bytes as it should have");
            for m in [1, 4, 8, 16, 32, 128, 512] {
                let (x, mut out) = (random(m * k), vec![0.0; m * n]);
                let x = Mat::new(&x, m, k);
                group.throughput(Throughput::Elements(2 * (m * k * n) as u64));
                group.bench_function(format!("{} {m}x{k}x{n}", format.name()), |bench| {
                    bench.iter(|| blocks::multiply(x.into(), &w, Output::Set(&mut out)));
                });
            }
        }
    }
}

/// Rounding weights to blocks. "Elements" are weights.
fn quantisations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("quantise");
    let (k, n) = (768, 3072);
    let w = random(k * n);
    group.throughput(Throughput::Elements((k * n) as u64));
    for format in BlockFormat::ALL {
        group.bench_function(format.name(), |bench| {
            bench.iter(|| blocks::quantise(format, Mat::new(&w, k, n), None));
        });
    }
}

fn attentions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    for (batch, time, n_head, head_dim, p) in
        [(12, 64, 4, 32, 0.0), (4, 256, 12, 64, 0.0), (1, 1024, 12, 64, 0.0), (16, 256, 6, 64, 0.2)]
    {
        let shape = AttentionShape { batch, time, n_head, head_dim, scale: default_scale(head_dim) };
        let tokens = batch * time;
        let c = n_head * head_dim;
        let (qkv, dout) = (random(tokens * 3 * c), random(tokens * c));
        let (mut out, mut lse, mut dqkv) =
            (vec![0.0; tokens * c], vec![0.0; tokens * n_head], vec![0.0; tokens * 3 * c]);
        let dropout = (p > 0.0).then_some(Dropout { p, stream: Stream::new(4, 5, 6) });
        group.throughput(Throughput::Elements(tokens as u64));
        let name = format!("{batch}x{time}, {n_head} heads of {head_dim}, dropout {p}");
        group.bench_function(format!("forward {name}"), |bench| {
            bench.iter(|| attention(&mut out, &mut lse, &qkv, &shape, None, dropout));
        });
        group.bench_function(format!("backward {name}"), |bench| {
            bench.iter(|| attention_backward(&mut dqkv, &dout, &out, &lse, &qkv, &shape, None, dropout));
        });
        let (qkv, dout, mut out, mut dqkv) = (half(&qkv), half(&dout), half(&out), half(&dqkv));
        group.bench_function(format!("bf16 forward {name}"), |bench| {
            bench.iter(|| attention_bf16(&mut out, &mut lse, &qkv, &shape, None, dropout));
        });
        group.bench_function(format!("bf16 backward {name}"), |bench| {
            bench.iter(|| attention_backward_bf16(&mut dqkv, &dout, &out, &lse, &qkv, &shape, None, dropout));
        });
    }
}

fn row_kernels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    let (rows, c) = (1024, 768);
    let (x, w, b) = (random(rows * c), random(c), random(c));
    let [mut out, mut dx] = [vec![0.0; rows * c], vec![0.0; rows * c]];
    let [mut mean, mut rstd] = [vec![0.0; rows], vec![0.0; rows]];
    let [mut dw, mut db] = [vec![0.0; c], vec![0.0; c]];
    group.throughput(Throughput::Elements((rows * c) as u64));
    group.bench_function("layer_norm", |bench| {
        bench.iter(|| rows::layer_norm(ValuesMut::F32(&mut out), &mut mean, &mut rstd, &x, &w, &b, 1e-5));
    });
    group.bench_function("layer_norm_backward", |bench| {
        bench.iter(|| {
            rows::layer_norm_backward(&mut dx, &mut dw, &mut db, Values::F32(&x), &x, &w, &mean, &rstd)
        });
    });
    let d = Dropout { p: 0.1, stream: Stream::new(4, 5, 6) };
    group.bench_function("dropout", |bench| bench.iter(|| rows::dropout(&mut out, &x, d)));
    group.bench_function("add", |bench| bench.iter(|| rows::add(&mut out, &x, &dx)));
    group.bench_function("sum_rows", |bench| bench.iter(|| rows::sum_rows(&mut db, Values::F32(&x))));
}

fn cross_entropies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cross_entropy");
    for (rows, vocab) in [(768, 65), (64, 50257)] {
        let (logits, targets, weights) = (random(rows * vocab), vec![7; rows], vec![0.1; rows]);
        let mut loss = vec![0.0; rows];
        group.throughput(Throughput::Elements((rows * vocab) as u64));
        group.bench_function(format!("{rows}x{vocab}"), |bench| {
            let step = |mut logits: Vec<f32>| {
                rows::cross_entropy(&mut logits, &mut loss, &targets, &weights);
                logits
            };
            bench.iter_batched(|| logits.clone(), step, BatchSize::LargeInput);
        });
        group.bench_function(format!("{rows}x{vocab} loss only"), |bench| {
            bench.iter(|| rows::cross_entropy_loss(black_box(&mut loss), &logits, &targets));
        });
    }
}

fn optimisers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("adam");
    for n in [128 * 512, 1 << 24] {
        let (mut p, g, mut m, mut v) = (random(n), random(n), vec![0.0; n], vec![0.0; n]);
        let (lr, beta1, beta2, eps) = (1e-3, 0.9, 0.95, 1e-8);
        let s =
            AdamStep { lr, beta1, beta2, eps, weight_decay: 0.1, step: 3, decoupled: true, grad_scale: 1.0 };
        group.throughput(Throughput::Bytes(7 * 4 * n as u64)); // reads four values, writes three
        group.bench_function(format!("{n}"), |bench| bench.iter(|| adam(&mut p, &mut m, &mut v, &g, &s)));
    }
}

criterion_group!(
    benches,
    gemms,
    bf16_gemms,
    block_products,
    quantisations,
    attentions,
    row_kernels,
    cross_entropies,
    optimisers
);
criterion_main!(benches);
