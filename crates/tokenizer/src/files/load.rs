//! Reading a tokenizer: `tokenizer.json`, `vocab.json` with `merges.txt`, or `vocab.txt`.
//!
//! Nothing is believed: ids must be 0 to n-1, each once, and merges must name tokens. GPT-2's byte-level BPE and
//! vocabularies of this program are read into our own; everything else is run by Hugging Face's crate.

use std::collections::HashSet;
use std::path::Path;

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::beside::{Beside, kept_files, read_added};
use super::json::{Id, Json, Model, Vocab};
use super::{ADDED, Alphabet, CONFIG, MERGES, TOKENIZER, VOCAB, VOCAB_TXT};
use super::{bert, format, pipeline, read, split_pattern, steps, type_of, unsupported};
use crate::bpe::Bpe;
use crate::pipeline::Pipeline;
use crate::split::Pattern;
use crate::tokenizer::{Added, Options, Roles};
use crate::tokens::Tokens;
use crate::words::{UNKNOWN, Unit, Vocabulary};
use crate::{END_OF_TEXT, Result, Tokenizer, TokenizerError};

/// GPT-2's pattern as it was released and as it is written elsewhere.
const GPT2_PATTERNS: [&str; 2] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
];

/// Reads a tokenizer from a file or a directory.
pub(crate) fn load(path: &Path) -> Result<Tokenizer> {
    if path.is_file() {
        let dir = path.parent().unwrap_or(Path::new("."));
        return match path.file_name().and_then(|name| name.to_str()) {
            Some(VOCAB | MERGES) => load_pair(dir),
            Some(VOCAB_TXT) => load_vocab_txt(dir),
            _ => load_json(path, dir),
        };
    }
    let has = |name: &str| path.join(name).is_file();
    match () {
        () if has(TOKENIZER) => load_json(&path.join(TOKENIZER), path),
        () if has(VOCAB) && has(MERGES) => load_pair(path),
        () if has(VOCAB_TXT) => load_vocab_txt(path),
        () => Err(TokenizerError::NotFound { path: path.to_owned() }),
    }
}

pub(super) fn parse<'a, T: serde::Deserialize<'a>>(path: &Path, text: &'a [u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| format(path, error.to_string()))
}

/// The tokens of a vocabulary by id: every id from 0 on, each once, and no added token with two ids. Added tokens may
/// be in the vocabulary too.
fn by_id<'a>(path: &Path, vocab: &'a Vocab, added: &'a [(Added, Value)]) -> Result<Vec<&'a str>> {
    let (table, list): (&[_], &[_]) = match vocab {
        Vocab::Table(table) => (table, &[]),
        Vocab::List(list) => (&[], list),
    };
    let mut tokens: Vec<Option<&str>> = list.iter().map(|token| Some(token.as_ref())).collect();
    tokens.resize(table.len() + list.len() + added.len(), None);
    let given: FxHashMap<&str, &Value> = added.iter().map(|(added, id)| (added.name.as_str(), id)).collect();
    let mut beyond = None;
    let mut place = |token: &'a str, id: u64| -> Result<()> {
        match usize::try_from(id).ok().and_then(|id| tokens.get_mut(id)) {
            None => beyond = Some((token, id)),
            Some(place) if place.is_none_or(|other| other == token) => *place = Some(token),
            Some(_) => return Err(format(path, format!("id {id} is given twice, once to {token:?}"))),
        }
        Ok(())
    };
    for (token, id) in table {
        let id = match id {
            Id::Number(id) => *id,
            Id::Other(what) => return Err(format(path, format!("token {token:?} has the id {what}"))),
        };
        if let Some(other) = given.get(token.as_ref()).filter(|other| other.as_u64() != Some(id)) {
            return Err(format(path, format!("token {token:?} has two ids, {id} and {other}")));
        }
        place(token, id)?;
    }
    for (token, value) in added {
        let name = &token.name;
        let id = value.as_u64().ok_or_else(|| format(path, format!("token {name:?} has the id {value}")))?;
        place(name, id)?;
    }
    let n = tokens.iter().position(Option::is_none).unwrap_or(tokens.len());
    let later = tokens[n..].iter().zip(n as u64..).find_map(|(token, id)| Some(((*token)?, id)));
    if let Some((token, id)) = later.or(beyond) {
        return Err(format(path, format!("there is no token with id {n}, but {token:?} has id {id}")));
    }
    if n == 0 {
        return Err(format(path, "the vocabulary is empty"));
    }
    Ok(tokens.into_iter().flatten().collect())
}

