//! The order of examples.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// A sequence of epochs, each a permutation of the examples that depends on the seed and the
/// epoch's number alone: a step's examples do not depend on the steps before it.
///
/// ```
/// let mut order = wsd_train::Order::new(7, 3);
/// let mut epoch = order.take(3..6);
/// epoch.sort();
/// assert_eq!(epoch, [0, 1, 2]);
/// ```
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    examples: usize,
    /// The permutation of the epoch that was asked for last.
    epoch: Option<(u64, Vec<usize>)>,
}

impl Order {
    /// An order of `examples` examples.
    #[must_use]
    pub fn new(seed: u64, examples: usize) -> Self {
        Self { seed, examples, epoch: None }
    }

    /// The examples at these places of the concatenated epochs.
    pub fn take(&mut self, places: std::ops::Range<usize>) -> Vec<usize> {
        places.map(|place| self.at(place)).collect()
    }

    fn at(&mut self, place: usize) -> usize {
        let (epoch, index) = ((place / self.examples) as u64, place % self.examples);
        if self.epoch.as_ref().is_none_or(|(cached, _)| *cached != epoch) {
            self.epoch = Some((epoch, shuffled(self.seed, epoch, self.examples)));
        }
        self.epoch.as_ref().map_or(index, |(_, order)| order[index])
    }
}

/// A permutation by the Fisher-Yates shuffle.
fn shuffled(seed: u64, epoch: u64, len: usize) -> Vec<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch + 1);
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, (random.next_u64() % (last as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_every_example_once() {
        let mut order = Order::new(7, 11);
        let all = order.take(0..33);
        for epoch in all.chunks(11) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..11).collect::<Vec<_>>());
        }
        assert_ne!(all[..11], all[11..22]);
        assert_eq!(Order::new(7, 11).take(5..17), all[5..17]);
        assert_ne!(Order::new(8, 11).take(0..11), all[..11]);
    }
}
