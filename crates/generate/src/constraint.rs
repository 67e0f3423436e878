//! Texts that are held to a JSON schema, a grammar or a regular expression: at each position only those tokens may
//! be drawn with which the text can still become one that the constraint allows.
//!
//! The `llguidance` crate compiles grammars, and says which tokens may follow (an Earley parser over a lexer of regular
//! expressions' derivatives). That alone does not make a text whole: a small model may never close a string. So at each
//! position an ending is known that fits into the tokens that are left ([`Matcher`]), and is written when
//! there is only room for it. A text is whole, therefore, whatever the model's weights are.
//!
//! ```
//! # use std::sync::Arc;
//! use generate::constraint::{Constraint, Vocabulary};
//! let vocabulary = Vocabulary::new(&tokenizer::Tokenizer::gpt2())?;
//! let answer = Constraint::grammar(&vocabulary, r#"start: "yes" | "no" | "也许""#)?;
//! assert!(answer.accepts("也许") && !answer.accepts("perhaps"));
//! let request = generate::Request { constraint: Some(Arc::new(answer)), ..Default::default() };
//! # Ok::<(), generate::ConstraintError>(())
//! ```

mod closing;
mod error;
mod form;
mod matcher;
mod numbers;
mod vocabulary;

use std::sync::Mutex;

use llguidance::api::{StopReason, TopLevelGrammar};
use llguidance::{JsonCompileOptions, TokenParser, panic_utils};
use serde_json::Value;

pub use error::ConstraintError;
pub use form::Form;
pub use matcher::Matcher;
pub use vocabulary::Vocabulary;

use self::closing::Search;

/// What a constraint by a JSON schema is called.
const SCHEMA: &str = "schema";
/// Bytes of a schema or a grammar, at most.
const MOST_BYTES: usize = 1 << 20;
/// Brackets in brackets, at most: the compiler goes into them with the stack.
const MOST_DEPTH: usize = 200;
/// Bytes of stack for the compiler, which also follows rules into each other.
const STACK: usize = 256 << 20;
/// Places that are looked at for the first ending, and the bytes it may have.
const EFFORT: usize = 10_000;
const LONGEST: usize = 1 << 16;

/// What a text must be, for one vocabulary. Made once, and shared by many texts.
pub struct Constraint {
    what: &'static str,
    is_json: bool,
    vocabulary: Vocabulary,
    /// At the start; copied for each text. Parsers may not be used by two threads at once.
    parser: Mutex<TokenParser>,
    /// A text that the constraint allows.
    shortest: Vec<u8>,
    notes: Vec<String>,
}

impl Constraint {
    /// JSON that fulfils a schema (drafts 4 to 2020-12), on one line, with a space after commas and colons or none.
    ///
    /// # Errors
    /// No JSON, no schema, or keywords that cannot be held to (such as `uniqueItems`), by name.
    pub fn json_schema(vocabulary: &Vocabulary, schema: &str) -> Result<Constraint, ConstraintError> {
        check_size(SCHEMA, schema)?;
        let schema = serde_json::from_str(schema)
            .map_err(|error| ConstraintError::Json { reason: error.to_string() })?;
        let mut schema = match schema {
            Value::Object(fields) if fields.contains_key("x-guidance") => {
                return Err(ConstraintError::Guidance);
            }
            Value::Object(_) => schema,
            Value::Bool(any) => serde_json::json!({ "allOf": [any] }),
            Value::Null => return Err(ConstraintError::SchemaType { got: "null" }),
            Value::Number(_) => return Err(ConstraintError::SchemaType { got: "a number" }),
            Value::String(_) => return Err(ConstraintError::SchemaType { got: "a string" }),
            Value::Array(_) => return Err(ConstraintError::SchemaType { got: "an array" }),
        };
        // Free white space would be an endless text for a model that likes it.
        let options = JsonCompileOptions {
            item_separator: ", ?".into(),
            key_separator: ": ?".into(),
            whitespace_flexible: false,
            ..JsonCompileOptions::default()
        };
        options.apply_to(&mut schema);
        Constraint::new(SCHEMA, vocabulary, TopLevelGrammar::from_json_schema(schema))
    }

    /// What a grammar in llguidance's dialect of Lark allows from its rule `start`.
    ///
    /// # Errors
    /// What is no grammar, with the line; and attributes that would change how tokens are drawn.
    pub fn grammar(vocabulary: &Vocabulary, grammar: &str) -> Result<Constraint, ConstraintError> {
        const WHAT: &str = "grammar";
        check_size(WHAT, grammar)?;
        check_depth(WHAT, grammar)?;
        // The compiler does not tell of this one everywhere.
        let heads = grammar.lines().filter_map(|line| line.split_once(':')?.0.split_once('['));
        if heads.into_iter().any(|(_, attributes)| attributes.contains("temperature")) {
            let instead = "use the temperature of the sampling";
            return Err(ConstraintError::Attribute { attribute: "temperature", instead });
        }
        Constraint::new(WHAT, vocabulary, TopLevelGrammar::from_lark(grammar.to_owned()))
    }

