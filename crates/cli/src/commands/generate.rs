//! `gpt2 generate`: writes text with a model.

mod ask;
mod batch;
mod beams;
pub(super) mod choices;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use generate::apps::chat::Answer;
use generate::{
    EngineSettings, Finish, Generation, Overflow, Request, Speculation, TextEvent, Texts, TokenLogprobs,
};
use models::Gpt2;
use serde_json::json;
use tokenizer::Tokenizer;

use self::ask::Asked;
use self::choices::Choices;
use crate::constrain::Constrain;
use crate::input;
use crate::model::ModelArgs;
use crate::output::note;
use crate::plan;

/// Write text with a model
///
/// The text is streamed to standard output as it is decided, after the prompt. Messages go to standard error.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gpt2 generate -m out/model -p \"Once upon a time\" -n 200 --temperature 0.8 --top-k 40\n  \
    echo \"从前有一只\" | gpt2 generate -m out/model -f - --seed 1\n  \
    gpt2 generate -m gpt2 -p \"Alan Turing theorized that\" -n 20 --temperature 0\n  \
    gpt2 generate -m gpt2 --adapter out/adapter -p \"Once\"\n  \
    gpt2 generate -m out/model --input prompts.jsonl --output texts.jsonl --batch 32\n  \
    gpt2 generate -m out/assistant --chat -p \"What is a fox?\"\n  \
    gpt2 generate -m out/model -p \"The end\" --beams 4 --samples 2 -n 50\n  \
    gpt2 generate -m out/model -p \"A person: \" --json-schema person.json -n 100"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to continue; without one the model starts a new text
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Read the prompt from a file, or from standard input for -; one newline at its end is dropped
    #[arg(short, long, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// Take the prompt for a user's message, and write the answer in the form of the model's chat template
    #[arg(long, conflicts_with_all = ["beams", "parse_special"])]
    chat: bool,
    /// Tokens to write at most [default: until the text ends or the context is full]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Tokens to write at least
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_tokens: usize,
    /// Start of the random numbers [default: random, and reported]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End the text before this string; may be given several times. \n and \t are understood
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Texts to write; number k uses seed + k
    #[arg(long, value_name = "N", default_value_t = 1)]
    samples: u64,
    /// Names of special tokens in the prompt stand for those tokens
    #[arg(long)]
    parse_special: bool,
    /// When the context is full: refuse (said before anything is written), or slide: forget the older half, but --keep
    #[arg(long, value_name = "WHAT", default_value = "refuse", value_parser = ["refuse", "slide"])]
    overflow: String,
    /// With --overflow slide: tokens at the beginning that are never forgotten
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep: usize,
    /// Search for the N texts that are most likely as a whole, and write the best --samples of them
    #[arg(long, value_name = "N", conflicts_with_all = IGNORED_BY_BEAMS)]
    beams: Option<usize>,
    /// With --beams: above 0, longer texts are better; below 0, shorter ones
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true, requires = "beams")]
    length_penalty: f64,
    /// With --beams: end when there are as many whole texts as beams (true), when no better one is likely (false), or when
    /// no better one is possible (never)
    #[arg(long, value_name = "WHEN", default_value = "false", value_parser = ["true", "false", "never"], requires = "beams")]
    early_stopping: String,
    /// Guess up to N tokens from what stood in the text before, and check them at once; the text stays the same.
    /// 0 turns it off
    #[arg(long, value_name = "N", default_value_t = 8)]
    lookup: usize,
    /// Let a smaller model of the same vocabulary guess instead; the text stays the same
    #[arg(long, value_name = "MODEL")]
    draft: Option<PathBuf>,
    /// Prompts to continue, one object a line: {"prompt": …}, or {"messages": [{"role": …, "content": …}, …]} to answer, and
    /// if wanted max_tokens, seed, stop, json_schema
    #[arg(long, value_name = "FILE", requires = "output", conflicts_with_all = ["prompt", "file", "samples", "beams"])]
    input: Option<PathBuf>,
    /// With --input: where to write one line of JSON for each; a file that is partly done is gone on with
    #[arg(long, value_name = "FILE", requires = "input")]
    output: Option<PathBuf>,
    /// With --input: texts that are written at once, at most 512; fewer where memory holds no more
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    constrain: Constrain,
    /// One line of JSON for each text, instead of streaming
    #[arg(long)]
    json: bool,
}

