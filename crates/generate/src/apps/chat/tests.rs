//! What a prompt holds of a conversation, and where replies end, with models that recite.

use models::{Gpt2Config, Init};

use super::*;
use crate::sampling::Sampling;

const N_CTX: usize = 160;

/// One token a byte, and end-of-text.
fn bytes() -> Tokenizer {
    Tokenizer::train_bpe(["x"], 257).unwrap()
}

fn turn(user: &str, answer: &str) -> Turn {
    Turn { user: user.into(), answer: answer.into(), finish: Finish::Stop }
}

fn frame<'a>(tokenizer: &'a Tokenizer, template: &'a ChatTemplate, max_tokens: usize) -> Frame<'a> {
    Frame { template, tokenizer, n_ctx: N_CTX, max_tokens }
}

#[test]
fn whole_turns_are_left_out_the_oldest_first_and_no_more_than_must_be() {
    let (tokenizer, template) = (bytes(), ChatTemplate::plain());
    let mut conversation = Conversation::new(Some("Sei kurz.".into()));
    for k in 0..20 {
        conversation.turns_mut().push(turn(&format!("u{k}").repeat(1 + k % 5), &format!("a{k}").repeat(3)));
    }
    for max_tokens in [1, 10, 37, 80] {
        let Prompt { ids, dropped } =
            conversation.prompt("und?", &frame(&tokenizer, &template, max_tokens)).unwrap();
        let with = |from: usize| {
            let mut messages = vec![Message::new("system", "Sei kurz.")];
            messages.extend(conversation.messages()[1 + 2 * from..].iter().cloned());
            messages.push(Message::new("user", "und?"));
            template.prompt(&tokenizer, &messages).unwrap()
        };
        assert_eq!(ids, with(dropped));
        assert!(dropped > 0 && ids.len() + max_tokens <= N_CTX, "{max_tokens}");
        assert!(with(dropped - 1).len() + max_tokens > N_CTX, "one turn more would have fitted");
    }
    assert_eq!(conversation.turns().len(), 20, "the conversation keeps them");
}

#[test]
fn a_message_that_is_too_long_says_how_long() {
    let (tokenizer, template) = (bytes(), ChatTemplate::plain());
    let mut conversation = Conversation::new(None);
    let longest = |conversation: &Conversation| {
        let fits =
            |n: &usize| conversation.prompt(&"y".repeat(*n), &frame(&tokenizer, &template, 30)).is_ok();
        (1..200).take_while(fits).last().unwrap()
    };
    let most = longest(&conversation);
    conversation.turns_mut().push(turn("u", "a"));
    assert_eq!(longest(&conversation), most, "turns before it make room");
    let message = "y".repeat(most + 3);
    let error = conversation.prompt(&message, &frame(&tokenizer, &template, 30)).unwrap_err().to_string();
    let told = [format!("has {} tokens", most + 3), "context is 160".into(), "by 3 tokens".into()];
    assert!(told.iter().all(|part| error.contains(part)), "{error}");
    for max_tokens in [0, N_CTX, usize::MAX] {
        let error = conversation.prompt("a", &frame(&tokenizer, &template, max_tokens)).unwrap_err();
        assert!(matches!(error, ChatError::Room { .. }), "{error}");
    }
    for empty in ["", " \n\t", "\u{3000}"] {
        let error = conversation.prompt(empty, &frame(&tokenizer, &template, 1)).unwrap_err();
        assert!(matches!(error, ChatError::EmptyMessage), "{error}");
    }
}

#[test]
fn messages_are_a_conversation_only_in_order() {
    let said = |text: &str| -> Vec<Message> {
        let role = |c| match c {
            's' => "system",
            'u' => "user",
            'a' => "assistant",
            _ => "tool",
        };
        text.chars().map(|c| Message::new(role(c), c)).collect()
    };
    for (roles, turns, asked) in [("ua", 1, false), ("suaua", 2, false), ("u", 0, true), ("suau", 1, true)] {
        let (conversation, last) = Conversation::from_messages(&said(roles)).unwrap();
        assert_eq!((conversation.turns().len(), last.is_some()), (turns, asked), "{roles}");
        let mut back = conversation.messages();
        back.extend(last.map(|last| Message::new("user", last)));
        assert_eq!(back, said(roles));
    }
    let number = |roles| match Conversation::from_messages(&said(roles)) {
        Err(ChatError::Role { number, .. }) => number,
        other => panic!("{roles}: {other:?}"),
    };
    assert_eq!(["a", "uu", "uaa", "us", "sa", "ss", "t", "ut"].map(number), [1, 2, 3, 2, 2, 2, 1, 2]);
    assert!(matches!(Conversation::from_messages(&said("s")), Err(ChatError::NoMessages)));
    let empty = [Message::new("user", " ")];
    assert!(matches!(Conversation::from_messages(&empty), Err(ChatError::Empty { number: 1, .. })));
    let silent = [Message::new("user", "?"), Message::new("assistant", "")];
    assert_eq!(Conversation::from_messages(&silent).unwrap().0.turns()[0].answer, "");
}

