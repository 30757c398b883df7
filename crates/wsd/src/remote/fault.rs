//! What can go wrong between here and a remote engine, and whether asking again may help.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// Characters of a server's own words that are repeated in a message.
const QUOTED_CHARS: usize = 300;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    /// Nobody listens, or no connection came about in time.
    Connect(String),
    /// The connection broke while the reply was awaited or read.
    Broken(String),
    /// The reply, or its next part, did not come in time.
    Late { awaited: &'static str, limit: Duration },
    /// A status that is no success.
    Status { status: u16, said: String, retry_after: Option<Duration> },
    /// The reply is not what was asked for.
    Unreadable(String),
}

impl Fault {
    /// A reply that is longer than anything asked for could be.
    pub(super) fn too_long(what: &str, limit: usize) -> Self {
        Self::Unreadable(format!("{what} is longer than {limit} bytes"))
    }

    /// A status with what the server says about it: each engine, and each router, has a form of its own.
    pub(super) fn status(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let text = String::from_utf8_lossy(body);
        let said = match serde_json::from_slice::<Value>(body) {
            Ok(value) => message(&value).unwrap_or_else(|| text.into_owned()),
            Err(_) => text.into_owned(),
        };
        Self::Status { status, said: quoted(&said), retry_after }
    }

    /// Whether another attempt may succeed.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Broken(_) | Self::Late { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502..=504),
            Self::Unreadable(_) => false,
        }
    }

    /// Whether another attempt makes sense with the same server: not where all the time there was has been waited.
    pub(super) fn is_worth_waiting_for(&self) -> bool {
        self.is_passing() && !matches!(self, Self::Late { .. })
    }

    /// How long the server asks to wait.
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

/// The message in an error object: `{"error": {"message"}}`, `{"error": "..."}`, `{"message"}` or `{"detail"}`.
pub(super) fn message(value: &Value) -> Option<String> {
    let error = value.get("error").filter(|error| !error.is_null());
    let detail = value.get("detail").map(|detail| detail.as_str().map_or_else(|| detail.to_string(), str::to_owned));
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    text(error.and_then(|error| error.get("message")))
        .or_else(|| text(error))
        .or_else(|| text(value.get("message")))
        .or(detail)
}

/// The first line of a stranger's text, bounded, and harmless to a terminal.
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
    fn every_engines_words_are_found() {
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
    fn only_what_may_pass_is_tried_again() {
        for (status, passing) in
            [(400, false), (401, false), (404, false), (422, false), (429, true), (500, true), (503, true)]
        {
            assert_eq!(Fault::status(status, b"", None).is_passing(), passing, "{status}");
        }
        let late = Fault::Late { awaited: "the first byte", limit: Duration::from_secs(1) };
        assert!(late.is_passing() && !late.is_worth_waiting_for());
    }
}
