//! The batching core: no sequence can tell who shares the batch, and nothing is lost.

use std::collections::HashMap;
use std::sync::Arc;

use models::{Dtype, Gpt2Config, Init};

use super::*;
use crate::sampling::{Processors, Sampling, TokenLogprobs, top_logprobs};

const VOCAB: usize = 60;
const EOT: u32 = 59;
const N_CTX: usize = 200;

/// A model with large enough weights that its texts differ.
fn model(n_layer: usize, dtype: Dtype) -> Gpt2 {
    trainable(n_layer).to_dtype(dtype).unwrap()
}

fn trainable(n_layer: usize) -> Gpt2 {
    Gpt2::new(Gpt2Config::new(n_layer, 2, 24, N_CTX, VOCAB), Init::Xavier, 3).unwrap()
}

/// A model of so many blocks that computes what `model(1, Dtype::F32)` does: the blocks that it has more add nothing.
fn deep(n_layer: usize) -> Gpt2 {
    let (shallow, mut deep) = (trainable(1), trainable(n_layer));
    let known: HashMap<_, _> = shallow.parameters().into_iter().collect();
    for (name, tensor) in deep.parameters_mut() {
        match known.get(&name) {
            Some(known) => tensor.data_mut().copy_from_slice(known.data()),
            None if name.contains("c_proj") => tensor.data_mut().fill(0.0),
            None => {}
        }
    }
    deep.to_dtype(Dtype::F32).unwrap()
}

fn task(seed: u64, prompt_len: usize, max_new: usize) -> Task {
    // Texts that repeat themselves, so that there is something to look up and to share.
    let prompt = (0..prompt_len as u64).map(|i| ((i % 7 + i / 70 * (seed % 3)) % 50) as u32).collect();
    let processors = Processors { repetition: 1.1, presence: 0.2, ..Processors::NONE };
    let temperature = [0.0, 0.7, 1.0][seed as usize % 3];
    let sampling = Sampling { temperature, top_k: 20, seed, processors, ..Sampling::default() };
    let overflow = Overflow::Refuse;
    Task { prompt, max_new, sampling, prompt_logprobs: None, logprobs_from: 0, overflow, constraint: None }
}

fn settings(batch: usize, blocks: usize, step_tokens: usize, speculation: Speculation) -> EngineSettings {
    EngineSettings { batch, blocks, step_tokens, queue: usize::MAX, kept: 3, speculation }
}

/// What a task writes: its tokens, and the token that ended it.
type Written = (Vec<u32>, Option<u32>);

fn collect(events: Vec<Event>, tokens: &mut HashMap<TaskId, Vec<u32>>, done: &mut HashMap<TaskId, Written>) {
    for event in events {
        match event {
            Event::Token(id, draw) => tokens.entry(id).or_default().push(draw.id),
            Event::Done(id, ending) => {
                let earlier =
                    done.insert(id, (tokens.remove(&id).unwrap_or_default(), ending.map(|draw| draw.id)));
                assert!(earlier.is_none(), "task {id} is done once");
            }
            Event::Failed(id, error) => panic!("task {id}: {error}"),
            Event::Prompt(..) | Event::Slid(..) | Event::Started(..) => {}
        }
    }
}

fn run_all(model: &Gpt2, tasks: &[Task], settings: EngineSettings) -> Vec<Written> {
    let mut engine = Engine::new(model, VOCAB, &[EOT], settings).unwrap();
    let ids: Vec<_> = tasks.iter().map(|task| engine.add(task.clone()).unwrap()).collect();
    let (mut tokens, mut done) = (HashMap::new(), HashMap::new());
    while !engine.is_idle() {
        collect(engine.step().unwrap(), &mut tokens, &mut done);
    }
    ids.iter().map(|id| done.remove(id).unwrap()).collect()
}

