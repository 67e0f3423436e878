//! The loops against their plain versions, at lengths where vectors and blocks end.

use super::cross_entropy::cross_entropy_on;
use super::norm::{layer_norm_backward_input_on, layer_norm_backward_on, layer_norm_on};
use super::*;
use crate::random::Stream;
use crate::reference;

fn random(len: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, 0, 0);
    (0..len as u64).map(|i| stream.normal(i)).collect()
}

#[track_caller]
fn assert_close(got: &[f32], want: &[f32], case: &str) {
    assert_eq!(got.len(), want.len(), "{case}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= 3e-5 * (1.0 + want.abs()), "{case}: [{i}] is {got}, not {want}");
    }
}

const SHAPES: [(usize, usize); 7] = [(1, 1), (3, 7), (2, 16), (33, 17), (65, 63), (100, 64), (5, 768)];

#[test]
fn layer_norm_and_its_backward() {
    for (rows, c) in SHAPES {
        let [x, dout] = [random(rows * c, 1), random(rows * c, 2)];
        let [w, b] = [random(c, 3), random(c, 4)];
        let [mut want, mut wm, mut wr] = [vec![0.0; rows * c], vec![0.0; rows], vec![0.0; rows]];
        reference::layer_norm(&mut want, &mut wm, &mut wr, &x, &w, &b, 1e-5);
        let [mut wdx, mut wdw, mut wdb] = [random(rows * c, 5), random(c, 6), random(c, 7)];
        let start = [wdx.clone(), wdw.clone(), wdb.clone()];
        reference::layer_norm_backward(&mut wdx, &mut wdw, &mut wdb, &dout, &x, &w, &wm, &wr);
        for isa in isa::tested() {
            let case = format!("{isa:?} {rows} × {c}");
            let [mut out, mut mean, mut rstd] = [vec![0.0; rows * c], vec![0.0; rows], vec![0.0; rows]];
            layer_norm_on(isa, ValuesMut::F32(&mut out), &mut mean, &mut rstd, &x, &w, &b, 1e-5);
            assert_close(&out, &want, &case);
            let [mut dx, mut dw, mut db] = start.clone();
            layer_norm_backward_on(isa, &mut dx, &mut dw, &mut db, Values::F32(&dout), &x, &w, &mean, &rstd);
            if c > 1 {
                assert_close(&dx, &wdx, &case);
            }
            assert_close(&dw, &wdw, &case);
            assert_close(&db, &wdb, &case);
            let mut alone = start[0].clone();
            layer_norm_backward_input_on(isa, &mut alone, Values::F32(&dout), &x, &w, &mean, &rstd);
            assert!(alone == dx, "{case}: the gradient by the input alone");
        }
    }
}

#[test]
fn cross_entropy_and_its_gradient() {
    for (rows, cols) in SHAPES {
        let logits: Vec<f32> = random(rows * cols, 1).iter().map(|x| 10.0 * x).collect();
        let targets: Vec<u32> = (0..rows).map(|i| (i * 7 % cols) as u32).collect();
        let weights = random(rows, 2);
        let mut probs = logits.clone();
        reference::softmax(&mut probs, cols);
        for isa in isa::tested() {
            let case = format!("{isa:?} {rows} × {cols}");
            let (mut dlogits, mut loss) = (logits.clone(), vec![0.0; rows]);
            cross_entropy_on(isa, &mut dlogits, &mut loss, &targets, &weights);
            let mut scored = vec![0.0; rows];
            cross_entropy_loss(&mut scored, &logits, &targets);
            for (r, row) in probs.chunks(cols).enumerate() {
                let target = targets[r] as usize;
                let want: Vec<f32> =
                    (0..cols).map(|i| weights[r] * (row[i] - f32::from(u8::from(i == target)))).collect();
                assert_close(&dlogits[r * cols..][..cols], &want, &case);
                let want = reference::log_sum_exp(&logits[r * cols..][..cols]) - logits[r * cols + target];
                assert_close(&[loss[r], scored[r]], &[want, want], &case);
            }
        }
    }
}

#[test]
fn cross_entropy_is_honest_about_what_is_not_a_number() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut loss = [0.0];
        cross_entropy(&mut [1.0, bad, 2.0], &mut loss, &[0], &[1.0]);
        assert!(loss[0].is_nan());
    }
    let mut loss = [0.0];
    cross_entropy(&mut [1000.0, -1000.0], &mut loss, &[1], &[1.0]);
    assert_eq!(loss[0], 2000.0);
}

