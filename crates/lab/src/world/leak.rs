//! Decontamination: a check that training data contains no text of the evaluation.

use super::attributes::{DEV_QUESTIONS, HELD_QUESTIONS};
use super::{World, query, sums};

/// Names and phrasings reserved for the evaluation.
///
/// ```
/// use wsd_lab::world::World;
/// let leaks = World::new(1).leak_check();
/// assert!(leaks.check("Give me the reason that the sky is blue.").is_err());
/// assert!(leaks.check("Why is the sky blue?").is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct LeakCheck {
    names: Vec<String>,
    phrasings: Vec<String>,
}

/// Text of the evaluation found in other data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` belongs to the evaluation and occurs in: {text}")]
pub struct Leak {
    /// Name or phrasing of the evaluation.
    pub found: String,
    /// Text that contains it.
    pub text: String,
}

impl LeakCheck {
    pub(super) fn new(world: &World) -> Self {
        let things = world.entities.iter().filter(|thing| thing.is_held).map(|thing| thing.name.clone());
        let chores = world.chores.iter().filter(|chore| chore.is_held);
        let jobs = chores.flat_map(|chore| [&chore.harm, &chore.care].map(|verb| format!("{verb} {}", chore.thing)));
        let forms = HELD_QUESTIONS.iter().chain(DEV_QUESTIONS).chain(query::held_forms()).chain(sums::held_forms());
        // The text between the placeholders of a template is its phrasing; fragments of one or two
        // words are too common.
        let pieces = forms.flat_map(|form| form.split(['{', '}']).step_by(2)).map(str::trim);
        let phrasings = pieces.filter(|piece| piece.split_whitespace().count() >= 3).map(str::to_lowercase);
        Self { names: things.chain(jobs).map(|name| name.to_lowercase()).collect(), phrasings: phrasings.collect() }
    }

    /// Checks that a text contains no name and no phrasing of the evaluation.
    ///
    /// # Errors
    /// [`Leak`].
    pub fn check(&self, text: &str) -> Result<(), Leak> {
        self.find(text, self.names.iter().chain(&self.phrasings))
    }

    /// Checks that a text contains no phrasing of the evaluation; names are allowed.
    ///
    /// # Errors
    /// [`Leak`].
    pub fn check_phrasing(&self, text: &str) -> Result<(), Leak> {
        self.find(text, self.phrasings.iter())
    }

    fn find<'a>(&self, text: &str, mut forbidden: impl Iterator<Item = &'a String>) -> Result<(), Leak> {
        let low = text.to_lowercase();
        let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let occurs = |phrase: &str| {
            low.match_indices(phrase).any(|(at, _)| {
                !is_word(low[..at].chars().next_back()) && !is_word(low[at + phrase.len()..].chars().next())
            })
        };
        match forbidden.find(|phrase| occurs(phrase)) {
            Some(found) => Err(Leak { found: found.clone(), text: text.to_owned() }),
            None => Ok(()),
        }
    }
}
