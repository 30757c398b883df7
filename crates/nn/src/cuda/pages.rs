//! Bookkeeping of a KV cache in pages: which page holds which positions of which slot. Full pages
//! are shared between slots and counted; a page is copied only before it is written by one of
//! several holders. A page is at the same place on every card that a model's layers are on.

use std::collections::HashMap;

use crate::executor::Cached;

/// Positions in a page.
pub(super) const PAGE: usize = 16;

/// The pages of all slots. Page 0 and table row 0 belong to no slot: rows that only fill up a step
/// write there.
pub(super) struct Pages {
    /// The number of holders of each page.
    holders: Vec<u32>,
    free: Vec<u32>,
    slots: HashMap<u64, Slot>,
    free_rows: Vec<usize>,
    next_row: usize,
}

/// The cache of a sequence.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// The row of the table of pages.
    pub(super) row: usize,
    /// The tokens cached, to run them again when `long` changes.
    pub(super) tokens: Vec<u32>,
    /// Keys were rotated as those of a long sequence are.
    pub(super) long: bool,
    /// The first position of a tree, until the slot is reduced to a chain.
    pub(super) fork: Option<usize>,
    pub(super) pages: Vec<u32>,
    /// The first page whose number the devices do not know.
    pub(super) stale: usize,
}

/// The cache has no free page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// The number of pages asked for.
    pub(super) wanted: usize,
}

/// A page to copy before a step: from, to.
pub(super) type PageCopy = [u32; 2];

impl Slot {
    pub(super) fn cached(&self) -> Cached {
        Cached { len: self.tokens.len(), fork: self.fork }
    }
}

impl Pages {
    /// A cache of `count` pages, one of which is page 0.
    pub(super) fn new(count: usize) -> Self {
        let free = (1..count as u32).rev().collect();
        Self { holders: vec![0; count], free, slots: HashMap::new(), free_rows: Vec::new(), next_row: 1 }
    }

    pub(super) fn get(&self, slot: u64) -> Option<&Slot> {
        self.slots.get(&slot)
    }

    pub(super) fn get_mut(&mut self, slot: u64) -> Option<&mut Slot> {
        self.slots.get_mut(&slot)
    }

