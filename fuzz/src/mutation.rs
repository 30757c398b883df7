//! Mutations of bytes.

use wsd_core::splitmix64;

/// Numbers that break counts, lengths and offsets.
const NUMBERS: [u64; 12] =
    [0, 1, 2, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, i64::MAX as u64, u64::MAX];
/// Words that break JSON, numbers and text.
const WORDS: [&str; 16] = [
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "1e999",
    "-0.0",
    "18446744073709551616",
    "0.1",
    "\\u0000",
    "\u{feff}",
    "\n",
    "é",
    "😀",
    "{% for i in range(9999) %}",
];
/// The most bytes of a mutated input, beside those of the longest seed.
const MAX_GROWTH: usize = 1 << 16;

/// A source of random numbers.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(splitmix64(seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        splitmix64(self.0)
    }

    /// Returns a number below `limit`; 0 where that is 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % (limit.max(1) as u64)) as usize
    }
}

/// Returns a changed copy of an input; `other` lends it a part.
pub(crate) fn mutated(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..1 + random.below(4) {
        mutate(random, &mut bytes, other);
    }
    bytes.truncate(input.len() + MAX_GROWTH);
    bytes
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(bytes.len() + 1);
    let length = (1 + random.below(32)).min(bytes.len() - at);
    match random.below(9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
        2 => drop(bytes.drain(at..at + length)),
        3 => {
            let part = bytes[at..at + length].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, part);
        }
        4 => {
            let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
            let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&number[..width]);
        }
        5 => replace_digits(random, bytes, at),
        6 => {
            let word = WORDS[random.below(WORDS.len())];
            bytes.splice(at..at, word.bytes());
        }
        7 => {
            let from = random.below(other.len() + 1);
            let part = &other[from..(from + random.below(256)).min(other.len())];
            bytes.splice(at..at + length, part.iter().copied());
        }
        _ => bytes.truncate(at),
    }
}

/// Replaces the next decimal number by another.
fn replace_digits(random: &mut Random, bytes: &mut Vec<u8>, from: usize) {
    let Some(start) = bytes[from..].iter().position(u8::is_ascii_digit).map(|offset| from + offset) else { return };
    let end =
        bytes[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |offset| start + offset);
    let number = NUMBERS[random.below(NUMBERS.len())].to_string();
    bytes.splice(start..end, number.into_bytes());
}
