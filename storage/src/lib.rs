//! Where files go and come from: a folder, or a prefix in an S3 bucket.
//!
//! ```text
//!  --archive, --to ─► Location::parse ─► Location ─► open ─► object store, path within it
//!  s3:// of a registry ──────────────────────────► bucket ─┘
//! ```
//!
//! S3 is found and entered by the standard variables alone (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
//! AWS_REGION, AWS_ENDPOINT_URL, and what containers and instances are given), never by flags.

use std::fmt;
use std::path::PathBuf;

#[cfg(feature = "object-store")]
mod open;

#[cfg(feature = "object-store")]
pub use open::bucket;

/// Why a build without the feature `object-store` opens nothing, and what to do.
pub const ABSENT: &str =
    "this build has no archive and no S3 (cargo feature `archive`): `make build` makes the whole one";

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_folders_or_buckets() {
        let bucket = |bucket: &str, prefix: &str| Location::Bucket { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!(Location::parse("s3://lake/a/b/"), Ok(bucket("lake", "a/b")));
        assert_eq!(Location::parse("s3://lake"), Ok(bucket("lake", "")));
        assert_eq!(Location::parse("a/b"), Ok(Location::Folder("a/b".into())));
        for text in ["", "s3://", "s3:///a", "gs://lake/a", "http://lake"] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
        assert_eq!(Location::parse("s3://lake/a/").unwrap().to_string(), "s3://lake/a");
    }
}