#[test]
fn sums_do_not_depend_on_the_number_of_threads() {
    let (rows, c) = (517, 100);
    let dout = random(rows * c, 1);
    let mut all = Vec::new();
    for threads in [1, 2, 3] {
        pool::set_threads(threads);
        let mut db = vec![0.0; c];
        sum_rows(&mut db, Values::F32(&dout));
        let want: Vec<f32> = (0..c).map(|j| (0..rows).map(|i| dout[i * c + j]).sum()).collect();
        for (got, want) in db.iter().zip(&want) {
            assert!((got - want).abs() < 1e-3, "{got} {want}");
        }
        all.push(db);
    }
    assert!(all[0] == all[1] && all[0] == all[2]);
}

/// The loops whose sums or random numbers could depend on how the work is cut.
#[test]
fn row_loops_have_the_same_bits_at_any_number_of_threads() {
    let (rows, c) = (301, 130);
    let [x, dout, w, b] = [random(rows * c, 1), random(rows * c, 2), random(c, 3), random(c, 4)];
    let mut all = Vec::new();
    for threads in [1, 2, 3] {
        pool::set_threads(threads);
        let [mut out, mut dx, mut dropped] = [vec![0.0; rows * c], vec![0.0; rows * c], vec![0.0; rows * c]];
        let [mut mean, mut rstd] = [vec![0.0; rows], vec![0.0; rows]];
        let [mut dw, mut db] = [vec![0.0; c], vec![0.0; c]];
        layer_norm(ValuesMut::F32(&mut out), &mut mean, &mut rstd, &x, &w, &b, 1e-5);
        layer_norm_backward(&mut dx, &mut dw, &mut db, Values::F32(&dout), &x, &w, &mean, &rstd);
        dropout(&mut dropped, &x, Dropout { p: 0.5, stream: Stream::new(1, 2, 3) });
        let (mut logits, mut loss) = (x.clone(), vec![0.0; rows]);
        cross_entropy(&mut logits, &mut loss, &vec![7; rows], &vec![0.5; rows]);
        all.push([out, dx, dw, db, dropped, logits, loss]);
    }
    assert!(all[0] == all[1] && all[0] == all[2]);
}

#[test]
fn embedding_and_its_backward() {
    for c in [1, 63, 64, 130] {
        let (table, ids) = (random(5 * c, 1), [4, 0, 4, 2]);
        let mut out = vec![0.0; 4 * c];
        embedding(&mut out, &table, &ids);
        let mut dtable = vec![0.0; 5 * c];
        embedding_backward(&mut dtable, &out, &ids);
        for (row, times) in [1.0, 0.0, 1.0, 0.0, 2.0].into_iter().enumerate() {
            let want: Vec<f32> = table[row * c..][..c].iter().map(|x| times * x).collect();
            assert_close(&dtable[row * c..][..c], &want, "dtable");
        }
    }
}

#[test]
fn dropout_keeps_about_the_right_share_and_its_backward_the_same_elements() {
    let n = 3 * CHUNK + 11;
    let x = vec![1.0; n];
    let (mut out, mut dx) = (vec![0.0; n], vec![0.0; n]);
    let d = Dropout { p: 0.25, stream: Stream::new(1, 2, 3) };
    dropout(&mut out, &x, d);
    dropout_backward(&mut dx, &x, d);
    assert!(out == dx);
    let share = out.iter().filter(|&&x| x != 0.0).count() as f64 / n as f64;
    assert!((share - 0.75).abs() < 0.01, "{share}");
    assert!((0..n).all(|i| (out[i] != 0.0) == (d.stream.uniform(i as u64) >= 0.25)));
}

#[test]
fn argmax_takes_the_first_of_equals_and_no_nan() {
    assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
    assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY, -1.0]), 2);
}

fn half(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|&x| bf16::from_f32(x)).collect()
}

