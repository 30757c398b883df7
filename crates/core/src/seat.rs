//! Seats: the parts that models play in a strategy.

use std::fmt::{self, Debug, Display, Formatter};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The part that a model plays in a strategy.
///
/// Strategies name the seats they need; users fill them by `--base`, `--draft` or
/// `--model SEAT=MODEL`.
///
/// ```
/// use wsd_core::Seat;
/// assert_eq!(Seat::find("judge"), Some(Seat::JUDGE));
/// assert_eq!(Seat::all().map(Seat::name).next(), Some("draft"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seat(u8);

/// A row of the table of seats.
struct Entry {
    name: &'static str,
    about: &'static str,
    /// XORed into the sampling seed, so that two seats with one seed draw different numbers.
    salt: u64,
}

const ENTRIES: [Entry; 5] = [
    Entry { name: "draft", about: "the small aligned model that opens the answer", salt: 0x9E37_79B9_7F4A_7C15 },
    Entry { name: "base", about: "the large model that scores the opening and finishes the answer", salt: 0 },
    Entry { name: "middle", about: "a model between draft and base in size", salt: 0xC2B2_AE3D_27D4_EB4F },
    Entry { name: "judge", about: "a model that rates text and writes none", salt: 0x1656_67B1_9E37_79F9 },
    Entry { name: "guide", about: "a model whose logits steer those of another", salt: 0x27D4_EB2F_1656_67C5 },
];

impl Seat {
    /// The small aligned model that opens the answer.
    pub const DRAFT: Self = Self(0);
    /// The large model that scores the opening and finishes the answer.
    pub const BASE: Self = Self(1);
    /// A model between draft and base in size.
    pub const MIDDLE: Self = Self(2);
    /// A model that rates text and writes none.
    pub const JUDGE: Self = Self(3);
    /// A model whose logits steer those of another.
    pub const GUIDE: Self = Self(4);

    /// Iterates over every seat.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..ENTRIES.len() as u8).map(Self)
    }

    /// Finds the seat of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::all().find(|seat| seat.name() == name)
    }

    /// The name in options, files and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// One line for the help.
    #[must_use]
    pub fn about(self) -> &'static str {
        self.entry().about
    }

    /// The command line's option that fills the seat.
    #[must_use]
    pub fn option(self) -> String {
        if self <= Self::BASE { format!("--{self}") } else { format!("--model {self}=MODEL") }
    }

    /// The number XORed into the sampling seed of this seat.
    pub(crate) fn salt(self) -> u64 {
        self.entry().salt
    }

    fn entry(self) -> &'static Entry {
        &ENTRIES[usize::from(self.0)]
    }
}

impl Display for Seat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Debug for Seat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The writer of a token of the answer. In JSON it is the seat's name, or `fused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Author {
    /// One model.
    Seat(Seat),
    /// Several models, whose distributions were combined.
    Fused,
}

impl Author {
    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seat(seat) => seat.name(),
            Self::Fused => "fused",
        }
    }

    /// Finds the author of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        if name == Self::Fused.name() { Some(Self::Fused) } else { Seat::find(name).map(Self::Seat) }
    }
}

impl From<Seat> for Author {
    fn from(seat: Seat) -> Self {
        Self::Seat(seat)
    }
}

impl PartialEq<Seat> for Author {
    fn eq(&self, seat: &Seat) -> bool {
        *self == Self::Seat(*seat)
    }
}

impl Display for Author {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Serializes a type by its name, and reads it back by looking the name up.
macro_rules! serde_by_name {
    ($type:ident, $kind:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                Self::find(&name).ok_or_else(|| de::Error::custom(format!(concat!("`{}` is no ", $kind), name)))
            }
        }
    };
}

serde_by_name!(Seat, "seat");
serde_by_name!(Author, "author");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for seat in Seat::all() {
            let author = Author::from(seat);
            let json = serde_json::to_string(&author).unwrap();
            assert_eq!(json, format!("\"{seat}\""));
            assert_eq!(serde_json::from_str::<Author>(&json).unwrap(), author);
            assert!(Seat::all().filter(|other| other.salt() == seat.salt()).eq([seat]), "a salt is used twice");
        }
        assert_eq!(serde_json::from_str::<Author>("\"fused\"").unwrap(), Author::Fused);
        assert!(serde_json::from_str::<Seat>("\"boss\"").unwrap_err().to_string().contains("`boss`"));
    }
}
