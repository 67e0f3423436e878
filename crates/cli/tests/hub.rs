//! Models by name, through the binary, from a server on this machine; and the cache that is shared with Python.
//!
//! `GPT2_PYTHON` names a Python that has huggingface_hub (`tests/golden/requirements.txt`).
#![forbid(unsafe_code)]

mod common;
#[path = "../../hub/tests/common/server.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Finished, Folder, TINY, text};
use serde_json::Value;
use server::{File, Server, commit, large, small};

/// A folder with a trained model `m`, and a hub that has it as `org/name`.
struct World {
    folder: Folder,
    server: Server,
}

const SMALL: [&str; 5] =
    ["config.json", "generation_config.json", "tokenizer.json", "vocab.json", "merges.txt"];
const WEIGHTS: &str = "model.safetensors";

impl World {
    fn new() -> World {
        let (folder, server) = (Folder::new(), Server::start());
        folder.write("a.txt", text());
        folder.succeeds(&format!("train --data a.txt --tokenizer bpe:300 {TINY} --max-steps 2 --out m"));
        let world = World { folder, server };
        world.server.add("org/name", "main", &commit('a'), &world.files());
        world
    }

    /// The model as a repository: other files, too.
    fn files(&self) -> Vec<File> {
        let read = |name: &str| fs::read(self.folder.path("m").join(name)).ok();
        let mut files: Vec<File> =
            SMALL.into_iter().filter_map(|name| Some(small(name, read(name)?))).collect();
        files.extend([
            large(WEIGHTS, read(WEIGHTS).unwrap()),
            small("README.md", "x"),
            large("rust_model.ot", "x"),
        ]);
        files
    }

