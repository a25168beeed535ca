//! A version's files: where its URI says they are, and how they come here.
//!
//! ```text
//!  URI ─► Location ─► Remote: list folder by folder ─► names and sizes checked ─► file by file into an empty directory
//! ```
//!
//! | URI | how |
//! |---|---|
//! | `mlflow-artifacts:/PATH` | through the MLflow server, which keeps the store's credentials to itself |
//! | `s3://BUCKET/PREFIX` | from the store, with `AWS_ACCESS_KEY_ID` and the like, at `AWS_ENDPOINT_URL` where that is set |
//! | `file:///PATH`, `/PATH` | from a file system that this process shares with the server |
//! | `runs:/ID/PATH` | wherever the run keeps its files: one of the above |
//!
//! Names and sizes come from outside: nothing is written but regular files below the directory, and only so many bytes.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::RegistryError;
use super::client::{MlflowClient, ModelVersion};
use crate::digest::hexadecimal;

#[cfg(feature = "archive")]
mod bucket;
#[cfg(not(feature = "archive"))]
#[path = "artifact/no_bucket.rs"]
mod bucket;

use bucket::Bucket;

/// Most files of a bundle; ours have six.
const MAX_FILES: usize = 64;

/// Most folders within folders; the files of a bundle lie flat, what MLflow adds at most two deep.
const MAX_DEPTH: usize = 4;

/// Most bytes of all files together.
const MAX_BYTES: u64 = 512 << 20;

/// How long all files together may take.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Longest file name.
const MAX_NAME_BYTES: usize = 200;

/// A file as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fetched {
    /// Path within the bundle, with slashes.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Lower-case hexadecimal SHA-256.
    pub sha256: String,
}

/// Where a URI says that files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    Proxied(Vec<String>),
    Bucket { bucket: String, prefix: Vec<String> },
    Local(PathBuf),
    Run { run: String, below: Vec<String> },
}

/// A place beside the MLflow server where versions' files may lie: whoever registers a model writes the URI, and this process reads
/// there with its own rights and credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store(Location);

impl Store {
    /// `s3://BUCKET/PREFIX` or `file:///PATH`.
    pub(super) fn parse(uri: &str) -> Result<Store, String> {
        // No server's own store can be named here.
        let location = match uri.split_once(':') {
            Some(("s3" | "s3a" | "file", _)) => Location::parse(uri, None)?,
            _ => return Err(format!("{uri:?} must be s3://BUCKET, s3://BUCKET/PREFIX or file:///PATH")),
        };
        Ok(Store(location))
    }

    fn holds(&self, location: &Location) -> bool {
        match (&self.0, location) {
            (Location::Local(store), Location::Local(path)) => {
                let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
                path.components().all(is_plain) && path.starts_with(store)
            }
            (Location::Bucket { bucket: store, prefix: within }, Location::Bucket { bucket, prefix }) => {
                store == bucket && prefix.starts_with(within)
            }
            _ => false,
        }
    }
}

/// Gets all files of `version` into `directory`, which is there and empty; from `stores` and the server alone.
pub(super) async fn fetch(
    client: &MlflowClient,
    stores: &[Store],
    version: &ModelVersion,
    directory: &Path,
) -> Result<Vec<Fetched>, RegistryError> {
    let unfit = |reason: String| RegistryError::Artifact {
        name: version.name.clone(),
        version: version.version.clone(),
        reason,
    };
    let uri = client.download_uri(version).await?;
    let mut location = Location::parse(&uri, Some(client.server())).map_err(unfit)?;
    if let Location::Run { run, below } = location {
        let uri = client.run_artifacts(&run).await?;
        location = Location::parse(&uri, Some(client.server())).and_then(|root| root.join(below)).map_err(unfit)?;
    }
    if !matches!(location, Location::Proxied(_)) && !stores.iter().any(|store| store.holds(&location)) {
        return Err(unfit(format!(
            "{uri} lies in no store that was named: give --model-store where models may be read from (s3://BUCKET/PREFIX or \
             file:///PATH), or let the MLflow server serve artefacts (--serve-artifacts)"
        )));
    }
    let download = download(client, location, directory);
    match tokio::time::timeout(DOWNLOAD_TIMEOUT, download).await {
        Ok(Ok(files)) if !files.iter().any(|file| file.path == "manifest.toml") => Err(unfit(format!(
            "{uri} has no manifest.toml: register a whole bundle, as `fraud-training register` does"
        ))),
        Ok(Ok(files)) => Ok(files),
        Ok(Err(Trouble::Registry(RegistryError::Refused { code, message, .. }))) => {
            Err(unfit(format!("{uri}: {code}: {message}")))
        }
        Ok(Err(Trouble::Registry(error))) => Err(error),
        Ok(Err(Trouble::Unfit(reason))) => Err(unfit(format!("{uri}: {reason}"))),
        Ok(Err(Trouble::Later(reason))) => Err(RegistryError::Store { uri, reason }),
        Ok(Err(Trouble::Local { path, source })) => Err(RegistryError::Cache { path, source }),
        Err(_) => Err(RegistryError::Store { uri, reason: format!("not within {DOWNLOAD_TIMEOUT:?}") }),
    }
}

