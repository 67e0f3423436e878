//! The decoding loop with small models: random ones, and ones that recite.

use super::*;
use models::{Gpt2Config, Init, Pass};

const TEXT: &str = "hello world, 你好世界";
const N_CTX: usize = 24;

/// One token for each byte, two more, and end-of-text.
fn bytes_and_more() -> Tokenizer {
    Tokenizer::train_bpe([TEXT], 259).unwrap()
}

fn random() -> (Gpt2, Tokenizer) {
    let tokenizer = bytes_and_more();
    let config = Gpt2Config::new(2, 2, 16, N_CTX, tokenizer.vocab_size());
    (Gpt2::new(config, Init::Xavier, 3).unwrap(), tokenizer)
}

/// A model that greedily writes `script` after a prompt of one token, then end-of-text, whatever it reads: blocks add
/// nothing, and each position holds the direction of its token, which no other token shares.
fn reciting(tokenizer: &Tokenizer, script: &[u32]) -> Gpt2 {
    reciting_to(tokenizer, script, N_CTX)
}

/// The same with a context of this length.
pub(crate) fn reciting_to(tokenizer: &Tokenizer, script: &[u32], n_ctx: usize) -> Gpt2 {
    let config = Gpt2Config::new(2, 2, 16, n_ctx, tokenizer.vocab_size());
    let c = config.n_embd;
    let mut model = Gpt2::new(config, Init::Xavier, 3).unwrap();
    let mut wte = Vec::new();
    for (name, tensor) in model.parameters_mut() {
        match &*name {
            "wte.weight" => {
                for row in tensor.data_mut().chunks_exact_mut(c) {
                    let mean = row.iter().sum::<f32>() / c as f32;
                    row.iter_mut().for_each(|x| *x -= mean);
                    let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                    row.iter_mut().for_each(|x| *x /= norm);
                }
                wte = tensor.data().to_vec();
            }
            "wpe.weight" => {
                for (position, row) in tensor.data_mut().chunks_exact_mut(c).enumerate() {
                    let id = script.get(position).copied().unwrap_or(tokenizer.eot()) as usize;
                    row.iter_mut().zip(&wte[id * c..]).for_each(|(x, w)| *x = 100.0 * w);
                }
            }
            name if name.ends_with("c_proj.weight") => tensor.data_mut().fill(0.0),
            _ => {}
        }
    }
    model
}

fn request(prompt: &[u32]) -> Request {
    let sampling = Sampling { seed: 11, ..Sampling::default() };
    Request { prompt: prompt.to_vec(), sampling, ..Request::default() }
}

fn greedy(stop: &[&str]) -> Request {
    let stop = stop.iter().map(|stop| stop.to_string()).collect();
    Request { sampling: Sampling::GREEDY, stop, ..request(&[]) }
}

/// Generates, and holds the pieces shown to the text.
fn run(model: &Gpt2, tokenizer: &Tokenizer, request: &Request) -> (Generation, Vec<String>) {
    let mut pieces = Vec::new();
    let keep = &mut |piece: &str| {
        pieces.push(piece.to_owned());
        true
    };
    let result = generate(model, tokenizer, request, keep).unwrap();
    assert_eq!(pieces.concat(), result.text);
    assert!(pieces.iter().all(|piece| !piece.is_empty()), "{pieces:?}");
    assert_eq!(result.timings.tokens, result.ids.len());
    (result, pieces)
}

fn run_random(request: &Request) -> Generation {
    let (model, tokenizer) = random();
    run(&model, &tokenizer, request).0
}

/// Recites `text`, one token a byte.
fn recite(text: &str, request: &Request) -> (Generation, Vec<String>) {
    let tokenizer = bytes_and_more();
    let script: Vec<u32> = text.bytes().map(|byte| byte_token(&tokenizer, byte)).collect();
    run(&reciting(&tokenizer, &script), &tokenizer, request)
}

fn byte_token(tokenizer: &Tokenizer, byte: u8) -> u32 {
    (0..tokenizer.vocab_size() as u32).find(|&id| tokenizer.token_bytes(id) == Some(&[byte])).unwrap()
}

#[test]
fn greedy_with_the_cache_equals_greedy_without() {
    let (model, tokenizer) = random();
    let got = run_random(&Request {
        sampling: Sampling::GREEDY,
        max_tokens: Some(20),
        min_tokens: 20,
        ..request(&[1, 2, 3])
    });
    let mut ids = vec![1, 2, 3];
    for _ in 0..20 {
        let mut logits = model.last_logits(&ids, &mut Pass::eval()).unwrap();
        logits[tokenizer.eot() as usize] = f32::NEG_INFINITY;
        ids.push(tensor::rows::argmax(&logits) as u32);
    }
    assert_eq!(got.ids, ids[3..]);
    assert_eq!(got.finish, Finish::Length);
    assert_eq!(got.text, tokenizer.decode(&got.ids).unwrap());
}

