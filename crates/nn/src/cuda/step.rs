//! The input of a step as the kernels take it: one number per row for each quantity.

use std::ops::Range;

use crate::executor::{Ask, Span};

/// Rows of a chain from which they are attended to together.
const CHAIN_ROWS: usize = 64;
/// Lists of one number per row.
pub(super) const LISTS: usize = 10;
/// The number of a question about the most likely token.
const MOST_LIKELY: i32 = -1;
/// The number of a question about candidates.
const CANDIDATES: i32 = -2;
/// Numbers of rows that steps are recorded for.
const RECORDED: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// The kinds of questions that a step answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Nothing,
    /// About tokens alone.
    Tokens,
    /// About candidates too.
    Candidates,
}

/// The input of a step. All lists but the last ones have one entry for each row; rows beyond the
/// tokens fill up a recorded step.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) rows: usize,
    pub(super) token: Vec<i32>,
    /// Rotary positions.
    pub(super) position: Vec<i32>,
    /// Positions in the cache.
    pub(super) place: Vec<i32>,
    /// Rows of the table of pages.
    pub(super) slot: Vec<i32>,
    /// The end of the cached positions that the row sees without exception.
    pub(super) base: Vec<i32>,
    /// The place of the row's tree in `bits`; -1 for none.
    pub(super) mask: Vec<i32>,
    /// The sequence is a long one.
    pub(super) is_long: Vec<i32>,
    /// Rows to return.
    pub(super) pick: Vec<i32>,
    /// For each returned row the token whose log-probability is asked for; [`MOST_LIKELY`];
    /// [`CANDIDATES`].
    pub(super) ask: Vec<i32>,
    /// The bits of inverse temperatures of returned rows whose candidates are asked for.
    pub(super) heat: Vec<i32>,
    /// Trees: for each row of one its number of nodes, the row of its first node, and the bits of
    /// its ancestors.
    pub(super) bits: Vec<i32>,
    /// Pieces of one chain that are attended to together.
    pub(super) chains: Vec<Range<usize>>,
    /// The longest sequence.
    pub(super) longest: usize,
}

impl Input {
    /// Makes the input of spans, each with its row of the table and true if its sequence is long.
    pub(super) fn new<'a>(spans: impl Iterator<Item = (&'a Span<'a>, usize, bool)>) -> Self {
        let mut input = Self::default();
        for (span, row, is_long) in spans {
            input.add(span, row, is_long);
        }
        input.rows = input.token.len();
        input
    }

    /// Adds the questions about returned rows.
    pub(super) fn ask(&mut self, asks: &[Ask]) {
        for ask in asks {
            let (ask, heat) = match ask {
                Ask::Logprob(token) => (*token as i32, 0.0),
                Ask::Argmax => (MOST_LIKELY, 0.0),
                Ask::Candidates { temperature } => (CANDIDATES, 1.0 / temperature),
            };
            self.ask.push(ask);
            self.heat.push(heat.to_bits() as i32);
        }
    }

    /// The questions of the step.
    pub(super) fn asked(&self) -> Asked {
        match &self.ask[..] {
            [] => Asked::Nothing,
            asks if asks.contains(&CANDIDATES) => Asked::Candidates,
            _ => Asked::Tokens,
        }
    }

    fn add(&mut self, span: &Span<'_>, row: usize, is_long: bool) {
        let first = self.token.len();
        let positions = span.positions();
        for (index, (token, position)) in span.tokens.iter().zip(&positions).enumerate() {
            self.token.push(*token as i32);
            self.position.push(*position as i32);
            self.place.push((span.start + index) as i32);
            self.slot.push(row as i32);
            self.is_long.push(i32::from(is_long));
            let is_chain = *position == span.start + index;
            self.base.push((if is_chain { span.start + index + 1 } else { span.start }) as i32);
            self.mask.push(if is_chain { -1 } else { self.bits.len() as i32 });
            if !is_chain {
                self.add_tree(span, first, index);
            }
        }
        if span.parents.is_none() && span.tokens.len() >= CHAIN_ROWS {
            self.chains.push(first..self.token.len());
        }
        self.pick.extend((first + span.rows.start..first + span.rows.end).map(|row| row as i32));
        self.longest = self.longest.max(span.start + span.tokens.len());
    }

    /// Adds the ancestors of a node of a tree.
    fn add_tree(&mut self, span: &Span<'_>, first: usize, index: usize) {
        let nodes = span.tokens.len();
        let mut words = vec![0u32; nodes.div_ceil(32)];
        span.ancestors(index).into_iter().for_each(|node| words[node / 32] |= 1 << (node % 32));
        self.bits.extend([nodes as i32, first as i32]);
        self.bits.extend(words.into_iter().map(|word| word as i32));
    }

    /// The number of rows that the step is recorded for, if it is of a kind that is recorded.
    pub(super) fn recorded_rows(&self) -> Option<usize> {
        let fits = self.chains.is_empty() && self.pick.len() <= self.rows;
        RECORDED.into_iter().find(|rows| fits && *rows >= self.rows)
    }

    /// Adds rows that change nothing: they write to page 0.
    pub(super) fn fill(&mut self, rows: usize) {
        for list in [&mut self.token, &mut self.position, &mut self.place, &mut self.slot, &mut self.is_long] {
            list.resize(rows, 0);
        }
        self.base.resize(rows, 1);
        self.mask.resize(rows, -1);
        self.rows = rows;
    }

    /// Rows that are attended to one by one, as ranges.
    pub(super) fn singles(&self) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let mut first = 0;
        for chain in self.chains.iter().cloned().chain(std::iter::once(self.rows..self.rows)) {
            if first < chain.start {
                ranges.push(first..chain.start);
            }
            first = chain.end;
        }
        ranges
    }

    /// All numbers, list after list, each of `rows`, to which those of returned rows are padded;
    /// `bits` come last.
    pub(super) fn numbers(&self) -> Vec<i32> {
        let lists = [&self.token, &self.position, &self.place, &self.slot, &self.base, &self.mask, &self.is_long];
        let mut numbers = Vec::with_capacity(LISTS * self.rows + self.bits.len());
        lists.into_iter().for_each(|list| numbers.extend_from_slice(list));
        for (index, list) in [&self.pick, &self.ask, &self.heat].into_iter().enumerate() {
            numbers.extend_from_slice(list);
            numbers.resize((8 + index) * self.rows, 0);
        }
        numbers.extend_from_slice(&self.bits);
        numbers
    }
}

