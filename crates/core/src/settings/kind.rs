//! The kinds of settings, and their values.

use std::borrow::Cow;

use serde::Serialize;

/// The values that a setting allows.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A whole number within limits, both included.
    Integer {
        /// The least value.
        min: u64,
        /// The greatest value.
        max: u64,
    },
    /// A real number within limits.
    Number {
        /// The lower limit; see `above_min`.
        min: f64,
        /// The greatest value.
        max: f64,
        /// True if the lower limit is exclusive.
        above_min: bool,
    },
    /// A 64-bit seed; a negative number is read as its two's complement.
    Seed,
    /// `true` or `false`.
    Flag,
    /// One of several words, each with its meaning in one line for the help.
    Choice(&'static [(&'static str, &'static str)]),
    /// A string. In JSON and files it may be a list of strings, which are joined by commas.
    Text,
    /// A list of non-empty strings.
    Texts,
    /// A JSON object, held as text. In JSON and files it may be an object or its text.
    Object,
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A whole number.
    Integer(u64),
    /// A real number.
    Number(f64),
    /// A flag.
    Flag(bool),
    /// One of the alternatives of [`Kind::Choice`].
    Choice(&'static str),
    /// A text.
    Text(Cow<'static, str>),
    /// A list of texts.
    Texts(Cow<'static, [String]>),
}

/// Reads the text of a JSON object.
pub(super) fn object(text: &str) -> Option<Value> {
    let object = serde_json::from_str(text).ok().filter(serde_json::Value::is_object)?;
    Some(Value::Text(object.to_string().into()))
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Flag(value) => value.fmt(f),
            Self::Choice(word) => f.write_str(word),
            Self::Text(text) => f.write_str(text),
            Self::Texts(texts) => write!(f, "{texts:?}"),
        }
    }
}
