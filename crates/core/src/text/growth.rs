//! Growth of text in a tokenizer, bounded before any text is encoded.
//!
//! A `tokenizer.json` is a program: replacements after one another multiply the length of a text, so
//! four of them that write a thousand letters for one turn a word into terabytes. The bound is the
//! product over all steps of the most bytes that a step can make of one.

use serde::Deserialize;
use serde_json::Value;

use super::ids::Ids;
use crate::{Error, Result};

/// The most bytes that a text may have after the steps of a tokenizer, by the bound. The library
/// keeps 16 bytes beside each.
const MAX_BYTES: f64 = (32 << 20) as f64;
/// The most bytes that the steps may make of one. A text of 64 KiB can always be encoded.
const MAX_GROWTH: f64 = 512.0;
/// The expansion of the compatibility decompositions in UTF-8 (Unicode FAQ, Normalization).
const COMPATIBILITY: f64 = 11.0;
/// The expansion of the canonical normalization forms and of lowercasing in UTF-8.
const CANONICAL: f64 = 3.0;

/// The bounds of a tokenizer: the most bytes that it makes of one byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    encoding: f64,
    decoding: f64,
}

/// The parts of a `tokenizer.json` that change text, and the ids of its vocabulary.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: Option<Model>,
}

#[derive(Deserialize)]
struct AddedToken {
    #[serde(default)]
    id: u64,
    #[serde(default)]
    content: String,
}

#[derive(Deserialize)]
struct Model {
    vocab: Option<Ids>,
}

/// Checks a `tokenizer.json` before a tokenizer is built from it, which normalizes its added tokens.
///
/// # Errors
/// [`Error::Tokenizer`] for JSON that does not parse or names a part twice, for steps that multiply
/// text, and for ids above the number of entries, beyond any published tokenizer's.
pub fn check_tokenizer(name: &str, json: &[u8]) -> Result<()> {
    let fault = |error: serde_json::Error| Error::Tokenizer { name: name.to_owned(), message: error.to_string() };
    let parts: Parts = serde_json::from_slice(json).map_err(fault)?;
    let mut ids = parts.model.and_then(|model| model.vocab).unwrap_or_default();
    parts.added_tokens.iter().for_each(|token| ids.add(token.id));
    ids.check(name)?;
    let growth = Growth::of(&parts.normalizer, &parts.pre_tokenizer, &parts.decoder);
    let refuse = |what: &str, limit: f64, found: f64| {
        let message = format!("{what} must be at most {limit}, got {found:.0}\n  hint: the file may be hostile");
        Err(Error::Tokenizer { name: name.to_owned(), message })
    };
    for (steps, growth) in [("normalizer", growth.encoding), ("decoder", growth.decoding)] {
        if growth > MAX_GROWTH {
            return refuse(&format!("the bytes that its {steps} makes of one"), MAX_GROWTH, growth);
        }
    }
    let added: usize = parts.added_tokens.iter().map(|token| token.content.len()).sum();
    if added as f64 * growth.encoding > MAX_BYTES {
        return refuse("the bytes of its normalized added tokens", MAX_BYTES, added as f64 * growth.encoding);
    }
    Ok(())
}

impl Growth {
    /// Computes the bounds of the steps, each in the JSON of `tokenizer.json`.
    pub(super) fn of(normalizer: &Value, pre_tokenizer: &Value, decoder: &Value) -> Self {
        Self { encoding: factor(normalizer) * factor(pre_tokenizer), decoding: factor(decoder) }
    }

    /// Checks the length of a text before it is encoded.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub(super) fn check_encoding(self, name: &str, bytes: usize) -> Result<()> {
        check(name, "text to encode", bytes, self.encoding)
    }

    /// Checks the length of the pieces of tokens before they are decoded.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub(super) fn check_decoding(self, name: &str, bytes: usize) -> Result<()> {
        check(name, "tokens to decode", bytes, self.decoding)
    }
}

fn check(name: &str, what: &str, bytes: usize, growth: f64) -> Result<()> {
    if bytes as f64 * growth <= MAX_BYTES {
        return Ok(());
    }
    let limit = (MAX_BYTES / growth) as usize;
    let message = format!("the {what} must have at most {limit} bytes, got {bytes}: it may grow {growth:.0} times");
    Err(Error::Tokenizer { name: name.to_owned(), message })
}

/// Returns the most bytes that a step makes of one, at least 1.
fn factor(step: &Value) -> f64 {
    let steps = ["normalizers", "pretokenizers", "decoders"].iter().find_map(|key| step.get(key)?.as_array());
    let kind = step.get("type").and_then(Value::as_str);
    match kind {
        None if step.is_null() => 1.0,
        Some("Sequence") => steps.into_iter().flatten().map(factor).product(),
        Some("Replace") => replacement(step),
        Some("Prepend") => 1.0 + text(step, "prepend").len() as f64,
        Some("Precompiled") => precompiled(text(step, "precompiled_charsmap")),
        Some("NFKC" | "NFKD") => COMPATIBILITY,
        Some("NFC" | "NFD" | "Lowercase" | "StripAccents") => CANONICAL,
        // Lowercasing after a decomposition, and a space on both sides of an ideograph.
        Some("BertNormalizer") => CANONICAL * CANONICAL * 5.0 / 3.0,
        // A space becomes a character of up to 4 bytes, and another is put before a word.
        Some("Metaspace") => 8.0,
        Some("ByteLevel" | "ByteFallback" | "WordPiece" | "BPEDecoder" | "CTC") => 3.0,
        Some("Strip" | "Nmt" | "Fuse" | "Split" | "Digits" | "Punctuation" | "Whitespace" | "WhitespaceSplit") => 1.0,
        Some("BertPreTokenizer" | "CharDelimiterSplit" | "UnicodeScripts" | "FixedLength") => 1.0,
        _ => 1.0 + step.to_string().len() as f64,
    }
}

