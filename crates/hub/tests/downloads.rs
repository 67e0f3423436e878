//! Downloads from a server that speaks the hub's routes: whole ones, cut ones, damaged ones, refused ones.
#![forbid(unsafe_code)]

#[path = "common/server.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hub::{Event, Hub, HubError, Name, Snapshot, Wanted};
use server::{Asked, File, Server, commit, large, small};

const CONFIG: &str = r#"{"model_type": "gpt2", "n_layer": 1}"#;

/// A hub with one model, and an empty cache.
struct World {
    server: Server,
    home: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let world = World { server: Server::start(), home: tempfile::tempdir().unwrap() };
        world.server.add("org/name", "main", &commit('a'), &model());
        world
    }

    fn hub_with(&self, vars: &[(&str, &str)]) -> Hub {
        let hub = Hub::from_vars(|name| match name {
            "HF_HOME" => Some(self.home.path().into()),
            "HF_ENDPOINT" => Some(self.server.url.clone().into()),
            name => vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()),
        });
        hub.unwrap().with_patience(Duration::from_secs(3))
    }

    fn hub(&self) -> Hub {
        self.hub_with(&[])
    }

    fn get(&self, name: &str) -> Result<Snapshot, HubError> {
        self.hub().get(&parse(name), Wanted::Model, &mut |_| {})
    }

    fn pull(&self, name: &str) -> Result<Snapshot, HubError> {
        self.hub().pull(&parse(name), Wanted::Model, &mut |_| {})
    }

    fn repo(&self, folder: &str) -> PathBuf {
        self.home.path().join("hub").join(folder)
    }

    fn blob(&self, bytes: &[u8], end: &str) -> PathBuf {
        self.repo("models--org--name/blobs").join(server::sha256(bytes) + end)
    }

    /// Requests for large files.
    fn asked_elsewhere(&self) -> Vec<Asked> {
        self.server.asked().into_iter().filter(|asked| asked.elsewhere).collect()
    }
}

fn parse(name: &str) -> Name {
    Name::parse(name).unwrap()
}

