//! A draft and a base on one card, each with a stream of its own.

use std::time::Instant;

use super::*;
use crate::measure;
use crate::shapes::{Recipe, Shape};

/// Tokens of a chunk, which the draft writes one by one and the base scores at once.
const CHUNK: usize = 8;
/// Chunks that are measured.
const CHUNKS: usize = 50;

/// Loads a random model onto the first card, with a stream of its own.
fn load_shape(shape: &str) -> Cuda {
    let checkpoint = Shape::find(shape).unwrap().model(Format::BF16, Recipe { seed: 1, agreement: 1.0 }).unwrap();
    Cuda::load(&checkpoint, &[0], CudaOptions::default()).unwrap()
}

/// Tells how long a draft and a base take for their chunks one after the other, and at the same time.
#[test]
fn a_draft_writes_while_a_base_scores() {
    if let Err(reason) = Gpu::open(0) {
        return println!("skipped: {reason}");
    }
    let (mut base, mut draft) = (load_shape("1b"), load_shape("150m"));
    let mut score = || {
        for _ in 0..CHUNKS {
            measure::score(&mut base, 64, CHUNK).unwrap();
        }
    };
    let mut write = || {
        for _ in 0..CHUNKS {
            measure::decode(&mut draft, 64, CHUNK).unwrap();
        }
    };
    // Steps are recorded when they first occur.
    score();
    write();
    let milliseconds = |work: &mut dyn FnMut()| {
        let started = Instant::now();
        work();
        1e3 * started.elapsed().as_secs_f64() / CHUNKS as f64
    };
    let [scored, written] = [milliseconds(&mut score), milliseconds(&mut write)];
    let both = milliseconds(&mut || {
        std::thread::scope(|scope| {
            scope.spawn(&mut score);
            write();
        });
    });
    println!("milliseconds of a chunk of {CHUNK}: scored in {scored:.2}, written in {written:.2}, both in {both:.2}");
}
