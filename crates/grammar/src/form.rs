//! Grammars as users write them.

use serde_json::{Value, json};
use wsd_core::{Error, Result};

use crate::schema::{depth, prepared};
use crate::{Calls, gbnf};

/// The most bytes in a grammar or a schema.
const MAX_BYTES: usize = 256 << 10;
/// The most objects and lists of a schema inside one another.
const MAX_DEPTH: usize = 64;
/// The most texts in a choice.
const MAX_CHOICES: usize = 4096;
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
    /// Calls of tools.
    Calls(Calls),
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
                format!("start: %json {}", prepared(schema.clone()))
            }
            Self::Regex(pattern) => format!("start: /{}/", llguidance::regex_to_lark(without_anchors(pattern), "")),
            Self::Lark(text) => text.clone(),
            Self::Gbnf(text) => gbnf::to_lark(text).map_err(|error| fault("a grammar in GBNF", error))?,
            Self::Calls(calls) => {
                let schemas = calls.tools.iter().filter_map(|(_, schema)| schema.as_ref()).chain(&calls.or);
                if schemas.map(depth).any(|depth| depth > MAX_DEPTH) {
                    return Err(fault(&format!("schemas of at most {MAX_DEPTH} levels"), "a deeper one".into()));
                }
                calls.to_lark()
            }
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
