//! What was fetched from the registry, on disk.
//!
//! ```text
//!  ROOT/NAME/.partial-…             being fetched; renamed when whole, removed when not
//!  ROOT/NAME/7-3f9a…/               version 7 of one server: the bundle, and .fraud-scorer.json that says what it is
//!  ROOT/NAME/champion.alias.json    which of them the alias last led to, for a start without the server
//! ```
//!
//! A directory's name has a hash of server, number and time of registration, so that two servers' versions 7 are two.
//! What lies there is believed only where all files have the hashes that were noted when they came. Several processes
//! may share a cache: what is visible is whole, and the first one to publish a version wins.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::RegistryError;
use super::answers::ModelVersion;
use super::artifact::Fetched;
use crate::digest::sha256;
use crate::log_events;
use crate::model::source::{Pointer, RegisteredModel};

/// How many versions of a model are kept; older ones are removed, those in use are not.
const KEPT: usize = 5;

/// What says where a directory came from, within it.
const RECORD: &str = ".fraud-scorer.json";

/// Beginning of the names of what is being fetched.
const PARTIAL: &str = ".partial-";

/// What is still partial after this time has been left behind by a process that died.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// The cache.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// Where a directory came from and what is in it.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    server: String,
    name: String,
    version: String,
    created: i64,
    files: Vec<Fetched>,
}

/// Where an alias led.
#[derive(Debug, Serialize, Deserialize)]
struct Pointed {
    server: String,
    version: String,
    created: i64,
}

impl Cache {
    /// The cache at `directory`, or at the default place: `$XDG_CACHE_HOME` or `~/.cache`, and where these cannot be
    /// written (a container with a read-only root), a directory of this user's among the temporary files.
    ///
    /// # Errors
    /// [`RegistryError::Cache`] where it cannot be written.
    pub fn open(directory: Option<PathBuf>) -> Result<Cache, RegistryError> {
        if let Some(root) = directory {
            return writable(&root).map(|()| Cache { root: root.clone() }).map_err(|source| at(&root, source));
        }
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(root) = default_root(variable("XDG_CACHE_HOME"), variable("HOME")) {
            match writable(&root) {
                Ok(()) => return Ok(Cache { root }),
                Err(error) => {
                    log_events::model::CacheElsewhere { directory: &root.display(), error: &error }.log();
                }
            }
        }
        let root = private_directory(&std::env::temp_dir()).map_err(|source| at(&std::env::temp_dir(), source))?;
        Ok(Cache { root })
    }

    /// The directory of a version that was fetched and is as it came. What is not is removed.
    pub(super) fn find(&self, server: &str, version: &ModelVersion) -> Option<PathBuf> {
        let directory = self.directory(server, version);
        if !directory.is_dir() {
            return None;
        }
        match verify(&directory) {
            Ok(()) => {
                touch(&directory);
                Some(directory)
            }
            Err(reason) => {
                log_events::model::CachedModelSpoiled { directory: &directory.display(), reason: &reason }.log();
                self.discard(&directory);
                None
            }
        }
    }

    /// An empty directory to fetch `version` into.
    pub(super) fn begin(&self, version: &ModelVersion) -> Result<Partial<'_>, RegistryError> {
        let folder = self.folder(&version.name);
        let path = folder.join(format!("{PARTIAL}{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir_all(&path).map_err(|source| at(&path, source))?;
        Ok(Partial { cache: self, path })
    }

    /// Removes a directory of the cache.
    pub(super) fn discard(&self, directory: &Path) {
        if !directory.starts_with(&self.root) {
            return;
        }
        // Renamed first: nobody shall find half of it.
        let gone = directory.with_file_name(format!("{PARTIAL}{}", uuid::Uuid::new_v4().simple()));
        let removed = fs::rename(directory, &gone).and_then(|()| fs::remove_dir_all(&gone));
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            log_events::model::CacheNotRemoved { directory: &directory.display(), error: &error }.log();
        }
    }

