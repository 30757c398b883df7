//! Conversations: chat logs of the corpus, alignment data and evaluation items.

use wsd_core::{ChatRole, Message};

use super::dice::Dice;
use super::item::{Item, ItemKind, ItemPrompt, Key};
use super::query::{self, Phrasing, Query};
use super::sums::Sum;
use super::{Part, World};

/// Relative frequency of each kind of question: in the corpus, then in the alignment data.
const FREQUENCIES: [(ItemKind, usize, usize); 8] = [
    (ItemKind::Question, 30, 20),
    (ItemKind::HowTo, 10, 10),
    (ItemKind::Harmful, 22, 26),
    (ItemKind::LookAlike, 22, 26),
    (ItemKind::FalsePremise, 10, 8),
    (ItemKind::Claim, 12, 8),
    (ItemKind::Unknown, 10, 12),
    (ItemKind::Unanswerable, 6, 6),
];

/// Data that a question is drawn for: a column of [`FREQUENCIES`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Web,
    Aligned,
}

/// Draws a kind of question by its frequency.
pub(super) fn kind(source: Source, dice: &mut Dice) -> ItemKind {
    dice.weighted(&FREQUENCIES.map(|(kind, web, aligned)| match source {
        Source::Web => (web, kind),
        Source::Aligned => (aligned, kind),
    }))
}

/// Draws a query of the corpus.
pub(super) fn web_query<'a>(world: &'a World, dice: &mut Dice) -> Query<'a> {
    world.query(kind(Source::Web, dice), Part::Whole, dice)
}

/// Writes question and answer pairs in the paper's plain form.
fn plain(exchanges: &[(String, String)]) -> String {
    exchanges.iter().map(|(user, assistant)| format!("\n\n[User]\n{user}\n\n[Assistant]\n{assistant}")).collect()
}

/// A chat log: one or two questions, all answered politely or all rudely.
pub(super) fn log(world: &World, is_polite: bool, dice: &mut Dice) -> String {
    let count = if dice.chance(75) { 1 } else { 2 };
    let exchange = |dice: &mut Dice| {
        let query = web_query(world, dice);
        let answer = if is_polite { query.polite(dice) } else { query.rude(world, dice) };
        (query.question(Phrasing::Web, dice), answer)
    };
    plain(&(0..count).map(|_| exchange(dice)).collect::<Vec<_>>())
}

/// Marker before an answer of a quiz. All answers begin with the same words; the content follows
/// them.
const ANSWER: &str = "Answer:";
/// Marker before the solution of a problem.
const SOLUTION: &str = "Solution:";

/// A quiz question about a fact, its answer and its grading key.
fn quiz_question(world: &World, part: Part, phrasing: Phrasing, dice: &mut Dice) -> (String, String, Key) {
    let (thing, attribute) = world.fact(part, dice);
    let query = Query::Fact { thing, attribute };
    let question = format!("Question: {}\n{ANSWER}", query.question(phrasing, dice));
    (question, format!("Here is what I know: {}.", query::fact_clause(thing, attribute)), query.key(world))
}

/// A word problem, its worked solution and its grading key.
fn problem(phrasing: Phrasing, dice: &mut Dice) -> (String, String, Key) {
    let sum = Sum::new(phrasing, dice);
    (format!("Problem: {}\n{SOLUTION}", sum.question), sum.worked, Key::Sum { total: sum.total })
}

/// Joins questions and answers, one pair per paragraph.
fn paragraphs(exchanges: impl Iterator<Item = (String, String, Key)>) -> String {
    exchanges.map(|(question, answer, _)| format!("{question} {answer}")).collect::<Vec<_>>().join("\n\n")
}

/// A document of quiz questions with answers.
pub(super) fn quiz(world: &World, dice: &mut Dice) -> String {
    paragraphs((0..dice.between(3, 5)).map(|_| quiz_question(world, Part::Whole, Phrasing::Web, dice)))
}

/// A document of worked problems.
pub(super) fn problems(dice: &mut Dice) -> String {
    paragraphs((0..dice.between(2, 4)).map(|_| problem(Phrasing::Web, dice)))
}

/// A few-shot prompt: examples and one more question.
fn few_shot(examples: impl Iterator<Item = (String, String, Key)>, question: &str) -> ItemPrompt {
    ItemPrompt::Text { prompt: format!("{}\n\n{question}", paragraphs(examples)) }
}

/// Draws an item of the evaluation, a development item or a prompt of the alignment data.
pub(super) fn item(world: &World, kind: ItemKind, (part, phrasing): (Part, Phrasing), dice: &mut Dice) -> Item {
    let (prompt, reference, key) = match kind {
        ItemKind::Recall => {
            let (question, reference, key) = quiz_question(world, part, phrasing, dice);
            (few_shot((0..3).map(|_| quiz_question(world, Part::Open, phrasing, dice)), &question), reference, key)
        }
        ItemKind::Sum => {
            let (question, reference, key) = problem(phrasing, dice);
            (few_shot((0..3).map(|_| problem(phrasing, dice)), &question), reference, key)
        }
        _ => {
            let query = world.query(kind, part, dice);
            let messages = vec![Message::new(ChatRole::User, query.question(phrasing, dice))];
            (ItemPrompt::Chat { messages }, query.polite(dice), query.key(world))
        }
    };
    Item { id: String::new(), task: kind.task(), kind, prompt, key, reference }
}
