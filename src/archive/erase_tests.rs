#![allow(clippy::unwrap_used)]

use std::os::unix::fs::MetadataExt as _;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use fraud_storage::Location;
use fraud_wire::verdict::Verdict;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as Place;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectStore, ObjectStoreExt as _,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use parquet::basic::Compression;
use parquet::record::Field;

use super::super::columns::tests::verdict;
use super::super::columns::{FileUnderWay, Layout};
use super::*;

/// A file with a row per id, in row groups of four; every fifth row has no features.
fn file(ids: &[&str]) -> Vec<u8> {
    use std::io::{Read as _, Seek as _};
    let spool = tempfile::tempdir().unwrap();
    let layout = Layout::new(&["V1".to_owned(), "Amount".to_owned()]).unwrap();
    let mut file = FileUnderWay::new(&layout, 40);
    for (id, number) in ids.iter().zip(0_i64..) {
        let verdict = Verdict { transaction_id: (*id).to_owned(), ..verdict(number) };
        let features = [number as f32, if number == 1 { f32::NAN } else { 149.62 }];
        let place = columns::Place { partition: 7, offset: 40 + number };
        file.add(place, &verdict, (number % 5 != 4).then_some(features.as_slice()));
        if number % 4 == 3 {
            file.flush(spool.path()).unwrap();
        }
    }
    let mut spooled = file.finish(spool.path()).unwrap();
    let mut bytes = Vec::new();
    spooled.file.rewind().unwrap();
    spooled.file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// All rows, as text: NaN equals itself there.
fn rows(file: Bytes) -> Vec<String> {
    let reader = SerializedFileReader::new(file).unwrap();
    reader.get_row_iter(None).unwrap().map(|row| format!("{:?}", row.unwrap().into_columns())).collect()
}

fn without_ids(rows: &[String], ids: &[&str]) -> Vec<String> {
    let is_of = |row: &String, id: &str| row.contains(&format!("{:?}", ("transaction_id", Field::Str(id.to_owned()))));
    rows.iter().filter(|row| !ids.iter().any(|id| is_of(row, id))).cloned().collect()
}

fn ids(ids: &[&str]) -> Ids {
    ids.iter().map(|id| id.as_bytes().into()).collect()
}

fn run(store: &Store, ids: &Ids, dry_run: bool) -> Summary {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let spool = tempfile::tempdir().unwrap();
    let summary = Eraser { store, runtime: runtime.handle(), spool: spool.path(), ids, dry_run }.run();
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "spool files have no names");
    summary
}

const MIXED: [&str; 10] = ["a", "b", "gone", "c", "gone", "also gone", "d", "e", "f", "a"];

#[test]
fn rows_of_the_ids_go_and_all_others_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let hour = folder.path().join("date=2026-01-31/hour=22");
    std::fs::create_dir_all(&hour).unwrap();
    let write = |name: &str, bytes: Vec<u8>| std::fs::write(hour.join(name), bytes).unwrap();
    write("mixed.parquet", file(&MIXED));
    write("none.parquet", file(&["a", "b", "gone?", "Gone"]));
    write("all.parquet", file(&["gone", "gone", "also gone"]));
    // A file that is being written is none of the archive's yet.
    write("mixed.parquet#1", b"half".to_vec());
    let read = |name: &str| Bytes::from(std::fs::read(hour.join(name)).unwrap());
    let (before, untouched) = (rows(read("mixed.parquet")), std::fs::metadata(hour.join("none.parquet")).unwrap());

    let store = Store::open(&Location::Folder(folder.path().to_owned())).unwrap();
    let erased = ids(&["gone", "also gone", "in no file"]);
    let expected = Summary { files: 3, rewritten: 2, rows: 6, failed: 0 };
    let bytes = read("mixed.parquet");
    assert_eq!(run(&store, &erased, true), expected);
    assert_eq!(read("mixed.parquet"), bytes, "it only counted");
    assert_eq!(run(&store, &erased, false), expected);

    let after = rows(read("mixed.parquet"));
    assert_eq!((after.len(), &after), (7, &without_ids(&before, &["gone", "also gone"])));
    assert_eq!(rows(read("all.parquet")), Vec::<String>::new(), "the file stays");
    let same = std::fs::metadata(hour.join("none.parquet")).unwrap();
    assert_eq!((same.ino(), same.mtime_nsec()), (untouched.ino(), untouched.mtime_nsec()));
    assert_eq!(std::fs::read_dir(&hour).unwrap().count(), 4);

    // As the archive writes files, and without a trace of the ids, in statistics above all.
    let (old, new) =
        (SerializedFileReader::new(bytes).unwrap(), SerializedFileReader::new(read("mixed.parquet")).unwrap());
    assert_eq!(new.metadata().file_metadata().schema(), old.metadata().file_metadata().schema());
    assert_eq!(new.metadata().file_metadata().created_by(), old.metadata().file_metadata().created_by());
    let groups: Vec<i64> = new.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [3, 2, 2]);
    for column in new.metadata().row_group(0).columns() {
        assert_eq!(column.compression(), Compression::SNAPPY);
        assert!(column.statistics().is_some(), "{}", column.column_path());
    }
    assert!(!read("mixed.parquet").windows(4).any(|bytes| bytes == b"gone"));
    assert_eq!(run(&store, &erased, false), Summary { files: 3, ..Summary::default() }, "nothing is left to do");
}

