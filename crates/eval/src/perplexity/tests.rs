//! Evaluation held to its definition, computed one window and one token after the other.

use super::*;
use models::{Gpt2Config, Init, Pass};

const TEXT: &str = "It was the best of times, it was the worst of times, it was the age of wisdom";
const N_CTX: usize = 10;

fn parts() -> (Gpt2, Tokenizer, Tokens) {
    let tokenizer = Tokenizer::train_bpe([TEXT], 270).unwrap();
    let config = Gpt2Config::new(1, 2, 8, N_CTX, tokenizer.vocab_size());
    let tokens = Tokens::new(tokenizer.encode(TEXT).unwrap());
    (Gpt2::new(config, Init::Xavier, 1).unwrap(), tokenizer, tokens)
}

fn on_to_the_end(_: TokenScore) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The report, and every prediction.
fn run(options: Options) -> (Report, Vec<TokenScore>) {
    let (model, tokenizer, tokens) = parts();
    let mut seen = Vec::new();
    let report = evaluate(&model, &tokenizer, &tokens, options, &mut |token| {
        seen.push(token);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(report.tokens, tokens.len() - 1);
    assert!(seen.iter().map(|token| token.position).eq(1..tokens.len()));
    (report, seen)
}

/// `-ln p` of the token after these, and whether it was the most likely.
fn plainly(model: &Gpt2, seen: &[u32], target: u32) -> (f64, bool) {
    let logits = model.last_logits(seen, &mut Pass::eval()).unwrap();
    let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    let best = logits.iter().copied().fold(f32::MIN, f32::max);
    (sum.ln() - f64::from(logits[target as usize]), logits[target as usize] == best)
}

#[test]
fn agrees_with_the_definition() {
    let (model, tokenizer, tokens) = parts();
    let ids = tokens.to_vec().unwrap();
    assert!(!(ids.len() - 1).is_multiple_of(N_CTX), "the last window should be a short one");
    let (report, seen) = run(Options::default());
    let (mut nats, mut right) = (0.0, 0);
    for token in &seen {
        let start = (token.position - 1) / N_CTX * N_CTX;
        let (loss, correct) = plainly(&model, &ids[start..token.position], ids[token.position]);
        assert!((f64::from(token.loss) - loss).abs() < 1e-5, "{token:?}, but the loss is {loss}");
        assert_eq!((token.correct, token.id), (correct, ids[token.position]));
        nats += loss;
        right += usize::from(correct);
    }
    let n = seen.len() as f64;
    let bytes = TEXT.len() - tokenizer.token_bytes(ids[0]).unwrap().len();
    let close = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1e-5, "got {got}, want {want}");
    close(report.loss, nats / n);
    close(report.perplexity, (nats / n).exp());
    close(report.bits_per_byte, nats / 2f64.ln() / bytes as f64);
    close(report.perplexity_stderr, report.perplexity * report.loss_stderr);
    assert_eq!(report.accuracy, right as f64 / n);
    assert_eq!((report.bytes, report.context), (Some(bytes), N_CTX));
    assert_eq!((report.windows, report.unknown_tokens), (seen.len().div_ceil(N_CTX), 0));
}

#[test]
fn a_stride_leaves_each_prediction_its_context() {
    let (model, _, tokens) = parts();
    let ids = tokens.to_vec().unwrap();
    let (report, seen) = run(Options { stride: Some(3), ..Options::default() });
    assert_eq!(report.windows, 1 + (seen.len() - N_CTX).div_ceil(3));
    for token in seen {
        // The tokens that it may have seen, from the shortest stretch to the longest.
        let starts = token.position.saturating_sub(N_CTX)..=token.position.saturating_sub(N_CTX - 3 + 1);
        let matches = |start| {
            (plainly(&model, &ids[start..token.position], token.id).0 - f64::from(token.loss)).abs() < 1e-5
        };
        assert!(starts.clone().any(matches), "{token:?} was not predicted from any of {starts:?}");
    }
}

#[test]
fn the_batch_does_not_change_a_bit() {
    for stride in [None, Some(4)] {
        let options = |batch| Options { batch, stride, ..Options::default() };
        let one = run(options(1));
        for batch in [2, 3, 4, 100] {
            assert_eq!(run(options(batch)), one, "batches of {batch}, stride {stride:?}");
        }
    }
}

#[test]
fn a_single_window_takes_tokens_as_units() {
    let (model, tokenizer, tokens) = parts();
    let mut losses = Vec::new();
    let few = tokens.slice(0..8);
    let report = evaluate(&model, &tokenizer, &few, Options::default(), &mut |t| {
        losses.push(f64::from(t.loss));
        ControlFlow::Continue(())
    })
    .unwrap();
    let n = losses.len() as f64;
    let mean = losses.iter().sum::<f64>() / n;
    let deviation = (losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    assert_eq!(report.windows, 1);
    assert!((report.loss_stderr - deviation / n.sqrt()).abs() < 1e-9, "{report:?}");
    let two =
        evaluate(&model, &tokenizer, &tokens.slice(0..2), Options::default(), &mut on_to_the_end).unwrap();
    assert!(two.tokens == 1 && two.loss_stderr.is_nan(), "one token says nothing of the error");
}

#[test]
fn end_of_text_has_no_bytes() {
    let (model, tokenizer, _) = parts();
    let mut ids = tokenizer.encode("times").unwrap();
    let first = tokenizer.token_bytes(ids[0]).unwrap().len();
    ids.push(tokenizer.eot());
    let run = |ids| {
        evaluate(&model, &tokenizer, &Tokens::new(ids), Options::default(), &mut on_to_the_end).unwrap()
    };
    let bytes = Some("times".len() - first);
    assert_eq!((run(ids.clone()).bytes, run(ids.clone()).tokens), (bytes, ids.len() - 1));
    assert!(run(vec![tokenizer.eot(); 3]).bits_per_byte.is_infinite());
}

#[test]
fn unk_counts_as_the_text_that_it_replaced() {
    let tokenizer = Tokenizer::train_words(["the best of times"], 20).unwrap();
    let model = Gpt2::new(Gpt2Config::new(1, 1, 8, 4, tokenizer.vocab_size()), Init::Xavier, 1).unwrap();
    let text = "the best of wisdom, the worst of times";
    let ids = tokenizer.encode(text).unwrap();
    let unk = tokenizer.unknown_token().unwrap();
    let places = (0..ids.len()).filter(|&i| ids[i] == unk);
    let unknown: Vec<_> = places.zip(tokenizer.unknown_lens(text)).map(|(i, n)| (i, n as u32)).collect();
    for documents in [false, true] {
        let options = Options { documents, ..Options::default() };
        let run = |tokens| evaluate(&model, &tokenizer, &tokens, options, &mut on_to_the_end).unwrap();
        let known = run(Tokens::from_text(ids.clone(), unknown.clone()));
        // " wisdom", ",", " the" (only "the" was learnt) and " worst". The first token of a stream is not predicted.
        let bytes = text.len() - if documents { 0 } else { "the".len() };
        assert_eq!((known.unknown_tokens, known.bytes), (4, Some(bytes)));
        let bits = known.loss * known.tokens as f64 / LN_2;
        assert!((known.bits_per_byte - bits / bytes as f64).abs() < 1e-9, "{known:?}");
        let not_known = run(Tokens::new(ids.clone()));
        assert_eq!((not_known.unknown_tokens, not_known.bytes, not_known.loss), (4, None, known.loss));
        assert!(not_known.bits_per_byte.is_nan() && not_known.bits_per_byte_stderr.is_nan());
    }
}

#[test]
fn it_stops_where_no_more_is_wanted() {
    let (model, tokenizer, tokens) = parts();
    let mut seen = 0;
    let result = evaluate(&model, &tokenizer, &tokens, Options::default(), &mut |_| {
        seen += 1;
        if seen < 13 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(matches!(result, Err(EvalError::Stopped)) && seen == 13);
}

#[test]
fn bad_requests() {
    let (model, tokenizer, tokens) = parts();
    let fail = |tokens: &Tokens, batch, time, stride| {
        let options = Options { batch, time: Some(time), stride: Some(stride), documents: false };
        let none = &mut |_| panic!("nothing can be scored");
        evaluate(&model, &tokenizer, tokens, options, none).unwrap_err().to_string()
    };
    assert!(fail(&tokens, 1, 11, 11).contains("context of 10"));
    assert!(fail(&tokens, 1, 5, 6).contains("stride"));
    assert!(fail(&tokens, 1, 0, 0).contains("windows of 0 tokens"));
    assert!(fail(&tokens, 0, 5, 5).contains("batch of 0"));
    assert!(fail(&tokens.slice(0..1), 1, 5, 5).contains("at least 2"));
    let error = fail(&Tokens::new(vec![1, 9999]), 1, 5, 5);
    assert!(error.contains("token 9999 at position 1") && error.contains("has 270 tokens"), "{error}");
    let larger = Tokenizer::train_bpe([TEXT], 271).unwrap();
    let error =
        evaluate(&model, &larger, &tokens, Options::default(), &mut on_to_the_end).unwrap_err().to_string();
    assert!(error.contains("271 tokens, but the model 270"), "{error}");
}

#[test]
fn damaged_weights_are_noticed() {
    let (mut model, tokenizer, tokens) = parts();
    let (name, wpe) = model.parameters_mut().into_iter().nth(1).unwrap();
    assert_eq!(name, "wpe.weight");
    let c = wpe.cols();
    wpe.data_mut()[4 * c] = f32::NAN; // the fifth position of a window
    let run = |time| {
        let options = Options { time: Some(time), ..Options::default() };
        let mut seen = 0;
        (
            evaluate(&model, &tokenizer, &tokens, options, &mut |_| {
                seen += 1;
                ControlFlow::Continue(())
            }),
            seen,
        )
    };
    assert!(run(4).0.is_ok());
    match run(5) {
        (Err(EvalError::NotFinite { position, loss }), 0) => {
            assert!((1..=5).contains(&position) && loss.is_nan())
        }
        other => panic!("{other:?}"),
    }
}