    /// What matches a regular expression as a whole (Rust's syntax, without look-around).
    pub fn regex(vocabulary: &Vocabulary, regex: &str) -> Result<Constraint, ConstraintError> {
        const WHAT: &str = "regular expression";
        check_size(WHAT, regex)?;
        check_depth(WHAT, regex)?;
        Constraint::new(WHAT, vocabulary, TopLevelGrammar::from_regex(regex))
    }

    fn new(
        what: &'static str,
        vocabulary: &Vocabulary,
        grammar: TopLevelGrammar,
    ) -> Result<Constraint, ConstraintError> {
        let compile = || compile(what, vocabulary, grammar);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, compile);
            let thread = thread.map_err(|error| ConstraintError::broken(&error.to_string()))?;
            thread.join().unwrap_or_else(|_| Err(ConstraintError::broken("the compiler failed")))
        })
    }

    /// Whether a text is what the constraint asks for, as a whole.
    pub fn accepts(&self, text: &str) -> bool {
        let Ok(mut parser) = self.parser() else { return false };
        let eot = self.vocabulary.trie().eos_token();
        let accepts = guard(|| {
            let parser = &mut parser.parser;
            Ok(parser.apply_token(text.as_bytes(), eot).is_ok() && parser.is_accepting())
        });
        accepts.unwrap_or(false)
    }

    /// What the compiler has to say, though it follows.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// A parser of its own, which shares nothing: what one text costs is no matter for another.
    fn parser(&self) -> Result<TokenParser, ConstraintError> {
        let parser = self.parser.lock().map_err(|_| ConstraintError::broken("a copy failed before"))?;
        guard(|| Ok(parser.deep_clone()))
    }
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Constraint by a {}", self.what)
    }
}

fn compile(
    what: &'static str,
    vocabulary: &Vocabulary,
    grammar: TopLevelGrammar,
) -> Result<Constraint, ConstraintError> {
    let refused = |error: ConstraintError| match error {
        ConstraintError::Matching { reason } => ConstraintError::Refused { what, reason },
        error => error,
    };
    let mut parser = guard(|| vocabulary.factory().create_parser(grammar)).map_err(refused)?;
    parser.start_without_prompt();
    let spec = parser.parser.grammar().lexer_spec();
    let attributes = [
        (
            spec.has_max_tokens,
            "max_tokens",
            "bound the rule with a repetition such as {0,20}, or the text's max-tokens",
        ),
        (spec.has_stop, "stop", "use suffix=, or write what follows as the next part of the rule"),
    ];
    if let Some(&(_, attribute, instead)) = attributes.iter().find(|(used, ..)| *used) {
        return Err(ConstraintError::Attribute { attribute, instead });
    }
    let notes = parser.grammar_warnings();
    // The first mask also says how much the search may cost.
    let none = || ConstraintError::NoText { what };
    let mut probe = guard(|| Ok(parser.deep_clone()))?;
    let found = guard(|| {
        if !probe.is_accepting()
            && let Err(error) = probe.compute_mask()
        {
            // Nothing may follow, or a limit is met.
            return if probe.stop_reason() == StopReason::NoExtensionBias { Ok(None) } else { Err(error) };
        }
        Ok(Search { vocabulary, banned: &[], effort: EFFORT, longest: LONGEST }.run(&mut probe.parser, &[]))
    });
    let shortest = found?.filter(|text| vocabulary.fewest(text, &[]).is_some()).ok_or_else(none)?;
    let is_json = what == SCHEMA;
    Ok(Constraint {
        what,
        is_json,
        vocabulary: vocabulary.clone(),
        parser: Mutex::new(parser),
        shortest,
        notes,
    })
}

/// Runs what belongs to the compiler: its errors and its panics become ours.
fn guard<T>(run: impl FnOnce() -> Result<T, Refusal>) -> Result<T, ConstraintError> {
    let run = std::panic::AssertUnwindSafe(run);
    panic_utils::catch_unwind(run).map_err(|error| ConstraintError::broken(&format!("{error:#}")))
}

/// What went wrong inside llguidance.
type Refusal = anyhow::Error;

fn check_size(what: &'static str, text: &str) -> Result<(), ConstraintError> {
    match text.len() {
        bytes if bytes > MOST_BYTES => Err(ConstraintError::Size { what, bytes, most: MOST_BYTES }),
        _ if text.trim().is_empty() => Err(ConstraintError::Empty { what }),
        _ => Ok(()),
    }
}

/// Brackets are counted as they stand, in strings too: a grammar has no use for so many.
fn check_depth(what: &'static str, text: &str) -> Result<(), ConstraintError> {
    let (mut depth, mut most) = (0i64, 0);
    for byte in text.bytes() {
        depth +=
            i64::from(matches!(byte, b'(' | b'[' | b'{')) - i64::from(matches!(byte, b')' | b']' | b'}'));
        depth = depth.max(0);
        most = most.max(depth);
    }
    let depth = most as usize;
    if depth > MOST_DEPTH { Err(ConstraintError::Depth { what, depth, most: MOST_DEPTH }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
