//! Token ids and lists of them.

/// A token id in some model's vocabulary.
pub type Token = u32;

/// Counts the tokens that two lists have in common at their start.
///
/// ```
/// assert_eq!(wsd_core::common_prefix(&[5, 6, 7], &[5, 6, 8, 9]), 2);
/// ```
#[must_use]
pub fn common_prefix(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
