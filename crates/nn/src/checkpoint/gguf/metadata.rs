//! Typed access to the metadata of a GGUF file. Errors name the key, its expected type and its
//! value.

use std::collections::BTreeMap;

use super::container::{Array, Value};
use crate::error::{Error, Result};

/// The metadata of a file.
pub(super) struct Metadata<'a> {
    pub(super) file: &'a str,
    entries: BTreeMap<&'a str, Value<'a>>,
}

impl<'a> Metadata<'a> {
    pub(super) fn new(file: &'a str, entries: BTreeMap<&'a str, Value<'a>>) -> Self {
        Self { file, entries }
    }

    pub(super) fn fault(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::malformed(self.file, format!("key `{key}`"), reason)
    }

    /// Returns the value of a key that the file must have.
    pub(super) fn needed<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.fault(key, "it is missing"))
    }

    fn get<T>(&self, key: &str, expected: &str, read: impl Fn(Value<'a>) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.entries.get(key) else { return Ok(None) };
        match read(*value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.fault(key, format!("must be {expected}, got {}", describe(*value)))),
        }
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key, "a string", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "a boolean", |value| match value {
            Value::Bool(value) => Some(value),
            _ => None,
        })
    }

    /// Reads a list of flags, which may be stored as numbers.
    pub(super) fn flags(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.get(key, "a list of booleans", |value| match value {
            Value::Array(array) => {
                let flag = |value| match value {
                    Value::Bool(flag) => Some(flag),
                    other => unsigned(other).map(|number| number != 0),
                };
                array.values().map(flag).collect()
            }
            _ => None,
        })
    }

    /// Reads a count. An array with one value per layer is accepted if all values are equal.
    pub(super) fn unsigned(&self, key: &str) -> Result<Option<u64>> {
        self.get(key, "an unsigned integer", |value| match value {
            Value::Array(array) => {
                let mut values = array.values().map(unsigned);
                let first = values.next()??;
                values.all(|value| value == Some(first)).then_some(first)
            }
            value => unsigned(value),
        })
    }

    /// Reads the id of a token. An id outside of the vocabulary counts as absent.
    pub(super) fn token_id(&self, key: &str) -> Result<Option<u32>> {
        let count = self.token_count()?;
        let id = self.get(key, "an integer", |value| match value {
            Value::Unsigned(id) => Some(u32::try_from(id).ok()),
            Value::Signed(id) => Some(u32::try_from(id).ok()),
            _ => None,
        })?;
        Ok(id.flatten().filter(|&id| (id as usize) < count))
    }

    /// Describes the token ids that [`Metadata::token_id`] ignores.
    pub(super) fn ignored_token_ids(&self) -> Result<Vec<String>> {
        let count = self.token_count()?;
        let keys =
            self.entries.iter().filter(|(key, _)| key.starts_with("tokenizer.ggml.") && key.ends_with("_token_id"));
        let mut warnings = Vec::new();
        for (key, value) in keys {
            if self.token_id(key)?.is_none() {
                warnings.push(format!(
                    "{}: key `{key}`: must be less than {count}, got {}: treated as absent",
                    self.file,
                    describe(*value)
                ));
            }
        }
        Ok(warnings)
    }

    fn token_count(&self) -> Result<usize> {
        Ok(self.array("tokenizer.ggml.tokens")?.map_or(0, |tokens| tokens.len()))
    }

    pub(super) fn float(&self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a finite number", float)
    }

    fn array(&self, key: &str) -> Result<Option<Array<'a>>> {
        self.get(key, "an array", |value| match value {
            Value::Array(array) => Some(array),
            _ => None,
        })
    }

    /// Reads an array of strings.
    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        self.values(key, "strings", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    /// Reads an array of finite numbers.
    pub(super) fn floats(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.values(key, "finite numbers", float)
    }

    /// Reads an array of unsigned integers.
    pub(super) fn unsigneds(&self, key: &str) -> Result<Option<Vec<u64>>> {
        self.values(key, "unsigned integers", unsigned)
    }

    fn values<T>(&self, key: &str, what: &str, read: impl Fn(Value<'a>) -> Option<T>) -> Result<Option<Vec<T>>> {
        let Some(array) = self.array(key)? else { return Ok(None) };
        let values = array.values().map(read).collect::<Option<Vec<_>>>();
        let values = values.filter(|values| values.len() == array.len());
        values.map(Some).ok_or_else(|| self.fault(key, format!("must be an array of {what}")))
    }
}

fn unsigned(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Unsigned(value) => Some(value),
        Value::Signed(value) => value.try_into().ok(),
        _ => None,
    }
}

fn float(value: Value<'_>) -> Option<f64> {
    let value = match value {
        Value::Float(value) => value,
        Value::Unsigned(value) => value as f64,
        Value::Signed(value) => value as f64,
        _ => return None,
    };
    value.is_finite().then_some(value)
}

/// Formats a value for a message; of long values only the length.
fn describe(value: Value<'_>) -> String {
    match value {
        Value::Array(array) => format!("an array of {} values", array.len()),
        Value::String(text) if text.len() > 60 => format!("a string of {} bytes", text.len()),
        Value::String(text) => format!("{text:?}"),
        Value::Unsigned(value) => value.to_string(),
        Value::Signed(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Bool(value) => value.to_string(),
    }
}
