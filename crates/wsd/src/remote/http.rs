//! Requests to a server: time-outs for each of their phases, and caps on what comes back.

use std::collections::VecDeque;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, Error, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls_platform_verifier::ConfigVerifierExt as _;
use serde_json::Value;
use tokio::time::timeout;

use super::RemoteError;
use super::fault::{self, Fault};
use super::sse::EventParser;

/// The longest reply that is taken: a scored prompt of a million tokens fits.
const MAX_REPLY_BYTES: usize = 128 << 20;
/// The longest refusal that is read.
const MAX_REFUSAL_BYTES: usize = 1 << 16;
/// An unused connection is given up before the server does so: uvicorn and llama-server wait 5 s.
const UNUSED_LIMIT: Duration = Duration::from_secs(4);

/// How long each phase of a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// To connect.
    pub connect: Duration,
    /// From there to the first byte of the reply, which for a scored prompt is the whole computation.
    pub first_byte: Duration,
    /// Between two parts of the reply.
    pub idle: Duration,
    /// For a question to the engine with all its attempts.
    pub total: Duration,
}

/// Where requests go, and what they say of their sender.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Scheme, host and whatever stands before the engine's own paths.
    pub(super) root: String,
    /// The key, and what routers tell dialogues apart by.
    pub(super) headers: HeaderMap,
}

/// A client with a pool of connections. It belongs to the runtime it is first used in.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    limits: TimeLimits,
}

impl Http {
    pub(super) fn new(limits: TimeLimits) -> Result<Self, RemoteError> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(limits.connect));
        // The system's certificates, so that those a company has added count too.
        let tls =
            rustls::ClientConfig::with_platform_verifier().map_err(|error| RemoteError::Tls(error.to_string()))?;
        let https = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(UNUSED_LIMIT)
            .build(https.wrap_connector(connector));
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

    /// Ask for a stream of events. Dropping it closes the connection, by which engines know that nobody listens.
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
            .header(header::USER_AGENT, concat!("wsd/", env!("CARGO_PKG_VERSION")));
        let mut request = request.body(Full::new(body)).map_err(|error| Fault::Connect(error.to_string()))?;
        request.headers_mut().extend(target.headers.clone());
        // The connector watches the time to connect itself.
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
        // A refusal that does not arrive whole is a refusal all the same.
        let said = body.collect(MAX_REFUSAL_BYTES).await.unwrap_or_default();
        Err(Fault::status(status, &said, retry_after))
    }

    /// The body of a reply, whose first part may take as long as `patience`.
    fn parts(&self, reply: Response<Incoming>, patience: Duration) -> Parts {
        Parts { body: reply.into_body(), patience, idle: self.limits.idle }
    }

    async fn whole(&self, reply: Response<Incoming>) -> Result<Value, Fault> {
        let mut body = self.parts(reply, self.limits.idle);
        parse(&body.collect(MAX_REPLY_BYTES).await?)
    }
}

/// Seconds to wait. The other form of the header, a date, depends on two clocks that need not agree, and is not used.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// A reply that engines mean as JSON. One that says that something went wrong is a refusal, whatever its status.
fn parse(bytes: &[u8]) -> Result<Value, Fault> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| Fault::Unreadable(format!("it is not JSON ({error})")))?;
    let failed = value.get("error").is_some_and(|error| !error.is_null()) || value["object"] == "error";
    match failed {
        true => {
            let code = value["error"]["code"].as_u64().or_else(|| value["code"].as_u64());
            let status = code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
            Err(Fault::status(status, fault::message(&value).unwrap_or_default().as_bytes(), None))
        }
        false => Ok(value),
    }
}

fn broken(error: &Error) -> Fault {
    // The outermost error says only that sending failed.
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        why = cause.to_string();
        source = cause.source();
    }
    if error.is_connect() { Fault::Connect(why) } else { Fault::Broken(why) }
}

/// A reply's body, part by part.
#[derive(Debug)]
struct Parts {
    body: Incoming,
    /// For the next part...
    patience: Duration,
    /// ...and for those after it.
    idle: Duration,
}

impl Parts {
    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let limit = std::mem::replace(&mut self.patience, self.idle);
            let late = Fault::Late { awaited: "the next part of the reply", limit };
            match timeout(limit, self.body.frame()).await.map_err(|_| late)? {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => return Err(Fault::Broken(error.to_string())),
                None => return Ok(None),
            }
        }
    }

    async fn collect(&mut self, limit: usize) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        while let Some(part) = self.next().await? {
            if bytes.len() + part.len() > limit {
                return Err(Fault::too_long("the reply", limit));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }
}

/// A stream of events.
#[derive(Debug)]
pub(super) struct Events {
    body: Parts,
    parser: EventParser,
    ready: VecDeque<Vec<u8>>,
    done: bool,
}

impl Events {
    /// The next event; `None` after `[DONE]`, or where the body ends.
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
