//! Worker threads that compute one step together.
//!
//! A step is some hundred parallel loops of a few microseconds to a few hundred each. Waking a
//! thread takes as long as the shorter ones, so threads are woken once per step and spin between
//! loops. In each loop a thread first works through its own range of indices, so that it reads its
//! part of a matrix sequentially, then steals from the ranges of other threads.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Simd;
use super::disjoint::Disjoint;

/// Number of spins before a waiting thread starts to yield its core.
const SPINS: usize = 1 << 12;
/// The epoch that tells helpers that the step is over. It is odd, so it is compared before the
/// parity.
const DONE: usize = usize::MAX;

/// The leader's handle to the threads of a step.
pub(crate) struct Workers<'a> {
    simd: Simd,
    shared: Option<&'a Shared>,
    /// Makes the type `!Sync`: only one thread leads, and the body of a loop cannot start another
    /// loop.
    _not_sync: PhantomData<*const ()>,
}

/// State that the leader and its helpers share.
///
/// A counter, the epoch, is odd while a loop is open and even between loops. The leader alone
/// changes it, and only upwards. To open a loop it writes `task`, then makes the epoch odd; to
/// close it, it makes the epoch even, then waits until no helper is active. A helper that finds an
/// odd epoch counts itself as active, *then* reads the epoch again, and touches `task` only if the
/// epoch is still the same.
///
/// These four accesses (helper: write `active`, read `epoch`; leader: write `epoch`, read `active`)
/// are sequentially consistent, so they have one order that all threads agree on. Either the
/// helper's write comes before the leader's read, and the leader waits for it; or it comes after,
/// then so does the helper's read, which finds a later epoch, and the helper leaves without
/// touching the task. With acquire and release alone both could miss each other's write.
struct Shared {
    epoch: AtomicUsize,
    /// The open loop. Written by the leader while the epoch is even and no helper active.
    task: UnsafeCell<Task>,
    /// Next index of each thread's range.
    next: Vec<CacheLine<AtomicUsize>>,
    /// Number of helpers that run the open loop or are checking that it is still open.
    active: AtomicUsize,
    panicked: AtomicBool,
}

/// A value on cache lines of its own, to avoid false sharing: 128 bytes, as processors prefetch
/// lines in pairs.
#[repr(align(128))]
struct CacheLine<T>(T);

/// A loop over `0..count`, in ranges of at most `grain` indices.
#[derive(Clone, Copy)]
struct Task {
    count: usize,
    grain: usize,
    body: *const (dyn Fn(Range<usize>) + Sync),
}

// SAFETY: all fields but `task` are `Sync`. By the protocol described at `Shared`, the leader
// writes `task` only while no other thread reads it, and the body that it points to is `Sync`.
unsafe impl Sync for Shared {}

impl Workers<'_> {
    /// Returns a pool that consists of the calling thread only.
    #[must_use]
    pub(crate) fn alone(simd: Simd) -> Self {
        Self { simd, shared: None, _not_sync: PhantomData }
    }

    /// Calls `lead` with the threads of the current rayon pool. They spin, ready for loops, until
    /// it returns.
    pub(crate) fn awake<R>(simd: Simd, lead: impl FnOnce(&Workers<'_>) -> R) -> R {
        let threads = rayon::current_num_threads();
        if threads == 1 {
            return lead(&Workers::alone(simd));
        }
        let shared = Shared::new(threads);
        rayon::in_place_scope(|scope| {
            let shared = &shared;
            for thread in 1..threads {
                scope.spawn(move |_| shared.help(thread));
            }
            let _done = OnDrop(|| shared.epoch.store(DONE, Ordering::SeqCst));
            lead(&Workers { simd, shared: Some(shared), _not_sync: PhantomData })
        })
    }

    /// Returns the instruction set to compute with.
    #[must_use]
    pub(crate) fn simd(&self) -> Simd {
        self.simd
    }

    /// Calls `body` on all threads, with disjoint ranges of at most `grain` indices that cover
    /// `0..count`.
    ///
    /// # Panics
    /// If `body` panics, after all threads have left it.
    pub(crate) fn share(&self, count: usize, grain: usize, body: impl Fn(Range<usize>) + Sync) {
        match self.shared {
            Some(shared) if count > grain => shared.lead(count, grain, &body),
            _ if count > 0 => body(0..count),
            _ => {}
        }
    }

    /// Calls `body` on all threads with each chunk of `len` items and its index, `grain` chunks at
    /// a time. The last chunk may be shorter.
    ///
    /// # Panics
    /// If `body` panics, after all threads have left it.
    pub(crate) fn chunks<T: Send>(
        &self,
        items: &mut [T],
        len: usize,
        grain: usize,
        body: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let count = items.len();
        let items = Disjoint::new(items);
        self.share(count.div_ceil(len), grain, |chunks| {
            for index in chunks {
                // SAFETY: chunks do not overlap, and `share` gives each index to one thread, once.
                body(index, unsafe { items.range(index * len..count.min((index + 1) * len)) });
            }
        });
    }
}

