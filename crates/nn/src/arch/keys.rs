//! Typed access to a configuration. The error for a wrong value names the key, the limit and the
//! value.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The longest context, in tokens; larger ones mean a damaged or hostile file.
pub(super) const MOST_POSITIONS: usize = 1 << 28;
/// Characters of a value that an error quotes.
const SHOWN_CHARS: usize = 120;

/// The least and the largest value of real numbers, far beyond those of any published model. One
/// outside them means a damaged file, which would otherwise answer with other words.
const RANGES: [(&str, f64, f64); 9] = [
    ("rms_norm_eps", 1e-12, 0.1),
    ("rope_theta", 100.0, 1e12),
    ("rope_local_base_freq", 100.0, 1e12),
    ("factor", 0.01, 1e6),
    ("attention_factor", 0.01, 100.0),
    ("query_pre_attn_scalar", 1.0, 1e6),
    ("attn_logit_softcapping", 0.1, 1e6),
    ("final_logit_softcapping", 0.1, 1e6),
    ("original_max_position_embeddings", 1.0, (1u64 << 28) as f64),
];
/// The least and the largest divisor of a RoPE frequency.
const DIVISORS: [f32; 2] = [1e-6, 1e9];

/// A configuration, or a section of one. A key with the value `null` counts as absent.
pub(crate) struct Keys<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>) -> Self {
        Self { map, path: String::new() }
    }

    /// Returns a copy in which absent keys have the values of keys of other names, the pairs `(key,
    /// other)` of `names`, or else defaults.
    pub(crate) fn completed(&self, names: &[(&str, &str)], defaults: &[(&str, f64)]) -> Map<String, Value> {
        let mut completed = self.map.clone();
        let named = names.iter().filter_map(|(key, other)| Some((*key, self.get(other)?.clone())));
        // A whole number stays one.
        let number = |value: f64| if value.fract() == 0.0 { Value::from(value as u64) } else { value.into() };
        let defaults = defaults.iter().map(|(key, default)| (*key, number(*default)));
        for (key, value) in named.chain(defaults) {
            if completed.get(key).is_none_or(Value::is_null) {
                completed.insert(key.to_owned(), value);
            }
        }
        completed
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Returns the value as stored, `null` included.
    pub(crate) fn raw(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The error of a key whose value must be `limit`.
    pub(crate) fn fault(&self, key: &str, limit: &str) -> Error {
        let value = self.map.get(key).map_or_else(|| "absent".to_owned(), Value::to_string);
        let value = match value.char_indices().nth(SHOWN_CHARS) {
            Some((end, _)) => format!("{}...", &value[..end]),
            None => value,
        };
        Error::Config { key: format!("{}{key}", self.path), value, limit: limit.to_owned() }
    }

    /// Reads a whole number from 1 to `most`.
    pub(crate) fn count(&self, key: &str, most: usize) -> Result<usize> {
        let count = self.get(key).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
        count
            .filter(|count| (1..=most).contains(count))
            .ok_or_else(|| self.fault(key, &format!("a whole number from 1 to {most}")))
    }

    /// Reads a number like [`Keys::count`], or returns `default` if the key is absent.
    pub(crate) fn count_or(&self, key: &str, most: usize, default: usize) -> Result<usize> {
        if self.has(key) { self.count(key, most) } else { Ok(default) }
    }

    /// Reads a whole number from 0, or returns `default` if the key is absent.
    pub(crate) fn whole_or(&self, key: &str, default: usize) -> Result<usize> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let whole = value.as_u64().and_then(|whole| usize::try_from(whole).ok());
        whole.ok_or_else(|| self.fault(key, "a whole number"))
    }

    /// Reads a finite number above 0, within the range of its key.
    pub(crate) fn positive(&self, key: &str) -> Result<f64> {
        let number = self.get(key).and_then(Value::as_f64).filter(|number| number.is_finite() && *number > 0.0);
        match RANGES.iter().find(|(name, ..)| *name == key) {
            None => number.ok_or_else(|| self.fault(key, "a number above 0")),
            Some((_, least, most)) => number
                .filter(|number| (*least..=*most).contains(number))
                .ok_or_else(|| self.fault(key, &format!("a number from {least:?} to {most:?}"))),
        }
    }

    /// Reads a number like [`Keys::positive`], or returns `default` if the key is absent.
    pub(crate) fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        if self.has(key) { self.positive(key) } else { Ok(default) }
    }

    pub(crate) fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.fault(key, "true or false")),
        }
    }

    pub(crate) fn text_or(&self, key: &str, default: &'a str) -> Result<&'a str> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_str().ok_or_else(|| self.fault(key, "a string")),
        }
    }

    /// Reads a list of `len` divisors of frequencies.
    pub(crate) fn factors(&self, key: &str, len: usize) -> Result<Vec<f32>> {
        let list = self.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let numbers: Vec<f32> = list.iter().filter_map(Value::as_f64).map(|number| number as f32).collect();
        let [least, most] = DIVISORS;
        let is_whole = list.len() == len && numbers.len() == len;
        if is_whole && numbers.iter().all(|number| (least..=most).contains(number)) {
            return Ok(numbers);
        }
        Err(self.fault(key, &format!("a list of {len} numbers from {least:?} to {most:?}")))
    }

    /// Reads a list of tokens, ascending and below the number that the key `vocab` names.
    pub(crate) fn tokens(&self, key: &str, vocab: &str, most: usize) -> Result<Vec<u32>> {
        let vocab = self.count(vocab, most)?;
        let list = self.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let tokens: Vec<u32> = list.iter().filter_map(Value::as_u64).filter_map(|id| id.try_into().ok()).collect();
        let is_whole = !list.is_empty() && tokens.len() == list.len();
        if is_whole && tokens.is_sorted_by(|one, next| one < next) && tokens.iter().all(|id| (*id as usize) < vocab) {
            return Ok(tokens);
        }
        Err(self.fault(key, &format!("a list of ascending numbers below {vocab}")))
    }

    pub(crate) fn section(&self, key: &str) -> Result<Option<Keys<'a>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.fault(key, "an object"))?;
        Ok(Some(Keys { map, path: format!("{}{key}.", self.path) }))
    }
}