fn wide(x: &[bf16]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

/// A bfloat16 result is the `f32` one, rounded; a bfloat16 gradient gives what its widened values give.
#[test]
fn layer_norm_in_bfloat16() {
    for (rows, c) in [(1, 1), (3, 7), (70, 33), (5, 768)] {
        let (x, w, b) = (random(rows * c, 1), random(c, 2), random(c, 3));
        let dout = half(&random(rows * c, 4));
        for isa in isa::tested() {
            let (mut out, mut narrow) = (vec![0.0; rows * c], vec![bf16::NAN; rows * c]);
            let [mut mean, mut rstd] = [vec![0.0; rows], vec![0.0; rows]];
            layer_norm_on(isa, ValuesMut::F32(&mut out), &mut mean, &mut rstd, &x, &w, &b, 1e-5);
            let before = (mean.clone(), rstd.clone());
            layer_norm_on(isa, ValuesMut::Bf16(&mut narrow), &mut mean, &mut rstd, &x, &w, &b, 1e-5);
            assert!(narrow == half(&out) && before == (mean.clone(), rstd.clone()), "{isa:?} {rows} × {c}");
            let [want, got] = [true, false].map(|widened| {
                let mut grads = [vec![0.5; rows * c], vec![0.5; c], vec![0.5; c]];
                let [dx, dw, db] = &mut grads;
                let wide = wide(&dout);
                let dout = if widened { Values::F32(&wide) } else { Values::Bf16(&dout) };
                layer_norm_backward_on(isa, dx, dw, db, dout, &x, &w, &mean, &rstd);
                grads
            });
            assert!(want == got, "{isa:?} {rows} × {c} backward");
        }
    }
}

#[test]
fn cross_entropy_in_bfloat16() {
    for (rows, cols, stride) in [(1, 1, 1), (3, 5, 8), (4, 1025, 1056), (2, 3000, 3008)] {
        let mut logits = half(&random(rows * stride, 1).iter().map(|x| 3.0 * x).collect::<Vec<_>>());
        let targets: Vec<u32> = (0..rows).map(|r| (r * 7 % cols) as u32).collect();
        let weights: Vec<f32> = (0..rows).map(|r| r as f32 * 0.5).collect();
        let rows_of =
            |x: &[bf16]| -> Vec<f32> { x.chunks(stride).flat_map(|row| wide(&row[..cols])).collect() };
        let mut want = rows_of(&logits);
        let (mut want_loss, mut loss) = (vec![0.0; rows], vec![f32::NAN; rows]);
        cross_entropy(&mut want, &mut want_loss, &targets, &weights);
        let untouched: Vec<_> = logits.chunks(stride).flat_map(|row| row[cols..].to_vec()).collect();
        cross_entropy_bf16(&mut logits, stride, cols, &mut loss, &targets, &weights);
        for (r, (got, want)) in loss.iter().zip(&want_loss).enumerate() {
            assert!(
                (got - want).abs() <= 1e-5 * (1.0 + want.abs()),
                "{rows} × {cols}: loss {r} is {got}, not {want}"
            );
        }
        for (got, want) in rows_of(&logits).iter().zip(&want) {
            assert!((got - want).abs() <= 4e-3 * want.abs() + 1e-7, "{rows} × {cols}: {got}, not {want}");
        }
        let beyond: Vec<_> = logits.chunks(stride).flat_map(|row| row[cols..].to_vec()).collect();
        assert!(beyond == untouched, "{rows} × {cols}: values beyond the row have changed");
    }
    // What is not a number is not hidden.
    let (mut logits, mut loss) = (half(&[1.0, f32::NAN, 2.0]), [0.0]);
    cross_entropy_bf16(&mut logits, 3, 3, &mut loss, &[0], &[1.0]);
    assert!(loss[0].is_nan());
}

#[test]
fn the_way_back_through_dropout_and_bias() {
    for (rows, c) in [(1, 1), (7, 33), (100, 64)] {
        let dout = random(rows * c, 1);
        for dropout in [None, Some(Dropout { p: 0.3, stream: crate::random::Stream::new(1, 2, 3) })] {
            let mut want = dout.clone();
            if let Some(dropout) = dropout {
                super::dropout(&mut want, &dout, dropout);
            }
            let (mut out, mut narrow) = (vec![f32::NAN; rows * c], vec![bf16::NAN; rows * c]);
            let mut sums = [vec![2.0; c], vec![2.0; c], vec![2.0; c]];
            dropout_bias_backward(ValuesMut::F32(&mut out), &mut sums[0], &dout, dropout);
            dropout_bias_backward(ValuesMut::Bf16(&mut narrow), &mut sums[1], &dout, dropout);
            sum_rows(&mut sums[2], Values::F32(&want));
            assert!(out == want && narrow == half(&want), "{rows} × {c}");
            assert!(sums[0] == sums[1] && sums[0] == sums[2], "{rows} × {c} sums");
            for values in [Values::F32(&dout), Values::Bf16(&half(&dout))] {
                if let (Values::Bf16(values), None) = (values, dropout) {
                    want = wide(values);
                } else if let (Values::Bf16(values), Some(dropout)) = (values, dropout) {
                    super::dropout(&mut want, &wide(values), dropout);
                }
                dropout_values(ValuesMut::F32(&mut out), values, dropout);
                dropout_values(ValuesMut::Bf16(&mut narrow), values, dropout);
                assert!(out == want && narrow == half(&want), "{rows} × {c} without a bias");
            }
        }
    }
}
