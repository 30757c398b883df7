//! Values of settings, checked and read by type.

use std::collections::BTreeMap;

use crate::{Result, Setting, Value};

/// A type that a [`Value`] can be converted to.
pub trait FromValue: Default {
    /// Converts a value; `None` if it is of another kind.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty: $pattern:pat => $value:expr,)*) => {
        $(impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    $pattern => $value,
                    _ => None,
                }
            }
        })*
    };
}

from_value! {
    u64: Value::Integer(value) => Some(*value),
    usize: Value::Integer(value) => usize::try_from(*value).ok(),
    f64: Value::Number(value) => Some(*value),
    f32: Value::Number(value) => Some(*value as f32),
    bool: Value::Flag(value) => Some(*value),
    u32: Value::Integer(value) => u32::try_from(*value).ok(),
    u16: Value::Integer(value) => u16::try_from(*value).ok(),
    &'static str: Value::Choice(word) => Some(*word),
    String: Value::Text(text) => Some(text.to_string()),
    Vec<String>: Value::Texts(texts) => Some(texts.to_vec()),
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        T::from_value(value).map(Some)
    }
}

/// An assignment of values to settings, each within its limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(BTreeMap<&'static str, Value>);

impl Values {
    /// Sets a value.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] where the value is outside the setting's limits.
    pub fn set(&mut self, setting: &'static Setting, value: Value) -> Result<()> {
        self.0.insert(setting.name, setting.check(value)?);
        Ok(())
    }

    /// The same values with one more.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] where the value is outside the setting's limits.
    pub fn with(mut self, setting: &'static Setting, value: impl Into<Value>) -> Result<Self> {
        self.set(setting, value.into())?;
        Ok(self)
    }

    /// Returns the value of a setting, or its default. Without either, or if the value does not fit
    /// `T`, returns `T::default()`, which is `None` for an `Option`.
    #[must_use]
    pub fn get<T: FromValue>(&self, setting: &'static Setting) -> T {
        self.value(setting).and_then(T::from_value).unwrap_or_default()
    }

    /// The value of a setting, or its default.
    #[must_use]
    pub fn value(&self, setting: &'static Setting) -> Option<&Value> {
        self.0.get(setting.name).or(setting.default.as_ref())
    }

    /// Tells whether a setting was given a value.
    #[must_use]
    pub fn is_set(&self, setting: &'static Setting) -> bool {
        self.0.contains_key(setting.name)
    }

    /// Removes the value of a setting.
    pub fn unset(&mut self, setting: &'static Setting) {
        self.0.remove(setting.name);
    }

    /// Merges two assignments: the values of `self` take precedence over those of `lower`.
    #[must_use]
    pub fn or(mut self, lower: Self) -> Self {
        for (name, value) in lower.0 {
            self.0.entry(name).or_insert(value);
        }
        self
    }
}

macro_rules! into_value {
    ($($type:ty: $value:ident => $into:expr,)*) => {
        $(impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $into
            }
        })*
    };
}

into_value! {
    u64: value => Self::Integer(value),
    usize: value => Self::Integer(value as u64),
    f64: value => Self::Number(value),
    bool: value => Self::Flag(value),
    &'static str: word => Self::Choice(word),
    String: text => Self::Text(text.into()),
    Vec<String>: texts => Self::Texts(texts.into()),
}