/// Flags that a search for the most likely texts has no use for.
const IGNORED_BY_BEAMS: [&str; 10] = [
    "draft",
    "lookup",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "logprobs",
    "json_schema",
    "grammar",
];

pub fn run(mut args: Args, offline: bool) -> Result<()> {
    ensure!(args.samples > 0, "--samples 0: ask for at least 1");
    plan::ensure_batch(args.batch)?;
    ensure!(args.keep == 0 || args.overflow == "slide", "--keep {}: add --overflow slide", args.keep);
    ensure!(
        args.draft.is_none() || args.lookup > 0,
        "--lookup 0 turns guessing off: raise it, or leave out --draft"
    );
    ensure!(
        !args.chat || args.prompt.is_some() || args.file.is_some() || args.input.is_some(),
        "--chat: give a message with -p, -f or --input; `gpt2 chat` holds a conversation"
    );
    ensure!(args.stop.iter().all(|stop| !stop.is_empty()), "--stop: give characters, or leave it out");
    if !args.stop.is_empty() && args.constrain.is_given() {
        note!("note: with a schema or a grammar, --stop ends the text only where it is whole already");
    }
    ensure!(
        args.choices.logprobs.is_none() || args.json || args.input.is_some(),
        "--logprobs: add --json to see them"
    );
    if let Some(most) = args.max_tokens {
        ensure!(
            args.min_tokens <= most,
            "--min-tokens {} is more than -n {most} allows; lower the one or raise the other",
            args.min_tokens
        );
    }
    let located = args.model.locate(offline)?;
    args.draft = args.draft.map(|draft| input::model_path(draft, offline)).transpose()?;
    if let (Some(input), Some(output)) = (&args.input, &args.output) {
        return batch::run(&args, &located, input, output);
    }
    let (model, tokenizer) = located.open(args.model.dtype)?;
    let prompt = match (&args.prompt, &args.file) {
        (Some(prompt), _) => prompt.clone(),
        (None, Some(path)) => input::read_prompt(path)?,
        (None, None) => String::new(),
    };
    let asked = Asked::text(prompt, args.chat)?;
    ask::note_unknown(&tokenizer, &asked);
    let template = ask::template(&tokenizer, std::iter::once(&asked))?;
    let seed = input::seed(args.seed);
    if args.beams.is_some() {
        return beams::run(&args, &model, &tokenizer, asked.shown());
    }
    let constraint = args.constrain.build(&tokenizer)?;
    let settings = EngineSettings {
        speculation: args.speculation(&model, &tokenizer)?,
        ..EngineSettings::for_batch(&model, 1)
    };
    let settings =
        EngineSettings { kept: usize::from(args.samples > 1), blocks: 2 * settings.blocks, ..settings };
    let mut texts = Texts::new(&model, &tokenizer, settings)?;
    let mut sample = |seed| {
        let request = args.ask(&tokenizer, template.as_ref(), &asked, seed)?;
        let request = Request { constraint: constraint.clone(), ..request };
        if args.json {
            let result = write(&mut texts, &request, &mut |_| true)?;
            super::print_json(&asked_json(&asked, &result, seed))
        } else {
            stream(&mut texts, &request, &asked)
        }
    };
    let all = (0..args.samples).try_for_each(|i| sample(seed.wrapping_add(i)));
    all.map_err(|error| input::name_damage(&model, error))
}

impl Args {
    /// The request for a prompt.
    fn request(&self, tokenizer: &Tokenizer, prompt: &str, seed: u64) -> Result<Request> {
        let prompt = tokenizer.encode_prompt(prompt, self.parse_special)?;
        Ok(Request {
            prompt,
            max_tokens: self.max_tokens,
            min_tokens: self.min_tokens,
            stop: self.stop.iter().map(|stop| stop.replace("\\n", "\n").replace("\\t", "\t")).collect(),
            sampling: self.choices.sampling(tokenizer, seed)?,
            prompt_logprobs: self.choices.logprobs,
            logprobs_from: 0,
            overflow: if self.overflow == "slide" {
                Overflow::Slide { keep: self.keep }
            } else {
                Overflow::Refuse
            },
            constraint: None,
        })
    }

