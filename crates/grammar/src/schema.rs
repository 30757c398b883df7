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

/// Limits the white space of a schema that sets no options of its own.
pub(crate) fn with_separators(mut schema: Value) -> Value {
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
        assert_eq!(with_separators(own.clone()), own);
        assert_eq!(with_separators(json!(true)), json!(true));
        assert!(with_separators(object())[OPTIONS]["item_separator"].is_string());
    }
}
