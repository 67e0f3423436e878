//! Jinja as transformers' `apply_chat_template` runs it: trimmed blocks, `{% generation %}`, `raise_exception`,
//! `strftime_now`, Python's `tojson` and methods. No template can read a file, loop without end, or fill the memory.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use jiff::ZonedDateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};

use super::{Message, TemplateError, guard, json, pay, python};

/// The name under which a template is known to the engine.
const NAME: &str = "chat template";
/// What a call of `{% generation %}` becomes.
const GENERATION: &str = "__generation";
/// The variables that hold what is written around an answer.
const MARKS: [&str; 2] = ["__generation_start", "__generation_end"];

/// Steps for a template, for each message, and bytes of messages for which one more step is granted. The large templates
/// of today take a few hundred steps for a message; a step also pays for 64 bytes that are written.
const STEPS: u64 = 50_000;
const STEPS_OF_MESSAGE: u64 = 5_000;
const BYTES_OF_STEP: u64 = 2;
/// Steps at most.
const MOST_STEPS: u64 = 20_000_000;

/// Bytes of a template, at most; the largest of today have some tens of thousands.
const LONGEST: usize = 1 << 18;
/// Bytes of one tag, at most: the engine computes `1 ~ 1 ~ 1 …` when it reads it, in time that grows with the cube.
const LONGEST_TAG: usize = 1 << 12;
/// The engine takes one level of its stack for each sign of `--------1`, and drops values that lie in one another one by one.
/// So what may be deep runs on a stack that is deep enough for the longest template and the most steps.
const STACK: usize = 1 << 30;
/// Steps that any stack is deep enough for.
const FEW_STEPS: u64 = 100_000;

/// A template that was read.
#[derive(Clone)]
pub(super) struct Jinja {
    environment: Arc<Environment<'static>>,
    /// It marks answers.
    pub has_generation: bool,
}

impl fmt::Debug for Jinja {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Jinja").field("has_generation", &self.has_generation).finish_non_exhaustive()
    }
}

/// What a template is given besides the messages.
pub(super) struct Given<'a> {
    /// Special tokens by role: `bos_token`, `eos_token`, …
    pub tokens: &'a [(String, String)],
    pub add_generation_prompt: bool,
    /// What is written around the answers that `{% generation %}` marks.
    pub marks: Option<[char; 2]>,
}

impl Jinja {
    /// Reads a template.
    pub(super) fn new(source: &str) -> Result<Jinja, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the usual delimiters"));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(python::method);
        environment.set_formatter(python::print);
        environment.remove_global("debug");
        environment.add_filter("tojson", json::to_json);
        environment.add_filter("trim", python::trim);
        environment.add_filter("int", python::int);
        environment.add_filter("float", python::float);
        environment.add_test("sequence", python::is_sequence);
        environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
        environment
            .add_function("cycler", |items: Rest<Value>| minijinja_contrib::globals::cycler(items.to_vec()));
        environment.add_function("joiner", minijinja_contrib::globals::joiner);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_function(GENERATION, generation);
        pay::prepare(&mut environment);
        if source.len() > LONGEST {
            return Err(TemplateError::TooLong { bytes: source.len(), most: LONGEST });
        }
        check_tags(source)?;
        // Jinja knows one kind of line end.
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        let source = with_generation_calls(&source);
        let has_generation = matches!(source, Cow::Owned(_));
        let source = guard::with_payments(&source).map_err(|at| {
            let line = source[..at].lines().count().max(1);
            let reason = "this tag is not understood".to_owned();
            TemplateError::Syntax { line, reason }
        })?;
        let read = on_deep_stack(|| {
            environment.add_template_owned(NAME, source).map_err(|error| explain(&error, 0))
        });
        read.and_then(|read| read)?;
        Ok(Jinja { environment: Arc::new(environment), has_generation })
    }

    /// The text of a conversation.
    pub(super) fn render(&self, messages: &[Message], given: &Given) -> Result<String, TemplateError> {
        let n = messages.len();
        if n == 0 {
            return Err(TemplateError::NoMessages);
        }
        let bytes = messages.iter().map(|message| (message.content.len() + message.role.len()) as u64);
        let steps = STEPS + STEPS_OF_MESSAGE * n as u64 + bytes.sum::<u64>() / BYTES_OF_STEP;
        let steps = steps.min(MOST_STEPS);
        let mut environment = Environment::clone(&self.environment);
        environment.set_fuel(Some(steps));
        let template = environment.get_template(NAME).map_err(|error| explain(&error, n))?;
        let render = || template.render(context(messages, given)).map_err(|error| explain(&error, n));
        if steps <= FEW_STEPS { render() } else { on_deep_stack(render)? }
    }
}

