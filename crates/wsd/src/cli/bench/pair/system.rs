//! The systems that are compared on a pair of models.

use wsd_core::Token;

/// A method of answering, with its name in tables.
#[derive(Debug)]
pub(super) struct System {
    pub(super) name: &'static str,
    pub(super) method: Method,
    /// The system whose tokens must be the same under greedy sampling.
    pub(super) twin: Option<&'static System>,
}

/// The implementation of a system.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    /// A strategy of the table, with or without speculative decoding by the base.
    Strategy { name: &'static str, speculate: bool },
    /// The paper's reference: the whole draft, its scores, and the rest, without a cache.
    ThreePasses,
}

pub(super) static DIRECT: System =
    System { name: "base alone", method: Method::Strategy { name: "base", speculate: false }, twin: None };
pub(super) static WSD: System =
    System { name: "wsd", method: Method::Strategy { name: "wsd", speculate: true }, twin: None };
pub(super) static THREE_PASSES: System = System { name: "three passes", method: Method::ThreePasses, twin: Some(&WSD) };
static SPECULATIVE: System = System {
    name: "base alone, speculating",
    method: Method::Strategy { name: "speculative", speculate: true },
    twin: Some(&DIRECT),
};
static WSD_ALONE: System = System {
    name: "wsd without speculation",
    method: Method::Strategy { name: "wsd", speculate: false },
    twin: Some(&WSD),
};

/// All systems, in the order of measurement.
pub(super) static SYSTEMS: [&System; 5] = [&DIRECT, &SPECULATIVE, &WSD_ALONE, &WSD, &THREE_PASSES];

/// The answer of a system to one prompt.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) tokens: Vec<Token>,
    pub(super) seconds: f64,
    /// The token at which the base took over.
    pub(super) switch: Option<usize>,
    /// Tokens proposed in speculation.
    pub(super) proposed: usize,
    /// Proposed tokens that the base accepted.
    pub(super) accepted: usize,
}
