//! The number of rows that long requests may score in a step beside other sessions.
//!
//! Scoring a row costs the whole vocabulary, so that a prompt that is scored with alternatives can
//! make a step a hundred times as long as decoding alone. The number follows from measured times, for
//! each number of decoding sessions; results do not depend on it.

/// Token budget of one step: large enough for efficient matrix products, small enough that a long
/// prompt does not delay the tokens generated beside it.
pub(super) const STEP_TOKENS: usize = 256;
/// The fewest rows in a step, so that scoring goes on.
const MIN_ROWS: usize = 2;
/// The fewest rows in a step beside no other session, for efficient matrix products.
const MIN_ROWS_ALONE: usize = 32;
/// The most that a step may take, as a multiple of a step in which sessions decode alone.
const MAX_RATIO: f64 = 3.0;
/// The most that a step beside no other session may take, in seconds: the next one may come.
const MAX_SECONDS: f64 = 0.1;
/// The weight of the newest sample in the mean time of decoding alone.
const NEWEST: f64 = 0.2;
/// Steps with long requests after which sessions decode alone once, to measure their time.
const MAX_AGE: usize = 64;
/// Numbers of decoding sessions that are told apart: none, 1, 2 to 3, 4 to 7, ...
const LEVELS: usize = 8;

/// The positions of a step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Sessions that decode, with one position each.
    pub(super) decoding: usize,
    /// Positions of long requests that are scored.
    pub(super) scored: usize,
    /// Positions of long requests whose outputs nobody reads.
    pub(super) prompt: usize,
}

/// The rows allowed, and the times they follow from, by the number of decoding sessions.
#[derive(Debug)]
pub(super) struct Pace([Level; LEVELS]);

#[derive(Clone, Copy, Debug)]
struct Level {
    /// The exponential moving average of the seconds of a step in which sessions decode alone.
    alone: Option<f64>,
    /// Steps since the newest sample.
    age: usize,
    rows: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self([Level { alone: None, age: 0, rows: STEP_TOKENS }; LEVELS])
    }
}

impl Pace {
    /// The most rows that long requests may score in a step beside so many sessions.
    pub(super) fn rows(&self, sessions: usize) -> usize {
        self.0[level(sessions)].rows
    }

    /// Tells whether long requests must wait for a step, so that the time of decoding alone is known.
    pub(super) fn must_measure(&self, decoding: usize) -> bool {
        let level = &self.0[level(decoding)];
        decoding > 0 && (level.alone.is_none() || level.age >= MAX_AGE)
    }

    /// Takes in the time of a step.
    pub(super) fn observe(&mut self, load: Load, seconds: f64) {
        let level = &mut self.0[level(load.decoding)];
        if load.scored + load.prompt == 0 {
            let before = level.alone.unwrap_or(seconds);
            level.alone = Some(before + NEWEST * (seconds - before));
            level.age = 0;
            return;
        }
        level.age += 1;
        let (most, fewest) = match level.alone {
            _ if load.decoding == 0 => (MAX_SECONDS, MIN_ROWS_ALONE),
            Some(alone) => (alone * MAX_RATIO, MIN_ROWS),
            None => return,
        };
        // The time of a prompt is not that of the rows beside it.
        if load.prompt > 0 {
            return;
        }
        if seconds > most {
            let fitting = (load.scored as f64 * most / seconds) as usize;
            level.rows = fitting.clamp(fewest, level.rows);
        } else if load.scored >= level.rows {
            level.rows = (level.rows + level.rows / 4 + 1).min(STEP_TOKENS);
        }
    }
}

/// The level of a number of sessions.
fn level(sessions: usize) -> usize {
    (usize::BITS - sessions.leading_zeros()).min(LEVELS as u32 - 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of a device that decodes in 30 ms and scores a row in 4 ms; returns the time of the last.
    fn steps(pace: &mut Pace, decoding: usize, count: usize) -> f64 {
        let mut last = 0.0;
        for _ in 0..count {
            let scored = if pace.must_measure(decoding) { 0 } else { pace.rows(decoding) };
            last = 0.030 * decoding.min(1) as f64 + 0.004 * scored as f64;
            pace.observe(Load { decoding, scored, prompt: 0 }, last);
        }
        last
    }

    #[test]
    fn steps_beside_decoding_stay_within_the_ratio() {
        let mut pace = Pace::default();
        assert!(pace.must_measure(1));
        steps(&mut pace, 1, 20);
        assert!((10..=20).contains(&pace.rows(1)), "{pace:?}");
        // Times of other numbers of sessions are others.
        assert!(pace.must_measure(2) && !pace.must_measure(1));
        let measured = (0..2 * MAX_AGE).filter(|_| steps(&mut pace, 1, 1) == 0.030).count();
        assert_eq!(measured, 2, "the time is measured again");
    }

    #[test]
    fn steps_beside_nobody_end_soon() {
        let mut pace = Pace::default();
        assert_eq!(steps(&mut pace, 0, 1), 0.004 * 256.0, "nothing is known yet");
        assert!(steps(&mut pace, 0, 20) <= 0.004 * 33.0);
        assert!(pace.rows(0) >= MIN_ROWS_ALONE);
    }

    #[test]
    fn rows_that_cost_little_are_not_held_back() {
        let mut pace = Pace::default();
        let load = |scored, prompt| Load { decoding: 3, scored, prompt };
        pace.observe(load(0, 0), 0.030);
        pace.observe(load(16, 240), 10.0);
        assert_eq!(pace.rows(3), STEP_TOKENS, "the prompt beside them took the time");
        pace.observe(load(256, 0), 10.0);
        assert_eq!(pace.rows(3), MIN_ROWS);
        for _ in 0..30 {
            pace.observe(load(pace.rows(3), 0), 0.031);
        }
        assert_eq!(pace.rows(3), STEP_TOKENS);
    }

    #[test]
    fn levels_tell_small_numbers_apart() {
        assert_eq!([0, 1, 2, 3, 4, 7, 8, 1000].map(level), [0, 1, 2, 2, 3, 3, 4, 7]);
    }
}
