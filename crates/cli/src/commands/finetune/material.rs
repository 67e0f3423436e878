//! From files to what a run learns from: read, written as tokens by the model's chat template, and divided.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, ensure};
use data::example::{Example, Pair};
use data::records::examples::{self as sets, Set, Tokenize};
use data::records::{File, Shape};
use models::LoraConfig;
use serde::Serialize;
use tokenizer::Tokenizer;
use tokenizer::chat::{CHATML_TOKENS, ChatTemplate};

use super::settings::Settings;
use crate::examples::{self, Findings};

/// The examples of a run, and how they came to be.
pub struct Material {
    pub items: Items,
    pub found: Findings,
    /// Examples to validate on that are learnt from, too.
    pub in_both: usize,
    /// What most rows to learn from are.
    pub shape: Option<Shape>,
}

/// What to learn from, and what to validate on.
pub enum Items {
    Examples { train: Vec<Example>, held: Vec<Example> },
    Pairs { train: Vec<Pair>, held: Vec<Pair> },
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
    let grown = match its_own.is_assumed() && learns_tokens {
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
    let options = settings.reading.options()?;
    let (files, val_files) =
        (examples::read(&settings.data, &options)?, examples::read(&settings.val, &options)?);
    let advice = "fine-tune on the answers first, and then the result on the preferences";
    let is_preference = examples::hold_preferences(files.iter().chain(&val_files), advice)?;
    let how = Tokenize {
        render: &examples::render(template, tokenizer),
        max_length: settings.reading.max_length(n_ctx)?,
        cut_long: settings.reading.cuts(),
        train_on_all: settings.train_on.as_deref() == Some("all"),
        threads: tensor::pool::threads(),
    };
    let mut material = Material {
        items: Items::Examples { train: Vec::new(), held: Vec::new() },
        found: Findings::default(),
        in_both: 0,
        shape: most_common(&files),
    };
    material.found.add_files(&files, false);
    material.found.add_files(&val_files, true);
    if is_preference {
        let (train, held) =
            material.divide(sets::pairs(&files, &how), sets::pairs(&val_files, &how), settings);
        material.in_both = in_both(&both(&train), &both(&held));
        material.items = Items::Pairs { train, held };
    } else {
        let (set, val) = (sets::examples(&files, &how), sets::examples(&val_files, &how));
        let (train, held) = material.divide(set, val, settings);
        material.in_both = in_both(&train.iter().collect::<Vec<_>>(), &held.iter().collect::<Vec<_>>());
        material.items = Items::Examples { train, held };
    }
    material.refuse_empty(settings)?;
    Ok(material)
}

impl Material {
    /// The examples to learn from, and those to validate on.
    fn divide<T>(&mut self, set: Set<T>, val: Set<T>, settings: &Settings) -> (Vec<T>, Vec<T>) {
        for set in [&set, &val] {
            self.found.add_set(set);
        }
        match settings.val.is_empty() {
            true => set.split(settings.val_fraction(), settings.seed.unwrap_or(0)),
            false => (set.items, val.items),
        }
    }

    fn refuse_empty(&self, settings: &Settings) -> Result<()> {
        let Counts { examples, held_out, .. } = self.items.counts();
        let reasons = self.found.reasons();
        ensure!(examples > 0, "nothing is left to learn from; left out: {reasons}");
        ensure!(
            held_out > 0 || settings.val.is_empty(),
            "nothing is left to validate on in --val; left out: {reasons}"
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

/// How many of the held-out examples are among those to learn from.
fn in_both(train: &[&Example], held: &[&Example]) -> usize {
    let train: HashSet<&[u32]> = train.iter().map(|example| example.ids.as_slice()).collect();
    held.iter().filter(|example| train.contains(example.ids.as_slice())).count()
}
