//! A small model through the whole path: made smaller, calibrated, compared.

use std::ops::ControlFlow;

use compress::{Calibration, compare, quantise, with_outliers};
use data::Tokens;
use models::{Dtype, Gpt2, Gpt2Config, Init, Pass};

fn model() -> Gpt2 {
    let mut model = Gpt2::new(Gpt2Config::new(2, 3, 48, 20, 70), Init::Gpt2, 3).unwrap();
    // Norms and biases as training leaves them, all different; weights large enough for sharp predictions.
    for (_, tensor) in model.parameters_mut() {
        let matrix = tensor.shape().len() == 2;
        for (i, x) in tensor.data_mut().iter_mut().enumerate() {
            *x = if matrix { *x * 5.0 } else { *x + ((i * 37 % 11) as f32 - 5.0) / 30.0 };
        }
    }
    model
}

fn text(n: u32) -> Tokens {
    Tokens::new((0..n).map(|i| (i * i / 3 + i) % 70).collect())
}

fn logits(model: &Gpt2) -> Vec<f32> {
    let ids: Vec<u32> = (0..20).map(|i| i * 7 % 70).collect();
    model.logits(&ids, 1, &mut Pass::eval()).unwrap().data().to_vec()
}

#[test]
fn a_model_compared_with_itself_is_the_same() {
    let model = model();
    let mut windows = Vec::new();
    let same = compare(&model, &model, &text(205), (None, None), &mut |done, all| windows.push((done, all)))
        .unwrap();
    assert_eq!((same.kl, same.agreement, same.perplexity_change), (0.0, 1.0, 0.0));
    assert_eq!((same.tokens, same.windows, same.context), (204, 11, 20));
    assert_eq!((windows.len(), windows[10]), (11, (11, 11)));
    assert_eq!(same.before.loss, same.after.loss);
    assert!(same.before.tokens_per_second > 0.0 && same.before.bytes == 4 * model.config().n_params());
}

#[test]
fn the_comparison_measures_what_evaluation_does() {
    let (model, text) = (model(), text(150));
    let characters: String = (0..69).map(|i| char::from_u32(0x4e00 + i).unwrap()).collect();
    let tokenizer = tokenizer::Tokenizer::train_chars([characters]).unwrap();
    for dtype in Dtype::ALL {
        let other = model.to_dtype(dtype).unwrap();
        for stride in [None, Some(7)] {
            let options = eval::Options { stride, ..eval::Options::default() };
            let got = compare(&model, &other, &text, (None, stride), &mut |_, _| ()).unwrap();
            for (side, model) in [(&got.before, &model), (&got.after, &other)] {
                let want =
                    eval::evaluate(model, &tokenizer, &text, options, &mut |_| ControlFlow::Continue(()))
                        .unwrap();
                assert!((side.loss - want.loss).abs() < 1e-5, "{dtype}: {} and {}", side.loss, want.loss);
                assert!((side.loss_stderr - want.loss_stderr).abs() < 1e-5, "{dtype}");
                assert_eq!((side.accuracy, got.windows), (want.accuracy, want.windows), "{dtype}");
            }
            let change = (got.after.loss - got.before.loss).exp() - 1.0;
            assert!((got.perplexity_change - change).abs() < 1e-9, "{dtype}");
        }
    }
}

#[test]
fn outliers_do_not_change_the_function() {
    let model = model();
    let large = with_outliers(&model, 20.0).unwrap();
    let (got, want) = (logits(&large), logits(&model));
    let most = want.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-4 * most));
    let changed = |at: usize| {
        let (a, b) = (
            large.parameters()[at].1.decoded().into_owned(),
            model.parameters()[at].1.decoded().into_owned(),
        );
        a.iter().zip(&b).filter(|(a, b)| a != b).count()
    };
    assert_eq!(model.parameters()[2].0, "h.0.ln_1.weight");
    assert_eq!((changed(2), changed(4)), (3, 3 * 3 * 48));
}

#[test]
fn outliers_cost_nothing_once_channels_are_equalised() {
    let (model, text) = (model(), text(205));
    let large = with_outliers(&model, 20.0).unwrap();
    for dtype in [Dtype::Q8, Dtype::Q4] {
        let kl = |model: &Gpt2| {
            let small = quantise(model, dtype, None).unwrap();
            compare(model, &small, &text, (None, None), &mut |_, _| ()).unwrap().kl
        };
        let (plain, large) = (kl(&model), kl(&large));
        assert!(large < 1.5 * plain, "{dtype}: {large}, and {plain} without outliers");
    }
}

#[test]
fn calibration_brings_the_model_nearer() {
    let model = model();
    let mut kl = [0.0; 2];
    for (kl, calibrated) in kl.iter_mut().zip([false, true]) {
        let mut calibration = Calibration::new(&model, &text(2000)).unwrap();
        let small = quantise(&model, Dtype::Q4, calibrated.then_some(&mut calibration)).unwrap();
        assert_eq!(small.dtype(), Dtype::Q4);
        *kl = compare(&model, &small, &text(205), (None, None), &mut |_, _| ()).unwrap().kl;
    }
    assert!(kl[1] < kl[0], "{kl:?}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let model = model();
    let fails = |tokens: &Tokens, windows| {
        compare(&model, &model, tokens, windows, &mut |_, _| ()).unwrap_err().to_string()
    };
    assert!(fails(&text(1), (None, None)).contains("at least 2"));
    assert!(fails(&text(50), (Some(21), None)).contains("context of 20"));
    assert!(fails(&text(50), (None, Some(0))).contains("the stride must be 1"));
}
