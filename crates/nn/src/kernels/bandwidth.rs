//! The bandwidth of memory.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

use super::zeroed_memory;
use crate::error::Result;

/// Measures the bytes per second that all threads together read from `bytes` bytes of memory, the
/// best of five runs: the limit of decoding.
///
/// # Errors
/// An allocation that fails.
pub(crate) fn read_bandwidth(bytes: usize) -> Result<f64> {
    let mut memory = zeroed_memory(bytes)?;
    memory.fill(1);
    let words = memory.as_chunks::<8>().0;
    let part = words.len().div_ceil(8 * rayon::current_num_threads()).max(1);
    let read = || {
        let started = Instant::now();
        let bits_of = |part: &[[u8; 8]]| part.iter().fold(0, |bits, word| bits ^ u64::from_le_bytes(*word));
        black_box(words.par_chunks(part).map(bits_of).reduce(|| 0, |one, other| one ^ other));
        memory.len() as f64 / started.elapsed().as_secs_f64()
    };
    Ok((0..5).map(|_| read()).fold(0.0, f64::max))
}