/// Bytes of which no part is like another.
fn weights() -> Vec<u8> {
    (0..300_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn model() -> Vec<File> {
    vec![
        small(".gitattributes", "x"),
        small("README.md", "A model."),
        small("config.json", CONFIG),
        small("vocab.json", "{}"),
        small("merges.txt", "#version: 0.2\n"),
        large("model.safetensors", weights()),
        large("pytorch_model.bin", "not taken"),
        large("tf_model.h5", "not taken"),
        small("onnx/config.json", "not taken"),
    ]
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_model_is_downloaded_once() {
    let world = World::new();
    let mut at = Vec::new();
    let mut on = |event: Event| match event {
        Event::Start { bytes } => at.push(bytes),
        Event::At(bytes) => at.push(bytes),
        _ => {}
    };
    let got = world.hub().get(&parse("org/name"), Wanted::Model, &mut on).unwrap();
    let size = weights().len() as u64;
    assert_eq!(at[..2], [size, 0], "all, then none of it");
    assert!(at[1..].is_sorted() && at.last() == Some(&size), "{at:?}");
    assert_eq!((got.name.repo(), got.commit.as_str()), ("org/name", commit('a').as_str()));
    assert_eq!(got.downloaded, size + (CONFIG.len() + 2 + 14) as u64);
    assert_eq!(names(&got.path), ["config.json", "merges.txt", "model.safetensors", "vocab.json"]);
    assert_eq!(got.path, world.repo("models--org--name/snapshots").join(commit('a')));
    assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap(), weights());
    let refs = world.repo("models--org--name/refs/main");
    assert_eq!(fs::read_to_string(refs).unwrap(), commit('a'));
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(got.path.join("config.json")).unwrap(),
        Path::new("../../blobs").join(server::git_sha1(CONFIG.as_bytes()))
    );
    let left = names(&world.repo("models--org--name/blobs"));
    assert!(left.len() == 4 && left.iter().all(|name| !name.contains("incomplete")), "{left:?}");

    world.server.asked();
    let again = world.get("org/name").unwrap();
    assert_eq!((again.path, again.downloaded), (got.path.clone(), 0));
    assert_eq!(world.server.asked(), [], "the cache is not compared with the hub");
    assert_eq!(world.pull("org/name").unwrap().downloaded, 0);
    let asked = world.server.asked();
    assert_eq!(asked.len(), 1, "only the list: {asked:?}");
    let offline = world.hub_with(&[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(offline.pull(&parse("org/name"), Wanted::Model, &mut |_| {}).unwrap().path, got.path);
    assert_eq!(world.server.asked(), []);
}

#[test]
fn only_the_tokenizer_is_downloaded_where_only_that_is_wanted() {
    let world = World::new();
    let got = world.hub().get(&parse("org/name"), Wanted::Tokenizer, &mut |_| {}).unwrap();
    assert_eq!(names(&got.path), ["merges.txt", "vocab.json"]);
    let model = world.get("org/name").unwrap();
    assert_eq!(
        (model.path.clone(), names(&model.path).len()),
        (got.path, 4),
        "the rest comes when it is wanted"
    );
}

#[test]
fn moved_models_are_found_under_both_names() {
    let world = World::new();
    world.server.add("openai-community/gpt2", "main", &commit('b'), &model());
    world.server.state().moved.insert("gpt2".into(), "openai-community/gpt2".into());
    let got = world.get("gpt2").unwrap();
    assert!(got.path.starts_with(world.repo("models--gpt2")), "as Python's library keeps it: {:?}", got.path);
    world.server.asked();
    assert_eq!(world.get("openai-community/gpt2").unwrap().path, got.path);
    let other = World::new();
    other.server.add("openai-community/gpt2", "main", &commit('b'), &model());
    let long = other.get("openai-community/gpt2").unwrap();
    assert_eq!(other.get("gpt2").unwrap().path, long.path);
    assert_eq!(world.server.asked(), []);
}

#[test]
fn revisions() {
    let world = World::new();
    let other = [small("config.json", CONFIG), small("vocab.txt", "a"), large("model.safetensors", "other")];
    world.server.add("org/name", "refs/pr/1", &commit('b'), &other);
    let branch = world.get("org/name@refs/pr/1").unwrap();
    assert_eq!(branch.commit, commit('b'));
    assert_eq!(fs::read(branch.path.join("model.safetensors")).unwrap(), b"other");
    let whole = world.get(&format!("org/name@{}", commit('a'))).unwrap();
    assert_eq!(whole.commit, commit('a'));
    assert_eq!(names(&world.repo("models--org--name/refs")), ["refs"], "a commit needs no reference");
    world.server.asked();
    assert_eq!(world.get("org/name@bbbbbbb").unwrap().path, branch.path, "a short commit, in the cache");
    assert_eq!(world.get("org/name@refs/pr/1").unwrap().path, branch.path);
    assert_eq!(world.server.asked(), []);
    let error = world.get("org/name@none").unwrap_err();
    assert!(matches!(&error, HubError::NoRevision { revision, .. } if revision == "none"), "{error}");
}

#[test]
fn a_branch_that_moved_is_followed_when_asked_to() {
    let world = World::new();
    let old = world.get("org/name").unwrap();
    let mut files = model();
    files[3].bytes = b"{\"a\": 0}".to_vec();
    world.server.add("org/name", "main", &commit('c'), &files);
    assert_eq!(world.get("org/name").unwrap().path, old.path);
    let new = world.pull("org/name").unwrap();
    assert_eq!((new.commit.as_str(), new.downloaded), (commit('c').as_str(), 8), "only what changed");
    assert_eq!(world.get("org/name").unwrap().path, new.path);
    assert!(old.path.join("model.safetensors").exists());
}

#[test]
fn weights_in_several_files() {
    let world = World::new();
    let index = r#"{"weight_map": {"wte.weight": "w-1.safetensors", "ln_f.bias": "w-2.safetensors"}}"#;
    let mut files = vec![
        small("config.json", CONFIG),
        small("tokenizer.json", "{}"),
        small("model.safetensors.index.json", index),
        large("w-1.safetensors", "one"),
        large("w-2.safetensors", "two"),
        large("w-3.safetensors", "not listed"),
    ];
    world.server.add("org/shards", "main", &commit('b'), &files);
    let got = world.get("org/shards").unwrap();
    let want = [
        "config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "w-1.safetensors",
        "w-2.safetensors",
    ];
    assert_eq!(names(&got.path), want);
    fs::remove_file(got.path.join("w-2.safetensors")).unwrap();
    assert_eq!(world.get("org/shards").unwrap().downloaded, 0, "it is linked again, from the blobs");
    assert!(got.path.join("w-2.safetensors").exists());

    files[2].bytes = index.replace("w-2", "../../../x").into_bytes();
    world.server.add("org/hostile", "main", &commit('c'), &files);
    let error = world.get("org/hostile").unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }) && error.to_string().contains("../../../x"), "{error}");
    files[2].bytes = index.replace("w-2", "w-9").into_bytes();
    world.server.add("org/missing", "main", &commit('d'), &files);
    assert!(world.get("org/missing").unwrap_err().to_string().contains("w-9.safetensors"));
}

