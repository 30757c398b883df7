//! Stop strings over a stream of text. Text that may still become part of a stop string is held
//! back.

/// Strings that end an answer and do not belong to it.
///
/// ```
/// use wsd_core::{StopMatch, Stops};
/// let stops = Stops::new(["\n[User]".to_owned()]);
/// assert_eq!(stops.find("fine\n[Us"), StopMatch::Hold(4));
/// assert_eq!(stops.find("fine\n[User] hi"), StopMatch::Cut(4));
/// assert_eq!(stops.find_first("fine\n[Us"), None);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Stops(Vec<String>);

impl Stops {
    /// Stop strings; empty ones are ignored.
    #[must_use]
    pub fn new(strings: impl IntoIterator<Item = String>) -> Self {
        Self(strings.into_iter().filter(|stop| !stop.is_empty()).collect())
    }

    /// Searches the text that has not been sent yet, to which more text may be appended later.
    #[must_use]
    pub fn find(&self, text: &str) -> StopMatch {
        let cut = self.0.iter().filter_map(|stop| text.find(stop.as_str())).min();
        let hold = self.0.iter().filter_map(|stop| overlap(text, stop)).min();
        match (cut, hold) {
            // A longer stop string that began earlier may still be completed and would then be the
            // first one, so the decision has to wait.
            (Some(cut), Some(hold)) if hold < cut => StopMatch::Hold(hold),
            (Some(cut), _) => StopMatch::Cut(cut),
            (None, hold) => StopMatch::Hold(hold.unwrap_or(text.len())),
        }
    }

    /// Returns the stop string that `text` begins with.
    pub(crate) fn starting(&self, text: &str) -> Option<&str> {
        self.0.iter().map(String::as_str).find(|stop| text.starts_with(stop))
    }

    /// Returns the byte at which the first complete stop string begins, if no text follows.
    #[must_use]
    pub fn find_first(&self, text: &str) -> Option<usize> {
        self.0.iter().filter_map(|stop| text.find(stop.as_str())).min()
    }
}

/// The result of a search for stop strings in a text that may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMatch {
    /// The answer ends at this byte.
    Cut(usize),
    /// The bytes before this one can be sent; those from it on may be the beginning of a stop
    /// string.
    Hold(usize),
}

/// Returns the start of the longest suffix of `text` that is a proper prefix of `stop`.
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
        /// A text that arrives in any pieces is sent up to its first stop string, and never beyond
        /// it.
        #[test]
        fn streaming_equals_cutting_at_once(
            text in "[ab\u{e9}\n]{0,40}",
            stops in prop::collection::vec("[ab\u{e9}\n]{1,4}", 0..4),
            cuts in prop::collection::vec(0usize..40, 0..10),
        ) {
            let stops = Stops::new(stops);
            let end = stops.find_first(&text).unwrap_or(text.len());
            let is_boundary = |&at: &usize| at <= text.len() && text.is_char_boundary(at);
            let mut bounds: Vec<_> = cuts.into_iter().filter(is_boundary).collect();
            bounds.push(text.len());
            bounds.sort_unstable();
            let (mut out, mut held, mut from) = (String::new(), String::new(), 0);
            for to in bounds {
                held.push_str(&text[from..to]);
                from = to;
                match stops.find(&held) {
                    StopMatch::Cut(at) => { out.push_str(&held[..at]); held.clear(); break; }
                    StopMatch::Hold(at) => { out.push_str(&held[..at]); held.drain(..at); }
                }
                prop_assert!(out.len() <= end, "sent {:?} of {:?}", out, text);
            }
            if let Some(at) = stops.find_first(&held) { held.truncate(at); }
            out.push_str(&held);
            prop_assert_eq!(out, &text[..end]);
        }
    }
}
