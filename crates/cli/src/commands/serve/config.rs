//! `--config serve.toml`: the flags of `gpt2 serve` in a file, under their names.
//!
//! What the file sets becomes the flags' defaults, so that flags and environment variables win over it, and each value is read
//! and refused as the flag's is, with its line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Arg, ArgAction, Command};
use toml::{Spanned, Value};

use crate::input;
use crate::output::printable;

const NAME: &str = "serve";
/// Flags that a file cannot set.
const NOT_IN_A_FILE: [&str; 2] = ["config", "help"];

/// The command line's command, whose `serve` has what `--config` names as its defaults.
pub fn with_file(command: Command, args: &[OsString]) -> Result<Command> {
    // What else is wrong is told when all is read.
    let looked = command.clone().ignore_errors(true).try_get_matches_from(args);
    let Some(path) =
        looked.ok().and_then(|found| found.subcommand_matches(NAME)?.get_one::<PathBuf>("config").cloned())
    else {
        return Ok(command);
    };
    let text = input::read_settings(&path).context("--config")?;
    let Some(serve) = command.find_subcommand(NAME) else { return Ok(command) };
    let set = defaults(serve, &path, &text)?;
    Ok(command.mut_subcommand(NAME, |serve| {
        set.into_iter().fold(serve, |serve, (id, values)| {
            serve.mut_arg(id, |arg| {
                let takes_values = arg.get_action().takes_values();
                let arg = arg.required(false).default_values(values);
                if takes_values { arg.hide_default_value(true) } else { arg }
            })
        })
    }))
}

/// The flags that a file sets, and to what.
fn defaults(serve: &Command, path: &Path, text: &str) -> Result<Vec<(String, Vec<String>)>> {
    let table: BTreeMap<Spanned<String>, Spanned<Value>> =
        toml::from_str(text).with_context(|| format!("in {}", path.display()))?;
    let mut all = Vec::new();
    for (name, value) in &table {
        let line = 1 + text[..name.span().start].matches('\n').count();
        let at = || format!("in {}, line {line}", path.display());
        let (name, value) = (name.get_ref(), value.get_ref());
        let arg = flag(serve, name).with_context(at)?;
        let values = values(arg, name, value).with_context(at)?;
        if !values.is_empty() {
            check(arg, &values).with_context(at)?;
            all.push((arg.get_id().to_string(), values));
        }
    }
    Ok(all)
}

/// The flag of this name.
fn flag<'c>(serve: &'c Command, name: &str) -> Result<&'c Arg> {
    let flags = || serve.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
    if let Some((_, arg)) = flags().find(|(long, _)| *long == name && !NOT_IN_A_FILE.contains(long)) {
        return Ok(arg);
    }
    let near = flags().map(|(long, _)| (strsim::damerau_levenshtein(long, name), long));
    let near = near.filter(|(steps, long)| *steps <= 3 && !NOT_IN_A_FILE.contains(long)).min();
    let hint = near
        .map_or("`gpt2 serve --help` lists them".to_owned(), |(_, long)| format!("did you mean `{long}`?"));
    bail!("there is no setting `{}`; {hint}", printable(name))
}

/// A setting's values, as they would be typed.
fn values(arg: &Arg, name: &str, value: &Value) -> Result<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(is_on) => Ok(is_on.to_string()),
        other => bail!("`{name}` is set to {}, and cannot be", other.type_str()),
    };
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    ensure!(
        is_switch == value.is_bool(),
        "`{name}` takes {}",
        if is_switch { "true or false" } else { "a value" }
    );
    match value {
        Value::Array(all) if matches!(arg.get_action(), ArgAction::Append) => all.iter().map(one).collect(),
        Value::Array(_) => bail!("`{name}` takes one value, not a list"),
        value => Ok(vec![one(value)?]),
    }
}

/// Reads the values as the flag would.
fn check(arg: &Arg, values: &[String]) -> Result<()> {
    let Some(long) = arg.get_long().filter(|_| !matches!(arg.get_action(), ArgAction::SetTrue)) else {
        return Ok(());
    };
    // Its variable in the environment has nothing to do with the file.
    let alone = Command::new(NAME).no_binary_name(true).arg(arg.clone().env(None::<&str>).required(false));
    let typed = values.iter().map(|value| format!("--{long}={value}"));
    let wrong = |error: clap::Error| {
        let text = error.to_string();
        anyhow!("{}", text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned())
    };
    alone.try_get_matches_from(typed).map(drop).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::commands::serve::Args;

    fn read(text: &str) -> Result<Vec<(String, Vec<String>)>> {
        defaults(&Args::augment_args(Command::new(NAME)), Path::new("serve.toml"), text)
    }

    #[test]
    fn settings_are_flags() {
        let read = read(
            "model = [\"a=x\", \"y\"]\n\nport = 9000\nkv-budget = \"2GB\"\nmetrics-open = true\ncors = []\n",
        )
        .unwrap();
        let find = |id: &str| read.iter().find(|(known, _)| known == id).map(|(_, values)| values.join(" "));
        assert_eq!(find("model").as_deref(), Some("a=x y"));
        assert_eq!(find("port").as_deref(), Some("9000"));
        assert_eq!(find("kv_budget").as_deref(), Some("2GB"));
        assert_eq!(find("metrics_open").as_deref(), Some("true"));
        assert_eq!(find("cors"), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let fails = |text: &str, parts: &[&str]| {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        };
        fails("port = 1\nprot = 2", &["serve.toml, line 2", "no setting `prot`", "did you mean `port`?"]);
        fails("\nconfig = \"x\"", &["line 2", "no setting `config`"]);
        fails("[serve]\nport = 1", &["line 1", "no setting `serve`"]);
        fails("port = 99999", &["line 1", "99999", "--port"]);
        fails("port = true", &["line 1", "takes a value"]);
        fails("metrics-open = 1", &["takes true or false"]);
        fails("port = [1]", &["one value"]);
        fails("log-format = \"xml\"", &["log-format", "xml"]);
        fails("port = ", &["serve.toml"]);
        fails("model = [[1]]", &["array"]);
    }

    #[test]
    fn the_example_can_be_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/serve.toml");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(read(&text).unwrap().len() > 5);
        // Its remarks show settings with their defaults: they must be there, too.
        let shown = text.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(" = "));
        for (name, _) in shown.filter(|(name, _)| !name.contains(' ')) {
            flag(&Args::augment_args(Command::new(NAME)), name).unwrap();
        }
    }
}
