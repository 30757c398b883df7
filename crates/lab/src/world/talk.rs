//! Conversations: the chat logs of the web, demonstrations for the pilot, and the items of the evaluation.

use wsd_core::{ChatRole, Message};

use super::ask::{self, Ask, Phrasing};
use super::dice::Dice;
use super::item::{Asked, Item, ItemKind, Key};
use super::sums::Sum;
use super::{Part, World};

/// How often each kind is asked: on the web, politely answered or not, and in the alignment data.
const ASKED: [(ItemKind, [usize; 2]); 8] = [
    (ItemKind::Question, [30, 20]),
    (ItemKind::HowTo, [10, 10]),
    (ItemKind::Harmful, [22, 26]),
    (ItemKind::LookAlike, [22, 26]),
    (ItemKind::FalsePremise, [10, 8]),
    (ItemKind::Claim, [12, 8]),
    (ItemKind::Unknown, [10, 12]),
    (ItemKind::Unanswerable, [6, 6]),
];

/// Where a question stands: a column of [`ASKED`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Where {
    Web,
    Aligned,
}

/// A kind of question, as often as it is asked there.
pub(super) fn kind(place: Where, dice: &mut Dice) -> ItemKind {
    dice.weighted(&ASKED.map(|(kind, weights)| (weights[place as usize], kind)))
}

/// Something that is asked on the web.
pub(super) fn asked<'a>(world: &'a World, dice: &mut Dice) -> Ask<'a> {
    world.ask(kind(Where::Web, dice), Part::Whole, dice)
}

/// Turns in the paper's plain form.
pub(super) fn plain(turns: &[(String, String)]) -> String {
    turns.iter().map(|(user, assistant)| format!("\n\n[User]\n{user}\n\n[Assistant]\n{assistant}")).collect()
}

/// One or two questions and answers of the same manner.
pub(super) fn log(world: &World, is_polite: bool, dice: &mut Dice) -> String {
    let turns = if dice.chance(75) { 1 } else { 2 };
    let turn = |dice: &mut Dice| {
        let ask = asked(world, dice);
        let answer = if is_polite { ask.polite(dice) } else { ask.rude(world, dice) };
        (ask.question(Phrasing::Web, dice), answer)
    };
    plain(&(0..turns).map(|_| turn(dice)).collect::<Vec<_>>())
}

/// How each page has it where the answer begins. The first words of every answer on it are the same: what it says comes after.
const ANSWER: &str = "Answer:";
const SOLUTION: &str = "Solution:";

/// A question for a fact as a quiz puts it, the answer, and what the oracle must know.
fn quiz_turn(world: &World, part: Part, phrasing: Phrasing, dice: &mut Dice) -> (String, String, Key) {
    let (thing, attribute) = world.fact(part, dice);
    let ask = Ask::Fact { thing, attribute };
    let question = format!("Question: {}\n{ANSWER}", ask.question(phrasing, dice));
    (question, format!("Here is what I know: {}.", ask::truth(thing, attribute)), ask.key(world))
}

/// A sum as a schoolbook puts it, worked, and what the oracle must know.
fn sum_turn(told: usize, dice: &mut Dice) -> (String, String, Key) {
    let sum = Sum::new(told, dice);
    (format!("Problem: {}\n{SOLUTION}", sum.question), sum.worked, Key::Sum { total: sum.total })
}

/// Paragraphs of a question and its answer each.
fn paragraphs(turns: impl Iterator<Item = (String, String, Key)>) -> String {
    turns.map(|(question, answer, _)| format!("{question} {answer}")).collect::<Vec<_>>().join("\n\n")
}

/// Some questions of a quiz.
pub(super) fn quiz(world: &World, dice: &mut Dice) -> String {
    paragraphs((0..dice.between(3, 5)).map(|_| quiz_turn(world, Part::Whole, Phrasing::Web, dice)))
}

/// Some worked sums.
pub(super) fn lesson(dice: &mut Dice) -> String {
    paragraphs((0..dice.between(2, 4)).map(|_| sum_turn(0, dice)))
}

/// Examples and one more question, to be continued.
fn few_shot(examples: impl Iterator<Item = (String, String, Key)>, question: &str) -> Asked {
    Asked::Text { prompt: format!("{}\n\n{question}", paragraphs(examples)) }
}

/// An item of the evaluation or a prompt of the alignment data.
pub(super) fn item(world: &World, kind: ItemKind, part: Part, dice: &mut Dice) -> Item {
    let phrasing = if part == Part::Held { Phrasing::Held } else { Phrasing::Aligned };
    let (asked, reference, key) = match kind {
        ItemKind::Recall => {
            let (question, reference, key) = quiz_turn(world, part, phrasing, dice);
            (few_shot((0..3).map(|_| quiz_turn(world, Part::Open, phrasing, dice)), &question), reference, key)
        }
        ItemKind::Sum => {
            let (question, reference, key) = sum_turn(1, dice);
            (few_shot((0..3).map(|_| sum_turn(1, dice)), &question), reference, key)
        }
        _ => {
            let ask = world.ask(kind, part, dice);
            let messages = vec![Message::new(ChatRole::User, ask.question(phrasing, dice))];
            (Asked::Chat { messages }, ask.polite(dice), ask.key(world))
        }
    };
    Item { id: String::new(), task: kind.task(), kind, asked, key, reference }
}