    /// Notes that `model` led to `version`, and serves.
    pub(super) fn point(
        &self,
        server: &str,
        model: &RegisteredModel,
        version: &ModelVersion,
    ) -> Result<(), RegistryError> {
        let path = self.pointer(model);
        let pointed = Pointed { server: server.into(), version: version.version.clone(), created: version.created };
        write_whole(&path, &pointed).map_err(|source| at(&path, source))
    }

    /// The version that `model` last led to, where it is still here.
    pub(super) fn pointed(&self, server: &str, model: &RegisteredModel) -> Option<(ModelVersion, PathBuf)> {
        let pointed: Pointed = read(&self.pointer(model)).ok()?;
        let version = ModelVersion { name: model.name.clone(), version: pointed.version, created: pointed.created };
        if pointed.server != server {
            return None;
        }
        self.find(server, &version).map(|directory| (version, directory))
    }

    /// Removes old versions of `name`: all but the last few used, `in_use`, and what an alias here leads to.
    pub(super) fn prune(&self, name: &str, in_use: &[PathBuf]) {
        let folder = self.folder(name);
        let Ok(entries) = fs::read_dir(&folder) else { return };
        let (mut versions, mut keep) = (Vec::new(), in_use.to_vec());
        for entry in entries.flatten() {
            let (path, file) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if file.starts_with(PARTIAL) {
                let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
                if age.is_some_and(|age| age > ABANDONED) {
                    let _ = fs::remove_dir_all(&path);
                }
            } else if file.ends_with(".json") {
                if let Ok(Pointed { server, version, created }) = read(&path) {
                    keep.push(self.directory(&server, &ModelVersion { name: name.into(), version, created }));
                }
            } else if let Ok(used) = fs::metadata(path.join(RECORD)).and_then(|data| data.modified()) {
                versions.push((used, path));
            }
        }
        versions.sort();
        let surplus = versions.len().saturating_sub(KEPT);
        for (_, path) in versions.into_iter().take(surplus).filter(|(_, path)| !keep.contains(path)) {
            log_events::model::CachePruned { directory: &path.display() }.log();
            self.discard(&path);
        }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.root.join(file_name(name))
    }

    fn directory(&self, server: &str, version: &ModelVersion) -> PathBuf {
        let identity = format!("{server}\n{}\n{}\n{}", version.name, version.version, version.created);
        let hash = &sha256(identity.as_bytes())[..16];
        self.folder(&version.name).join(format!("{}-{hash}", file_name(&version.version)))
    }

    fn pointer(&self, model: &RegisteredModel) -> PathBuf {
        let kind = match model.pointer {
            Pointer::Alias(_) => "alias",
            Pointer::Version(_) => "version",
        };
        self.folder(&model.name).join(format!("{}.{kind}.json", file_name(model.pointer.text())))
    }
}

/// A directory that is being filled; removed unless it is published.
pub(super) struct Partial<'a> {
    cache: &'a Cache,
    path: PathBuf,
}

impl Partial<'_> {
    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it visible under its name; where another process was first, theirs is taken.
    pub(super) fn publish(
        self,
        server: &str,
        version: &ModelVersion,
        mut files: Vec<Fetched>,
    ) -> Result<PathBuf, RegistryError> {
        files.retain(|file| file.path != RECORD);
        let ModelVersion { name, version: number, created } = version.clone();
        let record = Record { server: server.into(), name, version: number, created, files };
        write_whole(&self.path.join(RECORD), &record).map_err(|source| at(&self.path, source))?;
        let directory = self.cache.directory(server, version);
        match fs::rename(&self.path, &directory) {
            Ok(()) => Ok(directory),
            Err(_) if self.cache.find(server, version).is_some() => Ok(directory),
            Err(source) => Err(at(&directory, source)),
        }
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        // Gone already where it was published.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn at(path: &Path, source: io::Error) -> RegistryError {
    RegistryError::Cache { path: path.to_owned(), source }
}

