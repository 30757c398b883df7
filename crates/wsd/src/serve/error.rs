//! Errors for clients: OpenAI's error object with an HTTP status.

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use wsd_core::{Error, nearest};

use crate::models::short_name;

/// A refusal or a failure, in words for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    /// The parameter at fault.
    param: Option<String>,
    code: Option<&'static str>,
    /// Seconds after which another attempt may succeed.
    retry_after: Option<u32>,
    /// The authentication scheme that the client should use.
    challenge: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, kind, message, param: None, code: None, retry_after: None, challenge: None }
    }

    /// An invalid request.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A parameter with a value that is not allowed.
    pub(super) fn parameter(name: impl Into<String>, message: impl Into<String>) -> Self {
        let name = name.into();
        Self { code: Some("invalid_value"), ..Self::invalid(format!("`{name}` {}", message.into())) }.about(name)
    }

    /// A parameter that this server does not know or does not support.
    pub(super) fn unknown(name: impl Into<String>, message: &str) -> Self {
        let name = name.into();
        Self { code: Some("unknown_parameter"), ..Self::invalid(format!("`{name}` {message}")) }.about(name)
    }

    /// A model that does not exist.
    pub(super) fn unknown_model<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<_> = known.into_iter().collect();
        let meant = nearest(name, known.iter().copied());
        let hint = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        let message = format!("`model` must be one of {}, got {name}{hint}", known.join(", "));
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        Self { code: Some("model_not_found"), ..error }.about("model")
    }

    /// A request without a valid key.
    pub(super) fn no_key(challenge: &'static str) -> Self {
        let message = "this server needs a valid API key: `Authorization: Bearer KEY`, `x-api-key: KEY`, or KEY as \
                       the password in a browser";
        let error = Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message);
        Self { code: Some("invalid_api_key"), challenge: Some(challenge), ..error }
    }

    /// A request to a host name that is not the server's.
    pub(super) fn foreign_host(host: &str) -> Self {
        let message = format!("`{host}` is no host name of this server; `wsd serve --allowed-host` adds names");
        Self { code: Some("unknown_host"), ..Self::new(StatusCode::FORBIDDEN, "permission_error", message) }
    }

    /// A path without a route.
    pub(super) fn not_found(path: &str) -> Self {
        let message = format!("there is nothing at {path}; /openapi.json lists the routes");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// An earlier response that is not kept, or not the client's.
    pub(super) fn unknown_response(id: &str) -> Self {
        let message =
            format!("`previous_response_id` must name a response that is still kept, got {id}; send its text");
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        Self { code: Some("previous_response_not_found"), ..error }.about("previous_response_id")
    }

    /// A method that the route does not have.
    pub(super) fn method(method: &str, path: &str) -> Self {
        let way = match method {
            // A browser asks by this method for a page of another origin.
            "OPTIONS" => "; `wsd serve --cors` admits pages of other origins",
            "GET" => "; it takes POST, with a body of JSON",
            _ => "; /openapi.json lists the routes",
        };
        let message = format!("{path} does not take {method}{way}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
    }

    /// A body above the limit.
    pub(super) fn body_too_large(limit: usize) -> Self {
        let message = format!("the request's body must have at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    /// A body that took too long.
    pub(super) fn slow_body(seconds: u64) -> Self {
        let message = format!("the request's body did not arrive within {seconds} s");
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message)
    }

    /// A body that is not JSON.
    pub(super) fn media_type() -> Self {
        let message = "the body must be JSON, sent as Content-Type: application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message)
    }

    /// A full queue.
    pub(super) fn busy(running: usize, queued: usize) -> Self {
        let message = format!("the server is full: {running} answers at a time and {queued} requests waiting");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { code: Some("rate_limit_exceeded"), retry_after: Some(1), ..error }
    }

    /// A client that has used up its share of a minute.
    pub(super) fn share_used(limit: usize, what: &str, seconds: u32) -> Self {
        let message = format!("the server gives a client {limit} {what} a minute; the next begins in {seconds} s");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { code: Some("rate_limit_exceeded"), retry_after: Some(seconds), ..error }
    }

    /// Too many bytes in bodies that are being read.
    pub(super) fn crowded(bytes: usize) -> Self {
        let message = format!("the bodies being received have reached the server's limit of {bytes} bytes");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { code: Some("rate_limit_exceeded"), retry_after: Some(1), ..error }
    }

    /// A server that is being stopped.
    pub(super) fn closing() -> Self {
        let error =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable_error", "the server is shutting down");
        Self { retry_after: Some(5), ..error }
    }

    /// An answer that was running when the time for the end of the server was over.
    pub(super) fn cut() -> Self {
        let message = "the server was stopped before the answer was complete";
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable_error", message);
        Self { code: Some("server_stopped"), retry_after: Some(5), ..error }
    }

    /// An answer past the deadline.
    pub(super) fn late(seconds: u64) -> Self {
        let message = format!("the answer was not complete within the server's limit of {seconds} s");
        Self { code: Some("timeout"), ..Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", message) }
    }

    /// A fault of the server itself, which its log describes.
    pub(super) fn internal() -> Self {
        let message = "the server failed to answer; its log has the cause";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// A failure of an engine on another machine. The log has its address and its reply.
    fn upstream(engine: &str, phase: &str) -> Self {
        let message =
            format!("the engine `{engine}` behind this server failed while {phase}; the server's log has the cause");
        Self { code: Some("engine_failed"), ..Self::new(StatusCode::BAD_GATEWAY, "server_error", message) }
    }

    /// The same error, with the parameter at fault.
    fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The code, or the kind of an error without one.
    pub(super) fn code(&self) -> &'static str {
        self.code.unwrap_or(self.kind)
    }

    /// The parameter at fault.
    pub(super) fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// Returns the object that clients of OpenAI's protocol read.
    pub(super) fn body(&self) -> Value {
        self.body_in(Shape::OpenAi)
    }

    /// Returns the object that clients of a protocol read.
    pub(super) fn body_in(&self, shape: Shape) -> Value {
        let message = &self.message;
        match shape {
            Shape::OpenAi => {
                json!({"error": {"message": message, "type": self.kind, "param": self.param, "code": self.code}})
            }
            Shape::Anthropic => {
                let kind = match self.status.as_u16() {
                    401 => "authentication_error",
                    403 => "permission_error",
                    404 => "not_found_error",
                    413 => "request_too_large",
                    429 => "rate_limit_error",
                    503 => "overloaded_error",
                    504 => "timeout_error",
                    500.. => "api_error",
                    _ => "invalid_request_error",
                };
                json!({"type": "error", "error": {"type": kind, "message": message}})
            }
            Shape::Ollama => json!({"error": message}),
        }
    }
}

/// The form of an error in a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    OpenAi,
    Anthropic,
    Ollama,
}

impl Shape {
    /// The form that clients of a path expect.
    fn of(path: &str) -> Self {
        let path = path.strip_prefix("/v1").unwrap_or(path);
        match path.split('/').nth(1) {
            Some("messages") => Self::Anthropic,
            Some("api") => Self::Ollama,
            _ => Self::OpenAi,
        }
    }
}

/// Puts errors into the form that clients of the path expect.
pub(super) async fn shape(request: Request, next: Next) -> Response {
    let shape = Shape::of(request.uri().path());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions().get::<ApiError>().filter(|_| shape != Shape::OpenAi).cloned() {
        *response.body_mut() = Body::from(error.body_in(shape).to_string());
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// Returns a message for clients, in which quoted paths are names without folders.
fn public(message: &str) -> String {
    let parts = message.split('`').enumerate();
    // Every other part stands between quotes.
    let parts = parts.map(|(index, part)| if index % 2 == 1 { short_name(part) } else { part });
    parts.collect::<Vec<_>>().join("`")
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match &error {
            Error::Setting { name, limit, value } => {
                Self::parameter(*name, public(&format!("must be {limit}, got {value}")))
            }
            Error::PromptTooLong { .. } | Error::TextTooLong { .. } => {
                Self { code: Some("context_length_exceeded"), ..Self::invalid(public(&error.to_string())) }
            }
            Error::Remote { engine, phase, .. } => {
                eprintln!("error: {error}");
                Self::upstream(short_name(engine), phase)
            }
            Error::NotFinite { .. } | Error::Engine { .. } | Error::Scorer { .. } | Error::Io(_) => {
                eprintln!("error: {error}");
                Self::internal()
            }
            _ => Self::invalid(public(&error.to_string())),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_host_are_kept_from_clients() {
        let engine = || "/srv/models/base.gguf".to_owned();
        for error in [
            Error::PromptTooLong { engine: engine(), tokens: 9, limit: 8 },
            Error::TokenRange { engine: engine(), token: 9, limit: 8 },
            Error::Template { name: engine(), message: "line 2".into() },
            Error::Unguided { engine: engine() },
            Error::Setting { name: "seed", limit: format!("left out: `{}` has none", engine()), value: "1".into() },
        ] {
            let message = ApiError::from(error).message;
            assert!(message.contains("`base.gguf`") && !message.contains("/srv"), "{message}");
        }
    }
}
