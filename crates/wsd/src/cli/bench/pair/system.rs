//! The systems that are compared on a pair of models.

use wsd_core::{Proposed, Seat, Token};

/// A method of answering, with its name in tables.
#[derive(Debug)]
pub(super) struct System {
    /// The name on the command line.
    pub(super) key: &'static str,
    pub(super) name: &'static str,
    pub(super) method: Method,
    /// The system whose tokens must be the same under greedy sampling.
    pub(super) twin: Option<&'static System>,
    /// The same system without speculation.
    pub(super) plain: Option<&'static System>,
}

/// The implementation of a system.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    /// A strategy of the table, with these sources of proposals.
    Strategy {
        name: &'static str,
        speculate: &'static str,
        /// The seat whose model takes the draft's part.
        draft: Seat,
    },
    /// The paper's reference: the whole draft, its scores, and the rest, without a cache.
    ThreePasses,
}

const fn strategy(name: &'static str, speculate: &'static str, draft: Seat) -> Method {
    Method::Strategy { name, speculate, draft }
}

pub(super) static DIRECT: System =
    System { key: "base", name: "base alone", method: strategy("base", "off", Seat::DRAFT), twin: None, plain: None };
pub(super) static WSD: System = System {
    key: "wsd",
    name: "wsd",
    method: strategy("wsd", "auto", Seat::DRAFT),
    twin: Some(&WSD_ALONE),
    plain: Some(&WSD_ALONE),
};
pub(super) static THREE_PASSES: System =
    System { key: "passes", name: "three passes", method: Method::ThreePasses, twin: Some(&WSD_ALONE), plain: None };
static SPECULATIVE: System = System {
    key: "speculating",
    name: "base alone, speculating",
    method: strategy("speculative", "auto", Seat::DRAFT),
    twin: Some(&DIRECT),
    plain: Some(&DIRECT),
};
static LOOKUP: System = System {
    key: "lookup",
    name: "base alone, lookup",
    method: strategy("speculative", "lookup", Seat::DRAFT),
    twin: Some(&DIRECT),
    plain: Some(&DIRECT),
};
static MIDDLE: System = System {
    key: "middle",
    name: "base alone, middle model",
    method: strategy("speculative", "auto", Seat::MIDDLE),
    twin: Some(&DIRECT),
    plain: Some(&DIRECT),
};
static ROUTED: System = System {
    key: "routed",
    name: "base alone, routed",
    method: strategy("routed", "auto", Seat::DRAFT),
    twin: Some(&DIRECT),
    plain: Some(&DIRECT),
};
pub(super) static WSD_ALONE: System = System {
    key: "wsd-alone",
    name: "wsd without speculation",
    method: strategy("wsd", "off", Seat::DRAFT),
    twin: None,
    plain: None,
};

/// All systems, in the order of measurement.
pub(super) static SYSTEMS: [&System; 8] =
    [&DIRECT, &SPECULATIVE, &LOOKUP, &MIDDLE, &ROUTED, &WSD_ALONE, &WSD, &THREE_PASSES];

impl System {
    /// True if it needs a middle model.
    pub(super) fn needs_middle(&self) -> bool {
        matches!(self.method, Method::Strategy { draft: Seat::MIDDLE, .. } | Method::Strategy { name: "routed", .. })
    }
}

/// The answer of a system to one prompt.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) tokens: Vec<Token>,
    pub(super) seconds: f64,
    /// The token at which the base took over.
    pub(super) switch: Option<usize>,
    /// Tokens proposed in speculation, by source.
    pub(super) proposals: Vec<Proposed>,
    /// Tokens that the base wrote.
    pub(super) base_tokens: usize,
    /// Steps in which it did.
    pub(super) base_steps: usize,
}
