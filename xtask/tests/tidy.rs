//! Rules of the house that the compiler does not know: layers, headers, the tree in ARCHITECTURE.md, `unsafe`,
//! reasons for dependencies, and no paths of one machine.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate, and those of ours it may use; what these may use, it may use too. From ARCHITECTURE.md.
const MAY_USE: [(&str, &[&str]); 13] = [
    ("kernels", &[]),
    ("hub", &[]),
    ("tokenizer", &[]),
    ("tensor", &["kernels"]),
    ("models", &["tensor"]),
    ("data", &["tokenizer"]),
    ("generate", &["models", "tokenizer"]),
    ("eval", &["models", "data", "generate"]),
    ("train", &["models", "data", "eval"]),
    ("compress", &["models", "eval"]),
    ("explain", &["models", "generate"]),
    ("serve", &["generate", "explain"]),
    ("cli", &["hub", "data", "eval", "train", "compress", "serve"]),
];

#[test]
fn crates_use_only_what_stands_above_them() {
    for name in crates() {
        let allowed = allowed(&name);
        for (dep, line) in dependencies(&root().join("crates").join(&name).join("Cargo.toml")) {
            let ours = MAY_USE.iter().any(|(known, _)| *known == dep);
            assert!(
                !ours || allowed.contains(dep.as_str()),
                "`{name}` may not use `{dep}` ({line}): see ARCHITECTURE.md"
            );
        }
    }
}

#[test]
fn dependencies_have_reasons() {
    let shared = dependencies(&root().join("Cargo.toml"));
    for name in crates() {
        for (dep, line) in dependencies(&root().join("crates").join(&name).join("Cargo.toml")) {
            let ours = MAY_USE.iter().any(|(known, _)| *known == dep);
            let explained = |line: &str| line.contains("# ");
            let explained_once = shared.iter().any(|(shared, line)| *shared == dep && explained(line));
            assert!(
                ours || explained(&line) || explained_once,
                "crates/{name}/Cargo.toml: `{line}` needs its reason, as a comment at the end of the line"
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for path in files().iter().filter(|path| has_extension(path, "rs")) {
        assert!(read(path).starts_with("//! "), "{} must open with `//! ` and what it is", path.display());
    }
}

#[test]
fn only_kernels_is_unsafe() {
    for path in files().iter().filter(|path| has_extension(path, "rs") && !path.starts_with("crates/kernels"))
    {
        let text = read(path);
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            // In two parts, so that this line does not find itself.
            let found = words.any(|word| word == concat!("un", "safe"));
            assert!(!found, "{}:{}: only `kernels` may do this: {line}", path.display(), number + 1);
        }
        let is_crate_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        let forbidden = text.contains("#![forbid(unsafe_code)]");
        assert!(!is_crate_root || forbidden, "{} must say #![forbid(unsafe_code)]", path.display());
    }
}

/// ARCHITECTURE.md draws each crate as `name/  file.rs (what it is)  folder/file.rs  folder/*.rs …` in a code block.
#[test]
fn architecture_draws_the_tree_as_it_is() {
    let drawn = drawn_files(&read(Path::new("ARCHITECTURE.md")));
    for name in crates() {
        let src = PathBuf::from(format!("crates/{name}/src"));
        let drawn_or_obvious = |path: &PathBuf| {
            let is_root = ["lib.rs", "main.rs"].iter().any(|name| *path == src.join(name));
            let is_test =
                path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests");
            is_root || is_test || drawn.iter().any(|pattern| matches(pattern, path))
        };
        let sources = files().into_iter().filter(|path| path.starts_with(&src) && has_extension(path, "rs"));
        let undrawn: Vec<PathBuf> = sources.filter(|path| !drawn_or_obvious(path)).collect();
        assert!(undrawn.is_empty(), "ARCHITECTURE.md does not draw {undrawn:?}");
        let has_room = drawn.iter().any(|pattern| Path::new(pattern).starts_with(&src));
        assert!(has_room, "ARCHITECTURE.md does not draw crates/{name}");
    }
    for pattern in &drawn {
        let exists = files().iter().any(|path| matches(pattern, path));
        assert!(exists, "ARCHITECTURE.md draws {pattern}, which is not there");
    }
}

#[test]
fn drawings_are_read() {
    let drawn = drawn_files(
        "No.\n```\ncli/  main.rs (the door, not `x.rs`)  commands/*.rs\n      a/b.rs\n```\nx/  c.rs",
    );
    assert_eq!(drawn, ["main.rs", "commands/*.rs", "a/b.rs"].map(|file| format!("crates/cli/src/{file}")));
    assert!(matches("crates/cli/src/commands/*.rs", Path::new("crates/cli/src/commands/train.rs")));
    assert!(!matches("crates/cli/src/*.rs", Path::new("crates/cli/src/commands/train.rs")));
}

#[test]
fn nothing_knows_one_machine() {
    let private =
        [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("C:", "\\Users")];
    for path in files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue }; // not text
        for (number, line) in text.lines().enumerate() {
            let found = private.iter().find(|private| line.contains(*private));
            assert!(found.is_none(), "{}:{}: a path of one machine: {line}", path.display(), number + 1);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The crates there are; each must be in the table.
fn crates() -> Vec<String> {
    let entries = fs::read_dir(root().join("crates")).expect("crates/ can be listed");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("plain names"))
        .collect();
    names.sort();
    for name in &names {
        let known = MAY_USE.iter().any(|(known, _)| known == name);
        assert!(known, "crates/{name} is not in the table of layers: add it here and to ARCHITECTURE.md");
    }
    names
}

fn allowed(name: &str) -> BTreeSet<&'static str> {
    let (_, direct) = MAY_USE.iter().find(|(known, _)| *known == name).expect("a crate of the table");
    direct.iter().flat_map(|dep| allowed(dep).into_iter().chain([*dep])).collect()
}

/// The dependencies in a Cargo.toml, save those of tests: the package's name, and the line.
fn dependencies(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && !line.ends_with("dev-dependencies]");
        } else if inside && line.contains('=') {
            let key = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let renamed = line.split("package = \"").nth(1).and_then(|rest| rest.split('"').next());
            found.push((renamed.unwrap_or(key).to_owned(), line.to_owned()));
        }
    }
    found
}

