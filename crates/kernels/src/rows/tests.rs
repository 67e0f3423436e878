//! The loops against their plain versions, at lengths where vectors and blocks end.

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
        }
    }
}

#[test]
fn gelu_and_its_backward() {
    for n in [0, 1, 7, 8, 9, 63, 64, 65, 768] {
        let (x, dout) = (random(n, 1).iter().map(|x| 4.0 * x).collect::<Vec<_>>(), random(n, 2));
        let [mut want, mut dwant] = [vec![0.0; n], vec![1.0; n]];
        reference::gelu(&mut want, &x);
        reference::gelu_backward(&mut dwant, &dout, &x);
        for isa in isa::tested() {
            let [mut out, mut dx] = [vec![0.0; n], vec![1.0; n]];
            gelu_on(isa, &mut out, &x);
            gelu_backward_on(isa, &mut dx, &dout, &x);
            assert_close(&out, &want, &format!("{isa:?} {n}"));
            assert_close(&dx, &dwant, &format!("{isa:?} {n}"));
        }
    }
    let mut out = [0.0; 4];
    gelu(&mut out, &[1e30, -100.0, f32::NAN, 0.0]);
    assert!(out[0] == 1e30 && out[1].abs() < 1e-30 && out[2].is_nan() && out[3] == 0.0, "{out:?}");
}

#[test]
fn softmax_and_cross_entropy() {
    for (rows, cols) in SHAPES {
        let logits: Vec<f32> = random(rows * cols, 1).iter().map(|x| 10.0 * x).collect();
        let targets: Vec<u32> = (0..rows).map(|i| (i * 7 % cols) as u32).collect();
        let weights = random(rows, 2);
        let mut probs = logits.clone();
        reference::softmax(&mut probs, cols);
        for isa in isa::tested() {
            let case = format!("{isa:?} {rows} × {cols}");
            let mut got = logits.clone();
            softmax_on(isa, &mut got, cols);
            assert_close(&got, &probs, &case);
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
