//! `gpt2 summarize`: summaries of texts, and how they compare with references.

mod read;
mod report;
mod scores;
mod told;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use eval::rouge::Units;
use generate::apps::summarize::{
    Ask, Extracts, Summaries, SummarizeError, Summary, SummaryEvent, SummarySettings,
};
use generate::{Processors, Sampler, Sampling, Speculation};
use indicatif::ProgressBar;
use models::Gpt2;
use tokenizer::Tokenizer;

use self::read::Document;
use self::report::Report;
use crate::model::ModelArgs;
use crate::output::{self, note};
use crate::signals::StopFlag;
use crate::{input, plan};

/// Summarise texts with a model
///
/// A model with a chat template is asked as it was fine-tuned; a base model is given the text and TL;DR:. A text that is
/// longer than the context is cut at sentences into parts, whose summaries are summarised again, until one remains. What was
/// read, what is copied, and numbers and names that are not in the text are told on standard error.
///
/// With --extract the model writes nothing: it chooses sentences of the text, those with which it would most likely begin its
/// summary. They are shown as they stand there, one a line, in the text's order.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  gpt2 summarize -m out/model report.txt\n  \
    gpt2 summarize -m gpt2 --adapter out/adapter report.txt\n  \
    gpt2 summarize -m gpt2 - < article.txt\n  \
    gpt2 summarize -m out/model --ratio 0.2 *.txt --out summaries.txt\n  \
    gpt2 summarize -m out/model --extract --max-sentences 2 report.txt\n  \
    gpt2 summarize -m out/model --json test.jsonl --references references.txt --seed 1\n\n\
    .jsonl and .json hold objects with a \"text\" and, if they are to be compared, its \"summary\" or \"summaries\"; each also \
    packed as .gz. Any other file is one text.\n\
    With references, ROUGE is shown for the model, for the first sentences (lead) and for random ones. With --json it is the \
    last line, an object with \"rouge\".")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Files to summarise; - is standard input
    #[arg(value_name = "FILE", required_unless_present = "text")]
    files: Vec<PathBuf>,
    /// A text to summarise
    #[arg(long, value_name = "TEXT", conflicts_with = "files")]
    text: Option<String>,
    /// Choose sentences of the text instead of writing; nothing is invented, and nothing is random
    #[arg(
        long,
        conflicts_with_all = ["temperature", "top_k", "top_p", "repeat_penalty", "no_repeat_ngram", "lookup"]
    )]
    extract: bool,
    /// Sentences of a summary, at most [default: 3, or with --ratio as many as come]
    #[arg(long, value_name = "N")]
    max_sentences: Option<usize>,
    /// Length of a summary as a share of its text, such as 0.2, at most
    #[arg(long, value_name = "R")]
    ratio: Option<f64>,
    /// Tokens of the summary of what is read at once, at most [default: 100, or a quarter of the context if that is less]; with
    /// --extract, of the summary [default: as many as there are]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Ask in these words instead; {text} stands for the text
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// How to ask: template (that of the model's fine-tuning) or tldr (the text and TL;DR:) [default: template if the model
    /// has one]
    #[arg(long, value_name = "WAY", value_parser = ["template", "tldr"])]
    ask: Option<String>,
    /// Start of the random numbers; text number k uses seed + k [default: random, and reported]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Spread of the choices: 0 always takes the most likely token [default: 0 with a template, 1 with TL;DR:]
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
    /// Choose among the K most likely tokens; 0 means all
    #[arg(long, value_name = "K", default_value_t = 2)]
    top_k: usize,
    /// Choose among the most likely tokens that together have this probability; 1 means all
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Make tokens that stand in the text or the summary less likely: their logits are divided by this; 1 turns it off
    #[arg(long, value_name = "X", default_value_t = 1.0, visible_alias = "repetition-penalty")]
    repeat_penalty: f32,
    /// Never write the same N tokens in a row twice; 0 turns it off
    #[arg(long, value_name = "N", default_value_t = 0)]
    no_repeat_ngram: usize,
    /// Guess up to N tokens from what stood in the text, and check them at once; the summary stays the same. 0 turns it off
    #[arg(long, value_name = "N", default_value_t = 8)]
    lookup: usize,
    /// Texts or parts of them that are read at once, at most 512
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
    /// Summaries to compare with: one a line, or .jsonl with "summary" or "summaries", in the order of the texts
    #[arg(long, value_name = "FILE")]
    references: Option<PathBuf>,
    /// What ROUGE and the shares of what is copied count: word (of Chinese texts as jieba finds them), char (Chinese
    /// characters), or auto (char for Chinese texts)
    #[arg(long, value_name = "UNITS", default_value = "auto", value_parser = ["auto", "word", "char"])]
    rouge_units: String,
    /// Write the summaries to a file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// One line of JSON for each text
    #[arg(long)]
    json: bool,
}

