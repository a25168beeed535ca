//! Files below a prefix in an S3 bucket.

use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::{Entry, Sink, Trouble};
use crate::model::registry::RegistryError;

/// How much is asked for at once: an answer of this size comes within its time limit on any line that can carry a model
/// at all.
const RANGE_BYTES: u64 = 8 << 20;

pub(super) struct Bucket {
    store: AmazonS3,
    root: Vec<String>,
}

impl Bucket {
    /// The store behind `s3://bucket`, as the environment describes it.
    pub(super) fn open(bucket: &str, root: Vec<String>) -> Result<Bucket, Trouble> {
        // MLflow's own variable; what the AWS tools read comes first.
        let store = fraud_storage::bucket(bucket, Some("MLFLOW_S3_ENDPOINT_URL"));
        let store = store.map_err(|error| Trouble::Unfit(format!("{error}; see AWS_ENDPOINT_URL and AWS_REGION")))?;
        Ok(Bucket { store, root })
    }

    pub(super) async fn list(&self, folder: &[String]) -> Result<Vec<Entry>, Trouble> {
        let listing = self.store.list_with_delimiter(Some(&self.key(folder))).await.map_err(trouble)?;
        let name = |path: &Path| path.filename().unwrap_or_default().to_owned();
        let folders = listing.common_prefixes.iter().map(|path| Entry { name: name(path), folder: true });
        let files = listing.objects.iter().map(|object| Entry { name: name(&object.location), folder: false });
        Ok(folders.chain(files).collect())
    }

    pub(super) async fn read(&self, path: &[String], sink: &mut Sink<'_>) -> Result<(), Trouble> {
        let key = self.key(path);
        let size = self.store.head(&key).await.map_err(trouble)?.size;
        let mut from = 0;
        while from < size {
            let to = size.min(from + RANGE_BYTES);
            sink.write(&self.store.get_range(&key, from..to).await.map_err(trouble)?)?;
            from = to;
        }
        Ok(())
    }

    fn key(&self, path: &[String]) -> Path {
        self.root.iter().chain(path).map(String::as_str).collect()
    }
}

fn trouble(error: object_store::Error) -> Trouble {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => Trouble::Unfit(format!("{error}; is AWS_ENDPOINT_URL right?")),
        // Credentials may be mended without a new version.
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            let reason = format!("{error}; see AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
            Trouble::Registry(RegistryError::Denied { server: "the object store".into(), reason })
        }
        error => Trouble::Later(format!(
            "{error}; are AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set as they should be?"
        )),
    }
}
