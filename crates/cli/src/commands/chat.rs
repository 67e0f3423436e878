//! `gpt2 chat`: a conversation with a model, in a terminal, for one question, or line by line through pipes.

mod history;
mod persona;
mod piped;
mod session;
mod settings;
mod slash;
mod terminal;
mod transcript;
mod wrap;

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use generate::apps::chat::{Chat, Conversation, ReplySettings};
use tokenizer::Lang;
use tokenizer::chat::ChatTemplate;

use self::history::History;
use self::session::{Opening, Session};
use super::generate::choices::Choices;
use crate::constrain::Constrain;
use crate::input;
use crate::model::ModelArgs;
use crate::output::{note, printable};

/// Talk to a model
///
/// In a terminal it is a conversation; with -p one question and its answer; from a pipe each line is a message, and each reply
/// goes to standard output.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  gpt2 chat -m out/assistant\n  \
    gpt2 chat -m gpt2 --adapter out/adapter\n  \
    gpt2 chat -m out/assistant --persona support --lang zh\n  \
    gpt2 chat -m out/assistant --system \"Answer in one sentence.\" -p \"What is a fox?\" --json\n  \
    gpt2 chat -m out/assistant --json-schema answer.json -p \"Who wrote Faust?\"\n  \
    gpt2 chat -m out/assistant --no-history < questions.txt > answers.txt\n\n\
    In a terminal, /help lists commands such as /retry, /save FILE and /set temperature 0.7. Alt-Enter, or a backslash before \
    Enter, begins a new line; \"\"\" begins and ends several. Ctrl-C interrupts a reply, Ctrl-D leaves.\n\
    With --json-schema or --grammar every reply is in that form; /set constraint off frees them.\n\
    From a pipe, each line is a message, and each reply goes to standard output.\n\
    A persona of your own is a file NAME.toml with a line system = \"…\", in gpt2/personas of your configuration folder \
    (~/.config on Linux), or anywhere: --persona FILE.\n\
    Conversations are kept in gpt2/chats.sqlite of your data folder (~/.local/share on Linux), which only you can read.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// One message to answer, instead of a conversation
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// How to answer: the text that stands before the conversation
    #[arg(long, value_name = "TEXT", conflicts_with = "persona")]
    system: Option<String>,
    /// A system prompt by name: support, consult, companion, or one of your own, by name or file
    #[arg(long, value_name = "NAME|FILE")]
    persona: Option<String>,
    /// Language of the persona: en or zh [default: zh where the locale is Chinese, else en]
    #[arg(long, value_name = "LANG")]
    lang: Option<Lang>,
    /// Tokens of a reply, at most; so much of the context is kept for it [default: a quarter of the context, at most 512]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Start of the random numbers [default: random; /set shows it]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where conversations are kept [default: gpt2/chats.sqlite in your data folder]
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Keep nothing
    #[arg(long)]
    no_history: bool,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    constrain: Constrain,
    /// One line of JSON for each reply, instead of streaming
    #[arg(long)]
    json: bool,
}

/// Tokens of a reply, at most, if nothing is said.
const MAX_TOKENS: usize = 512;

pub fn run(args: Args, offline: bool) -> Result<()> {
    ensure!(args.choices.logprobs.is_none() || args.json, "--logprobs: add --json to see them");
    if let Some(message) = &args.prompt {
        ensure!(!message.trim().is_empty(), "-p: the message is empty; say something");
    }
    let lang = args.lang.unwrap_or_else(persona::lang_of_locale);
    let persona = args.persona.as_deref().map(|spec| persona::find(spec, lang)).transpose()?;
    let (model, tokenizer) = args.model.open(offline)?;
    let template = ChatTemplate::of(&tokenizer)
        .with_context(|| format!("cannot use the chat template of {}", args.model))?;
    let is_base = template.is_assumed();

    let n_ctx = model.config().n_ctx;
    let max_tokens = args.max_tokens.unwrap_or((n_ctx / 4).clamp(1, MAX_TOKENS));
    let sampling = args.choices.sampling(&tokenizer, input::seed(args.seed))?;
    let settings = ReplySettings { sampling, max_tokens, constraint: args.constrain.build(&tokenizer)? };
    settings::check(&settings, n_ctx, "--max-tokens")?;

    let system = args.system.clone().or_else(|| persona.as_ref().map(|persona| persona.system.clone()));
    let opening = Opening {
        conversation: Conversation::new(system),
        settings,
        model: args.model.to_string(),
        persona: persona.map(|persona| persona.name),
        lang,
        history: args.open_history(),
    };
    let session = Session::new(Chat::new(&model, &tokenizer, template)?, opening);
    if is_base {
        note!(
            "note: {} has no chat template, so that turns are written as `User: …` and `Assistant: …`. A base model only \
             continues text; `gpt2 finetune` makes it an assistant.",
            printable(&args.model.to_string())
        );
    }
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let ended = match &args.prompt {
        Some(message) => piped::once(session, message, args.json),
        None if is_terminal && !args.json => terminal::run(session),
        None => piped::run(session, args.json),
    };
    ended.map_err(|error| input::name_damage(&model, error))
}

impl Args {
    /// The file of conversations. Without one the chat goes on.
    fn open_history(&self) -> Option<History> {
        if self.no_history {
            return None;
        }
        let path = self.history.clone().map_or_else(history::default_path, Ok);
        let opened = path.and_then(|path| History::open(&path));
        opened.inspect_err(|error| note!("{}", printable(&session::no_history(error)))).ok()
    }
}
