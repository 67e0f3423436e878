//! What is wrong with a recipe, or with what is asked of one.

use thiserror::Error;
use tokenizer::chat::TemplateError;

use crate::GenerateError;

/// What is wrong with a recipe. Lines are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecipeError {
    /// It is no TOML, or has a key or a value that recipes do not have.
    #[error("line {line}: {message}")]
    Toml {
        /// Where.
        line: usize,
        /// What the reader says.
        message: String,
    },
    /// It writes nothing.
    #[error("it has no steps; give at least one [[step]] with a name and a prompt")]
    NoSteps,
    /// A step or an input without a usable name.
    #[error("line {line}: {name:?} cannot be a name; take letters, digits, - and _, and not `topic`")]
    Name {
        /// Where.
        line: usize,
        /// The name.
        name: String,
    },
    /// Two things of one name.
    #[error("line {line}: there is another `{name}` before; give each step and input a name of its own")]
    Twice {
        /// Where the second is.
        line: usize,
        /// The name.
        name: String,
    },
    /// A key that a step must have.
    #[error("line {line}: step `{step}` has no `{key}`; add it")]
    Missing {
        /// Where the step begins.
        line: usize,
        /// The step.
        step: String,
        /// The key.
        key: &'static str,
    },
    /// A place that nothing fills.
    #[error("line {line}: {{{name}}} in step `{step}` is no input and no earlier step; there are {known}")]
    Undefined {
        /// Where.
        line: usize,
        /// The step.
        step: String,
        /// The place.
        name: String,
        /// What can be filled in there.
        known: String,
    },
    /// A place that is filled too late.
    #[error("line {line}: {{{name}}} in step `{step}` is {}; a step can use earlier ones only",
        if .name == .step { "the step itself" } else { "a later step" })]
    Forward {
        /// Where.
        line: usize,
        /// The step.
        step: String,
        /// The later step, or itself.
        name: String,
    },
    /// Braces that do not pair, or a value that cannot be.
    #[error("line {line}: step `{step}`: {problem}")]
    Value {
        /// Where.
        line: usize,
        /// The step.
        step: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A setting given from outside that cannot be.
    #[error("{given}: {problem}")]
    Override {
        /// As it was given.
        given: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

/// Why nothing can be written by a recipe.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Nothing to write about.
    #[error("the topic is empty; say in a few words what to write about")]
    NoTopic,
    /// An input without a value.
    #[error("the recipe asks for `{0}`, which has no value; give it one")]
    MissingInput(String),
    /// A value for what is no input.
    #[error("the recipe has no input `{name}`; it has {known}")]
    UnknownInput {
        /// The name.
        name: String,
        /// The inputs there are.
        known: String,
    },
    /// No room.
    #[error(
        "step `{step}`: its prompt has {prompt} tokens, and the model's context of {n_ctx} leaves no room for the {need} \
         that the step needs at least; shorten what goes into it, or take a model with a longer context"
    )]
    TooLong {
        /// The step.
        step: String,
        /// Tokens of the prompt.
        prompt: usize,
        /// Positions of the model.
        n_ctx: usize,
        /// Tokens that the step writes at least.
        need: usize,
    },
    /// A chat template that does not take the step's message.
    #[error("step `{step}`: {error}")]
    Template {
        /// The step.
        step: String,
        /// Why.
        #[source]
        error: TemplateError,
    },
    /// A step that cannot be written.
    #[error("step `{step}`: {error}")]
    Step {
        /// The step.
        step: String,
        /// Why.
        #[source]
        error: Box<GenerateError>,
    },
    /// The engine refused.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}