#[test]
fn other_kinds_of_weights() {
    let world = World::new();
    let add = |repo: &str, files: &[File]| world.server.add(repo, "main", &commit('b'), files);
    add("org/bin", &[small("config.json", CONFIG), small("vocab.txt", "a"), large("pytorch_model.bin", "b")]);
    assert_eq!(names(&world.get("org/bin").unwrap().path), ["config.json", "pytorch_model.bin", "vocab.txt"]);
    add("org/gguf", &[small("README.md", ""), large("m.gguf", "g")]);
    let path = world.get("org/gguf").unwrap().path;
    assert!(path.ends_with("m.gguf") && fs::read(path).unwrap() == b"g");
    add("org/adapter", &[small("adapter_config.json", "{}"), large("adapter_model.safetensors", "l")]);
    assert_eq!(
        names(&world.get("org/adapter").unwrap().path),
        ["adapter_config.json", "adapter_model.safetensors"]
    );
    add("org/several", &[large("m.gguf", "g"), large("n.gguf", "h")]);
    let error = world.get("org/several").unwrap_err().to_string();
    assert!(error.contains("m.gguf, n.gguf") && error.contains("/org/several/resolve/"), "{error}");
    add("org/none", &[small("config.json", CONFIG), large("tf_model.h5", "t")]);
    assert!(matches!(world.get("org/none"), Err(HubError::NoWeights { .. })));
    world.server.asked();
    add(
        "org/llama",
        &[small("config.json", r#"{"model_type": "llama"}"#), large("model.safetensors", "big")],
    );
    assert!(matches!(world.get("org/llama"), Err(HubError::OtherKind { kind, .. }) if kind == "llama"));
    assert_eq!(world.asked_elsewhere(), [], "its weights are not downloaded");
}

#[test]
fn a_cut_download_goes_on_where_it_was() {
    let world = World::new();
    world.server.state().cuts = vec![1000, 70_000, 0];
    let mut cuts = 0;
    let mut on = |event: Event| cuts += usize::from(matches!(event, Event::Cut { .. }));
    let got = world.hub().get(&parse("org/name"), Wanted::Model, &mut on).unwrap();
    assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap(), weights());
    assert_eq!(cuts, 3);
    let ranges: Vec<_> = world.asked_elsewhere().into_iter().map(|asked| asked.range).collect();
    let from = |start: usize| Some(format!("bytes={start}-"));
    assert_eq!(ranges, [None, from(1000), from(71_000), from(71_000)]);
    assert_eq!(got.downloaded, (weights().len() + CONFIG.len() + 2 + 14) as u64, "no byte came twice");
}

#[test]
fn what_an_earlier_run_left_is_taken_up() {
    let world = World::new();
    world.server.state().cuts = vec![5000, 0, 0, 0, 0, 0];
    let error = world.get("org/name").unwrap_err();
    assert!(matches!(error, HubError::Cut { at: 5000, .. }), "{error}");
    assert!(!world.repo("models--org--name/refs/main").exists());
    let partial = world.blob(&weights(), ".incomplete");
    assert_eq!(fs::read(&partial).unwrap(), weights()[..5000]);
    let offline =
        world.hub_with(&[("HF_HUB_OFFLINE", "1")]).get(&parse("org/name"), Wanted::Model, &mut |_| {});
    assert!(matches!(offline, Err(HubError::Offline { .. })), "a part of a model is none");
    world.server.asked();
    let got = world.get("org/name").unwrap();
    assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap(), weights());
    assert_eq!(got.downloaded, weights().len() as u64 - 5000);
    assert_eq!(world.asked_elsewhere()[0].range.as_deref(), Some("bytes=5000-"));
    assert!(!partial.exists());
}

