//! Scopes of sessions.

/// The groups within which a session shares an engine's caches and time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Sessions share KV caches only with those of the same number, so that the time of an answer
    /// tells nothing about the tokens of others.
    pub cache: u64,
    /// The client, among whom an engine divides its time.
    pub client: u64,
}