impl Shared {
    fn new(threads: usize) -> Self {
        let nothing: &(dyn Fn(Range<usize>) + Sync) = &|_| {};
        Self {
            epoch: AtomicUsize::new(0),
            task: UnsafeCell::new(Task { count: 0, grain: 1, body: nothing }),
            next: (0..threads).map(|_| CacheLine(AtomicUsize::new(0))).collect(),
            active: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
        }
    }

    /// Returns the first index of a thread's range in `0..count`.
    fn start(&self, thread: usize, count: usize) -> usize {
        thread * count / self.next.len()
    }

    /// Runs a loop as the leader, which is thread 0.
    fn lead(&self, count: usize, grain: usize, body: &(dyn Fn(Range<usize>) + Sync)) {
        // SAFETY: only the lifetime is erased. `close` below, which runs also when this function
        // unwinds, waits until no thread uses the pointer any more.
        let body = unsafe {
            std::mem::transmute::<&(dyn Fn(Range<usize>) + Sync), *const (dyn Fn(Range<usize>) + Sync)>(body)
        };
        // SAFETY: the epoch is even and no helper active, so no thread reads the cell: see
        // `Shared`.
        unsafe { *self.task.get() = Task { count, grain, body } };
        for (thread, next) in self.next.iter().enumerate() {
            next.0.store(self.start(thread, count), Ordering::Relaxed);
        }
        self.panicked.store(false, Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let close = OnDrop(|| {
            self.epoch.fetch_add(1, Ordering::SeqCst);
            wait(|| self.active.load(Ordering::SeqCst) == 0);
        });
        self.run(0);
        drop(close);
        assert!(!self.panicked.load(Ordering::SeqCst), "a thread that helped with a step has panicked");
    }

    /// Runs a helper thread: takes part in every loop until the step is over.
    fn help(&self, thread: usize) {
        let mut seen = 0;
        loop {
            wait(|| self.epoch.load(Ordering::Acquire) != seen);
            seen = self.epoch.load(Ordering::SeqCst);
            if seen == DONE {
                return;
            }
            if seen % 2 == 1 {
                self.active.fetch_add(1, Ordering::SeqCst);
                let is_open = self.epoch.load(Ordering::SeqCst) == seen;
                if is_open && catch_unwind(AssertUnwindSafe(|| self.run(thread))).is_err() {
                    self.panicked.store(true, Ordering::SeqCst);
                }
                self.active.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Runs the open loop on one thread: its own range, then what is left of the others'.
    ///
    /// The counters may be relaxed: each index is handed out by one atomic addition, and what the
    /// loop reads and writes is ordered by the epoch and by `active`.
    fn run(&self, thread: usize) {
        // SAFETY: this thread is the leader in `lead`, or a helper that is active and found the
        // loop open. The leader neither writes the cell nor lets the body's lifetime end before it
        // has closed the loop and no helper is active: see `Shared`.
        let (Task { count, grain, .. }, body) = unsafe {
            let task = *self.task.get();
            (task, &*task.body)
        };
        let threads = self.next.len();
        for owner in (thread..threads).chain(0..thread) {
            let end = self.start(owner + 1, count);
            loop {
                let first = self.next[owner].0.fetch_add(grain, Ordering::Relaxed);
                if first >= end {
                    break;
                }
                body(first..end.min(first + grain));
            }
        }
    }
}

/// Waits for a condition, spinning at first and then yielding.
fn wait(until: impl Fn() -> bool) {
    let mut spins = 0;
    while !until() {
        spins += 1;
        if spins < SPINS {
            spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// A guard that calls a function when dropped, also while unwinding.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests;