/// Why files did not come.
enum Trouble {
    /// The MLflow server's failure, told as such.
    Registry(RegistryError),
    /// Asking again gives the same.
    Unfit(String),
    /// Asking again may help.
    #[cfg_attr(not(feature = "archive"), expect(dead_code, reason = "only a bucket says so"))]
    Later(String),
    /// Our own disk.
    Local { path: PathBuf, source: std::io::Error },
}

impl From<RegistryError> for Trouble {
    fn from(error: RegistryError) -> Self {
        Trouble::Registry(error)
    }
}

impl Location {
    fn parse(uri: &str, server: Option<&reqwest::Url>) -> Result<Location, String> {
        if uri.starts_with('/') {
            return Ok(Location::Local(PathBuf::from(uri)));
        }
        let (scheme, rest) = uri.split_once(':').ok_or_else(|| format!("{uri:?} is no URI"))?;
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None => ("", rest),
        };
        match scheme {
            "mlflow-artifacts" => {
                // Our credentials are for one server: another one's name in an answer must not get them.
                let own = server.is_some_and(|server| {
                    server.host_str().is_some_and(|name| match server.port() {
                        Some(port) => host == format!("{name}:{port}"),
                        None => host == name,
                    })
                });
                if host.is_empty() || own {
                    return segments(path).map(Location::Proxied);
                }
                let server = server.map_or("the one that is asked", reqwest::Url::as_str);
                Err(format!("{uri} names another server than {server}; start the server so that it names itself"))
            }
            "s3" | "s3a" if !host.is_empty() => {
                segments(path).map(|prefix| Location::Bucket { bucket: host.to_owned(), prefix })
            }
            "file" if host.is_empty() || host == "localhost" => {
                Ok(Location::Local(Path::new("/").join(path.trim_start_matches('/'))))
            }
            "runs" => {
                let mut below = segments(path)?;
                if below.is_empty() {
                    return Err(format!("{uri} names no run"));
                }
                let run = below.remove(0);
                Ok(Location::Run { run, below })
            }
            _ => Err(format!(
                "{uri} lies where this worker cannot read; it reads mlflow-artifacts:, s3: and file: (let the MLflow \
                 server serve artefacts: --serve-artifacts)"
            )),
        }
    }

    /// The location of `below` within this one.
    fn join(self, below: Vec<String>) -> Result<Location, String> {
        match self {
            Location::Proxied(mut path) => {
                path.extend(below);
                Ok(Location::Proxied(path))
            }
            Location::Bucket { bucket, mut prefix } => {
                prefix.extend(below);
                Ok(Location::Bucket { bucket, prefix })
            }
            Location::Local(path) => Ok(Location::Local(below.iter().fold(path, |path, name| path.join(name)))),
            Location::Run { run, .. } => Err(format!("the files of run {run} lie in a run")),
        }
    }
}

/// A path's parts, each a plain name.
fn segments(path: &str) -> Result<Vec<String>, String> {
    path.split('/').filter(|part| !part.is_empty()).map(|part| plain_name(part).map(str::to_owned)).collect()
}

