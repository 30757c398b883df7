//! Grammars as users write them.

use serde_json::{Map, Value, json};
use wsd_core::{Error, Result};

use crate::gbnf;

/// The most bytes in a grammar or a schema.
const MAX_BYTES: usize = 256 << 10;
/// The most objects and lists of a schema inside one another.
const MAX_DEPTH: usize = 64;
/// The most texts in a choice.
const MAX_CHOICES: usize = 4096;
/// The separators of JSON: white space is limited to one space, because small models that may write
/// any amount often write nothing else.
const SEPARATORS: [(&str, &str); 2] = [("item_separator", ", ?"), ("key_separator", ": ?")];
/// The field of a schema with options of the compiler.
const OPTIONS: &str = "x-guidance";

/// A grammar as users write it.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// JSON that is valid under a schema.
    Schema(Value),
    /// A regular expression in the syntax of Rust's `regex`, which the whole answer matches.
    Regex(String),
    /// A grammar in Lark's syntax, with the rule `start`.
    Lark(String),
    /// A grammar in the form of llama.cpp, with the rule `root`.
    Gbnf(String),
    /// One of several texts.
    Choice(Vec<String>),
}

impl Form {
    /// Reads a grammar in Lark's syntax or in GBNF, which writes `::=` where Lark writes a colon.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let is_gbnf = text.lines().any(|line| !line.trim_start().starts_with(['#', '/']) && line.contains("::="));
        if is_gbnf { Self::Gbnf(text.to_owned()) } else { Self::Lark(text.to_owned()) }
    }

    /// Turns the grammar into Lark's syntax, the key under which it is compiled and kept. Errors name
    /// it `name`.
    pub(crate) fn to_lark(&self, name: &'static str) -> Result<String> {
        let fault = |limit: &str, value: String| Error::Setting { name, limit: limit.into(), value };
        let lark = match self {
            Self::Schema(schema) => {
                if depth(schema) > MAX_DEPTH {
                    return Err(fault(&format!("a schema of at most {MAX_DEPTH} levels"), "a deeper one".into()));
                }
                format!("start: %json {}", with_separators(schema.clone()))
            }
            Self::Regex(pattern) => format!("start: /{}/", llguidance::regex_to_lark(without_anchors(pattern), "")),
            Self::Lark(text) => text.clone(),
            Self::Gbnf(text) => gbnf::to_lark(text).map_err(|error| fault("a grammar in GBNF", error))?,
            Self::Choice(texts) if texts.is_empty() || texts.len() > MAX_CHOICES => {
                return Err(fault(&format!("a list of 1 to {MAX_CHOICES} texts"), format!("{} texts", texts.len())));
            }
            Self::Choice(texts) => {
                format!(
                    "start: CHOICE\nCHOICE: {}",
                    texts.iter().map(|text| json!(text).to_string()).collect::<Vec<_>>().join(" | ")
                )
            }
        };
        if lark.len() > MAX_BYTES {
            return Err(fault(&format!("at most {MAX_BYTES} bytes"), format!("{} bytes", lark.len())));
        }
        Ok(lark)
    }
}

/// Returns a pattern without the anchors at its ends, which a match of the whole answer implies.
fn without_anchors(pattern: &str) -> &str {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let escapes = |text: &str| text.len() - text.trim_end_matches('\\').len();
    pattern.strip_suffix('$').filter(|rest| escapes(rest) % 2 == 0).unwrap_or(pattern)
}

/// Returns the schema of any JSON object.
#[must_use]
pub fn object() -> Value {
    json!({"type": "object"})
}

/// Returns a schema as a part of another one: references to its own root lead to `path`, the place of
/// the part in the whole, as `/properties/arguments`.
///
/// ```
/// use serde_json::json;
///
/// let schema = json!({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#"}}}});
/// let part = wsd_grammar::embedded(schema, "/items");
/// assert_eq!(part["$ref"], "#/items/$defs/a");
/// assert_eq!(part["$defs"]["a"]["items"]["$ref"], "#/items");
/// ```
#[must_use]
pub fn embedded(mut schema: Value, path: &str) -> Value {
    match &mut schema {
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                let inner = embedded(value.take(), path);
                *value = match (key.as_str(), inner.as_str().and_then(|text| text.strip_prefix('#'))) {
                    ("$ref", Some(own)) => json!(format!("#{path}{own}")),
                    _ => inner,
                };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = embedded(item.take(), path)),
        _ => {}
    }
    schema
}

/// Limits the white space of a schema that sets no options of its own.
fn with_separators(mut schema: Value) -> Value {
    if let Value::Object(fields) = &mut schema
        && !fields.contains_key(OPTIONS)
    {
        let mut options: Map<_, _> = SEPARATORS.iter().map(|&(name, value)| (name.into(), json!(value))).collect();
        options.insert("whitespace_flexible".into(), json!(false));
        fields.insert(OPTIONS.into(), options.into());
    }
    schema
}

/// Returns the number of levels of a value. Recursion is bounded, because values are parsed with a
/// limit of their own.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named() {
        let fault = |form: Form| form.to_lark("grammar").unwrap_err().to_string();
        assert_eq!(fault(Form::Choice(vec![])), "`grammar` must be a list of 1 to 4096 texts, got 0 texts");
        let long = fault(Form::Lark("x".repeat(MAX_BYTES + 1)));
        assert_eq!(long, "`grammar` must be at most 262144 bytes, got 262145 bytes");
        let deep = (0..70).fold(json!(true), |inner, _| json!({"not": inner}));
        assert_eq!(fault(Form::Schema(deep)), "`grammar` must be a schema of at most 64 levels, got a deeper one");
    }

    #[test]
    fn options_of_a_schema_are_kept() {
        let own = json!({"type": "object", OPTIONS: {"whitespace_flexible": true}});
        assert_eq!(with_separators(own.clone()), own);
        assert_eq!(with_separators(json!(true)), json!(true));
        assert!(with_separators(object())[OPTIONS]["item_separator"].is_string());
    }

    #[test]
    fn anchors_are_dropped_where_they_are_anchors() {
        for (pattern, plain) in [("^a$", "a"), ("a\\$", "a\\$"), ("a\\\\$", "a\\\\"), ("a", "a")] {
            assert_eq!(without_anchors(pattern), plain);
        }
    }

    #[test]
    fn gbnf_is_known_by_its_definitions() {
        assert!(matches!(Form::of_text("root ::= \"a\""), Form::Gbnf(_)));
        assert!(matches!(Form::of_text("// ::=\nstart: \"a\""), Form::Lark(_)));
    }
}
