//! What data can be refused for.

use std::path::PathBuf;

use thiserror::Error;
use tokenizer::TokenizerError;

use crate::records::RecordError;

/// Why text cannot be read, or batches cannot be made.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A kind of file that is not read.
    #[error("{}: this kind of file is not read; give .txt, .jsonl or .json, each also as .gz, or a directory of shards", .path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// A directory without shards.
    #[error("{}: a directory must hold token shards (train_*.bin); give the text files themselves, or run `gpt2 prepare` first", .path.display())]
    NoShards {
        /// The directory.
        path: PathBuf,
    },
    /// Shards where text is needed.
    #[error("{} holds token shards, but this needs text; give the files that they were made from", .path.display())]
    NeedsText {
        /// The directory.
        path: PathBuf,
    },
    /// A directory where a file is needed.
    #[error("{} is a directory; give text files: .txt, .jsonl or .json, each also as .gz", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// A name that is no encoding.
    #[error("there is no encoding called `{name}`; use utf-8, gb18030, big5, utf-16le, windows-1252, …")]
    Encoding {
        /// The name.
        name: String,
    },
    /// Bytes that are not text in the encoding.
    #[error("{}: not {encoding} at byte {offset}; if the text has another encoding, name it, as in --encoding gb18030", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The encoding it was read with.
        encoding: &'static str,
        /// Where the first bad byte stands (in the unpacked file).
        offset: u64,
    },
    /// A file that is not what its name says.
    #[error("{}: line {line} (byte {offset}): {reason}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Where the line starts.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A file without a single character.
    #[error("{}: there is no text in it", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Text that the vocabulary has no tokens for.
    #[error("{}: document {document}, text byte {offset}: {source}", .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Document, from 1.
        document: u64,
        /// Where the piece of text starts in its document.
        offset: u64,
        /// What the tokenizer said, counting from there.
        source: TokenizerError,
    },
    /// A shard that is damaged.
    #[error("{}: not a whole token shard: {reason}", .path.display())]
    Shard {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A token that the model does not have.
    #[error(
        "token id {id} at position {position} is out of range: the vocabulary has {vocab_size} tokens; was the data prepared with another tokenizer?"
    )]
    IdOutOfRange {
        /// The id.
        id: u32,
        /// Where it stands in the data.
        position: usize,
        /// Tokens in the vocabulary.
        vocab_size: usize,
    },
    /// Less text than one window.
    #[error(
        "the {what} data has {tokens} tokens, but one window needs {needed} (context + 1); give more text or a smaller --n-ctx"
    )]
    TooShort {
        /// Which data.
        what: String,
        /// Tokens there.
        tokens: usize,
        /// Tokens needed.
        needed: usize,
    },
    /// Shards whose ids mean something else.
    #[error(
        "{at} was prepared with another tokenizer ({theirs}) than the one in use ({ours}); \
         use --tokenizer {at}, or `gpt2 prepare` the text again with the one in use", at = .path.display()
    )]
    OtherTokenizer {
        /// The directory.
        path: PathBuf,
        /// What is stored there.
        theirs: String,
        /// What was to be used.
        ours: String,
    },
    /// A weight that is none.
    #[error("{spec}: a weight must be a positive number, as in --data news.txt=2")]
    Weight {
        /// What was typed.
        spec: String,
    },
    /// A place that already holds prepared data.
    #[error("{} already holds prepared data; choose another --out, or --force to replace it", .path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// A file of examples that is none.
    #[error("{}: examples are read from .jsonl, .json, .csv and .tsv, each also as .gz; to train on plain text use `gpt2 train`", .path.display())]
    RecordKind {
        /// The file.
        path: PathBuf,
    },
    /// UTF-16 that was not announced.
    #[error("{}: this is UTF-16; give --encoding {name}", .path.display())]
    Utf16 {
        /// The file.
        path: PathBuf,
        /// The encoding that it has.
        name: &'static str,
    },
    /// A row of a file of examples that is wrong.
    #[error("{}: line {line}: {reason}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The line that the row starts at, from 1.
        line: u64,
        /// What is wrong.
        reason: RecordError,
    },
    /// Columns that are not well named.
    #[error(
        "--columns {spec}: {reason}; give it as in prompt=question,completion=answer, or with numbers from 1 for a table without a header"
    )]
    Columns {
        /// What was typed.
        spec: String,
        /// What is wrong.
        reason: String,
    },
    /// Roles that are not well named.
    #[error(
        "--roles {spec}: give each name once with system, user or assistant, as in usr=user,sys=assistant"
    )]
    Roles {
        /// What was typed.
        spec: String,
    },
    /// An instruction without a place for the text.
    #[error("--instruction {words:?}: it needs {{text}}, where the text goes, as in \"Summarize: {{text}}\"")]
    Instruction {
        /// What was typed.
        words: String,
    },
    /// Nothing to learn from.
    #[error("there are no examples to learn from")]
    NoExamples,
    /// An example longer than the model's context.
    #[error(
        "example {example} has {tokens} tokens, but the context has room for {room}; shorten it or leave it out"
    )]
    ExampleTooLong {
        /// Which one, from 1.
        example: usize,
        /// Its tokens.
        tokens: usize,
        /// Tokens there is room for, with the last one that is only predicted.
        room: usize,
    },
    /// An example of which nothing is to be predicted.
    #[error("example {example} has no answer to learn, only a prompt; leave it out")]
    NoAnswer {
        /// Which one, from 1.
        example: usize,
    },
    /// The tokenizer could not be saved or loaded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl DataError {
    /// For `map_err` at a file operation.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> DataError + '_ {
        move |source| DataError::Io { path: path.to_owned(), source }
    }
}