/// Every file of the project, relative to the root; not what is built, downloaded or trained beside them.
fn files() -> Vec<PathBuf> {
    const FOLDERS: [&str; 9] =
        [".cargo", ".ci", "book", "configs", "crates", "deploy", "runs", "tests", "xtask"];
    const BUILT: [&str; 2] = ["target", "__pycache__"];
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder can be listed") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let ours = if folder == root() { FOLDERS.contains(&name) } else { !BUILT.contains(&name) };
            if path.is_dir() && ours {
                walk(&path, found);
            } else if path.is_file() && name != ".git" {
                // In a second work tree `.git` is a file that names the first.
                found.push(path.strip_prefix(root()).expect("below the root").to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), &mut found);
    found.sort();
    found
}

/// The files that a drawing names, as `crates/NAME/src/FILE`; a `*` stands for any one name.
fn drawn_files(markdown: &str) -> Vec<String> {
    let blocks = markdown.split("```").skip(1).step_by(2);
    let mut drawn = Vec::new();
    for block in blocks {
        let mut room = None;
        for line in block.lines() {
            let first = line.split_whitespace().next().unwrap_or_default();
            if !line.starts_with(' ') {
                room = first.strip_suffix('/').filter(|name| MAY_USE.iter().any(|(known, _)| known == name));
            }
            let Some(room) = room else { continue };
            let files = without_brackets(line);
            let files = files.split([' ', ',']).filter(|word| word.ends_with(".rs"));
            drawn.extend(files.map(|file| format!("crates/{room}/src/{file}")));
        }
    }
    drawn
}

fn without_brackets(line: &str) -> String {
    let mut depth = 0;
    let outside = |c: &char| {
        depth += i32::from(*c == '(') - i32::from(*c == ')');
        depth == 0 && *c != ')'
    };
    line.chars().filter(outside).collect()
}

fn matches(pattern: &str, path: &Path) -> bool {
    match pattern.split_once('*') {
        None => Path::new(pattern) == path,
        Some((before, after)) => {
            let path = path.to_str().unwrap_or_default();
            let middle = path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            middle.is_some_and(|middle| !middle.contains('/'))
        }
    }
}
