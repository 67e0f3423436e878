//! From files to what a run learns from: read, written as tokens by the model's chat template, and divided.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use data::example::{Example, Pair};
use data::records::examples::{self, Set, Tokenize};
use data::records::{self, Dropped, File, Shape};
use models::LoraConfig;
use serde::Serialize;
use tokenizer::Tokenizer;
use tokenizer::chat::{CHATML_TOKENS, ChatTemplate, Kind};

use super::settings::Settings;

/// The examples of a run, and how they came to be.
pub struct Material {
    pub items: Items,
    pub files: Vec<FileReport>,
    pub dropped: Dropped,
    /// Conversations whose last turn was the user's.
    pub left_off: usize,
    /// Conversations that lost their last turns to fit, and documents that were cut.
    pub shortened: usize,
    pub cut: usize,
    /// Examples to validate on that are learnt from, too.
    pub in_both: usize,
    pub instruction_used: bool,
    /// What most rows to learn from are.
    pub shape: Option<Shape>,
}

/// What to learn from, and what to validate on.
pub enum Items {
    Examples { train: Vec<Example>, held: Vec<Example> },
    Pairs { train: Vec<Pair>, held: Vec<Pair> },
}

/// What a file was read as.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    pub path: PathBuf,
    /// Rows of each shape, in words.
    pub shapes: Vec<(String, usize)>,
    /// Records before they became tokens; of a row with several summaries there are several.
    pub records: usize,
    pub for_validation: bool,
    pub has_more: bool,
    pub used_columns: bool,
}

/// Numbers about the examples to learn from.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Counts {
    pub examples: usize,
    pub held_out: usize,
    pub tokens: usize,
    /// Tokens that are learnt.
    pub learnt: usize,
    /// Tokens of the longest example, held out or not; of a pair the longer one.
    pub longest: usize,
}

impl Items {
    pub fn is_preference(&self) -> bool {
        matches!(self, Items::Pairs { .. })
    }

    pub fn has_held_out(&self) -> bool {
        self.counts().held_out > 0
    }

    /// The first examples to learn from; of pairs the preferred ones and the others in turn.
    pub fn first(&self, n: usize) -> Vec<&Example> {
        match self {
            Items::Examples { train, .. } => train.iter().take(n).collect(),
            Items::Pairs { train, .. } => {
                train.iter().take(n).flat_map(|pair| [&pair.chosen, &pair.rejected]).collect()
            }
        }
    }

    pub fn counts(&self) -> Counts {
        let (train, held, group): (Vec<&Example>, Vec<&Example>, usize) = match self {
            Items::Examples { train, held } => (train.iter().collect(), held.iter().collect(), 1),
            Items::Pairs { train, held } => (both(train), both(held), 2),
        };
        let learnt = |example: &&Example| example.is_answer.iter().filter(|&&learnt| learnt).count();
        Counts {
            examples: train.len() / group,
            held_out: held.len() / group,
            tokens: train.iter().map(|example| example.ids.len()).sum(),
            learnt: train.iter().map(learnt).sum(),
            longest: train.iter().chain(&held).map(|example| example.ids.len()).max().unwrap_or(0),
        }
    }
}

fn both(pairs: &[Pair]) -> Vec<&Example> {
    pairs.iter().flat_map(|pair| [&pair.chosen, &pair.rejected]).collect()
}

/// The template that conversations are written with, and the tokenizer that knows its tokens. A model without a template gets
/// ChatML and the tokens for it. An adapter that does not train the embeddings cannot learn new tokens: it gets lines of
/// `User: …` and `Assistant: …`.
pub fn template(tokenizer: Tokenizer, lora: Option<&LoraConfig>) -> Result<(ChatTemplate, Tokenizer)> {
    let its_own = ChatTemplate::of(&tokenizer).context("the model's chat template")?;
    let has_none = tokenizer.chat_template().is_none();
    let learns_tokens = lora.is_none_or(|lora| lora.embeddings);
    let grown = match has_none && its_own.kind() == Kind::Plain && learns_tokens {
        true => tokenizer.with_special_tokens(&CHATML_TOKENS)?,
        false => tokenizer,
    };
    let template = ChatTemplate::of(&grown).context("the model's chat template")?;
    let source = template.source().to_owned();
    Ok((template, if has_none { grown.with_chat_template(Some(source)) } else { grown }))
}

