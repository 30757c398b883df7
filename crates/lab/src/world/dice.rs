//! Seeded random choices and text templates.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// A seeded random number generator.
#[derive(Clone, Debug)]
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// Creates the generator of a seed; different `stream`s of one seed are independent.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// Draws a number below `limit`, which must not be 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.0.next_u64()) * limit as u128) >> 64) as usize
    }

    /// Draws a number from `low` to `high`, inclusive.
    pub(super) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// Returns true with a probability of `percent` / 100.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Draws an element of a slice, which must not be empty.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Draws an element in proportion to its weight.
    pub(super) fn weighted<T: Copy>(&mut self, from: &[(usize, T)]) -> T {
        let mut left = self.below(from.iter().map(|(weight, _)| weight).sum());
        for &(weight, choice) in from {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return choice,
            }
        }
        unreachable!("invariant: the remainder is below the sum of the weights")
    }

    /// Shuffles a slice (Fisher-Yates).
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }

    /// Draws up to `count` distinct elements in random order.
    pub(super) fn sample<'a, T>(&mut self, from: &'a [T], count: usize) -> Vec<&'a T> {
        let mut all: Vec<_> = from.iter().collect();
        self.shuffle(&mut all);
        all.truncate(count);
        all
    }
}

/// Fills a template: `{x}` becomes the value named `x`.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// Capitalizes the first letter.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Turns a clause into a sentence.
pub(super) fn sentence(clause: &str) -> String {
    format!("{}.", capital(clause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_frequencies() {
        let mut dice = Dice::new(1, 0);
        let drawn = (0..10_000).filter(|_| dice.weighted(&[(3, true), (1, false)])).count();
        assert!((7_300..7_700).contains(&drawn), "{drawn}");
    }

    #[test]
    fn templates_are_filled_and_capitalized() {
        assert_eq!(sentence(&fill("{x} is {v}", &[("x", "the fox"), ("v", "orange")])), "The fox is orange.");
    }
}
