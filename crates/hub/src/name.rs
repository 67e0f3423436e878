//! Names of models on the hub: `gpt2`, `org/name`, `org/name@revision`, and any of them after `hf:`.

use std::fmt;

use crate::{HubError, Result};

/// Models that are known by one word, and who keeps them on the hub today.
pub const KNOWN: [(&str, &str); 5] = [
    ("gpt2", "openai-community"),
    ("gpt2-medium", "openai-community"),
    ("gpt2-large", "openai-community"),
    ("gpt2-xl", "openai-community"),
    ("distilgpt2", "distilbert"),
];

/// The branch that is meant where none is named.
const MAIN: &str = "main";
/// The hub's longest name of a repository.
const LONGEST: usize = 96;
/// Names that end so are files, unless `hf:` stands before them.
const FILES: [&str; 6] = [".gguf", ".bin", ".pt", ".pth", ".safetensors", ".json"];

/// A repository of the hub, and a revision of it. What was parsed is safe as a part of a path and of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    repo: String,
    revision: Option<String>,
}

impl Name {
    /// Reads a name. One word alone must be one of [`KNOWN`], since any word could be one, and most are typing mistakes;
    /// with `hf:` before it, it may be any.
    pub fn parse(text: &str) -> Result<Name> {
        let (forced, rest) = match text.strip_prefix("hf:") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (repo, revision) = match rest.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (rest, None),
        };
        let error = |reason| HubError::Name { name: text.to_owned(), reason };
        if !is_repo(repo) {
            return Err(error("it is not of the form ORG/NAME".to_owned()));
        }
        if let Some(revision) = revision.filter(|revision| !is_revision(revision)) {
            return Err(error(format!("`{revision}` is no branch, tag or commit")));
        }
        let is_known = KNOWN.iter().any(|(known, _)| *known == repo);
        if !forced && !repo.contains('/') && !is_known {
            return Err(error(format!(
                "if you mean a model of the hub without an organisation, write hf:{rest}"
            )));
        }
        if !forced && FILES.iter().any(|end| repo.ends_with(end)) {
            return Err(error(format!("it looks like a file; if it is a model of the hub, write hf:{rest}")));
        }
        Ok(Name { repo: repo.to_owned(), revision: revision.map(str::to_owned) })
    }

    /// The repository, `org/name` or `name`.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// The revision that was named.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// The revision that was named, or the main branch.
    pub fn revision_or_main(&self) -> &str {
        self.revision().unwrap_or(MAIN)
    }

    /// The other name of a model that has moved: `gpt2` and `openai-community/gpt2` are one.
    pub(crate) fn alias(&self) -> Option<Name> {
        KNOWN.iter().find_map(|(word, org)| {
            let long = format!("{org}/{word}");
            let repo = match self.repo.as_str() {
                repo if repo == *word => long,
                repo if repo == long => (*word).to_owned(),
                _ => return None,
            };
            Some(Name { repo, revision: self.revision.clone() })
        })
    }

    /// A repository that is known to be named well.
    pub(crate) fn of_repo(repo: &str) -> Option<Name> {
        is_repo(repo).then(|| Name { repo: repo.to_owned(), revision: None })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.repo)?;
        self.revision().map_or(Ok(()), |revision| write!(f, "@{revision}"))
    }
}

/// By the hub's rules: one or two parts of letters, digits, `-`, `_` and `.`, without `--` and `..`.
fn is_repo(repo: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_part = |part: &str| {
        part.chars().all(|c| is_word(c) || c == '-' || c == '.')
            && part.starts_with(is_word)
            && part.ends_with(is_word)
    };
    repo.len() <= LONGEST
        && repo.split('/').count() <= 2
        && repo.split('/').all(is_part)
        && !repo.contains("--")
        && !repo.contains("..")
        && !repo.ends_with(".git")
}

/// What git allows in a branch's name, less what could lead out of a folder.
fn is_revision(revision: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with(".lock")
            && !part.contains("..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
    };
    revision.len() <= 200 && revision.split('/').all(is_part)
}

/// Whether this is the full name of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

/// Whether these are digits of base 16 as the hub writes them.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        for (text, repo, revision) in [
            ("gpt2", "gpt2", None),
            ("gpt2-xl", "gpt2-xl", None),
            ("distilgpt2", "distilgpt2", None),
            ("hf:anything", "anything", None),
            ("uer/gpt2-chinese-cluecorpussmall", "uer/gpt2-chinese-cluecorpussmall", None),
            ("org/name.v1_2@main", "org/name.v1_2", Some("main")),
            ("hf:gpt2@refs/pr/1", "gpt2", Some("refs/pr/1")),
            ("hf:org/model.gguf", "org/model.gguf", None),
        ] {
            let name = Name::parse(text).unwrap();
            assert_eq!((name.repo(), name.revision()), (repo, revision), "{text}");
            assert_eq!(format!("hf:{name}"), format!("hf:{}", text.trim_start_matches("hf:")));
        }
        assert_eq!(Name::parse("gpt2").unwrap().revision_or_main(), "main");
    }

    #[test]
    fn other_words_are_refused() {
        let long = format!("org/{}", "a".repeat(100));
        let texts = [
            "",
            "hf:",
            "/",
            "org/",
            "/name",
            "a/b/c",
            "./name",
            "../name",
            "org/..",
            "org/a..b",
            "org/a--b",
            "-a/b",
            "org\\name",
            "org/na me",
            "org/name@",
            "org/name@../x",
            "org/name@/x",
            "org/name@a//b",
            "org/name@.x",
            "org/name@a@b",
            "org/näme",
            "org/name.git",
            "org/name\n",
            "org/n?x",
            "nowhere",
            "org/model.gguf",
            &long,
        ];
        for text in texts {
            assert!(matches!(Name::parse(text), Err(HubError::Name { .. })), "{text:?}");
        }
        assert!(Name::parse("gpt2-small").unwrap_err().to_string().contains("gpt2-medium"));
        assert!(Name::parse("nowhere").unwrap_err().to_string().contains("hf:nowhere"));
    }

    #[test]
    fn moved_models_have_two_names() {
        let alias = |text: &str| Name::parse(text).unwrap().alias().map(|name| name.to_string());
        assert_eq!(alias("gpt2@main").unwrap(), "openai-community/gpt2@main");
        assert_eq!(alias("distilbert/distilgpt2").unwrap(), "distilgpt2");
        assert_eq!(alias("org/gpt2"), None);
    }
}
