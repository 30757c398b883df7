//! A JSON object taken apart field by field: what nobody takes is refused by name.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use wsd_core::{Error, Setting, Values};

use super::error::ApiError;

/// The fields of an object that have not been taken yet.
pub(super) struct Fields {
    left: Map<String, Value>,
    /// Where the object stands in the request, for messages.
    path: String,
}

impl Fields {
    /// The object at `path`.
    pub(super) fn new(value: Value, path: impl Into<String>) -> Result<Self, ApiError> {
        let path = path.into();
        match value {
            Value::Object(left) => Ok(Self { left, path }),
            _ if path.is_empty() => Err(ApiError::invalid("the body must be a JSON object")),
            _ => Err(ApiError::parameter(path, "must be an object")),
        }
    }

    /// The object that a body spells.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let value = serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(format!("the body is not JSON: {error}")))?;
        Self::new(value, "")
    }

    /// A field's name in the whole request.
    pub(super) fn name(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// A field; `null` is as good as absent.
    pub(super) fn take<T: DeserializeOwned>(&mut self, field: &str) -> Result<Option<T>, ApiError> {
        let Some(value) = self.left.remove(field).filter(|value| !value.is_null()) else { return Ok(None) };
        serde_json::from_value(value)
            .map(Some)
            .map_err(|error| ApiError::parameter(self.name(field), format!("cannot be read: {error}")))
    }

    /// Takes a field where it has this value.
    pub(super) fn take_if(&mut self, field: &str, value: &Value) -> bool {
        self.left.get(field) == Some(value) && self.left.remove(field).is_some()
    }

    /// A field that must be there.
    pub(super) fn need<T: DeserializeOwned>(&mut self, field: &str) -> Result<T, ApiError> {
        self.take(field)?.ok_or_else(|| ApiError::parameter(self.name(field), "is missing"))
    }

    /// Takes the fields that `settings` name into `values`.
    pub(super) fn settings(&mut self, settings: &[&'static Setting], values: &mut Values) -> Result<(), ApiError> {
        for &setting in settings {
            if let Some(json) = self.take::<Value>(setting.name)? {
                let value = setting.from_json(&json).and_then(|value| values.set(setting, value));
                value.map_err(|error| match error {
                    Error::Setting { limit, value, .. } => {
                        ApiError::parameter(self.name(setting.name), format!("must be {limit}, got {value}"))
                    }
                    error => error.into(),
                })?;
            }
        }
        Ok(())
    }

    /// A whole number within limits.
    pub(super) fn number(&mut self, field: &str, least: usize, most: usize) -> Result<Option<usize>, ApiError> {
        match self.take(field)? {
            Some(value) if !(least..=most).contains(&value) => {
                let message = format!("must be from {least} to {most}, got {value}");
                Err(ApiError::parameter(self.name(field), message))
            }
            value => Ok(value),
        }
    }

    /// Parameters of the protocol that ask for nothing with the values here, and for what this server cannot do with others.
    pub(super) fn unsupported(&mut self, neutral: &[(&str, &[&str])]) -> Result<(), ApiError> {
        for (field, values) in neutral {
            let Some(value) = self.take::<Value>(field)? else { continue };
            let number = value.as_f64();
            let asks_nothing = values.iter().filter_map(|text| serde_json::from_str::<Value>(text).ok());
            if !asks_nothing.into_iter().any(|other| other == value || (number.is_some() && other.as_f64() == number)) {
                return Err(ApiError::unknown(self.name(field), "is not supported by this server"));
            }
        }
        Ok(())
    }

    /// See that nothing is left.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.left.keys().next().map(|field| self.name(field)) {
            Some(name) => Err(ApiError::unknown(name, "is not a parameter of this server")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields() -> Fields {
        Fields::new(json!({"a": 3, "b": null, "c": 0.0, "d": "x"}), "").unwrap()
    }

    #[test]
    fn what_nobody_takes_is_named() {
        let mut left = fields();
        assert_eq!(left.number("a", 1, 3), Ok(Some(3)));
        assert_eq!(left.take::<String>("b"), Ok(None));
        left.unsupported(&[("c", &["0"])]).unwrap();
        let body = left.finish().unwrap_err().body();
        assert_eq!((&body["error"]["param"], &body["error"]["code"]), (&json!("d"), &json!("unknown_parameter")));
    }

    #[test]
    fn limits_and_types_are_named() {
        let message = |error: ApiError| error.body()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(message(fields().number("a", 4, 9).unwrap_err()), "`a` must be from 4 to 9, got 3");
        assert!(message(fields().take::<String>("a").unwrap_err()).starts_with("`a` cannot be read: invalid type"));
        assert_eq!(message(fields().need::<u8>("b").unwrap_err()), "`b` is missing");
        assert!(message(fields().unsupported(&[("a", &["0"])]).unwrap_err()).contains("not supported"));
    }
}
