//! `gpt2 eval`: measures a model on a text, or on the answers of examples.

mod answers;
mod replies;

use std::io::BufWriter;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use eval::{Options, PerToken, Report, TokenScore};

use crate::examples::Reading;
use crate::input;
use crate::model::ModelArgs;
use crate::output::{note, say};

/// Measure loss, perplexity, bits per byte and accuracy on a text, or on the answers of examples
///
/// The text is cut into consecutive windows as long as the model's context; each token but the first is predicted
/// once. Standard errors take windows as the unit. Documents of one file are joined by end-of-text.
///
/// With --answers, what the assistant says is predicted, in conversations that the model's chat template writes; examples are the
/// unit. Of preferences it is told how often the preferred answer is the likelier one.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  gpt2 eval -m out/model --data test.txt --json\n  \
    gpt2 eval -m out/chat --answers held-out.jsonl 留出.jsonl\n  \
    gpt2 eval -m out/chat --answers held-out.jsonl --replies 100 --seed 1 --replies-out replies.jsonl\n  \
    gpt2 eval -m gpt2 --adapter out/faq --answers faq.csv --columns prompt=question,completion=answer\n\n\
    A reply counts as ended if the model ended its turn before --max-tokens, and as in the prompt's language if both are Chinese, \
    or neither is; an empty reply is in none.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text: .txt, .jsonl, .json, each also .gz
    #[arg(long, value_name = "FILE", required_unless_present = "answers")]
    data: Option<PathBuf>,
    /// Examples, in any form that `gpt2 finetune --data` reads: .jsonl, .json, .csv and .tsv, each also .gz
    #[arg(
        long, num_args = 1.., value_name = "FILE",
        conflicts_with_all = ["data", "n_ctx", "stride", "by_document", "per_token"]
    )]
    answers: Vec<PathBuf>,
    /// Length of a window [default: the model's context]
    #[arg(long, value_name = "N")]
    n_ctx: Option<usize>,
    /// Distance of windows; less than their length lets them overlap, so that predictions see more
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Score each document by itself, after an end-of-text, as models trained with --sequences documents saw them
    #[arg(long, conflicts_with = "stride")]
    by_document: bool,
    /// Windows computed at once, or replies written at once; does not change the result [default: 8 windows, 32 replies]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Write position, id, text, log-probability and whether it was the first choice of each token, tab-separated
    #[arg(long, value_name = "FILE")]
    per_token: Option<PathBuf>,
    #[command(flatten)]
    replies: replies::Args,
    #[command(flatten)]
    reading: Reading,
    /// Let --per-token or --replies-out replace a file
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    ensure!(args.batch != Some(0), "--batch 0: it must be at least 1");
    let Some(data) = &args.data else { return answers::run(&args, offline) };
    ensure!(
        args.replies.replies.is_none(),
        "--replies is for examples: give --answers FILE in place of --data"
    );
    let for_answers = Reading { encoding: None, ..args.reading.clone() };
    ensure!(
        for_answers == Reading::default(),
        "--data is a text: of the flags that say how examples are read, only --encoding is for it; for examples say --answers"
    );
    if let Some(table) = &args.per_token {
        refuse_overwriting("--per-token", table, std::slice::from_ref(data), args.force)?;
    }
    let (model, tokenizer) = args.model.open(offline)?;
    let encoding = data::read::encoding(args.reading.encoding.as_deref())?;
    let threads = tensor::pool::threads();
    input::note_changes(&tokenizer);
    let (tokens, _) = data::prepare::tokens_of_file(data, &tokenizer, encoding, threads)?;
    let tokens = tokens.slice(0..tokens.len() - 1); // without the end of the last document
    let options = Options {
        batch: args.batch.unwrap_or(8),
        time: args.n_ctx,
        stride: args.stride,
        documents: args.by_document,
    };
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
        ControlFlow::Continue(())
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

/// Refuses a file to write that would replace what it is about, or another file without `force`.
fn refuse_overwriting(flag: &str, target: &Path, about: &[PathBuf], force: bool) -> Result<()> {
    let whole = |path: &Path| path.canonicalize().ok();
    let shown = target.display();
    ensure!(
        whole(target).is_none() || about.iter().all(|path| whole(target) != whole(path)),
        "{flag} {shown} is the text itself; choose another file"
    );
    // What is no plain file, such as a pipe, loses nothing.
    ensure!(
        force || !target.is_file(),
        "{flag} {shown}: the file exists; choose another, or --force to replace it"
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
