//! Arguments of instructions.

use serde_json::{Map, Value};

/// Arguments of an instruction.
pub(super) type Kwargs = Map<String, Value>;

/// A count of the arguments; 0 if it is absent.
pub(super) fn count(kwargs: &Kwargs, key: &str) -> usize {
    kwargs.get(key).and_then(Value::as_f64).map_or(0, |count| count as usize)
}

/// A text of the arguments; empty if it is absent.
pub(super) fn text<'a>(kwargs: &'a Kwargs, key: &str) -> &'a str {
    kwargs.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A list of texts of the arguments; empty if it is absent.
pub(super) fn texts<'a>(kwargs: &'a Kwargs, key: &str) -> Vec<&'a str> {
    kwargs.get(key).and_then(Value::as_array).map_or(Vec::new(), |list| list.iter().filter_map(Value::as_str).collect())
}

/// Compares a number with a limit: below it for "less than", else at least it.
pub(super) fn holds(kwargs: &Kwargs, relation: &str, found: usize, limit: &str) -> bool {
    let limit = count(kwargs, limit);
    if text(kwargs, relation) == "less than" { found < limit } else { found >= limit }
}
