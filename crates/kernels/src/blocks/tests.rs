//! The kernels against the plain loop, at sizes where blocks, panels and tiles end; and what the formats promise.

use super::*;
use crate::bf16::bf16;
use crate::gemm::{Mat, Operand, Output, Sink};
use crate::isa::{self, Isa};
use crate::pool::{self, Shared};
use crate::random::Stream;
use crate::reference;

fn random(len: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, 0, 0);
    (0..len as u64).map(|i| stream.normal(i)).collect()
}

/// A matrix whose numbers and scales are anything that a file may hold.
fn any_bytes(format: BlockFormat, k: usize, n: usize, seed: u64) -> Vec<u8> {
    let stream = Stream::new(seed, 0, 0);
    let mut next = 0..;
    let mut random = || (stream.normal(next.next().unwrap()) * 1e3) as i32;
    let mut all: Vec<u8> = (0..format.bytes_for(k, n)).map(|_| random() as u8).collect();
    for chunk in all.chunks_exact_mut(format.block_bytes()) {
        for scale in chunk[..SCALES].as_chunks_mut::<2>().0 {
            *scale = f16::from_f32(random() as f32 / 1e4).to_le_bytes();
        }
    }
    all
}

/// Collects what is handed over, and how often.
struct Collect(Shared<f32>, usize);

impl Sink for Collect {
    fn put(&self, _isa: Isa, at: (usize, usize), values: &mut [f32], stride: usize, cols: usize) {
        for (i, values) in values.chunks(stride).enumerate() {
            let start = (at.0 + i) * self.1 + at.1;
            // SAFETY: each element is handed over once, which the test checks: one handed over twice counts twice.
            let all = unsafe { self.0.part(start, start + cols) };
            all.iter_mut().zip(values).for_each(|(all, x)| *all += *x);
        }
    }
}

/// Whether two results are the same, counting NaN as equal to itself, and where not.
fn same(got: &[f32], want: &[f32], case: &str) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(got == want || got.is_nan() && want.is_nan(), "{case} [{i}]: {got}, not {want}");
    }
    assert_eq!(got.len(), want.len(), "{case}");
}

#[test]
fn every_kernel_computes_what_is_promised() {
    for format in BlockFormat::ALL {
        for (k, n) in [(1, 1), (31, 31), (32, 32), (33, 33), (100, 70), (100, 1), (1, 70), (300, 300)] {
            let data = any_bytes(format, k, n, 7);
            let w = BlockMatrix::new(format, k, n, &data).unwrap();
            for m in (1..=20).chain([25, 32, 33, 64]).filter(|m| m * k * n < 1 << 20) {
                let (x, old) = (random(m * k, 1), random(m * n, 2));
                let want = [false, true].map(|fused| {
                    [vec![0.0; m * n], old.clone()].map(|mut c| {
                        reference::multiply_blocks(&mut c, &x, &w, fused);
                        c
                    })
                });
                for isa in isa::tested() {
                    let case = format!("{} {isa:?} {m} × {k} × {n}", format.name());
                    let [want, want_added] = &want[usize::from(isa >= Isa::Avx2)];
                    let (mut set, mut added, mut to) = (vec![f32::NAN; m * n], old.clone(), vec![0.0; m * n]);
                    let x = Operand::from(Mat::new(&x, m, k));
                    multiply_on(isa, x, &w, Output::Set(&mut set));
                    multiply_on(isa, x, &w, Output::Add(&mut added));
                    multiply_on(isa, x, &w, Output::To(&Collect(Shared::new(&mut to), n)));
                    same(&set, want, &case);
                    same(&added, want_added, &case);
                    same(&to, want, &case);
                }
            }
        }
    }
}

