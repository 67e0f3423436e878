//! The products against the plain loop, at sizes where tiles, panels and blocks end.

use super::*;
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
    let [m, k, n] = [33, 600, 530];
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
            for rows in [1, 3, 5] {
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
                    Causal::No,
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
                blocked(isa, tiles::Plain::<14, 32>, &mut got, a, b, Out::Set, None);
                // SAFETY: `inside` is borrowed for this call alone.
                unsafe {
                    product_inside(
                        Isa::Portable,
                        (&Shared::new(&mut inside), 0, n),
                        a,
                        b,
                        Out::Set,
                        Causal::No,
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
