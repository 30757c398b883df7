//! JSON schemas as parts of grammars.

use serde_json::{Map, Value, json};

/// The separators of JSON: white space is limited to one space, because small models that may write
/// any amount often write nothing else.
const SEPARATORS: [(&str, &str); 2] = [("item_separator", ", ?"), ("key_separator", ": ?")];
/// The field of a schema with options of the compiler.
const OPTIONS: &str = "x-guidance";

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

/// Prepares a schema for the compiler: limits its white space, if it sets no options of its own, and
/// narrows its formats of times.
pub(crate) fn prepared(mut schema: Value) -> Value {
    narrow_times(&mut schema);
    if let Value::Object(fields) = &mut schema
        && !fields.contains_key(OPTIONS)
    {
        let mut options: Map<_, _> = SEPARATORS.iter().map(|&(name, value)| (name.into(), json!(value))).collect();
        options.insert("whitespace_flexible".into(), json!(false));
        fields.insert(OPTIONS.into(), options.into());
    }
    schema
}

/// Matches the beginning of a text that is a date of the Gregorian calendar, if it has the form of one.
macro_rules! real_date {
    () => {
        concat!(
            "(?:[0-9]{4}-(?:0[13-9]|1[0-2])-[0-9]{2}|[0-9]{4}-02-(?:[01][0-9]|2[0-8])",
            "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
        )
    };
}

/// Patterns of the dates and times that exist: llguidance's formats allow February 29 in every year and
/// second 60 in every minute.
const REAL: [(&str, &str); 3] = [
    ("date", concat!("^", real_date!(), "$")),
    ("time", "^[0-9]{2}:[0-9]{2}:[0-5][0-9]"),
    ("date-time", concat!("^", real_date!(), "[tT][0-9]{2}:[0-9]{2}:[0-5][0-9]")),
];

/// Narrows formats of dates and times to those that exist, where the schema has no pattern of its own.
fn narrow_times(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(narrow_times),
        Value::Object(fields) => {
            let format = fields.get("format").and_then(Value::as_str);
            let pattern = REAL.iter().find(|(name, _)| Some(*name) == format).map(|(_, pattern)| *pattern);
            if let Some(pattern) = pattern.filter(|_| !fields.contains_key("pattern")) {
                fields.insert("pattern".into(), pattern.into());
            }
            // Values are no schemas.
            let schemas =
                fields.iter_mut().filter(|(key, _)| !["const", "enum", "default", "examples"].contains(&&***key));
            schemas.for_each(|(_, schema)| narrow_times(schema));
        }
        _ => {}
    }
}

/// Returns the number of levels of a value. Recursion is bounded, because values are parsed with a
/// limit of their own.
pub(crate) fn depth(value: &Value) -> usize {
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
    fn options_of_a_schema_are_kept() {
        let own = json!({"type": "object", OPTIONS: {"whitespace_flexible": true}});
        assert_eq!(prepared(own.clone()), own);
        assert_eq!(prepared(json!(true)), json!(true));
        assert!(prepared(object())[OPTIONS]["item_separator"].is_string());
    }

    #[test]
    fn times_are_narrowed_in_schemas_alone() {
        let schema = json!({
            "properties": {"format": {"format": "date"}, "b": {"format": "time", "pattern": "^1"}},
            "const": {"format": "date"},
        });
        let prepared = prepared(schema);
        assert!(prepared["properties"]["format"]["pattern"].is_string());
        assert_eq!(prepared["properties"]["b"]["pattern"], "^1");
        assert_eq!(prepared["const"], json!({"format": "date"}));
    }
}
