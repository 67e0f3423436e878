//! `gpt2 prepare`: turns text into token shards.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use data::prepare::Options;
use data::read::Source;
use models::checkpoint;

use crate::input::{self, Learn, grouped};
use crate::output::{note, say};

/// Turn text into token shards
///
/// Works on all cores, in constant memory. The shards have llm.c's format; `gpt2 train --data DIR` reads them.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  gpt2 prepare --data news.jsonl.gz books.txt --tokenizer bpe:8000 --out out/shards"
)]
pub struct Args {
    /// Texts: .txt, .jsonl, .json (field `text`), each also .gz
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// gpt2, char, word:N, bpe:N (learnt from the data), a directory or file that holds one, or a name on the hub
    #[arg(long, value_name = "KIND", default_value = "gpt2")]
    tokenizer: String,
    /// Encoding of the texts [default: utf-8]
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// Share of each file, from its end, held out
    #[arg(long, value_name = "0..1", default_value_t = 0.1)]
    val_fraction: f64,
    /// Directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace prepared data in the directory
    #[arg(long)]
    force: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    ensure!(
        (0.0..1.0).contains(&args.val_fraction),
        "--val-fraction {}: it must be at least 0 and below 1",
        args.val_fraction
    );
    // Before a vocabulary is learnt, which may take long.
    data::prepare::check_out(&args.out, args.force)?;
    let has = |name: &&str| args.out.join(name).exists();
    ensure!(
        args.force || ![checkpoint::WEIGHTS, checkpoint::INDEX].iter().any(has),
        "{} holds a model, whose tokenizer would be replaced; choose another --out",
        args.out.display()
    );
    let tokenizer = match Learn::parse(&args.tokenizer)? {
        None => input::open_tokenizer(&input::tokenizer_path(&args.tokenizer, offline)?, input::MAY_LEARN)?,
        Some(learn) => {
            input::refuse_pipes(&args.data)?;
            note!("learning the vocabulary {} …", args.tokenizer);
            learn.learn_from(input::documents(&args.data, args.encoding.as_deref())?)?
        }
    };
    let paths = args.data.iter().map(PathBuf::as_path);
    input::warn_about_chinese(paths, args.encoding.as_deref(), &tokenizer)?;
    input::note_changes(&tokenizer);
    let sources: Vec<Source> =
        args.data.iter().map(|path| Source { path: path.clone(), weight: None }).collect();
    let options = Options {
        encoding: data::read::encoding(args.encoding.as_deref())?,
        val_fraction: args.val_fraction,
        threads: tensor::pool::threads(),
        out: &args.out,
        force: args.force,
    };
    let summary = data::prepare::prepare(&sources, &tokenizer, &options, |path, counts| {
        let (tokens, bytes) = (grouped(counts.tokens), grouped(counts.bytes));
        note!("{}: {} documents, {bytes} bytes, {tokens} tokens", path.display(), grouped(counts.documents));
    })?;
    if summary.counts.empty_documents > 0 {
        note!("left out {} empty documents", summary.counts.empty_documents);
    }
    if summary.counts.unknown_tokens > 0 {
        let unknown = summary.counts.unknown_tokens;
        let share = 100.0 * unknown as f64 / summary.counts.tokens as f64;
        note!(
            "warning: {} tokens ({share:.1} %) stand for text that the vocabulary lacks; `gpt2 tokenizer encode` shows where",
            grouped(unknown)
        );
    }
    if args.json {
        return super::print_json(&summary);
    }
    say!(
        "{}: {} tokens to train on, {} held out, vocabulary {}",
        args.out.display(),
        grouped(summary.train_tokens as u64),
        grouped(summary.val_tokens as u64),
        grouped(summary.vocab_size as u64)
    )?;
    note!("next: gpt2 train --data {} --out out/model", args.out.display());
    Ok(())
}
