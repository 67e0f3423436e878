//! GGUF files with the tokenizer inside: `models` knows the file, `tokenizer` what its tokens and merges mean.

use std::path::{Path, PathBuf};

use models::checkpoint::{GgufTokenizer, GgufType, read_tokenizer, save_gguf};
use models::{Gpt2, ModelError};
use thiserror::Error;
use tokenizer::{Parts, Role, Tokenizer, TokenizerError};

/// Why a GGUF file with a tokenizer cannot be read or written.
#[derive(Debug, Error)]
pub enum GgufError {
    /// The file, or the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// There is none in the file.
    #[error("{} has no tokenizer inside; give one that was made with its tokenizer", .path.display())]
    NoTokenizer {
        /// The file.
        path: PathBuf,
    },
    /// No token that ends a text.
    #[error("{} names no token that ends a text (`tokenizer.ggml.eos_token_id`)", .path.display())]
    NoEnd {
        /// The file.
        path: PathBuf,
    },
    /// Texts begin with a token.
    #[error(
        "{} wants a token before every text (`tokenizer.ggml.add_bos_token`), which GPT-2's tokenizer does not add",
        .path.display()
    )]
    Begins {
        /// The file.
        path: PathBuf,
    },
    /// Texts of the tokenizer that is to be written begin with a token.
    #[error(
        "this tokenizer puts tokens before every text, which a GGUF file of GPT-2's tokenizer has no place for here"
    )]
    Prefix,
    /// A tokenizer that GGUF does not know.
    #[error(
        "GGUF cannot carry this tokenizer ({kind}); it knows byte-level BPE that cuts text by GPT-2's pattern, as bpe:N and gpt2"
    )]
    Kind {
        /// What it is.
        kind: &'static str,
    },
}

/// The tokenizer inside a GGUF file.
pub fn tokenizer(path: &Path) -> Result<Tokenizer, GgufError> {
    let inside = read_tokenizer(path)?.ok_or_else(|| GgufError::NoTokenizer { path: path.to_owned() })?;
    if inside.add_bos {
        return Err(GgufError::Begins { path: path.to_owned() });
    }
    let eot = inside.eos.or(inside.bos).ok_or_else(|| GgufError::NoEnd { path: path.to_owned() })?;
    let role = |kind| match kind {
        GgufTokenizer::CONTROL | GgufTokenizer::UNKNOWN => Role::Special,
        GgufTokenizer::USER_DEFINED => Role::Added,
        GgufTokenizer::UNUSED => Role::Unused,
        _ => Role::Text,
    };
    let roles = inside.types.into_iter().map(role).collect();
    let parts = Parts { tokens: inside.tokens, roles, merges: inside.merges, eot };
    Ok(Tokenizer::from_parts(path, &parts)?.with_chat_template(inside.chat_template))
}

/// A tokenizer as GGUF keeps it.
pub fn inside(tokenizer: &Tokenizer) -> Result<GgufTokenizer, GgufError> {
    if !tokenizer.prefix().is_empty() {
        return Err(GgufError::Prefix);
    }
    let parts = tokenizer.parts().ok_or(GgufError::Kind { kind: tokenizer.kind() })?;
    let number = |role| match role {
        Role::Text => GgufTokenizer::NORMAL,
        Role::Special => GgufTokenizer::CONTROL,
        Role::Added => GgufTokenizer::USER_DEFINED,
        Role::Unused => GgufTokenizer::UNUSED,
    };
    Ok(GgufTokenizer {
        types: parts.roles.into_iter().map(number).collect(),
        tokens: parts.tokens,
        merges: parts.merges,
        bos: Some(parts.eot),
        eos: Some(parts.eot),
        add_bos: false,
        chat_template: tokenizer.chat_template().map(str::to_owned),
    })
}

/// Writes a model with its tokenizer as one GGUF file, whole or not at all: see [`save_gguf`].
pub fn save(
    model: &Gpt2,
    tokenizer: &Tokenizer,
    path: &Path,
    kind: GgufType,
    metadata: &[(&str, &str)],
) -> Result<(), GgufError> {
    Ok(save_gguf(model, path, kind, Some(&inside(tokenizer)?), metadata)?)
}
