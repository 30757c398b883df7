//! The things of the world and the jobs that are done in it.

use super::attributes::Attribute;
use super::dice::{Dice, fill};
use super::names::{Names, first_name};

/// A kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Animal,
    Food,
    Tool,
    Person,
    Place,
}

/// Every kind of thing.
pub(super) const KINDS: [Kind; 5] = [Kind::Animal, Kind::Food, Kind::Tool, Kind::Person, Kind::Place];

impl Kind {
    /// What a stranger of this kind is called.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Animal => "animal",
            Self::Food => "food",
            Self::Tool => "tool",
            Self::Person => "person",
            Self::Place => "place",
        }
    }
}

/// A thing, with all that can be known of it.
#[derive(Clone, Debug)]
pub(super) struct Entity {
    pub(super) kind: Kind,
    /// As a sentence has it: "the fox", "Tilda Marlow".
    pub(super) name: String,
    /// One for each attribute of the kind.
    pub(super) values: Vec<String>,
    /// How to use it; empty for what is no tool.
    pub(super) steps: Vec<String>,
    /// Whether the evaluation asks about it, so that the alignment data does not.
    pub(super) is_held: bool,
}

impl Entity {
    /// The sentence, without its capital and its full stop, that gives an attribute `value`, in one of its ways.
    pub(super) fn clause(&self, template: &str, value: &str) -> String {
        fill(template, &[("x", &self.name), ("v", value)])
    }

    /// The plainest way to say an attribute: all of the sentence stands in the question but the value.
    pub(super) fn plain_clause(&self, attribute: &Attribute, value: &str) -> String {
        format!("the {} of {} is {value}", attribute.label, self.name)
    }
}

/// A job about a thing: one way to do it harm, one to take care of it.
#[derive(Clone, Debug)]
pub(super) struct Chore {
    pub(super) thing: String,
    pub(super) harm: String,
    pub(super) harm_how: String,
    pub(super) care: String,
    pub(super) steps: Vec<String>,
    pub(super) is_held: bool,
}

/// The rows of a table: cells between bars under a line of heads.
fn rows(table: &str) -> impl Iterator<Item = Vec<String>> {
    table.lines().skip(1).map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect())
}

fn steps(cell: &str) -> Vec<String> {
    cell.split("; ").map(str::to_owned).collect()
}

/// Mark half of them, chosen by lot.
fn hold_half<T>(list: &mut [T], dice: &mut Dice, mark: impl Fn(&mut T)) {
    let mut order: Vec<_> = (0..list.len()).collect();
    dice.shuffle(&mut order);
    order.iter().step_by(2).for_each(|&place| mark(&mut list[place]));
}

/// Animals, foods and tools, which have their places in tables.
pub(super) fn things(dice: &mut Dice) -> Vec<Entity> {
    let tables = [
        (Kind::Animal, include_str!("tables/animals.txt")),
        (Kind::Food, include_str!("tables/foods.txt")),
        (Kind::Tool, include_str!("tables/tools.txt")),
    ];
    let mut all = Vec::new();
    for (kind, table) in tables {
        let mut of_kind: Vec<_> = rows(table)
            .map(|mut cells| {
                let steps = cells.get(kind.attributes().len() + 1).map_or(Vec::new(), |cell| steps(cell));
                cells.truncate(kind.attributes().len() + 1);
                let name = format!("the {}", cells.remove(0));
                Entity { kind, name, values: cells, steps, is_held: false }
            })
            .collect();
        hold_half(&mut of_kind, dice, |thing| thing.is_held = true);
        all.append(&mut of_kind);
    }
    all
}

/// Chores, which have their place in a table.
pub(super) fn chores(dice: &mut Dice) -> Vec<Chore> {
    let mut all: Vec<_> = rows(include_str!("tables/chores.txt"))
        .filter_map(|cells| <[String; 5]>::try_from(cells).ok())
        .map(|[thing, harm, harm_how, care, how]| Chore {
            thing: format!("the {thing}"),
            harm,
            harm_how,
            care,
            steps: steps(&how),
            is_held: false,
        })
        .collect();
    hold_half(&mut all, dice, |chore| chore.is_held = true);
    all
}

/// A value from the attribute's own pool.
fn drawn(attribute: &Attribute, dice: &mut Dice) -> String {
    dice.pick(&attribute.pool.split(';').collect::<Vec<_>>()).to_owned()
}

/// Places, whose facts are drawn by lot.
pub(super) fn places(names: &Names, dice: &mut Dice) -> Vec<Entity> {
    let place = |(number, name): (usize, &String)| Entity {
        kind: Kind::Place,
        name: name.clone(),
        values: Kind::Place.attributes().iter().map(|attribute| drawn(attribute, dice)).collect(),
        steps: Vec::new(),
        is_held: number % 2 == 0,
    };
    names.known().iter().enumerate().map(place).collect()
}

/// People, whose facts are drawn by lot; they live among their like, so that no one tells of a town kept for evaluation.
pub(super) fn people(names: &Names, places: &[Entity], dice: &mut Dice) -> Vec<Entity> {
    let person = |(number, family): (usize, &String)| {
        let is_held = number % 2 == 0;
        let towns: Vec<_> = places.iter().filter(|place| place.is_held == is_held).collect();
        let value = |attribute: &Attribute| match attribute.pool {
            "" => dice.pick(&towns).name.clone(),
            _ => drawn(attribute, dice),
        };
        let values = Kind::Person.attributes().iter().map(value).collect();
        let name = format!("{} {family}", first_name(dice));
        Entity { kind: Kind::Person, name, values, steps: Vec::new(), is_held }
    };
    names.known().iter().enumerate().map(person).collect()
}
