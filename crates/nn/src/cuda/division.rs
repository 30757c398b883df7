//! The division of a model's layers among cards.

use std::ops::Range;

/// Bytes that a model needs, by where they lie.
#[derive(Debug)]
pub(super) struct Needs {
    /// The bytes before the first layer, on its card.
    pub(super) first: usize,
    /// The weights of each layer.
    pub(super) layers: Vec<usize>,
    /// The bytes behind the last layer, on its card.
    pub(super) last: usize,
    /// The bytes that both of these have in common, if they are on one card.
    pub(super) shared: usize,
    /// Room for the cache of a layer, on a card with so much left.
    pub(super) cache: usize,
}

impl Needs {
    /// Bytes of the weights of consecutive layers, with what is before the first and behind the last one.
    pub(super) fn weights(&self, layers: &Range<usize>) -> usize {
        let outside = match (layers.start == 0, layers.end == self.layers.len()) {
            (true, true) => self.first + self.last - self.shared,
            (true, false) => self.first,
            (false, true) => self.last,
            (false, false) => 0,
        };
        outside + self.layers[layers.clone()].iter().sum::<usize>()
    }

    /// Bytes of the whole model on one card.
    pub(super) fn total(&self) -> usize {
        self.weights(&(0..self.layers.len())) + self.layers.len() * self.cache
    }

    /// Divides the layers, in their order, among cards with so many free bytes, such that no card is
    /// fuller than it must be. Returns a card and its layers for each card that gets some; `None` where
    /// the cards do not hold the model.
    pub(super) fn divide(&self, free: &[usize]) -> Option<Vec<(usize, Range<usize>)>> {
        let mut found = self.fill(free, 1.0)?;
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..16 {
            let share = (low + high) / 2.0;
            match self.fill(free, share) {
                Some(division) => (found, high) = (division, share),
                None => low = share,
            }
        }
        Some(found)
    }

    /// Fills one card after the other up to a share of its free bytes.
    fn fill(&self, free: &[usize], share: f64) -> Option<Vec<(usize, Range<usize>)>> {
        let (mut division, mut start) = (Vec::new(), 0);
        for (card, free) in free.iter().enumerate() {
            let room = (*free as f64 * share) as usize;
            let fits = |end: &usize| self.weights(&(start..*end)) + (end - start) * self.cache <= room;
            let end = (start + 1..=self.layers.len()).take_while(fits).last().unwrap_or(start);
            if end > start {
                division.push((card, start..end));
            }
            start = end;
        }
        (start == self.layers.len()).then_some(division)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_card_is_fuller_than_it_must_be() {
        let needs = Needs { first: 10, layers: vec![9; 8], last: 10, shared: 0, cache: 1 };
        assert_eq!(needs.total(), 100);
        let tied = Needs { first: 10, layers: vec![9; 8], last: 10, shared: 10, cache: 1 };
        assert_eq!((tied.total(), tied.divide(&[90])), (90, Some(vec![(0, 0..8)])));
        assert_eq!(tied.divide(&[49, 100]), Some(vec![(0, 0..2), (1, 2..8)]));
        assert_eq!(needs.divide(&[100]), Some(vec![(0, 0..8)]));
        assert_eq!(needs.divide(&[100, 100]), Some(vec![(0, 0..4), (1, 4..8)]));
        assert_eq!(needs.divide(&[400, 100]), Some(vec![(0, 0..7), (1, 7..8)]));
        assert_eq!(needs.divide(&[60, 60]), Some(vec![(0, 0..4), (1, 4..8)]));
        assert_eq!(needs.divide(&[5, 60, 60]), Some(vec![(1, 0..4), (2, 4..8)]));
        assert_eq!([&[99][..], &[49, 50, 19], &[]].map(|free| needs.divide(free)), [None, None, None]);
    }
}
