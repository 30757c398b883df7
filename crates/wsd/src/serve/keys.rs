//! API keys: only their digests are kept, and compared in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

/// The most keys, each of which is compared with that of every request.
const MAX_KEYS: usize = 10_000;
/// The most bytes in a key; a longer one does not fit the headers beside others.
const MAX_KEY_BYTES: usize = 4096;

/// The keys that give access; without any, everybody has access.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

/// A list that cannot be keys. The message never quotes a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A line that no client could send as a key.
    #[error(
        "line {line}: a key must be 1 to {MAX_KEY_BYTES} visible ASCII characters without spaces\n  \
         hint: one key to a line, nothing else"
    )]
    Key {
        /// The number of the line, from 1.
        line: usize,
    },
    /// Too many keys.
    #[error("the number of keys must be at most {MAX_KEYS}, got {keys}")]
    Many {
        /// The number of keys.
        keys: usize,
    },
}

impl Keys {
    /// Makes keys of lines; blank ones are skipped.
    #[must_use]
    pub fn new<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let keys = lines.into_iter().map(str::trim).filter(|key| !key.is_empty());
        Self(keys.map(|key| Sha256::digest(key).into()).collect())
    }

    /// Reads one key from each line; blank lines are skipped.
    ///
    /// # Errors
    /// [`KeyError`] for a line that no client could send as a key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        // Some editors write a byte order mark.
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let is_key = |key: &str| key.len() <= MAX_KEY_BYTES && key.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(line) = text.lines().position(|line| !is_key(line.trim())) {
            return Err(KeyError::Key { line: line + 1 });
        }
        let keys = Self::new(text.lines());
        if keys.0.len() > MAX_KEYS { Err(KeyError::Many { keys: keys.0.len() }) } else { Ok(keys) }
    }

    /// The keys of both lists.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Returns the number of keys.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells that there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the index of `key` among the keys, in a time that does not depend on it.
    pub(super) fn find(&self, key: &str) -> Option<u32> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let (mut found, mut index) = (Choice::from(0), 0);
        for (at, known) in (0..).zip(&self.0) {
            let is_equal = known.ct_eq(&digest);
            index.conditional_assign(&at, is_equal & !found);
            found |= is_equal;
        }
        bool::from(found).then_some(index)
    }
}

/// Reads the key in an `Authorization` header: a bearer token, the password that a browser asks its
/// user for, or a name without a password.
pub(super) fn parse_header(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    // `curl -u KEY:` sends it as the name.
    Some(if password.is_empty() { user } else { password }.to_owned())
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
            ("Basic dHdvOg==", true), // "two:"
            ("Basic OnR3", false),    // ":tw"
            ("Basic dHdv", false),    // "two" without a user before it
            ("Digest one", false),
        ] {
            assert_eq!(parse_header(header).is_some_and(|key| keys.find(&key).is_some()), is_key, "{header}");
        }
        assert!(Keys::default().find("").is_none());
        assert_eq!((keys.find("one"), keys.find("two"), keys.find("on")), (Some(0), Some(1), None));
    }

    #[test]
    fn what_no_client_could_send_is_refused_without_a_quote() {
        let fault =
            |text: &str| Keys::parse(text).map_or_else(|error| error.to_string(), |keys| keys.0.len().to_string());
        assert_eq!(fault("\u{FEFF}one\r\n\n two \r\n"), "2");
        for text in
            ["one\n# of alice", "one\ntw\u{e9}", "one\nt\u{7f}o", "one\nt\0o", &format!("one\n{}", "k".repeat(5000))]
        {
            let fault = fault(text);
            assert!(
                fault.starts_with("line 2: a key must be 1 to 4096 visible ASCII") && !fault.contains("alice"),
                "{fault}"
            );
        }
        assert!(fault(&"key\n".repeat(10_001)).contains("must be at most 10000, got 10001"));
    }
}
