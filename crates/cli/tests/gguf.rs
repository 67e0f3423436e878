//! Models that are one file, through the binary: the same text from a directory, from GGUF and from llm.c's format.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use generate::gguf;
use models::checkpoint::{GgufType, LlmcType, save_llmc};
use models::{Gpt2, Gpt2Config, Init};
use tokenizer::Tokenizer;

/// What the binary continues a prompt with, or why it does not.
fn continued(model: &Path) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2"));
    command.args(["generate", "-p", "The fox", "-n", "12", "--temperature", "0", "-m"]).arg(model);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn one_file_is_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut config = Gpt2Config::new(2, 2, 32, 64, 50257);
    config.eot = Some(50256);
    let (model, tokenizer) = (Gpt2::new(config, Init::Gpt2, 3).unwrap(), Tokenizer::gpt2());
    model.save(&path("hf")).unwrap();
    tokenizer.save(&path("hf")).unwrap();
    gguf::save(&model, &tokenizer, &path("model.gguf"), GgufType::F32, &[]).unwrap();
    save_llmc(&model, &path("model.bin"), LlmcType::F32).unwrap();
    let want = continued(&path("hf")).unwrap();
    assert!(!want.is_empty());
    assert_eq!(continued(&path("model.gguf")).unwrap(), want);
    assert_eq!(continued(&path("model.bin")).unwrap(), want);

    let small = Gpt2::new(Gpt2Config::new(1, 2, 32, 64, 300), Init::Gpt2, 3).unwrap();
    save_llmc(&small, &path("small.bin"), LlmcType::Bf16).unwrap();
    let error = continued(&path("small.bin")).unwrap_err();
    assert!(error.contains("no tokenizer") && error.contains("300"), "{error}");
    std::fs::write(path("text.bin"), "some text").unwrap();
    let error = continued(&path("text.bin")).unwrap_err();
    assert!(error.contains("like no model that is known"), "{error}");
}
