//! Output heads: linear layers on the final hidden state of a model.

use std::fmt::{self, Debug, Formatter};

/// An output head by its purpose.
///
/// ```
/// use wsd_core::Head;
/// assert_eq!(Head::find("score"), Some(Head::REWARD));
/// assert_eq!(Head::REWARD.weight(), "score.weight");
/// assert_eq!(Head::all().map(Head::module).next(), Some("lm_head"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Head(u8);

/// A row of the table of heads.
struct Entry {
    /// The module's name in checkpoints of Hugging Face.
    module: &'static str,
    /// The outputs, for messages.
    outputs: &'static str,
}

/// Every head. A model has those whose matrix is in its checkpoint.
const ENTRIES: &[Entry] = &[
    // Checkpoints `*ForCausalLM`.
    Entry { module: "lm_head", outputs: "logits" },
    // Checkpoints `*ForSequenceClassification`.
    Entry { module: "score", outputs: "rewards" },
];

impl Head {
    /// Logits of the next token.
    pub const VOCABULARY: Self = Self(0);
    /// One number per label, as `*ForSequenceClassification` checkpoints have it: reward models and
    /// process reward models.
    pub const REWARD: Self = Self(1);

    /// Iterates over every head.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..ENTRIES.len() as u8).map(Self)
    }

    /// Finds the head of a module.
    #[must_use]
    pub fn find(module: &str) -> Option<Self> {
        Self::all().find(|head| head.module() == module)
    }

    /// The module's name in checkpoints of Hugging Face.
    #[must_use]
    pub fn module(self) -> &'static str {
        self.entry().module
    }

    /// The outputs, for messages.
    #[must_use]
    pub fn outputs(self) -> &'static str {
        self.entry().outputs
    }

    /// The name of its matrix in a checkpoint.
    #[must_use]
    pub fn weight(self) -> String {
        format!("{}.weight", self.module())
    }

    /// The name of its bias in a checkpoint.
    #[must_use]
    pub fn bias(self) -> String {
        format!("{}.bias", self.module())
    }

    fn entry(self) -> &'static Entry {
        &ENTRIES[usize::from(self.0)]
    }
}

impl Debug for Head {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.module())
    }
}

/// A set of heads.
///
/// ```
/// use wsd_core::{Head, Heads};
/// let heads = Heads::NONE.with(Head::REWARD);
/// assert!(heads.contains(Head::REWARD) && !heads.contains(Head::VOCABULARY));
/// assert!(heads.iter().eq([Head::REWARD]));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Heads(u32);

const _: () = assert!(ENTRIES.len() <= u32::BITS as usize, "a set of heads has too few bits");

impl Heads {
    /// No head.
    pub const NONE: Self = Self(0);

    /// The same set with `head`.
    #[must_use]
    pub const fn with(self, head: Head) -> Self {
        Self(self.0 | 1 << head.0)
    }

    /// True if `head` is in the set.
    #[must_use]
    pub const fn contains(self, head: Head) -> bool {
        self.0 >> head.0 & 1 == 1
    }

    /// Iterates over the set in the order of the table.
    pub fn iter(self) -> impl Iterator<Item = Head> {
        Head::all().filter(move |head| self.contains(*head))
    }
}

impl FromIterator<Head> for Heads {
    fn from_iter<I: IntoIterator<Item = Head>>(heads: I) -> Self {
        heads.into_iter().fold(Self::NONE, Self::with)
    }
}

impl Debug for Heads {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_again() {
        for head in Head::all() {
            assert_eq!(Head::find(head.module()), Some(head));
            assert!(!head.outputs().is_empty());
        }
        assert_eq!(Head::find("lm_head"), Some(Head::VOCABULARY));
        assert_eq!(Head::find("score"), Some(Head::REWARD));
        assert_eq!(Head::find("no_head"), None);
    }

    #[test]
    fn a_set_of_every_head_lists_the_table() {
        assert!(Head::all().collect::<Heads>().iter().eq(Head::all()));
        assert_eq!(format!("{:?}", Heads::NONE.with(Head::REWARD)), "{score}");
    }
}