#[test]
fn batches_portions_prefixes_drafts_and_threads_change_no_token() {
    for dtype in Dtype::ALL {
        let model = model(2, dtype);
        let draft = Arc::new(self::model(1, dtype));
        let tasks: Vec<Task> = (0..6).map(|seed| task(seed, 1 + 30 * seed as usize, 25)).collect();
        let alone: Vec<Written> = tasks
            .iter()
            .map(|task| {
                run_all(&model, std::slice::from_ref(task), settings(1, 99, 512, Speculation::Off)).remove(0)
            })
            .collect();
        let lookup = Speculation::Lookup { most: 5 };
        let smaller = Speculation::Model { model: draft, most: 4 };
        let rounded = Speculation::Model { model: Arc::new(self::model(2, Dtype::Q4)), most: 4 };
        for (threads, batch, step_tokens, speculation) in [
            (1, 6, 512, Speculation::Off),
            (2, 3, 7, Speculation::Off),
            (3, 6, 33, lookup.clone()),
            (2, 1, 512, lookup),
            (2, 6, 64, smaller),
            (2, 1, 19, rounded),
        ] {
            tensor::pool::set_threads(threads);
            let case =
                format!("{dtype}, {threads} threads, batch {batch}, {step_tokens} a step, {speculation:?}");
            let case = case.chars().take(120).collect::<String>();
            assert!(
                run_all(&model, &tasks, settings(batch, 99, step_tokens, speculation)) == alone,
                "{case}"
            );
        }
    }
}

#[test]
fn drafts_are_accepted_where_the_draft_model_thinks_as_the_model_does() {
    let model = deep(12);
    let speculation = Speculation::Model { model: Arc::new(self::model(1, Dtype::F32)), most: 4 };
    let mut engine = Engine::new(&model, VOCAB, &[EOT], settings(1, 99, 512, speculation)).unwrap();
    let mut task = task(4, 10, 60);
    task.sampling.processors.min_new_tokens = 60;
    engine.add(task).unwrap();
    let mut steps = 0;
    while !engine.is_idle() {
        engine.step().unwrap();
        steps += 1;
    }
    assert!(steps <= 1 + 60_usize.div_ceil(4), "{steps} steps for 60 tokens");
}

#[test]
fn a_context_that_slides_keeps_its_beginning_and_writes_on() {
    let model = model(2, Dtype::Bf16);
    let mut task = Task { overflow: Overflow::Slide { keep: 4 }, ..task(2, 190, 300) };
    task.sampling.processors.min_new_tokens = 300;
    let mut engine =
        Engine::new(&model, VOCAB, &[EOT], settings(1, 4, 50, Speculation::Lookup { most: 3 })).unwrap();
    engine.add(task.clone()).unwrap();
    let (mut written, mut slid) = (0, 0);
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            match event {
                Event::Token(..) => written += 1,
                Event::Slid(_, dropped) => {
                    assert_eq!(dropped, (N_CTX + 1) - 4 - (N_CTX - 4) / 2);
                    slid += 1;
                }
                _ => {}
            }
        }
    }
    assert_eq!((written, slid), (300, 3));
    let off = |speculation| run_all(&model, std::slice::from_ref(&task), settings(1, 4, 50, speculation));
    assert!(off(Speculation::Off) == off(Speculation::Lookup { most: 3 }));
}

#[test]
fn what_a_long_prompt_loses_is_told() {
    let model = model(1, Dtype::F32);
    let task = Task { overflow: Overflow::Slide { keep: 10 }, ..task(0, 500, 1) };
    let mut engine = Engine::new(&model, VOCAB, &[EOT], settings(1, 4, 512, Speculation::Off)).unwrap();
    let id = engine.add(task).unwrap();
    let events = engine.step().unwrap();
    assert_eq!(events[0], Event::Slid(id, 500 - 10 - (N_CTX - 10) / 2));
}

/// A text whose beginning is also kept of a finished one slides back into a block that both hold.
#[test]
fn sliding_into_a_shared_block_needs_no_block_that_is_not_there() {
    let model = model(1, Dtype::F32);
    let first = |seed, max_new, keep| Task { overflow: Overflow::Slide { keep }, ..task(seed, 193, max_new) };
    let settings = settings(2, 8, 512, Speculation::Off);
    let mut engine = Engine::new(&model, VOCAB, &[EOT], settings).unwrap();
    let mut run = |tasks: Vec<Task>| {
        tasks.into_iter().for_each(|mut task| {
            task.sampling.processors.min_new_tokens = task.max_new;
            engine.add(task).unwrap();
        });
        while !engine.is_idle() {
            engine.step().unwrap();
        }
    };
    run(vec![first(0, 0, 30), first(0, 1, 30)]); // kept: three blocks and what follows
    run(vec![first(0, 300, 30), Task { prompt: vec![9; 193], ..first(1, 300, 30) }]);
}