    /// Returns the slot, which is made if there is none.
    pub(super) fn slot(&mut self, slot: u64) -> &mut Slot {
        let (free_rows, next_row) = (&mut self.free_rows, &mut self.next_row);
        self.slots.entry(slot).or_insert_with(|| {
            let row = free_rows.pop().unwrap_or_else(|| {
                *next_row += 1;
                *next_row - 1
            });
            Slot { row, ..Slot::default() }
        })
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The number of pages that slots can have.
    pub(super) fn total(&self) -> usize {
        self.holders.len() - 1
    }

    /// Notes that the devices know no page of any slot.
    pub(super) fn forget_tables(&mut self) {
        self.slots.values_mut().for_each(|slot| slot.stale = 0);
    }

    /// One more than the largest row of the table that was ever in use.
    pub(super) fn rows(&self) -> usize {
        self.next_row
    }

    /// Makes pages for the first `end` positions of a slot, such that those from its length on can
    /// be written. Adds the pages to copy to `copies`.
    pub(super) fn reserve(&mut self, slot: u64, end: usize, copies: &mut Vec<PageCopy>) -> Result<(), Full> {
        let Some(entry) = self.slots.get_mut(&slot) else { return Ok(()) };
        let first = entry.tokens.len() / PAGE;
        let shared: Vec<usize> =
            (first..entry.pages.len()).filter(|index| self.holders[entry.pages[*index] as usize] > 1).collect();
        let needed = end.div_ceil(PAGE).saturating_sub(entry.pages.len());
        if needed + shared.len() > self.free.len() {
            return Err(Full { wanted: needed + shared.len() });
        }
        for index in shared {
            let Some(page) = self.free.pop() else { break };
            let old = std::mem::replace(&mut entry.pages[index], page);
            self.holders[old as usize] -= 1;
            self.holders[page as usize] = 1;
            entry.stale = entry.stale.min(index);
            // The first page may hold positions that stay.
            if index * PAGE < entry.tokens.len() {
                copies.push([old, page]);
            }
        }
        for page in self.free.drain(self.free.len() - needed..).rev() {
            self.holders[page as usize] = 1;
            entry.pages.push(page);
        }
        Ok(())
    }

    /// Replaces slot `to` by the first `len` positions of `from`, sharing its pages.
    pub(super) fn copy(&mut self, from: u64, to: u64, len: usize) {
        self.release(to);
        let Some(source) = self.slots.get(&from) else { return };
        let len = len.min(source.tokens.len());
        let pages = source.pages[..len.div_ceil(PAGE)].to_vec();
        let (tokens, long) = (source.tokens[..len].to_vec(), source.long);
        let fork = source.fork.filter(|fork| *fork < len);
        pages.iter().for_each(|page| self.holders[*page as usize] += 1);
        let row = self.slot(to).row;
        self.slots.insert(to, Slot { row, tokens, long, fork, pages, stale: 0 });
    }

    /// Keeps the first `len` positions.
    pub(super) fn truncate(&mut self, slot: u64, len: usize) {
        let Some(entry) = self.slots.get_mut(&slot) else { return };
        entry.tokens.truncate(len);
        entry.fork = entry.fork.filter(|fork| *fork < len);
        let kept = entry.tokens.len().div_ceil(PAGE);
        let dropped = entry.pages.split_off(kept.min(entry.pages.len()));
        entry.stale = entry.stale.min(kept);
        self.give_back(&dropped);
    }

    /// Forgets a slot.
    pub(super) fn release(&mut self, slot: u64) {
        if let Some(entry) = self.slots.remove(&slot) {
            self.free_rows.push(entry.row);
            self.give_back(&entry.pages);
        }
    }

    /// Forgets all slots.
    pub(super) fn clear(&mut self) {
        let slots: Vec<u64> = self.slots.keys().copied().collect();
        slots.into_iter().for_each(|slot| self.release(slot));
    }

    fn give_back(&mut self, pages: &[u32]) {
        for page in pages {
            self.holders[*page as usize] -= 1;
            if self.holders[*page as usize] == 0 {
                self.free.push(*page);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn append(pages: &mut Pages, slot: u64, tokens: usize) -> Vec<PageCopy> {
        let mut copies = Vec::new();
        let end = pages.slot(slot).tokens.len() + tokens;
        pages.reserve(slot, end, &mut copies).unwrap();
        let token = slot as u32;
        pages.slot(slot).tokens.extend(vec![token; tokens]);
        copies
    }

    #[test]
    fn a_copied_prefix_shares_pages_until_one_of_them_is_written() {
        let mut pages = Pages::new(8);
        append(&mut pages, 1, 40);
        pages.copy(1, 2, 20);
        assert_eq!(pages.get(2).unwrap().pages, pages.get(1).unwrap().pages[..2]);
        let shared = pages.get(1).unwrap().pages[1];
        let copies = append(&mut pages, 2, 1);
        assert_eq!(copies, [[shared, pages.get(2).unwrap().pages[1]]]);
        // The first slot is alone in its page again.
        pages.truncate(1, 17);
        assert!(append(&mut pages, 1, 1).is_empty());
        // A page of which nothing stays is not copied.
        pages.copy(1, 3, 18);
        pages.truncate(3, 16);
        assert!(append(&mut pages, 3, 1).is_empty());
    }

    #[test]
    fn a_full_cache_refuses_and_changes_nothing() {
        let mut pages = Pages::new(4);
        append(&mut pages, 1, 40);
        pages.slot(2);
        let mut copies = Vec::new();
        assert_eq!(pages.reserve(2, 1, &mut copies), Err(Full { wanted: 1 }));
        assert!(pages.get(2).unwrap().pages.is_empty());
        pages.release(1);
        assert_eq!(pages.reserve(2, 48, &mut copies), Ok(()));
    }

    proptest! {
        #[test]
        fn pages_are_held_as_often_as_slots_list_them(
            steps in prop::collection::vec((0u8..5, 0u64..4, 0u64..4, 0usize..50), 1..80),
        ) {
            let mut pages = Pages::new(64);
            for (what, slot, other, len) in steps {
                match what {
                    0 | 1 => drop(append(&mut pages, slot, len % 20)),
                    2 => pages.copy(slot, other, len),
                    3 => pages.truncate(slot, len),
                    _ => pages.release(slot),
                }
                let mut held = vec![0; 64];
                for slot in pages.slots.values() {
                    prop_assert!(slot.pages.len() >= slot.tokens.len().div_ceil(PAGE));
                    slot.pages.iter().for_each(|page| held[*page as usize] += 1);
                }
                prop_assert_eq!(&held, &pages.holders);
                prop_assert_eq!(held.iter().skip(1).filter(|count| **count == 0).count(), pages.free.len());
                if pages.free.len() < 20 {
                    pages.clear();
                }
            }
        }
    }
}