/// A name that stays where it is put.
fn plain_name(name: &str) -> Result<&str, String> {
    let unfit = |character: char| matches!(character, '/' | '\\') || character.is_control();
    if name.is_empty() || name == "." || name == ".." || name.len() > MAX_NAME_BYTES || name.contains(unfit) {
        return Err(format!("{name:?} is no plain file name"));
    }
    Ok(name)
}

/// What may still be taken.
struct Budget {
    files: usize,
    bytes: u64,
}

impl Budget {
    fn new() -> Budget {
        Budget { files: MAX_FILES, bytes: MAX_BYTES }
    }

    fn file(&mut self) -> Result<(), Trouble> {
        let left = self.files.checked_sub(1).ok_or_else(|| Trouble::Unfit(format!("more than {MAX_FILES} files")))?;
        self.files = left;
        Ok(())
    }

    fn bytes(&mut self, count: u64) -> Result<(), Trouble> {
        let left = self.bytes.checked_sub(count);
        self.bytes = left.ok_or_else(|| Trouble::Unfit(format!("more than {} MiB", MAX_BYTES >> 20)))?;
        Ok(())
    }
}

/// Where files are read.
enum Remote<'a> {
    Proxy { client: &'a MlflowClient, root: Vec<String> },
    Bucket(Bucket),
    Local { root: PathBuf },
}

/// One line of a listing.
struct Entry {
    name: String,
    folder: bool,
}

async fn download(client: &MlflowClient, location: Location, directory: &Path) -> Result<Vec<Fetched>, Trouble> {
    let remote = match location {
        Location::Proxied(root) => Remote::Proxy { client, root },
        Location::Bucket { bucket, prefix } => Remote::Bucket(Bucket::open(&bucket, prefix)?),
        Location::Local(root) => Remote::Local { root },
        Location::Run { run, .. } => return Err(Trouble::Unfit(format!("run {run} was not looked up"))),
    };
    let (mut fetched, mut budget) = (Vec::new(), Budget::new());
    let mut folders: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(folder) = folders.pop() {
        if folder.len() > MAX_DEPTH {
            return Err(Trouble::Unfit(format!("folders more than {MAX_DEPTH} deep")));
        }
        for entry in remote.list(&folder).await? {
            budget.file()?;
            let mut path = folder.clone();
            path.push(plain_name(&entry.name).map_err(Trouble::Unfit)?.to_owned());
            let target = path.iter().fold(directory.to_owned(), |target, name| target.join(name));
            if entry.folder {
                std::fs::create_dir(&target).map_err(|source| Trouble::Local { path: target, source })?;
                folders.push(path);
            } else {
                let mut sink = Sink::create(target, &mut budget)?;
                remote.read(&path, &mut sink).await?;
                fetched.push(sink.finish(path.join("/"))?);
            }
        }
    }
    Ok(fetched)
}