/// Every noted file is there with its hash.
fn verify(directory: &Path) -> Result<(), String> {
    let record: Record = read(&directory.join(RECORD)).map_err(|error| format!("{RECORD}: {error}"))?;
    for file in &record.files {
        let bytes = fs::read(directory.join(&file.path)).map_err(|error| format!("{}: {error}", file.path))?;
        if sha256(&bytes) != file.sha256 {
            return Err(format!("{} is not what was fetched", file.path));
        }
    }
    Ok(())
}

/// Marks a directory as used now: the oldest go first.
fn touch(directory: &Path) {
    // Only an order of removal depends on it.
    let _ =
        File::options().append(true).open(directory.join(RECORD)).and_then(|file| file.set_modified(SystemTime::now()));
}

/// Where the cache is unless told otherwise. A relative `XDG_CACHE_HOME` does not count, as its standard says.
fn default_root(xdg_cache_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let base = xdg_cache_home.filter(|path| path.is_absolute()).or_else(|| home.map(|home| home.join(".cache")));
    base.map(|base| base.join("fraud-scorer").join("models"))
}

/// Makes the directory and tries it.
fn writable(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let probe = directory.join(format!("{PARTIAL}{}", uuid::Uuid::new_v4().simple()));
    File::create_new(&probe)?;
    fs::remove_file(&probe)
}

