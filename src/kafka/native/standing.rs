//! The headers that every message carries, exchangeable while messages are on their way.
//!
//! ```text
//!  slot 0: list, lent 312 ◄── current: lend(count) counts up, give_back() counts down
//!  slot 1: list, lent   0 ◄── free: exchange() fills it and makes it current
//! ```
//!
//! The thread that produces counts once per call of `rd_kafka_produce_batch`, librdkafka's thread once per message. The
//! count lies apart from what is read for each message: otherwise the two threads would take the same cache line from
//! each other at every message.
//!
//! The parent module says why this is sound.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicUsize, Ordering};

use rdkafka::bindings as sys;

use super::headers::{HeaderList, Headers, headers_size};

/// Two slots, of which one is current.
pub(super) struct Standing {
    slots: [Slot; 2],
    current: AtomicUsize,
}

/// A list of ours and how many messages hold it.
struct Slot {
    /// Null, or from [`HeaderList::into_raw`].
    list: AtomicPtr<sys::rd_kafka_headers_t>,
    /// Bytes of names and values.
    size: AtomicUsize,
    lent: Apart<AtomicI64>,
}

/// A value with cache lines of its own (two: processors fetch them in pairs).
#[repr(align(128))]
struct Apart<T>(T);

/// A list in a message's hands.
pub(super) struct Lending<'a>(&'a Slot);

impl Lending<'_> {
    /// The message no longer has it; gives its size in bytes.
    pub(super) fn give_back(self) -> usize {
        let size = self.0.size.load(Ordering::Relaxed);
        // The last: whoever sees 0 may free the list.
        self.0.lent.0.fetch_sub(1, Ordering::Release);
        size
    }
}

impl Standing {
    /// `headers` in the current slot, nothing in the other.
    pub(super) fn new(headers: &Headers<'_>) -> Standing {
        let slot =
            || Slot { list: AtomicPtr::new(null_mut()), size: AtomicUsize::new(0), lent: Apart(AtomicI64::new(0)) };
        let standing = Standing { slots: [slot(), slot()], current: AtomicUsize::new(0) };
        standing.slots[0].fill(headers);
        standing
    }

    /// Announces that up to `count` messages are about to be given the current list. What came of it is told by
    /// [`Standing::lent_less`], before anything else is lent or exchanged.
    pub(super) fn lend(&self, count: usize) {
        self.slot().lent.0.fetch_add(count as i64, Ordering::Relaxed);
    }

    /// So many of the messages last announced were not given the list.
    pub(super) fn lent_less(&self, count: usize) {
        if count > 0 {
            self.slot().lent.0.fetch_sub(count as i64, Ordering::Release);
        }
    }

    /// The current list, for a message that was announced.
    pub(super) fn list(&self) -> *mut sys::rd_kafka_headers_t {
        self.slot().list.load(Ordering::Relaxed)
    }

    fn slot(&self) -> &Slot {
        &self.slots[self.current.load(Ordering::Relaxed)]
    }

    /// The lending that `list` is; `None` where it is none of ours.
    pub(super) fn lending_of(&self, list: *const sys::rd_kafka_headers_t) -> Option<Lending<'_>> {
        let is = |slot: &&Slot| !list.is_null() && slot.list.load(Ordering::Acquire).cast_const() == list;
        self.slots.iter().find(is).map(Lending)
    }

    /// Messages that hold one of the lists.
    pub(super) fn lent(&self) -> i64 {
        self.slots.iter().map(|slot| slot.lent.0.load(Ordering::Acquire)).sum()
    }

    /// Whether no message holds the list that is not current.
    pub(super) fn is_free(&self) -> bool {
        self.other().1.lent.0.load(Ordering::Acquire) == 0
    }

    /// Makes `headers` current if the other slot is free; says whether it did. Only the lending thread may call it.
    pub(super) fn exchange(&self, headers: &Headers<'_>) -> bool {
        let (index, slot) = self.other();
        if slot.lent.0.load(Ordering::Acquire) != 0 {
            return false;
        }
        slot.fill(headers);
        self.current.store(index, Ordering::Relaxed);
        true
    }

    fn other(&self) -> (usize, &Slot) {
        let index = 1 - self.current.load(Ordering::Relaxed);
        (index, &self.slots[index])
    }
}

impl Slot {
    /// Replaces the list; nobody may hold the one before.
    fn fill(&self, headers: &Headers<'_>) {
        self.size.store(headers_size(headers), Ordering::Relaxed);
        let before = self.list.swap(HeaderList::new(headers).into_raw(), Ordering::AcqRel);
        // SAFETY: from `into_raw`, and nobody holds it.
        drop(unsafe { HeaderList::from_raw(before) });
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        for slot in &self.slots {
            // SAFETY: from `into_raw`; the client, and with it every message, is gone (or was leaked with this).
            drop(unsafe { HeaderList::from_raw(slot.list.swap(null_mut(), Ordering::AcqRel)) });
        }
    }
}
