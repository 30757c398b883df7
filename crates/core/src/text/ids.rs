//! Token ids in a `tokenizer.json`, bounded before any table is built by them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{Error, Result};

/// The entries of a vocabulary and the number of ids that they span.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ids {
    entries: usize,
    span: u64,
}

/// Returns the most ids that a vocabulary of so many entries may span. Published ones have few gaps.
pub(super) fn max_span(entries: usize) -> usize {
    entries.saturating_mul(4).saturating_add(1 << 20)
}

impl Ids {
    /// Counts an entry.
    pub(super) fn add(&mut self, id: u64) {
        self.entries += 1;
        self.span = self.span.max(id.saturating_add(1));
    }

    /// Checks the largest id.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an id far above the number of entries: tables by id, in the library too,
    /// would take gigabytes.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let limit = max_span(self.entries) as u64;
        if self.span <= limit {
            return Ok(());
        }
        let (entries, largest) = (self.entries, self.span - 1);
        let message = format!(
            "the ids of its {entries} tokens must be below {limit}, got {largest}\n  hint: the file may be hostile"
        );
        Err(Error::Tokenizer { name: name.to_owned(), message })
    }
}

/// A vocabulary in JSON: an object of pieces and ids, or a list of pieces in the order of their ids.
impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(IdsVisitor)
    }
}

struct IdsVisitor;

impl<'de> Visitor<'de> for IdsVisitor {
    type Value = Ids;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a vocabulary: an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Ids, A::Error> {
        let mut ids = Ids::default();
        while let Some((_, id)) = map.next_entry::<IgnoredAny, u64>()? {
            ids.add(id);
        }
        Ok(ids)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Ids, A::Error> {
        let mut ids = Ids::default();
        while seq.next_element::<IgnoredAny>()?.is_some() {
            ids.add(ids.entries as u64);
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(vocab: &str) -> Option<String> {
        let ids: Ids = serde_json::from_str(vocab).unwrap();
        ids.check("t").err().map(|error| error.to_string())
    }

    #[test]
    fn ids_far_above_the_number_of_entries_are_refused() {
        assert_eq!(fault(r#"{"a": 0, "b": 262144}"#), None);
        assert_eq!(fault(r#"[["a", 0.5], ["b", -1.5]]"#), None);
        for id in [1 << 21, u64::from(u32::MAX), u64::MAX] {
            let fault = fault(&format!(r#"{{"a": 0, "b": {id}}}"#)).unwrap();
            assert!(fault.contains("the ids of its 2 tokens must be below 1048584, got "), "{fault}");
        }
    }
}
