//! HTTP requests with a timeout for each phase and a limit on the size of replies.

use std::collections::VecDeque;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Error;
use serde_json::Value;
use tokio::time::timeout;

use super::error::RemoteError;
use super::fault::{self, Fault};
use super::sse::EventParser;
use crate::http::{self, Cut, HttpClient, Parts, Proxies, USER_AGENT};

/// Longest reply accepted; a scored prompt of a million tokens fits.
const MAX_REPLY_BYTES: usize = 128 << 20;
/// Longest body of an error status that is read.
const MAX_REFUSAL_BYTES: usize = 1 << 16;

/// Time limits for the phases of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// Limit for connecting.
    pub connect: Duration,
    /// Limit from the connection to the first byte of the reply, which for a scored prompt includes
    /// the whole computation.
    pub first_byte: Duration,
    /// Limit between two parts of the reply.
    pub idle: Duration,
    /// Limit for a question to the engine, all attempts and pauses included.
    pub total: Duration,
}

/// A server's address and the headers sent with each request.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Scheme and host, followed by the prefix of a proxy if there is one.
    pub(super) root: String,
    /// The API key, and the session id that routers use for affinity.
    pub(super) headers: HeaderMap,
}

/// A client with a pool of connections, bound to the runtime of its first request.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: HttpClient,
    limits: TimeLimits,
}

impl Http {
    /// Sets up a client without proxies: engines are near.
    ///
    /// # Errors
    /// [`RemoteError::Tls`].
    pub(super) fn open(limits: TimeLimits) -> Result<Self, RemoteError> {
        let client =
            http::client(limits.connect, Proxies::default()).map_err(|error| RemoteError::Tls(error.to_string()))?;
        Ok(Self { client, limits })
    }

    pub(super) async fn get(&self, target: &Target, path: &str) -> Result<Value, Fault> {
        let reply = self.send(Method::GET, target, path, Bytes::new()).await?;
        self.whole(reply).await
    }

    pub(super) async fn post(&self, target: &Target, path: &str, body: &Value) -> Result<Value, Fault> {
        let reply = self.send(Method::POST, target, path, body.to_string().into()).await?;
        self.whole(reply).await
    }

    /// Requests a stream of events. Dropping it closes the connection, which makes engines stop.
    pub(super) async fn stream(&self, target: &Target, path: &str, body: &Value) -> Result<Events, Fault> {
        let reply = self.send(Method::POST, target, path, body.to_string().into()).await?;
        let body = self.parts(reply, self.limits.first_byte);
        Ok(Events { body, parser: EventParser::default(), ready: VecDeque::new(), done: false })
    }

    async fn send(
        &self,
        method: Method,
        target: &Target,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Fault> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", target.root))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, USER_AGENT);
        let mut request = request.body(Full::new(body)).map_err(|error| Fault::Connect(error.to_string()))?;
        request.headers_mut().extend(target.headers.clone());
        // The connector enforces the limit for connecting itself.
        let limit = self.limits.connect + self.limits.first_byte;
        let reply = match timeout(limit, self.client.request(request)).await {
            Ok(reply) => reply.map_err(|error| broken(&error))?,
            Err(_) => {
                return Err(Fault::Late { awaited: "the first byte of the reply", limit: self.limits.first_byte });
            }
        };
        if reply.status() == StatusCode::OK {
            return Ok(reply);
        }
        let status = reply.status().as_u16();
        let retry_after = reply.headers().get(header::RETRY_AFTER).and_then(retry_after);
        let mut body = self.parts(reply, self.limits.idle);
        // The status alone is enough where its message does not arrive whole.
        let said = body.collect(MAX_REFUSAL_BYTES).await.unwrap_or_default();
        Err(Fault::status(status, &said, retry_after))
    }

    /// The body of a reply, with its own limit for the first part.
    fn parts(&self, reply: Response<Incoming>, first: Duration) -> Parts {
        Parts::new(reply.into_body(), (first, self.limits.idle))
    }

    async fn whole(&self, reply: Response<Incoming>) -> Result<Value, Fault> {
        let mut body = self.parts(reply, self.limits.idle);
        parse(&body.collect(MAX_REPLY_BYTES).await?)
    }
}

/// Parses `Retry-After` in seconds. The other form, a date, is ignored: it compares two clocks that
/// need not agree.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Parses a JSON reply. An error object in it is a fault even under status 200.
fn parse(bytes: &[u8]) -> Result<Value, Fault> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| Fault::Unreadable(format!("it is not JSON ({error})")))?;
    let failed = value.get("error").is_some_and(|error| !error.is_null()) || value["object"] == "error";
    if !failed {
        return Ok(value);
    }
    let code = value["error"]["code"].as_u64().or_else(|| value["code"].as_u64());
    let status = code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
    Err(Fault::status(status, fault::message(&value).unwrap_or_default().as_bytes(), None))
}

/// The fault of a request that got no reply.
fn broken(error: &Error) -> Fault {
    let why = http::cause(error).to_string();
    if error.is_connect() { Fault::Connect(why) } else { Fault::Broken(why) }
}

impl From<Cut> for Fault {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Late(limit) => Self::Late { awaited: "the next part of the reply", limit },
            Cut::Broken(error) => Self::Broken(error.to_string()),
            Cut::TooLong(limit) => Self::too_long("the reply", limit),
        }
    }
}

/// A stream of server-sent events.
#[derive(Debug)]
pub(super) struct Events {
    body: Parts,
    parser: EventParser,
    ready: VecDeque<Vec<u8>>,
    done: bool,
}

impl Events {
    /// Returns the next event; `None` after `[DONE]` or at the end of the body.
    pub(super) async fn next(&mut self) -> Result<Option<Value>, Fault> {
        while !self.done {
            match self.ready.pop_front() {
                Some(event) if event == b"[DONE]" => self.done = true,
                Some(event) => return parse(&event).map(Some),
                None => match self.body.next().await? {
                    Some(part) => self.ready.extend(self.parser.push(&part)?),
                    None => self.done = true,
                },
            }
        }
        Ok(None)
    }
}
