//! Instructions about the language of an answer, by the detector that the official grader calls.

use std::sync::LazyLock;

use langdetect::{DetectorFactory, Seed};

use super::arguments::{Kwargs, text};
use crate::python::{is_lower, is_upper};

/// The detector. It draws random numbers, and the official grader sets no seed; here the seed is
/// fixed, so that verdicts are reproducible.
static DETECTOR: LazyLock<DetectorFactory> = LazyLock::new(|| {
    let mut factory = DetectorFactory::builtin().clone();
    factory.seed = Seed::Int(0);
    factory
});

/// Tells whether a text is in a language, or in none that can be told.
fn is_in(language: &str, answer: &str) -> bool {
    DETECTOR.detect(answer).map_or(true, |found| found == language)
}

pub(super) fn response(kwargs: &Kwargs, answer: &str) -> bool {
    is_in(text(kwargs, "language"), answer)
}

pub(super) fn capital(_: &Kwargs, answer: &str) -> bool {
    is_upper(answer) && is_in("en", answer)
}

pub(super) fn lowercase(_: &Kwargs, answer: &str) -> bool {
    is_lower(answer) && is_in("en", answer)
}
