//! The work that a step may hold beside what it runs for.
//!
//! Scoring a row costs the whole vocabulary, and a prompt has many positions, so that either can make
//! a step a hundred times as long as decoding alone. The most that a step takes on follows from
//! measured times, for each number of decoding sessions; results do not depend on it.

/// Token budget of one step: large enough for efficient matrix products, small enough that a long
/// prompt does not delay the tokens generated beside it.
pub(super) const STEP_TOKENS: usize = 256;
/// The fewest scored rows in a step, so that long requests go on.
const MIN_ROWS: f64 = 2.0;
/// The fewest rows in a step beside no other session, for efficient matrix products.
const MIN_ROWS_ALONE: f64 = 32.0;
/// The most that a step may take, as a multiple of a step in which sessions decode alone.
const MAX_RATIO: f64 = 3.0;
/// The most that a step beside no other session may take, in seconds: the next one may come.
const MAX_SECONDS: f64 = 0.1;
/// The weight of the newest sample in the mean time of decoding alone.
const NEWEST: f64 = 0.2;
/// The rows of the first steps beside decoding sessions, whose time is not known yet.
const FIRST_ROWS: f64 = 8.0;
/// The growth of the limit after a step that was short enough.
const GROWTH: f64 = 1.25;
/// Steps with further work after which sessions decode alone once, to measure their time.
const MAX_AGE: usize = 64;
/// Numbers of decoding sessions that are told apart: none, 1, 2 to 3, 4 to 7, ...
const LEVELS: usize = 8;

/// A step as it is measured.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Sessions that it runs for, which decode with one position each.
    pub(super) sessions: usize,
    /// The cost of all else in it; see [`Pace::cost`].
    pub(super) cost: f64,
}

/// The cost that is allowed, and the times it follows from, by the number of decoding sessions.
#[derive(Debug)]
pub(super) struct Pace {
    levels: [Level; LEVELS],
    /// The cost of reading the output of a position, as a multiple of the position's.
    row: f64,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    /// The exponential moving average of the seconds of a step in which sessions decode alone.
    alone: Option<f64>,
    /// Steps since the newest sample.
    age: usize,
    most: f64,
}

impl Pace {
    /// A pace for a model in which the output of a position costs `row` times the position itself.
    pub(super) fn new(row: f64) -> Self {
        let level = |rows| Level { alone: None, age: 0, most: rows * (1.0 + row) };
        let mut levels = [level(FIRST_ROWS); LEVELS];
        levels[0] = level(STEP_TOKENS as f64);
        Self { levels, row }
    }

    /// The cost of positions, of which `rows` are read.
    pub(super) fn cost(&self, positions: usize, rows: usize) -> f64 {
        positions as f64 + self.row * rows as f64
    }

    /// The number of positions that a cost pays for, rounded up, if those after the first `unread` are
    /// read.
    pub(super) fn positions(&self, cost: f64, unread: usize) -> usize {
        let read = (cost - unread as f64) / (1.0 + self.row);
        if read > 0.0 { unread + read.ceil() as usize } else { cost.max(0.0).ceil() as usize }
    }

    /// The most that may run beside so many decoding sessions.
    pub(super) fn most(&self, sessions: usize) -> f64 {
        self.levels[level(sessions)].most
    }

    /// Tells whether the time of so many sessions decoding alone is known.
    pub(super) fn is_known(&self, sessions: usize) -> bool {
        self.levels[level(sessions)].alone.is_some()
    }

    /// Tells whether so many sessions must decode alone in the next step, so that its time is known.
    pub(super) fn must_measure(&self, sessions: usize) -> bool {
        sessions > 0 && (!self.is_known(sessions) || self.levels[level(sessions)].age >= MAX_AGE)
    }