/// Does something on a thread of its own, with a deep stack, of which memory is taken only as far as it is used.
fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, TemplateError> {
    std::thread::scope(|scope| {
        let failed = |reason: String| TemplateError::Failed { line: 1, reason };
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| failed(format!("there is no memory to run it: {error}")))?;
        thread.join().map_err(|_| failed("the engine that runs it gave up".to_owned()))
    })
}

/// Refuses tags that are longer than any that people write.
fn check_tags(source: &str) -> Result<(), TemplateError> {
    for [open, close] in [["{{", "}}"], ["{%", "%}"]] {
        for (at, _) in source.match_indices(open) {
            let len = source[at..].find(close).unwrap_or(source.len() - at);
            if len > LONGEST_TAG {
                let line = source[..at].lines().count().max(1);
                let reason = format!("a tag has {len} bytes; no more than {LONGEST_TAG} are read");
                return Err(TemplateError::Syntax { line, reason });
            }
        }
    }
    Ok(())
}

/// The variables of a template.
fn context(messages: &[Message], given: &Given) -> Value {
    let messages: Vec<Value> = messages
        .iter()
        .map(|Message { role, content }| {
            Value::from_pairs([("role", Value::from(role.as_str())), ("content", content.as_str().into())])
        })
        .collect();
    let marks = given.marks.map_or([String::new(), String::new()], |marks| marks.map(String::from));
    let own = [
        ("messages", Value::from(messages)),
        ("tools", Value::from(())),
        ("documents", Value::from(())),
        ("add_generation_prompt", given.add_generation_prompt.into()),
    ];
    let tokens = given.tokens.iter().map(|(role, name)| (role.as_str(), Value::from(name.as_str())));
    Value::from_pairs(own.into_iter().chain(MARKS.into_iter().zip(marks.map(Value::from))).chain(tokens))
}

/// The template with `{% generation %}` as calls, whose bodies see what stands around them, but keep what they set to
/// themselves, as transformers has it.
fn with_generation_calls(source: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut done = 0;
    for (at, _) in source.match_indices("{%") {
        let Some(len) = source[at..].find("%}") else { break };
        let inside = &source[at + 2..at + len];
        let word = inside.strip_prefix(['-', '+']).unwrap_or(inside);
        let word = word.strip_suffix(['-', '+']).unwrap_or(word).trim();
        let call = match word {
            "generation" => &format!("call {GENERATION}()"),
            "endgeneration" => "endcall",
            _ => continue,
        };
        out += &source[done..at + 2];
        out += &inside.replace(word, call);
        done = at + len;
    }
    if done == 0 {
        return source.into();
    }
    (out + &source[done..]).into()
}

/// What the template's author says of a conversation.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

fn raise_exception(message: Value) -> Result<Value, Error> {
    let message = message.to_string();
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Refusal(message)))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    let text = jiff::fmt::strtime::format(format, &ZonedDateTime::now());
    text.map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}")))
}

/// The body of `{% generation %}`, between marks.
fn generation(state: &mut State, kwargs: Kwargs) -> Result<Value, Error> {
    let body: Value = kwargs.get("caller")?;
    let text = body.call(state, &[])?;
    let [start, end] = MARKS.map(|mark| state.lookup(mark).unwrap_or_default());
    Ok(format!("{start}{text}{end}").into())
}

/// What went wrong, in our words.
fn explain(error: &Error, messages: usize) -> TemplateError {
    let line = error.line().unwrap_or(1);
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut innermost = error;
    while let Some(inner) = source {
        if let Some(Refusal(message)) = inner.downcast_ref() {
            return TemplateError::Refused { message: message.clone() };
        }
        innermost = inner.downcast_ref().unwrap_or(innermost);
        source = inner.source();
    }
    let reason = innermost.detail().map_or_else(|| innermost.kind().to_string(), str::to_owned);
    match innermost.kind() {
        ErrorKind::OutOfFuel => TemplateError::TooMuch { messages },
        ErrorKind::TemplateNotFound | ErrorKind::BadInclude => TemplateError::OtherTemplate { line },
        ErrorKind::SyntaxError => TemplateError::Syntax { line, reason },
        _ => TemplateError::Failed { line, reason },
    }
}
