//! Items of an answer: texts, reasoning and calls of tools.

use serde_json::Value;
use wsd_core::Completion;

/// The kind of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Reasoning,
    Call,
}

/// An item of an answer.
pub(crate) struct Item {
    pub(crate) kind: Kind,
    /// A name unlike that of other items.
    pub(crate) id: String,
    /// The tool that is called; empty for other items.
    pub(crate) name: String,
    /// The text; for a call, its arguments as JSON text.
    pub(crate) text: String,
    /// True where the answer was cut off within it.
    pub(crate) is_cut: bool,
}

/// A change of an item.
pub(crate) enum Part<'a> {
    /// The item begins.
    Begin(&'a Item),
    /// More text of the item.
    More(&'a Item, &'a str),
    /// The item ends.
    End(&'a Item),
}

/// An answer with its items, of which there is at least one.
pub(crate) struct Said {
    pub(crate) answer: Completion,
    pub(crate) items: Vec<Item>,
}

impl Item {
    /// The arguments of a call; `None` where they were cut off.
    pub(crate) fn arguments(&self) -> Option<Value> {
        serde_json::from_str(&self.text).ok()
    }
}

impl Said {
    /// The items of a kind.
    pub(crate) fn all(&self, kind: Kind) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |item| item.kind == kind)
    }

    /// The joined texts of a kind.
    pub(crate) fn text(&self, kind: Kind) -> String {
        self.all(kind).map(|item| item.text.as_str()).collect()
    }
}