    fn command(&self, args: &str) -> Command {
        let mut command = self.folder.command(args);
        for name in ["HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "GPT2_OFFLINE", "http_proxy", "HTTP_PROXY"]
        {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.folder.path("hf")).env("HF_ENDPOINT", &self.server.url);
        command
    }

    fn run(&self, args: &str) -> Finished {
        self.folder.finish(self.command(args), b"")
    }

    #[track_caller]
    fn succeeds(&self, args: &str) -> String {
        let Finished { ok, stdout, stderr } = self.run(args);
        assert!(ok, "gpt2 {args}\n{stdout}{stderr}");
        stdout
    }

    #[track_caller]
    fn fails(&self, args: &str, parts: &[&str]) {
        let Finished { ok, stdout, stderr } = self.run(args);
        assert!(!ok && stdout.is_empty(), "gpt2 {args}\n{stdout}{stderr}");
        assert!(stderr.contains("error: ") && !stderr.contains("panicked"), "gpt2 {args}\n{stderr}");
        parts.iter().for_each(|part| assert!(stderr.contains(part), "gpt2 {args}: no {part:?} in\n{stderr}"));
    }
}

#[test]
fn a_model_is_pulled_listed_used_and_removed() {
    let world = World::new();
    let pull = world.run("pull org/name");
    assert!(pull.ok, "{}", pull.stderr);
    for part in ["asking http://127.0.0.1", "downloading org/name", "downloaded org/name", "snapshots"] {
        assert!(pull.stderr.contains(part), "{part}: {}", pull.stderr);
    }
    let path = pull.stdout.trim();
    assert!(path.ends_with(&format!("hf/hub/models--org--name/snapshots/{}", commit('a'))), "{path}");
    let weights = fs::read(world.folder.path("m").join(WEIGHTS)).unwrap();
    assert_eq!(fs::read(Path::new(path).join(WEIGHTS)).unwrap(), weights);
    assert!(!Path::new(path).join("rust_model.ot").exists());

    let list: Value = serde_json::from_str(&world.succeeds("ls --json")).unwrap();
    assert_eq!((&list[0]["name"], &list[0]["revision"]), (&"org/name".into(), &commit('a').into()));
    assert_eq!((&list[0]["refs"][0], &list[0]["whole"]), (&"main".into(), &true.into()));
    assert!(list[0]["size"].as_u64().unwrap() > weights.len() as u64);
    let table = world.succeeds("ls");
    assert!(
        table.starts_with("NAME") && table.contains("main (aaaaaaaaaa)") && table.contains(path),
        "{table}"
    );

    world.server.asked();
    let story = "-p fox -n 8 --seed 1 --temperature 1";
    let want = world.succeeds(&format!("generate -m m {story}"));
    assert_eq!(world.succeeds(&format!("generate -m org/name {story}")), want);
    assert_eq!(world.succeeds(&format!("generate -m hf:org/name@main --draft org/name {story}")), want);
    let eval = |model: &str| world.succeeds(&format!("eval -m {model} --data a.txt --json"));
    assert_eq!(eval("org/name"), eval("m"));
    world.succeeds("quantize -m org/name --to q8 --out q8");
    let encode = |tokenizer: &str| {
        let command = world.command(&format!("tokenizer encode --tokenizer {tokenizer}"));
        world.folder.finish(command, "The fox 狐狸".as_bytes()).stdout
    };
    assert_eq!(encode("org/name"), encode("m"));
    world.succeeds(
        "train --data a.txt --init org/name --tokenizer org/name --batch 2 --max-steps 1 --out more",
    );
    world.succeeds("prepare --data a.txt --tokenizer org/name --out shards");
    assert_eq!(world.server.asked(), [], "all of that came from the cache");

    let again: Value = serde_json::from_str(&world.succeeds("pull org/name --json")).unwrap();
    assert_eq!((&again["downloaded"], &again["path"]), (&0.into(), &path.into()));
    let removed = world.succeeds("rm org/name");
    assert!(removed.contains("removed org/name (1 revision)") && removed.contains("kB"), "{removed}");
    assert!(!Path::new(path).exists());
    assert_eq!(world.succeeds("ls --json").trim(), "[]");
    world.fails("rm org/name", &["org/name is not in", "gpt2 ls"]);
}

#[test]
fn the_first_use_downloads() {
    let world = World::new();
    world.server.add("openai-community/gpt2", "main", &commit('b'), &world.files());
    world.server.state().moved.insert("gpt2".into(), "openai-community/gpt2".into());
    let story = "-p fox -n 8 --seed 1";
    let want = world.succeeds(&format!("generate -m m {story}"));
    let first = world.run(&format!("generate -m gpt2 {story}"));
    assert_eq!(first.stdout, want, "{}", first.stderr);
    assert!(
        first.stderr.contains("downloaded gpt2") && first.stderr.contains("models--gpt2"),
        "{}",
        first.stderr
    );
    let second = world.run(&format!("generate -m gpt2 {story}"));
    assert!(second.stdout == want && !second.stderr.contains("download"), "{}", second.stderr);
    world.succeeds("train --data a.txt --init hf:gpt2 --batch 2 --max-steps 1 --out more");
    fs::create_dir(world.folder.path("gpt2")).unwrap();
    world.fails("generate -m gpt2", &["gpt2", "holds no model"]);
    assert_eq!(world.succeeds(&format!("generate -m hf:gpt2 {story}")), want, "a path wins, but for hf:");
}

#[test]
fn a_killed_download_goes_on() {
    let world = World::new();
    let weights = fs::read(world.folder.path("m").join(WEIGHTS)).unwrap();
    world.server.state().stall = true;
    let mut child = world.command("pull org/name").stderr(std::process::Stdio::null()).spawn().unwrap();
    let partial =
        world.folder.path("hf/hub/models--org--name/blobs").join(server::sha256(&weights) + ".incomplete");
    let half = weights.len() as u64 / 2;
    while fs::metadata(&partial).map_or(0, |meta| meta.len()) < half {
        assert!(child.try_wait().unwrap().is_none(), "it waits for the server");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    world.fails("generate --offline -m org/name", &["or not whole", "--offline"]);
    let table = world.succeeds("ls");
    assert!(table.contains("not whole"), "{table}");
    world.server.asked();
    world.succeeds("pull org/name");
    let ranges: Vec<_> = world.server.asked().into_iter().filter(|asked| asked.elsewhere).collect();
    assert_eq!((ranges.len(), ranges[0].range.clone()), (1, Some(format!("bytes={half}-"))));
    world.succeeds("generate -m org/name -n 1");
}

#[test]
fn two_processes_download_once() {
    let world = World::new();
    world.server.asked();
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..3).map(|_| scope.spawn(|| world.succeeds("pull org/name"))).collect();
        let paths: Vec<String> = pulls.into_iter().map(|pull| pull.join().unwrap()).collect();
        assert!(paths.iter().all(|path| *path == paths[0]));
    });
    assert_eq!(world.server.asked().iter().filter(|asked| asked.elsewhere).count(), 1);
}