/// Reads all files and makes examples of them.
pub fn read(
    settings: &Settings,
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    n_ctx: usize,
) -> Result<Material> {
    let options = settings.read_options()?;
    let read = |paths: &[PathBuf]| -> Result<Vec<File>> {
        paths.iter().map(|path| Ok(records::read(path, &options)?)).collect()
    };
    let (files, val_files) = (read(&settings.data)?, read(&settings.val)?);
    let all = || files.iter().chain(&val_files);
    let has = |preference: bool| {
        all().find(|file| file.shapes.keys().any(|&shape| (shape == Shape::Preference) == preference))
    };
    if let (Some(preferences), Some(others)) = (has(true), has(false)) {
        anyhow::bail!(
            "{} holds preferences, {} does not: fine-tune on the answers first, and then the result on the preferences",
            preferences.path.display(),
            others.path.display()
        );
    }
    let render =
        |messages: &[_]| template.conversation(tokenizer, messages).map_err(|error| error.to_string());
    let how = Tokenize {
        render: &render,
        max_length: settings.max_length(n_ctx)?,
        cut_long: settings.cut_long.unwrap_or(false),
        train_on_all: settings.train_on.as_deref() == Some("all"),
        threads: tensor::pool::threads(),
    };
    let mut material = Material {
        items: Items::Examples { train: Vec::new(), held: Vec::new() },
        files: files
            .iter()
            .map(|file| report(file, false))
            .chain(val_files.iter().map(|file| report(file, true)))
            .collect(),
        dropped: Dropped::default(),
        left_off: all().map(|file| file.left_off).sum(),
        shortened: 0,
        cut: 0,
        in_both: 0,
        instruction_used: all()
            .any(|file| file.shapes.keys().any(|shape| matches!(shape, Shape::Summary | Shape::Article))),
        shape: most_common(&files),
    };
    all().for_each(|file| material.dropped.extend(file.dropped.clone()));
    material.items = match has(true) {
        Some(_) => {
            let (train, held) =
                material.divide(examples::pairs(&files, &how), examples::pairs(&val_files, &how), settings);
            material.in_both = in_both(&both(&train), &both(&held));
            Items::Pairs { train, held }
        }
        None => {
            let sets = (examples::examples(&files, &how), examples::examples(&val_files, &how));
            let (train, held) = material.divide(sets.0, sets.1, settings);
            material.in_both = in_both(&train.iter().collect::<Vec<_>>(), &held.iter().collect::<Vec<_>>());
            Items::Examples { train, held }
        }
    };
    material.refuse_empty(settings)?;
    Ok(material)
}

impl Material {
    /// The examples to learn from, and those to validate on.
    fn divide<T>(&mut self, set: Set<T>, val: Set<T>, settings: &Settings) -> (Vec<T>, Vec<T>) {
        for set in [&set, &val] {
            self.dropped.extend(set.dropped.clone());
            self.shortened += set.shortened;
            self.cut += set.cut;
        }
        match settings.val.is_empty() {
            true => set.split(settings.val_fraction(), settings.seed.unwrap_or(0)),
            false => (set.items, val.items),
        }
    }

    fn refuse_empty(&self, settings: &Settings) -> Result<()> {
        let Counts { examples, held_out, .. } = self.items.counts();
        let reasons: Vec<String> = self.dropped.lines().collect();
        ensure!(examples > 0, "nothing is left to learn from; left out: {}", reasons.join("; "));
        ensure!(
            held_out > 0 || settings.val.is_empty(),
            "nothing is left to validate on in --val; left out: {}",
            reasons.join("; ")
        );
        Ok(())
    }
}

fn most_common(files: &[File]) -> Option<Shape> {
    let mut rows: BTreeMap<Shape, usize> = BTreeMap::new();
    for (&shape, &n) in files.iter().flat_map(|file| &file.shapes) {
        *rows.entry(shape).or_default() += n;
    }
    rows.into_iter().max_by_key(|&(_, n)| n).map(|(shape, _)| shape)
}

fn report(file: &File, for_validation: bool) -> FileReport {
    FileReport {
        path: file.path.clone(),
        shapes: file.shapes.iter().map(|(shape, rows)| (shape.to_string(), *rows)).collect(),
        records: file.records.len(),
        for_validation,
        has_more: file.has_more,
        used_columns: file.used_columns,
    }
}

/// How many of the held-out examples are among those to learn from.
fn in_both(train: &[&Example], held: &[&Example]) -> usize {
    let train: HashSet<&[u32]> = train.iter().map(|example| example.ids.as_slice()).collect();
    held.iter().filter(|example| train.contains(example.ids.as_slice())).count()
}
