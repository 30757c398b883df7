//! Threads that share out the work of a step, awake until it is over.
//!
//! A step is some hundred pieces of work, of a few microseconds to a few hundred each. To wake a thread takes as long as the shorter
//! ones, so it is done once a step; in between threads wait awake. Of each piece a thread has a stretch of its own, which it reads
//! straight on, and then helps with what is left of the others'.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Simd;

/// Looks at the board before a thread that waits lets others have its core.
const LOOKS: usize = 1 << 12;
/// The turn after the last.
const OVER: usize = usize::MAX;

/// The threads of a step, in the hands of the one that leads it.
pub struct Crew<'a> {
    simd: Simd,
    board: Option<&'a Board>,
    /// Only one thread leads: a piece of work cannot share out another.
    _not_sync: PhantomData<*const ()>,
}

/// What a crew has before its eyes.
struct Board {
    /// Odd while there is work to help with, even in between.
    turn: AtomicUsize,
    /// Written by the leader while the turn is even and nobody inside.
    work: UnsafeCell<Work>,
    /// The next index of each thread's stretch.
    next: Vec<Apart>,
    /// Helpers that are, or may be, at work.
    inside: AtomicUsize,
    panicked: AtomicBool,
}

/// A number whose neighbours in memory are its own.
#[repr(align(128))]
struct Apart(AtomicUsize);

/// A piece of work: all of `0..count`, `grain` at a time.
#[derive(Clone, Copy)]
struct Work {
    count: usize,
    grain: usize,
    run: *const (dyn Fn(Range<usize>) + Sync),
}

// SAFETY: the cell is written by one thread, the leader, only while no other reads it; what the pointer leads to is Sync.
unsafe impl Sync for Board {}

impl Crew<'_> {
    /// The caller by itself.
    #[must_use]
    pub fn alone(simd: Simd) -> Self {
        Self { simd, board: None, _not_sync: PhantomData }
    }

    /// What `lead` returns, called with all threads of the rayon pool at hand, which stay awake meanwhile.
    pub fn awake<R>(simd: Simd, lead: impl FnOnce(&Crew<'_>) -> R) -> R {
        let threads = rayon::current_num_threads();
        if threads == 1 {
            return lead(&Crew::alone(simd));
        }
        let board = Board::new(threads);
        rayon::in_place_scope(|scope| {
            let board = &board;
            for me in 1..threads {
                scope.spawn(move |_| board.help(me));
            }
            let _over = OnDrop(|| board.turn.store(OVER, Ordering::SeqCst));
            lead(&Crew { simd, board: Some(board), _not_sync: PhantomData })
        })
    }

    /// The instruction set to compute with.
    #[must_use]
    pub fn simd(&self) -> Simd {
        self.simd
    }

    /// Calls `work` with ranges, each of `grain` or less, that make up `0..count`, on all threads.
    ///
    /// # Panics
    /// Where `work` does, once nobody works on it any more.
    pub fn share(&self, count: usize, grain: usize, work: impl Fn(Range<usize>) + Sync) {
        match self.board {
            Some(board) if count > grain => board.lead(count, grain, &work),
            _ if count > 0 => work(0..count),
            _ => {}
        }
    }

    /// Calls `work` with the index and the items of each `len` of `items`, `grain` of these chunks at a time, on all threads.
    ///
    /// # Panics
    /// As [`Crew::share`].
    pub fn chunks<T: Send>(&self, items: &mut [T], len: usize, grain: usize, work: impl Fn(usize, &mut [T]) + Sync) {
        let count = items.len();
        let items = Disjoint::new(items);
        self.share(count.div_ceil(len), grain, |chunks| {
            for index in chunks {
                let (start, end) = (index * len, count.min((index + 1) * len));
                // SAFETY: chunks do not overlap, and `share` gives each index to one thread, once.
                work(index, unsafe { items.range(start..end) });
            }
        });
    }
}

/// A slice that several threads write to, each at places of its own.
pub(super) struct Disjoint<'a, T> {
    first: *mut T,
    len: usize,
    _items: PhantomData<&'a mut [T]>,
}

// SAFETY: all that threads do with a shared `Disjoint` is to call `range`, whose callers see to it that an item is reached
// by one thread at a time. This sends `&mut T` between threads, for which `T: Send` suffices.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Borrows `items` for as long as threads write to them.
    pub(super) fn new(items: &'a mut [T]) -> Self {
        Self { first: items.as_mut_ptr(), len: items.len(), _items: PhantomData }
    }

    /// Returns items to write to.
    ///
    /// # Panics
    /// If the range does not lie within the slice.
    ///
    /// # Safety
    /// No other slice that this function returned and that is still in use overlaps this one.
    #[inline(always)]
    pub(super) unsafe fn range(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a range of shared items");
        // SAFETY: the range lies within the slice, which is borrowed for `'a`, and by this function's contract nobody
        // else reaches its items meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(range.start), range.len()) }
    }
}

impl Board {
    fn new(threads: usize) -> Self {
        let nothing: &(dyn Fn(Range<usize>) + Sync) = &|_| {};
        Self {
            turn: AtomicUsize::new(0),
            work: UnsafeCell::new(Work { count: 0, grain: 1, run: nothing }),
            next: (0..threads).map(|_| Apart(AtomicUsize::new(0))).collect(),
            inside: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
        }
    }