    /// Where drafts come from.
    fn speculation(&self, model: &Gpt2, tokenizer: &Tokenizer) -> Result<Speculation> {
        let most = self.lookup;
        let Some(dir) = &self.draft else {
            return Ok(if most > 0 { Speculation::Lookup { most } } else { Speculation::Off });
        };
        let (draft, own) = input::open_model(dir, None)?;
        let (got, want) = (draft.config().vocab_size, model.config().vocab_size);
        ensure!(
            got == want,
            "--draft {}: its vocabulary has {got} tokens, the model's {want}; take a smaller model of the same family",
            dir.display()
        );
        if !own.is_same_as(tokenizer) {
            note!(
                "warning: --draft {}: its tokens are not those of the model, so that its guesses seldom hold",
                dir.display()
            );
        }
        Ok(Speculation::Model { model: Arc::new(draft), most })
    }
}

/// Writes one text.
fn write(
    texts: &mut Texts<&Gpt2>,
    request: &Request,
    on_text: &mut dyn FnMut(&str) -> bool,
) -> Result<Generation> {
    let id = texts.add(request)?;
    loop {
        for event in texts.step()? {
            match event {
                TextEvent::Piece(_, piece) => {
                    if !on_text(&piece) {
                        return Ok(texts.cancel(id).unwrap_or_default());
                    }
                }
                TextEvent::Slid(_, dropped) => {
                    note!("[the context was full: {dropped} tokens in its middle are forgotten]")
                }
                TextEvent::Done(_, result) => return Ok(result?),
            }
        }
    }
}

/// A text with all that is known of it.
pub(super) fn result_json(result: &Generation, seed: u64) -> serde_json::Value {
    let mut value = json!({
        "text": result.text, "ids": result.ids, "finish_reason": result.finish, "seed": seed, "timings": result.timings,
    });
    if result.forgotten > 0 {
        value["forgotten"] = json!(result.forgotten);
    }
    if let Some(logprobs) = &result.logprobs {
        value["logprobs"] = logprobs_json(logprobs);
    }
    if let Some(logprobs) = &result.prompt_logprobs {
        value["prompt_logprobs"] = logprobs_json(logprobs);
    }
    value
}

/// [`result_json`]; an answer's text is without white space at both ends, as in `gpt2 chat`.
fn asked_json(asked: &Asked, result: &Generation, seed: u64) -> serde_json::Value {
    let mut value = result_json(result, seed);
    if asked.is_chat() {
        value["text"] = result.text.trim().into();
    }
    value
}

fn logprobs_json(all: &[TokenLogprobs]) -> serde_json::Value {
    let top =
        |top: &[(u32, f32)]| top.iter().map(|(id, x)| json!({ "id": id, "logprob": x })).collect::<Vec<_>>();
    all.iter().map(|t| json!({ "id": t.id, "logprob": t.logprob, "top": top(&t.top) })).collect()
}

fn stream(texts: &mut Texts<&Gpt2>, request: &Request, asked: &Asked) -> Result<()> {
    let (prompt, mut answer) = (asked.shown(), Answer::default());
    let mut out = std::io::stdout().lock();
    let mut failed = None;
    let mut started = false;
    let result = write(texts, request, &mut |piece| {
        let head = if started { "" } else { prompt };
        started = true;
        let piece = if asked.is_chat() { answer.push(piece) } else { piece.to_owned() };
        let written = write!(out, "{head}{piece}").and_then(|()| out.flush());
        failed = written.err();
        failed.is_none()
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if !started {
        write!(out, "{prompt}")?;
    }
    writeln!(out)?;
    let why = match result.finish {
        Finish::Eot => "the text ended",
        Finish::Stop => "a stop string or token came",
        Finish::Length => "the asked number of tokens is reached",
        Finish::Context => "the context is full",
        Finish::Cancelled => "cancelled",
    };
    let timings = result.timings;
    note!(
        "[{why}: {} tokens, {:.0} tokens/s, first after {:.0} ms, seed {}]",
        timings.tokens,
        timings.tokens_per_second,
        timings.prompt_ms,
        request.sampling.seed
    );
    Ok(())
}
