//! The switch rule: pure functions over the base's log-probabilities.
//!
//! With window `w` and threshold `g`, position `i` (0-based) passes when `i + 1 >= w` and the
//! geometric mean of `p[i + 1 - w..=i]` is at least `g`; the base takes over at the first such
//! position (arXiv 2506.07434, and the authors' `get_accept_index`). The rule is computed as
//! `mean(ln p) >= ln g`, which neither underflows nor loses ties.

use crate::{Result, Setting, Token, Values};

/// The difference below which two logarithms count as equal, so that a tie of the product form is a
/// tie of this form too.
const TIE: f64 = 1e-12;

/// The setting for the window's length.
pub static WINDOW: Setting = Setting::integer(
    "window",
    "Number of latest draft tokens over which the base's probabilities are averaged",
    1..=4096,
)
.with_default_integer(6)
.with_placeholder("TOKENS");

/// The setting for the geometric mean that the window must reach.
pub static THRESHOLD: Setting = Setting::number(
    "threshold",
    "The base takes over once the geometric mean of its probabilities over the window reaches this",
    0.0..=1.0,
)
.with_default_number(0.8)
.with_placeholder("P");

/// The setting for windows that repeat the text before them.
pub static SKIP_REPETITIONS: Setting = Setting::flag(
    "skip_repetitions",
    "A window whose tokens repeat what stands just before it does not count as confident (the paper has no such rule)",
    false,
);

/// The longest period that counts as a repetition, in tokens.
const PERIOD: usize = 64;

/// Tells whether the last `window` tokens repeat what stands just before them: each equals the token
/// `p` places earlier, for one period `p` of at most 64 tokens. Repeated text is likely under any
/// model, so its probability is no sign of confidence.
///
/// ```
/// use wsd_core::repeats;
/// assert!(repeats(&[7, 1, 2, 3, 1, 2, 3, 1], 4));
/// assert!(!repeats(&[7, 1, 2, 3, 1, 2], 4));
/// ```
#[must_use]
pub fn repeats(tokens: &[Token], window: usize) -> bool {
    let Some(start) = tokens.len().checked_sub(window) else { return false };
    (1..=PERIOD.min(start)).any(|period| (start..tokens.len()).all(|at| tokens[at] == tokens[at - period]))
}

/// Window length and threshold of the switch, within their limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    window: usize,
    threshold: f64,
}

impl Default for Rule {
    /// The paper's window of 6 tokens and threshold of 0.8.
    fn default() -> Self {
        Self::from_values(&Values::default())
    }
}

impl Rule {
    /// A rule of `window` tokens and `threshold`, a probability.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for a value outside the limits of [`WINDOW`] or [`THRESHOLD`].
    ///
    /// ```
    /// use wsd_core::Rule;
    /// let rule = Rule::parse(2, 0.8)?;
    /// let logprobs = [0.9_f64, 0.5, 0.9, 0.8].map(f64::ln);
    /// assert_eq!(rule.accept_index(&logprobs), Some(3)); // sqrt(0.9 * 0.8) = 0.849
    /// assert!(Rule::parse(0, 0.8).is_err());
    /// # Ok::<(), wsd_core::Error>(())
    /// ```
    pub fn parse(window: usize, threshold: f64) -> Result<Self> {
        Ok(Self::from_values(&Values::default().with(&WINDOW, window)?.with(&THRESHOLD, threshold)?))
    }

    /// The rule set by [`WINDOW`] and [`THRESHOLD`] in `values`.
    #[must_use]
    pub fn from_values(values: &Values) -> Self {
        Self { window: values.get(&WINDOW), threshold: values.get(&THRESHOLD) }
    }

    /// Tokens in the window.
    #[must_use]
    pub fn window(&self) -> usize {
        self.window
    }

    /// The geometric mean that must be reached.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Tells whether a mean log-probability reaches the threshold.
    fn is_reached(&self, mean: f64) -> bool {
        mean >= self.threshold.ln() - TIE
    }

    /// Returns the first position at which the window passes, given natural log-probabilities.
    #[must_use]
    pub fn accept_index(&self, logprobs: &[f64]) -> Option<usize> {
        let mut window = Window::new(*self);
        logprobs.iter().position(|&logprob| window.push(logprob).is_some_and(|seen| seen.passed))
    }

    /// Returns the geometric mean of the window that ends at each position, `None` before the first
    /// full one.
    #[must_use]
    pub fn confidences(&self, logprobs: &[f64]) -> Vec<Option<f64>> {
        let mut window = Window::new(*self);
        logprobs.iter().map(|&logprob| window.push(logprob).map(|seen| seen.confidence)).collect()
    }
}

