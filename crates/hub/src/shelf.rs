//! What is in the cache, and how it is taken out again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cache::{Cache, folder, has_weights, is_whole, kind, path};
use crate::hub::KINDS;
use crate::name::{is_commit, is_hex};
use crate::{HubError, Name, Result, Wanted};

/// How deep folders are looked into.
const DEEPEST: usize = 8;

/// A model in the cache that can be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cached {
    /// `org/name`.
    pub name: String,
    /// The commit.
    pub revision: String,
    /// Branches and tags that stood for it when it was downloaded.
    pub refs: Vec<String>,
    /// Bytes of its files; revisions may share some.
    pub size: u64,
    /// The directory, or the GGUF file.
    pub path: PathBuf,
    /// Whether nothing is missing.
    pub whole: bool,
}

/// What was taken out of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// `org/name`.
    pub name: String,
    /// The commits.
    pub revisions: Vec<String>,
    /// Bytes that are free again.
    pub freed: u64,
}

/// The models in the cache that can be run, by name.
pub(crate) fn list(cache: &Cache) -> Result<Vec<Cached>> {
    let mut found = Vec::new();
    for name in names(cache)? {
        let mut refs = refs(&cache.repo(&name));
        for commit in cache.commits(&name) {
            let dir = cache.snapshot(&name, &commit);
            let path = path(&dir);
            // Old models and adapters do not say their kind.
            let is_ours = kind(&dir).map_or_else(|| has_weights(&dir), |kind| KINDS.contains(&kind.as_str()));
            if !is_ours {
                continue;
            }
            let files = files(&dir);
            let size = files.iter().filter_map(|file| fs::metadata(file).ok()).map(|meta| meta.len()).sum();
            let whole = is_whole(&dir, Wanted::Model);
            let refs = refs.remove(&commit).unwrap_or_default();
            found.push(Cached { name: name.repo().to_owned(), revision: commit, refs, size, path, whole });
        }
    }
    found.sort_by(|a, b| (&a.name, &a.revision).cmp(&(&b.name, &b.revision)));
    Ok(found)
}

/// Removes a repository, or one revision with the files that no other revision has.
pub(crate) fn remove(cache: &Cache, name: &Name) -> Result<Removed> {
    let named = [Some(name.clone()), name.alias()].into_iter().flatten();
    let is_there = |name: &Name| match name.revision() {
        Some(_) => cache.commit(name).is_some_and(|commit| cache.snapshot(name, &commit).is_dir()),
        None => fs::symlink_metadata(cache.repo(name)).is_ok(),
    };
    let not_cached = || HubError::NotCached { name: name.to_string(), cache: cache.root.clone() };
    let name = named.into_iter().find(is_there).ok_or_else(not_cached)?;
    let repo = cache.repo(&name);
    if !fs::symlink_metadata(&repo).map_err(HubError::io(&repo))?.is_dir() {
        return Err(HubError::Link { path: repo });
    }
    refuse_busy(cache, &name)?;
    let all = cache.commits(&name);
    let (revisions, freed) = match name.revision().and_then(|_| cache.commit(&name)) {
        Some(commit) if all.iter().any(|other| *other != commit) => {
            let freed = remove_revision(cache, &name, &commit)?;
            (vec![commit], freed)
        }
        _ => {
            let freed = remove_repo(cache, &name)?;
            (all, freed)
        }
    };
    Ok(Removed { name: name.repo().to_owned(), revisions, freed })
}

fn remove_repo(cache: &Cache, name: &Name) -> Result<u64> {
    let repo = cache.repo(name);
    let mut freed = 0;
    for blob in files(&repo.join("blobs")) {
        freed += remove_blob(cache, &blob)?;
    }
    freed += files(&repo).iter().map(|file| own_size(file)).sum::<u64>();
    for dir in [&repo, &cache.locks(name)] {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(HubError::io(dir)(error)),
            _ => {}
        }
    }
    Ok(freed)
}

/// References first, the files last: what remains after a kill is only space that is not free yet.
fn remove_revision(cache: &Cache, name: &Name, commit: &str) -> Result<u64> {
    let repo = cache.repo(name);
    let dir = cache.snapshot(name, commit);
    let kept: BTreeSet<PathBuf> = cache
        .commits(name)
        .iter()
        .filter(|other| *other != commit)
        .flat_map(|other| blobs(cache, name, &cache.snapshot(name, other)))
        .collect();
    let blobs: BTreeSet<PathBuf> = blobs(cache, name, &dir).into_iter().collect();
    for reference in refs(&repo).remove(commit).unwrap_or_default() {
        let path = repo.join("refs").join(reference);
        fs::remove_file(&path).map_err(HubError::io(&path))?;
    }
    let mut freed = files(&dir).iter().map(|file| own_size(file)).sum();
    fs::remove_dir_all(&dir).map_err(HubError::io(&dir))?;
    _ = fs::remove_dir_all(repo.join(".no_exist").join(commit)); // what Python's library knows to be missing
    _ = fs::remove_file(repo.join("trees").join(format!("{commit}.json"))); // and its list of files
    for blob in blobs.difference(&kept) {
        freed += remove_blob(cache, blob)?;
    }
    Ok(freed)
}

