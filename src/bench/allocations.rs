//! Counts allocations: an allocator around another one.
//!
//! ```text
//! #[global_allocator] Counting(MiMalloc) ──while somebody counts──> one counter for each thread
//! ```
//! While nobody counts, an allocation costs one look at a flag. While somebody does, a thread adds to a counter of its own
//! without a locked instruction; threads beyond [`SLOTS`] share.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Counters. A process has two threads for each core, the workers, and a few more.
const SLOTS: usize = 128;

/// A counter on a cache line of its own (two, where they are fetched in pairs).
#[repr(align(128))]
struct Slot(AtomicU64);

static COUNTING: AtomicBool = AtomicBool::new(false);
static SLOT: [Slot; SLOTS] = [const { Slot(AtomicU64::new(0)) }; SLOTS];
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Which counter this thread has. Without a destructor and a lazy start: it is used within an allocation.
    static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// An allocator whose allocations can be counted.
#[derive(Debug, Default)]
pub struct Counting<A>(pub A);

fn count() {
    if !COUNTING.load(Ordering::Relaxed) {
        return;
    }
    let own = OWN.try_with(|own| {
        if own.get() == usize::MAX {
            own.set(THREADS.fetch_add(1, Ordering::Relaxed).min(SLOTS - 1));
        }
        own.get()
    });
    let at = own.unwrap_or(SLOTS - 1);
    let Some(Slot(counter)) = SLOT.get(at) else { return };
    if at == SLOTS - 1 {
        counter.fetch_add(1, Ordering::Relaxed);
    } else {
        // Nobody else writes it.
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe to write")]
// SAFETY: every call goes unchanged to the allocator within, whose promises are then this one's. Counting allocates
// nothing and touches atomics and a thread-local without a destructor only.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises; the pointer came from the allocator within.
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises; the pointer came from the allocator within.
        unsafe { self.0.realloc(pointer, layout, size) }
    }
}

/// Starts to count, for the rest of the process.
pub fn start() {
    COUNTING.store(true, Ordering::Relaxed);
}

/// Allocations counted; nothing when the process's allocator is not [`Counting`].
#[must_use]
pub fn counted() -> Option<u64> {
    let sum: u64 = SLOT.iter().map(|slot| slot.0.load(Ordering::Relaxed)).sum();
    (sum > 0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;

    #[test]
    fn counts_while_somebody_wants_it() {
        let allocator = Counting(System);
        let layout = Layout::from_size_align(64, 8).unwrap();
        let make = || {
            #[expect(unsafe_code, reason = "an allocator is unsafe to call")]
            // SAFETY: the layout is not empty, and what was allocated is freed once with the layout it then has.
            unsafe {
                let first = allocator.alloc(layout);
                let larger = allocator.realloc(first, layout, 128);
                allocator.dealloc(larger, Layout::from_size_align(128, 8).unwrap());
                let zeroed = allocator.alloc_zeroed(layout);
                assert_eq!(*zeroed.add(63), 0);
                allocator.dealloc(zeroed, layout);
            }
        };
        make();
        let before = counted().unwrap_or(0);
        start();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| make()));
            }
        });
        assert_eq!(counted().unwrap_or(0) - before, 12_000);
    }
}
