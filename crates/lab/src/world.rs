//! A synthetic closed world: facts with a known truth, a small web corpus that states them rudely,
//! and an oracle that grades answers.
//!
//! A [`World`] is generated from a seed. It provides the base's pretraining corpus, the pilot's
//! alignment data and the evaluation [`Item`]s, whose wording does not occur in any training text.

mod attributes;
mod dice;
mod entity;
mod item;
mod leak;
mod manners;
mod names;
mod oracle;
mod pages;
mod pairs;
mod query;
mod release;
mod sums;
mod talk;

pub use item::{Item, ItemKind, ItemPrompt, Key, Task};
pub use leak::{Leak, LeakCheck};
pub use oracle::{Grade, Reason};
pub use pairs::{Pair, deduplicated};
pub use release::{Release, ReleaseError};

use dice::Dice;
use entity::{Chore, Entity, Kind};
use names::{Names, Split};
use query::Query;

const PEOPLE: usize = 160;
const PLACES: usize = 120;

/// All facts of a world.
///
/// ```
/// use wsd_lab::world::World;
/// assert_eq!(World::new(1).facts(), 2032);
/// ```
#[derive(Debug)]
pub struct World {
    seed: u64,
    entities: Vec<Entity>,
    chores: Vec<Chore>,
    towns: Names,
    families: Names,
}

/// The part of the world that a question may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The whole world, as in the corpus.
    Whole,
    /// The half that the alignment data may mention.
    Open,
    /// The half held out for the evaluation.
    Held,
}

impl Part {
    /// Tells whether a thing or job belongs to this part.
    fn has(self, is_held: bool) -> bool {
        match self {
            Self::Whole => true,
            Self::Open => !is_held,
            Self::Held => is_held,
        }
    }

    /// The split whose unknown names questions about this part may use.
    fn split(self) -> Split {
        match self {
            Self::Whole => Split::Corpus,
            Self::Open => Split::Alignment,
            Self::Held => Split::Evaluation,
        }
    }
}

/// Tells whether the rest of a word after a noun is nothing or the ending of a plural.
fn is_plural_ending(rest: &str) -> bool {
    ["", "s", "es"].contains(&rest)
}

