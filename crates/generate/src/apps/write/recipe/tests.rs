//! Tests of recipes: those that come along, and every rule that one can break.

use super::super::builtin::RECIPES;
use super::*;
use crate::apps::tasks;

fn read(source: &str) -> Result<Recipe, RecipeError> {
    Recipe::parse(source, &[])
}

/// A recipe whose step `b`, at line 5, has these keys.
fn with(keys: &str) -> String {
    format!("about = 'x'\n[[step]]\nname = 'a'\nprompt = 'A {{topic}}'\n[[step]]\nname = 'b'\n{keys}\n")
}

fn error_of(source: &str) -> String {
    read(source).err().unwrap_or_else(|| panic!("should be refused:\n{source}")).to_string()
}

#[test]
fn all_that_come_along_are_sound() {
    for (name, source) in RECIPES {
        let recipe = read(source).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(source.contains(&format!("gpt2 write {name} ")), "{name} shows how it is used");
        for lang in [Lang::En, Lang::Zh] {
            assert!(recipe.inputs.iter().all(|input| input.default.is_some()), "{name} needs only a topic");
            assert!(
                recipe.steps.iter().all(|step| step.ask.is_some() && step.chat),
                "{name}: chat models are asked"
            );
            assert_eq!(Lang::of(recipe.about.get(lang)), lang, "{name}");
        }
    }
}

/// A model that was fine-tuned on titles and texts is asked as it was tuned.
#[test]
fn articles_are_asked_for_as_in_fine_tuning() {
    let recipe = read(RECIPES[0].1).unwrap();
    let ask = recipe.steps[1].ask.clone().unwrap();
    for title in ["A fox came home", "狐狸回家"] {
        let filled = ask.get(Lang::of(title)).fill(&[("headline".to_owned(), title.to_owned())].into());
        assert_eq!(filled.unwrap(), tasks::article(title));
    }
}