/// Added tokens with the ids that are written, and whether all are found wherever their names stand.
fn read_all_added(path: &Path, list: &[Value]) -> Result<(Vec<(Added, Value)>, bool)> {
    let (mut all, mut all_plain) = (Vec::new(), true);
    let mut seen = HashSet::new();
    for token in list {
        let (added, id, plain) = read_added(path, token)?;
        if !seen.insert(added.name.clone()) {
            return Err(format(path, format!("the added token {:?} is given twice", added.name)));
        }
        all_plain &= plain;
        all.push((added, id));
    }
    Ok((all, all_plain))
}

/// What tokens are for.
fn roles(path: &Path, names: &[&str], beside: &Beside, affixes: (Vec<u32>, Vec<u32>)) -> Result<Roles> {
    let (mut prefix, suffix) = affixes;
    let find = |name: &str| names.iter().position(|token| *token == name).map(|id| id as u32);
    let named = |role: &str| beside.token(role).and_then(find);
    let of_model = |id: &str| beside.model_id(id).filter(|&id| (id as usize) < names.len());
    let eot = named("eos_token")
        .or_else(|| find(END_OF_TEXT))
        .or_else(|| suffix.last().copied())
        .or_else(|| named("sep_token"))
        .or_else(|| of_model("eos_token_id"));
    let eot = eot.ok_or_else(|| {
        let reason =
            format!("there is no token {END_OF_TEXT}, nor does {CONFIG} name another as `eos_token`");
        format(path, reason)
    })?;
    let known = || if names[eot as usize] == END_OF_TEXT { None } else { of_model("bos_token_id") };
    let bos = prefix.last().copied().or_else(|| named("bos_token")).or_else(known).unwrap_or(eot);
    if prefix.is_empty() && beside.flag("add_bos_token") == Some(true) {
        prefix.push(bos);
    }
    Ok(Roles { eot, bos, prefix: prefix.into() })
}

/// vocab.json with merges.txt, as GPT-2 was released.
fn load_pair(dir: &Path) -> Result<Tokenizer> {
    let (vocab_path, merges_path) = (dir.join(VOCAB), dir.join(MERGES));
    let text = read(&vocab_path)?;
    let vocab: Vocab = parse(&vocab_path, &text)?;
    let Vocab::Table(table) = &vocab else {
        return Err(format(&vocab_path, "a table of tokens and ids is needed"));
    };
    let beside = Beside::read(dir)?;
    let added_json = beside.added_tokens()?;
    let (added, all_plain) = read_all_added(&dir.join(ADDED), &added_json)?;
    let tokens = by_id(&vocab_path, &vocab, &added)?;
    let text = String::from_utf8(read(&merges_path)?).map_err(|_| format(&merges_path, "it is not UTF-8"))?;
    let lines = (1..).zip(text.lines());
    let merges: Vec<(&str, &str)> = lines
        .filter(|(number, line)| !(line.is_empty() || *number == 1 && line.starts_with("#version")))
        .map(|(number, line)| {
            let pair = line.split_once(' ');
            pair.ok_or_else(|| format(&merges_path, format!("line {number} is not a pair of tokens")))
        })
        .collect::<Result<_>>()?;
    let add_prefix_space = beside.flag("add_prefix_space").unwrap_or(false);
    if !all_plain {
        let ids = table.iter().filter_map(|(token, id)| match id {
            Id::Number(id) => Some((token.to_string(), Value::from(*id))),
            Id::Other(_) => None,
        });
        let mut json =
            super::save::bpe_json(ids.collect(), &merges, Options { add_prefix_space, ..Options::GPT2 });
        json["added_tokens"] = added_json.into();
        return load_text(&vocab_path, dir, json.to_string().into_bytes(), beside, &[VOCAB, MERGES]);
    }
    let roles = roles(&vocab_path, &tokens, &beside, Default::default())?;
    let added = added.iter().map(|(added, _)| added.clone()).collect();
    let options = Options { add_prefix_space, ..Options::GPT2 };
    let tokenizer = byte_level(&vocab_path, &tokens, &merges, added, roles.eot, options)?;
    Ok(tokenizer.with(roles, beside.names(), beside.chat_template()))
}

