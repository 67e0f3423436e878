//! The products against the plain loop, at sizes where tiles, panels and blocks end.

use super::*;
use crate::bf16::bf16;
use crate::pool;
use crate::random::Stream;
use crate::reference;

fn random(len: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, 0, 0);
    (0..len as u64).map(|i| stream.normal(i)).collect()
}

/// The four layouts of A and B as views of the same numbers.
fn layouts<'a>(
    a: &'a [f32],
    at: &'a [f32],
    b: &'a [f32],
    bt: &'a [f32],
    [m, k, n]: [usize; 3],
) -> [(&'static str, Mat<'a>, Mat<'a>); 4] {
    let (a, at) = (Mat::new(a, m, k), Mat::new(at, k, m).t());
    let (b, bt) = (Mat::new(b, k, n), Mat::new(bt, n, k).t());
    [("NN", a, b), ("TN", at, b), ("NT", a, bt), ("TT", at, bt)]
}

fn transpose(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect()
}

#[test]
fn every_layout_and_edge_on_every_instruction_set() {
    let sizes = [
        [1, 1, 1],
        [1, 7, 3],
        [2, 300, 530],
        [4, 5, 16],
        [5, 9, 17],
        [6, 256, 16],
        [7, 257, 33],
        [14, 3, 32],
    ];
    for size @ [m, k, n] in sizes.into_iter().chain([
        [97, 64, 259],
        [60, 1550, 20],
        [61, 600, 70],
        [1030, 5, 9],
        [9, 4, 2053],
        [8, 40, 1100],
        [48, 33, 100],
        [100, 70, 2100],
        [13, 150, 300],
        [150, 90, 280],
        [230, 70, 90],
        [500, 40, 70],
        [520, 33, 70],
        [310, 780, 150],
    ]) {
        let (a, b) = (random(m * k, 1), random(k * n, 2));
        let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
        let (start, bias) = (random(m * n, 3), random(n, 4));
        let mut want = vec![0.0; m * n];
        reference::gemm(&mut want, &a, &b, size);
        for isa in isa::tested() {
            for (layout, a, b) in layouts(&a, &at, &b, &bt, size) {
                let mut set = vec![f32::NAN; m * n];
                gemm_on(isa, &mut set, a, b, Out::Set, Some(&bias));
                let mut add = start.clone();
                gemm_on(isa, &mut add, a, b, Out::Add, None);
                for i in 0..m * n {
                    let close = |got: f32, want: f32| {
                        (got - want).abs() <= 2e-5 * (k as f32).sqrt() * (1.0 + want.abs())
                    };
                    assert!(close(set[i], want[i] + bias[i % n]), "{isa:?} {layout} {size:?} set {i}");
                    assert!(close(add[i], want[i] + start[i]), "{isa:?} {layout} {size:?} add {i}");
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_company_and_at_any_thread_count() {
    let [m, k, n] = [33, 602, 530];
    let (a, b) = (random(m * k, 1), random(k * n, 2));
    let bt = transpose(&b, k, n);
    for isa in isa::tested() {
        for b in [Mat::new(&b, k, n), Mat::new(&bt, n, k).t()] {
            let mut all = vec![0.0; m * n];
            pool::set_threads(1);
            gemm_on(isa, &mut all, Mat::new(&a, m, k), b, Out::Set, None);
            for threads in [2, 3] {
                pool::set_threads(threads);
                let mut again = vec![0.0; m * n];
                gemm_on(isa, &mut again, Mat::new(&a, m, k), b, Out::Set, None);
                assert!(all == again, "{isa:?}, {threads} threads");
            }
            for rows in [1, 3, 5, 8] {
                let mut few = vec![0.0; rows * n];
                gemm_on(isa, &mut few, Mat::new(&a[..rows * k], rows, k), b, Out::Set, None);
                assert!(few == all[..rows * n], "{isa:?}, {rows} rows");
            }
            let mut serial = vec![0.0; m * n];
            // SAFETY: `serial` is borrowed for this call alone.
            unsafe {
                product_inside(
                    isa,
                    (&Shared::new(&mut serial), 0, n),
                    Mat::new(&a, m, k),
                    b,
                    Out::Set,
                    Causal::Scores { first: isize::MAX / 2 },
                )
            };
            assert!(serial == all, "{isa:?}, serial");
        }
    }
}

/// The shape of the AVX-512 tile, on a CPU that may not have it.
#[test]
fn a_tall_wide_tile_in_plain_rust() {
    for size @ [m, k, n] in [[15, 300, 33], [28, 9, 64], [50, 257, 70], [113, 20, 300]] {
        let (a, b) = (random(m * k, 1), random(k * n, 2));
        let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
        let mut want = vec![0.0; m * n];
        reference::gemm(&mut want, &a, &b, size);
        for isa in isa::tested() {
            for (layout, a, b) in layouts(&a, &at, &b, &bt, size) {
                let (mut got, mut inside) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
                blocked::product(
                    isa,
                    tiles::Plain::<14, 32>,
                    a.into(),
                    Source::Matrix(b.into()),
                    Output::Set(&mut got),
                );
                // SAFETY: `inside` is borrowed for this call alone.
                unsafe {
                    product_inside(
                        Isa::Portable,
                        (&Shared::new(&mut inside), 0, n),
                        a,
                        b,
                        Out::Set,
                        Causal::Scores { first: isize::MAX / 2 },
                    )
                };
                assert!(got == inside, "{layout} {size:?}: the chains differ");
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    let close = (got - want).abs() <= 2e-5 * (k as f32).sqrt() * (1.0 + want.abs());
                    assert!(close, "{layout} {size:?} [{i}] is {got}, not {want}");
                }
            }
        }
    }
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

fn round(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|&x| bf16::from_f32(x)).collect()
}

fn widen(x: &[bf16]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

#[test]
fn products_of_bfloat16_in_every_layout_with_every_output() {
    let sizes = [
        [1, 1, 1],
        [14, 2, 32],
        [15, 7, 33],
        [5, 512, 20],
        [29, 3075, 40],
        [130, 33, 150],
        [9, 40, 2053],
        [70, 1700, 50],
    ];
    for size @ [m, k, n] in sizes {
        let (a, b) = (round(&random(m * k, 1)), round(&random(k * n, 2)));
        let (wide_a, wide_b) = (widen(&a), widen(&b));
        let (at, bt) = (transpose(&wide_a, m, k), transpose(&wide_b, k, n));
        let (half_at, half_bt) = (round(&at), round(&bt));
        let mut panels = vec![0; PairPanels::len_for(k, n)];
        PairPanels::pack(&mut panels, Mat::new(&b, k, n).into());
        let mut want = vec![0.0; m * n];
        reference::gemm(&mut want, &wide_a, &wide_b, size);
        let start = random(m * n, 3);
        for isa in isa::tested() {
            let mut first: Option<Vec<f32>> = None;
            let a_views: [Operand; 4] = [
                Mat::new(&a, m, k).into(),
                Mat::new(&half_at, k, m).t().into(),
                Mat::new(&wide_a, m, k).into(),
                Mat::new(&at, k, m).t().into(),
            ];
            let b_views: [Weight; 5] = [
                Operand::from(Mat::new(&b, k, n)).into(),
                Operand::from(Mat::new(&half_bt, n, k).t()).into(),
                PairPanels::new(&panels, k, n).into(),
                Operand::from(Mat::new(&wide_b, k, n)).into(),
                Operand::from(Mat::new(&bt, n, k).t()).into(),
            ];
            for (i, j) in (0..4).flat_map(|i| (0..5).map(move |j| (i, j))).filter(|&(i, j)| i < 2 || j < 3) {
                let case = format!("{isa:?} {size:?} layouts {i} {j}");
                let (mut set, mut add, mut to) = (vec![f32::NAN; m * n], start.clone(), vec![0.0; m * n]);
                multiply_on(isa, a_views[i], b_views[j], Output::Set(&mut set));
                multiply_on(isa, a_views[i], b_views[j], Output::Add(&mut add));
                multiply_on(isa, a_views[i], b_views[j], Output::To(&Collect(Shared::new(&mut to), n)));
                assert!(to == set, "{case}: what is handed over is what would be stored");
                let first = first.get_or_insert_with(|| set.clone());
                assert!(&set == first, "{case}: the bits depend on the layout");
                for e in 0..m * n {
                    let close =
                        |got: f32, want: f32| (got - want).abs() <= 4e-6 * k as f32 + 1e-5 * want.abs();
                    assert!(close(set[e], want[e]), "{case} [{e}] is {}, not {}", set[e], want[e]);
                    assert!(close(add[e], want[e] + start[e]), "{case} [{e}] added");
                }
            }
        }
    }
}

#[test]
fn products_of_bfloat16_do_not_depend_on_threads_or_company() {
    let [m, k, n] = [70, 1300, 300];
    let (a, b) = (round(&random(m * k, 1)), round(&random(k * n, 2)));
    let b = Mat::new(&b, k, n);
    for isa in isa::tested() {
        let mut all = vec![0.0; m * n];
        pool::set_threads(1);
        multiply_on(isa, Mat::new(&a, m, k).into(), Operand::from(b), Output::Set(&mut all));
        let mut panels = vec![0; PairPanels::len_for(k, n)];
        PairPanels::pack(&mut panels, b.into());
        let weights: [Weight; 2] = [Operand::from(b).into(), PairPanels::new(&panels, k, n).into()];
        for (threads, rows) in [(2, m), (3, m), (2, 1), (2, 4), (1, 5), (2, 9), (1, 20)] {
            pool::set_threads(threads);
            for b in weights {
                let mut part = vec![0.0; rows * n];
                multiply_on(isa, Mat::new(&a[..rows * k], rows, k).into(), b, Output::Set(&mut part));
                assert!(part == all[..rows * n], "{isa:?}, {threads} threads, {rows} rows");
            }
        }
    }
}

#[test]
fn nan_and_infinity_are_not_lost() {
    for isa in isa::tested() {
        let mut c = [0.0; 2];
        gemm_on(
            isa,
            &mut c,
            Mat::new(&[f32::NAN, 1.0], 1, 2),
            Mat::new(&[0.0, 1.0, 1.0, 1.0], 2, 2),
            Out::Set,
            None,
        );
        assert!(c[0].is_nan() && c[1].is_nan());
    }
}

#[test]
fn nothing_to_sum_gives_zero() {
    let mut c = [5.0; 4];
    gemm(&mut c, Mat::new(&[], 2, 0), Mat::new(&[], 0, 2), Out::Set, None);
    assert_eq!(c, [0.0; 4]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever the shape and the layout, a few of its rows multiplied alone have the same bits.
    #[test]
    fn any_shape(m in 1usize..120, k in 1usize..420, n in 1usize..150, layout in 0usize..4, few in 1usize..10) {
        let (a, b) = (random(m * k, 1), random(k * n, 2));
        let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
        let (_, a_view, b_view) = layouts(&a, &at, &b, &bt, [m, k, n])[layout];
        let mut want = vec![0.0; m * n];
        reference::gemm(&mut want, &a, &b, [m, k, n]);
        let few = few.min(m);
        for isa in isa::tested() {
            let (mut all, mut first) = (vec![f32::NAN; m * n], vec![f32::NAN; few * n]);
            gemm_on(isa, &mut all, a_view, b_view, Out::Set, None);
            gemm_on(isa, &mut first, a_view.part(0, few), b_view, Out::Set, None);
            proptest::prop_assert!(first == all[..few * n]);
            for (got, want) in all.iter().zip(&want) {
                proptest::prop_assert!((got - want).abs() <= 2e-5 * (k as f32).sqrt() * (1.0 + want.abs()));
            }
        }
    }
}

/// Values that end where memory does: to read or write one more ends the process.
#[cfg(target_os = "linux")]
fn at_the_end<T: Copy>(values: &[T]) -> &'static mut [T] {
    const PAGE: usize = 1 << 16;
    let bytes = size_of_val(values);
    let before = bytes.next_multiple_of(PAGE);
    // SAFETY: a new mapping, of which the last page is taken away; the values are copied to the end of the others, where
    // they are aligned, since pages are, and the number of bytes is a multiple of their size. It is never unmapped.
    unsafe {
        let (flags, all) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
        let start = libc::mmap(std::ptr::null_mut(), before + PAGE, all, flags, -1, 0);
        assert!(
            start != libc::MAP_FAILED && libc::mprotect(start.byte_add(before), PAGE, libc::PROT_NONE) == 0
        );
        let at = start.byte_add(before - bytes).cast::<T>();
        at.copy_from_nonoverlapping(values.as_ptr(), values.len());
        std::slice::from_raw_parts_mut(at, values.len())
    }
}

#[cfg(target_os = "linux")]
#[test]
fn few_rows_read_nothing_past_the_end() {
    for k in [1, 3, 17, 130] {
        for n in [1, 7, 8, 9, 16, 31, 32, 33, 65, 127, 130, 259] {
            let b = random(k * n, 2);
            let bt = transpose(&b, k, n);
            let (half, half_t) = (at_the_end(&round(&b)), at_the_end(&round(&bt)));
            let (b, bt) = (at_the_end(&b), at_the_end(&bt));
            let mut pairs = vec![0; PairPanels::len_for(k, n)];
            PairPanels::pack(&mut pairs, Mat::new(&*b, k, n).into());
            let pairs = at_the_end(&pairs);
            for m in [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 14, 15, 29, 64, 70, 193] {
                let a = at_the_end(&random(m * k, 1));
                let half_a = at_the_end(&round(a));
                let c = at_the_end(&vec![f32::NAN; m * n]);
                let mut want = vec![0.0; m * n];
                reference::gemm(&mut want, a, b, [m, k, n]);
                let a_views: [Operand; 2] = [Mat::new(&*a, m, k).into(), Mat::new(&*half_a, m, k).into()];
                let b_views: [Weight; 5] = [
                    Operand::from(Mat::new(&*b, k, n)).into(),
                    Operand::from(Mat::new(&*bt, n, k).t()).into(),
                    Operand::from(Mat::new(&*half, k, n)).into(),
                    Operand::from(Mat::new(&*half_t, n, k).t()).into(),
                    PairPanels::new(pairs, k, n).into(),
                ];
                for isa in isa::tested() {
                    for (i, j) in (0..2).flat_map(|i| (0..5).map(move |j| (i, j))) {
                        c.fill(f32::NAN);
                        multiply_on(isa, a_views[i], b_views[j], Output::Set(c));
                        let most = if (i, j / 2) == (0, 0) { 2e-5 } else { 2e-2 } * (k as f32).sqrt();
                        let close = c
                            .iter()
                            .zip(&want)
                            .all(|(got, want)| (got - want).abs() <= most * (1.0 + want.abs()));
                        assert!(close, "{isa:?} {m} × {k} × {n}, A {i}, B {j}");
                    }
                }
            }
        }
    }
}
