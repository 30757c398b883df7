//! JSON as Python writes it: with `NaN` and `Infinity`, and after an optional byte order mark.

use serde::de::DeserializeOwned;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The words of Python's `json` that no JSON value has. They are read as `null`.
const NOT_FINITE: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// Parses JSON in Python's dialect.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let parsed = serde_json::from_slice(bytes);
    if parsed.is_ok() { parsed } else { serde_json::from_slice(&with_nulls(bytes)) }
}

/// Replaces the words of [`NOT_FINITE`] outside of strings by `null`.
fn with_nulls(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let (mut in_string, mut escaped, mut at) = (false, false, 0);
    while let Some(&byte) = bytes.get(at) {
        let word = NOT_FINITE.into_iter().find(|word| !in_string && bytes[at..].starts_with(word));
        if let Some(word) = word {
            out.extend(b"null");
            at += word.len();
            continue;
        }
        in_string ^= byte == b'"' && !escaped;
        escaped = in_string && byte == b'\\' && !escaped;
        out.push(byte);
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn words_of_python_become_null() {
        let text = "\u{feff}{\"a\": Infinity, \"b\": [-Infinity, NaN, 1.5], \"c\": \"NaN \\\" Infinity\"}";
        let value: Value = parse(text.as_bytes()).unwrap();
        assert_eq!(value, json!({"a": null, "b": [null, null, 1.5], "c": "NaN \" Infinity"}));
        assert!(parse::<Value>(b"{\"a\": Nan}").unwrap_err().to_string().contains("line 1 column 7"));
    }
}
