//! `gpt2 tokenizer`: trains and uses tokenizers.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use data::read::Piece;
use tokenizer::Counter;

use crate::input::{self, Learn, grouped};
use crate::output::{note, say};

/// Train and use tokenizers
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gpt2 tokenizer train --data book.txt --size 8000 --out out/tokenizer\n  \
    echo -n \"Hello world\" | gpt2 tokenizer encode --tokenizer gpt2 --json"
)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Learn a byte-level BPE vocabulary, and save it as Hugging Face's tokenizer.json, vocab.json and merges.txt
    #[command(
        after_help = "Example:\n  gpt2 tokenizer train --data book.txt --size 8000 --out out/tokenizer"
    )]
    Train(Train),
    /// Text on standard input to token ids
    #[command(
        after_help = "Example:\n  echo -n \"Hello world\" | gpt2 tokenizer encode --tokenizer gpt2 --json"
    )]
    Encode(Encode),
    /// Token ids on standard input to text
    #[command(after_help = "Example:\n  echo \"[15496, 995]\" | gpt2 tokenizer decode --tokenizer gpt2")]
    Decode(Decode),
    /// What a text costs in tokens
    #[command(after_help = "Example:\n  gpt2 tokenizer stats --tokenizer gpt2 --data book.txt")]
    Stats(Stats),
}

#[derive(clap::Args, Debug)]
struct Train {
    /// Texts: .txt, .jsonl, .json (field `text`), each also .gz
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Tokens of the vocabulary, end-of-text included
    #[arg(long, value_name = "N", default_value_t = 8000)]
    size: usize,
    /// Encoding of the texts [default: utf-8]
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// Directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace a tokenizer in the directory
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args, Debug)]
struct Encode {
    /// gpt2, a directory or file that holds a tokenizer, or a name on the hub
    #[arg(long, value_name = "NAME|PATH", default_value = "gpt2")]
    tokenizer: String,
    /// Names of special tokens stand for those tokens
    #[arg(long)]
    parse_special: bool,
    /// Print a JSON list instead of ids separated by spaces
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
struct Decode {
    /// gpt2, a directory or file that holds a tokenizer, or a name on the hub
    #[arg(long, value_name = "NAME|PATH", default_value = "gpt2")]
    tokenizer: String,
    /// Print the text as a JSON string (what is not UTF-8 becomes U+FFFD), instead of its bytes
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
struct Stats {
    /// gpt2, a directory or file that holds a tokenizer, or a name on the hub
    #[arg(long, value_name = "NAME|PATH", default_value = "gpt2")]
    tokenizer: String,
    /// Text: .txt, .jsonl, .json (field `text`), each also .gz; - is plain text on standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    data: PathBuf,
    /// Encoding of the text [default: utf-8]
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, offline: bool) -> Result<()> {
    match args.action {
        Action::Train(args) => train(args),
        Action::Encode(args) => encode(args, offline),
        Action::Decode(args) => decode(args, offline),
        Action::Stats(args) => stats(args, offline),
    }
}

fn train(args: Train) -> Result<()> {
    let exists = ["tokenizer.json", "vocab.json"].iter().any(|name| args.out.join(name).exists());
    ensure!(
        args.force || !exists,
        "{} already holds a tokenizer; choose another --out, or --force",
        args.out.display()
    );
    let start = std::time::Instant::now();
    let docs = input::documents(&args.data, args.encoding.as_deref())?;
    let tokenizer = Learn::Bpe(args.size).learn_from(docs)?;
    tokenizer.save(&args.out)?;
    let got = tokenizer.vocab_size();
    note!("learnt {} tokens in {:.2} s", grouped(got as u64), start.elapsed().as_secs_f64());
    if got < args.size {
        note!("fewer than the {} asked for: the text has no more pairs to merge", grouped(args.size as u64));
    }
    say!("{}", args.out.display())?;
    Ok(())
}

fn encode(args: Encode, offline: bool) -> Result<()> {
    let tokenizer =
        input::open_tokenizer(&input::tokenizer_path(&args.tokenizer, offline)?, input::MUST_EXIST)?;
    let bytes = input::read_bytes("-".as_ref())?;
    let text = String::from_utf8(bytes);
    let ids = match &text {
        Ok(text) if args.parse_special => tokenizer.encode_with_special(text)?,
        Ok(text) => tokenizer.encode(text)?,
        Err(error) => tokenizer.encode_bytes(error.as_bytes())?,
    };
    if let Ok(text) = text {
        input::note_unknown(&tokenizer, &text, "the text");
    }
    input::note_changes(&tokenizer);
    if args.json {
        return super::print_json(&ids);
    }
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    say!("{}", ids.join(" "))?;
    Ok(())
}

fn decode(args: Decode, offline: bool) -> Result<()> {
    let tokenizer =
        input::open_tokenizer(&input::tokenizer_path(&args.tokenizer, offline)?, input::MUST_EXIST)?;
    let text = input::read_text("-".as_ref())?;
    let ids: Vec<u32> = if text.trim_start().starts_with('[') {
        serde_json::from_str(&text).context("standard input is not a JSON list of token ids")?
    } else {
        let numbers = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
        numbers
            .map(|word| word.parse().with_context(|| format!("`{word}` is not a token id")))
            .collect::<Result<_>>()?
    };
    let bytes = tokenizer.decode_bytes(&ids)?;
    if args.json {
        return super::print_json(&String::from_utf8_lossy(&bytes));
    }
    let mut out = std::io::stdout().lock();
    out.write_all(&bytes)?;
    Ok(out.flush()?)
}

fn stats(args: Stats, offline: bool) -> Result<()> {
    let tokenizer =
        input::open_tokenizer(&input::tokenizer_path(&args.tokenizer, offline)?, input::MUST_EXIST)?;
    let encoding = data::read::encoding(args.encoding.as_deref())?;
    let pieces: Box<dyn Iterator<Item = _>> = match args.data == Path::new("-") {
        true => Box::new(data::read::read_stream(std::io::stdin(), encoding)),
        false => data::read::read(&args.data, encoding)?,
    };
    input::note_changes(&tokenizer);
    let mut counter = Counter::new(&tokenizer);
    for piece in pieces {
        let Piece { text, document, offset, .. } = piece?;
        let place = || format!("{}: document {document}, from text byte {offset}", args.data.display());
        counter.add(&text).with_context(place)?;
    }
    let stats = counter.stats();
    if args.json {
        return super::print_json(&stats);
    }
    say!("vocabulary          {} ({})", grouped(tokenizer.vocab_size() as u64), tokenizer.kind())?;
    say!("bytes               {}", grouped(stats.bytes as u64))?;
    say!(
        "characters          {} ({} Chinese)",
        grouped(stats.chars as u64),
        grouped(stats.chinese_chars as u64)
    )?;
    say!(
        "tokens              {} ({} different)",
        grouped(stats.tokens as u64),
        grouped(stats.distinct_tokens as u64)
    )?;
    if stats.unknown > 0 {
        say!("without a token     {} stretches", grouped(stats.unknown as u64))?;
    }
    say!("bytes a token       {:.2}", stats.bytes_per_token)?;
    say!("tokens a character  {:.2}", stats.tokens_per_char)?;
    Ok(())
}
