//! Many documents at once: each goes through its steps on its own, and all share the engine's batches.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use models::Gpt2;
use tensor::random::Stream;
use tokenizer::chat::ChatTemplate;
use tokenizer::{Lang, Tokenizer};

use super::document::Written;
use super::ending::Found;
use super::error::WriteError;
use super::forms::Forms;
use super::recipe::{Recipe, Step};
use super::step::{Attempt, Ready, StepResult};
use crate::apps::Usage;
use crate::constraint::Constraint;
use crate::request::{GenerateError, Generation, TextEvent, Texts};
use crate::{EngineSettings, TaskId};

/// The random stream of the attempts' seeds.
const PURPOSE: u32 = 0x7772_6974;

/// A document to write.
#[derive(Clone, Debug)]
pub struct Job {
    recipe: Arc<Recipe>,
    lang: Lang,
    /// What is filled in: the topic, and each input of the recipe.
    inputs: BTreeMap<String, String>,
    seed: u64,
}

impl Job {
    /// A recipe with a topic, in the topic's language or another one. What is given as an input's value wins over its default.
    pub fn new(
        recipe: Arc<Recipe>,
        topic: &str,
        given: &BTreeMap<String, String>,
        lang: Option<Lang>,
        seed: u64,
    ) -> Result<Job, WriteError> {
        if topic.trim().is_empty() {
            return Err(WriteError::NoTopic);
        }
        if let Some(name) = given.keys().find(|name| recipe.inputs.iter().all(|input| input.name != **name)) {
            let names: Vec<&str> = recipe.inputs.iter().map(|input| input.name.as_str()).collect();
            let known = if names.is_empty() { "none but the topic".into() } else { names.join(", ") };
            return Err(WriteError::UnknownInput { name: name.clone(), known });
        }
        let lang = lang.unwrap_or(Lang::of(topic));
        let mut inputs = BTreeMap::from([("topic".to_owned(), topic.trim().to_owned())]);
        for input in &recipe.inputs {
            let default = || input.default.as_ref().map(|default| default.get(lang).clone());
            let value = given.get(&input.name).cloned().or_else(default);
            let value = value.ok_or_else(|| WriteError::MissingInput(input.name.clone()))?;
            inputs.insert(input.name.clone(), value);
        }
        Ok(Job { recipe, lang, inputs, seed })
    }

    /// The language that it is written in.
    pub fn lang(&self) -> Lang {
        self.lang
    }

    /// What is filled in: the topic, and each input of the recipe.
    pub fn inputs(&self) -> &BTreeMap<String, String> {
        &self.inputs
    }
}

/// A job's number; later ones have higher numbers.
pub type JobId = u64;

/// What came of a step of [`Writer`].
#[derive(Debug)]
pub enum WriteEvent {
    /// A piece of a text that may yet be cut or written anew, of attempt `attempt` at step `step`.
    Draft {
        /// Whose it is.
        job: JobId,
        /// The step's name.
        step: String,
        /// The attempt, counted from 0.
        attempt: usize,
        /// More of its text.
        piece: String,
    },
    /// A step is decided.
    Step(JobId, Box<StepResult>),
    /// A document is whole, or cannot go on.
    Done(JobId, Result<Written, WriteError>),
}

/// Documents on an engine.
#[derive(Debug)]
pub struct Writer<'a> {
    texts: Texts<'a, &'a Gpt2>,
    model: &'a Gpt2,
    tokenizer: &'a Tokenizer,
    template: Option<ChatTemplate>,
    best_of: usize,
    forms: Forms,
    jobs: BTreeMap<JobId, Run>,
    drafts: HashMap<TaskId, Draft>,
    next: JobId,
    /// Of all prompts, and of the texts that have ended.
    used: Usage,
}

/// A document under way.
#[derive(Debug)]
struct Run {
    job: Job,
    /// What each step's text is held to.
    constraints: Vec<Option<Arc<Constraint>>>,
    done: Vec<StepResult>,
    ready: Ready,
    /// Rounds of candidates that were begun for this step.
    rounds: usize,
    /// Attempts by number.
    attempts: BTreeMap<usize, Attempt>,
}

/// A text that is being written.
#[derive(Debug)]
struct Draft {
    job: JobId,
    number: usize,
    seed: u64,
    text: String,
    /// Its end, where the engine has ended it in the same step.
    found: Option<Found>,
}

