//! Bodies of requests: bounded each and all together, and read within a time limit.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::ApiError;
use super::fields::Fields;
use super::work::{SMALL_BODY, off_reactor};

/// The most bytes in one body.
const MAX_BODY: usize = 2 << 20;
/// The most bytes in all bodies that are being read.
const MAX_BODIES: usize = 256 << 20;

/// A reader of bodies, with the memory that they share.
pub(super) struct BodyReader {
    /// Bytes that are still free.
    free: Semaphore,
    /// The time within which a body must arrive.
    timeout: Duration,
}

impl BodyReader {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { free: Semaphore::new(MAX_BODIES), timeout }
    }

    /// Reads a body and returns its fields.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Fields, ApiError> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        // A page of another site could send other types, or none, without asking (CORS). Browsers then
        // name the site, and only other programs may leave out the type.
        let media = header(header::CONTENT_TYPE).and_then(|media| media.split(';').next());
        let is_json = media.map_or_else(
            || !headers.contains_key(header::ORIGIN),
            |media| media.trim().eq_ignore_ascii_case("application/json"),
        );
        if !is_json {
            return Err(ApiError::media_type());
        }
        let announced = header(header::CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
        if announced.is_some_and(|bytes| bytes > MAX_BODY) {
            return Err(ApiError::body_too_large(MAX_BODY));
        }
        match tokio::time::timeout(self.timeout, self.bytes(body)).await {
            Err(_) => Err(ApiError::slow_body(self.timeout.as_secs())),
            Ok(bytes) => parse(bytes?).await,
        }
    }

    /// Reads all bytes of a body, as long as there is memory for them beside those of others.
    async fn bytes(&self, mut body: Body) -> Result<Vec<u8>, ApiError> {
        let (mut bytes, mut held) = (Vec::new(), None::<SemaphorePermit<'_>>);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ApiError::invalid(format!("the body broke off: {error}")))?;
            let Some(data) = frame.data_ref() else { continue };
            if bytes.len() + data.len() > MAX_BODY {
                return Err(ApiError::body_too_large(MAX_BODY));
            }
            let permit = self.free.try_acquire_many(data.len() as u32).map_err(|_| ApiError::crowded(MAX_BODIES))?;
            match &mut held {
                Some(held) => held.merge(permit),
                None => held = Some(permit),
            }
            bytes.extend_from_slice(data);
        }
        Ok(bytes)
    }
}

/// Parses a body, unless it is small where no connection waits for it.
async fn parse(bytes: Vec<u8>) -> Result<Fields, ApiError> {
    if bytes.len() <= SMALL_BODY {
        return Fields::parse(&bytes);
    }
    off_reactor(move || Fields::parse(&bytes)).await
}