/// Removes a blob, which may be a link into the store that Python's library shares among repositories.
fn remove_blob(cache: &Cache, blob: &Path) -> Result<u64> {
    let size = own_size(blob);
    let shared = shared(cache, blob);
    fs::remove_file(blob).map_err(HubError::io(blob))?;
    let Some(shared) = shared else { return Ok(size) };
    let lock = File::options().create(true).truncate(false).write(true).open(beside(&shared, ".lock"));
    let lock = lock.map_err(HubError::io(&shared))?;
    lock.lock().map_err(HubError::io(&shared))?;
    let repos = fs::read_dir(&cache.root).into_iter().flatten().flatten();
    let mut links = repos.flat_map(|repo| files(&repo.path().join("blobs")));
    if links.any(|link| self::shared(cache, &link).as_ref() == Some(&shared)) {
        return Ok(0);
    }
    let size = own_size(&shared);
    fs::remove_file(&shared).map_err(HubError::io(&shared))?;
    _ = fs::remove_file(beside(&shared, ".refs"));
    Ok(size)
}

/// The file of the shared store, `blobs/ab/ab…`, that a blob is a link to.
fn shared(cache: &Cache, blob: &Path) -> Option<PathBuf> {
    let store = cache.root.join("blobs");
    if !store.join(".huggingface-shared-blobs").is_file() || !fs::symlink_metadata(blob).ok()?.is_symlink() {
        return None;
    }
    let (target, store) = (blob.canonicalize().ok()?, store.canonicalize().ok()?);
    let name = target.file_name()?.to_str()?;
    let is_shared = name.len() == 64 && is_hex(name) && target == store.join(&name[..2]).join(name);
    is_shared.then_some(target)
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

/// Refuses to take away what is being downloaded.
fn refuse_busy(cache: &Cache, name: &Name) -> Result<()> {
    for path in files(&cache.locks(name)) {
        let file = File::options().write(true).open(&path).map_err(HubError::io(&path))?;
        if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) {
            return Err(HubError::Busy { name: name.to_string() });
        }
    }
    Ok(())
}

/// The repositories of the cache.
fn names(cache: &Cache) -> Result<Vec<Name>> {
    let entries = match fs::read_dir(&cache.root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(HubError::io(&cache.root)(error)),
    };
    let folders = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let name = |text: String| {
        let name = Name::of_repo(&text.strip_prefix("models--")?.replacen("--", "/", 1))?;
        (folder(&name) == text).then_some(name)
    };
    Ok(folders.filter_map(name).collect())
}

/// Branches and tags by the commit that they stand for.
fn refs(repo: &Path) -> BTreeMap<String, Vec<String>> {
    let root = repo.join("refs");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files(&root) {
        let name = file.strip_prefix(&root).ok().and_then(Path::to_str);
        let commit = fs::read_to_string(&file).ok().map(|text| text.trim().to_owned());
        if let (Some(name), Some(commit)) = (name, commit.filter(|commit| is_commit(commit))) {
            found.entry(commit).or_default().push(name.replace('\\', "/"));
        }
    }
    found.values_mut().for_each(|names| names.sort());
    found
}

/// The blobs of the repository that a snapshot links to.
fn blobs(cache: &Cache, name: &Name, dir: &Path) -> Vec<PathBuf> {
    let folder = cache.repo(name).join("blobs");
    let blob = |link: PathBuf| {
        let target = fs::read_link(link).ok()?;
        let is_ours = target.parent()?.file_name()? == "blobs";
        let blob = folder.join(target.file_name()?);
        (is_ours && fs::symlink_metadata(&blob).is_ok()).then_some(blob)
    };
    files(dir).into_iter().filter_map(blob).collect()
}

/// The files and links below a folder; links are not followed.
fn files(dir: &Path) -> Vec<PathBuf> {
    fn walk(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEEPEST => walk(&entry.path(), depth + 1, found),
                Ok(kind) if !kind.is_dir() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    if fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir()) {
        walk(dir, 0, &mut found);
    }
    found
}

/// Bytes of a file; a link has none.
fn own_size(file: &Path) -> u64 {
    fs::symlink_metadata(file).ok().filter(|meta| meta.is_file()).map_or(0, |meta| meta.len())
}
