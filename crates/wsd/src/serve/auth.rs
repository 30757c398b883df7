//! API keys: only their digests are kept, and compared in constant time.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::App;
use super::error::ApiError;

/// The keys that open the server; with none, it is open.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// The keys of these lines; blank ones are skipped.
    #[must_use]
    pub fn new<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let keys = lines.into_iter().map(str::trim).filter(|key| !key.is_empty());
        Self(keys.map(|key| Sha256::digest(key).into()).collect())
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `key` is one of them. Takes as long for any key.
    fn open_to(&self, key: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(key).into();
        self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&digest)).into()
    }
}

/// The key of an `Authorization` header: a bearer token, or the password a browser asks its user for.
fn key(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    Some(text.split_once(':')?.1.to_owned())
}

/// Let through only who holds a key.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| key(value.to_str().ok()?));
    if app.keys.is_empty() || given.is_some_and(|key| app.keys.open_to(&key)) {
        return next.run(request).await;
    }
    // A browser asks its user for the key where a page is refused; programs know what to do.
    let is_api = request.uri().path().starts_with("/v1/") || request.uri().path().contains("tokenize");
    ApiError::no_key(if is_api { "Bearer" } else { "Basic realm=\"wsd\"" }).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_as_bearer_and_as_password() {
        let keys = Keys::new("one\n\n two \n".lines());
        assert_eq!(keys.0.len(), 2);
        for (header, opens) in [
            ("Bearer one", true),
            ("bearer two", true),
            ("Bearer", false),
            ("Bearer on", false),
            ("Basic OnR3bw==", true), // ":two"
            ("Basic dHdv", false),    // "two", and no user before it
            ("Digest one", false),
        ] {
            assert_eq!(key(header).is_some_and(|key| keys.open_to(&key)), opens, "{header}");
        }
        assert!(!Keys::default().open_to(""));
    }
}
