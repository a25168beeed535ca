//! An opened location that files are written to.

use fraud_storage::{Location, describe};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tokio::runtime::Runtime;

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