/// The state of a full window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowState {
    /// The geometric mean of the window's probabilities.
    pub confidence: f64,
    /// True if the geometric mean reaches the threshold.
    pub passed: bool,
}

/// The rule applied token by token.
///
/// ```
/// use wsd_core::{Rule, Window};
/// let mut window = Window::new(Rule::parse(2, 0.8)?);
/// assert_eq!(window.push(0.9_f64.ln()), None); // not full yet
/// let state = window.push(0.8_f64.ln()).unwrap();
/// assert!(state.passed && (state.confidence - 0.849).abs() < 0.001);
/// # Ok::<(), wsd_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Window {
    rule: Rule,
    /// The latest log-probabilities, at most one window of them, as a ring buffer.
    recent: Vec<f64>,
    /// Index of the oldest entry once the window is full.
    next: usize,
}

impl Window {
    /// An empty window.
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self { rule, recent: Vec::with_capacity(rule.window), next: 0 }
    }

    /// The rule that is applied.
    #[must_use]
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Takes in one natural log-probability. Returns `None` while the window is not full.
    pub fn push(&mut self, logprob: f64) -> Option<WindowState> {
        if self.recent.len() < self.rule.window {
            self.recent.push(logprob);
        } else {
            self.recent[self.next] = logprob;
            self.next = (self.next + 1) % self.rule.window;
        }
        if self.recent.len() < self.rule.window {
            return None;
        }
        // The sum is computed from all entries, oldest first. A running sum would accumulate
        // rounding errors and could never leave minus infinity.
        let (newer, older) = self.recent.split_at(self.next);
        let mean = older.iter().chain(newer).sum::<f64>() / self.rule.window as f64;
        Some(WindowState { confidence: mean.exp(), passed: self.rule.is_reached(mean) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The authors' rule, in its product form.
    fn reference(probabilities: &[f64], window: usize, threshold: f64) -> Option<usize> {
        (0..probabilities.len()).find(|&i| {
            i + 1 >= window
                && probabilities[i + 1 - window..=i].iter().product::<f64>().powf(1.0 / window as f64) >= threshold
        })
    }

    fn accept(probabilities: &[f64], window: usize, threshold: f64) -> Option<usize> {
        let logprobs: Vec<_> = probabilities.iter().map(|p| p.ln()).collect();
        Rule::parse(window, threshold).unwrap().accept_index(&logprobs)
    }

    #[test]
    fn ties_reach_the_threshold() {
        for p in [0.5, 0.8, 0.9, 0.3, 0.123_456_789] {
            for w in 1..=12 {
                assert_eq!(accept(&[p; 20], w, p), Some(w - 1), "p = {p}, window {w}");
            }
        }
    }

    #[test]
    fn probabilities_of_zero_one_and_subnormal_numbers() {
        assert_eq!(accept(&[1.0; 6], 6, 1.0), Some(5));
        assert_eq!(accept(&[1.0; 5], 6, 0.1), None);
        assert_eq!(accept(&[0.0; 6], 6, 0.0), Some(5), "a threshold of 0 is always reached");
        assert_eq!(accept(&[0.0, 1.0, 1.0, 1.0], 2, 0.9), Some(2));
        assert_eq!(accept(&[f64::MIN_POSITIVE / 4.0, 1.0, 1.0], 2, 0.9), Some(2));
        assert_eq!(accept(&[], 6, 0.0), None);
        assert_eq!(accept(&[1e-200; 6], 6, 1e-200), Some(5), "where the product would underflow");
    }

    #[test]
    fn errors_name_the_limits() {
        let text = Rule::parse(6, 1.5).unwrap_err().to_string();
        assert_eq!(text, "`threshold` must be a number from 0 to 1, got 1.5");
        assert!(Rule::parse(6, f64::NAN).is_err());
        assert!(Rule::parse(0, 0.8).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn agrees_with_the_reference(
            probabilities in prop::collection::vec(
                prop_oneof![0.0..=1.0, 0.7..=1.0, Just(0.0), Just(1.0), Just(0.8)], 0..60),
            window in 1usize..12,
            threshold in prop_oneof![Just(0.8), 0.0..=1.0],
        ) {
            let want = reference(&probabilities, window, threshold);
            let got = accept(&probabilities, window, threshold);
            if got != want {
                // Both forms round, so they may differ if a window lies on the threshold itself.
                let at = got.into_iter().chain(want).min().unwrap();
                let mean = probabilities[at + 1 - window..=at].iter().map(|p| p.ln()).sum::<f64>() / window as f64;
                prop_assert!((mean - threshold.ln()).abs() < 1e-11, "got {got:?}, want {want:?}, mean {mean}");
            }
        }
    }
}