/// vocab.txt, as BERT has it.
fn load_vocab_txt(dir: &Path) -> Result<Tokenizer> {
    let path = dir.join(VOCAB_TXT);
    let text = read(&path)?;
    let text = std::str::from_utf8(&text)
        .map_err(|error| format(&path, format!("it is not UTF-8 at byte {}", error.valid_up_to())))?;
    let beside = Beside::read(dir)?;
    let json = bert::tokenizer_json(dir, text, &beside)?;
    load_text(&path, dir, json.to_string().into_bytes(), beside, &[VOCAB_TXT])
}

/// Builds byte-level BPE from tokens and merges in GPT-2's alphabet.
pub(super) fn byte_level(
    path: &Path,
    names: &[&str],
    merges: &[(&str, &str)],
    mut added: Vec<Added>,
    eot: u32,
    options: Options,
) -> Result<Tokenizer> {
    if !added.iter().any(|added| added.id == eot) {
        added.push(Added { name: names[eot as usize].to_owned(), id: eot, special: true });
    }
    let alphabet = Alphabet::new();
    let mut is_added = vec![false; names.len()];
    added.iter().for_each(|added| is_added[added.id as usize] = true);
    let mut tokens = Tokens::with_capacity(names.len());
    let mut bytes = Vec::new();
    for (&name, id) in names.iter().zip(0..) {
        if is_added[id] {
            tokens.push_hidden(name.as_bytes());
            continue;
        }
        bytes.clear();
        let reason = || format!("token {name:?} (id {id}) is not written in the byte-level alphabet");
        alphabet.read(name, &mut bytes).ok_or_else(|| format(path, reason()))?;
        if !tokens.push_new(&bytes) {
            return Err(format(path, format!("token {name:?} has two ids, of which one is {id}")));
        }
    }
    let no_token =
        |token: &str| format(path, format!("a merge names {token:?}, which is no token of the vocabulary"));
    let mut found = Vec::with_capacity(merges.len());
    for &(left, right) in merges {
        bytes.clear();
        alphabet.read(left, &mut bytes).ok_or_else(|| no_token(left))?;
        let cut = bytes.len();
        alphabet.read(right, &mut bytes).ok_or_else(|| no_token(right))?;
        found.push((
            tokens.find(&bytes[..cut]).ok_or_else(|| no_token(left))?,
            tokens.find(&bytes[cut..]).ok_or_else(|| no_token(right))?,
            tokens.find(&bytes).ok_or_else(|| no_token(&[left, right].concat()))?,
        ));
    }
    let bpe = Bpe::new(tokens, found.into_iter()).map_err(|byte| {
        format(path, format!("there is no token for byte {byte:#04x}: this is not a byte-level vocabulary"))
    })?;
    Ok(Tokenizer::from_bpe(bpe, options, added, eot))
}

/// tokenizer.json.
fn load_json(path: &Path, dir: &Path) -> Result<Tokenizer> {
    load_text(path, dir, read(path)?, Beside::read(dir)?, &[])
}