#[test]
fn rows_of_any_layout_and_type() {
    let [m, k, n] = [14, 70, 40];
    let data = any_bytes(BlockFormat::Q6, k, n, 3);
    let w = BlockMatrix::new(BlockFormat::Q6, k, n, &data).unwrap();
    let half: Vec<bf16> = random(m * k, 1).into_iter().map(bf16::from_f32).collect();
    let x: Vec<f32> = half.iter().map(|x| x.to_f32()).collect();
    let turned: Vec<f32> = (0..k * m).map(|i| x[i % m * k + i / m]).collect();
    let half_turned: Vec<bf16> = turned.iter().map(|&x| bf16::from_f32(x)).collect();
    let wide: Vec<f32> = x.chunks(k).flat_map(|row| row.iter().copied().chain([f32::NAN; 3])).collect();
    for isa in isa::tested() {
        let mut want = vec![0.0; m * n];
        reference::multiply_blocks(&mut want, &x, &w, isa >= Isa::Avx2);
        let views: [Operand; 5] = [
            Mat::new(&x, m, k).into(),
            Mat::new(&turned, k, m).t().into(),
            Mat::strided(&wide, m, k, k + 3).into(),
            Mat::new(&half, m, k).into(),
            Mat::new(&half_turned, k, m).t().into(),
        ];
        for (i, view) in views.into_iter().enumerate() {
            let mut got = vec![f32::NAN; m * n];
            multiply_on(isa, view, &w, Output::Set(&mut got));
            same(&got, &want, &format!("{isa:?}, view {i}"));
        }
    }
}

#[test]
fn the_same_bits_alone_and_in_company_at_any_thread_count_and_on_all_fused_levels() {
    let [m, k, n] = [61, 200, 530];
    let x = random(m * k, 1);
    for format in BlockFormat::ALL {
        let data = quantise(format, Mat::new(&random(k * n, 2), k, n), None);
        let w = BlockMatrix::new(format, k, n, &data).unwrap();
        let mut fused: Option<Vec<f32>> = None;
        for isa in isa::tested() {
            let mut all = vec![0.0; m * n];
            pool::set_threads(1);
            multiply_on(isa, Mat::new(&x, m, k).into(), &w, Output::Set(&mut all));
            for (threads, rows) in [(2, m), (3, m), (2, 1), (3, 5), (2, 12), (1, 13), (2, 40)] {
                pool::set_threads(threads);
                let mut part = vec![0.0; rows * n];
                multiply_on(isa, Mat::new(&x[..rows * k], rows, k).into(), &w, Output::Set(&mut part));
                assert!(part == all[..rows * n], "{format:?} {isa:?}, {threads} threads, {rows} rows");
            }
            if isa >= Isa::Avx2 {
                assert!(*fused.get_or_insert_with(|| all.clone()) == all, "{format:?} {isa:?}");
            }
        }
    }
}

#[test]
fn the_largest_numbers_there_can_be() {
    let [m, k, n] = [3, 64, 33];
    let x: Vec<f32> = (0..m * k).map(|i| if i < k || i % m == 0 { 1.0 } else { -1.0 }).collect();
    for format in BlockFormat::ALL {
        let mut data = vec![0xff; format.bytes_for(k, n)];
        data.chunks_mut(format.block_bytes()).for_each(|chunk| chunk[..SCALES].fill(0x3c));
        let w = BlockMatrix::new(format, k, n, &data).unwrap();
        for isa in isa::tested() {
            let (mut got, mut want) = (vec![0.0; m * n], vec![0.0; m * n]);
            multiply_on(isa, Mat::new(&x, m, k).into(), &w, Output::Set(&mut got));
            reference::multiply_blocks(&mut want, &x, &w, isa >= Isa::Avx2);
            same(&got, &want, &format!("{format:?} {isa:?}"));
        }
    }
}

