//! Stop strings over a stream of text: nothing that may still become a stop string leaves early.

/// Strings that end an answer and do not belong to it.
#[derive(Clone, Debug, Default)]
pub struct Stops(Vec<String>);

impl Stops {
    /// Stops at the first occurrence of any of `strings`; empty ones are ignored.
    #[must_use]
    pub fn new(strings: impl IntoIterator<Item = String>) -> Self {
        Self(strings.into_iter().filter(|stop| !stop.is_empty()).collect())
    }

    /// Look at the text that has not been let out yet. `Cut(at)`: the answer ends at byte `at`. `Hold(at)`: the bytes before
    /// `at` can go, what follows may be the beginning of a stop string.
    ///
    /// ```
    /// use wsd_core::{StopMatch, Stops};
    /// let stops = Stops::new(["\n[User]".to_owned()]);
    /// assert_eq!(stops.look("fine\n[Us"), StopMatch::Hold(4));
    /// assert_eq!(stops.look("fine\n[User] hi"), StopMatch::Cut(4));
    /// ```
    #[must_use]
    pub fn look(&self, text: &str) -> StopMatch {
        let cut = self.0.iter().filter_map(|stop| text.find(stop.as_str())).min();
        let hold = self.0.iter().filter_map(|stop| overlap(text, stop)).min();
        match (cut, hold) {
            // A longer stop string that began earlier may still be completed: the first occurrence wins, so wait.
            (Some(cut), Some(hold)) if hold < cut => StopMatch::Hold(hold),
            (Some(cut), _) => StopMatch::Cut(cut),
            (None, hold) => StopMatch::Hold(hold.unwrap_or(text.len())),
        }
    }

    /// Where the answer ends if no text follows.
    #[must_use]
    pub fn last_look(&self, text: &str) -> Option<usize> {
        self.0.iter().filter_map(|stop| text.find(stop.as_str())).min()
    }
}

/// What [`Stops::look`] sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMatch {
    /// The answer ends at this byte.
    Cut(usize),
    /// The bytes before this one are free to go.
    Hold(usize),
}

/// The start of the longest end of `text` that is a proper beginning of `stop`.
fn overlap(text: &str, stop: &str) -> Option<usize> {
    let from = text.len().saturating_sub(stop.len() - 1);
    (from..text.len()).find(|&at| text.is_char_boundary(at) && stop.starts_with(&text[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]
        /// However a text arrives, what is let out is the text before the first stop string, and not a byte more at any time.
        #[test]
        fn streaming_equals_cutting_at_once(
            text in "[ab\u{e9}\n]{0,40}",
            stops in prop::collection::vec("[ab\u{e9}\n]{1,4}", 0..4),
            cuts in prop::collection::vec(0usize..40, 0..10),
        ) {
            let stops = Stops::new(stops);
            let end = stops.last_look(&text).unwrap_or(text.len());
            let mut bounds: Vec<_> = cuts.into_iter().filter(|&c| c <= text.len() && text.is_char_boundary(c)).collect();
            bounds.push(text.len());
            bounds.sort_unstable();
            let (mut out, mut held, mut from) = (String::new(), String::new(), 0);
            for to in bounds {
                held.push_str(&text[from..to]);
                from = to;
                match stops.look(&held) {
                    StopMatch::Cut(at) => { out.push_str(&held[..at]); held.clear(); break; }
                    StopMatch::Hold(at) => { out.push_str(&held[..at]); held.drain(..at); }
                }
                prop_assert!(out.len() <= end, "leaked {:?} of {:?}", out, text);
            }
            if let Some(at) = stops.last_look(&held) { held.truncate(at); }
            out.push_str(&held);
            prop_assert_eq!(out, &text[..end]);
        }
    }
}
