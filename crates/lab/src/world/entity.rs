//! Things of the world and jobs done to them.

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

/// All kinds of things.
pub(super) const KINDS: [Kind; 5] = [Kind::Animal, Kind::Food, Kind::Tool, Kind::Person, Kind::Place];

impl Kind {
    /// Common noun of the kind.
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

/// A thing with its attributes.
#[derive(Clone, Debug)]
pub(super) struct Entity {
    pub(super) kind: Kind,
    /// Name inside a sentence: "the fox", "Tilda Marlow".
    pub(super) name: String,
    /// Values of the attributes of its kind, in their order.
    pub(super) values: Vec<String>,
    /// Steps of its use; empty except for tools.
    pub(super) steps: Vec<String>,
    /// Held out for the evaluation: not in the alignment data.
    pub(super) is_held: bool,
}

impl Entity {
    /// Fills the thing and a value into a clause template.
    pub(super) fn clause(&self, template: &str, value: &str) -> String {
        fill(template, &[("x", &self.name), ("v", value)])
    }

    /// States a value in the simplest clause, whose words except the value all occur in the
    /// question.
    pub(super) fn plain_clause(&self, attribute: &Attribute, value: &str) -> String {
        format!("the {} of {} is {value}", attribute.label, self.name)
    }
}

/// A harmful and a careful job done to a thing.
#[derive(Clone, Debug)]
pub(super) struct Chore {
    pub(super) thing: String,
    pub(super) harm: String,
    pub(super) harm_how: String,
    pub(super) care: String,
    pub(super) steps: Vec<String>,
    pub(super) is_held: bool,
}

/// Rows of a table: cells separated by bars, below a header line.
fn rows(table: &str) -> impl Iterator<Item = Vec<String>> {
    table.lines().skip(1).map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect())
}

fn steps(cell: &str) -> Vec<String> {
    cell.split("; ").map(str::to_owned).collect()
}

/// Marks a random half of a list.
fn hold_half<T>(list: &mut [T], dice: &mut Dice, mark: impl Fn(&mut T)) {
    let mut order: Vec<_> = (0..list.len()).collect();
    dice.shuffle(&mut order);
    order.iter().step_by(2).for_each(|&place| mark(&mut list[place]));
}

/// Animals, foods and tools, read from the tables.
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

/// Chores, read from their table.
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

/// Draws a value from the attribute's pool.
fn drawn(attribute: &Attribute, dice: &mut Dice) -> String {
    dice.pick(&attribute.pool.split(';').collect::<Vec<_>>()).to_owned()
}

/// Places with random facts.
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

/// People with random facts. Held-out people live in held-out towns and all others in open towns,
/// so that open facts never name a held-out town.
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
