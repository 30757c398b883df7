//! Failures of requests to a remote engine, and their classification for retries.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// Most characters of a server's own message that are quoted.
const QUOTED_CHARS: usize = 300;

/// The failure of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    /// The connection was refused, or not made in time.
    Connect(String),
    /// The connection broke before the end of the reply.
    Broken(String),
    /// The reply, or the next part of it, did not arrive in time.
    Late { awaited: &'static str, limit: Duration },
    /// A status other than success, with the server's message.
    Status { status: u16, said: String, retry_after: Option<Duration> },
    /// A reply that does not answer the request.
    Unreadable(String),
}

impl Fault {
    /// The fault of a reply, or a part of it, that exceeds `limit` bytes.
    pub(super) fn too_long(subject: &str, limit: usize) -> Self {
        Self::Unreadable(format!("{subject} is longer than {limit} bytes"))
    }

    /// The fault of an error status. The message is extracted from any of the body formats that
    /// engines and routers use.
    pub(super) fn status(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let text = String::from_utf8_lossy(body);
        let said = match serde_json::from_slice::<Value>(body) {
            Ok(value) => message(&value).unwrap_or_else(|| text.into_owned()),
            Err(_) => text.into_owned(),
        };
        Self::Status { status, said: quoted(&said), retry_after }
    }

    /// True where another attempt may succeed.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Broken(_) | Self::Late { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502..=504),
            Self::Unreadable(_) => false,
        }
    }

    /// True where another attempt on the same server may succeed. After a timeout it would only
    /// wait again.
    pub(super) fn is_worth_waiting_for(&self) -> bool {
        self.is_transient() && !matches!(self, Self::Late { .. })
    }

    /// The pause that the server requests.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Broken(why) => write!(f, "the connection broke: {why}"),
            Self::Late { awaited, limit } => write!(f, "{awaited} did not come within {:.1} s", limit.as_secs_f32()),
            Self::Status { status, said, retry_after } => {
                write!(f, "status {status}")?;
                if !said.is_empty() {
                    write!(f, ", {said}")?;
                }
                match retry_after {
                    Some(wait) => write!(f, " (it asks to wait {} s)", wait.as_secs()),
                    None => Ok(()),
                }
            }
            Self::Unreadable(why) => write!(f, "its reply cannot be used: {why}"),
        }
    }
}

/// The message in an error object: `{"error": {"message"}}`, `{"error": "..."}`, `{"message"}` or
/// `{"detail"}`.
pub(super) fn message(value: &Value) -> Option<String> {
    let error = value.get("error").filter(|error| !error.is_null());
    let detail = value.get("detail").map(|detail| detail.as_str().map_or_else(|| detail.to_string(), str::to_owned));
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    text(error.and_then(|error| error.get("message")))
        .or_else(|| text(error))
        .or_else(|| text(value.get("message")))
        .or(detail)
}

/// The first line of untrusted text, shortened and without control characters.
fn quoted(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let mut short: String = line.chars().filter(|c| !c.is_control()).take(QUOTED_CHARS).collect();
    if line.chars().count() > QUOTED_CHARS {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_every_engine_is_found() {
        let said = |body: &str| match Fault::status(400, body.as_bytes(), None) {
            Fault::Status { said, .. } => said,
            other => panic!("{other}"),
        };
        assert_eq!(
            said(r#"{"error": {"message": "Token id 1024 is out of vocabulary", "code": 400}}"#),
            "Token id 1024 is out of vocabulary"
        );
        assert_eq!(said(r#"{"error": "Unauthorized"}"#), "Unauthorized");
        assert_eq!(said(r#"{"object": "error", "message": "1 validation error:\n more"}"#), "1 validation error:");
        assert_eq!(said(r#"{"detail": "Not Found"}"#), "Not Found");
        assert_eq!(said("Failed to deserialize\u{1b}[2J the JSON body"), "Failed to deserialize[2J the JSON body");
        assert_eq!(said(""), "");
    }

    #[test]
    fn only_transient_faults_are_retried() {
        for (status, transient) in
            [(400, false), (401, false), (404, false), (422, false), (429, true), (500, true), (503, true)]
        {
            assert_eq!(Fault::status(status, b"", None).is_transient(), transient, "{status}");
        }
        let late = Fault::Late { awaited: "the first byte", limit: Duration::from_secs(1) };
        assert!(late.is_transient() && !late.is_worth_waiting_for());
    }
}
