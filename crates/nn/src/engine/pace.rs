//! The number of rows that long requests may score in a step beside sessions that decode.
//!
//! Scoring a row costs the whole vocabulary, so that a prompt that is scored with alternatives can
//! make a step a hundred times as long as decoding alone. The number follows from measured times;
//! results do not depend on it.

/// Token budget of one step: large enough for efficient matrix products, small enough that a long
/// prompt does not delay the tokens generated beside it.
pub(super) const STEP_TOKENS: usize = 256;
/// The fewest rows in a step: a chunk of a draft is scored whole.
const MIN_ROWS: usize = 16;
/// The most that a step may take, as a multiple of a step in which sessions decode alone.
const MAX_RATIO: f64 = 3.0;
/// The weight of the newest sample in the mean time of decoding alone.
const NEWEST: f64 = 0.2;

/// The rows allowed, and the times they follow from.
#[derive(Debug)]
pub(super) struct Pace {
    /// The exponential moving average of the seconds of a step in which sessions decode alone.
    alone: Option<f64>,
    rows: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { alone: None, rows: STEP_TOKENS }
    }
}

impl Pace {
    /// The most rows that long requests may score in a step, given how many sessions decode.
    pub(super) fn rows(&self, decoding: usize) -> usize {
        if decoding == 0 { STEP_TOKENS } else { self.rows }
    }

    /// Takes in the time of a step in which sessions decoded and long requests scored `rows` rows.
    pub(super) fn observe(&mut self, rows: usize, seconds: f64) {
        let Some(alone) = self.alone.filter(|_| rows > 0) else {
            if rows == 0 {
                let before = self.alone.unwrap_or(seconds);
                self.alone = Some(before + NEWEST * (seconds - before));
            }
            return;
        };
        let most = alone * MAX_RATIO;
        if seconds > most {
            let fitting = (rows as f64 * most / seconds) as usize;
            self.rows = fitting.clamp(MIN_ROWS, self.rows);
        } else if rows >= self.rows {
            self.rows = (self.rows + self.rows / 4 + 1).min(STEP_TOKENS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of a device that decodes in 30 ms and scores a row in 4 ms.
    fn steps(pace: &mut Pace, count: usize) -> f64 {
        let mut longest = 0.0;
        for _ in 0..count {
            let rows = pace.rows(1);
            longest = 0.030 + 0.004 * rows as f64;
            pace.observe(rows, longest);
        }
        longest
    }

    #[test]
    fn steps_beside_decoding_stay_within_the_ratio() {
        let mut pace = Pace::default();
        assert_eq!(steps(&mut pace, 1), 0.030 + 0.004 * 256.0, "nothing is known yet");
        pace.observe(0, 0.030);
        steps(&mut pace, 20);
        assert!((MIN_ROWS..=20).contains(&pace.rows(1)), "{pace:?}");
        assert_eq!(pace.rows(0), STEP_TOKENS, "nobody waits");
    }

    #[test]
    fn rows_that_cost_little_are_not_held_back() {
        let mut pace = Pace::default();
        pace.observe(0, 0.030);
        pace.observe(256, 10.0);
        for _ in 0..30 {
            pace.observe(pace.rows(1), 0.031);
        }
        assert_eq!(pace.rows(1), STEP_TOKENS);
    }
}
