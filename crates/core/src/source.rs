//! Sources of proposed tokens.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::Seat;

/// A source of proposed tokens. In JSON it is a seat's name, `lookup`, `rest` or `head`.
///
/// ```
/// use wsd_core::{Seat, Source};
/// assert_eq!(Source::find("middle"), Some(Source::Model(Seat::MIDDLE)));
/// assert_eq!(serde_json::to_string(&Source::Lookup)?, "\"lookup\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum Source {
    /// A model in this seat.
    Model(Seat),
    /// The tokens that followed an earlier occurrence of the last n-gram in prompt or answer.
    Lookup,
    /// The part of the draft after the switch.
    Rest,
    /// The draft head of the model that checks.
    Head,
}

impl Source {
    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Model(seat) => seat.name(),
            Self::Lookup => "lookup",
            Self::Rest => "rest",
            Self::Head => "head",
        }
    }

    /// Finds the source of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let of_none = [Self::Lookup, Self::Rest, Self::Head].into_iter().find(|source| source.name() == name);
        of_none.or_else(|| Seat::find(name).map(Self::Model))
    }
}

impl From<Source> for &'static str {
    fn from(source: Source) -> Self {
        source.name()
    }
}

impl TryFrom<String> for Source {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::find(&name).ok_or_else(|| format!("`{name}` is no source of proposals"))
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