#[test]
fn rows_that_are_not_finite_give_nan_and_tiny_ones_zero() {
    let [m, k, n] = [4, 40, 33];
    let mut x = vec![1.0; m * k];
    (x[3], x[k + 39], x[2 * k]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    x[3 * k..].fill(f32::MIN_POSITIVE / 2.0);
    let data = quantise(BlockFormat::Q4, Mat::new(&random(k * n, 2), k, n), None);
    let w = BlockMatrix::new(BlockFormat::Q4, k, n, &data).unwrap();
    for isa in isa::tested() {
        let mut c = vec![0.0; m * n];
        multiply_on(isa, Mat::new(&x, m, k).into(), &w, Output::Set(&mut c));
        assert!(c[..3 * n].iter().all(|c| c.is_nan()), "{isa:?}");
        assert!(c[3 * n..].iter().all(|&c| c == 0.0), "{isa:?}");
    }
}

#[test]
fn nothing_to_sum_gives_zero() {
    let w = BlockMatrix::new(BlockFormat::Q8, 0, 5, &[]).unwrap();
    let mut c = [5.0; 10];
    multiply(Mat::<f32>::new(&[], 2, 0).into(), &w, Output::Set(&mut c));
    assert_eq!(c, [0.0; 10]);
    assert!(w.dequantise().is_empty());
}

#[test]
fn rounding_changes_weights_by_no_more_than_half_a_step() {
    for format in BlockFormat::ALL {
        for (k, n) in [(1, 1), (31, 33), (32, 32), (100, 70)] {
            let w = random(k * n, 5);
            let data = quantise(format, Mat::new(&w, k, n), None);
            let blocks = BlockMatrix::new(format, k, n, &data).unwrap();
            blocks.check().unwrap();
            let back = blocks.dequantise();
            let mut column = vec![0.0; k];
            for j in 0..n {
                blocks.dequantise_column(j, &mut column);
                for i in 0..k {
                    let (got, want, scale) =
                        (back[i * n + j], w[i * n + j], blocks.scale(i / BLOCK, j).to_f32());
                    assert_eq!(got, column[i]);
                    // The largest of a block may be clipped by more, where that is better for the others.
                    let clipped =
                        blocks.number(i, j) == format.range().0 || blocks.number(i, j) == format.range().1;
                    let step = scale.abs() * if clipped { 4.0 } else { 0.501 };
                    assert!((got - want).abs() <= step, "{format:?} {k} × {n} ({i}, {j}): {got}, not {want}");
                }
            }
            let turned: Vec<f32> = (0..n * k).map(|i| w[i % k * n + i / k]).collect();
            for isa in isa::tested() {
                let again = quantise::quantise_on(isa, format, Mat::new(&turned, n, k).t(), None);
                assert!(again == data, "{format:?} {k} × {n}: the bytes depend on the layout or on {isa:?}");
            }
        }
    }
}

/// The error of the simplest way: the largest weight of a block becomes the largest number.
fn naive_error(format: BlockFormat, w: &[f32; BLOCK]) -> f32 {
    let most = w.iter().fold(0.0, |most: f32, w| most.max(w.abs()));
    let scale = f16::from_f32(most / format.range().1 as f32);
    w.iter().map(|&w| (w - format.weight(format.level(w, scale), scale)).powi(2)).sum()
}

#[test]
fn the_search_beats_the_simplest_way() {
    for (format, better) in [(BlockFormat::Q8, 0.86), (BlockFormat::Q6, 0.84), (BlockFormat::Q4, 0.72)] {
        let (mut simple, mut searched) = (0.0, 0.0);
        for w in random(1000 * BLOCK, 9).as_chunks::<BLOCK>().0 {
            let (scale, levels) = quantise_block(format, w, None);
            let changes = w.iter().zip(levels).map(|(w, level)| w - format.weight(level, scale));
            let error: f32 = changes.map(|change| change * change).sum();
            let naive = naive_error(format, w);
            assert!(error <= naive, "{format:?} {w:?}");
            (simple, searched) = (simple + naive, searched + error);
        }
        assert!(searched < better * simple, "{format:?}: {searched} against {simple}");
    }
}

#[test]
fn what_is_important_is_kept_better() {
    let mut importance = [1.0; BLOCK];
    importance[3] = 1e4;
    let (mut plain, mut weighted) = (0.0, 0.0);
    for w in random(100 * BLOCK, 9).as_chunks::<BLOCK>().0 {
        let change = |importance: Option<&[f32; BLOCK]>| {
            let (scale, levels) = quantise_block(BlockFormat::Q4, w, importance);
            (w[3] - BlockFormat::Q4.weight(levels[3], scale)).abs()
        };
        (plain, weighted) = (plain + change(None), weighted + change(Some(&importance)));
    }
    assert!(weighted < 0.3 * plain, "{weighted} against {plain}");
}

#[test]
fn a_block_stored_by_hand_is_that_of_the_whole() {
    for format in BlockFormat::ALL {
        let (k, n) = (70, 40);
        let (w, importance) = (random(k * n, 1), random(k, 2).iter().map(|x| x * x).collect::<Vec<_>>());
        let whole = quantise(format, Mat::new(&w, k, n), Some(&importance));
        let mut by_hand = vec![0xa5; format.bytes_for(k, n)];
        for (p, panel) in by_hand.chunks_mut(format.panel_bytes(k)).enumerate() {
            for (block, column) in
                (0..k.div_ceil(BLOCK)).flat_map(|block| (0..PANEL).map(move |c| (block, c)))
            {
                let at = |i: usize| (block * BLOCK + i, p * PANEL + column);
                let there = |(i, j): (usize, usize)| i < k && j < n;
                let weights =
                    std::array::from_fn(|i| if there(at(i)) { w[at(i).0 * n + at(i).1] } else { 0.0 });
                let of_rows = std::array::from_fn(|i| importance.get(at(i).0).copied().unwrap_or(1.0));
                let (scale, levels) = quantise_block(format, &weights, Some(&of_rows));
                format.store(panel, block, column, scale, &levels);
            }
        }
        assert!(by_hand == whole, "{format:?}");
    }
}

#[test]
fn what_is_not_a_matrix_is_refused() {
    let data = quantise(BlockFormat::Q4, Mat::new(&random(64 * 40, 1), 64, 40), None);
    let error = BlockMatrix::new(BlockFormat::Q4, 64, 40, &data[1..]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a 64 × 40 matrix in q4 takes 2304 bytes, but there are 2303; the file is damaged, or its shape is another's"
    );
    let error = BlockMatrix::new(BlockFormat::Q8, 64, 40, &data).unwrap_err();
    assert!(matches!(error, BlockError::Length { len: 2304, .. }));
    let error = BlockMatrix::new(BlockFormat::Q8, usize::MAX, usize::MAX, &data).unwrap_err();
    assert!(matches!(error, BlockError::TooLarge { .. }));
    for bad in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY, f16::NEG_ZERO] {
        let mut data = data.clone();
        // Block 1 of column 35: the second chunk of the second panel.
        data[3 * 576 + 2 * 3..][..2].copy_from_slice(&bad.to_le_bytes());
        let error = BlockMatrix::new(BlockFormat::Q4, 64, 40, &data).unwrap().check().unwrap_err();
        assert!(matches!(error, BlockError::Scale { block: 1, column: 35, .. }), "{error}");
    }
}

