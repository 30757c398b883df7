//! What keeps the evaluation out of the data that a model is aligned with.

use super::World;
use super::ask;
use super::attributes::HELD_QUESTIONS;
use super::sums;

/// Names and phrasings that belong to the evaluation.
#[derive(Clone, Debug)]
pub struct Guard {
    names: Vec<String>,
    phrasings: Vec<String>,
}

/// Text of the evaluation where it must not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` belongs to the evaluation and stands in: {text}")]
pub struct Leak {
    /// What of the evaluation was found.
    pub found: String,
    /// Where.
    pub text: String,
}

impl Guard {
    pub(super) fn new(world: &World) -> Self {
        let things = world.entities.iter().filter(|thing| thing.is_held).map(|thing| thing.name.clone());
        let chores = world.chores.iter().filter(|chore| chore.is_held);
        let jobs = chores.flat_map(|chore| [&chore.harm, &chore.care].map(|verb| format!("{verb} {}", chore.thing)));
        let forms = HELD_QUESTIONS.iter().chain(ask::held_forms()).chain(sums::held_forms());
        // What stands between the places of a template is the phrasing; a word or two are anybody's.
        let pieces = forms.flat_map(|form| form.split(['{', '}']).step_by(2)).map(str::trim);
        let phrasings = pieces.filter(|piece| piece.split_whitespace().count() >= 3).map(str::to_lowercase);
        Self { names: things.chain(jobs).map(|name| name.to_lowercase()).collect(), phrasings: phrasings.collect() }
    }

    /// See that no name and no phrasing of the evaluation stands in the text.
    ///
    /// # Errors
    /// [`Leak`].
    pub fn check(&self, text: &str) -> Result<(), Leak> {
        self.find(text, self.names.iter().chain(&self.phrasings))
    }

    /// See that no phrasing of the evaluation stands in the text, which may name what it likes.
    ///
    /// # Errors
    /// [`Leak`].
    pub fn check_phrasing(&self, text: &str) -> Result<(), Leak> {
        self.find(text, self.phrasings.iter())
    }

    fn find<'a>(&self, text: &str, mut forbidden: impl Iterator<Item = &'a String>) -> Result<(), Leak> {
        let low = text.to_lowercase();
        let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let stands = |phrase: &str| {
            low.match_indices(phrase).any(|(at, _)| {
                !is_word(low[..at].chars().next_back()) && !is_word(low[at + phrase.len()..].chars().next())
            })
        };
        match forbidden.find(|phrase| stands(phrase)) {
            Some(found) => Err(Leak { found: found.clone(), text: text.to_owned() }),
            None => Ok(()),
        }
    }
}
