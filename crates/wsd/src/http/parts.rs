//! The body of a reply, read part by part.

use std::io;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use tokio::time::timeout;

/// The body of a reply, with a time limit for each part.
#[derive(Debug)]
pub(crate) struct Parts {
    incoming: Incoming,
    /// Limit for the next part.
    next: Duration,
    /// Limit for each later part.
    later: Duration,
}

/// The end of a body before its end.
#[derive(Debug)]
pub(crate) enum Cut {
    /// No part came within the limit.
    Late(Duration),
    /// The connection broke.
    Broken(io::Error),
    /// The body has more bytes than this limit.
    TooLong(usize),
}

impl Parts {
    pub(crate) fn new(incoming: Incoming, (first, later): (Duration, Duration)) -> Self {
        Self { incoming, next: first, later }
    }

    /// Waits for the next part; `None` at the end. Trailers are passed over.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Cut> {
        loop {
            let limit = std::mem::replace(&mut self.next, self.later);
            let Some(frame) = timeout(limit, self.incoming.frame()).await.map_err(|_| Cut::Late(limit))? else {
                return Ok(None);
            };
            if let Ok(part) = frame.map_err(|error| Cut::Broken(super::cause(&error)))?.into_data() {
                return Ok(Some(part));
            }
        }
    }

    /// Reads the whole body, of at most `limit` bytes.
    pub(crate) async fn collect(&mut self, limit: usize) -> Result<Vec<u8>, Cut> {
        let mut bytes = Vec::new();
        while let Some(part) = self.next().await? {
            if bytes.len() + part.len() > limit {
                return Err(Cut::TooLong(limit));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }
}
