//! `SplitMix64`, a hash of 64 bits that is the same in every run and on every machine.

/// Returns the output of the `SplitMix64` generator in state `x` (Steele, Lea and Flood 2014, "Fast
/// splittable pseudorandom number generators"): every bit of `x` changes each bit of the result
/// with a probability near one half.
///
/// ```
/// assert_eq!(wsd_core::splitmix64(0), 0xE220_A839_7B1D_CDAF);
/// ```
#[must_use]
pub fn splitmix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
