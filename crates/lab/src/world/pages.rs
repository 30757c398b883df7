//! Documents of the corpus other than conversations: encyclopedia entries, lists, stories,
//! instructions, forum threads.

use super::World;
use super::dice::{Dice, capital, fill, sentence};
use super::entity::{Entity, KINDS, Kind};
use super::manners::HANDLES;
use super::query::{Phrasing, fact_clause, join_steps};
use super::talk;

/// An encyclopedia entry: all facts of a thing in random order and wording.
pub(super) fn entry(thing: &Entity, dice: &mut Dice) -> String {
    let attributes: Vec<_> = (0..thing.values.len()).collect();
    let mut facts: Vec<_> =
        dice.sample(&attributes, attributes.len()).into_iter().map(|&attribute| fact(thing, attribute, dice)).collect();
    if !thing.steps.is_empty() {
        facts.push(format!("To use {}, {}.", thing.name, join_steps(&thing.steps)));
    }
    let title = if dice.chance(50) { format!("{}\n\n", capital(&thing.name)) } else { String::new() };
    title + &facts.join(" ")
}

/// States a fact as a sentence, in the simplest clause half of the time.
fn fact(thing: &Entity, attribute: usize, dice: &mut Dice) -> String {
    let clauses = thing.kind.attributes()[attribute].clauses;
    let clause = if dice.chance(50) {
        fact_clause(thing, attribute)
    } else {
        thing.clause(dice.pick(clauses), &thing.values[attribute])
    };
    sentence(&clause)
}

/// A list of one attribute of several things of a kind.
pub(super) fn list(world: &World, dice: &mut Dice) -> String {
    let kind = dice.pick(&KINDS);
    let attribute = dice.below(kind.attributes().len());
    let of_kind: Vec<_> = world.entities.iter().filter(|thing| thing.kind == kind).collect();
    let count = dice.between(4, 8);
    let lines =
        dice.sample(&of_kind, count).into_iter().map(|thing| format!("- {}: {}", thing.name, thing.values[attribute]));
    let lines = lines.collect::<Vec<_>>().join("\n");
    format!("The {} of some {}s\n\n{lines}", kind.attributes()[attribute].label, kind.noun())
}

const STORIES: &[&str] = &[
    "One morning {who} met {x} on the road. {fact1} {who} had always known it. {fact2} So they sat down together and \
    ate.",
    "\"Tell me a story about {x},\" said {who}. \"{fact1}\" \"And then?\" \"{fact2}\" \"That is a good story,\" said \
    {who}.",
    "Long ago there lived {who}, who wanted to know all about {x}. {fact1} {fact2} And {who} was content.",
];

/// A story with two facts in it.
pub(super) fn story(world: &World, dice: &mut Dice) -> String {
    let people: Vec<_> = world.entities.iter().filter(|thing| thing.kind == Kind::Person).collect();
    let (who, thing) = (dice.pick(&people), &world.entities[dice.below(world.entities.len())]);
    let attributes: Vec<_> = (0..thing.values.len()).collect();
    let facts: Vec<_> =
        dice.sample(&attributes, 2).into_iter().map(|&attribute| fact(thing, attribute, dice)).collect();
    fill(dice.pick(STORIES), &[("who", &who.name), ("x", &thing.name), ("fact1", &facts[0]), ("fact2", &facts[1])])
}

/// A page of instructions.
pub(super) fn instructions(world: &World, dice: &mut Dice) -> String {
    let tools: Vec<_> = world.entities.iter().filter(|thing| !thing.steps.is_empty()).collect();
    let place = dice.below(tools.len() + world.chores.len());
    let (verb, thing, steps) = match place.checked_sub(tools.len()) {
        None => ("use", &tools[place].name, &tools[place].steps),
        Some(place) => (world.chores[place].care.as_str(), &world.chores[place].thing, &world.chores[place].steps),
    };
    if dice.chance(50) {
        return format!("{}\n\nTo {verb} it, {}.", capital(thing), join_steps(steps));
    }
    let lines = steps.iter().enumerate().map(|(number, step)| format!("{}. {}", number + 1, sentence(step)));
    format!("How to {verb} {thing}\n\n{}", lines.collect::<Vec<_>>().join("\n"))
}

/// A forum thread: a question and mostly rude replies.
pub(super) fn thread(world: &World, dice: &mut Dice) -> String {
    let query = talk::web_query(world, dice);
    let question = query.question(Phrasing::Web, dice);
    let count = dice.between(2, 4);
    let handles = dice.sample(&HANDLES, count);
    let replies = handles.iter().enumerate().map(|(place, handle)| match place {
        0 => format!("{handle}: {question}"),
        _ if dice.chance(20) => format!("{handle}: {}", query.polite(dice)),
        _ => format!("{handle}: {}", query.rude(world, dice)),
    });
    format!("Forum\n\n{}", replies.collect::<Vec<_>>().join("\n\n"))
}