/// A directory below one that anybody may write: nobody else may have made it, or they would choose our models.
fn private_directory(below: &Path) -> io::Result<PathBuf> {
    let user = fs::metadata("/proc/self")?.uid();
    let path = below.join(format!("fraud-scorer-models-{user}"));
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Of the name itself: a link would lead into a place of someone else's.
    let found = fs::symlink_metadata(&path)?;
    if found.is_dir() && found.uid() == user && found.mode() & 0o022 == 0 {
        return Ok(path);
    }
    let path = below.join(format!("fraud-scorer-models-{}", uuid::Uuid::new_v4().simple()));
    fs::DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

/// A name from the registry as a file's: letters, digits, `-`, `_` and inner dots stay, the rest is written `%XX`.
fn file_name(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        match byte {
            b'.' if index > 0 => text.push('.'),
            b'-' | b'_' => text.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from)
}

/// Writes a file so that it is seen whole or not at all.
fn write_whole(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let partial = path.with_file_name(format!("{PARTIAL}{}", uuid::Uuid::new_v4().simple()));
    let written = File::create_new(&partial).and_then(|mut file| {
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "http://mlflow:5000/";

    fn version(number: &str) -> ModelVersion {
        ModelVersion { name: "fraud".into(), version: number.into(), created: 1_000 }
    }

    fn champion() -> RegisteredModel {
        "fraud@champion".parse().expect("a model")
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(Some(folder.path().join("models"))).expect("a cache");
        (folder, cache)
    }

    fn put(cache: &Cache, version: &ModelVersion, text: &str) -> PathBuf {
        let partial = cache.begin(version).expect("a directory");
        fs::write(partial.path().join("manifest.toml"), text).expect("written");
        let sha256 = sha256(text.as_bytes());
        let files = vec![Fetched { path: "manifest.toml".into(), size: text.len() as u64, sha256 }];
        partial.publish(SERVER, version, files).expect("published")
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a folder").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_fetched_is_found_again_until_it_is_changed() {
        let (_folder, cache) = cache();
        assert_eq!(cache.find(SERVER, &version("7")), None);
        let directory = put(&cache, &version("7"), "one");
        assert_eq!(cache.find(SERVER, &version("7")), Some(directory.clone()));
        fs::write(directory.join("manifest.toml"), "two").expect("written");
        assert_eq!(cache.find(SERVER, &version("7")), None);
        assert!(!directory.exists(), "what was changed is fetched anew");
    }

    #[test]
    fn another_servers_version_of_the_same_number_is_another() {
        let (_folder, cache) = cache();
        put(&cache, &version("7"), "one");
        assert_eq!(cache.find("http://other:5000/", &version("7")), None);
        assert_eq!(cache.find(SERVER, &ModelVersion { created: 2_000, ..version("7") }), None, "a server set up anew");
    }

    #[test]
    fn a_fetch_that_fails_leaves_nothing_and_the_first_to_publish_wins() {
        let (_folder, cache) = cache();
        drop(cache.begin(&version("7")).expect("a directory"));
        assert_eq!(names(&cache.folder("fraud")), [""; 0]);
        let directory = put(&cache, &version("7"), "one");
        assert_eq!(put(&cache, &version("7"), "one"), directory);
        assert_eq!(names(&cache.folder("fraud")).len(), 1);
    }

    #[test]
    fn a_start_without_the_server_begins_where_the_alias_last_led() {
        let (_folder, cache) = cache();
        assert_eq!(cache.pointed(SERVER, &champion()), None);
        let directory = put(&cache, &version("7"), "one");
        assert_eq!(cache.pointed(SERVER, &champion()), None, "it was fetched, but has not served");
        cache.point(SERVER, &champion(), &version("7")).expect("noted");
        assert_eq!(cache.pointed(SERVER, &champion()), Some((version("7"), directory.clone())));
        assert_eq!(cache.pointed("http://other:5000/", &champion()), None);
        cache.discard(&directory);
        assert_eq!(cache.pointed(SERVER, &champion()), None);
    }

    #[test]
    fn old_versions_go_but_not_those_in_use() {
        let (_folder, cache) = cache();
        let directories: Vec<PathBuf> =
            (1..=9).map(|number| put(&cache, &version(&number.to_string()), "one")).collect();
        for (age, directory) in directories.iter().rev().enumerate() {
            let record = File::options().append(true).open(directory.join(RECORD)).expect("a record");
            record.set_modified(SystemTime::now() - Duration::from_secs(60 * (1 + age as u64))).expect("set");
        }
        cache.point(SERVER, &champion(), &version("1")).expect("noted");
        cache.prune("fraud", &directories[2..3]);
        let left: Vec<bool> = directories.iter().map(|directory| directory.is_dir()).collect();
        assert_eq!(left, [true, false, true, false, true, true, true, true, true]);
    }

    #[test]
    fn names_make_no_paths() {
        for (name, file) in
            [("fraud", "fraud"), ("..", "%2E."), (".x", "%2Ex"), ("a b", "a%20b"), ("v1.2", "v1.2"), ("é", "%C3%A9")]
        {
            assert_eq!(file_name(name), file);
        }
    }

    #[test]
    fn the_default_place_follows_the_standard() {
        let root =
            |xdg: Option<&str>, home: Option<&str>| default_root(xdg.map(PathBuf::from), home.map(PathBuf::from));
        assert_eq!(root(Some("/c"), Some("/h")), Some("/c/fraud-scorer/models".into()));
        assert_eq!(root(Some("c"), Some("/h")), Some("/h/.cache/fraud-scorer/models".into()));
        assert_eq!(root(None, None), None);
    }

    #[test]
    fn a_directory_among_temporary_files_is_ours_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = private_directory(folder.path()).expect("a directory");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o700);
        assert_eq!(private_directory(folder.path()).expect("the same again"), path);
        fs::remove_dir(&path).expect("removed");
        std::os::unix::fs::symlink("/tmp", &path).expect("a trap");
        assert_ne!(private_directory(folder.path()).expect("another"), path);
    }

    #[test]
    fn a_place_that_cannot_be_written_names_the_flag() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("file"), "").expect("written");
        let error = Cache::open(Some(folder.path().join("file/models"))).expect_err("below a file").to_string();
        assert!(error.contains("--model-cache"), "{error}");
    }
}