/// Sentences of a summary where no length is asked for, as in the paper.
const SENTENCES: usize = 3;
pub fn run(args: Args, offline: bool) -> Result<()> {
    plan::ensure_batch(args.batch)?;
    ensure!(args.max_sentences != Some(0), "--max-sentences 0: ask for at least 1");
    ensure!(args.max_tokens != Some(0), "--max-tokens 0: ask for at least 1");
    if let Some(ratio) = args.ratio {
        ensure!(
            ratio > 0.0 && ratio < 1.0,
            "--ratio {ratio}: give a number above 0 and below 1, such as 0.2"
        );
    }
    if let Some(out) = &args.out {
        ensure!(
            !out.exists(),
            "--out {}: it is there already; name another file, or remove it",
            out.display()
        );
    }
    let documents = args.documents()?;
    let (model, tokenizer) = args.model.open(offline)?;
    let seed = input::seed(args.seed);
    let settings = args.settings(&tokenizer, seed)?;
    for document in &documents {
        input::note_unknown(&tokenizer, &document.text, &document.name);
    }
    let speculation =
        if args.lookup > 0 { Speculation::Lookup { most: args.lookup } } else { Speculation::Off };
    let engine = plan::engine_settings(&model, args.batch, speculation, "--batch");
    let work = if args.extract {
        Work::Extract(Extracts::new(&model, &tokenizer, settings, engine)?)
    } else {
        Work::Write(Summaries::new(&model, &tokenizer, settings, engine)?)
    };
    let report = Report::new(&args, documents.len(), seed)?;
    let written = write(&args, &documents, work, report);
    written.map_err(|error| input::name_damage(&model, error))
}

/// Where summaries come from.
enum Work<'a> {
    Write(Summaries<'a, &'a Gpt2>),
    Extract(Extracts<'a, &'a Gpt2>),
}

impl Work<'_> {
    fn add(&mut self, id: u64, text: &str) -> Result<(), SummarizeError> {
        match self {
            Work::Write(summaries) => summaries.add(id, text),
            Work::Extract(extracts) => extracts.add(id, text),
        }
    }

    fn step(&mut self) -> Result<Vec<SummaryEvent>, SummarizeError> {
        match self {
            Work::Write(summaries) => summaries.step(),
            Work::Extract(extracts) => extracts.step(),
        }
    }
}

impl Args {
    /// The texts, with their references.
    fn documents(&self) -> Result<Vec<Document>> {
        let mut documents = match &self.text {
            Some(text) => {
                ensure!(!text.trim().is_empty(), "--text is empty; there is nothing to summarise");
                vec![Document { name: "the text".into(), text: text.clone(), references: Vec::new() }]
            }
            None => read::documents(&self.files)?,
        };
        if let Some(path) = &self.references {
            let references = read::references(path)?;
            ensure!(
                references.len() == documents.len(),
                "--references {} has references for {} texts, but there are {}; give one line for each text",
                path.display(),
                references.len(),
                documents.len()
            );
            documents.iter_mut().zip(references).for_each(|(doc, references)| doc.references = references);
        }
        Ok(documents)
    }

    fn settings(&self, tokenizer: &Tokenizer, seed: u64) -> Result<SummarySettings> {
        let ask = match self.ask.as_deref() {
            Some("tldr") => Ask::TlDr,
            Some(_) => Ask::with_template(tokenizer)?,
            None => Ask::of(tokenizer)?,
        };
        let temperature = self.temperature.unwrap_or(if matches!(ask, Ask::TlDr) { 1.0 } else { 0.0 });
        let sampling = Sampling {
            temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            seed,
            processors: Processors {
                repetition: self.repeat_penalty,
                no_repeat_ngram: self.no_repeat_ngram,
                ..Processors::default()
            },
            ..Sampling::default()
        };
        Sampler::new(&sampling, tokenizer.vocab_size(), &[])?;
        Ok(SummarySettings {
            ask,
            instruction: self.instruction.clone(),
            max_sentences: self.max_sentences.or(self.ratio.is_none().then_some(SENTENCES)),
            ratio: self.ratio,
            max_tokens: self.max_tokens,
            sampling,
        })
    }

    /// What is counted in a text.
    fn units(&self, text: &str) -> Units {
        match &*self.rouge_units {
            "word" => Units::words_of(text),
            "char" => Units::Char,
            _ => Units::of(text),
        }
    }
}

/// Summarises all texts and reports them; what is done is kept, whatever comes then.
fn write(args: &Args, documents: &[Document], mut work: Work, mut report: Report) -> Result<()> {
    let stop = StopFlag::install()?;
    let bar = output::bar(documents.len(), "texts");
    let mut done = 0;
    let written = in_order(args.batch, documents, &mut work, &bar, &stop, &mut |index, summary| {
        bar.suspend(|| report.add(&documents[index], index, &summary))?;
        bar.inc(1);
        done = index + 1;
        Ok(())
    });
    bar.finish_and_clear();
    report.finish()?;
    if done < documents.len() {
        note!("stopped after {done} of {} texts; these are kept", documents.len());
    }
    written
}

/// Summarises texts, several at once, and hands the summaries over in the order of the texts.
fn in_order(
    batch: usize,
    documents: &[Document],
    work: &mut Work,
    bar: &ProgressBar,
    stop: &StopFlag,
    on_summary: &mut dyn FnMut(usize, Summary) -> Result<()>,
) -> Result<()> {
    let mut coming = 0..documents.len();
    let mut whole: BTreeMap<usize, Summary> = BTreeMap::new(); // that wait for an earlier one
    let (mut open, mut next) = (0, 0);
    while next < documents.len() && !stop.is_set() {
        while open < batch
            && let Some(index) = coming.next()
        {
            work.add(index as u64, &documents[index].text).with_context(|| documents[index].name.clone())?;
            open += 1;
        }
        for event in work.step()? {
            match event {
                SummaryEvent::Part(id, done, of) if of > 1 => {
                    bar.set_message(format!("{}: part {done} of {of}", documents[id as usize].name));
                }
                SummaryEvent::Part(..) => {}
                SummaryEvent::Done(id, result) => {
                    let index = id as usize;
                    whole.insert(index, result.with_context(|| documents[index].name.clone())?);
                    open -= 1;
                }
            }
        }
        while let Some(summary) = whole.remove(&next) {
            on_summary(next, summary)?;
            next += 1;
        }
    }
    Ok(())
}