#[test]
fn a_whole_but_unchecked_file_is_checked_and_an_odd_one_is_not_trusted() {
    for (left, wanted) in [(weights(), 0), ([&weights()[..], b"more"].concat(), 1)] {
        let world = World::new();
        let partial = world.blob(&weights(), ".incomplete");
        fs::create_dir_all(partial.parent().unwrap()).unwrap();
        fs::write(&partial, left).unwrap();
        let got = world.get("org/name").unwrap();
        assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap(), weights());
        assert_eq!(world.asked_elsewhere().len(), wanted);
    }
}

#[test]
#[cfg(unix)]
fn a_planted_link_is_not_written_through() {
    let world = World::new();
    let outside = world.home.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    let partial = world.blob(&weights(), ".incomplete");
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&outside, &partial).unwrap();
    let got = world.get("org/name").unwrap();
    assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read(outside).unwrap(), b"mine");
}

#[test]
fn a_server_without_ranges_starts_again() {
    let world = World::new();
    world.server.state().no_ranges = true;
    world.server.state().cuts = vec![400_000];
    let got = world.get("org/name").unwrap();
    assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn a_silent_server_is_asked_again() {
    let world = World::new();
    world.server.state().stall = true;
    let hub = world.hub().with_patience(Duration::from_millis(300));
    let got = hub.get(&parse("org/name"), Wanted::Model, &mut |_| {}).unwrap();
    assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap(), weights());
    let half = format!("bytes={}-", weights().len() / 2);
    assert_eq!(world.asked_elsewhere()[1].range, Some(half));
}

#[test]
fn a_wrong_checksum_is_an_error_and_leaves_nothing() {
    let world = World::new();
    world.server.state().corrupt = true;
    let error = world.get("org/name").unwrap_err();
    assert!(matches!(&error, HubError::Checksum { file, .. } if file == "model.safetensors"), "{error}");
    let left = names(&world.repo("models--org--name/blobs"));
    assert_eq!(left.len(), 3, "only the small files: {left:?}");
    world.server.state().corrupt = false;
    world.get("org/name").unwrap();

    let small = World::new();
    small.server.state().etag = Some("0123456789012345678901234567890123456789");
    assert!(matches!(small.get("org/name"), Err(HubError::Checksum { file, .. }) if file == "config.json"));
}

#[test]
fn etags_that_are_no_checksums_are_said_and_hostile_ones_refused() {
    let world = World::new();
    world.server.add("org/one", "main", &commit('b'), &[small("tokenizer.json", "{}")]);
    world.server.state().etag = Some("5f-61a");
    let mut unchecked = Vec::new();
    let mut on = |event: Event| {
        if let Event::Unchecked { file } = event {
            unchecked.push(file.to_owned());
        }
    };
    let got = world.hub().get(&parse("org/one"), Wanted::Tokenizer, &mut on).unwrap();
    assert_eq!(fs::read(got.path.join("tokenizer.json")).unwrap(), b"{}");
    assert_eq!(unchecked, ["tokenizer.json"]);
    for hostile in ["../../../../x", "/x", "..", "", "a b"] {
        let world = World::new();
        world.server.state().etag = Some(hostile);
        assert!(matches!(world.get("org/name"), Err(HubError::Answer { .. })), "{hostile:?}");
        assert_eq!(names(world.home.path()), [] as [&str; 0], "{hostile:?}");
    }
}

