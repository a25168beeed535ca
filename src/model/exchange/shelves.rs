//! The hand-over between who prepares and who scores: a shelf per scoring thread.
//!
//! ```text
//!  exchange   ── stock(one for each thread) ── want(7) ──►  shelf of thread 0: [6, 7]   in use: 6
//!  thread 0   ── wanted()? 7 ── exchange(&mut mine) ─────►  shelf of thread 0: [6]      in use: 7
//! ```
//!
//! A thread looks at one atomic. What it takes was prepared for it alone, and what it gives back stays on its shelf: the
//! way back is as short as the way there. Whoever is not a scoring thread holds a shelf's lock for a few pointer moves;
//! a thread never waits for it, it looks again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What is exchanged has a number of its own.
pub trait Numbered {
    /// The number; the same on every thread's shelf.
    fn number(&self) -> u64;
}

/// One shelf per scoring thread.
pub(super) struct Shelves<T> {
    wanted: AtomicU64,
    shelves: Vec<Mutex<Shelf<T>>>,
}

struct Shelf<T> {
    items: Vec<T>,
    in_use: Option<u64>,
}

impl<T: Numbered> Shelves<T> {
    /// Empty shelves for so many threads.
    pub(super) fn new(threads: usize) -> Shelves<T> {
        let shelf = || Mutex::new(Shelf { items: Vec::new(), in_use: None });
        Shelves { wanted: AtomicU64::new(0), shelves: (0..threads).map(|_| shelf()).collect() }
    }

    /// What threads are to use.
    #[inline]
    pub(super) fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::Acquire)
    }

    /// From now on threads are to use `number`, which was stocked.
    pub(super) fn want(&self, number: u64) {
        self.wanted.store(number, Ordering::Release);
    }

    /// Puts one item on each thread's shelf.
    pub(super) fn stock(&self, items: Vec<T>) {
        debug_assert_eq!(items.len(), self.shelves.len());
        for (shelf, item) in self.shelves.iter().zip(items) {
            lock(shelf).items.push(item);
        }
    }

    /// Takes what is wanted for a thread that has nothing yet.
    pub(super) fn take(&self, thread: usize) -> Option<T> {
        let wanted = self.wanted();
        let mut shelf = lock(self.shelves.get(thread)?);
        let index = shelf.items.iter().position(|item| item.number() == wanted)?;
        shelf.in_use = Some(wanted);
        Some(shelf.items.swap_remove(index))
    }

    /// Gives `mine` for what is wanted; says whether it did. Where the shelf is just being filled: next time.
    pub(super) fn exchange(&self, thread: usize, mine: &mut T) -> bool {
        let wanted = self.wanted();
        let Some(Ok(mut shelf)) = self.shelves.get(thread).map(Mutex::try_lock) else { return false };
        let Some(found) = shelf.items.iter_mut().find(|item| item.number() == wanted) else { return false };
        std::mem::swap(found, mine);
        shelf.in_use = Some(wanted);
        true
    }

    /// The thread is gone: nobody waits for it.
    pub(super) fn leave(&self, thread: usize) {
        if let Some(shelf) = self.shelves.get(thread) {
            lock(shelf).in_use = None;
        }
    }

    /// Threads that do not use `number` yet, of those that use anything.
    pub(super) fn behind(&self, number: u64) -> usize {
        self.shelves.iter().filter(|shelf| lock(shelf).in_use.is_some_and(|used| used != number)).count()
    }

    /// Drops all but these; on the calling thread.
    pub(super) fn keep(&self, numbers: &[u64]) {
        for shelf in &self.shelves {
            let dropped: Vec<T> = lock(shelf).items.extract_if(.., |item| !numbers.contains(&item.number())).collect();
            drop(dropped);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Item(u64);

    impl Numbered for Item {
        fn number(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn what_is_given_back_stays_for_the_way_back() {
        let shelves = Shelves::new(2);
        shelves.stock(vec![Item(1), Item(1)]);
        shelves.want(1);
        let take = |thread| shelves.take(thread).expect("stocked");
        let (mut first, mut second) = (take(0), take(1));
        shelves.stock(vec![Item(2), Item(2)]);
        assert_eq!((shelves.wanted(), shelves.behind(1)), (1, 0));
        shelves.want(2);
        assert!(shelves.exchange(0, &mut first));
        assert_eq!((first.0, shelves.behind(2)), (2, 1));
        // The second thread stands still meanwhile; the next model comes and the first is forgotten.
        shelves.stock(vec![Item(3), Item(3)]);
        shelves.want(3);
        shelves.keep(&[3, 2]);
        assert!(shelves.exchange(0, &mut first) && shelves.exchange(1, &mut second));
        assert_eq!((first.0, second.0, shelves.behind(3)), (3, 3, 0));
        // Back: prepared for both, although the second thread never used it.
        shelves.want(2);
        assert!(shelves.exchange(0, &mut first) && shelves.exchange(1, &mut second));
        assert_eq!((first.0, second.0), (2, 2));
        shelves.keep(&[2, 3]);
        assert_eq!(shelves.behind(3), 2);
        shelves.leave(1);
        assert_eq!(shelves.behind(3), 1);
        shelves.want(1);
        assert!(
            !shelves.exchange(0, &mut first) && !shelves.exchange(1, &mut second),
            "dropped, be it given back late"
        );
    }
}
