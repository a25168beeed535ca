//! Where files go: a folder or a bucket. A file appears whole or not at all, and in place of one with its name.
//!
//! ```text
//!  spool file ─► up to 8 MiB: one request │ more: parts, joined at the end ─► the store
//!  the store ─► list ─► fetch ─► a file on the local disk
//! ```

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use fraud_storage::{Location, describe};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutPayload};

use super::columns::Spooled;
use super::cut;

/// Memory of an upload. S3 takes no smaller parts than 5 MiB, and 10,000 of them.
const PART_BYTES: usize = 8 << 20;

/// An opened location.
#[derive(Clone)]
pub struct Store {
    store: Arc<dyn ObjectStore>,
    prefix: String,
}

/// A finished file and its name.
pub struct Upload {
    /// Below the location.
    pub path: String,
    /// What it holds.
    pub spooled: Spooled,
    /// It is in the store.
    pub done: AtomicBool,
}

/// Why the store does not take files.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// No such bucket, no right, no folder: waiting does not mend it.
    ForGood(String),
    /// It does not answer, or is busy.
    ForNow(String),
}

impl Refused {
    fn of(error: object_store::Error) -> Refused {
        use object_store::Error::{Generic, NotFound, PermissionDenied, Unauthenticated};
        match &error {
            NotFound { .. } | PermissionDenied { .. } | Unauthenticated { .. } => Refused::ForGood(describe(error)),
            Generic { store: "LocalFileSystem", .. } => Refused::ForGood(describe(error)),
            _ => Refused::ForNow(describe(error)),
        }
    }
}

impl Store {
    /// Opens a location. A folder is made where it is missing; a bucket is not asked yet.
    ///
    /// # Errors
    /// A reason, to be put behind the location's name.
    pub fn open(location: &Location) -> Result<Store, String> {
        let (store, prefix) = location.open()?;
        Ok(Store { store: store.into(), prefix })
    }

    #[cfg(test)]
    pub(super) fn over(store: Arc<dyn ObjectStore>, prefix: &str) -> Store {
        Store { store, prefix: prefix.to_owned() }
    }

    /// Makes sure that files can be written, and leaves nothing behind: an upload in parts is begun and called off.
    ///
    /// # Errors
    /// As the store words it, and whether asking again may help.
    pub async fn probe(&self) -> Result<(), Refused> {
        let path = self.path("_probe");
        let mut upload = self.store.put_multipart(&path).await.map_err(Refused::of)?;
        upload.abort().await.map_err(Refused::of)
    }

