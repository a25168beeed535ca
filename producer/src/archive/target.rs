//! Where an archive's files go: a folder, or a prefix in an S3 bucket.
//!
//! S3 is found and entered by the standard variables alone (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
//! AWS_REGION, AWS_ENDPOINT_URL, and what containers and instances are given), never by flags.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};
use tokio::runtime::Runtime;

/// A store that does not answer is tried again this long: an instant at the start of a run, and not so long in its
/// midst that rows pile up for ever.
const RETRY_TIME: Duration = Duration::from_secs(30);
const RETRIES: usize = 5;
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// For one request, a file's upload included.
const REQUEST_TIME: Duration = Duration::from_secs(120);

/// A folder or a prefix in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder; it is made where it is missing.
    Folder(PathBuf),
    /// A prefix in an S3 bucket, which must exist.
    Bucket {
        /// The bucket's name.
        bucket: String,
        /// Without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl Location {
    /// Parses `s3://bucket/prefix` or a folder. For clap's `value_parser`.
    ///
    /// # Errors
    /// A sentence, for another scheme, a missing bucket or an empty name.
    pub fn parse(text: &str) -> Result<Location, String> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_matches('/').to_owned();
            return match bucket {
                "" => Err("expected a bucket, as in s3://bucket/prefix".to_owned()),
                _ => Ok(Location::Bucket { bucket: bucket.to_owned(), prefix }),
            };
        }
        if text.is_empty() || text.contains("://") {
            return Err("expected a folder or s3://bucket/prefix".to_owned());
        }
        Ok(Location::Folder(PathBuf::from(text)))
    }

    /// The store and the path of the location in it, without slashes at its ends. A folder is made where it is missing;
    /// what was put into it is on the disk when the call returns, directory entry included.
    ///
    /// # Errors
    /// A reason, to be put behind the location's name. A bucket is not asked yet.
    pub fn open(&self) -> Result<(Box<dyn ObjectStore>, String), String> {
        match self {
            Location::Folder(folder) => {
                std::fs::create_dir_all(folder).map_err(describe)?;
                let store = LocalFileSystem::new_with_prefix(folder).map_err(describe)?;
                Ok((Box::new(store.with_fsync(true)), String::new()))
            }
            Location::Bucket { bucket, prefix } => Ok((Box::new(bucket_store(bucket)?), prefix.clone())),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Folder(folder) => folder.display().fmt(formatter),
            Location::Bucket { bucket, prefix } if prefix.is_empty() => write!(formatter, "s3://{bucket}"),
            Location::Bucket { bucket, prefix } => write!(formatter, "s3://{bucket}/{prefix}"),
        }
    }
}

/// An opened location. Its calls block.
pub(super) struct Target {
    store: Box<dyn ObjectStore>,
    prefix: String,
    runtime: Runtime,
}

impl Target {
    /// Errors are reasons, to be put behind the location's name.
    pub(super) fn open(location: &Location) -> Result<Target, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(describe)?;
        let (store, prefix) = location.open()?;
        Ok(Target { store, prefix, runtime })
    }

    /// Makes sure that files can be written, and leaves nothing behind: an upload in parts is begun and called off.
    pub(super) fn probe(&self, run: &str) -> Result<(), String> {
        let path = self.path(&format!("probe-{run}"));
        self.runtime.block_on(async {
            let mut upload = self.store.put_multipart(&path).await.map_err(describe)?;
            upload.abort().await.map_err(describe)
        })
    }

    /// Writes a file whole, in place of one with the same name.
    pub(super) fn put(&self, file: &str, bytes: Vec<u8>) -> Result<(), String> {
        let path = self.path(file);
        self.runtime.block_on(self.store.put(&path, bytes.into())).map(|_| ()).map_err(describe)
    }

    fn path(&self, file: &str) -> Path {
        Path::from(format!("{}/{file}", self.prefix))
    }
}

fn bucket_store(bucket: &str) -> Result<impl ObjectStore, String> {
    // An endpoint of one's own may be plain HTTP, in a test or behind a mesh: the user wrote it down.
    let endpoint = std::env::var("AWS_ENDPOINT_URL").unwrap_or_default();
    let options = ClientOptions::new()
        .with_allow_http(endpoint.starts_with("http://"))
        .with_connect_timeout(CONNECT_TIME)
        .with_timeout(REQUEST_TIME);
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: RETRY_TIME };
    AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(options)
        .with_retry(retry)
        .build()
        .map_err(describe)
}

/// An error with its causes, since the outermost often says only that a request failed.
pub fn describe(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    text
}