impl<'a> Writer<'a> {
    /// Documents by this model. Chat steps go through the template, if there is one. For each step `best_of` candidates are
    /// written at once, at least one.
    pub fn new(
        model: &'a Gpt2,
        tokenizer: &'a Tokenizer,
        template: Option<ChatTemplate>,
        best_of: usize,
        settings: EngineSettings,
    ) -> Result<Writer<'a>, GenerateError> {
        let texts = Texts::new(model, tokenizer, settings)?;
        let (jobs, drafts) = (BTreeMap::new(), HashMap::new());
        let (best_of, forms) = (best_of.max(1), Forms::default());
        Ok(Writer {
            texts,
            model,
            tokenizer,
            template,
            best_of,
            forms,
            jobs,
            drafts,
            next: 0,
            used: Usage::default(),
        })
    }

    /// What all documents have taken so far.
    pub fn used(&self) -> Usage {
        let drafts = self.drafts.keys().filter_map(|&task| self.texts.so_far(task));
        let written: usize = drafts.map(|so_far| so_far.ids.len()).sum();
        Usage { written_tokens: self.used.written_tokens + written, ..self.used }
    }

    /// Compiles the forms of a recipe's steps, if they are not yet. The result is what the compiler has to say, though it
    /// follows.
    pub fn compile(&mut self, recipe: &Recipe) -> Result<Vec<String>, WriteError> {
        let mut notes = Vec::new();
        for step in &recipe.steps {
            for lang in [Lang::En, Lang::Zh] {
                let constraint = self.constraint(step, lang)?;
                for note in constraint.iter().flat_map(|constraint| constraint.notes()) {
                    notes.push(format!("step `{}`: {note}", step.name));
                }
            }
        }
        notes.dedup();
        Ok(notes)
    }

    fn constraint(&mut self, step: &Step, lang: Lang) -> Result<Option<Arc<Constraint>>, WriteError> {
        let Some(form) = &step.form else { return Ok(None) };
        let compiled = self.forms.get(form.get(lang), self.tokenizer);
        compiled
            .map(Some)
            .map_err(|error| WriteError::Step { step: step.name.clone(), error: Box::new(error.into()) })
    }

    /// Begins a document, once its first prompt is known to fit and its forms are compiled.
    pub fn add(&mut self, job: Job) -> Result<JobId, WriteError> {
        let steps = &job.recipe.steps;
        let constraints: Vec<_> =
            steps.iter().map(|step| self.constraint(step, job.lang)).collect::<Result<_, _>>()?;
        let ready = self.ready(&job, &constraints, &[])?;
        let id = self.next;
        self.next += 1;
        let (done, attempts) = (Vec::new(), BTreeMap::new());
        self.jobs.insert(id, Run { job, constraints, done, ready, rounds: 0, attempts });
        let begun = self.begin_round(id);
        begun.inspect_err(|_| self.forget(id))?;
        Ok(id)
    }

    /// Documents under way.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Feeds one batch, and tells what came of it.
    pub fn step(&mut self) -> Result<Vec<WriteEvent>, WriteError> {
        let mut events = Vec::new();
        for event in self.texts.step()? {
            match event {
                TextEvent::Piece(task, piece) => self.piece(task, piece, &mut events),
                TextEvent::Done(task, result) => {
                    let Some(draft) = self.drafts.remove(&task) else { continue };
                    let job = draft.job;
                    let whole = result.map_err(|error| self.failed(job, error));
                    let went = whole.and_then(|generation| self.whole(draft, &generation, &mut events));
                    went.unwrap_or_else(|error| self.fail(job, error, &mut events));
                }
                TextEvent::Slid(..) => {}
            }
        }
        Ok(events)
    }

    fn piece(&mut self, task: TaskId, piece: String, events: &mut Vec<WriteEvent>) {
        let Some(draft) = self.drafts.get_mut(&task) else { return };
        let Some(run) = self.jobs.get(&draft.job) else { return };
        if draft.found.is_some() {
            return;
        }
        draft.text += &piece;
        draft.found = run.ready.end(&draft.text, false);
        let (job, attempt) = (draft.job, draft.number);
        events.push(WriteEvent::Draft { job, step: run.step_name().to_owned(), attempt, piece });
        // A text that the engine has ended in this very step comes as `Done`.
        if draft.found.is_some()
            && let Some(generation) = self.texts.cancel(task)
            && let Some(draft) = self.drafts.remove(&task)
        {
            let went = self.whole(draft, &generation, events);
            went.unwrap_or_else(|error| self.fail(job, error, events));
        }
    }

    /// Takes in a text that has ended; after the last candidate of a round, decides.
    fn whole(
        &mut self,
        draft: Draft,
        generation: &Generation,
        events: &mut Vec<WriteEvent>,
    ) -> Result<(), WriteError> {
        let id = draft.job;
        self.used.written_tokens += generation.ids.len();
        let Some(run) = self.jobs.get_mut(&id) else { return Ok(()) };
        let found = draft.found.or_else(|| run.ready.end(&draft.text, true));
        let attempt = run.ready.attempt(&draft.text, found, generation, draft.seed, self.tokenizer);
        let step = run.step_name().to_owned();
        let attempt = attempt
            .map_err(|error| WriteError::Step { step: step.clone(), error: Box::new(error.into()) })?;
        run.attempts.insert(draft.number, attempt);
        if run.attempts.len() < run.rounds * self.best_of {
            return Ok(());
        }
        let passed = run.attempts.values().any(|attempt| attempt.failed.is_empty());
        if !passed && run.rounds <= run.job.recipe.steps[run.done.len()].retries {
            return self.begin_round(id);
        }
        let attempts = std::mem::take(&mut run.attempts).into_values().collect();
        let result = run.ready.clone().choose(&step, attempts);
        events.push(WriteEvent::Step(id, Box::new(result.clone())));
        run.done.push(result);
        run.rounds = 0;
        if run.done.len() == run.job.recipe.steps.len() {
            let Some(Run { job, done, .. }) = self.jobs.remove(&id) else { return Ok(()) };
            let Job { lang, inputs, seed, .. } = job;
            events.push(WriteEvent::Done(id, Ok(Written { lang, inputs, seed, steps: done })));
            return Ok(());
        }
        let run = &self.jobs[&id];
        let ready = self.ready(&run.job, &run.constraints, &run.done)?;
        if let Some(run) = self.jobs.get_mut(&id) {
            run.ready = ready;
        }
        self.begin_round(id)
    }

    /// The step that comes after those that are done.
    fn ready(
        &self,
        job: &Job,
        constraints: &[Option<Arc<Constraint>>],
        done: &[StepResult],
    ) -> Result<Ready, WriteError> {
        let mut values = job.inputs.clone();
        values.extend(done.iter().map(|step| (step.name.clone(), step.text.clone())));
        let (step, n_ctx) = (&job.recipe.steps[done.len()], self.model.config().n_ctx);
        let constraint = constraints[done.len()].clone();
        Ready::new(step, job.lang, &values, self.tokenizer, self.template.as_ref(), constraint, n_ctx)
    }

    /// Begins a round of candidates.
    fn begin_round(&mut self, id: JobId) -> Result<(), WriteError> {
        let Some(run) = self.jobs.get_mut(&id) else { return Ok(()) };
        let seeds = Stream::new(run.job.seed, PURPOSE, run.done.len() as u64);
        let first = run.rounds * self.best_of;
        run.rounds += 1;
        for number in first..first + self.best_of {
            let seed = u64::from(seeds.u32(number as u64));
            let request = run.ready.request(seed);
            if number == first {
                self.used.prompt_tokens += request.prompt.len();
            }
            let added = self.texts.add(&request);
            let step = || run.step_name().to_owned();
            let task = added.map_err(|error| WriteError::Step { step: step(), error: Box::new(error) })?;
            self.drafts.insert(task, Draft { job: id, number, seed, text: String::new(), found: None });
        }
        Ok(())
    }

    fn failed(&self, id: JobId, error: GenerateError) -> WriteError {
        let step = self.jobs.get(&id).map(|run| run.step_name().to_owned()).unwrap_or_default();
        WriteError::Step { step, error: Box::new(error) }
    }

    fn fail(&mut self, id: JobId, error: WriteError, events: &mut Vec<WriteEvent>) {
        self.forget(id);
        events.push(WriteEvent::Done(id, Err(error)));
    }

    /// Ends a document where it stands.
    fn forget(&mut self, id: JobId) {
        self.jobs.remove(&id);
        let (texts, used) = (&mut self.texts, &mut self.used);
        self.drafts.retain(|&task, draft| {
            if draft.job == id
                && let Some(generation) = texts.cancel(task)
            {
                used.written_tokens += generation.ids.len();
            }
            draft.job != id
        });
    }
}

impl Run {
    fn step_name(&self) -> &str {
        &self.job.recipe.steps[self.done.len()].name
    }
}