/// A model that writes what a script has at each position, whatever it reads: blocks add nothing, and each position holds
/// the direction of its token, which no other token shares.
fn reciting(vocab_size: usize, script: impl Fn(usize) -> u32) -> Gpt2 {
    let config = Gpt2Config::new(1, 1, 16, N_CTX, vocab_size);
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
                    let id = script(position) as usize;
                    row.iter_mut().zip(&wte[id * c..]).for_each(|(x, w)| *x = 100.0 * w);
                }
            }
            name if name.ends_with("c_proj.weight") => tensor.data_mut().fill(0.0),
            _ => {}
        }
    }
    model
}

/// A model that answers `says` to this message, said first, and goes on with nonsense.
fn answering(tokenizer: &Tokenizer, message: &str, says: &[u32]) -> Gpt2 {
    let frame = frame(tokenizer, &ChatTemplate::plain(), 1).n_ctx;
    let prompt = ChatTemplate::plain().prompt(tokenizer, &[Message::new("user", message)]).unwrap();
    assert!(prompt.len() + says.len() < frame);
    let z = tokenizer.encode("z").unwrap()[0];
    reciting(tokenizer.vocab_size(), |position| {
        (position + 1).checked_sub(prompt.len()).and_then(|at| says.get(at)).copied().unwrap_or(z)
    })
}

fn settings(max_tokens: usize) -> ReplySettings {
    ReplySettings { sampling: Sampling::GREEDY, max_tokens, constraint: None }
}

#[test]
fn replies_end_at_stop_strings_end_tokens_and_limits() {
    let tokenizer = bytes();
    let encode = |text: &str| tokenizer.encode(text).unwrap();
    let eot = vec![tokenizer.eot()];
    let stop = ChatTemplate::plain().stop_strings().remove(0);
    for (says, want, finish) in [
        (encode(&format!(" 你好 \n{stop} again")), "你好", Finish::Stop),
        ([encode("  So it is.\n"), eot.clone()].concat(), "So it is.", Finish::Eot),
        (eot, "", Finish::Eot),
        (encode(" abc"), "abczzzzzz", Finish::Length),
    ] {
        let model = answering(&tokenizer, "hi", &says);
        let mut chat = Chat::new(&model, &tokenizer, ChatTemplate::plain()).unwrap();
        let max_tokens = if finish == Finish::Length { 10 } else { 60 };
        let mut shown = String::new();
        let reply = chat
            .reply(&Conversation::default(), "hi", &settings(max_tokens), &mut |piece| {
                shown += piece;
                true
            })
            .unwrap();
        assert_eq!((reply.turn.answer.as_str(), reply.turn.finish), (want, finish));
        assert_eq!((shown.as_str(), reply.turn.user.as_str(), reply.dropped), (want, "hi", 0));
    }
}

#[test]
fn a_reply_can_be_cut_at_any_token_and_the_chat_goes_on() {
    let tokenizer = bytes();
    let model = answering(&tokenizer, "hi", &tokenizer.encode("abcdefgh").unwrap());
    let mut chat = Chat::new(&model, &tokenizer, ChatTemplate::plain()).unwrap();
    for calls in 1..20 {
        let (mut seen, mut shown) = (0, String::new());
        let reply = chat
            .reply(&Conversation::default(), "hi", &settings(40), &mut |piece| {
                shown += piece;
                seen += 1;
                seen < calls
            })
            .unwrap();
        assert_eq!((reply.turn.finish, seen), (Finish::Cancelled, calls));
        assert!(reply.turn.answer == shown && "abcdefghzzzzz".starts_with(&shown), "{shown}");
    }
    let whole = chat.reply(&Conversation::default(), "hi", &settings(8), &mut |_| true).unwrap();
    assert_eq!(whole.turn.answer, "abcdefgh");
}

/// The second turn's prompt begins with the first one's, whose keys and values are there: what is computed is what follows.
#[test]
fn what_turns_share_is_computed_once_and_changes_nothing() {
    let tokenizer = bytes();
    let model = Gpt2::new(Gpt2Config::new(2, 2, 16, N_CTX, tokenizer.vocab_size()), Init::Xavier, 5).unwrap();
    let settings = ReplySettings { sampling: Sampling { seed: 4, ..Sampling::default() }, ..settings(20) };
    let new = || Chat::new(&model, &tokenizer, ChatTemplate::plain()).unwrap();
    let mut chat = new();
    let mut conversation = Conversation::new(Some("s".repeat(70)));
    for message in ["one", "two", "three"] {
        // One cut in the middle leaves its part, too, and disturbs nothing.
        let mut steps = 0;
        let cut = &mut |_: &str| {
            steps += 1;
            steps < 4
        };
        chat.reply(&conversation, message, &settings, cut).unwrap();
        assert!(chat.texts.engine().blocks_used() > 0, "nothing is kept");
        let reply = chat.reply(&conversation, message, &settings, &mut |_| true).unwrap();
        let afresh = new().reply(&conversation, message, &settings, &mut |_| true).unwrap();
        assert_eq!((&reply.turn, &reply.generation.ids), (&afresh.turn, &afresh.generation.ids));
        conversation.turns_mut().push(Turn { answer: "ok".into(), ..reply.turn });
    }
}