#[test]
fn the_token_is_sent_to_the_hub_alone() {
    let world = World::new();
    world.server.state().wants_token = Some("hf_secret");
    assert!(matches!(world.get("org/name"), Err(HubError::NoModel { .. })));
    let hub = world.hub_with(&[("HF_TOKEN", "hf_secret\n")]);
    world.server.asked();
    hub.get(&parse("org/name"), Wanted::Model, &mut |_| {}).unwrap();
    let asked = world.server.asked();
    let (elsewhere, here): (Vec<_>, Vec<_>) = asked.into_iter().partition(|asked| asked.elsewhere);
    assert!(here.len() > 4 && here.iter().all(|asked| asked.token.as_deref() == Some("Bearer hf_secret")));
    assert!(!elsewhere.is_empty() && elsewhere.iter().all(|asked| asked.token.is_none()), "{elsewhere:?}");
    assert!(!format!("{hub:?}").contains("hf_secret"));
}

#[test]
fn refusals_say_what_to_do() {
    let world = World::new();
    let fails = |refuse: (u16, &'static str), token: &str, parts: &[&str]| {
        world.server.state().refuse = Some(refuse);
        let hub = world.hub_with(&[("HF_TOKEN", token)]);
        let error = hub.get(&parse("org/name"), Wanted::Model, &mut |_| {}).unwrap_err().to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{refuse:?}: {error}"));
    };
    fails((401, "RepoNotFound"), "", &["no model `org/name`", "private", "HF_TOKEN"]);
    fails((404, "RepoNotFound"), "t", &["no model `org/name`"]);
    fails((401, ""), "t", &["does not accept the token"]);
    fails((401, "GatedRepo"), "", &["terms", "/org/name", "HF_TOKEN"]);
    fails((403, "GatedRepo"), "t", &["terms"]);
    fails((403, ""), "", &["terms"]);
    fails((404, "RevisionNotFound"), "", &["no revision `main`"]);
    fails((500, ""), "", &["500", "no, for a test", "HF_ENDPOINT"]);
    fails((503, ""), "", &["503", "later"]);
    fails((429, ""), "", &["429", "wait"]);
    fails((418, ""), "", &["418"]);
    world.server.state().refuse = None;
    let error = world.get("org/gpt3").unwrap_err().to_string();
    assert!(error.contains("gpt2-medium") && error.contains("gpt2-xl"), "near names: {error}");
    assert_eq!(names(world.home.path()), [] as [&str; 0], "what was refused leaves nothing");
}

