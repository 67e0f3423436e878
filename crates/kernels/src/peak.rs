//! What this machine can do at best: the figures that speed is measured against.

use std::hint::black_box;
use std::time::Instant;

use crate::isa::{self, Isa, vectorised};
use crate::pool;

/// Measured ceilings, with all threads.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    /// Multiply-adds in registers, two operations each.
    pub f32_gflops: f64,
    /// The same for pairs of bfloat16, where the CPU has them.
    pub bf16_gflops: Option<f64>,
    /// The same for 8-bit integers, four at a time, where the CPU has them.
    pub int8_gops: Option<f64>,
    /// Reading memory, in order or in eight places at once, whichever is faster.
    pub mem_read_gb_s: f64,
}

/// Independent chains of vectors: enough to hide the latency of two multiply-add units.
const CHAINS: usize = 12;
/// Values of the buffer that is read: 128 MiB, more than most caches hold.
const MEMORY: usize = 1 << 25;
/// Places that a thread reads at once: what a processor sees coming in one page at a time may be less than memory gives.
const PLACES: usize = 8;

/// Defines `rounds` rounds of a multiply-add in each chain, with nothing but registers. `$start` gives a
/// chain's beginning and what it is multiplied by, `$step` the next value of a chain.
#[cfg(target_arch = "x86_64")]
macro_rules! register_chains {
    ($name:ident, $features:literal, $start:expr, |$acc:ident, $x:ident| $step:expr) => {
        #[target_feature(enable = $features)]
        fn $name(rounds: usize, x: f32) {
            use std::arch::x86_64::*;
            let (start, $x) = $start(x);
            let mut acc = [start; CHAINS];
            for _ in 0..rounds {
                for $acc in &mut acc {
                    *$acc = $step;
                }
            }
            black_box(acc);
        }
    };
}
#[cfg(target_arch = "x86_64")]
register_chains!(
    chains_avx2,
    "avx2,fma",
    |x| (_mm256_set1_ps(x), (_mm256_set1_ps(x), _mm256_set1_ps(0.25))),
    |acc, x| _mm256_fmadd_ps(*acc, x.0, x.1)
);
#[cfg(target_arch = "x86_64")]
register_chains!(
    chains_avx512,
    "avx512f,avx2,fma",
    |x| (_mm512_set1_ps(x), (_mm512_set1_ps(x), _mm512_set1_ps(0.25))),
    |acc, x| _mm512_fmadd_ps(*acc, x.0, x.1)
);
#[cfg(target_arch = "x86_64")]
register_chains!(
    chains_bf16,
    "avx512bf16,avx512f,avx2,fma",
    |x| (_mm512_set1_ps(x), _mm512_cvtne2ps_pbh(_mm512_set1_ps(x), _mm512_set1_ps(x))),
    |acc, x| _mm512_dpbf16_ps(*acc, x, x)
);
#[cfg(target_arch = "x86_64")]
register_chains!(
    chains_int8,
    "avx512vnni,avx512f,avx2,fma",
    |x| (_mm512_setzero_si512(), _mm512_set1_epi8(x as i8 + 3)),
    |acc, x| _mm512_dpbusd_epi32(*acc, x, x)
);

/// Rounds of four products of tiles, of bytes or of pairs of bfloat16.
#[cfg(target_arch = "x86_64")]
fn tile_products(_: isa::Amx, bytes: bool, rounds: usize) {
    use crate::amx::{SIDE, Shapes, tiles};
    // SAFETY: an `Amx` exists; and nothing but registers is touched.
    unsafe {
        Shapes::new([(SIDE, 64); 8]).set();
        for _ in 0..rounds {
            if bytes {
                tiles!("tdpbssd tmm0, tmm4, tmm6", "tdpbssd tmm1, tmm5, tmm6");
                tiles!("tdpbssd tmm2, tmm4, tmm7", "tdpbssd tmm3, tmm5, tmm7");
            } else {
                tiles!("tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm5, tmm6");
                tiles!("tdpbf16ps tmm2, tmm4, tmm7", "tdpbf16ps tmm3, tmm5, tmm7");
            }
        }
    }
}

/// The same in plain Rust, four lanes a chain.
fn chains_portable(rounds: usize, x: f32) {
    let mut acc = [[x; 4]; CHAINS];
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = acc.map(|acc| acc * x + 0.25);
        }
    }
    black_box(acc);
}

