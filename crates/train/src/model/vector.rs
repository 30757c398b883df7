//! Vectors among the weights.

use std::ops::Range;

use crate::adapters::Trained;
use crate::layout::Layout;

/// A vector among the weights.
#[derive(Default)]
pub(super) struct Vector {
    pub(super) range: Range<usize>,
    /// The place of its gradient; empty where it does not change.
    pub(super) gradient: Range<usize>,
}

impl Vector {
    /// The tensor of this name, if there is one.
    pub(super) fn new(layout: &Layout, name: &str, trained: &dyn Fn(&str) -> Trained) -> Option<Self> {
        let range = layout.get(name)?.range.clone();
        let gradient = if trained(name) == Trained::Whole { range.clone() } else { 0..0 };
        Some(Self { range, gradient })
    }
}

/// Adds rows to a vector, unless it is empty.
pub(super) fn add_rows(to: &mut [f32], rows: &[f32]) {
    let width = to.len();
    if width > 0 {
        for row in rows.chunks_exact(width) {
            to.iter_mut().zip(row).for_each(|(to, from)| *to += from);
        }
    }
}