#[test]
fn what_is_no_file_of_an_archive_is_counted_as_failed_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.parquet"), b"PAR1 not").unwrap();
    std::fs::write(folder.path().join("b.parquet"), file(&["a", "gone"])).unwrap();
    let store = Store::open(&Location::Folder(folder.path().to_owned())).unwrap();
    assert_eq!(run(&store, &ids(&["gone"]), false), Summary { files: 1, rewritten: 1, rows: 1, failed: 1 });
}

/// A store whose process dies: after so many steps nothing happens any more. A put may be the last thing that does.
#[derive(Debug)]
struct Dying {
    inner: InMemory,
    steps: AtomicUsize,
    /// A file that somebody else adds after the first put.
    added: Mutex<Option<(Place, Vec<u8>)>>,
}

impl Dying {
    fn step(&self) -> object_store::Result<()> {
        let step = self.steps.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        step.map(|_| ()).map_err(|_| object_store::Error::Generic { store: "dying", source: "killed".into() })
    }
}

impl std::fmt::Display for Dying {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("dying")
    }
}

/// What `async fn` of the trait is without its macro.
type Pending<'a, T> = Pin<Box<dyn Future<Output = object_store::Result<T>> + Send + 'a>>;

impl ObjectStore for Dying {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Place,
        payload: PutPayload,
        options: PutOptions,
    ) -> Pending<'c, PutResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            self.step()?;
            let put = self.inner.put_opts(location, payload, options).await?;
            let added = self.added.lock().unwrap().take();
            if let Some((place, bytes)) = added {
                self.inner.put(&place, bytes.into()).await?;
            }
            self.step()?;
            Ok(put)
        })
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        location: &'b Place,
        options: PutMultipartOptions,
    ) -> Pending<'c, Box<dyn MultipartUpload>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.inner.put_multipart_opts(location, options)
    }

    fn get_opts<'a, 'b, 'c>(&'a self, location: &'b Place, options: GetOptions) -> Pending<'c, GetResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async move {
            self.step()?;
            self.inner.get_opts(location, options).await
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Place>>,
    ) -> BoxStream<'static, object_store::Result<Place>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Place>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.step() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures_util::stream::once(std::future::ready(Err(error))).boxed(),
        }
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Place>) -> Pending<'c, ListResult>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.inner.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'd, 'c>(&'a self, from: &'b Place, to: &'d Place, options: CopyOptions) -> Pending<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
        Self: 'c,
    {
        self.inner.copy_opts(from, to, options)
    }
}

/// A store of these files that dies after so many steps.
fn dying(files: &[(&str, Vec<u8>)], steps: usize) -> Arc<Dying> {
    let store = Dying { inner: InMemory::new(), steps: AtomicUsize::new(steps), added: Mutex::new(None) };
    for (name, bytes) in files {
        block_on(store.inner.put(&Place::from(*name), bytes.clone().into())).unwrap();
    }
    Arc::new(store)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn read(store: &Dying, name: &str) -> Bytes {
    block_on(async { store.inner.get(&Place::from(name)).await.unwrap().bytes().await.unwrap() })
}

#[test]
fn killed_between_any_two_steps_each_file_is_the_old_or_the_new_one_and_the_next_run_does_the_rest() {
    let files =
        [("lake/1.parquet", file(&MIXED)), ("lake/2.parquet", file(&["a", "b"])), ("lake/3.parquet", file(&["gone"]))];
    let erased = ids(&["gone", "also gone"]);
    let old = files.each_ref().map(|(_, bytes)| rows(bytes.clone().into()));
    let new = old.each_ref().map(|rows| without_ids(rows, &["gone", "also gone"]));
    let mut steps = 0;
    loop {
        let inner = dying(&files, steps);
        let store = Store::over(inner.clone(), "lake");
        let summary = run(&store, &erased, false);
        for (index, (name, _)) in files.iter().enumerate() {
            let found = rows(read(&inner, name));
            assert!(found == old[index] || found == new[index], "{name} after {steps} steps: {found:?}");
        }
        inner.steps.store(usize::MAX, Ordering::Relaxed);
        let again = run(&store, &erased, false);
        assert_eq!((again.files, again.failed), (3, 0), "after {steps} steps");
        assert_eq!(files.each_ref().map(|(name, _)| rows(read(&inner, name))), new, "after {steps} steps");
        assert_eq!(block_on(inner.inner.list(None).count()), 3, "nothing else is left");
        if summary.failed == 0 {
            assert_eq!(summary, Summary { files: 3, rewritten: 2, rows: 4, failed: 0 });
            break;
        }
        steps += 1;
    }
    // Three lists, a get for each file and for each new one, and what is before and behind each put.
    assert_eq!(steps, 3 + 3 + 2 + 2 * 2);
}

#[test]
fn files_that_are_added_meanwhile_are_looked_through_too() {
    let inner = dying(&[("lake/2.parquet", file(&["a", "gone"]))], usize::MAX);
    *inner.added.lock().unwrap() = Some((Place::from("lake/1.parquet"), file(&["gone", "b", "c"])));
    let store = Store::over(inner.clone(), "lake");
    assert_eq!(run(&store, &ids(&["gone"]), false), Summary { files: 2, rewritten: 2, rows: 2, failed: 0 });
    assert_eq!(rows(read(&inner, "lake/1.parquet")).len(), 2);
}