/// Returns the growth of a replacement. A pattern that matches nothing at all inserts its content
/// everywhere; a regular expression may be one.
fn replacement(step: &Value) -> f64 {
    let content = text(step, "content").len() as f64;
    match step.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Value::as_str) {
        Some(pattern) if !pattern.is_empty() => (content / pattern.len() as f64).max(1.0),
        _ => 1.0 + content,
    }
}

/// Returns the longest replacement in the character map of SentencePiece: the length of a trie in 4
/// bytes, the trie, and replacements that end with a zero byte.
fn precompiled(charsmap: &str) -> f64 {
    let bytes = base64(charsmap);
    let trie = bytes.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    let replacements = bytes.get(trie.saturating_add(4)..).unwrap_or(&bytes);
    replacements.split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(0).max(1) as f64
}

/// Decodes base64; what is none is passed over.
fn base64(text: &str) -> Vec<u8> {
    let digit = |letter: u8| {
        Some(u32::from(match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        }))
    };
    let digits: Vec<u32> = text.bytes().filter_map(digit).collect();
    let group = |digits: &[u32]| {
        let bits = digits.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - digits.len()));
        let bytes = [bits >> 16, bits >> 8, bits].map(|byte| byte as u8);
        bytes.into_iter().take(digits.len().saturating_sub(1)).collect::<Vec<_>>()
    };
    digits.chunks(4).flat_map(group).collect()
}

fn text<'a>(step: &'a Value, key: &str) -> &'a str {
    step.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn replace(pattern: &str, content: &str) -> Value {
        json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
    }

    fn refusal(normalizer: &Value, added: &str) -> String {
        let json = json!({"normalizer": normalizer, "added_tokens": [{"content": added}], "model": {"vocab": {}}});
        check_tokenizer("t", json.to_string().as_bytes()).map_or_else(|error| error.to_string(), |()| "taken".into())
    }

    #[test]
    fn steps_that_multiply_text_are_refused() {
        let bomb = json!({"type": "Sequence", "normalizers": vec![replace("o", &"o".repeat(1000)); 4]});
        assert!(refusal(&bomb, "").contains("makes of one must be at most 512, got 1000000000000"));
        assert!(refusal(&json!({"type": "Prepend", "prepend": "a".repeat(600)}), "").contains("at most 512"));
        let pattern = json!({"type": "Replace", "pattern": {"Regex": "x*"}, "content": "a".repeat(600)});
        assert!(refusal(&pattern, "").contains("at most 512"));
        assert!(refusal(&replace("o", &"o".repeat(500)), &"o".repeat(1 << 20)).contains("added tokens"));
        assert!(refusal(&json!({"type": "New", "table": "x".repeat(600)}), "").contains("at most 512"));
        // The steps of Llama, of T5 and of BERT.
        let llama = json!({"type": "Sequence", "normalizers":
            [{"type": "Prepend", "prepend": "\u{2581}"}, replace(" ", "\u{2581}")]});
        for normalizer in [llama, json!({"type": "BertNormalizer"}), json!({"type": "NFKC"}), Value::Null] {
            assert_eq!(refusal(&normalizer, "<s>"), "taken");
        }
    }

    #[test]
    fn a_part_that_stands_twice_does_not_hide_another() {
        let json = r#"{"normalizer": null, "normalizer": null, "model": {"vocab": {}}}"#;
        assert!(check_tokenizer("t", json.as_bytes()).unwrap_err().to_string().contains("duplicate field"));
        let json = r#"{"added_tokens": [{"id": 4294967295, "content": "a"}], "model": {"vocab": {"b": 0}}}"#;
        assert!(check_tokenizer("t", json.as_bytes()).unwrap_err().to_string().contains("must be below 1048584"));
    }

    #[test]
    fn a_character_map_grows_by_its_longest_replacement() {
        // A trie of 4 bytes, then `ab` and `abcde`.
        let map = "BAAAAAAAAABhYgBhYmNkZQA=";
        assert_eq!(base64(map), b"\x04\0\0\0\0\0\0\0ab\0abcde\0");
        assert_eq!(precompiled(map), 5.0);
    }

    #[test]
    fn long_texts_are_refused_by_what_they_may_grow_to() {
        let growth = Growth::of(&json!({"type": "NFKC"}), &Value::Null, &replace("a", "bbbb"));
        assert!(growth.check_encoding("t", 3 << 20).is_err() && growth.check_encoding("t", 2 << 20).is_ok());
        let error = growth.check_decoding("t", 9 << 20).unwrap_err().to_string();
        assert!(error.contains("the tokens to decode must have at most 8388608 bytes, got 9437184"), "{error}");
    }
}
