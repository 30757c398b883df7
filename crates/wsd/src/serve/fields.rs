//! A JSON object that is taken apart field by field; fields that remain are refused by name.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use wsd_core::{ChatRole, Error, FromValue, Prompt, Setting, Token, Values, nearest};

use super::error::ApiError;
use super::ignored::{self, Place};

/// Characters of a value that an error quotes.
const SHOWN_CHARS: usize = 80;

/// A type of a field, in words for the client.
pub(super) trait FieldType: DeserializeOwned {
    /// The values of the type, after "must be".
    const EXPECTED: &'static str;
}

/// One or several texts, as text or token ids.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Texts {
    One(String),
    Ids(Vec<Token>),
    Several(Vec<String>),
    IdLists(Vec<Vec<Token>>),
}

impl FieldType for Texts {
    const EXPECTED: &'static str = "a string, a list of strings, a list of token ids, or a list of such lists";
}

impl Texts {
    /// Returns the texts as prompts; an empty list has none.
    pub(super) fn prompts(self) -> Vec<Prompt> {
        match self {
            Self::One(text) => vec![Prompt::Raw(text)],
            Self::Ids(ids) if ids.is_empty() => Vec::new(),
            Self::Ids(ids) => vec![Prompt::Tokens(ids)],
            Self::Several(texts) => texts.into_iter().map(Prompt::Raw).collect(),
            Self::IdLists(lists) => lists.into_iter().map(Prompt::Tokens).collect(),
        }
    }
}

impl FieldType for String {
    const EXPECTED: &'static str = "a string";
}

impl FieldType for bool {
    const EXPECTED: &'static str = "true or false";
}

impl FieldType for Value {
    const EXPECTED: &'static str = "a JSON value";
}

impl FieldType for Vec<Value> {
    const EXPECTED: &'static str = "a list";
}

impl FieldType for Vec<Token> {
    const EXPECTED: &'static str = "a list of token ids";
}

impl FieldType for ChatRole {
    const EXPECTED: &'static str = "`system`, `developer`, `user`, `assistant` or `tool`";
}

/// The fields of an object that have not been taken yet.
pub(super) struct Fields {
    left: Map<String, Value>,
    /// The object's path in the request, for messages.
    path: String,
    /// Fields that were renamed, each with the path that the client knows it by.
    renamed: Vec<(String, String)>,
    /// Fields that were looked for, present or not.
    known: Vec<&'static str>,
    bytes: usize,
}

impl Fields {
    /// Reads the object at `path`.
    pub(super) fn new(value: Value, path: impl Into<String>) -> Result<Self, ApiError> {
        let path = path.into();
        match value {
            Value::Object(left) => Ok(Self { left, path, renamed: Vec::new(), known: Vec::new(), bytes: 0 }),
            _ if path.is_empty() => Err(ApiError::invalid("the body must be a JSON object")),
            value => Err(ApiError::parameter(path, format!("must be an object, got {}", shown(&value)))),
        }
    }

