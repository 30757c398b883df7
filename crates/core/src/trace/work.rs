//! The work that an answer cost, in tokens and floating-point operations.

use std::collections::BTreeMap;

use crate::{Call, CallKind, Completion, Seat};

/// Tokens that a model computed for an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Tokens written, whether the answer holds them or not.
    pub written: usize,
    /// Tokens scored or checked.
    pub scored: usize,
    /// Tokens prefilled besides, where the strategy counts them.
    pub prefilled: usize,
    /// Tokens among the written ones that the answer does not hold, where the strategy counts them.
    pub discarded: usize,
}

impl Work {
    /// Tokens that went through the model.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.written + self.scored + self.prefilled
    }

    /// Floating-point operations of a model with this many parameters: two per parameter and token (Kaplan
    /// et al. 2020, arXiv 2001.08361, without the attention over the context).
    #[must_use]
    pub fn flops(&self, parameters: u64) -> f64 {
        2.0 * parameters as f64 * self.tokens() as f64
    }
}

impl Completion {
    /// The work of each model, from the calls.
    ///
    /// ```
    /// use wsd_core::{Call, CallKind, Event, Seat, Trace};
    ///
    /// let mut trace = Trace::new();
    /// let call = Call { discarded: 4, ..Call::new(Seat::DRAFT, CallKind::Generate, 10, 0.1) };
    /// trace.push(&Event::Call(call));
    /// let work = trace.finish().work();
    /// assert_eq!((work[&Seat::DRAFT].tokens(), work[&Seat::DRAFT].discarded), (10, 4));
    /// assert_eq!(work[&Seat::DRAFT].flops(1_000), 20_000.0);
    /// ```
    #[must_use]
    pub fn work(&self) -> BTreeMap<Seat, Work> {
        let mut work = BTreeMap::<Seat, Work>::new();
        for Call { to, kind, tokens, prefilled, discarded, .. } in &self.calls {
            let work = work.entry(*to).or_default();
            work.prefilled += prefilled;
            work.discarded += discarded;
            match kind {
                CallKind::Generate => work.written += tokens,
                CallKind::Score | CallKind::Check => work.scored += tokens,
            }
        }
        work
    }
}
