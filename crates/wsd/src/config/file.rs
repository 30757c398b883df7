//! `wsd.toml`, read through the settings.

use std::fmt::{self, Formatter};

use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use wsd_core::{Setting, Value, Values, known_names};

use super::Partial;
use super::sections::{SECTIONS, Section};

impl<'de> Deserialize<'de> for Partial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Sections)
    }
}

/// Reads the table of sections.
struct Sections;

impl<'de> Visitor<'de> for Sections {
    type Value = Partial;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a table of sections")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Partial, A::Error> {
        let mut values = Values::default();
        while let Some(section) = map.next_key_seed(Key(SECTIONS.iter(), |section: &Section| section.name))? {
            values = map.next_value_seed(Settings(section))?.or(values);
        }
        Ok(Partial(values))
    }
}

/// Reads one section.
struct Settings(&'static Section);

impl<'de> DeserializeSeed<'de> for Settings {
    type Value = Values;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Values, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Settings {
    type Value = Values;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "the settings of [{}]", self.0.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
        let settings = self.0.settings();
        let mut values = Values::default();
        let known = || settings.iter().copied();
        while let Some(setting) = map.next_key_seed(Key(known(), |setting: &Setting| setting.name))? {
            let value = map.next_value_seed(One(setting))?;
            values.set(setting, value).map_err(A::Error::custom)?;
        }
        Ok(values)
    }
}

/// Reads a key and finds the entry of that name, so that an error has the key's line.
struct Key<I, T>(I, fn(&T) -> &'static str);

impl<'de, T: 'static, I: Iterator<Item = &'static T> + Clone> DeserializeSeed<'de> for Key<I, T> {
    type Value = &'static T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static T, D::Error> {
        let Self(mut entries, name_of) = self;
        let known: Vec<_> = entries.clone().map(name_of).collect();
        let name = String::deserialize(deserializer)?;
        let unknown = || D::Error::custom(format!("unknown key `{name}`\n  hint: {}", known_names(&name, known)));
        entries.find(|&entry| name_of(entry) == name).ok_or_else(unknown)
    }
}

/// Reads the value of one setting, so that an error has the value's line.
struct One(&'static Setting);

impl<'de> DeserializeSeed<'de> for One {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        self.0.from_json(&json).map_err(D::Error::custom)
    }
}
