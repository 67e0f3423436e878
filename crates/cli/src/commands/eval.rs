//! `gpt2 eval`: measures a model on a text.

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use eval::{Options, PerToken, Report, TokenScore};

use crate::input;
use crate::model::ModelArgs;
use crate::output::{note, say};

/// Measure loss, perplexity, bits per byte and accuracy on a text
///
/// The text is cut into consecutive windows as long as the model's context; each token but the first is predicted
/// once. Standard errors take windows as the unit. Documents of one file are joined by end-of-text.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  gpt2 eval -m out/model --data test.txt --json")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text: .txt, .jsonl, .json, each also .gz
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Encoding of the text [default: utf-8]
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// Length of a window [default: the model's context]
    #[arg(long, value_name = "N")]
    n_ctx: Option<usize>,
    /// Distance of windows; less than their length lets them overlap, so that predictions see more
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Score each document by itself, after an end-of-text, as models trained with --sequences documents saw them
    #[arg(long, conflicts_with = "stride")]
    by_document: bool,
    /// Windows computed at once; does not change the result
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
    /// Write position, id, text, log-probability and whether it was the first choice of each token, tab-separated
    #[arg(long, value_name = "FILE")]
    per_token: Option<PathBuf>,
    /// Let --per-token replace a file
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    ensure!(args.batch > 0, "--batch 0: it must be at least 1");
    if let Some(table) = &args.per_token {
        refuse_overwriting(table, &args.data, args.force)?;
    }
    let (model, tokenizer) = args.model.open(offline)?;
    let encoding = data::read::encoding(args.encoding.as_deref())?;
    let threads = tensor::pool::threads();
    input::note_changes(&tokenizer);
    let (tokens, _) = data::prepare::tokens_of_file(&args.data, &tokenizer, encoding, threads)?;
    let tokens = tokens.slice(0..tokens.len() - 1); // without the end of the last document
    let options =
        Options { batch: args.batch, time: args.n_ctx, stride: args.stride, documents: args.by_document };
    let mut table = match &args.per_token {
        None => None,
        Some(path) => {
            let file =
                std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Some(PerToken::new(&tokenizer, BufWriter::new(file)))
        }
    };
    let mut on_token = |token: TokenScore| {
        if let Some(table) = &mut table {
            table.add(token);
        }
    };
    let report = eval::evaluate(&model, &tokenizer, &tokens, options, &mut on_token)
        .map_err(|error| input::name_damage(&model, error.into()))?;
    if let Some(table) = table {
        table.finish().context("cannot write --per-token")?;
    }
    if args.json {
        return super::print_json(&report);
    }
    say!("loss           {:.4} ± {:.4} nats a token", report.loss, report.loss_stderr)?;
    say!("perplexity     {:.3} ± {:.3}", report.perplexity, report.perplexity_stderr)?;
    match report.bytes {
        Some(_) => say!("bits per byte  {:.4} ± {:.4}", report.bits_per_byte, report.bits_per_byte_stderr)?,
        None => say!("bits per byte  not known")?,
    }
    say!("accuracy       {:.2} ± {:.2} %", 100.0 * report.accuracy, 100.0 * report.accuracy_stderr)?;
    let bytes = report.bytes.map_or(String::new(), |bytes| format!("{bytes} bytes, "));
    note!("[{} tokens, {bytes}{} windows of {}]", report.tokens, report.windows, report.context);
    note_unknown(&report);
    Ok(())
}

/// Refuses a table that would replace the text it is about, or another file without `force`.
fn refuse_overwriting(table: &Path, data: &Path, force: bool) -> Result<()> {
    let whole = |path: &Path| path.canonicalize().ok();
    ensure!(
        whole(table).is_none() || whole(table) != whole(data),
        "--per-token {} is the text itself; choose another file",
        table.display()
    );
    // What is no plain file, such as a pipe, loses nothing.
    ensure!(
        force || !table.is_file(),
        "--per-token {}: the file exists; choose another, or --force to replace it",
        table.display()
    );
    Ok(())
}

/// Says how much of a text the vocabulary has no tokens for.
pub fn note_unknown(report: &Report) {
    if report.unknown_tokens == 0 {
        return;
    }
    let share = 100.0 * report.unknown_tokens as f64 / report.tokens as f64;
    let what = match report.bytes {
        Some(_) => "each counts as the bytes that it stands for",
        None => "the shards do not say of how many bytes, so that bits per byte are not known",
    };
    note!("[{} tokens ({share:.1} %) are text that the vocabulary lacks: {what}]", report.unknown_tokens);
}
