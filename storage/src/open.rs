//! Opening a location with `object_store`: signing, retries, files whole or not at all.

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use crate::{Location, describe};

/// A store that does not answer is tried again this long: an instant at the start of a run, and not so long in its
/// midst that rows pile up for ever.
const RETRY_TIME: Duration = Duration::from_secs(30);
const RETRIES: usize = 5;
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// For one request, a file's upload included.
const REQUEST_TIME: Duration = Duration::from_secs(120);

/// Variables that hold the address of a store that is not AWS's, as the AWS tools read them.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];

impl Location {
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
            Location::Bucket { bucket: name, prefix } => Ok((Box::new(bucket(name, None)?), prefix.clone())),
        }
    }
}

/// The bucket as the environment describes its store. `further` is a variable that may name its address where the AWS
/// tools' own do not.
///
/// # Errors
/// What the environment lacks. The bucket is not asked yet.
pub fn bucket(name: &str, further: Option<&str>) -> Result<AmazonS3, String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = ENDPOINTS.into_iter().chain(further).find_map(variable);
    // An endpoint of one's own may be plain HTTP, in a test or behind a mesh: the user wrote it down.
    let plain = endpoint.as_ref().is_some_and(|address| address.starts_with("http://"));
    let options =
        ClientOptions::new().with_allow_http(plain).with_connect_timeout(CONNECT_TIME).with_timeout(REQUEST_TIME);
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: RETRY_TIME };
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(name).with_client_options(options).with_retry(retry);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    builder.build().map_err(describe)
}
