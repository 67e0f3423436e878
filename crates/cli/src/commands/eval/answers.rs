//! `gpt2 eval --answers`: the loss on the answers of examples, or which of two answers is likelier.

use anyhow::{Context, Result, ensure};
use data::example::{Example, Pair};
use data::records::File;
use data::records::examples::{self as sets, Tokenize};
use eval::{AnswerReport, PairReport};
use models::Gpt2;
use serde_json::{Value, json};
use tokenizer::Tokenizer;
use tokenizer::chat::ChatTemplate;

use super::replies::{self, Replies};
use crate::examples::{self, Findings};
use crate::input::{self, grouped};
use crate::output::{self, note, say};
use crate::part::Part;

/// What is measured.
enum Items {
    Examples(Vec<Example>),
    Pairs(Vec<Pair>),
}

/// What was measured.
enum Report {
    Answers(AnswerReport),
    Pairs(PairReport),
}

pub fn run(args: &super::Args, offline: bool) -> Result<()> {
    args.replies.check()?;
    if let Some(out) = &args.replies.replies_out {
        super::refuse_overwriting("--replies-out", out, &args.answers, args.force)?;
    }
    let out = args.replies.replies_out.as_deref().map(Part::beside).transpose()?;
    let options = args.reading.options()?;
    let files = examples::read(&args.answers, &options)?;
    let is_preference = examples::hold_preferences(files.iter(), "measure on them one after the other")?;
    let (model, tokenizer) = args.model.open(offline)?;
    let template = ChatTemplate::of(&tokenizer).context("the model's chat template")?;
    let mut found = Findings::default();
    found.add_files(&files, false);
    let items = items(args, &files, is_preference, &mut found, (&model, &tokenizer, &template))?;
    found.tell(&args.reading);
    let report = items.measure(&model).map_err(|error| input::name_damage(&model, error))?;
    if !args.json {
        report.show()?;
    }
    let replies = match args.replies.replies {
        None => None,
        Some(n) => {
            let replies = replies::write(args, &files, n, out, (&model, &tokenizer, &template));
            Some(replies.map_err(|error| input::name_damage(&model, error))?)
        }
    };
    match args.json {
        true => super::super::print_json(&report.json(&found, replies.as_ref())?),
        false => replies.map_or(Ok(()), |replies| replies.show()),
    }
}

/// The tokens of files.
fn items(
    args: &super::Args,
    files: &[File],
    is_preference: bool,
    found: &mut Findings,
    (model, tokenizer, template): (&Gpt2, &Tokenizer, &ChatTemplate),
) -> Result<Items> {
    let how = Tokenize {
        render: &examples::render(template, tokenizer),
        max_length: args.reading.max_length(model.config().n_ctx)?,
        cut_long: args.reading.cuts(),
        train_on_all: false,
        threads: tensor::pool::threads(),
    };
    let items = if is_preference {
        let set = sets::pairs(files, &how);
        found.add_set(&set);
        Items::Pairs(set.items)
    } else {
        let set = sets::examples(files, &how);
        found.add_set(&set);
        Items::Examples(set.items)
    };
    ensure!(items.len() > 0, "nothing is left to measure; left out: {}", found.reasons());
    Ok(items)
}

impl Items {
    fn len(&self) -> usize {
        match self {
            Items::Examples(examples) => examples.len(),
            Items::Pairs(pairs) => pairs.len(),
        }
    }

    fn measure(&self, model: &Gpt2) -> Result<Report> {
        let bar = output::bar(self.len(), "examples");
        let report = match self {
            Items::Examples(examples) => {
                Report::Answers(eval::answers::evaluate(model, bar.wrap_iter(examples.iter()))?)
            }
            Items::Pairs(pairs) => {
                Report::Pairs(eval::answers::evaluate_pairs(model, bar.wrap_iter(pairs.iter()))?)
            }
        };
        bar.finish_and_clear();
        Ok(report)
    }
}

impl Report {
    fn show(&self) -> Result<()> {
        let (answers, whose) = match self {
            Report::Answers(answers) => (answers, ""),
            Report::Pairs(report) => {
                let [share, error] = [report.likelier, report.likelier_stderr].map(|share| 100.0 * share);
                say!("chosen likelier  {share:.2} ± {error:.2} % of {} pairs", grouped(report.pairs as u64))?;
                say!("by               {:.3} ± {:.3} nats", report.margin, report.margin_stderr)?;
                (&report.chosen, " of the chosen answers")
            }
        };
        let AnswerReport { loss, loss_stderr, perplexity, accuracy, accuracy_stderr, .. } = answers;
        say!("loss             {loss:.4} ± {loss_stderr:.4} nats a token{whose}")?;
        say!("perplexity       {perplexity:.3} ± {:.3}", perplexity * loss_stderr)?;
        say!("accuracy         {:.2} ± {:.2} %", 100.0 * accuracy, 100.0 * accuracy_stderr)?;
        let [tokens, examples] = [answers.tokens, answers.examples].map(|n| grouped(n as u64));
        note!("[{tokens} tokens of the answers of {examples} examples]");
        Ok(())
    }

    fn json(&self, found: &Findings, replies: Option<&Replies>) -> Result<Value> {
        let mut value = match self {
            Report::Answers(report) => serde_json::to_value(report)?,
            Report::Pairs(report) => serde_json::to_value(report)?,
        };
        value["data"] = found.json();
        if let Some(replies) = replies {
            value["replies"] = json!(replies);
        }
        Ok(value)
    }
}