    /// Uploads what is not yet there, one after the other.
    ///
    /// # Errors
    /// The file's path and the store's words. What was done before stays done.
    pub async fn put_all(&self, uploads: &[Arc<Upload>]) -> Result<(), String> {
        for upload in uploads {
            if !upload.done.load(Ordering::Relaxed) {
                let put = self.put(&self.path(&upload.path), &upload.spooled).await;
                put.map_err(|reason| format!("{} was not written: {reason}", upload.path))?;
                upload.done.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Puts a file at `path`, in place of the one that is there.
    ///
    /// # Errors
    /// As the store words it. Then what was there is there still.
    pub async fn put(&self, path: &Path, spooled: &Spooled) -> Result<(), String> {
        // The descriptor's position is shared with every earlier try.
        let mut file = &spooled.file;
        file.seek(SeekFrom::Start(0)).map_err(describe)?;
        if spooled.size <= PART_BYTES as u64 {
            let whole = read_part(file)?;
            return self.store.put(path, whole).await.map(|_| ()).map_err(describe);
        }
        let mut parts = self.store.put_multipart(path).await.map_err(describe)?;
        let mut left = spooled.size;
        while left > 0 {
            let part = read_part(file)?;
            left = left.saturating_sub(part.content_length() as u64);
            if part.content_length() == 0 {
                let _ = parts.abort().await;
                return Err("the spool file is shorter than it was".to_owned());
            }
            if let Err(error) = parts.put_part(part).await {
                // Parts that stay behind cost money until a lifecycle rule of the bucket removes them.
                let _ = parts.abort().await;
                return Err(describe(error));
            }
        }
        parts.complete().await.map(|_| ()).map_err(describe)
    }

    /// The finished files, as they come; the store words an error. Looks through the whole archive.
    pub fn list(&self) -> BoxStream<'static, Result<ObjectMeta, String>> {
        let listed = self.store.list(Some(&Path::from(self.prefix.as_str()))).map_err(describe);
        let finished = |object: &ObjectMeta| object.location.filename().is_some_and(cut::is_finished);
        listed.try_filter(move |object| std::future::ready(finished(object))).boxed()
    }

    /// The file at `path`, open on the local disk: itself in a folder, a copy in `spool` from a bucket. `None` where it is
    /// gone.
    ///
    /// # Errors
    /// As the store or the disk words it.
    pub async fn fetch(&self, path: &Path, spool: &std::path::Path) -> Result<Option<File>, String> {
        let found = match self.store.get(path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(describe(error)),
        };
        let mut bytes = match found.payload {
            GetResultPayload::File(file, _) => return Ok(Some(file)),
            GetResultPayload::Stream(bytes) => bytes,
        };
        let mut copy = tempfile::tempfile_in(spool).map_err(describe)?;
        while let Some(bytes) = bytes.try_next().await.map_err(describe)? {
            copy.write_all(&bytes).map_err(describe)?;
        }
        Ok(Some(copy))
    }

    /// What is there of a cut's files: the folder of each, and what `read` makes of it. A file appears whole or not at all, so
    /// these are finished. Looks through the whole archive.
    ///
    /// # Errors
    /// As the store words it.
    pub async fn finished<T>(
        &self,
        topic: &str,
        partition: i32,
        (first, until): (i64, i64),
        read: impl Fn(Bytes) -> Result<T, String>,
    ) -> Result<Vec<(String, T)>, String> {
        let root = Path::from(self.prefix.as_str());
        let listed: Vec<_> = self.list().try_collect().await?;
        let mut finished = Vec::new();
        for object in listed {
            let offset = object.location.filename().and_then(|name| cut::first_offset(name, topic, partition));
            if !offset.is_some_and(|offset| (first..until).contains(&offset)) {
                continue;
            }
            let below: Vec<_> = object.location.prefix_match(&root).into_iter().flatten().collect();
            let folder: Vec<&str> = below[..below.len().saturating_sub(1)].iter().map(AsRef::as_ref).collect();
            let bytes = self.store.get(&object.location).await.map_err(describe)?.bytes().await.map_err(describe)?;
            finished.push((folder.join("/"), read(bytes)?));
        }
        Ok(finished)
    }

    fn path(&self, file: &str) -> Path {
        Path::from(format!("{}/{file}", self.prefix))
    }
}

/// The next part of the file, or less at its end.
fn read_part(file: &File) -> Result<PutPayload, String> {
    let mut part = Vec::new();
    file.take(PART_BYTES as u64).read_to_end(&mut part).map_err(describe)?;
    Ok(PutPayload::from(part))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write as _;

    use object_store::memory::InMemory;

    use super::*;

    fn upload(path: &str, size: usize) -> Arc<Upload> {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        let spooled = Spooled { file, size: size as u64, rows: 1 };
        Arc::new(Upload { path: path.to_owned(), spooled, done: AtomicBool::new(false) })
    }

    #[tokio::test]
    async fn small_and_large_files_arrive_whole_and_replace_those_of_their_name() {
        let memory = Arc::new(InMemory::new());
        let store = Store::over(memory.clone(), "lake/verdicts");
        for size in [10, 2 * PART_BYTES, 2 * PART_BYTES + 7] {
            let uploads = [upload("date=2026-01-31/hour=07/a.parquet", size)];
            store.put_all(&uploads).await.unwrap();
            let path = Path::from("lake/verdicts/date=2026-01-31/hour=07/a.parquet");
            let found = memory.get(&path).await.unwrap().bytes().await.unwrap();
            assert_eq!(found.len(), size);
            assert!(found.iter().enumerate().all(|(index, byte)| *byte == (index % 251) as u8));
        }
    }

    #[tokio::test]
    async fn a_folder_that_takes_one_file_and_not_the_next_is_tried_again_for_the_next() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("b"), "a file where a folder is wanted").unwrap();
        let store = Store::open(&Location::Folder(folder.path().to_owned())).unwrap();
        store.probe().await.unwrap();
        let uploads = [upload("a/1.parquet", 10), upload("b/2.parquet", 10)];
        let error = store.put_all(&uploads).await.unwrap_err();
        assert!(error.starts_with("b/2.parquet was not written: "), "{error}");
        assert_eq!(uploads.each_ref().map(|upload| upload.done.load(Ordering::Relaxed)), [true, false]);
        std::fs::remove_file(folder.path().join("a/1.parquet")).unwrap();
        std::fs::remove_file(folder.path().join("b")).unwrap();
        store.put_all(&uploads).await.unwrap();
        assert!(folder.path().join("b/2.parquet").exists() && !folder.path().join("a/1.parquet").exists());
    }
}