/// Runs `rounds` rounds and returns the number of floating-point operations.
fn multiply_add(isa: Isa, rounds: usize) -> usize {
    let x = black_box(0.75);
    let lanes = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx if isa::Avx512::detect().is_some() => {
            // SAFETY: `detect` has found AVX-512 on this CPU.
            unsafe { chains_avx512(rounds, x) };
            16
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa::Avx2::detect().is_some() => {
            // SAFETY: `detect` has found AVX2 and FMA on this CPU.
            unsafe { chains_avx2(rounds, x) };
            8
        }
        _ => {
            chains_portable(rounds, x);
            4
        }
    };
    2 * rounds * CHAINS * lanes
}

vectorised! {
    fn read(x: &[f32]) -> f32 {
        crate::math::sum(x, |x| x)
    }
}

vectorised! {
    fn read_places(x: &[f32]) -> f32 {
        let (lines, _) = x.as_chunks::<16>();
        let part = lines.len() / PLACES;
        let mut sums = [[0.0; 16]; PLACES];
        for i in 0..part {
            for (place, sums) in sums.iter_mut().enumerate() {
                sums.iter_mut().zip(lines[place * part + i]).for_each(|(sum, x)| *sum += x);
            }
        }
        sums.as_flattened().iter().sum()
    }
}

/// Runs rounds of products of pairs of bfloat16, or of 8-bit integers, where the CPU has them; operations done.
#[cfg(target_arch = "x86_64")]
fn narrow_products(isa: Isa, bytes: bool, rounds: usize) -> Option<usize> {
    let x = black_box(0.75);
    if isa >= Isa::Amx
        && let Some(amx) = isa::Amx::detect()
    {
        tile_products(amx, bytes, rounds);
        return Some(rounds * 4 * 2 * 16 * 16 * if bytes { 64 } else { 32 });
    }
    if bytes && isa >= Isa::Avx512Vnni && isa::Avx512Vnni::detect().is_some() {
        // SAFETY: `detect` has found the features on this CPU.
        unsafe { chains_int8(rounds, x) };
        return Some(2 * 64 * rounds * CHAINS);
    }
    if !bytes && isa >= Isa::Avx512Bf16 && isa::Avx512Bf16::detect().is_some() {
        // SAFETY: `detect` has found the features on this CPU.
        unsafe { chains_bf16(rounds, x) };
        return Some(2 * 32 * rounds * CHAINS);
    }
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn narrow_products(_isa: Isa, _bytes: bool, _rounds: usize) -> Option<usize> {
    None
}

/// The best of some short runs of each; takes about half a second.
pub fn measure() -> Peaks {
    const ROUNDS: usize = 1 << 20;
    let (isa, threads) = (isa::current(), pool::threads());
    let best = |f: &(dyn Fn(usize) + Sync)| -> f64 {
        let run = |_| {
            let start = Instant::now();
            pool::for_each(threads, f);
            start.elapsed().as_secs_f64()
        };
        (0..5).map(run).fold(f64::INFINITY, f64::min)
    };
    let operations = multiply_add(isa, 1) * ROUNDS * threads;
    let seconds = best(&|_| _ = multiply_add(isa, ROUNDS));
    let narrow = |bytes: bool| {
        let operations = narrow_products(isa, bytes, 1)? * ROUNDS * threads;
        Some(operations as f64 / best(&|_| _ = narrow_products(isa, bytes, ROUNDS)) / 1e9)
    };
    let memory = vec![1.0f32; MEMORY];
    let share = MEMORY / threads;
    let part = |i: usize| &memory[i * share..(i + 1) * share];
    let in_order = best(&|i| _ = black_box(read(isa, part(i))));
    let read_seconds = in_order.min(best(&|i| _ = black_box(read_places(isa, part(i)))));
    Peaks {
        f32_gflops: operations as f64 / seconds / 1e9,
        bf16_gflops: narrow(false),
        int8_gops: narrow(true),
        mem_read_gb_s: (threads * share * size_of::<f32>()) as f64 / read_seconds / 1e9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_counts_its_operations() {
        for isa in isa::tested() {
            let lanes = if isa >= Isa::Avx512 {
                16
            } else if isa >= Isa::Avx2 {
                8
            } else {
                4
            };
            assert_eq!(multiply_add(isa, 10), 10 * 2 * CHAINS * lanes, "{isa:?}");
        }
        let peaks = measure();
        let narrow = [peaks.bf16_gflops, peaks.int8_gops].into_iter().flatten().all(|rate| rate > 0.0);
        assert!(narrow && peaks.f32_gflops > 0.0 && peaks.mem_read_gb_s > 0.0, "{peaks:?}");
    }
}