/// Parts of all rows together, and of one row.
pub(super) const MOST_PARTS: usize = 64;

/// The parts that the positions of a sequence are divided into, so that few rows keep all
/// processors busy.
pub(super) fn splits(rows: usize, longest: usize) -> usize {
    // A power of two, so that a recorded step serves many lengths.
    longest.div_ceil(64).next_power_of_two().min((MOST_PARTS / rows.max(1)).max(1))
}

/// Parts of the rows of a chain together.
pub(super) const MOST_CHAIN_PARTS: usize = 1024;
/// Blocks that keep all processors of a large card busy, four on each.
const BUSY_BLOCKS: usize = 512;
/// The fewest positions of a part, so that what is merged is little beside what is computed.
const LEAST_CHAIN_PART: usize = 256;

/// The parts that the positions of a chain are divided into, whose rows and heads make `blocks` blocks.
pub(super) fn chain_splits(rows: usize, blocks: usize, longest: usize) -> usize {
    (BUSY_BLOCKS / blocks).min(longest / LEAST_CHAIN_PART).min(MOST_CHAIN_PARTS / rows).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_chains_and_trees_say_what_they_see() {
        let parents = [0, 0, 1, 2];
        let tokens: Vec<u32> = (0..70).collect();
        let spans = [
            (Span { rows: 0..4, parents: Some(&parents), ..Span::chain(1, 10, &[5, 6, 7, 8]) }, 3, false),
            (Span { rows: 69..70, ..Span::chain(2, 0, &tokens) }, 4, true),
        ];
        let input = Input::new(spans.iter().map(|(span, row, long)| (span, *row, *long)));
        assert_eq!(input.position[..4], [10, 10, 11, 11]);
        assert_eq!(input.place[..4], [10, 11, 12, 13]);
        assert_eq!(input.base[..4], [11, 10, 10, 10]);
        // Nodes 1 to 3 see themselves; node 2 also node 0, node 3 also node 1.
        assert_eq!(input.mask[..4], [-1, 0, 3, 6]);
        assert_eq!(input.bits, [4, 0, 0b10, 4, 0, 0b101, 4, 0, 0b1010]);
        assert!(input.chains.iter().eq([&(4..74)]) && input.singles().iter().eq([&(0..4)]));
        assert_eq!((input.pick.clone(), input.longest, input.rows), (vec![0, 1, 2, 3, 73], 70, 74));
        assert_eq!(input.recorded_rows(), None);
    }

    #[test]
    fn a_recorded_step_is_filled_up() {
        let spans = [(Span { rows: 0..1, ..Span::chain(1, 40, &[5]) }, 1), (Span::chain(2, 7, &[6, 7]), 2)];
        let mut input = Input::new(spans.iter().map(|(span, row)| (span, *row, false)));
        assert_eq!(input.recorded_rows(), Some(4));
        input.fill(4);
        assert_eq!((input.slot.clone(), input.base.clone()), (vec![1, 2, 2, 0], vec![41, 8, 9, 1]));
        assert_eq!(input.numbers().len(), 4 * LISTS);
        assert_eq!((splits(1, 100), splits(1, 5000), splits(8, 5000), splits(64, 9000)), (2, 64, 8, 1));
    }

    #[test]
    fn a_chain_is_divided_while_processors_are_idle() {
        // 64 and 256 rows of 32 heads, at the beginning and far behind it.
        let of = |rows: usize, longest| chain_splits(rows, rows.div_ceil(64) * 32, longest);
        assert_eq!([of(64, 64), of(64, 1024), of(64, 16_384)], [1, 4, 16]);
        assert_eq!([of(256, 256), of(256, 4096), of(4096, 16_384)], [1, 4, 1]);
    }
}
