//! What is learned from, and what a model that learns does.

use std::ops::Range;

use super::layout::Layout;
use crate::error::Result;

/// A text to learn from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// The tokens to be predicted, in ascending ranges that do not touch the first token.
    pub learned: Vec<Range<usize>>,
}

impl Sequence {
    /// Tokens of which all from `start` on, but never the first, are to be predicted.
    #[must_use]
    pub fn learned_from(start: usize, tokens: Vec<u32>) -> Self {
        let learned = std::iter::once(start.max(1)..tokens.len()).filter(|range| !range.is_empty()).collect();
        Self { tokens, learned }
    }

    /// Tokens to be predicted.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.learned.iter().map(ExactSizeIterator::len).sum()
    }

    /// Positions of the tokens to be predicted.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.learned.iter().cloned().flatten()
    }

    /// Its first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.learned.iter_mut().for_each(|range| range.end = range.end.min(len));
        self.learned.retain(|range| !range.is_empty());
    }
}

/// What one step of an objective looks at: one text, or a chosen one and a rejected one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// The texts.
    pub sequences: Vec<Sequence>,
    /// For each text, what the log-probabilities of its learned tokens came to before training.
    pub reference: Vec<f64>,
}

impl Example {
    /// One text.
    #[must_use]
    pub fn of(sequence: Sequence) -> Self {
        Self { sequences: vec![sequence], reference: Vec::new() }
    }

    /// Tokens in all.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.tokens.len()).sum()
    }

    /// Tokens to be predicted in the first text.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.sequences.first().map_or(0, Sequence::targets)
    }
}

/// A sum over examples, to be divided by a sum of weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure {
    /// What is measured, as TRL calls it.
    pub name: &'static str,
    /// The sum.
    pub sum: f64,
    /// What it is divided by.
    pub weight: f64,
}

/// What an objective makes of an example.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graded {
    /// What is reported; the loss first.
    pub measures: Vec<Measure>,
    /// The loss's slope at the log-probability of each learned token, those of all texts end to end.
    pub slopes: Vec<f32>,
}

/// Judges an example by the log-probabilities of the learned tokens of each of its texts.
pub type Grade<'a> = dyn Fn(&Example, &[&[f32]]) -> Graded + Sync + 'a;

/// A model on some device that can say how its weights are to change.
pub trait Trainee {
    /// Run the examples and grade each. Where a gradient is asked for, it becomes the sum over all examples.
    ///
    /// # Errors
    /// What the device says.
    fn pass(
        &mut self,
        weights: &[f32],
        examples: &[&Example],
        grade: &Grade<'_>,
        gradient: Option<&mut [f32]>,
    ) -> Result<Vec<Graded>>;

    /// Where the tensors lie in weights and gradients.
    fn layout(&self) -> &Layout;
}
