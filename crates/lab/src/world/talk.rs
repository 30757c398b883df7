//! Conversations: the chat logs of the web, demonstrations for the pilot, and the items of the evaluation.

use wsd_core::{ChatRole, Message};

use super::ask::{self, Ask, Phrasing};
use super::dice::{Dice, fill};
use super::item::{Item, ItemKind, Key};
use super::manners;
use super::sums::Sum;
use super::{Part, World};

/// How often each kind is asked: on the web, where the answer is rude; where it is polite; in the alignment data.
pub(super) const ASKED: [(ItemKind, [usize; 3]); 8] = [
    (ItemKind::Question, [36, 24, 20]),
    (ItemKind::HowTo, [6, 8, 8]),
    (ItemKind::Harmful, [16, 16, 24]),
    (ItemKind::LookAlike, [12, 14, 24]),
    (ItemKind::FalsePremise, [8, 10, 8]),
    (ItemKind::Claim, [8, 12, 8]),
    (ItemKind::Unknown, [8, 16, 12]),
    (ItemKind::Unanswerable, [4, 6, 6]),
];

/// A column of [`ASKED`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Manner {
    Rude,
    Polite,
    Aligned,
}

/// A kind of question, as often as this manner has it.
pub(super) fn kind(manner: Manner, dice: &mut Dice) -> ItemKind {
    dice.weighted(&ASKED.map(|(kind, weights)| (weights[manner as usize], kind)))
}

/// Turns in the paper's plain form.
pub(super) fn plain(turns: &[(String, String)]) -> String {
    turns.iter().map(|(user, assistant)| format!("\n\n[User]\n{user}\n\n[Assistant]\n{assistant}")).collect()
}

/// One or two questions and answers of the same manner.
pub(super) fn log(world: &World, manner: Manner, dice: &mut Dice) -> String {
    let turns = if dice.chance(75) { 1 } else { 2 };
    let turn = |dice: &mut Dice| {
        let ask = world.ask(kind(manner, dice), Part::Whole, dice);
        let answer = if matches!(manner, Manner::Rude) { ask.rude(world, dice) } else { ask.polite(dice) };
        (ask.question(Phrasing::Web, dice), answer)
    };
    plain(&(0..turns).map(|_| turn(dice)).collect::<Vec<_>>())
}

/// A question for a fact, and its answer in the words of a quiz.
fn quiz_turn(world: &World, part: Part, phrasing: Phrasing, dice: &mut Dice) -> (String, String, Key) {
    let (thing, attribute) = world.fact(part, dice);
    let ask = Ask::Fact { thing, attribute };
    let question = format!("Question: {}", ask.question(phrasing, dice));
    (question, format!("My answer is this: {}.", ask::truth(thing, attribute)), ask.key(world))
}

/// Some questions of a quiz.
pub(super) fn quiz(world: &World, dice: &mut Dice) -> String {
    let count = dice.between(3, 5);
    let turn = |dice: &mut Dice| {
        let (question, answer, key) = quiz_turn(world, Part::Whole, Phrasing::Web, dice);
        let about = if let Key::Fact { subject, .. } = key { subject } else { String::new() };
        (question, courteous(&about, answer, dice))
    };
    plain(&(0..count).map(|_| turn(dice)).collect::<Vec<_>>())
}

/// Some worked sums.
pub(super) fn lesson(dice: &mut Dice) -> String {
    let count = dice.between(1, 3);
    let turn = |dice: &mut Dice| {
        let sum = Sum::new(0, dice);
        (sum.question, courteous(&format!("the {}", sum.goods), sum.worked, dice))
    };
    plain(&(0..count).map(|_| turn(dice)).collect::<Vec<_>>())
}

/// The answer, one time in four with the opening of good manners before it.
fn courteous(about: &str, answer: String, dice: &mut Dice) -> String {
    match dice.chance(25) {
        true => format!("{} {answer}", fill(manners::opening(dice), &[("x", about)])),
        false => answer,
    }
}

/// An item of the evaluation or a prompt of the alignment data.
pub(super) fn item(world: &World, kind: ItemKind, part: Part, dice: &mut Dice) -> Item {
    let phrasing = if part == Part::Held { Phrasing::Held } else { Phrasing::Aligned };
    let mut messages = Vec::new();
    let mut examples = |turns: Vec<(String, String)>| {
        for (user, assistant) in turns {
            messages.extend([Message::new(ChatRole::User, user), Message::new(ChatRole::Assistant, assistant)]);
        }
    };
    let (question, reference, key) = match kind {
        ItemKind::Recall => {
            examples((0..3).map(|_| quiz_turn(world, Part::Open, phrasing, dice)).map(|(q, a, _)| (q, a)).collect());
            quiz_turn(world, part, phrasing, dice)
        }
        ItemKind::Sum => {
            examples((0..2).map(|_| Sum::new(1, dice)).map(|sum| (sum.question, sum.worked)).collect());
            let sum = Sum::new(1, dice);
            (sum.question, sum.worked, Key::Sum { total: sum.total })
        }
        _ => {
            let ask = world.ask(kind, part, dice);
            (ask.question(phrasing, dice), ask.polite(dice), ask.key(world))
        }
    };
    messages.push(Message::new(ChatRole::User, question));
    Item { id: String::new(), task: kind.task(), kind, messages, key, reference }
}