    /// Where thread number `whose` begins in `0..count`.
    fn start(&self, whose: usize, count: usize) -> usize {
        whose * count / self.next.len()
    }

    fn lead(&self, count: usize, grain: usize, run: &(dyn Fn(Range<usize>) + Sync)) {
        // SAFETY: the lifetime alone is forgotten, and nobody is inside when this returns or unwinds.
        let run =
            unsafe { std::mem::transmute::<&(dyn Fn(Range<usize>) + Sync), *const (dyn Fn(Range<usize>) + Sync)>(run) };
        // SAFETY: the turn is even and nobody inside.
        unsafe { *self.work.get() = Work { count, grain, run } };
        for (whose, next) in self.next.iter().enumerate() {
            next.0.store(self.start(whose, count), Ordering::Relaxed);
        }
        self.panicked.store(false, Ordering::Relaxed);
        self.turn.fetch_add(1, Ordering::SeqCst);
        let end = OnDrop(|| {
            self.turn.fetch_add(1, Ordering::SeqCst);
            wait(|| self.inside.load(Ordering::SeqCst) == 0);
        });
        self.work(0);
        drop(end);
        assert!(!self.panicked.load(Ordering::SeqCst), "a thread that helped with a step has panicked");
    }

    /// Helps with all work until the step is over.
    fn help(&self, me: usize) {
        let mut seen = 0;
        loop {
            wait(|| self.turn.load(Ordering::Acquire) != seen);
            seen = self.turn.load(Ordering::SeqCst);
            if seen == OVER {
                return;
            }
            if seen % 2 == 1 {
                // Whoever is inside at an odd turn is seen by the leader before it changes anything.
                self.inside.fetch_add(1, Ordering::SeqCst);
                if self.turn.load(Ordering::SeqCst) == seen && catch_unwind(AssertUnwindSafe(|| self.work(me))).is_err()
                {
                    self.panicked.store(true, Ordering::SeqCst);
                }
                self.inside.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// One's own stretch, then what is left of the others'.
    fn work(&self, me: usize) {
        // SAFETY: the turn is odd or this thread inside, so the work is not being written and its function lives.
        let (Work { count, grain, .. }, run) = unsafe {
            let work = *self.work.get();
            (work, &*work.run)
        };
        let threads = self.next.len();
        for whose in (me..threads).chain(0..me) {
            let end = self.start(whose + 1, count);
            loop {
                let first = self.next[whose].0.fetch_add(grain, Ordering::Relaxed);
                if first >= end {
                    break;
                }
                run(first..end.min(first + grain));
            }
        }
    }
}

fn wait(until: impl Fn() -> bool) {
    let mut looks = 0;
    while !until() {
        looks += 1;
        if looks < LOOKS {
            spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// Calls a function at its end, a panic included.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_threads<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
    }

    #[test]
    fn every_index_is_worked_on_once_whoever_is_late() {
        for threads in 1..6 {
            with_threads(threads, || {
                Crew::awake(Simd::detect(), |crew| {
                    for (count, grain) in
                        [(0, 1), (1, 1), (2, 7), (5, 1), (64, 3), (1000, 10), (7, 7), (3, 1)].repeat(50)
                    {
                        let mut times = vec![0; count];
                        crew.chunks(&mut times, 1, grain, |index, times| times[0] += index + 1);
                        assert!(times.iter().enumerate().all(|(index, times)| *times == index + 1), "{times:?}");
                        let seen = AtomicUsize::new(0);
                        crew.share(count, grain, |range| {
                            seen.fetch_add(range.len(), Ordering::Relaxed);
                        });
                        assert_eq!(seen.into_inner(), count);
                    }
                });
            });
        }
    }

    #[test]
    fn the_last_chunk_may_be_short() {
        let mut items: Vec<usize> = vec![0; 23];
        with_threads(3, || {
            Crew::awake(Simd::detect(), |crew| {
                crew.chunks(&mut items, 5, 1, |index, items| items.fill(index + items.len()))
            });
        });
        assert_eq!(items[..20], [5, 6, 7, 8].map(|value| [value; 5]).concat());
        assert_eq!(items[20..], [7; 3]);
    }

    #[test]
    fn a_panic_reaches_the_leader_and_the_crew_goes_on() {
        with_threads(3, || {
            Crew::awake(Simd::detect(), |crew| {
                for bad in 0..30 {
                    let lead = || crew.share(30, 1, |range| assert!(range.start != bad, "bad"));
                    assert!(catch_unwind(AssertUnwindSafe(lead)).is_err());
                    let seen = AtomicUsize::new(0);
                    crew.share(30, 1, |_| {
                        seen.fetch_add(1, Ordering::Relaxed);
                    });
                    assert_eq!(seen.into_inner(), 30);
                }
            });
        });
    }

    #[test]
    fn steps_may_be_led_at_once_from_all_threads_of_a_pool() {
        use rayon::prelude::*;
        let sums: Vec<usize> = with_threads(2, || {
            let step = |_| {
                Crew::awake(Simd::detect(), |crew| {
                    let sum = AtomicUsize::new(0);
                    crew.share(100, 3, |range| {
                        sum.fetch_add(range.sum::<usize>(), Ordering::Relaxed);
                    });
                    sum.into_inner()
                })
            };
            (0..64).into_par_iter().map(step).collect()
        });
        assert!(sums.iter().all(|sum| *sum == 4950));
    }
}
