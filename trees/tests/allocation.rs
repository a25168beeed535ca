//! Once its memory has grown, the kernel allocates nothing, whatever the number of rows.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Comparisons, Likeness, Missing, Weights, rows};
use fraud_trees::ensemble::Aggregate;
use fraud_trees::kernel::{Kernel, Method};

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// The only test of this file, since threads of others would be counted as well.
#[test]
fn nothing_is_allocated_once_memory_has_grown() {
    let likeness = Likeness {
        seed: 3,
        width: 7,
        outputs: 2,
        trees: 20,
        depth: 5,
        leaves: 10,
        nodes: usize::MAX,
        thresholds: 300,
        comparisons: Comparisons::All,
        missing: Missing::Mixed,
        weights: Weights::All,
        aggregate: Aggregate::Sum,
        oblivious: false,
    };
    let (ensemble, thresholds) = likeness.ensemble();
    let rows = rows(1100, 5, &thresholds, 1);
    for method in Method::ALL {
        let Ok(mut kernel) = Kernel::compile_with(&ensemble, method) else { continue };
        let mut sums = Vec::new();
        let mut allocations = [0; 2];
        for allocations in &mut allocations {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for count in [1100, 1000, 513, 512, 400, 200, 100, 64, 63, 20, 1, 0] {
                kernel.sums(&rows[..count * 7], &mut sums);
            }
            *allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        }
        assert!(allocations[0] > 0);
        assert_eq!(allocations[1], 0, "{}", method.name());
    }
}
