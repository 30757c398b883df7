//! API keys: only their digests are kept, and compared in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// The keys that give access; without any, everybody has access.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Reads one key from each line; blank lines are skipped.
    #[must_use]
    pub fn new<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let keys = lines.into_iter().map(str::trim).filter(|key| !key.is_empty());
        Self(keys.map(|key| Sha256::digest(key).into()).collect())
    }

    /// Tells that there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether `key` is one of the keys, in a time that does not depend on it.
    pub(super) fn contains(&self, key: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(key).into();
        self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&digest)).into()
    }
}

/// Reads the key in an `Authorization` header: a bearer token, or the password that a browser asks
/// its user for.
pub(super) fn parse_header(header: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_bearer_token_or_a_password() {
        let keys = Keys::new("one\n\n two \n".lines());
        assert_eq!(keys.0.len(), 2);
        for (header, is_key) in [
            ("Bearer one", true),
            ("bearer two", true),
            ("Bearer", false),
            ("Bearer on", false),
            ("Basic OnR3bw==", true), // ":two"
            ("Basic dHdv", false),    // "two" without a user before it
            ("Digest one", false),
        ] {
            assert_eq!(parse_header(header).is_some_and(|key| keys.contains(&key)), is_key, "{header}");
        }
        assert!(!Keys::default().contains(""));
    }
}
