//! A slice that several threads write to at disjoint places.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice, shared by threads that write to different items.
pub(super) struct Disjoint<'a, T> {
    first: *mut T,
    len: usize,
    _items: PhantomData<&'a mut [T]>,
}

// SAFETY: a shared `Disjoint` offers nothing but `range`, by whose contract an item is reached by
// one thread at a time. Handing `&mut T` to a thread needs `T: Send`.
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
    /// No overlapping slice that this function returned is still in use.
    #[inline(always)]
    pub(super) unsafe fn range(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a range of shared items");
        // SAFETY: the range lies within the slice, which is borrowed for `'a`, and by this
        // function's contract nothing else reaches its items meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(range.start), range.len()) }
    }
}