#[test]
fn a_step_says_all_it_can() {
    let keys = "prompt = { en = 'B {a}', zh = '乙{a}' }\nask = 'b?'\nchat = false\nbegin = 'So'\ntitle = 'T'\n\
        keep = 'heading 3'\ntemperature = 1\ntop-k = 5\ntop-p = 0.9\nmin-p = 0.1\ntypical-p = 0.8\nrepeat-penalty = 1.2\n\
        presence-penalty = 0.5\nfrequency-penalty = -0.5\npenalty-window = 64\nno-repeat-ngram = 3\nmax-tokens = 50\n\
        min-tokens = 2\nmin = 3\nmax = { en = 9, zh = 19 }\nunit = 'characters'\nstop = ['X']\nend = 'sentence'\n\
        drop-unfinished = true\nretries = 1\n[step.check]\none-line = true\nwhole-sentences = true\nsame-language = true\n\
        repeats = { n = 2, most = 1 }\ncontains = ['{topic}']\nlacks = { en = ['no'], zh = ['不'] }";
    let recipe = read(&with(keys)).unwrap();
    let step = &recipe.steps[1];
    assert_eq!(step.lengths(Lang::Zh), Lengths { min: 3, max: 19, unit: Unit::Characters });
    assert_eq!((step.sampling.temperature, step.sampling.processors.frequency), (1.0, -0.5));
    assert_eq!((step.end, step.chat, &step.keep), (End::Sentence, false, &Keep::Heading(3)));
    let checks =
        step.checks(Lang::Zh, &mut |text| text.fill(&[("topic".into(), "茶".into())].into()).unwrap());
    assert_eq!(
        (checks.contains, checks.lacks, checks.language),
        (vec!["茶".into()], vec!["不".into()], Some(Lang::Zh))
    );
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (keys, want) in [
        ("prompt = 'x'\ntemprature = 1", "line 8: unknown field `temprature`"),
        ("prompt = 'x'\ncheck = { short = true }", "line 8: unknown field `short`"),
        ("prompt = 'x'\ntemperature = 'hot'", "line 8: invalid type"),
        ("prompt = 'x'\nmax-tokens = 99999999999999999999", "line 8: "),
        ("prompt = 'x'\nmax-tokens = -1", "line 8: "),
        ("prompt = { en = 'x' }", "line 7: give both `en` and `zh`"),
        ("prompt = 'x'\nkeep = 'heading 7'", "line 8: \"heading 7\" is nothing to keep"),
        ("prompt = 'x'\nend = 'page'", "line 8: unknown variant `page`"),
        ("prompt = 'x", "line 7: "),
        ("temperature = 1", "line 5: step `b` has no `prompt`"),
        (
            "prompt = '''\nabout {tpic}\n'''",
            "line 8: {tpic} in step `b` is no input and no earlier step; there are topic, a",
        ),
        ("prompt = '{b}'", "line 7: {b} in step `b` is the step itself"),
        (
            "prompt = 'x'\nbegin = '{c}'\n[[step]]\nname = 'c'\nprompt = 'x'",
            "line 8: {c} in step `b` is a later step",
        ),
        ("prompt = 'x'\ncheck = { lacks = ['{z}'] }", "line 8: {z} in step `b`"),
        ("prompt = 'a { b'", "line 7: step `b`: a { is not closed"),
        ("prompt = 'x'\ntemperature = -1", "line 5: step `b`: "),
        ("prompt = 'x'\ntop-p = 0", "line 5: step `b`: "),
        ("prompt = 'x'\nmax-tokens = 0", "max-tokens = 0 writes nothing"),
        ("prompt = 'x'\nmax-tokens = 5\nmin-tokens = 6", "min-tokens = 6 is more"),
        ("prompt = 'x'\nmin = 5\nmax = { en = 9, zh = 4 }", "min = 5 and max = 4"),
        ("prompt = 'x'\nmax = 0", "min = 0 and max = 0"),
        ("prompt = 'x'\nstop = ['']", "a stop string is empty"),
        ("prompt = 'x'\nretries = 101", "at most 100"),
        ("prompt = 'x'\ncheck = { repeats = { n = 0, most = 1 } }", "n and most must be at least 1"),
        ("prompt = 'x'\ncheck = { contains = [' '] }", "a string is empty"),
        ("prompt = 'x'\n[[step]]\nname = 'a'\nprompt = 'x'", "line 8: there is another `a`"),
        ("prompt = 'x'\n[[step]]\nname = 'a b'\nprompt = 'x'", "line 8: \"a b\" cannot be a name"),
        ("prompt = 'x'\n[[step]]\nname = 'topic'\nprompt = 'x'", "\"topic\" cannot be a name"),
        ("prompt = 'x'\n[[step]]\nprompt = 'x'", "line 8: step `?` has no `name`"),
        ("prompt = 'x'\n[inputs.a]\nabout = 'x'", "there is another `a`"),
    ] {
        let error = error_of(&with(keys));
        assert!(error.contains(want), "{keys}\n  gave {error}\n  want {want}");
    }
    assert!(error_of("about = 'x'").contains("no steps"));
    assert!(error_of("").contains("missing field `about`"));
    assert!(error_of("about = 'x'\nsteps = 1").contains("line 2: unknown field `steps`"));
}

#[test]
fn settings_from_outside_win() {
    let source = with("prompt = 'x'\ntemperature = 0.5");
    let parse = |all: &[&str]| {
        let all: Result<Vec<Override>, _> = all.iter().map(|given| given.parse()).collect();
        Recipe::parse(&source, &all?)
    };
    let recipe =
        parse(&["*.temperature=0.2", "b.temperature = 0.3", "a.end=line", "b.check.one-line=true"]).unwrap();
    assert_eq!(recipe.steps.iter().map(|s| s.sampling.temperature).collect::<Vec<_>>(), [0.2, 0.3]);
    assert_eq!((recipe.steps[0].end, recipe.steps[1].one_line), (End::Line, true));
    for (given, want) in [
        ("temperature=1", "give a step, a key and a value"),
        ("b.temperature", "give a step, a key and a value"),
        ("c.temperature=1", "no step `c`; it has a, b"),
        ("b.heat=1", "unknown field `heat`"),
        ("b.temperature=hot", "invalid type"),
        ("b.prompt=x", "can only stand in a recipe"),
        ("b.name=x", "can only stand in a recipe"),
        ("b.max-tokens=1e99", "invalid type"),
        ("b.x = 1\nprompt=1", "unknown field `x`"),
        ("b.keep=1\nchat=true", "nothing to keep"),
        ("b.retries=99999999999999999999", "expected usize"),
        ("b.x y=1", "is no key"),
    ] {
        let error = parse(&[given]).err().unwrap_or_else(|| panic!("{given} should be refused")).to_string();
        assert!(error.contains(want), "{given}: {error}");
    }
    // A value that breaks a rule of the step is told there.
    assert!(parse(&["b.max-tokens=0"]).unwrap_err().to_string().contains("writes nothing"));
}
