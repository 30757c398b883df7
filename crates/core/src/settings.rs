//! Settings: named values that users may set, each declared once, where it is used.
//!
//! A [`Setting`] carries its name, meaning, limits and default. The command line, `wsd.toml`, HTTP
//! requests, the OpenAPI document, `/v1/models`, the record beside an answer and the help iterate
//! over declarations; none of them repeats a name or a limit. [`crate::Values`] is a checked assignment.
//!
//! ```
//! use wsd_core::{Setting, Values};
//!
//! static WINDOW: Setting = Setting::integer("window", "Tokens in the window", 1..=4096).with_default_integer(6);
//!
//! let mut values = Values::default();
//! assert_eq!(values.get::<usize>(&WINDOW), 6);
//! values.set(&WINDOW, WINDOW.parse("12")?)?;
//! assert_eq!(values.get::<usize>(&WINDOW), 12);
//! let error = WINDOW.parse("0").unwrap_err().to_string();
//! assert_eq!(error, "`window` must be a whole number from 1 to 4096, got 0");
//! # Ok::<(), wsd_core::Error>(())
//! ```

mod kind;

use std::borrow::Cow;
use std::ops::RangeInclusive;

pub use kind::{Kind, Value};

use crate::{Error, Result};
use kind::object;

/// A named value that users may set.
#[derive(Debug)]
pub struct Setting {
    /// The name in files and JSON; the command line's option is the same with hyphens.
    pub name: &'static str,
    /// The meaning, as the help prints it: a sentence without its full stop.
    pub about: &'static str,
    /// The values that are allowed.
    pub kind: Kind,
    /// The value used if none is set; `None` if the default is computed.
    pub default: Option<Value>,
    /// The default in words, for a default that is computed or needs an explanation.
    pub default_about: Option<&'static str>,
    /// The placeholder for a value in the help.
    pub placeholder: &'static str,
    /// The command line's one-letter option.
    pub short: Option<char>,
    /// The environment variable that may hold the value, which the help then does not print.
    pub env: Option<&'static str>,
    /// True if the value can change the text of an answer; false if it changes only the speed.
    pub affects_text: bool,
    /// True if the value acts on the host's machine, so that only the host sets it: no request, and no
    /// settings file that nobody named.
    pub host_only: bool,
}

impl Setting {
    const fn new(name: &'static str, about: &'static str, kind: Kind, placeholder: &'static str) -> Self {
        let (default, default_about, short, env) = (None, None, None, None);
        let (affects_text, host_only) = (true, false);
        Self { name, about, kind, default, default_about, placeholder, short, env, affects_text, host_only }
    }

    /// A whole number within limits, with a computed default.
    #[must_use]
    pub const fn integer(name: &'static str, about: &'static str, range: RangeInclusive<u64>) -> Self {
        Self::new(name, about, Kind::Integer { min: *range.start(), max: *range.end() }, "N")
    }

    /// A real number within limits, both included, with a computed default.
    #[must_use]
    pub const fn number(name: &'static str, about: &'static str, range: RangeInclusive<f64>) -> Self {
        Self::new(name, about, Kind::Number { min: *range.start(), max: *range.end(), above_min: false }, "X")
    }

    /// A real number above zero and at most `max`, with a computed default.
    #[must_use]
    pub const fn positive(name: &'static str, about: &'static str, max: f64) -> Self {
        Self::new(name, about, Kind::Number { min: 0.0, max, above_min: true }, "X")
    }

    /// A seed of random numbers.
    #[must_use]
    pub const fn seed(name: &'static str, about: &'static str, default: u64) -> Self {
        Self::new(name, about, Kind::Seed, "N").with_default(Value::Integer(default))
    }

    /// A flag.
    #[must_use]
    pub const fn flag(name: &'static str, about: &'static str, default: bool) -> Self {
        Self::new(name, about, Kind::Flag, "BOOL").with_default(Value::Flag(default))
    }

    /// One of several words with their meanings, the first of them by default.
    #[must_use]
    pub const fn choice(
        name: &'static str,
        about: &'static str,
        words: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self::new(name, about, Kind::Choice(words), "WORD").with_default(Value::Choice(words[0].0))
    }

    /// A text, with a computed default.
    #[must_use]
    pub const fn text(name: &'static str, about: &'static str, placeholder: &'static str) -> Self {
        Self::new(name, about, Kind::Text, placeholder)
    }

    /// A JSON object, none by default.
    #[must_use]
    pub const fn object(name: &'static str, about: &'static str) -> Self {
        Self::new(name, about, Kind::Object, "JSON").with_default_about("none")
    }

