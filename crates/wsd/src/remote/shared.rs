//! The state that all sessions of a remote model share.

use std::sync::atomic::AtomicUsize;

use wsd_core::{Card, TextCodec};

use super::dialect::{Dialect, Scoring};
use super::http::{Http, TimeLimits};
use super::replicas::Replicas;

/// One remote model: the findings of its probe, its servers, and counters of its work.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) card: Card,
    pub(super) codec: TextCodec,
    /// The model's name on the servers.
    pub(super) model: String,
    pub(super) dialect: &'static dyn Dialect,
    /// The proven method of scoring; `None` where no method works.
    pub(super) scoring: Option<Scoring>,
    pub(super) http: Http,
    pub(super) limits: TimeLimits,
    /// Consecutive failures after which a question is given up.
    pub(super) attempts: u32,
    pub(super) replicas: Replicas,
    /// Questions being answered.
    pub(super) working: AtomicUsize,
    /// Requests sent so far.
    pub(super) requests: AtomicUsize,
}
