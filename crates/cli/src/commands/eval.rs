//! `gpt2 eval`: measures a model on a text.

use std::io::BufWriter;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use data::Tokens;
use eval::{Options, PerToken, TokenScore};

use crate::input;

/// Measure loss, perplexity, bits per byte and accuracy on a text
///
/// The text is cut into consecutive windows as long as the model's context; each token but the first is predicted
/// once. Standard errors take windows as the unit. Documents of one file are joined by end-of-text.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  gpt2 eval -m out/model --data test.txt --json")]
pub struct Args {
    /// Model directory
    #[arg(short, long, value_name = "DIR")]
    model: PathBuf,
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
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    ensure!(args.batch > 0, "--batch 0: it must be at least 1");
    let (model, tokenizer) = input::open_model(&args.model)?;
    let encoding = data::read::encoding(args.encoding.as_deref())?;
    let mut ids = Vec::new();
    data::prepare::encode_file(&args.data, &tokenizer, encoding, tensor::pool::threads(), |new| {
        ids.extend_from_slice(new);
        Ok(())
    })?;
    ids.pop(); // the end of the last document
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
    let report = eval::evaluate(&model, &tokenizer, &Tokens::new(ids), options, &mut on_token)?;
    if let Some(table) = table {
        table.finish().context("cannot write --per-token")?;
    }
    if args.json {
        return super::print_json(&report);
    }
    println!("loss           {:.4} ± {:.4} nats a token", report.loss, report.loss_stderr);
    println!("perplexity     {:.3} ± {:.3}", report.perplexity, report.perplexity_stderr);
    println!("bits per byte  {:.4} ± {:.4}", report.bits_per_byte, report.bits_per_byte_stderr);
    println!("accuracy       {:.2} ± {:.2} %", 100.0 * report.accuracy, 100.0 * report.accuracy_stderr);
    eprintln!(
        "[{} tokens, {} bytes, {} windows of {}]",
        report.tokens, report.bytes, report.windows, report.context
    );
    Ok(())
}