    /// Several texts, none by default.
    #[must_use]
    pub const fn texts(name: &'static str, about: &'static str) -> Self {
        let none = Value::Texts(Cow::Borrowed(&[]));
        Self::new(name, about, Kind::Texts, "TEXT").with_default(none).with_default_about("none")
    }

    /// The same setting with a whole number as its default.
    #[must_use]
    pub const fn with_default_integer(self, default: u64) -> Self {
        self.with_default(Value::Integer(default))
    }

    /// The same setting with a real number as its default.
    #[must_use]
    pub const fn with_default_number(self, default: f64) -> Self {
        self.with_default(Value::Number(default))
    }

    /// The same setting with a text as its default.
    #[must_use]
    pub const fn with_default_text(self, default: &'static str) -> Self {
        self.with_default(Value::Text(Cow::Borrowed(default)))
    }

    const fn with_default(mut self, default: Value) -> Self {
        // A `const fn` cannot run destructors, so the replaced default is forgotten instead of
        // dropped.
        std::mem::forget(self.default.replace(default));
        self
    }

    /// The same setting with its default explained in words.
    #[must_use]
    pub const fn with_default_about(mut self, about: &'static str) -> Self {
        self.default_about = Some(about);
        self
    }

    /// The same setting with a default that is computed, in words.
    #[must_use]
    pub const fn with_computed_default(mut self, about: &'static str) -> Self {
        // See `with_default`.
        std::mem::forget(self.default.take());
        self.with_default_about(about)
    }

    /// The same setting with another placeholder in the help.
    #[must_use]
    pub const fn with_placeholder(mut self, placeholder: &'static str) -> Self {
        self.placeholder = placeholder;
        self
    }

    /// The same setting with an environment variable for its value.
    #[must_use]
    pub const fn with_env(mut self, variable: &'static str) -> Self {
        self.env = Some(variable);
        self
    }

    /// The same setting with a one-letter option.
    #[must_use]
    pub const fn with_short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    /// The same setting, marked as one that changes the speed and never the text.
    #[must_use]
    pub const fn speed_only(mut self) -> Self {
        self.affects_text = false;
        self
    }

    /// The same setting, marked as one that no request sets.
    #[must_use]
    pub const fn host_only(mut self) -> Self {
        self.host_only = true;
        self
    }

    /// The default in words; `None` where there is none to tell.
    #[must_use]
    pub fn default_text(&self) -> Option<String> {
        self.default_about.map(str::to_owned).or_else(|| self.default.as_ref().map(ToString::to_string))
    }

    /// Reads a value from the command line.
    ///
    /// # Errors
    /// [`Error::Setting`] for text that is not a value of this kind, or a value outside the limits.
    pub fn parse(&self, text: &str) -> Result<Value> {
        let value = match self.kind {
            Kind::Integer { .. } => text.parse().ok().map(Value::Integer),
            Kind::Number { .. } => text.parse().ok().map(Value::Number),
            Kind::Seed => {
                text.parse().or_else(|_| text.parse::<i64>().map(i64::cast_unsigned)).ok().map(Value::Integer)
            }
            Kind::Flag => text.parse().ok().map(Value::Flag),
            Kind::Choice(words) => words.iter().find(|(word, _)| *word == text).map(|(word, _)| Value::Choice(word)),
            Kind::Text => Some(Value::Text(text.to_owned().into())),
            Kind::Texts => Some(Value::Texts(vec![text.to_owned()].into())),
            Kind::Object => object(text),
        };
        self.check(value.ok_or_else(|| self.refuse(text))?)
    }

    /// Reads a value from JSON.
    ///
    /// # Errors
    /// Those of [`Setting::parse`].
    pub fn from_json(&self, json: &serde_json::Value) -> Result<Value> {
        let texts = |json: &serde_json::Value| serde_json::from_value::<Vec<String>>(json.clone()).ok();
        let value = match self.kind {
            Kind::Integer { .. } => json.as_u64().map(Value::Integer),
            Kind::Number { .. } => json.as_f64().map(Value::Number),
            Kind::Seed => json.as_u64().or_else(|| json.as_i64().map(i64::cast_unsigned)).map(Value::Integer),
            Kind::Flag => json.as_bool().map(Value::Flag),
            Kind::Choice(words) => words.iter().find(|(word, _)| json == *word).map(|(word, _)| Value::Choice(word)),
            Kind::Text => match json {
                serde_json::Value::String(text) => Some(Value::Text(text.clone().into())),
                list => texts(list).map(|texts| Value::Text(texts.join(",").into())),
            },
            Kind::Texts => texts(json).map(|texts| Value::Texts(texts.into())),
            Kind::Object => object(json.as_str().unwrap_or(&json.to_string())),
        };
        self.check(value.ok_or_else(|| self.refuse(json))?)
    }

