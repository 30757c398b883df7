//! `wsd.toml`, read through the settings.

use std::fmt::{self, Formatter};

use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use wsd_core::{Setting, Value, Values};

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
        while let Some(name) = map.next_key::<String>()? {
            let known = SECTIONS.iter().map(|section| section.name);
            let section = SECTIONS.iter().find(|section| section.name == name);
            let section = section.ok_or_else(|| unknown(&name, known))?;
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
        while let Some(name) = map.next_key::<String>()? {
            let setting = settings.iter().find(|setting| setting.name == name);
            let setting = setting.ok_or_else(|| unknown(&name, settings.iter().map(|setting| setting.name)))?;
            let value = map.next_value_seed(One(setting))?;
            values.set(setting, value).map_err(A::Error::custom)?;
        }
        Ok(values)
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

fn unknown<E: Error>(name: &str, known: impl Iterator<Item = &'static str>) -> E {
    let known = known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    E::custom(format!("unknown field `{name}`, expected one of {known}"))
}
