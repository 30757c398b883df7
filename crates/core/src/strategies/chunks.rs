//! How many tokens the draft writes before the base reads them.
//!
//! Say a chunk of `n` tokens takes `fixed + n * each` seconds to write and to read, and the switch is `r` tokens away. Then the calls
//! take `fixed * r / n` besides the tokens themselves, and what lies beyond the switch, half a chunk on average, takes
//! `each * n / 2` in vain. Their sum is least at `n = sqrt(2 * r * fixed / each)`. Both costs are measured as chunks come; how far
//! away the switch is nobody knows, and the guess is as far as the draft has come, and a little.

/// Tokens in the first chunk, if the window has no more: before it is full, nothing can pass.
const FIRST: usize = 8;
/// The fewest and the most tokens in a chunk that is sized by costs.
const BOUNDS: [usize; 2] = [4, 64];
/// How far away the switch is thought to be at the beginning.
const NEAR: usize = 16;

/// What follows from one chunk to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sizing {
    /// Each is so many times as long as the one before.
    Times(usize),
    /// As costs have it.
    Costs {
        /// A chunk is written while the one before is being read.
        side_by_side: bool,
    },
}

/// The lengths of chunks, one after the other.
#[derive(Debug)]
pub(super) struct Chunks {
    length: usize,
    sizing: Sizing,
    /// Tokens in all chunks so far, and in the whole answer.
    total: usize,
    most: usize,
    /// Chunks that have been read, but for the first, whose times are those of the prompts too.
    rounds: Vec<Round>,
    is_first: bool,
}

/// A chunk's tokens, and the seconds it took to write and to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) tokens: usize,
    pub(super) write: f64,
    pub(super) read: f64,
}

impl Chunks {
    /// For an answer of `most` tokens. The first chunk has `first` of them where that is given.
    pub(super) fn new(first: Option<usize>, window: usize, sizing: Sizing, most: usize) -> Self {
        let length = first.unwrap_or(FIRST.max(window));
        Self { length, sizing, total: 0, most, rounds: Vec::new(), is_first: true }
    }

    /// The length of the next chunk.
    pub(super) fn next(&mut self) -> usize {
        // The draft's tokens may be shorter than the base's, so a few more are needed to fill an answer.
        let length = self.length.min(self.most.saturating_sub(self.total).max(FIRST));
        self.total = self.total.saturating_add(length);
        if let Sizing::Times(times) = self.sizing {
            self.length = self.length.saturating_mul(times);
        }
        length
    }

    /// A chunk has been read.
    pub(super) fn read(&mut self, round: Round) {
        if std::mem::take(&mut self.is_first) || round.tokens == 0 {
            return;
        }
        self.rounds.push(round);
        if let Sizing::Costs { side_by_side } = self.sizing {
            let most = match side_by_side {
                // As many as are written while the base reads hide the reading: more would win nothing.
                true => round.read * round.tokens as f64 / round.write,
                false => f64::INFINITY,
            };
            self.length = (self.best().min(most) as usize).clamp(BOUNDS[0], BOUNDS[1]);
        }
    }

    /// The length that costs least.
    fn best(&self) -> f64 {
        let mean =
            |value: &dyn Fn(&Round) -> f64| self.rounds.iter().map(value).sum::<f64>() / self.rounds.len() as f64;
        let [tokens, write] = [mean(&|round| round.tokens as f64), mean(&|round| round.write)];
        let read = mean(&|round| round.read);
        let seconds = write + read;
        let spread = mean(&|round| (round.tokens as f64 - tokens).powi(2));
        let slope = mean(&|round| (round.tokens as f64 - tokens) * (round.write + round.read - seconds)) / spread;
        // The line of least squares; one length does not tell a call's cost from that of its tokens: half of it is taken for each.
        let each = if spread > 0.0 { slope.max(write / tokens) } else { (write + read / 2.0) / tokens };
        let fixed = (seconds - each * tokens).max(0.0);
        (2.0 * (self.total + NEAR) as f64 * fixed / each).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of the first chunks, where tokens take `draft` and `more` seconds and each reading `fixed`.
    fn lengths(sizing: Sizing, [draft, fixed, more]: [f64; 3]) -> Vec<usize> {
        let mut chunks = Chunks::new(None, 6, sizing, 1000);
        let next = |_| {
            let tokens = chunks.next();
            let prompt = if chunks.is_first { 5.0 } else { 0.0 };
            let (write, read) = (tokens as f64 * draft + prompt, fixed + tokens as f64 * more + prompt);
            chunks.read(Round { tokens, write, read });
            tokens
        };
        (0..7).map(next).collect()
    }

    #[test]
    fn chunks_grow_with_what_a_call_costs() {
        let alone = Sizing::Costs { side_by_side: false };
        // The first guess knows one length only.
        assert_eq!(lengths(alone, [0.1, 0.0, 0.1])[3..], [4; 4], "a call costs nothing");
        assert_eq!(lengths(alone, [0.001, 10.0, 0.0])[3..], [64; 4], "a call costs all");
        // Measured on 1.1B and 150M parameters: the draft's token 3 ms, the base's call 31 ms and 3 ms for each token.
        let found = lengths(alone, [0.003, 0.031, 0.003]);
        assert_eq!(found[..2], [8, 8]);
        let mut total = 16;
        for (index, pair) in found.windows(2).enumerate().skip(2) {
            total += pair[0];
            let best = (2.0 * (total + NEAR) as f64 * 0.031 / 0.006).sqrt();
            assert!((best - pair[1] as f64).abs() <= 1.0, "{best} at {index} of {found:?}");
        }
    }

    #[test]
    fn side_by_side_none_is_longer_than_hides_the_reading() {
        let found = lengths(Sizing::Costs { side_by_side: true }, [0.02, 0.1, 0.0005]);
        assert_eq!(found[2..], [5; 5]);
    }

    #[test]
    fn what_is_given_holds() {
        assert_eq!(lengths(Sizing::Times(2), [1.0; 3])[..4], [8, 16, 32, 64]);
        let mut chunks = Chunks::new(Some(3), 6, Sizing::Times(1), 1000);
        assert_eq!([chunks.next(), chunks.next()], [3, 3]);
        assert_eq!(Chunks::new(None, 10, Sizing::Times(1), 1000).next(), 10);
        let mut endless = Chunks::new(Some(usize::MAX), 6, Sizing::Times(2), 20);
        assert_eq!([endless.next(), endless.next()], [20, FIRST], "an answer needs no more");
    }
}