#[test]
fn the_same_seed_writes_the_same_text_and_another_one_does_not() {
    let long = Request { min_tokens: 20, ..request(&[5]) };
    let first = run_random(&long);
    let again = run_random(&long);
    assert_eq!((&first.ids, &first.text), (&again.ids, &again.text));
    assert_ne!(
        first.ids,
        run_random(&Request { sampling: long.sampling.clone().nth(1), ..long.clone() }).ids
    );
}

#[test]
fn an_empty_prompt_starts_from_end_of_text() {
    let (_, tokenizer) = random();
    let got = run_random(&Request { max_tokens: Some(9), ..request(&[]) });
    assert_eq!(got.ids, run_random(&Request { max_tokens: Some(9), ..request(&[tokenizer.eot()]) }).ids);
    assert_eq!(got.timings.prompt_tokens, 1);
}

#[test]
fn the_end_of_the_text_and_why() {
    let (ended, _) = recite("a tale", &greedy(&[]));
    assert_eq!((ended.finish, ended.text.as_str(), ended.ids.len()), (Finish::Eot, "a tale", 6));
    let (limited, _) = recite("a tale", &Request { max_tokens: Some(3), ..greedy(&[]) });
    assert_eq!((limited.finish, limited.text.as_str()), (Finish::Length, "a t"));
    let (full, _) = recite("a tale that is longer than the context", &greedy(&[]));
    assert_eq!((full.finish, full.text.as_str()), (Finish::Context, "a tale that is longer t"));
    let (all, _) = recite("a tale", &Request { max_tokens: Some(N_CTX - 1), ..greedy(&[]) });
    assert_eq!(all.finish, Finish::Eot);
    let (none, pieces) = recite("a tale", &Request { max_tokens: Some(0), ..greedy(&[]) });
    assert_eq!((none.finish, none.text.as_str(), pieces.len()), (Finish::Length, "", 0));
    let no_room = run_random(&request(&[1; N_CTX]));
    assert_eq!((no_room.finish, no_room.ids.len()), (Finish::Context, 0));
}

#[test]
fn stop_strings_end_the_text_before_them() {
    let (got, pieces) = recite("one two\n\nthree", &greedy(&["\n\n", "three"]));
    assert_eq!((got.finish, got.text.as_str(), got.ids.len()), (Finish::Stop, "one two", 9));
    assert!(!pieces.concat().contains('\n'));
    let (missed, _) = recite("one two\nthr", &greedy(&["\n\n", "three"]));
    assert_eq!((missed.finish, missed.text.as_str()), (Finish::Eot, "one two\nthr"));
}

#[test]
fn at_least_so_many_tokens() {
    let least = Request { min_tokens: 12, ..greedy(&["two"]) };
    let (got, _) = recite("one two, and two more", &least);
    assert_eq!((got.finish, got.text.as_str()), (Finish::Stop, "one two, and "));
    let (last, _) = recite("one two, and", &Request { min_tokens: 7, ..greedy(&["o", ","]) });
    assert_eq!((last.finish, last.text.as_str()), (Finish::Stop, "one two"));
    let (longer, _) = recite("short", &Request { min_tokens: 9, ..greedy(&[]) });
    assert!(longer.text.starts_with("short") && longer.ids.len() == 9 && longer.finish == Finish::Eot);
}

#[test]
fn chinese_characters_come_whole() {
    let (got, pieces) = recite("你好，世界。", &greedy(&[]));
    assert_eq!((got.finish, got.ids.len()), (Finish::Eot, 18));
    assert_eq!(pieces, ["你", "好", "，", "世", "界", "。"]);
    let (stopped, pieces) = recite("你好，世界。", &greedy(&["世界"]));
    assert_eq!((stopped.finish, pieces), (Finish::Stop, vec!["你".into(), "好".into(), "，".into()]));
    let (cut, _) = recite("你好", &Request { max_tokens: Some(5), ..greedy(&[]) });
    assert_eq!(cut.text, "你\u{fffd}");
}

#[test]
fn cancelling() {
    let tokenizer = bytes_and_more();
    let script: Vec<u32> = b"abcdef".iter().map(|&byte| byte_token(&tokenizer, byte)).collect();
    let model = reciting(&tokenizer, &script);
    let mut shown = String::new();
    let mut until_c = |piece: &str| {
        shown += piece;
        piece != "c"
    };
    let got = generate(&model, &tokenizer, &greedy(&[]), &mut until_c).unwrap();
    assert_eq!((got.finish, got.text.as_str(), got.ids.len()), (Finish::Cancelled, "abc", 3));
    assert_eq!(shown, "abc");
}