    /// Takes in the time of a step.
    pub(super) fn observe(&mut self, Load { sessions, cost }: Load, seconds: f64) {
        let row = 1.0 + self.row;
        let level = &mut self.levels[level(sessions)];
        if cost == 0.0 {
            let before = level.alone.unwrap_or(seconds);
            level.alone = Some(before + NEWEST * (seconds - before));
            level.age = 0;
            return;
        }
        level.age += 1;
        let (longest, fewest) = match level.alone {
            _ if sessions == 0 => (MAX_SECONDS, MIN_ROWS_ALONE),
            Some(alone) => (alone * MAX_RATIO, MIN_ROWS),
            None => return,
        };
        if seconds > longest {
            level.most = (cost * longest / seconds).clamp(fewest * row, level.most.max(fewest * row));
        } else if cost + row > level.most {
            level.most = (level.most * GROWTH + row).min(STEP_TOKENS as f64 * row);
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

    /// Runs steps of a device that decodes in 30 ms and scores a row in 4 ms, in which a row costs as
    /// much as three positions; returns the time of the last.
    fn steps(pace: &mut Pace, sessions: usize, count: usize) -> f64 {
        let mut last = 0.0;
        for _ in 0..count {
            let rows = if pace.must_measure(sessions) { 0 } else { pace.positions(pace.most(sessions), 0) };
            last = 0.030 * sessions.min(1) as f64 + 0.004 * rows as f64;
            pace.observe(Load { sessions, cost: pace.cost(rows, rows) }, last);
        }
        last
    }

    #[test]
    fn steps_beside_decoding_stay_within_the_ratio() {
        let mut pace = Pace::new(3.0);
        assert!(pace.must_measure(1));
        steps(&mut pace, 1, 20);
        assert!((10..=20).contains(&pace.positions(pace.most(1), 0)), "{pace:?}");
        // Times of other numbers of sessions are others.
        assert!(pace.must_measure(2) && !pace.must_measure(1));
        let measured = (0..2 * MAX_AGE).filter(|_| steps(&mut pace, 1, 1) == 0.030).count();
        assert_eq!(measured, 2, "the time is measured again");
    }

    #[test]
    fn steps_beside_nobody_end_soon() {
        let mut pace = Pace::new(3.0);
        assert_eq!(steps(&mut pace, 0, 1), 0.004 * 256.0, "nothing is known yet");
        assert!(steps(&mut pace, 0, 20) <= 0.004 * 33.0);
        assert!(pace.positions(pace.most(0), 0) >= 32);
    }

    #[test]
    fn prompts_are_held_back_as_rows_are_and_no_more_than_they_must() {
        let mut pace = Pace::new(3.0);
        let step = |pace: &mut Pace, positions, seconds| {
            pace.observe(Load { sessions: 3, cost: pace.cost(positions, 0) }, seconds);
        };
        step(&mut pace, 0, 0.030);
        step(&mut pace, 256, 0.900);
        assert_eq!(pace.positions(pace.most(3), 1000), 26, "256 positions in 900 ms, 26 in 90");
        for _ in 0..30 {
            let positions = pace.positions(pace.most(3), 1000);
            step(&mut pace, positions, 0.031);
        }
        assert_eq!(pace.positions(pace.most(3), 0), STEP_TOKENS);
        step(&mut pace, 256, 1000.0);
        assert_eq!(pace.positions(pace.most(3), 0), 2, "some go on however long they take");
    }

    #[test]
    fn a_cost_pays_for_positions_and_the_rows_behind_them() {
        let pace = Pace::new(3.0);
        let paid = [(0.0, 0), (5.0, 9), (5.0, 0), (13.0, 9), (14.0, 9), (-1.0, 4)];
        assert_eq!(paid.map(|(cost, unread)| pace.positions(cost, unread)), [0, 5, 2, 10, 11, 0]);
        assert_eq!(pace.cost(10, 1), 13.0);
    }

    #[test]
    fn levels_tell_small_numbers_apart() {
        assert_eq!([0, 1, 2, 3, 4, 7, 8, 1000].map(level), [0, 1, 2, 2, 3, 3, 4, 7]);
    }
}