/// A text that ends before drafts that were fed with it, or that is cut short, is kept as far as it goes.
#[test]
fn what_is_kept_ends_where_its_text_does() {
    let model = model(2, Dtype::F32);
    let mut first = task(0, 100, 60);
    first.sampling.processors = Processors { min_new_tokens: 60, ..Processors::NONE };
    let off = |task: &Task| {
        run_all(&model, std::slice::from_ref(task), settings(1, 99, 512, Speculation::Off)).remove(0)
    };
    let written = off(&first).0;
    first.sampling.processors.min_new_tokens = 0;
    let mut kept_blocks = 0;
    for len in 1..60 {
        for is_cut in [false, true] {
            let speculation = Speculation::Lookup { most: 9 };
            let mut engine = Engine::new(&model, VOCAB, &[EOT], settings(1, 99, 512, speculation)).unwrap();
            let stop_tokens = if is_cut { vec![] } else { vec![written[len]] };
            let processors = Processors { stop_tokens, ..Processors::NONE };
            let sampling = Sampling { processors, ..first.sampling.clone() };
            let id = engine.add(Task { sampling, ..first.clone() }).unwrap();
            let mut so_far = 0;
            while !(engine.is_idle() || is_cut && so_far >= len) {
                so_far += engine.step().unwrap().len();
            }
            engine.cancel(id);
            kept_blocks += engine.blocks_used();
            let mut next = task(0, 100, 20);
            next.prompt.extend(&written[..len]);
            let id = engine.add(next.clone()).unwrap();
            let (mut tokens, mut done) = (HashMap::new(), HashMap::new());
            while !engine.is_idle() {
                collect(engine.step().unwrap(), &mut tokens, &mut done);
            }
            assert!(done[&id] == off(&next), "after {len} tokens, cut: {is_cut}");
        }
    }
    assert!(kept_blocks >= 2 * 59, "nothing was kept");
}

/// What the model itself says of a prompt's tokens from this one on.
fn logprobs_of(model: &Gpt2, prompt: &[u32], from: usize) -> Vec<TokenLogprobs> {
    let logits = model.logits(prompt, 1, &mut Pass::eval()).unwrap();
    let rows = logits.data().chunks_exact(VOCAB);
    rows.zip(&prompt[1..]).skip(from.saturating_sub(1)).map(|(row, &id)| top_logprobs(row, id, 2)).collect()
}

#[test]
fn log_probabilities_of_the_prompt_are_those_of_the_model() {
    let model = model(2, Dtype::F32);
    for (from, max_new, step_tokens) in [(0, 0, 33), (1, 3, 512), (40, 0, 33), (99, 0, 7), (70, 20, 33)] {
        let mut task = Task { prompt_logprobs: Some(2), logprobs_from: from, ..task(1, 100, max_new) };
        task.sampling.processors.min_new_tokens = max_new;
        let want = logprobs_of(&model, &task.prompt, from);
        // The last token of a prompt may be read together with drafts.
        let settings = settings(1, 9, step_tokens, Speculation::Lookup { most: 4 });
        let mut engine = Engine::new(&model, VOCAB, &[EOT], settings).unwrap();
        engine.add(task).unwrap();
        let (mut got, mut written) = (Vec::new(), 0);
        while !engine.is_idle() {
            for event in engine.step().unwrap() {
                match event {
                    Event::Prompt(_, known) => got.extend(known),
                    Event::Token(..) => written += 1,
                    _ => {}
                }
            }
        }
        assert!(got == want && written == max_new, "from {from}, {step_tokens} a step");
    }
}

#[test]
fn endings_of_one_beginning_are_told_with_its_keys_and_values_read_once() {
    let model = model(2, Dtype::F32);
    let ending = |k: u32| (0..10 + k).map(move |i| (i * k + 3) % 50);
    let tasks: Vec<Task> = (0..6)
        .map(|k| {
            let mut task = task(1, 150, 0);
            task.prompt.extend(ending(k));
            Task { prompt_logprobs: Some(2), logprobs_from: 150, ..task }
        })
        .collect();
    let settings = EngineSettings { kept: 1, ..settings(6, 24, 512, Speculation::Off) };
    let mut engine = Engine::new(&model, VOCAB, &[EOT], settings).unwrap();
    let ids: Vec<TaskId> = tasks.iter().map(|task| engine.add(task.clone()).unwrap()).collect();
    let (mut got, mut steps) = (HashMap::<TaskId, Vec<TokenLogprobs>>::new(), 0);
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            if let Event::Prompt(id, known) = event {
                got.entry(id).or_default().extend(known);
            }
        }
        steps += 1;
    }
    for (id, task) in ids.iter().zip(&tasks) {
        assert_eq!(got[id], logprobs_of(&model, &task.prompt, 150));
    }
    // 150 + 10 tokens, and then of five others all but two blocks: 22 + 10 each and what differs, in one step.
    assert_eq!(steps, 2);
}