/// The text of a tokenizer.json; `more` is what else is kept where it is saved as it was loaded.
fn load_text(
    path: &Path,
    dir: &Path,
    text: Vec<u8>,
    beside: Beside,
    more: &[&'static str],
) -> Result<Tokenizer> {
    let json: Json = parse(path, &text)?;
    let model = json.model.as_ref().ok_or_else(|| format(path, "it has no `model`"))?;
    let vocab =
        model.vocab.as_ref().ok_or_else(|| format(path, "it has no `model.vocab` of tokens and ids"))?;
    let (given, all_plain) = read_all_added(path, json.added_tokens.as_array().map_or(&[], Vec::as_slice))?;
    let names = by_id(path, vocab, &given)?;
    let added: Vec<Added> = given.iter().map(|(added, _)| added.clone()).collect();
    let affixes = pipeline::affixes(path, &json.post_processor, names.len())?;
    let roles = roles(path, &names, &beside, affixes)?;
    let chat = beside.chat_template();
    let is_plain = all_plain && is_off(&json.normalizer);
    let kind = model.kind.as_deref().unwrap_or("BPE");
    if is_plain
        && kind == "WordLevel"
        && let Some(unit) = our_unit(&json, model, &added, roles.eot)
    {
        let vocabulary = words(unit, &names, &added, roles.eot);
        return Ok(Tokenizer::from_words(vocabulary, added, roles.eot).with(roles, beside.names(), chat));
    }
    if is_plain
        && kind == "BPE"
        && let Some(options) = byte_level_options(&json, model)
    {
        let space = beside.flag("add_prefix_space");
        if space.is_some_and(|space| space != options.add_prefix_space) {
            return Err(format(path, format!("`add_prefix_space` contradicts {CONFIG}; make them the same")));
        }
        let tokenizer = byte_level(path, &names, &merges_of(path, model)?, added, roles.eot, options)?;
        return Ok(tokenizer.with(roles, beside.names(), chat));
    }
    let known = ["BPE", "WordLevel", "WordPiece", "Unigram"];
    if !known.contains(&kind) {
        return Err(unsupported(path, format!("a model of type {kind}")));
    }
    let mut files = kept_files(dir, more)?;
    files.retain(|(name, _)| *name != TOKENIZER);
    files.insert(0, (TOKENIZER, text.clone()));
    name_eot(&mut files, &beside, names[roles.eot as usize], more);
    let source = pipeline::Source { text: &text, json: &json, model, names: &names, added: &added };
    let pipeline = pipeline::load(path, &source, files)?;
    Ok(Tokenizer::from_pipeline(pipeline, added, roles.eot).with(roles, beside.names(), chat))
}

/// A vocabulary that Hugging Face's crate runs, from its files, of which `tokenizer.json` is the first.
pub(super) fn pipeline(path: &Path, files: Vec<(&'static str, Vec<u8>)>) -> Result<Pipeline> {
    let text = files[0].1.clone();
    let json: Json = parse(path, &text)?;
    let no_vocab = || format(path, "it has no `model.vocab` of tokens and ids");
    let model = json.model.as_ref().ok_or_else(no_vocab)?;
    let (given, _) = read_all_added(path, json.added_tokens.as_array().map_or(&[], Vec::as_slice))?;
    let names = by_id(path, model.vocab.as_ref().ok_or_else(no_vocab)?, &given)?;
    let added: Vec<Added> = given.iter().map(|(added, _)| added.clone()).collect();
    let source = pipeline::Source { text: &text, json: &json, model, names: &names, added: &added };
    pipeline::load(path, &source, files)
}

/// A copy elsewhere must end texts with the same token, which only the model's files may have named.
fn name_eot(files: &mut Vec<(&'static str, Vec<u8>)>, beside: &Beside, eot: &str, more: &[&str]) {
    if beside.config.is_object() && beside.token("eos_token").is_some() {
        return;
    }
    let class = if more.contains(&VOCAB_TXT) { "BertTokenizer" } else { "PreTrainedTokenizerFast" };
    let mut config = beside.config.as_object().cloned().unwrap_or_default();
    config.entry("tokenizer_class").or_insert(class.into());
    config.entry("eos_token").or_insert(eot.into());
    files.retain(|(name, _)| *name != CONFIG);
    files.push((CONFIG, super::save::pretty(&config.into()).into_bytes()));
}

/// Whether a part is absent or switched off.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// How text is cut, if that is by GPT-2's pattern or not at all, and tokens are joined as bytes.
fn byte_level_options(json: &Json, model: &Model) -> Option<Options> {
    let parts = [
        &model.dropout,
        &model.continuing_subword_prefix,
        &model.end_of_word_suffix,
        &model.byte_fallback,
        &model.ignore_merges,
    ];
    let joins_bytes = steps(&json.decoder, "decoders").into_iter().all(|step| type_of(step) == "ByteLevel");
    if !joins_bytes || !parts.into_iter().all(is_off) {
        return None;
    }
    let flag = |step: &Value, name: &str, default| step.get(name).and_then(Value::as_bool).unwrap_or(default);
    match steps(&json.pre_tokenizer, "pretokenizers")[..] {
        [bytes] if type_of(bytes) == "ByteLevel" => {
            let pattern = if flag(bytes, "use_regex", true) { Pattern::Gpt2 } else { Pattern::Whole };
            Some(Options { pattern, add_prefix_space: flag(bytes, "add_prefix_space", true) })
        }
        // GPT-2's pattern cuts its own pieces no further, so it does not matter whether it is used again.
        [split, bytes]
            if type_of(bytes) == "ByteLevel"
                && !flag(bytes, "add_prefix_space", true)
                && is_gpt2_split(split) =>
        {
            Some(Options::GPT2)
        }
        _ => None,
    }
}

fn is_gpt2_split(split: &Value) -> bool {
    let pattern = split.pointer("/pattern/Regex").and_then(Value::as_str);
    // Every character is in a match, so these two say the same.
    let keeps_all = [("Isolated", false), ("Removed", true)].iter().any(|&(behavior, invert)| {
        split["behavior"] == behavior
            && split.get("invert").and_then(Value::as_bool).unwrap_or(false) == invert
    });
    type_of(split) == "Split" && keeps_all && pattern.is_some_and(|pattern| GPT2_PATTERNS.contains(&pattern))
}

/// Merges as pairs.
fn merges_of<'a>(path: &Path, model: &'a Model) -> Result<Vec<(&'a str, &'a str)>> {
    let merges = model.merges.as_ref().ok_or_else(|| format(path, "it has no `model.merges`"))?;
    merges
        .iter()
        .map(|merge| merge.pair().ok_or_else(|| format(path, format!("the merge {merge} is not a pair"))))
        .collect()
}

/// A vocabulary of ours, in which special tokens that were added stand for no text.
fn words(unit: Unit, names: &[&str], added: &[Added], eot: u32) -> Vocabulary {
    let is_hidden = |id: usize| {
        let added = added.iter().find(|added| added.id as usize == id);
        added.is_some_and(|added| added.special && added.id != eot && added.name != UNKNOWN)
    };
    let n = (0..names.len()).rev().take_while(|&id| is_hidden(id)).count();
    let (text, hidden) = names.split_at(names.len() - n);
    Vocabulary::new(unit, text).with_hidden(hidden.iter().copied())
}

/// What a vocabulary of characters or words is cut into, if it is as [`super::save`] writes it.
fn our_unit(json: &Json, model: &Model, added: &[Added], eot: u32) -> Option<Unit> {
    let split = &json.pre_tokenizer;
    let pattern = split.pointer("/pattern/Regex").and_then(Value::as_str)?;
    let ours = type_of(split) == "Split"
        && split["behavior"] == "Isolated"
        && model.unk_token == UNKNOWN
        && type_of(&json.decoder) == "Fuse"
        && added.iter().all(|added| added.special || added.id == eot || added.name == UNKNOWN);
    [Unit::Chars, Unit::Words].into_iter().find(|&unit| ours && pattern == split_pattern(unit))
}