#[test]
fn weights_that_are_not_finite_are_found() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut w = random(64 * 40, 1);
        w[40 * 40 + 7] = bad;
        let data = quantise(BlockFormat::Q6, Mat::new(&w, 64, 40), None);
        let error = BlockMatrix::new(BlockFormat::Q6, 64, 40, &data).unwrap().check().unwrap_err();
        assert!(matches!(error, BlockError::Scale { block: 1, column: 7, .. }), "{error}");
    }
    // Too large or too small for a half, but finite: the nearest there is.
    for w in [1e9, 1e-12, 0.0] {
        let (scale, levels) = quantise_block(BlockFormat::Q4, &[w; BLOCK], None);
        assert!(scale.is_finite() && levels.iter().all(|&level| level <= 15), "{w}");
    }
}

#[test]
fn blocks_put_together_again_are_the_matrix() {
    for format in BlockFormat::ALL {
        for (k, n) in [(32, 1), (70, 40), (64, 33)] {
            let data = quantise(format, Mat::new(&random(k * n, 3), k, n), None);
            let matrix = BlockMatrix::new(format, k, n, &data).unwrap();
            let again = assemble(format, k, n, |column, i, levels| {
                let (scale, numbers) = matrix.block(i, column);
                *levels = numbers.map(|number| (i32::from(number) + format.offset()) as u8);
                scale
            });
            assert!(again == data, "{format:?} {k} × {n}");
        }
    }
}