    /// Checks a value against the kind and its limits.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self, value: Value) -> Result<Value> {
        let is_allowed = match (&self.kind, &value) {
            (Kind::Integer { min, max }, Value::Integer(value)) => (min..=max).contains(&value),
            (Kind::Number { min, max, above_min }, Value::Number(value)) => {
                (*min..=*max).contains(value) && !(*above_min && value == min)
            }
            (Kind::Choice(words), Value::Choice(word)) => words.iter().any(|(known, _)| known == word),
            (Kind::Texts, Value::Texts(texts)) => texts.iter().all(|text| !text.is_empty()),
            (Kind::Text | Kind::Object, Value::Text(_)) => true,
            (Kind::Seed, Value::Integer(_)) | (Kind::Flag, Value::Flag(_)) => true,
            _ => false,
        };
        if is_allowed { Ok(value) } else { Err(self.refuse(value)) }
    }

    /// The values that are allowed, in words that follow "must be".
    #[must_use]
    pub fn limit(&self) -> String {
        match self.kind {
            Kind::Integer { min, max: u64::MAX } => format!("a whole number of at least {min}"),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Number { min, max, above_min: false } => format!("a number from {min} to {max}"),
            Kind::Number { min, max, above_min: true } => format!("a number above {min} and at most {max}"),
            Kind::Seed => "a whole number of 64 bits".into(),
            Kind::Flag => "true or false".into(),
            Kind::Choice(words) => words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(" or "),
            Kind::Text => "a text".into(),
            Kind::Texts => "a text of at least one character".into(),
            Kind::Object => "a JSON object".into(),
        }
    }

    fn refuse(&self, got: impl std::fmt::Display) -> Error {
        Error::Setting { name: self.name, limit: self.limit(), value: got.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Values;
    use serde_json::json;

    static COUNT: Setting = Setting::integer("count", "A count", 1..=9).with_default_integer(2);
    static SHARE: Setting = Setting::positive("share", "A share", 1.0);
    static WORD: Setting = Setting::choice("word", "A word", &[("go", "Go on"), ("stop", "Stop")]);
    static SEED: Setting = Setting::seed("seed", "A seed", 42);
    static STOP: Setting = Setting::texts("stop", "Texts");
    static OBJECT: Setting = Setting::object("object", "An object");

    #[test]
    fn limits_hold_for_every_source() {
        for (setting, good, bad) in [
            (&COUNT, ["1", "9"], ["0", "10"]),
            (&SHARE, ["0.5", "1"], ["0", "1.5"]),
            (&SEED, ["-1", "18446744073709551615"], ["1.5", "x"]),
        ] {
            for text in good {
                let json = serde_json::from_str(text).unwrap();
                assert_eq!(setting.parse(text).unwrap(), setting.from_json(&json).unwrap());
            }
            for text in bad {
                let message = setting.parse(text).unwrap_err().to_string();
                assert_eq!(message, format!("`{}` must be {}, got {text}", setting.name, setting.limit()));
                assert!(setting.from_json(&serde_json::from_str(text).unwrap_or(json!(text))).is_err());
            }
        }
        assert_eq!(
            SHARE.parse("NaN").unwrap_err().to_string(),
            "`share` must be a number above 0 and at most 1, got NaN"
        );
        assert_eq!(WORD.parse("no").unwrap_err().to_string(), "`word` must be `go` or `stop`, got no");
        assert!(STOP.from_json(&json!(["a", ""])).is_err());
        let object = OBJECT.parse(r#"{ "a": 1 }"#).unwrap();
        assert_eq!(OBJECT.from_json(&json!({"a": 1})).unwrap(), object);
        assert_eq!(OBJECT.from_json(&json!(r#"{"a":1}"#)).unwrap(), object);
        assert_eq!(OBJECT.parse("[1]").unwrap_err().to_string(), "`object` must be a JSON object, got [1]");
        assert!(OBJECT.from_json(&json!(1)).is_err());
        assert!(WORD.from_json(&json!(3)).is_err());
    }

    #[test]
    fn upper_values_take_precedence_over_lower_ones_and_defaults() {
        let upper = Values::default().with(&COUNT, 3usize).unwrap();
        let lower = Values::default().with(&COUNT, 4usize).unwrap().with(&WORD, "stop").unwrap();
        let values = upper.or(lower);
        assert_eq!((values.get::<usize>(&COUNT), values.get::<&str>(&WORD)), (3, "stop"));
        assert_eq!((values.get::<Option<f64>>(&SHARE), values.get::<u64>(&SEED)), (None, 42));
        assert!(!values.is_set(&SEED) && Values::default().with(&WORD, "no").is_err());
    }
}
