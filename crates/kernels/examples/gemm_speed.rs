//! Times matrix products at the shapes of a model against the measured peak: `cargo run --release --example gemm_speed`.

use kernels::gemm::{Mat, Out, gemm};
use std::time::Instant;

fn main() {
    for threads in [1, kernels::pool::threads()] {
        kernels::pool::set_threads(threads);
        let peaks = kernels::peak::measure();
        println!("{threads} threads: peak {:.0} GFLOP/s, {:.1} GB/s", peaks.f32_gflops, peaks.mem_read_gb_s);
        for (m, k, n) in [
            (768, 128, 384),
            (768, 128, 512),
            (768, 512, 128),
            (1024, 768, 3072),
            (1024, 3072, 768),
            (1, 768, 3072),
        ] {
            let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
            let (at, bt) = (Mat::new(&a, k, m).t(), Mat::new(&b, n, k).t());
            let (a, b) = (Mat::new(&a, m, k), Mat::new(&b, k, n));
            let mut c = vec![0.0; m * n];
            let flops = (2 * m * k * n) as f64;
            for (layout, a, b) in [("NN", a, b), ("NT", a, bt), ("TN", at, b)] {
                let mut best = f64::INFINITY;
                for _ in 0..(2e9 / flops) as usize + 5 {
                    let start = Instant::now();
                    gemm(&mut c, a, b, Out::Set, None);
                    best = best.min(start.elapsed().as_secs_f64());
                }
                let rate = flops / best / 1e9;
                println!(
                    "{m:>5} × {k:>4} × {n:>5} {layout}: {rate:6.1} GFLOP/s, {:3.0} %",
                    100.0 * rate / peaks.f32_gflops
                );
            }
        }
    }
}
