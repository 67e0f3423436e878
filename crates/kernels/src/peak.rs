//! What this machine can do at best: the figures that speed is measured against.

use std::hint::black_box;
use std::time::Instant;

use crate::isa::{self, fma, vectorised};
use crate::pool;

/// Measured ceilings, with all threads.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    /// Multiply-adds in registers, two operations each.
    pub f32_gflops: f64,
    /// Reading memory in order.
    pub mem_read_gb_s: f64,
}

vectorised! {
    /// 7 · 16 independent chains of multiply-adds: enough to hide their latency, few enough for the registers.
    fn chains(rounds: usize, x: f32) -> f32 {
        let mut acc = [[x; 16]; 7];
        for _ in 0..rounds {
            for row in acc.iter_mut() {
                row.iter_mut().for_each(|acc| *acc = fma::<FMA>(*acc, x, 0.25));
            }
        }
        acc.iter().flatten().sum()
    }
}

vectorised! {
    fn read(x: &[f32]) -> f32 {
        crate::math::sum(x.len(), |i| x[i])
    }
}

/// The best of three short runs of each; takes a few tens of milliseconds.
pub fn measure() -> Peaks {
    let (isa, threads) = (isa::current(), pool::threads());
    let best = |f: &(dyn Fn(usize) + Sync)| -> f64 {
        let run = |_| {
            let start = Instant::now();
            pool::for_each(threads, f);
            start.elapsed().as_secs_f64()
        };
        (0..3).map(run).fold(f64::INFINITY, f64::min)
    };
    const ROUNDS: usize = 1 << 18;
    let seconds = best(&|_| _ = black_box(chains(isa, ROUNDS, black_box(0.75))));
    let memory = vec![1.0f32; 1 << 24];
    let share = memory.len() / threads;
    let read_seconds = best(&|i| _ = black_box(read(isa, &memory[i * share..(i + 1) * share])));
    Peaks {
        f32_gflops: (threads * ROUNDS * 7 * 16 * 2) as f64 / seconds / 1e9,
        mem_read_gb_s: (threads * share * size_of::<f32>()) as f64 / read_seconds / 1e9,
    }
}
