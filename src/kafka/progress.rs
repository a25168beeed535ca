//! What a member of the group has committed, as its watcher reads it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::position::{Next, Offsets};

/// The offset of a partition that has not begun yet.
pub const NOT_BEGUN: i64 = -1;

/// Shared by a member and its watcher. A lock, taken once per commit.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The next offset to read, as it was committed last, of the partitions that the member reads.
    committed: Mutex<BTreeMap<i32, i64>>,
    commits: AtomicU64,
    emptied: AtomicU64,
    /// Why the member is to be another one.
    stuck: Mutex<Option<String>>,
}

/// What a member had done at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The next offset to read, as it was committed last, of the partitions that the member reads; or [`NOT_BEGUN`].
    pub committed: BTreeMap<i32, i64>,
    /// How often it committed.
    pub commits: u64,
    /// How often it found that nothing of what was fetched is left.
    pub emptied: u64,
}

impl Progress {
    /// What was done so far.
    pub fn done(&self) -> Done {
        Done {
            committed: self.0.committed.lock().map(|committed| committed.clone()).unwrap_or_default(),
            commits: self.0.commits.load(Ordering::Relaxed),
            emptied: self.0.emptied.load(Ordering::Relaxed),
        }
    }

    /// Nothing of what was fetched is left.
    pub fn emptied(&self) {
        self.0.emptied.fetch_add(1, Ordering::Relaxed);
    }

    /// These offsets are committed.
    pub fn committed(&self, offsets: &Offsets) {
        if !offsets.is_empty() {
            self.note(offsets.iter().map(|(&partition, next)| (partition, next.offset)));
        }
    }

    /// As [`Progress::committed`]. What is said of a partition that is not read any more comes too late.
    pub(super) fn note(&self, offsets: impl Iterator<Item = (i32, i64)>) {
        self.0.commits.fetch_add(1, Ordering::Relaxed);
        self.change(|committed| {
            for (partition, offset) in offsets {
                if let Some(slot) = committed.get_mut(&partition) {
                    *slot = offset;
                }
            }
        });
    }

    /// The member reads nothing, for this reason, though there are records: it is to go on with another client.
    pub fn distrust(&self, reason: &str) {
        if let Ok(mut stuck) = self.0.stuck.lock() {
            *stuck = Some(reason.to_owned());
        }
    }

    /// Why the member is to go on with another client, where it is; said once.
    pub fn distrusted(&self) -> Option<String> {
        self.0.stuck.lock().ok()?.take()
    }

    /// Partitions that are read from now on, as soon as they begin.
    pub(super) fn take(&self, partitions: &[i32]) {
        self.change(|committed| committed.extend(partitions.iter().map(|&partition| (partition, NOT_BEGUN))));
    }

    /// Where partitions go on that were taken.
    pub(super) fn begin(&self, offsets: &Offsets) {
        let begin = |slot: &mut i64, next: &Next| {
            if *slot == NOT_BEGUN {
                *slot = next.offset;
            }
        };
        self.change(|committed| {
            for (partition, next) in offsets {
                committed.entry(*partition).and_modify(|slot| begin(slot, next));
            }
        });
    }

    /// Partitions that are not read any more, or not for a while.
    pub(super) fn give_up(&self, partitions: &[i32]) {
        self.change(|committed| committed.retain(|partition, _| !partitions.contains(partition)));
    }

    /// No partition is read any more.
    pub(super) fn end(&self) {
        self.change(BTreeMap::clear);
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<i32, i64>)) {
        if let Ok(mut committed) = self.0.committed.lock() {
            change(&mut committed);
        }
    }
}