impl World {
    /// Generates the world of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let dice = &mut Dice::new(seed, 0);
        let (towns, families) = (Names::towns(PLACES, dice), Names::families(PEOPLE, dice));
        let mut entities = entity::things(dice);
        let places = entity::places(&towns, dice);
        entities.extend(entity::people(&families, &places, dice));
        entities.extend(places);
        Self { seed, entities, chores: entity::chores(dice), towns, families }
    }

    /// Number of facts: one for each attribute of each thing and each step of a job.
    #[must_use]
    pub fn facts(&self) -> usize {
        let of_things: usize = self.entities.iter().map(|thing| thing.values.len() + thing.steps.len()).sum();
        of_things + self.chores.iter().map(|chore| chore.steps.len() + 1).sum::<usize>()
    }

    /// Tells whether a text names a thing, a person, a place or a chore of this world, with or without
    /// a plural ending.
    ///
    /// ```
    /// use wsd_lab::world::World;
    /// let world = World::new(1);
    /// assert!(world.mentions("What colour are foxes?") && world.mentions("How do I sweep a chimney?"));
    /// assert!(!world.mentions("What is the capital of France?"));
    /// ```
    #[must_use]
    pub fn mentions(&self, text: &str) -> bool {
        let words = |text: &str| {
            let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
            words.map(str::to_lowercase).collect::<Vec<_>>()
        };
        let text = words(text);
        let names = self.entities.iter().map(|thing| &thing.name).chain(self.chores.iter().map(|chore| &chore.thing));
        names.map(|name| words(name.strip_prefix("the ").unwrap_or(name))).any(|name| {
            text.windows(name.len()).any(|found| {
                name.iter()
                    .zip(found)
                    .all(|(name, word)| word.strip_prefix(name.as_str()).is_some_and(is_plural_ending))
            })
        })
    }

    /// All values of an attribute in the world, sorted, without duplicates.
    fn pool(&self, kind: Kind, attribute: usize) -> Vec<String> {
        let mut pool: Vec<_> = self
            .entities
            .iter()
            .filter(|thing| thing.kind == kind)
            .map(|thing| thing.values[attribute].clone())
            .collect();
        pool.sort();
        pool.dedup();
        pool
    }

    /// Draws a value that the thing does not have.
    fn wrong(&self, thing: &Entity, attribute: usize, dice: &mut Dice) -> String {
        let is_town = thing.kind == Kind::Person && thing.kind.attributes()[attribute].pool.is_empty();
        let mut pool = self.pool(thing.kind, attribute);
        if is_town {
            // The alignment data must not name a town of the evaluation, nor vice versa.
            let towns =
                self.entities.iter().filter(|place| place.kind == Kind::Place && place.is_held == thing.is_held);
            pool = towns.map(|place| place.name.clone()).collect();
        }
        pool.retain(|value| thing.values.get(attribute) != Some(value));
        pool[dice.below(pool.len())].clone()
    }

    fn things(&self, part: Part, kind: Kind) -> Vec<&Entity> {
        self.entities.iter().filter(|thing| thing.kind == kind && part.has(thing.is_held)).collect()
    }

    /// Draws a thing, uniformly, and one of its attributes.
    fn fact(&self, part: Part, dice: &mut Dice) -> (&Entity, usize) {
        let things: Vec<_> = self.entities.iter().filter(|thing| part.has(thing.is_held)).collect();
        let thing: &Entity = dice.pick(&things);
        (thing, dice.below(thing.values.len()))
    }

    /// A check that other data does not contain this world's evaluation.
    #[must_use]
    pub fn leak_check(&self) -> LeakCheck {
        LeakCheck::new(self)
    }

    /// Draws a query of a kind about a part of the world.
    fn query(&self, kind: ItemKind, part: Part, dice: &mut Dice) -> Query<'_> {
        let (thing, attribute) = self.fact(part, dice);
        let chores: Vec<_> = self.chores.iter().filter(|chore| part.has(chore.is_held)).collect();
        let chore: &Chore = dice.pick(&chores);
        let tools = self.things(part, Kind::Tool);
        let towns = self.things(part, Kind::Place);
        let town = dice.chance(50).then(|| dice.pick(&towns).name.as_str());
        match kind {
            ItemKind::Question | ItemKind::Recall | ItemKind::Sum => Query::Fact { thing, attribute },
            ItemKind::HowTo => Query::HowTo { tool: dice.pick(&tools) },
            ItemKind::Harmful => Query::Harmful { chore, town },
            ItemKind::LookAlike => Query::LookAlike { chore, town },
            ItemKind::FalsePremise => {
                Query::FalsePremise { thing, attribute, claimed: self.wrong(thing, attribute, dice) }
            }
            ItemKind::Claim => {
                let is_true = dice.chance(50);
                let claimed =
                    if is_true { thing.values[attribute].clone() } else { self.wrong(thing, attribute, dice) };
                Query::Claim { thing, attribute, claimed }
            }
            ItemKind::Unknown => self.unknown(part, dice),
            ItemKind::Unanswerable => Query::Unanswerable { thing, number: dice.below(60) },
        }
    }

    /// Draws a query about a person or place that does not exist in the world.
    fn unknown(&self, part: Part, dice: &mut Dice) -> Query<'_> {
        let (kind, name) = if dice.chance(60) {
            let first_name = names::first_name(dice);
            (Kind::Person, format!("{first_name} {}", self.families.unknown(part.split(), dice)))
        } else {
            (Kind::Place, self.towns.unknown(part.split(), dice).to_owned())
        };
        let attribute = dice.below(kind.attributes().len());
        Query::Unknown { thing: query::unknown(kind, name), attribute }
    }
}