#[test]
fn rows_of_the_model_beyond_the_tokenizer_are_never_drawn() {
    let tokenizer = bytes_and_more();
    let config = Gpt2Config::new(1, 2, 16, N_CTX, tokenizer.vocab_size() + 1000);
    let model = Gpt2::new(config, Init::Xavier, 3).unwrap();
    let hot = Sampling { temperature: 100.0, ..request(&[]).sampling };
    let (got, _) = run(&model, &tokenizer, &Request { sampling: hot, min_tokens: 20, ..request(&[]) });
    assert!(got.ids.len() >= 20 && got.ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
}

#[test]
fn what_cannot_be_is_refused_before_the_first_token() {
    let (model, tokenizer) = random();
    let refuse = |request: Request| {
        let result = generate(&model, &tokenizer, &request, &mut |_| panic!("no text may be shown"));
        result.unwrap_err().to_string()
    };
    let error = refuse(Request { max_tokens: Some(22), ..request(&[1, 2, 3]) });
    let want = "the prompt has 3 tokens and 22 more are asked for, 25 in all, but the model's context is 24; \
                shorten the prompt or ask for at most 21 tokens";
    assert_eq!(error, want);
    assert!(refuse(Request { max_tokens: Some(usize::MAX), ..request(&[1]) }).contains("at most 23"));
    let error = refuse(request(&[1; 25]));
    assert_eq!(error, "the prompt has 25 tokens, but the model's context is 24; shorten the prompt");
    assert!(refuse(Request { max_tokens: Some(1), ..request(&[1; 25]) }).contains("25 tokens"));
    assert!(refuse(Request { min_tokens: 5, max_tokens: Some(4), ..request(&[1]) }).contains("at least 5"));
    assert!(refuse(Request { min_tokens: 24, ..request(&[1]) }).contains("no more than 23"));
    let error = refuse(request(&[1, 259]));
    assert!(error.contains("token 259 at position 1") && error.contains("has 259 tokens"), "{error}");
    assert!(refuse(Request { stop: vec![String::new()], ..request(&[1]) }).contains("stop string is empty"));
    let sampling = Sampling { temperature: -1.0, ..Sampling::GREEDY };
    assert!(refuse(Request { sampling, ..request(&[1]) }).contains("temperature"));
    let larger = Tokenizer::train_bpe([TEXT], 261).unwrap();
    let error = generate(&model, &larger, &request(&[1]), &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("261 tokens, but the model 259"), "{error}");
}

#[test]
fn damaged_weights_are_noticed() {
    let (mut model, tokenizer) = random();
    model.parameters_mut()[4].1.data_mut()[0] = f32::NAN;
    let error = generate(&model, &tokenizer, &request(&[1, 2]), &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("position 2") && error.contains("damaged"), "{error}");
}

#[test]
fn names_are_those_of_json() {
    for finish in [Finish::Eot, Finish::Stop, Finish::Length, Finish::Context, Finish::Cancelled] {
        assert_eq!(serde_json::to_string(&finish).unwrap(), format!("\"{}\"", finish.as_str()));
    }
}

#[test]
fn what_was_computed_before_the_text_so_far_and_its_end_are_told() {
    let tokenizer = bytes_and_more();
    let model = Gpt2::new(Gpt2Config::new(1, 2, 16, 200, tokenizer.vocab_size()), Init::Xavier, 3).unwrap();
    let settings = EngineSettings { kept: 2, ..EngineSettings::for_batch(&model, 2) };
    let mut texts = Texts::new(&model, &tokenizer, settings).unwrap();
    let prompt: Vec<u32> = (0..150).map(|at| at * 7 % 250).collect();
    let sampling = Sampling { logprobs: Some(1), ..Sampling::GREEDY };
    let asked = Request { sampling, max_tokens: Some(5), min_tokens: 5, ..request(&prompt) };
    for cached in [0, 128] {
        let id = texts.add(&asked).unwrap();
        let mut seen = 0;
        let result = loop {
            if let Some(TextEvent::Done(_, result)) =
                texts.step().unwrap().into_iter().find(|event| matches!(event, TextEvent::Done(..)))
            {
                break result.unwrap();
            }
            let so_far = texts.so_far(id).unwrap();
            assert_eq!(so_far.logprobs.as_ref().map_or(0, Vec::len), so_far.ids.len());
            seen = seen.max(so_far.ids.len());
        };
        assert_eq!((result.timings.cached_tokens, seen), (cached, 4));
        assert!(texts.so_far(id).is_none() && result.end_logprobs.is_none());
    }
    // The end, too, was drawn: always, if nothing else may be.
    let mut ending = asked;
    ending.min_tokens = 0;
    ending.sampling.processors.logit_bias = vec![(tokenizer.eot(), 1e9)];
    let (result, _) = run(&model, &tokenizer, &ending);
    assert_eq!((result.finish, result.ids.len()), (Finish::Eot, 0));
    assert_eq!(result.end_logprobs.unwrap().id, tokenizer.eot());
}
