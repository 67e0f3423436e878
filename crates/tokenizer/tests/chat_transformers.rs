//! The tokens of conversations are those of transformers' `apply_chat_template`, for the golden conversations.
//!
//! `GPT2_PYTHON` names a Python that has transformers (`tests/golden/requirements.txt`).
#![forbid(unsafe_code)]

use std::env;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tokenizer::Tokenizer;
use tokenizer::chat::{CHATML_TOKENS, ChatTemplate, Message};

const GOLDEN: &str = include_str!("golden/chat.json");

#[test]
fn conversations_have_the_tokens_of_transformers() {
    let Ok(python) = env::var("GPT2_PYTHON") else {
        eprintln!(
            "SKIPPED: GPT2_PYTHON does not name a Python with transformers, so tokens of conversations were not compared"
        );
        return;
    };
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let conversations: Vec<(String, Vec<Message>)> = list(&golden["conversations"])
        .iter()
        .map(|conversation| {
            let messages = list(&conversation["messages"]);
            let message = |pair: &Value| Message::new(pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            (conversation["name"].as_str().unwrap().to_owned(), messages.iter().map(message).collect())
        })
        .collect();
    let texts: Vec<&str> = conversations
        .iter()
        .flat_map(|(_, all)| all.iter().map(|message| message.content.as_str()))
        .collect();
    let template = ChatTemplate::chatml().source().to_owned();
    let mut compared = 0;
    for base in [Tokenizer::gpt2(), Tokenizer::train_bpe(&texts, 400).unwrap()] {
        let ours =
            base.with_special_tokens(&CHATML_TOKENS).unwrap().with_chat_template(Some(template.clone()));
        let dir = tempfile::tempdir().unwrap();
        ours.save(dir.path()).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(&python);
        command.arg(root.join("../../tests/golden/ask_chat.py")).arg(root.join("tests/golden/chat.json"));
        let output = command.arg(dir.path()).env("HF_HUB_OFFLINE", "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let loaded = Tokenizer::load(dir.path()).unwrap();
        let own = ChatTemplate::of(&loaded).unwrap();
        for (name, messages) in &conversations {
            let at = conversations.iter().position(|(other, _)| other == name).unwrap();
            let theirs = &answers[0][at];
            // To us, names of tokens are text, and an answer's white space is its own, and not the prompt's.
            if messages.iter().any(|message| message.content.contains("<|")) || has_open_answer(messages) {
                continue;
            }
            // A prompt, and a whole conversation, as they are trained on.
            let prompt: Value = own.prompt(&loaded, messages).unwrap().into();
            assert_eq!(prompt, theirs[1], "{name}, prompt, {}", loaded.vocab_size());
            let whole: Value = own.conversation(&loaded, messages).unwrap().0.into();
            assert_eq!(whole, theirs[0], "{name}, whole, {}", loaded.vocab_size());
            compared += 2;
        }
        // Templates of other models, with tokens that this tokenizer mostly lacks.
        for (i, golden) in list(&golden["templates"]).iter().enumerate() {
            let source = golden["template"].as_str().unwrap();
            let template =
                ChatTemplate::of(&loaded.clone().with_chat_template(Some(source.to_owned()))).unwrap();
            for (at, (name, messages)) in conversations.iter().enumerate() {
                for (theirs, prompt) in list(&answers[i + 1][at]).iter().zip([false, true]) {
                    let text = template.render(messages, prompt).ok();
                    let ours: Value = text.map(|text| loaded.encode_with_special(&text).unwrap()).into();
                    assert_eq!(ours, *theirs, "{}, {name}, {prompt}", golden["name"]);
                    compared += usize::from(!theirs.is_null());
                }
            }
        }
    }
    assert!(compared > 100, "{compared}");
    eprintln!("{compared} lists of tokens are the same");
}

/// Whether an answer starts with white space, which could go into a token together with what stands before it.
fn has_open_answer(messages: &[Message]) -> bool {
    messages
        .iter()
        .any(|message| message.role == "assistant" && message.content.starts_with(char::is_whitespace))
}
