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
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::RegistryError;
use super::answers::{Entry, Listing, ModelVersion};
use super::client::MlflowClient;
use super::location::{Location, Store};
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
    if !location.is_allowed(stores) {
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
            path.push(entry.plain_name().map_err(Trouble::Unfit)?.to_owned());
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
                Ok(listing.files)
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
