//! Token ids and lists of them.

/// A token id in some model's vocabulary.
pub type Token = u32;

/// Returns the length of the longest common prefix of two lists.
///
/// ```
/// assert_eq!(wsd_core::common_prefix(&[5, 6, 7], &[5, 6, 9, 7]), 2);
/// assert_eq!(wsd_core::common_prefix(&[5], &[]), 0);
/// ```
#[must_use]
pub fn common_prefix<T: PartialEq>(one: &[T], other: &[T]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
