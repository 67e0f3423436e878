//! The files of `deploy/`: each is held to the program that reads it, where that is there, and to the binary.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::server::Server;
use common::{Folder, TINY, text};

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A server with a model that is made in a moment.
fn serve(flags: &str) -> (Folder, Server) {
    let folder = Folder::new();
    folder.write("fox.txt", text());
    folder.succeeds(&format!(
        "train --data fox.txt --val-fraction 0 --tokenizer bpe:257 {TINY} --max-steps 1 --out m"
    ));
    let server = Server::start(&folder, flags);
    (folder, server)
}

#[test]
fn systemd_takes_the_unit() {
    let unit = read("gpt2.service");
    // It looks whether the program is there.
    let here = unit.replace("/usr/local/bin/gpt2", env!("CARGO_BIN_EXE_gpt2"));
    assert_ne!(unit, here);
    let folder = Folder::new();
    folder.write("gpt2.service", here);
    let path = folder.path("gpt2.service");
    let Ok(verified) = Command::new("systemd-analyze").arg("verify").arg(&path).output() else {
        eprintln!("SKIPPED: there is no systemd-analyze to verify deploy/gpt2.service with");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && !said.contains("gpt2.service"), "{said}");
    let drain: u64 = 30; // --drain-seconds
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    assert!(stop.parse::<u64>().unwrap() > drain);
}

#[test]
fn kubernetes_takes_the_manifests() {
    let Some(validate) = std::env::var_os("GPT2_KUBERNETES_VALIDATE") else {
        eprintln!(
            "SKIPPED: GPT2_KUBERNETES_VALIDATE names no kubernetes-validate to check deploy/kubernetes with"
        );
        return;
    };
    let mut files: Vec<_> =
        fs::read_dir(deploy("kubernetes")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 4);
    let checked = Command::new(validate).arg("--strict").args(&files).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    assert_eq!(said.matches(" passed ").count(), files.len(), "{said}");
}

#[test]
fn flags_in_the_manifests_are_flags_of_the_binary() {
    let help = Folder::new().succeeds("serve --help");
    let known: BTreeSet<&str> = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
    let manifest = read("kubernetes/deployment.yaml");
    let flags = manifest.lines().filter_map(|line| line.trim().strip_prefix("- --"));
    let flags: Vec<&str> = flags.map(|flag| flag.split('=').next().unwrap()).collect();
    assert!(flags.len() >= 5);
    for flag in &flags {
        assert!(known.contains(&*format!("--{flag}")), "--{flag}");
    }
    let variables = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
        words.filter_map(|word| word.strip_prefix("GPT2_")).map(str::to_owned).collect()
    };
    for name in variables(&read("Dockerfile")).iter().chain(&variables(&read("gpt2.service"))) {
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        assert!(name.is_empty() || known.contains(&*flag), "GPT2_{name}");
    }
    // Kubernetes waits for the pause, for the requests that run, and a little longer.
    let number = |text: &str| -> u64 {
        let at = manifest.find(text).unwrap_or_else(|| panic!("{text}")) + text.len();
        manifest[at..].split_whitespace().next().unwrap().parse().unwrap()
    };
    let (grace, pause) = (number("terminationGracePeriodSeconds: "), number("seconds: "));
    assert!(grace > pause + number("--drain-seconds="), "{grace} {pause}");
}

#[test]
fn gateways_find_what_they_scale_by() {
    let (_folder, server) = serve("-m m");
    let metrics = server.get("/metrics").body;
    let adapter = read("prometheus-adapter.yaml");
    let series = adapter.split("__name__=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(metrics.contains(&format!("\n{series}{{model_name=\"m\"}} 0")), "{series} in {metrics}");
    let renamed = series.replace(':', "_");
    assert!(read("kubernetes/hpa.yaml").contains(&format!("name: {renamed}\n")), "{renamed}");
}

#[test]
fn the_image_sees_whether_it_is_healthy() {
    let file = read("Dockerfile");
    let line = file.lines().find(|line| line.starts_with("HEALTHCHECK")).unwrap();
    let words: Vec<String> = serde_json::from_str(line.split_once(" CMD ").unwrap().1).unwrap();
    let (_folder, server) = serve("-m m");
    let port = server.address().rsplit(':').next().unwrap().to_owned();
    let check = |port: &str| {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("GPT2_PORT", port).output().map(|output| output.status.success())
    };
    let Ok(healthy) = check(&port) else {
        eprintln!("SKIPPED: there is no {} for the Dockerfile's HEALTHCHECK", words[0]);
        return;
    };
    assert!(healthy);
    drop(server);
    assert!(!check(&port).unwrap(), "nobody is there");
}