#[test]
fn errors_say_what_to_do() {
    let world = World::new();
    world.fails("generate -m nowhere", &["no file or directory nowhere", "hf:nowhere"]);
    world.fails("generate -m ./nowhere", &["no file or directory ./nowhere", "ORG/NAME"]);
    world.fails("generate -m gpt-2", &["gpt-2", "gpt2-medium"]);
    world
        .fails("generate -m none/model.gguf", &["no file or directory none/model.gguf", "looks like a file"]);
    world.fails(
        "generate -m org/nome",
        &["no file or directory org/nome", "has no model `org/nome`", "HF_TOKEN"],
    );
    world.fails("generate -m org/name@x", &["no revision `x`"]);
    world.fails("eval --data a.txt -m m --offline -m org/name", &["cannot be used multiple times"]);
    world.fails("eval --data a.txt --offline -m org/name", &["not whole", "--offline"]);
    world.fails("tokenizer encode --tokenizer org/none", &["--tokenizer org/none", "no model"]);
    world.fails("train --data a.txt --out out --init org/none", &["--init org/none", "no model `org/none`"]);
    world.fails("pull nowhere", &["nowhere", "hf:nowhere"]);
    world.fails("pull ../x", &["../x"]);
    world.fails("rm ../hub", &["../hub"]);
    let mut command = world.command("pull org/name");
    command.env("GPT2_OFFLINE", "1");
    assert!(world.folder.finish(command, b"").stderr.contains("or not whole"));
    let mut command = world.command("pull org/name");
    command.env("HF_ENDPOINT", "http://127.0.0.1:9");
    let Finished { ok, stderr, .. } = world.folder.finish(command, b"");
    assert!(
        !ok && stderr.contains("cannot reach http://127.0.0.1:9") && stderr.contains("--offline"),
        "{stderr}"
    );
    world.server.state().corrupt = true;
    world.fails("pull org/name", &["model.safetensors was damaged on the way", "try again"]);
    world.server.state().refuse = Some((403, "GatedRepo"));
    world.fails("pull org/name", &["accepted its terms", "HF_TOKEN"]);
    world.server.state().refuse = Some((502, ""));
    world.fails("pull org/name", &["502"]);
}

/// What huggingface_hub has downloaded we find, and the other way round.
#[test]
fn the_cache_is_shared_with_python() {
    let Ok(python) = std::env::var("GPT2_PYTHON") else {
        eprintln!(
            "SKIPPED: GPT2_PYTHON does not name a Python with huggingface_hub, so the shared cache was not checked"
        );
        return;
    };
    let world = World::new();
    let names: Vec<&str> =
        world.files().iter().map(|file| file.name).filter(|name| *name != "rust_model.ot").collect();
    let script = |code: &str, offline: bool| {
        let mut command = Command::new(&python);
        command.arg("-c").arg(format!("import json, huggingface_hub as h\n{code}"));
        command.env("HF_HOME", world.folder.path("hf")).env("HF_ENDPOINT", &world.server.url);
        command.env("HF_HUB_OFFLINE", if offline { "1" } else { "0" }).env_remove("HF_HUB_CACHE");
        let Finished { ok, stdout, stderr } = world.folder.finish(command, b"");
        assert!(ok, "{code}\n{stderr}");
        stdout.trim().to_owned()
    };
    let scan = "i = h.scan_cache_dir()\nassert not i.warnings, i.warnings\n\
        print(json.dumps([[r.repo_id, v.commit_hash, sorted(v.refs), r.size_on_disk] for r in i.repos for v in r.revisions]))";

    // Theirs, ours.
    let files = serde_json::to_string(&names).unwrap();
    script(&format!("for f in {files}: h.hf_hub_download('org/name', f)"), false);
    let ours = world.succeeds("--offline pull org/name");
    assert_eq!(ours.trim(), script("print(h.snapshot_download('org/name'))", true));
    world.succeeds("generate --offline -m org/name -n 1");
    world.server.asked();
    world.succeeds("pull org/name");
    assert_eq!(world.server.asked().iter().filter(|asked| asked.elsewhere).count(), 0);
    world.succeeds("rm org/name");
    assert_eq!(script(scan, true), "[]");

    // Ours, theirs.
    let ours = world.succeeds("pull org/name");
    assert_eq!(ours.trim(), script("print(h.snapshot_download('org/name'))", true));
    let theirs = script("print(h.hf_hub_download('org/name', 'model.safetensors'))", true);
    assert_eq!(theirs, format!("{}/model.safetensors", ours.trim()));
    let scanned: Value = serde_json::from_str(&script(scan, true)).unwrap();
    let listed: Value = serde_json::from_str(&world.succeeds("ls --json")).unwrap();
    assert_eq!(scanned[0], serde_json::json!(["org/name", commit('a'), ["main"], listed[0]["size"]]));
    world.server.asked();
    script("h.hf_hub_download('org/name', 'model.safetensors')", false);
    assert!(world.server.asked().iter().all(|asked| !asked.elsewhere), "they do not download it again");
    world.server.asked();
    script("h.snapshot_download('org/name')", false);
    let taken = world.server.asked().into_iter().filter(|asked| asked.elsewhere).count();
    assert_eq!(taken, 1, "the whole repository: only what we left out");
}
