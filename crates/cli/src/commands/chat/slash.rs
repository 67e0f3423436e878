//! What begins with `/` in a conversation: commands.

use anyhow::{Result, bail, ensure};

/// A command's name, what follows it, and what it does.
pub struct Slash {
    pub name: &'static str,
    pub args: &'static str,
    pub what: &'static str,
}

const fn slash(name: &'static str, args: &'static str, what: &'static str) -> Slash {
    Slash { name, args, what }
}

/// All commands, as `/help` lists them.
pub const ALL: [Slash; 14] = [
    slash("help", "", "list the commands"),
    slash(
        "system",
        "[TEXT]",
        "say how to answer, from the next reply on; alone: show it; /system none removes it",
    ),
    slash("persona", "[NAME|FILE]", "take a system prompt by name; alone: list them"),
    slash("retry", "", "answer the last message again, with other random numbers"),
    slash("undo", "", "take back the last message and its answer"),
    slash("set", "[NAME VALUE]", "change a setting, such as temperature 0.7; alone: list them"),
    slash("tokens", "", "how much of the context is used, and how fast the last reply was"),
    slash("save", "FILE", "write the conversation to a file (.jsonl or .json); /save! writes over one"),
    slash("load", "FILE", "go on from the conversation in a file"),
    slash("history", "[N]", "list earlier conversations, or reopen number N"),
    slash("show", "", "show the conversation so far"),
    slash("new", "", "begin a new conversation"),
    slash("model", "", "say which model answers, and in which template"),
    slash("quit", "", "leave; so does Ctrl-D"),
];

/// A line that was typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Words for the model.
    Message(&'a str),
    /// A command's name, as it stands in [`ALL`], whether `!` follows it, and the rest.
    Command(&'static str, bool, &'a str),
}

/// Tells commands from messages: `//` at the beginning stands for a `/` of a message.
pub fn parse(line: &str) -> Result<Line<'_>> {
    let line = line.trim();
    let Some(rest) = line.strip_prefix('/') else { return Ok(Line::Message(line)) };
    if rest.starts_with('/') {
        return Ok(Line::Message(rest));
    }
    let (typed, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let (name, forced) = typed.strip_suffix('!').map_or((typed, false), |name| (name, true));
    let name = match name {
        "exit" | "bye" | "q" => "quit",
        "?" => "help",
        name => name,
    };
    let Some(found) = ALL.iter().find(|slash| slash.name == name) else {
        let nearest = nearest(name).map_or_else(String::new, |near| format!("; did you mean /{near}?"));
        bail!("there is no command /{typed}{nearest} (/help lists them; // begins a message with /)");
    };
    ensure!(!forced || name == "save", "/{typed}: only /save takes a !");
    let rest = rest.trim();
    ensure!(!found.args.is_empty() || rest.is_empty(), "/{name} takes nothing after it");
    let is_needed = !found.args.is_empty() && !found.args.starts_with('[');
    ensure!(!is_needed || !rest.is_empty(), "/{name}: add {}", found.args);
    Ok(Line::Command(found.name, forced, rest))
}

/// The name that is most like a mistyped one, if any is.
fn nearest(typed: &str) -> Option<&'static str> {
    closest(typed, ALL.iter().map(|slash| slash.name))
}

/// The name that is most like a mistyped one: a beginning, or one that a few changes make.
pub fn closest<'a>(typed: &str, names: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    let begins = |name: &&str| !typed.is_empty() && name.starts_with(&typed);
    let alike = names.clone().map(|name| (strsim::osa_distance(&typed, name), name));
    names.clone().find(begins).or_else(|| {
        let (changes, name) = alike.min()?;
        (2 * changes <= name.len()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_messages_are_told_apart() {
        assert_eq!(parse("  你好 ").unwrap(), Line::Message("你好"));
        assert_eq!(parse("//etc is a folder").unwrap(), Line::Message("/etc is a folder"));
        assert_eq!(parse("/save! a b.json ").unwrap(), Line::Command("save", true, "a b.json"));
        assert_eq!(parse("/system Be\nbrief").unwrap(), Line::Command("system", false, "Be\nbrief"));
        assert_eq!(parse("/exit").unwrap(), Line::Command("quit", false, ""));
        assert_eq!(parse("").unwrap(), Line::Message(""));
    }

    #[test]
    fn unknown_ones_are_named_with_the_nearest() {
        let error = |line| parse(line).unwrap_err().to_string();
        for (typed, near) in
            [("/hlep", "/help"), ("/tok", "/tokens"), ("/retyr", "/retry"), ("/Quit", "/quit")]
        {
            assert!(error(typed).contains(&format!("no command {typed}; did you mean {near}?")), "{typed}");
        }
        assert!(!error("/frobnicate").contains("did you mean"));
        assert!(!error("/").contains("did you mean"));
        assert!(error("/save").contains("add FILE"));
        assert!(error("/undo 3").contains("takes nothing"));
        assert!(error("/undo!").contains("only /save"));
    }
}