    /// Parses a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let value = serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(format!("the body cannot be read as JSON: {error}")))?;
        Ok(Self { bytes: body.len(), ..Self::new(value, "")? })
    }

    /// The bytes of the body; none for an object within one.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns a field's name with its path in the request.
    pub(super) fn name(&self, field: &str) -> String {
        if let Some((_, given)) = self.renamed.iter().find(|(name, _)| name == field) {
            return given.clone();
        }
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// Returns a field without taking it.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.left.get(field)
    }

    /// Sets a field.
    pub(super) fn set(&mut self, field: &str, value: Value) {
        self.left.insert(field.to_owned(), value);
    }

    /// Gives a field another name, unless there is a field of that name. Messages keep its own.
    pub(super) fn rename(&mut self, from: &'static str, to: &str) {
        self.known.push(from);
        if self.left.contains_key(to) {
            return;
        }
        if let Some(value) = self.left.remove(from) {
            self.renamed.push((to.to_owned(), self.name(from)));
            self.left.insert(to.to_owned(), value);
        }
    }

    /// Takes over the fields that remain in another object, unless there are fields of their names.
    pub(super) fn absorb(&mut self, mut other: Self) {
        for (field, value) in std::mem::take(&mut other.left) {
            let given = other.name(&field);
            if self.left.get(&field).is_none_or(Value::is_null) {
                self.renamed.push((field.clone(), given));
                self.left.insert(field, value);
            }
        }
    }

    /// Takes the fields of a place that have no effect, unless the server is `strict`.
    pub(super) fn ignore(&mut self, place: Place, strict: bool) {
        if strict {
            return;
        }
        for field in ignored::names(place) {
            self.left.remove(field);
        }
    }

    /// Takes a field. A field of `null` counts as absent.
    pub(super) fn take<T: FieldType>(&mut self, field: &'static str) -> Result<Option<T>, ApiError> {
        self.known.push(field);
        let Some(value) = self.left.remove(field).filter(|value| !value.is_null()) else { return Ok(None) };
        T::deserialize(&value).map(Some).map_err(|_| {
            ApiError::parameter(self.name(field), format!("must be {}, got {}", T::EXPECTED, shown(&value)))
        })
    }

    /// Takes a field where it has this value.
    pub(super) fn take_if(&mut self, field: &str, value: &Value) -> bool {
        self.left.get(field) == Some(value) && self.left.remove(field).is_some()
    }

    /// Takes a field that must be present.
    pub(super) fn need<T: FieldType>(&mut self, field: &'static str) -> Result<T, ApiError> {
        self.take(field)?.ok_or_else(|| ApiError::parameter(self.name(field), "must be given"))
    }

    /// Replaces a text by a list that has it alone.
    pub(super) fn wrap_text(&mut self, field: &str) {
        if let Some(value @ Value::String(_)) = self.left.get_mut(field) {
            *value = Value::Array(vec![value.take()]);
        }
    }

    /// Takes the fields that `settings` name into `values`.
    pub(super) fn settings(&mut self, settings: &[&'static Setting], values: &mut Values) -> Result<(), ApiError> {
        for &setting in settings {
            if let Some(value) = self.value(setting.name, setting)? {
                if setting.host_only {
                    let reason = "is set by the server's host alone\n  hint: leave it out";
                    return Err(ApiError::parameter(self.name(setting.name), reason));
                }
                values.set(setting, value)?;
            }
        }
        Ok(())
    }

    /// Takes the value of a setting from a field that may have another name.
    pub(super) fn setting<T: FromValue>(
        &mut self,
        field: &'static str,
        setting: &Setting,
    ) -> Result<Option<T>, ApiError> {
        Ok(self.value(field, setting)?.as_ref().and_then(T::from_value))
    }

    fn value(&mut self, field: &'static str, setting: &Setting) -> Result<Option<wsd_core::Value>, ApiError> {
        let Some(json) = self.take::<Value>(field)? else { return Ok(None) };
        setting.from_json(&json).map(Some).map_err(|error| match error {
            Error::Setting { limit, value, .. } => {
                ApiError::parameter(self.name(field), format!("must be {limit}, got {value}"))
            }
            error => error.into(),
        })
    }

    /// Takes a whole number within limits.
    pub(super) fn number(&mut self, field: &'static str, min: usize, max: usize) -> Result<Option<usize>, ApiError> {
        let Some(value) = self.take::<Value>(field)? else { return Ok(None) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        number.filter(|number| (min..=max).contains(number)).map(Some).ok_or_else(|| {
            let message = format!("must be a whole number from {min} to {max}, got {value}");
            ApiError::parameter(self.name(field), message)
        })
    }

    /// Takes parameters of the protocol that have no effect with the values listed here; this
    /// server does not support other values.
    pub(super) fn unsupported(&mut self, neutral: &[(&'static str, &[&str])]) -> Result<(), ApiError> {
        for (field, values) in neutral {
            let Some(value) = self.take::<Value>(field)? else { continue };
            let number = value.as_f64();
            let neutral = values.iter().filter_map(|text| serde_json::from_str::<Value>(text).ok());
            if !neutral.into_iter().any(|other| other == value || (number.is_some() && other.as_f64() == number)) {
                let others = values.join(" or ");
                let others = if others.is_empty() { others } else { format!(", or send {others}") };
                let message = format!("is not supported by this server; leave it out{others}");
                return Err(ApiError::unknown(self.name(field), &message));
            }
        }
        Ok(())
    }

    /// Refuses the fields that remain, but for those of `null`.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        let mut left = self.left.iter().filter(|(_, value)| !value.is_null());
        let Some((field, _)) = left.next() else { return Ok(()) };
        let meant = nearest(field, self.known.iter().copied());
        let meant = meant.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"));
        let message =
            format!("is not a parameter of this server{meant}; leave it out, or see /openapi.json for those there are");
        Err(ApiError::unknown(self.name(field), &message))
    }
}

/// A value for a message: its JSON, the end of a long one cut off.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
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
    fn fields_that_nobody_takes_are_refused_by_name() {
        let mut left = fields();
        assert_eq!(left.number("a", 1, 3), Ok(Some(3)));
        assert_eq!(left.take::<String>("b"), Ok(None));
        left.unsupported(&[("c", &["0"])]).unwrap();
        let body = left.finish().unwrap_err().body();
        assert_eq!((&body["error"]["param"], &body["error"]["code"]), (&json!("d"), &json!("unknown_parameter")));
    }

    #[test]
    fn a_misspelt_field_is_told_the_one_that_was_meant() {
        let mut left = Fields::new(json!({"temprature": 1}), "").unwrap();
        for field in ["temperature", "top_p"] {
            left.take::<Value>(field).unwrap();
        }
        let message = left.finish().unwrap_err().body()["error"]["message"].to_string();
        assert!(message.contains("(did you mean `temperature`?)"), "{message}");
    }

    #[test]
    fn renamed_fields_keep_their_names_in_messages() {
        let mut fields = Fields::new(json!({"stop_sequences": 3, "top_k": 2}), "").unwrap();
        fields.rename("stop_sequences", "stop");
        let options = Fields::new(json!({"num_predict": "x", "top_k": 9}), "options").unwrap();
        fields.absorb(options);
        fields.rename("num_predict", "max_tokens");
        let param = |error: ApiError| error.body()["error"]["param"].clone();
        assert_eq!(param(fields.take::<String>("stop").unwrap_err()), json!("stop_sequences"));
        assert_eq!(param(fields.number("max_tokens", 1, 9).unwrap_err()), json!("options.num_predict"));
        assert_eq!(fields.number("top_k", 1, 9), Ok(Some(2)), "the outer one is kept");
        assert_eq!(fields.finish(), Ok(()));
    }

    #[test]
    fn limits_and_types_are_named() {
        let message = |error: ApiError| error.body()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(message(fields().number("a", 4, 9).unwrap_err()), "`a` must be a whole number from 4 to 9, got 3");
        assert_eq!(message(fields().take::<String>("a").unwrap_err()), "`a` must be a string, got 3");
        assert_eq!(message(fields().take::<bool>("d").unwrap_err()), "`d` must be true or false, got \"x\"");
        let long = Fields::new(json!("y".repeat(200)), "wsd").err().unwrap();
        assert_eq!(message(long), format!("`wsd` must be an object, got \"{}...", "y".repeat(79)));
        assert_eq!(message(fields().need::<bool>("b").unwrap_err()), "`b` must be given");
        assert!(message(fields().unsupported(&[("a", &["0"])]).unwrap_err()).contains("not supported"));
    }
}
