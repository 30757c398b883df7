//! Token sequences with their targets.

use std::ops::Range;

/// A token sequence and the positions whose tokens are to be predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Positions of the target tokens, as ascending ranges that exclude position 0.
    pub target_ranges: Vec<Range<usize>>,
}

impl Sequence {
    /// A sequence whose targets are all tokens from position `start` on, except the first.
    ///
    /// ```
    /// let sequence = wsd_train::Sequence::targets_from(2, vec![7, 8, 9, 10]);
    /// assert_eq!(sequence.positions().collect::<Vec<_>>(), [2, 3]);
    /// ```
    #[must_use]
    pub fn targets_from(start: usize, tokens: Vec<u32>) -> Self {
        let target_ranges = std::iter::once(start.max(1)..tokens.len()).filter(|range| !range.is_empty()).collect();
        Self { tokens, target_ranges }
    }

    /// The number of targets.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.target_ranges.iter().map(ExactSizeIterator::len).sum()
    }

    /// Positions of the targets.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.target_ranges.iter().cloned().flatten()
    }

    /// Keeps the first `len` tokens and the targets among them.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.target_ranges.iter_mut().for_each(|range| range.end = range.end.min(len));
        self.target_ranges.retain(|range| !range.is_empty());
    }
}

/// The unit that a loss is computed for: one sequence, or a chosen and a rejected one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// The sequences.
    pub sequences: Vec<Sequence>,
    /// Per sequence, the sum of the targets' log-probabilities under the reference model; empty
    /// where the objective needs none.
    pub reference: Vec<f64>,
    /// The labels of the example or of its targets, from 0 to 1; empty where the objective needs
    /// none.
    pub labels: Vec<f32>,
    /// The same prompt with the answer to another, for objectives that estimate the divergence from
    /// the reference model.
    pub baseline: Option<Box<Example>>,
    /// Positions, counted through all sequences, and the tokens that the trained model reads there
    /// instead; targets and the reference model's input stay.
    pub masked: Vec<(usize, u32)>,
}

impl Example {
    /// An example of one sequence.
    #[must_use]
    pub fn of(sequence: Sequence) -> Self {
        Self { sequences: vec![sequence], ..Self::default() }
    }

    /// The number of tokens of all sequences.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.tokens.len()).sum()
    }

    /// The number of targets of the first sequence.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.sequences.first().map_or(0, Sequence::targets)
    }
}