impl Remote<'_> {
    async fn list(&self, folder: &[String]) -> Result<Vec<Entry>, Trouble> {
        match self {
            Remote::Proxy { client, root } => {
                let mut url = client.path(&["api", "2.0", "mlflow-artifacts", "artifacts"]);
                let path: Vec<&str> = root.iter().chain(folder).map(String::as_str).collect();
                url.query_pairs_mut().append_pair("path", &path.join("/"));
                let listing: Listing = client.json(client.get(url).await?).await?;
                let entry = |file: ListedFile| Entry { name: file.path, folder: file.is_dir };
                Ok(listing.files.into_iter().map(entry).collect())
            }
            Remote::Bucket(bucket) => bucket.list(folder).await,
            Remote::Local { root } => {
                let folder = folder.iter().fold(root.clone(), |path, name| path.join(name));
                let unreadable = |error| Trouble::Unfit(format!("cannot list {}: {error}", folder.display()));
                let mut entries = Vec::new();
                for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
                    let entry = entry.map_err(unreadable)?;
                    let kind = entry.file_type().map_err(unreadable)?;
                    if !kind.is_file() && !kind.is_dir() {
                        let path = entry.path();
                        return Err(Trouble::Unfit(format!("{} is neither file nor folder", path.display())));
                    }
                    entries
                        .push(Entry { name: entry.file_name().to_string_lossy().into_owned(), folder: kind.is_dir() });
                }
                Ok(entries)
            }
        }
    }

    async fn read(&self, path: &[String], sink: &mut Sink<'_>) -> Result<(), Trouble> {
        match self {
            Remote::Proxy { client, root } => {
                let mut url = client.path(&["api", "2.0", "mlflow-artifacts", "artifacts"]);
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.extend(root.iter().chain(path));
                }
                let mut response = client.get(url).await?;
                while let Some(chunk) = response.chunk().await.map_err(|error| client.unreachable(&error))? {
                    sink.write(&chunk)?;
                }
                Ok(())
            }
            Remote::Bucket(bucket) => bucket.read(path, sink).await,
            Remote::Local { root } => {
                let path = path.iter().fold(root.clone(), |path, name| path.join(name));
                let unreadable = |error| Trouble::Unfit(format!("cannot read {}: {error}", path.display()));
                let mut file = File::open(&path).map_err(unreadable)?;
                let mut buffer = vec![0; 1 << 16];
                loop {
                    match file.read(&mut buffer).map_err(unreadable)? {
                        0 => return Ok(()),
                        count => sink.write(&buffer[..count])?,
                    }
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct Listing {
    // Absent where there is none.
    #[serde(default)]
    files: Vec<ListedFile>,
}

#[derive(Deserialize)]
struct ListedFile {
    path: String,
    #[serde(default)]
    is_dir: bool,
}

/// A file that is being written: hashed as it comes, held to the budget. The writes are small and go to a local disk,
/// so they are made where they stand, on the async runtime's thread, which has nothing to do that could not wait.
struct Sink<'a> {
    path: PathBuf,
    file: File,
    hash: Sha256,
    size: u64,
    budget: &'a mut Budget,
}

impl Sink<'_> {
    fn create(path: PathBuf, budget: &mut Budget) -> Result<Sink<'_>, Trouble> {
        match File::create_new(&path) {
            Ok(file) => Ok(Sink { path, file, hash: Sha256::new(), size: 0, budget }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Trouble::Unfit(format!("{} is listed twice", path.display())))
            }
            Err(source) => Err(Trouble::Local { path, source }),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.budget.bytes(bytes.len() as u64)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| Trouble::Local { path: self.path.clone(), source })
    }

    fn finish(self, path: String) -> Result<Fetched, Trouble> {
        self.file.sync_all().map_err(|source| Trouble::Local { path: self.path.clone(), source })?;
        Ok(Fetched { path, size: self.size, sha256: hexadecimal(&self.hash.finalize()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Result<Location, String> {
        Location::parse(uri, Some(&"http://mlflow.example:5000/base".parse().expect("a URL")))
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_uri_says_where_files_are() {
        for (uri, location) in [
            ("mlflow-artifacts:/0/ab/artifacts/bundle", Location::Proxied(names(&["0", "ab", "artifacts", "bundle"]))),
            ("mlflow-artifacts://mlflow.example:5000/0/ab", Location::Proxied(names(&["0", "ab"]))),
            ("s3://models/a/b/", Location::Bucket { bucket: "models".into(), prefix: names(&["a", "b"]) }),
            ("file:///srv/mlflow/a", Location::Local("/srv/mlflow/a".into())),
            ("/srv/mlflow/a", Location::Local("/srv/mlflow/a".into())),
            ("runs:/ab12/bundle", Location::Run { run: "ab12".into(), below: names(&["bundle"]) }),
        ] {
            assert_eq!(parse(uri), Ok(location), "{uri}");
        }
    }

    #[test]
    fn a_uri_that_leads_elsewhere_is_refused_with_the_reason() {
        for (uri, says) in [
            ("mlflow-artifacts://other.example/0/ab", "another server"),
            ("mlflow-artifacts://mlflow.example/0/ab", "another server"),
            ("mlflow-artifacts:/0/../../etc", "\"..\""),
            ("s3://models/../x", "\"..\""),
            ("gs://models/a", "mlflow-artifacts:"),
            ("runs:/", "no run"),
            ("models/a", "no URI"),
        ] {
            let error = parse(uri).expect_err(uri);
            assert!(error.contains(says), "{uri}: {error}");
        }
    }

    #[test]
    fn only_named_stores_hold_files() {
        for (store, held, not_held) in [
            (
                "s3://models/fraud",
                ["s3://models/fraud", "s3a://models/fraud/1/a"].as_slice(),
                ["s3://models", "s3://models/fraudulent", "s3://others/fraud", "file:///models/fraud"].as_slice(),
            ),
            ("s3://models", &["s3://models/a"], &["s3://models2/a"]),
            (
                "file:///srv/mlflow",
                &["/srv/mlflow/1", "file:///srv/mlflow/1"],
                &["/srv", "/srv/mlflow2/1", "/srv/mlflow/../../etc", "file:///etc", "s3://srv/mlflow"],
            ),
        ] {
            let store = Store::parse(store).expect("a store");
            for (uris, is_held) in [(held, true), (not_held, false)] {
                for uri in uris {
                    assert_eq!(parse(uri).is_ok_and(|location| store.holds(&location)), is_held, "{uri}");
                }
            }
        }
        for uri in ["", "/srv/mlflow", "mlflow-artifacts:/", "gs://models", "runs:/1/a"] {
            assert!(Store::parse(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn files_of_a_run_lie_below_where_the_run_keeps_its_own() {
        let root = parse("s3://models/1/ab/artifacts").and_then(|root| root.join(names(&["bundle"])));
        assert_eq!(
            root,
            Ok(Location::Bucket { bucket: "models".into(), prefix: names(&["1", "ab", "artifacts", "bundle"]) })
        );
        assert!(parse("runs:/a/b").and_then(|root| root.join(names(&["c"]))).is_err());
    }

    #[test]
    fn names_from_outside_stay_where_they_are_put() {
        for name in ["", ".", "..", "a/b", "/etc/passwd", "a\\b", "a\0b", "a\nb", &"x".repeat(201)] {
            assert!(plain_name(name).is_err(), "{name:?}");
        }
        for name in ["model.onnx", "...", ".hidden", "MODEL CARD.md", "Modell-ü"] {
            assert_eq!(plain_name(name), Ok(name));
        }
    }

    #[test]
    fn a_budget_ends() {
        let mut budget = Budget::new();
        assert!((0..MAX_FILES).all(|_| budget.file().is_ok()));
        assert!(budget.file().is_err());
        assert!(budget.bytes(MAX_BYTES - 1).is_ok() && budget.bytes(1).is_ok());
        assert!(budget.bytes(1).is_err());
    }

    #[tokio::test]
    async fn a_shared_directory_is_copied_with_hashes_and_without_links() {
        let (from, to) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        std::fs::write(from.path().join("manifest.toml"), "name = 1").expect("written");
        std::fs::create_dir(from.path().join("sub")).expect("folder");
        std::fs::write(from.path().join("sub/data"), b"abc").expect("written");
        let client = MlflowClient::new("http://127.0.0.1:1".parse().expect("a URL"), Default::default(), None)
            .expect("a client");
        let copy = |target: PathBuf| download_local(&client, from.path().to_owned(), target);
        let mut files = copy(to.path().to_owned()).await.expect("copied");
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
        assert_eq!(files[1], Fetched { path: "sub/data".into(), size: 3, sha256 });
        assert_eq!(std::fs::read(to.path().join("sub/data")).expect("there"), b"abc");

        std::os::unix::fs::symlink("/etc/passwd", from.path().join("link")).expect("a link");
        let other = tempfile::tempdir().expect("folder");
        assert!(copy(other.path().to_owned()).await.expect_err("a link").contains("neither file nor folder"));
    }

    async fn download_local(client: &MlflowClient, from: PathBuf, to: PathBuf) -> Result<Vec<Fetched>, String> {
        match download(client, Location::Local(from), &to).await {
            Ok(files) => Ok(files),
            Err(Trouble::Unfit(reason) | Trouble::Later(reason)) => Err(reason),
            Err(Trouble::Registry(error)) => Err(error.to_string()),
            Err(Trouble::Local { path, source }) => Err(format!("{}: {source}", path.display())),
        }
    }
}