#[test]
fn answers_that_are_not_the_hubs() {
    let world = World::new();
    let good = commit('a');
    let lists = [
        "".to_owned(),
        "<html>Log in</html>".to_owned(),
        "{}".to_owned(),
        r#"{"sha": 1, "siblings": []}"#.to_owned(),
        r#"{"sha": "main", "siblings": []}"#.to_owned(),
        r#"{"sha": "../../../../etc", "siblings": []}"#.to_owned(),
        format!(r#"{{"sha": "{good}", "siblings": [{{"name": 1}}]}}"#),
        "[".repeat(100_000),
    ];
    for list in lists {
        world.server.state().list = Some(list.clone());
        let error = world.get("org/name").unwrap_err();
        assert!(matches!(error, HubError::Answer { .. }), "{}: {error}", &list[..list.len().min(60)]);
    }
    for file in ["../../../x.gguf", "/x.gguf", "..\\\\x.gguf", "a/../../x.gguf"] {
        let list = format!(r#"{{"sha": "{good}", "siblings": [{{"rfilename": "{file}"}}]}}"#);
        world.server.state().list = Some(list);
        assert!(matches!(world.get("org/name"), Err(HubError::HostileName { .. })), "{file}");
    }
    assert_eq!(names(world.home.path()), [] as [&str; 0]);
}

#[test]
fn redirects_that_lead_nowhere() {
    let world = World::new();
    let around = format!("{}/org/name/resolve/{}/model.safetensors", world.server.url, commit('a'));
    for location in ["ftp://x/y", &around, "mailto:x@y"] {
        world.server.state().location = Some(location.to_owned());
        let error = world.get("org/name").unwrap_err();
        assert!(matches!(error, HubError::Answer { .. }), "{location}: {error}");
    }
}

#[test]
fn a_mirror_that_only_redirects() {
    let world = World::new();
    world.server.state().silent = true;
    let hub = world.hub_with(&[("HF_TOKEN", "hf_secret")]);
    let got = hub.get(&parse("org/name"), Wanted::Model, &mut |_| {}).unwrap();
    assert_eq!(fs::read(got.path.join("model.safetensors")).unwrap(), weights());
    let elsewhere = world.asked_elsewhere();
    assert_eq!(elsewhere.iter().map(|asked| asked.method.as_str()).collect::<Vec<_>>(), ["HEAD", "GET"]);
    assert!(elsewhere.iter().all(|asked| asked.token.is_none()));
}

#[test]
fn sizes_that_are_not_true() {
    let world = World::new();
    for size in ["18446744073709551615", "-1", "", "x", "1e9"] {
        world.server.state().size = Some(size);
        let error = world.get("org/name").unwrap_err();
        assert!(matches!(error, HubError::Answer { .. }), "{size}: {error}");
    }
    for size in ["4000000000000", "10", "0"] {
        world.server.state().size = Some(size);
        let error = world.get("org/name").unwrap_err();
        assert!(matches!(error, HubError::Answer { .. } | HubError::Checksum { .. }), "{size}: {error}");
    }
    world.server.state().size = None;
    world.get("org/name").unwrap();
}

#[test]
fn nothing_that_a_server_says_moves_the_cursor() {
    let world = World::new();
    let long = "x".repeat(10_000);
    let list = serde_json::json!({ "sha": format!("\u{1b}[2J{long}"), "siblings": [] }).to_string();
    world.server.state().list = Some(list);
    let error = world.get("org/name").unwrap_err().to_string();
    assert!(error.len() < 1000 && !error.chars().any(char::is_control), "{error:?}");
}

#[test]
fn without_a_network_the_cache_is_enough() {
    let world = World::new();
    let got = world.get("org/name").unwrap();
    // A port of which nobody listens.
    let url = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hub = Hub::from_vars(|name| match name {
        "HF_HOME" => Some(world.home.path().into()),
        "HF_ENDPOINT" => Some(format!("http://{url}").into()),
        _ => None,
    })
    .unwrap();
    assert_eq!(hub.get(&parse("org/name"), Wanted::Model, &mut |_| {}).unwrap().path, got.path);
    let error = hub.get(&parse("org/other"), Wanted::Model, &mut |_| {}).unwrap_err().to_string();
    for part in [&url.to_string(), "HF_ENDPOINT", "HTTPS_PROXY", "--offline", "model.safetensors"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // Python's libraries may have left out the tokenizer; then there is no better one.
    fs::remove_file(got.path.join("vocab.json")).unwrap();
    assert_eq!(hub.get(&parse("org/name"), Wanted::Model, &mut |_| {}).unwrap().path, got.path);
    let offline = hub.with_offline(true);
    assert_eq!(offline.get(&parse("org/name"), Wanted::Model, &mut |_| {}).unwrap().path, got.path);
    let error = offline.get(&parse("org/other"), Wanted::Model, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("org/other") && error.contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn two_downloads_at_once_are_one() {
    let world = World::new();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| world.get("org/name").unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.iter().all(|got| got.path == results[0].path));
    assert_eq!(fs::read(results[0].path.join("model.safetensors")).unwrap(), weights());
    assert_eq!(world.asked_elsewhere().len(), 1, "the weights came once");
}

#[test]
fn models_are_listed_and_removed() {
    let world = World::new();
    world.get("org/name").unwrap();
    let mut files = model();
    files[3].bytes = b"{\"a\": 0}".to_vec();
    world.server.add("org/name", "next", &commit('c'), &files);
    world.get("org/name@next").unwrap();
    world.server.add("org/gguf", "main", &commit('d'), &[large("m.gguf", "12345")]);
    world.get("org/gguf").unwrap();
    world.server.add("org/other", "main", &commit('e'), &[small("tokenizer.json", "{}")]);
    world.hub().get(&parse("org/other"), Wanted::Tokenizer, &mut |_| {}).unwrap();
    let hub = world.hub();
    let list = hub.list().unwrap();
    let lines: Vec<_> =
        list.iter().map(|one| (one.name.as_str(), &one.revision[..1], &one.refs[..], one.whole)).collect();
    let refs = |name: &str| [name.to_owned()];
    assert_eq!(
        lines,
        [
            ("org/gguf", "d", &refs("main")[..], true),
            ("org/name", "a", &refs("main")[..], true),
            ("org/name", "c", &refs("next")[..], true)
        ]
    );
    assert_eq!(list[0].size, 5);
    assert!(list[0].path.ends_with("m.gguf") && list[1].path.is_dir());
    assert_eq!(list[1].size, (weights().len() + CONFIG.len() + 2 + 14) as u64);

    let one = hub.remove(&parse("org/name@next")).unwrap();
    assert_eq!((one.revisions, one.freed), (vec![commit('c')], 8), "what the other revision uses stays");
    assert!(world.get("org/name").unwrap().downloaded == 0);
    assert!(matches!(hub.remove(&parse("org/name@next")), Err(HubError::NotCached { .. })));
    let all = hub.remove(&parse("org/name")).unwrap();
    assert_eq!((all.revisions.len(), all.freed), (1, list[1].size + 40), "and the reference");
    assert_eq!(names(&world.repo("")), [".locks", "models--org--gguf", "models--org--other"]);
    assert_eq!(names(&world.repo(".locks")), ["models--org--gguf", "models--org--other"]);
    assert_eq!(hub.list().unwrap().len(), 1);
}

#[test]
#[cfg(unix)]
fn removing_stays_inside_the_cache() {
    let world = World::new();
    let got = world.get("org/name").unwrap();
    let outside = world.home.path().join("outside");
    fs::create_dir_all(outside.join("blobs")).unwrap();
    fs::write(outside.join("blobs/x"), "mine").unwrap();
    std::os::unix::fs::symlink(&outside, world.repo("models--org--linked")).unwrap();
    std::os::unix::fs::symlink(outside.join("blobs/x"), got.path.join("extra")).unwrap();
    std::os::unix::fs::symlink(&outside, got.path.join("folder")).unwrap();
    world.server.add("org/name", "next", &commit('c'), &model());
    world.get("org/name@next").unwrap();
    assert!(matches!(world.hub().remove(&parse("org/linked")), Err(HubError::Link { .. })));
    world.hub().remove(&parse("org/name@main")).unwrap();
    world.hub().remove(&parse("org/name")).unwrap();
    assert_eq!(fs::read(outside.join("blobs/x")).unwrap(), b"mine");
    assert!(matches!(world.hub().remove(&parse("org/name")), Err(HubError::NotCached { .. })));
}

#[test]
fn what_is_being_downloaded_is_not_removed() {
    let world = World::new();
    world.get("org/name").unwrap();
    let lock = world.repo(".locks/models--org--name").join(server::sha256(&weights()) + ".lock");
    let held = fs::File::open(lock).unwrap();
    held.lock().unwrap();
    assert!(matches!(world.hub().remove(&parse("org/name")), Err(HubError::Busy { .. })));
    drop(held);
    world.hub().remove(&parse("org/name")).unwrap();
}

/// Python's library keeps what it downloads through its own protocol in a store for all repositories.
#[test]
#[cfg(unix)]
fn files_of_the_shared_store_go_with_their_last_user() {
    let world = World::new();
    world.server.add("org/twin", "main", &commit('b'), &model());
    world.get("org/name").unwrap();
    world.get("org/twin").unwrap();
    let (sha256, hash) = (server::sha256(&weights()), "0f".repeat(32));
    let store = world.repo("blobs/0f");
    fs::create_dir_all(&store).unwrap();
    fs::write(world.repo("blobs/.huggingface-shared-blobs"), "1\n").unwrap();
    fs::write(store.join(&hash), weights()).unwrap();
    fs::write(store.join(format!("{hash}.refs")), "").unwrap();
    for repo in ["models--org--name", "models--org--twin"] {
        let blob = world.repo(repo).join("blobs").join(&sha256);
        fs::remove_file(&blob).unwrap();
        std::os::unix::fs::symlink(Path::new("../../blobs/0f").join(&hash), &blob).unwrap();
    }
    let size = weights().len() as u64;
    assert!(world.hub().list().unwrap().iter().all(|one| one.whole && one.size > size));
    assert!(world.hub().remove(&parse("org/name")).unwrap().freed < 1000);
    assert!(store.join(&hash).exists());
    assert!(world.hub().remove(&parse("org/twin")).unwrap().freed > size);
    assert!(!store.join(&hash).exists() && !store.join(format!("{hash}.refs")).exists());
}
