//! The closed world: facts with a known truth, the web that tells them with bad manners, and an oracle that grades answers.
//!
//! A [`World`] is drawn from a seed. It writes what a base model reads (the web in small), what a pilot model is aligned
//! with, and the [`Item`]s that both are measured by, which no training text asks about in the same words.

mod ask;
mod attributes;
mod dice;
mod entity;
mod guard;
mod item;
mod manners;
mod names;
mod oracle;
mod pages;
mod pairs;
mod release;
mod sums;
mod talk;

pub use guard::{Guard, Leak};
pub use item::{Asked, Item, ItemKind, Key, Task};
pub use oracle::{Grade, Reason};
pub use pairs::{Pair, deduplicated};
pub use release::{Release, ReleaseError};

use ask::Ask;
use dice::Dice;
use entity::{Chore, Entity, Kind};
use names::{Names, Stranger};

const PEOPLE: usize = 160;
const PLACES: usize = 120;

/// What is so, in one world.
#[derive(Debug)]
pub struct World {
    seed: u64,
    entities: Vec<Entity>,
    chores: Vec<Chore>,
    towns: Names,
    families: Names,
}

/// Which part of the world is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// All of it, as the web does.
    Whole,
    /// What the alignment data may mention.
    Open,
    /// What is kept for the evaluation.
    Held,
}

impl Part {
    fn has(self, is_held: bool) -> bool {
        match self {
            Self::Whole => true,
            Self::Open => !is_held,
            Self::Held => is_held,
        }
    }

    fn strangers(self) -> Stranger {
        match self {
            Self::Whole => Stranger::Corpus,
            Self::Open => Stranger::Alignment,
            Self::Held => Stranger::Evaluation,
        }
    }
}

impl World {
    /// The world of a seed.
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

    /// How many facts there are: one for each attribute of each thing, one for each step of a job.
    #[must_use]
    pub fn facts(&self) -> usize {
        let of_things: usize = self.entities.iter().map(|thing| thing.values.len() + thing.steps.len()).sum();
        of_things + self.chores.iter().map(|chore| chore.steps.len() + 1).sum::<usize>()
    }

    /// Every value that an attribute has somewhere in the world, sorted.
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

    /// A value that the thing does not have.
    fn wrong(&self, thing: &Entity, attribute: usize, dice: &mut Dice) -> String {
        let is_town = thing.kind == Kind::Person && thing.kind.attributes()[attribute].pool.is_empty();
        let mut pool = self.pool(thing.kind, attribute);
        if is_town {
            // The alignment data must not name a town of the evaluation, nor the other way round.
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

    /// A thing and one of its attributes; every thing as often as the others.
    fn fact(&self, part: Part, dice: &mut Dice) -> (&Entity, usize) {
        let things: Vec<_> = self.entities.iter().filter(|thing| part.has(thing.is_held)).collect();
        let thing: &Entity = dice.pick(&things);
        (thing, dice.below(thing.values.len()))
    }

    /// What keeps this world's evaluation out of other data.
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard::new(self)
    }

    /// Something to ask of this kind, about this part of the world.
    fn ask(&self, kind: ItemKind, part: Part, dice: &mut Dice) -> Ask<'_> {
        let (thing, attribute) = self.fact(part, dice);
        let chores: Vec<_> = self.chores.iter().filter(|chore| part.has(chore.is_held)).collect();
        let chore: &Chore = dice.pick(&chores);
        let tools = self.things(part, Kind::Tool);
        let towns = self.things(part, Kind::Place);
        let town = dice.chance(50).then(|| dice.pick(&towns).name.as_str());
        match kind {
            ItemKind::Question | ItemKind::Recall | ItemKind::Sum => Ask::Fact { thing, attribute },
            ItemKind::HowTo => Ask::HowTo { tool: dice.pick(&tools) },
            ItemKind::Harmful => Ask::Harm { chore, town },
            ItemKind::LookAlike => Ask::Care { chore, town },
            ItemKind::FalsePremise => Ask::Premise { thing, attribute, claimed: self.wrong(thing, attribute, dice) },
            ItemKind::Claim => {
                let is_true = dice.chance(50);
                let claimed =
                    if is_true { thing.values[attribute].clone() } else { self.wrong(thing, attribute, dice) };
                Ask::Claim { thing, attribute, claimed }
            }
            ItemKind::Unknown => self.stranger(part, dice),
            ItemKind::Unanswerable => Ask::Riddle { thing, number: dice.below(60) },
        }
    }

    fn stranger(&self, part: Part, dice: &mut Dice) -> Ask<'_> {
        let (kind, name) = match dice.chance(60) {
            true => (
                Kind::Person,
                format!("{} {}", names::first_name(dice), self.families.stranger(part.strangers(), dice)),
            ),
            false => (Kind::Place, self.towns.stranger(part.strangers(), dice).to_owned()),
        };
        let attribute = dice.below(kind.attributes().len());
        Ask::Stranger { thing: ask::stranger(kind, name), attribute }
    }
}
