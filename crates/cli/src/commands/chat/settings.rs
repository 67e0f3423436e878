//! What `/set` changes: how replies are drawn, and how long they may be.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail, ensure};
use generate::Sampling;
use generate::apps::chat::ReplySettings;
use generate::constraint::Constraint;
use serde_json::{Value, json};

use super::slash::closest;

/// The names of the settings, as `/set` lists them.
pub const NAMES: [&str; 8] =
    ["temperature", "top_k", "top_p", "min_p", "repeat_penalty", "max_tokens", "seed", "constraint"];

/// What settings must fit.
pub struct Limits<'a> {
    pub n_ctx: usize,
    /// What replies can be held to.
    pub constraint: Option<&'a Arc<Constraint>>,
}

/// Changes a setting, or leaves all as they are.
pub fn set(settings: &mut ReplySettings, limits: &Limits, typed: &str) -> Result<()> {
    let (name, value) = typed
        .split_once(|c: char| c.is_whitespace() || c == '=')
        .map(|(name, value)| (name, value.trim_matches(|c: char| c.is_whitespace() || c == '=')))
        .unwrap_or((typed, ""));
    let name = name.trim_start_matches("--").replace('-', "_");
    let mut new = settings.clone();
    let ReplySettings { sampling, max_tokens, constraint } = &mut new;
    match name.as_str() {
        "temperature" => sampling.temperature = number(&name, value)?,
        "top_k" => sampling.top_k = number(&name, value)?,
        "top_p" => sampling.top_p = number(&name, value)?,
        "min_p" => sampling.min_p = number(&name, value)?,
        "repeat_penalty" => sampling.processors.repetition = number(&name, value)?,
        "max_tokens" => *max_tokens = number(&name, value)?,
        "seed" => sampling.seed = number(&name, value)?,
        "constraint" => {
            *constraint = match (value, limits.constraint) {
                ("off" | "false", _) => None,
                ("on" | "true", Some(given)) => Some(Arc::clone(given)),
                ("on" | "true", None) => {
                    bail!("there is no constraint; start the chat with --json-schema or --grammar")
                }
                _ => bail!("/set constraint: say on or off"),
            }
        }
        _ => {
            let near = closest(&name, NAMES.into_iter());
            let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            bail!("there is no setting `{name}`{near} (there are {})", NAMES.join(", "));
        }
    }
    check(&new, limits.n_ctx, "/set max_tokens")?;
    *settings = new;
    Ok(())
}

/// Refuses what no reply could be written with. `typed` is how the tokens of a reply are given.
pub fn check(settings: &ReplySettings, n_ctx: usize, typed: &str) -> Result<()> {
    settings.sampling.validate()?;
    let most = n_ctx.saturating_sub(1);
    ensure!(
        (1..=most).contains(&settings.max_tokens),
        "{typed} {}: the model's context holds {n_ctx} tokens; ask for 1 to {most}",
        settings.max_tokens
    );
    Ok(())
}

fn number<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T> {
    ensure!(!value.is_empty(), "/set {name}: add a number");
    value.parse().map_err(|error| anyhow!("/set {name} {value}: {error}"))
}

/// The settings as they are kept with a conversation.
pub fn to_json(settings: &ReplySettings) -> Value {
    let ReplySettings { sampling, max_tokens, constraint } = settings;
    let Sampling { temperature, top_k, top_p, min_p, seed, processors, .. } = sampling;
    // A single-precision number as it was typed: 0.8, not 0.800000011920929.
    let short = |x: f32| x.to_string().parse::<f64>().map_or(Value::Null, |x| json!(x));
    json!({
        "temperature": short(*temperature), "top_k": top_k, "top_p": short(*top_p), "min_p": short(*min_p),
        "repeat_penalty": short(processors.repetition), "max_tokens": max_tokens, "seed": seed,
        "constraint": constraint.is_some(),
    })
}

/// The settings, one a line.
pub fn list(settings: &ReplySettings) -> String {
    let values = to_json(settings);
    NAMES.map(|name| format!("{name:15} {}", values[name])).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use generate::constraint::Vocabulary;

    fn defaults() -> ReplySettings {
        let sampling = Sampling { temperature: 0.8, ..Sampling::default() };
        ReplySettings { sampling, max_tokens: 40, constraint: None }
    }

    const LIMITS: Limits = Limits { n_ctx: 100, constraint: None };

    #[test]
    fn settings_are_changed_by_name() {
        let mut settings = defaults();
        for typed in ["temperature 0.7", "--top-k 5", "top_p=0.5", "min_p = 0.1", "repeat-penalty 1.5"] {
            set(&mut settings, &LIMITS, typed).unwrap();
        }
        set(&mut settings, &LIMITS, "max_tokens 99").unwrap();
        set(&mut settings, &LIMITS, "seed 18446744073709551615").unwrap();
        let want = json!({
            "temperature": 0.7, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "repeat_penalty": 1.5, "max_tokens": 99,
            "seed": u64::MAX, "constraint": false,
        });
        assert_eq!(to_json(&settings), want);
        assert!(list(&settings).lines().eq([
            "temperature     0.7",
            "top_k           5",
            "top_p           0.5",
            "min_p           0.1",
            "repeat_penalty  1.5",
            "max_tokens      99",
            "seed            18446744073709551615",
            "constraint      false",
        ]));
    }

    #[test]
    fn a_constraint_is_taken_off_and_put_on_again() {
        let vocabulary = Vocabulary::new(&tokenizer::Tokenizer::gpt2()).unwrap();
        let yes = Arc::new(Constraint::grammar(&vocabulary, "start: \"yes\"").unwrap());
        let limits = Limits { constraint: Some(&yes), ..LIMITS };
        let mut settings = ReplySettings { constraint: Some(yes.clone()), ..defaults() };
        set(&mut settings, &limits, "constraint off").unwrap();
        assert!(settings.constraint.is_none());
        set(&mut settings, &limits, "constraint on").unwrap();
        assert!(settings.constraint.is_some_and(|on| Arc::ptr_eq(&on, &yes)));
    }

    #[test]
    fn nonsense_changes_nothing_and_says_why() {
        for (typed, part) in [
            ("temperature", "add a number"),
            ("temperature warm", "/set temperature warm: invalid float"),
            ("temperature NaN", "temperature"),
            ("temperature -1", "temperature"),
            ("top_k -3", "/set top_k -3: invalid digit"),
            ("top_p 0", "top"),
            ("top_p 7", "top"),
            ("min_p inf", "min"),
            ("repeat_penalty 0", "penalty"),
            ("max_tokens 0", "ask for 1 to 99"),
            ("max_tokens 100", "ask for 1 to 99"),
            ("seed 1.5", "invalid digit"),
            ("constraint", "say on or off"),
            ("constraint on", "start the chat with --json-schema"),
            ("tempratur 1", "did you mean temperature?"),
            ("frobnicate 1", "there are temperature, top_k"),
            ("", "there are temperature"),
        ] {
            let mut settings = defaults();
            let error = set(&mut settings, &LIMITS, typed).unwrap_err().to_string();
            assert!(error.contains(part), "{typed}: {error}");
            assert_eq!(to_json(&settings), to_json(&defaults()), "{typed}");
        }
    }
}