#[test]
fn what_cannot_run_is_refused() {
    let model = model(1, Dtype::F32);
    let mut engine = Engine::new(
        &model,
        VOCAB,
        &[EOT],
        EngineSettings { queue: 1, ..settings(2, 2, 64, Speculation::Off) },
    )
    .unwrap();
    let error = |engine: &mut Engine<&Gpt2>, task: Task| engine.add(task).unwrap_err().to_string();
    assert!(error(&mut engine, task(0, 0, 5)).contains("at least one token"));
    let late = Task { logprobs_from: 5, ..task(0, 5, 0) };
    assert!(error(&mut engine, late).contains("from token 5 of the prompt on, but it has 5"));
    let bad = Task { prompt: vec![1, 60], ..task(0, 1, 1) };
    assert!(error(&mut engine, bad).contains("token 60 at position 1"));
    assert!(error(&mut engine, task(0, 150, 51)).contains("let the context slide"));
    assert!(error(&mut engine, task(0, 100, 50)).contains("budget is 2; raise the budget to 3"));
    let keep = Task { overflow: Overflow::Slide { keep: 199 }, ..task(0, 10, 500) };
    assert!(error(&mut engine, keep).contains("keep at most 196"));
    let keep = Task { overflow: Overflow::Slide { keep: usize::MAX }, ..task(0, 10, 500) };
    assert!(error(&mut engine, keep).contains("keep at most 196"));
    engine.add(task(0, 10, 5)).unwrap();
    assert!(error(&mut engine, task(0, 10, 5)).contains("try again"));
    let narrow = Gpt2::new(Gpt2Config::new(1, 2, 8, 50, 40), Init::Gpt2, 1).unwrap();
    let speculation = Speculation::Model { model: Arc::new(narrow), most: 2 };
    let refused = Engine::new(&model, VOCAB, &[EOT], settings(1, 9, 9, speculation)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the draft model has 40 tokens, but the model 60; take both from the same family of models"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    /// Tasks come and go at random: each that stays writes what it writes alone, all end, and no block is lost.
    #[test]
    fn arrivals_and_cancels_at_random(
        arrivals in proptest::collection::vec((0u64..9, 1usize..150, 0usize..30, 0usize..4), 1..14),
        cancels in proptest::collection::vec((0usize..14, 0usize..40), 0..6),
        batch in 1usize..5,
        blocks in 4usize..9,
        step_tokens in 1usize..100,
        kept in 0usize..3,
        lookup in 0usize..5,
    ) {
        let model = model(1, Dtype::F32);
        let settings = EngineSettings { kept, ..settings(batch, blocks, step_tokens, Speculation::Lookup { most: lookup }) };
        let mut engine = Engine::new(&model, VOCAB, &[EOT], settings).unwrap();
        let (mut tokens, mut done) = (HashMap::new(), HashMap::new());
        let (mut added, mut cancelled) = (Vec::new(), Vec::new());
        let mut coming = arrivals.iter();
        let mut step = 0;
        loop {
            if let Some(&(seed, prompt, max_new, pause)) = coming.next() {
                added.push((engine.add(task(seed, prompt, max_new)).unwrap(), task(seed, prompt, max_new)));
                for _ in 0..pause {
                    collect(engine.step().unwrap(), &mut tokens, &mut done);
                }
            } else if engine.is_idle() {
                break;
            }
            for &(which, when) in &cancels {
                if when == step && which < added.len() && engine.cancel(added[which].0) {
                    cancelled.push(added[which].0);
                }
            }
            collect(engine.step().unwrap(), &mut tokens, &mut done);
            proptest::prop_assert!(engine.blocks_used() <= blocks);
            step += 1;
            proptest::prop_assert!(step < 20_000, "it ends");
        }
        for (id, task) in added {
            if cancelled.contains(&id) {
                proptest::prop_assert!(!done.contains_key(&id));
                continue;
            }
            let alone = run_all(&model, &[task], self::settings(1, 99, 512, Speculation::Off)).remove(0);
            proptest::prop_assert!(done.get(&id) == Some(&alone), "task {}", id);
        }
        drop(std::mem::take(&mut engine.kept));
        proptest::prop_assert_eq!(engine.blocks_used(), 0);
    }
}
